/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * writeback.h - the file in which a failover puts what the SVM wrote, before it counts
 *
 * DIR/NAME.writeback: a header, then runs of whole blocks of the SVM cache, each a record followed by its
 * data; a run of zeroes has none. Size and hash of all of it are kept in the metadata, which alone say
 * whether the file counts; so it may be written over the last one, and a torn one is recognised. Numbers
 * are in host byte order. All functions return 0 or -errno.
 */
#ifndef COLO_DISK_WRITEBACK_H
#define COLO_DISK_WRITEBACK_H

#include <stdint.h>

#include "disk/svm_cache.h"

struct writeback_seal {
	uint64_t bytes, hash; /* of the file */
};

/* All that the cache holds; it, its size and its name are on stable storage when this returns. Nobody may
 * write to the cache meanwhile. */
int writeback_save(const char *dir, const char *name, struct svm_cache *c, struct writeback_seal *seal);
/* fn for each run, in pieces of at most 1 MiB if they have data; data NULL: zeroes. -EBADMSG, before any
 * call of fn: the file is missing or is not the one that was sealed. */
typedef int writeback_fn(void *opaque, uint64_t offset, const void *data, uint64_t length);
int writeback_load(const char *dir, const char *name, uint64_t disk_size, const struct writeback_seal *seal,
		   writeback_fn *fn, void *opaque);
/* It counts no more, on stable storage: give its space back. */
void writeback_remove(const char *dir, const char *name);

#endif
