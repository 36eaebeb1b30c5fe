/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fdio.h - what the disk manager's files have in common; 0 or -errno
 */
#ifndef COLO_DISK_FDIO_H
#define COLO_DISK_FDIO_H

#include <stddef.h>
#include <stdint.h>

/* All of it, or an error after any part of it. */
int fdio_write(int fd, const void *buf, size_t len, uint64_t off);
/* The names in it are on stable storage. */
int fdio_sync_directory(const char *dir);

#endif
