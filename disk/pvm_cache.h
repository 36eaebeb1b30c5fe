/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pvm_cache.h - the secondary's log of what the PVM wrote since the last committed checkpoint
 *
 * In memory and in the journal (redo.h). One thread appends (the link's receiver), one applies or drops
 * (the control thread), one says what is settled. All functions return 0 or -errno unless said otherwise.
 */
#ifndef COLO_DISK_PVM_CACHE_H
#define COLO_DISK_PVM_CACHE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/redo.h"

#define PVM_MARKS 256 /* boundaries received and not committed yet */

struct pvm_chunk;

struct pvm_mark {
	uint64_t epoch;
	uint64_t records; /* how many were appended before it, ever; boundaries are records, too */
	uint64_t chunk;   /* that it is in */
};

struct pvm_cache {
	struct redo *journal;
	uint64_t size;              /* of the disk */
	pthread_mutex_t lock;       /* guards what follows */
	pthread_cond_t room;
	struct pvm_chunk *first, *last; /* not wholly applied; the last one is appended to */
	struct pvm_chunk *reading;  /* commit is at it */
	struct pvm_spare *spare;    /* memory of chunks, for reuse */
	unsigned spares, spares_least; /* now; the fewest since the last commit */
	unsigned chunks, in_memory, max_in_memory;
	uint64_t session, next, tail; /* chunk numbers: the next new one, the oldest whose slot is not free */
	uint64_t appended, applied; /* records, ever */
	uint64_t applied_epoch, applied_tail; /* of the last commit; 0: none in this session */
	uint64_t bytes;             /* of data held */
	struct pvm_mark marks[PVM_MARKS];
	unsigned nmarks;
	uint64_t last_epoch;
	uint64_t debt_us; /* see throttle() */
	uint64_t patience_us;
	bool begun, reserved, warned, interrupted;
	void (*short_of_slots)(void *opaque); /* called without the lock: settle, and soon */
	void *opaque;
	/* private to one thread each */
	uint64_t *touched; /* appending: per block of 64 KiB the last record that touches it */
	char *back;        /* committing: a chunk read back */
};

/* What to do with each write; data is NULL for zeroes. 0 or -errno. */
typedef int pvm_apply_fn(void *opaque, uint64_t offset, const void *data, uint32_t length);

/* For a disk of `size` bytes; at most about max_bytes of memory. The journal may be opened later, but
 * before pvm_cache_begin(). */
int pvm_cache_init(struct pvm_cache *c, struct redo *journal, uint64_t size, uint64_t max_bytes);
void pvm_cache_destroy(struct pvm_cache *c);
/* How long the appending thread waits for room if nothing is committed meanwhile; 0 (default): for
 * ever. Before it runs. */
void pvm_cache_set_patience(struct pvm_cache *c, unsigned ms);
/* Called from the appending thread when it waits for slots to be settled, or soon will. */
void pvm_cache_on_short(struct pvm_cache *c, void (*fn)(void *opaque), void *opaque);

/* Forget everything; what is appended from now on is of a new session with a random number, and not
 * before pvm_cache_begin(). The appending thread must have ended. */
void pvm_cache_drop(struct pvm_cache *c);
/* The journal's present content counts no more, on stable storage: it may be overwritten. */
int pvm_cache_begin(struct pvm_cache *c);

/* Room for one record with `length` bytes of data (at most 256 KiB), which the caller fills before
 * pvm_cache_append(). Waits while the journal is full; -EXFULL: in vain. -EINTR when interrupted,
 * -ENOMEM, -EPERM before pvm_cache_begin(), or the journal's error. */
int pvm_cache_reserve(struct pvm_cache *c, uint32_t length, void **data);
/* Append what was reserved. with_data: the reserved bytes; otherwise zeroes, and length may be more than
 * was reserved. True when this filled memory or journal to half: time to ask for a checkpoint. */
bool pvm_cache_append(struct pvm_cache *c, uint64_t offset, uint32_t length, bool with_data);
/* On stable storage when it returns 0. -EPROTO: epoch not above the last one; -EXFULL: too many
 * uncommitted boundaries; otherwise as pvm_cache_reserve(). Does not wait for room. */
int pvm_cache_mark(struct pvm_cache *c, uint64_t epoch);
/* May [off, off + len) be touched by a record that is not committed? Never false if it is. For the
 * appending thread. */
bool pvm_cache_touches(struct pvm_cache *c, uint64_t off, uint64_t len);

/* Apply everything up to the boundary of epoch, in order, then forget it. -ENOENT: that boundary is not
 * here. When fn fails its error is returned, nothing is forgotten, and a retry starts over. */
int pvm_cache_commit(struct pvm_cache *c, uint64_t epoch, pvm_apply_fn *fn, void *opaque);
/* Make the appending thread's waits end with -EINTR (or allow them again). */
void pvm_cache_interrupt(struct pvm_cache *c, bool on);

/* Where the last commit came to. What it and those before it wrote needs no chunk before `tail`. */
struct pvm_applied {
	uint64_t session, epoch, tail; /* epoch 0: no commit in this session yet */
};
struct pvm_applied pvm_cache_applied(struct pvm_cache *c);
/* That is on stable storage, in disk and metadata: the slots before a->tail are free. */
void pvm_cache_settled(struct pvm_cache *c, const struct pvm_applied *a);
/* Half of the journal is taken by what is committed but not settled. */
bool pvm_cache_half_unsettled(struct pvm_cache *c);

uint64_t pvm_cache_bytes(struct pvm_cache *c);         /* of data that waits for a commit */
uint64_t pvm_cache_memory_bytes(struct pvm_cache *c);  /* in use */
uint64_t pvm_cache_journal_bytes(struct pvm_cache *c); /* slots that are not free */

#endif
