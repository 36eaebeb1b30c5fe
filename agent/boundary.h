/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * boundary.h - mark the epoch boundary in the disks' streams (DISK_BOUNDARY of disk/disk_proto.h)
 */
#ifndef COLO_AGENT_BOUNDARY_H
#define COLO_AGENT_BOUNDARY_H

#include "util.h"

/* VM stopped, disks drained: ask all disk managers for the boundary of @epoch. They work meanwhile. */
int boundary_send(const int *fd, unsigned int n, uint64_t epoch, struct errtext *err);
/* Have the answers of all. -ETIMEDOUT after 200 ms. */
int boundary_wait(const int *fd, unsigned int n, uint64_t epoch, struct errtext *err);

#endif
