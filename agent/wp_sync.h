/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * wp_sync.h - synchronous write protection, for wp.c only
 */
#ifndef COLO_AGENT_WP_SYNC_H
#define COLO_AGENT_WP_SYNC_H

#include "pagemap.h"
#include "ram.h"

/* Takes @fd, a userfaultfd whose blocks are registered. Nothing is protected before wp_sync_clean(). */
int wp_sync_start(int fd, const struct ram *ram, struct errtext *err);
void wp_sync_stop(void);
int wp_sync_clean(const struct ram *ram, struct errtext *err);
/* wp_next() for WP_WRITTEN */
int wp_sync_next(struct pagemap_iter *it, struct errtext *err);

#endif
