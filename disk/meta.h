/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * meta.h - what is known of a disk beyond its content, on stable storage: DIR/NAME.meta
 *
 * Lineage, the state of journal and write-back, and the blocks that may differ from the peer's. The
 * bitmap is in memory, in blocks of 64 KiB; on stable storage is a coarse map of regions of 4 MiB, set
 * before the first write to a region reaches the disk (write-ahead), and the fine bitmap as it was a few
 * seconds ago. A region leaves the coarse map when its part of the fine one is stable. After a crash all
 * of a coarse region counts as changed; comparing hashes finds what really was. (DRBD: activity log and
 * bitmap.)
 *
 * The header is kept twice, written in turn, each with a sequence number and a hash: a header is either
 * wholly there or not. All functions return 0 or -errno. meta_file.h has the layout.
 */
#ifndef COLO_DISK_META_H
#define COLO_DISK_META_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/bitmap.h"
#include "disk/lineage.h"

#define META_REGION (4u << 20)

enum meta_redo {
	META_NO_REDO,        /* the journal holds nothing that counts */
	META_REDO,           /* a secondary's: see redo.h */
};
enum meta_writeback {
	META_NO_WRITEBACK,
	META_PREPARED,       /* DIR/NAME.writeback is complete; it counts if the failover does (see role.c) */
	META_WRITEBACK,      /* it is part of the content and is being written to the disk */
};

/* what is stable as one: changed by meta_change() and meta_update() only */
struct meta_state {
	uint64_t size;          /* of the disk, bytes */
	struct lineage lineage;
	uint64_t epoch;         /* of the last checkpoint known to be wholly in storage; 0: none */
	uint64_t redo_session, redo_tail; /* see redo.h */
	uint64_t redo_upto;     /* PREPARED, WRITEBACK: the journal counts up to this epoch, 0: no part of it does */
	uint32_t redo, writeback;         /* enum meta_redo, enum meta_writeback */
	uint64_t writeback_bytes, writeback_hash; /* of the file */
	uint64_t failover;      /* the generation that the failover began, or would; kept when it is done, so that
				 * a disk which was still PREPARED learns of it (DISK_HELLO_FAILED_OVER); 0: none */
	uint64_t stamp_mtime_ns;/* of the disk's file at the last clean end; 0: unknown (crash, block device) */
};

struct meta_sector;

struct meta {
	int fd;
	pthread_mutex_t update; /* held by meta_change(), before lock */
	pthread_mutex_t settle; /* held by meta_settle(), before lock */
	pthread_mutex_t lock;   /* guards state and all that follows; heat is also tested without it */
	pthread_cond_t done;
	struct meta_state state;
	uint64_t sequence;        /* of the header that holds it */
	uint64_t regions;
	_Atomic uint8_t *heat;    /* enum heat of meta_map.c, one per region */
	uint64_t asked, stable;   /* requests to heat: how many there were, how many are on stable storage */
	bool syncing;
	_Atomic int broken;       /* a write or sync of the file failed: nothing here can be relied on again */
	struct meta_sector *fine; /* as last written */
	bool *stale;              /* sectors of the coarse map that are to be written */
};

/* Which of a region's blocks may differ: bit n is block n of the region. */
typedef uint64_t meta_blocks_fn(void *opaque, uint64_t region);

/* Opens or makes DIR/NAME.meta for a disk of `size` bytes. *found: it was there, with a lineage. What the
 * file says is merged into `changed` (initialised by the caller). `why` names file and fault: it is for
 * another size, its hash is wrong in both copies, it is locked. A failed open needs no close. */
int meta_open(struct meta *m, const char *dir, const char *name, uint64_t size, struct bitmap *changed,
	      bool *found, char *why, size_t why_size);
/* blocks: the end is clean; the map is made exact, no region stays hot. NULL: leave the file as it is. */
void meta_close(struct meta *m, meta_blocks_fn *blocks, void *opaque);
void meta_get(struct meta *m, struct meta_state *state);
/* One atomic change on stable storage when it returns; one after another. `change` alters the state. */
typedef void meta_change_fn(struct meta_state *state, void *opaque);
int meta_change(struct meta *m, meta_change_fn *change, void *opaque);
/* As this, for callers who know that nobody else changes the state since they called meta_get(). */
int meta_update(struct meta *m, const struct meta_state *state);

/* Before a write to [off, off + len) of the disk, and after the blocks were noted in the bitmap: its
 * regions are hot on stable storage when this returns. Costs a test where they are already. Concurrent
 * callers share one sync. */
int meta_heat(struct meta *m, uint64_t off, uint64_t len);
/* Every few seconds, from one thread: fine map to stable storage where it counts, and regions which nobody
 * wrote to since the last call out of the coarse map. Others may write meanwhile. */
int meta_settle(struct meta *m, meta_blocks_fn *blocks, void *opaque);

/* ---- between meta.c and meta_map.c ---- */
int meta_map_init(struct meta *m);
void meta_map_free(struct meta *m);
uint64_t meta_map_bytes(uint64_t size); /* of the file, for a disk of `size` bytes */
/* Write the maps of a new file; read those of an old one into heat and changed. */
int meta_map_make(struct meta *m);
int meta_map_load(struct meta *m, struct bitmap *changed);
/* pwrite and pread of all of it: 0 or -errno, -EIO for a short file */
int meta_put(struct meta *m, const void *buf, size_t len, uint64_t off);
int meta_sync(struct meta *m);

#endif
