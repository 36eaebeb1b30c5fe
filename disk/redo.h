/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * redo.h - the secondary's journal: what the PVM wrote, up to boundaries, before any of it is on the disk
 *
 * DIR/NAME.journal is a ring of slots of 1 MiB. The PVM cache (pvm_cache.h) is a list of chunks of the same
 * size and layout: chunk n of a session lies in slot n modulo the number of slots. Every record carries a
 * hash seeded with session and chunk number, so that nothing of an earlier lap or session is ever taken
 * for part of this one. A boundary is a record.
 *
 *   received   records go to a chunk in memory; the chunk goes to its slot when it is full, or at a boundary
 *   boundary   fdatasync of the journal; only then is DISK_EV_BOUNDARY sent, so that a checkpoint
 *              that is held is on stable storage
 *   commit     records up to the boundary are written to the disk, through the page cache
 *   settled    fdatasync of the disk; then the tail moves past what was committed before, and slots are free
 *
 * After a power loss everything from the tail to the last boundary is applied again, which is right however
 * much of it the disk has already.
 */
#ifndef COLO_DISK_REDO_H
#define COLO_DISK_REDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDO_SLOT 1048576u
#define REDO_SLOTS_LEAST 16u

struct redo {
	int fd;
	uint64_t slots;
};

enum redo_kind { REDO_WRITE = 1, REDO_ZERO, REDO_BOUNDARY };

struct redo_record {
	uint64_t hash;    /* XXH3 of what follows, data included; seed: session and chunk number */
	uint64_t offset;  /* BOUNDARY: epoch */
	uint32_t length;
	uint32_t kind;    /* enum redo_kind; 0: end of the chunk's records */
};

/* Makes the file as large as asked for, with its space allocated: it must not run out of it later. */
int redo_open(struct redo *j, const char *dir, const char *name, uint64_t bytes, char *why, size_t why_size);
void redo_close(struct redo *j);
int redo_write(struct redo *j, uint64_t chunk, uint32_t from, const void *data, uint32_t length);
int redo_read(struct redo *j, uint64_t chunk, uint32_t from, void *data, uint32_t length);
int redo_sync(struct redo *j);

/* Last epoch whose boundary is there, from chunk `tail` of `session` on; 0: none. */
int redo_last_epoch(struct redo *j, uint64_t session, uint64_t tail, uint64_t *epoch);
/* fn for each record up to the boundary of `epoch`, in order; data NULL: zeroes. */
typedef int redo_apply_fn(void *opaque, uint64_t offset, const void *data, uint32_t length);
int redo_replay(struct redo *j, uint64_t session, uint64_t tail, uint64_t epoch, redo_apply_fn *fn,
		void *opaque);

#endif
