/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * cm_inside.c - what tests want to know of a cm and nobody else may
 */
#include "net/cm_priv.h"

bool inside_keeps_nothing(const struct cm *c);

bool inside_keeps_nothing(const struct cm *c)
{
	return c->pool.used == 0 && c->nfrags == 0 && !c->heard.head;
}
