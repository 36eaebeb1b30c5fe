/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * redo.h - the secondary's journal: what the PVM wrote, up to boundaries, before any of it is on the disk
 *
 * DIR/NAME.journal is a ring of slots. The PVM cache (pvm_cache.h) is a list of chunks of the same
 * size and layout: chunk n of a session lies in slot n modulo the number of slots. Every record
 * carries a hash seeded with session, chunk number and place, so that nothing of an earlier lap or
 * session is ever taken for part of this one. A boundary is a record.
 *
 *   received   records go to a chunk in memory; the chunk goes to its slot when it is full, or at a boundary
 *   boundary   fdatasync of the journal; only then is DISK_EV_BOUNDARY sent, so that a checkpoint
 *              that is held is on stable storage
 *   commit     records up to the boundary are written to the disk, through the page cache
 *   settled    fdatasync of the disk; then the tail moves past what was committed before, and slots are free
 *
 * After a power loss everything from the tail to the last boundary is applied again, which is right
 * however much of it the disk has already.
 *
 * Layout of a slot: records one after another, 8-aligned, each header followed by its data if it has any.
 * What follows a boundary begins in a new block of 4 KiB: a block that a stable boundary depends on is
 * never written again, so a torn write cannot harm it. Where no header fits any more the chunk ends;
 * otherwise it ends with a REDO_END. A chunk without its end, and everything after it, does not count
 * beyond its last whole record.
 *
 * The file is used by one process at a time, which holds the lock of the metadata beside it.
 * Numbers are in host byte order. All functions return 0 or -errno.
 */
#ifndef COLO_DISK_REDO_H
#define COLO_DISK_REDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDO_BLOCK 4096u
#define REDO_SLOT (1048576u + REDO_BLOCK) /* four of the largest writes fit with their headers */
#define REDO_SLOTS_LEAST 15u /* 16 MiB */

struct redo {
	int fd;         /* -1: not open */
	uint64_t slots; /* as the file is now */
	uint64_t want;  /* slots asked for, see redo_reset() */
};

enum redo_kind { REDO_WRITE = 1, REDO_ZERO, REDO_BOUNDARY, REDO_END };

struct redo_record {
	uint64_t hash;    /* XXH3 of what follows, data included */
	uint64_t offset;  /* BOUNDARY: epoch */
	uint32_t length;
	uint32_t kind;    /* enum redo_kind */
};
_Static_assert(sizeof(struct redo_record) == 24, "journal layout");

/* A journal of about `bytes`, with its space allocated: it must not run out of it later. One that
 * is there keeps its size until redo_reset(), because its records may count. `why` says what was
 * wrong. */
int redo_open(struct redo *j, const char *dir, const char *name, uint64_t bytes, char *why, size_t why_size);
void redo_close(struct redo *j);
/* Nothing in it counts, on stable storage: it gets the size that was asked for, if there is room. */
int redo_reset(struct redo *j);
/* from: a multiple of REDO_BLOCK. The kernel begins to write it out at once. */
int redo_write(struct redo *j, uint64_t chunk, uint32_t from, const void *data, uint32_t length);
int redo_read(struct redo *j, uint64_t chunk, void *image);
int redo_sync(struct redo *j);

/* ---- a chunk's image in memory ---- */

uint64_t redo_seed(uint64_t session, uint64_t chunk);
/* How much a record takes, up to the next one's place; stored: bytes of data. */
uint32_t redo_next(uint32_t pos, uint32_t kind, uint32_t stored);
/* Puts a record around the data that is at pos + sizeof(struct redo_record) already. */
void redo_put(void *image, uint32_t pos, uint64_t seed, uint32_t kind, uint64_t offset, uint32_t length);
/* The record at pos, NULL if there is none that is whole. */
const struct redo_record *redo_at(const void *image, uint32_t pos, uint64_t seed);
static inline uint32_t redo_stored(const struct redo_record *rec)
{
	return rec->kind == REDO_WRITE ? rec->length : 0;
}
/* May there be a record, of END at least, at pos? */
static inline bool redo_room(uint32_t pos)
{
	return pos <= REDO_SLOT - sizeof(struct redo_record);
}

/* ---- recovery ---- */

/* Last epoch whose boundary is there, from chunk `tail` of `session` on; 0: none. */
int redo_last_epoch(struct redo *j, uint64_t session, uint64_t tail, uint64_t *epoch);
/* fn for each record up to the boundary of `epoch`, in order; data NULL: zeroes. -ENODATA, before
 * any call of fn: that boundary is not there. */
typedef int redo_apply_fn(void *opaque, uint64_t offset, const void *data, uint32_t length);
int redo_replay(struct redo *j, uint64_t session, uint64_t tail, uint64_t epoch, redo_apply_fn *fn,
		void *opaque);

#endif
