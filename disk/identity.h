/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * identity.h - one number for the size and the content of a disk
 */
#ifndef COLO_DISK_IDENTITY_H
#define COLO_DISK_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/storage.h"

/* Called now and then: everything before `done` was looked at. */
typedef void identity_progress_fn(void *opaque, uint64_t done);

/* Equal for equal size and content, whether zeroes are holes or written; never 0. *blank: nothing but zeroes.
 * 0 or -errno. */
int identity_compute(struct storage *st, uint64_t *identity, bool *blank, identity_progress_fn *progress,
		     void *opaque);

#endif
