/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pvm_cache.h - the secondary's log of what the PVM wrote since the last committed checkpoint
 *
 * One thread appends (the link's receiver), one applies or drops (the control thread).
 */
#ifndef COLO_DISK_PVM_CACHE_H
#define COLO_DISK_PVM_CACHE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PVM_MARKS 256    /* boundaries received and not committed yet */
#define PVM_CHUNK 1048576u

struct pvm_chunk;

struct pvm_mark {
	uint64_t epoch;
	uint64_t records; /* how many were appended before it, ever */
};

struct pvm_cache {
	pthread_mutex_t lock;
	pthread_cond_t room;
	struct pvm_chunk *first, *last, *spare;
	unsigned chunks, spares, max_chunks;
	uint64_t appended, applied; /* records, ever */
	uint64_t bytes;             /* of data held */
	struct pvm_mark marks[PVM_MARKS];
	unsigned nmarks;
	uint64_t last_epoch;
	uint64_t debt_us; /* see throttle() */
	bool reserved, warned, interrupted;
};

/* What to do with each write; data is NULL for zeroes. 0 or -errno. */
typedef int pvm_apply_fn(void *opaque, uint64_t offset, const void *data, uint32_t length);

int pvm_cache_init(struct pvm_cache *c, uint64_t max_bytes);
void pvm_cache_destroy(struct pvm_cache *c);

/* Room for one record with `length` bytes of data (at most 256 KiB), which the caller fills before
 * pvm_cache_append(). Waits while the cache is full. -EINTR when interrupted, -ENOMEM. */
int pvm_cache_reserve(struct pvm_cache *c, uint32_t length, void **data);
/* Append what was reserved. with_data: the reserved bytes; otherwise zeroes, and length may be more than
 * was reserved. True when this filled the cache to half: time to ask for a checkpoint. */
bool pvm_cache_append(struct pvm_cache *c, uint64_t offset, uint32_t length, bool with_data);
/* -EPROTO: epoch not above the last one; -ENOSPC: too many uncommitted boundaries. */
int pvm_cache_mark(struct pvm_cache *c, uint64_t epoch);

/* Apply everything up to the boundary of epoch, in order, then forget it. -ENOENT: that boundary is not
 * here. When fn fails its error is returned, nothing is forgotten, and a retry starts over. */
int pvm_cache_commit(struct pvm_cache *c, uint64_t epoch, pvm_apply_fn *fn, void *opaque);
/* Forget everything. The appending thread must have ended. */
void pvm_cache_drop(struct pvm_cache *c);
/* Make the appending thread's waits end with -EINTR (or allow them again). */
void pvm_cache_interrupt(struct pvm_cache *c, bool on);
uint64_t pvm_cache_bytes(struct pvm_cache *c);
/* May [off, off + len) be touched by a record that is not committed? Never false if it is. For the
 * appending thread. */
bool pvm_cache_touches(struct pvm_cache *c, uint64_t off, uint64_t len);
/* How many records were appended, and how many of those are wholly in storage or dropped (ever, both):
 * with that the receiver knows which blocks storage has as of its place in the stream. `applied` must not
 * move before the last write of a commit is done. */
uint64_t pvm_cache_appended(struct pvm_cache *c);
uint64_t pvm_cache_applied(struct pvm_cache *c);

#endif
