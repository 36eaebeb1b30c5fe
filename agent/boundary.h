/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * boundary.h - mark the epoch boundary in the disk's stream (DISK_BOUNDARY of disk/disk_proto.h)
 */
#ifndef COLO_AGENT_BOUNDARY_H
#define COLO_AGENT_BOUNDARY_H

#include "util.h"

/* VM stopped, disks drained: ask for the boundary of @epoch. The disk manager works meanwhile. */
int boundary_send(int fd, uint64_t epoch, struct errtext *err);
/* Have its answer. -ETIMEDOUT after 200 ms. */
int boundary_wait(int fd, uint64_t epoch, struct errtext *err);

#endif
