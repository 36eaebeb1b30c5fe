/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * svm_cache.h - what the SVM wrote since the last checkpoint, laid over storage
 *
 * Functions that change a range want it locked (range.h) by the caller; reading needs no lock. Ranges
 * must lie within the disk. 0 or -errno.
 */
#ifndef COLO_DISK_SVM_CACHE_H
#define COLO_DISK_SVM_CACHE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/storage.h"

struct svm_cache {
	struct storage *storage;
	pthread_mutex_t lock;
	uint32_t **tables;       /* one per 2 MiB of disk; NULL: nothing cached there */
	uint64_t ntables, tables_used;
	char *pool;              /* address space for max pages, filled as needed */
	uint32_t pages, next_page, max_pages;
	uint32_t free_page;      /* head of the list of free pages, 0: none */
	_Atomic uint64_t blocks; /* cached, in whatever form */
	uint64_t stored;         /* of these, with data: in pages or spilled */
	uint64_t ask_at;         /* so many of them, and it is time for a checkpoint */
	int spill_fd;            /* -1 until needed */
	char *spill_dir;
};

/* spill_dir: where an unlinked file may grow once max_bytes of memory are full; copied */
int svm_cache_init(struct svm_cache *c, struct storage *st, uint64_t max_bytes, const char *spill_dir);
void svm_cache_destroy(struct svm_cache *c);

int svm_cache_read(struct svm_cache *c, void *buf, size_t len, uint64_t off);
int svm_cache_write(struct svm_cache *c, const void *buf, size_t len, uint64_t off);
int svm_cache_zero(struct svm_cache *c, uint64_t len, uint64_t off);
/* Forget all. Nothing may run in parallel. */
void svm_cache_drop(struct svm_cache *c);

/* The first run of cached blocks that [from, end) touches, at most `max` bytes of it, clipped to the disk's
 * end. False when there is none. */
bool svm_cache_next(struct svm_cache *c, uint64_t from, uint64_t end, uint64_t max, uint64_t *off,
		    uint64_t *len);
/* As this from `from` to the disk's end, but a run of zeroes, however long, or of blocks with data, at most
 * `max` bytes. */
bool svm_cache_next_run(struct svm_cache *c, uint64_t from, uint64_t max, uint64_t *off, uint64_t *len,
			bool *zero);
/* Write the cached blocks that [off, off + len) touches to storage and forget them. */
int svm_cache_write_back(struct svm_cache *c, uint64_t off, uint64_t len);
/* The guest is about to write [off, off + len) to storage: blocks it covers in part are written back. */
int svm_cache_settle_edges(struct svm_cache *c, uint64_t off, uint64_t len);
/* The guest has written [off, off + len) to storage: blocks it covers whole are out of date. */
void svm_cache_forget(struct svm_cache *c, uint64_t off, uint64_t len);

static inline bool svm_cache_empty(struct svm_cache *c)
{
	return atomic_load(&c->blocks) == 0;
}

uint64_t svm_cache_bytes(struct svm_cache *c);
uint64_t svm_cache_memory_bytes(struct svm_cache *c); /* in use */
/* True when half of the memory or 16 MiB are full, whichever is less, and again each time as much has
 * come on top, until a drop: a checkpoint is wanted, as a failover has to make all of it stable. */
bool svm_cache_wants_checkpoint(struct svm_cache *c);

#endif
