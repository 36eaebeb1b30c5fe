/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * identity.h - one number for the size and the content of a disk
 */
#ifndef COLO_DISK_IDENTITY_H
#define COLO_DISK_IDENTITY_H

#include <stdint.h>

#include "disk/storage.h"

/* Equal for equal size and content, whether zeroes are holes or written. 0 or -errno. */
int identity_compute(struct storage *st, uint64_t *identity);

#endif
