/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * wp.h - notice writes to guest RAM: userfaultfd write protection in asynchronous mode
 */
#ifndef COLO_AGENT_WP_H
#define COLO_AGENT_WP_H

#include "ram.h"
#include "util.h"

/* Register all blocks, once; from then on PAGEMAP_DIRTY scans tell what was written. */
int wp_arm(const struct ram *ram, struct errtext *err);
void wp_disarm(void);
/* Call everything clean. */
int wp_clean(const struct ram *ram, struct errtext *err);

#endif
