/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dirty.h - which blocks may differ from what the peer has: in memory, and by meta.h on stable storage
 *
 * What is noted covers every block that may differ from the peer's last committed checkpoint, of the
 * generation lineage.h calls base. It is made smaller in rounds, one at a time: at a boundary, while the
 * VM stands still, all that was noted is set aside (`older`); when the peer has committed this checkpoint or
 * a later one, and our own storage is stable as far, `older` is forgotten. What counts is always both
 * together.
 */
#ifndef COLO_DISK_DIRTY_H
#define COLO_DISK_DIRTY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk/bitmap.h"

struct disk;

struct dirty {
	pthread_mutex_t lock; /* guards the rest, and moving bits between the two; noting needs no lock */
	struct bitmap older;
	uint64_t epoch;       /* whose commit ends the round; 0: there is no round */
	uint64_t changes;     /* of storage, when it began */
	uint64_t began_ns;    /* the last round */
};

/* After d->changed, of the same size. 0 or -ENOMEM. */
int dirty_init(struct disk *d);
void dirty_destroy(struct disk *d);

/* Before anything but a commit writes to [off, off + len) of storage: noted, and so on stable storage that a
 * crash cannot lose it. Nearly free where others wrote lately. 0 or -errno: do not write then. */
int dirty_note(struct disk *d, uint64_t off, uint64_t len);

/* Primary, at the boundary of `epoch`; the VM stands still. Never waits for storage. */
void dirty_boundary(struct disk *d, uint64_t epoch);
/* Primary: the peer has committed `epoch`, by which it also has adopted our generation. */
int dirty_committed(struct disk *d, uint64_t epoch);
/* Primary: the link is gone (its threads have ended). A round that was open is void. */
void dirty_unlinked(struct disk *d);
/* Primary, before it says SYNCED: from now on the peer may take over. */
int dirty_share(struct disk *d);
/* Secondary: lineage_adopt() is on stable storage; there is no difference. */
void dirty_adopted(struct disk *d);

/* A consistent copy of what counts. dst must not be initialised. 0 or -ENOMEM. */
int dirty_copy(struct disk *d, struct bitmap *dst);
uint64_t dirty_bytes(struct disk *d);
/* Blocks of a region that count: meta_blocks_fn, opaque is the disk. */
uint64_t dirty_blocks(void *opaque, uint64_t region);
/* The settling thread, every few seconds. */
int dirty_settle(struct disk *d);

#endif
