/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fold.h - give back what a VM that serves for good no longer needs of its image
 */
#ifndef COLO_AGENT_FOLD_H
#define COLO_AGENT_FOLD_H

#include "ram.h"
#include "util.h"

/* From now on, in the background. Nobody may drop private pages any more. Blocks without an image are passed over. */
int fold_start(const struct ram *ram, struct errtext *err);

#endif
