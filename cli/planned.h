/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * planned.h - colo switchover and colo pause: ask, and wait for what becomes of it
 */
#ifndef COLO_PLANNED_H
#define COLO_PLANNED_H

#include "daemon/config.h"

/* exit statuses: 0 done, 1 refused or not done (yet); what is missing was said */
int planned_switchover(const struct config *c);
int planned_pause(const struct config *c);

#endif
