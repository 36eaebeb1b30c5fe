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
 * wholly there or not. All functions return 0 or -errno.
 */
#ifndef COLO_DISK_META_H
#define COLO_DISK_META_H

#include <pthread.h>
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

/* what is stable as one: changed by meta_update() only */
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

struct meta {
	int fd;
	pthread_mutex_t lock;   /* guards all that follows */
	pthread_cond_t done;
	struct meta_state state;
	/* private to meta.c */
	uint64_t sequence;
	uint64_t regions;
	_Atomic uint64_t *hot;  /* in memory: stable or being made so; tested without the lock */
	struct meta_priv *priv;
};

/* Opens or makes DIR/NAME.meta for a disk of `size` bytes. *found: it was there. What the file says is
 * merged into `changed` (initialised by the caller). `why` names file and fault: it is for another size, its hash
 * is wrong in both copies, it is locked. */
int meta_open(struct meta *m, const char *dir, const char *name, uint64_t size, struct bitmap *changed,
	      bool *found, char *why, size_t why_size);
/* clean: also the whole fine bitmap, and no region stays hot. */
void meta_close(struct meta *m, const struct bitmap *changed, bool clean);
/* One atomic change on stable storage when it returns. */
int meta_update(struct meta *m, const struct meta_state *state);
void meta_get(struct meta *m, struct meta_state *state);
/* Before a write to [off, off + len) of the disk: its regions are hot on stable storage when this returns.
 * Costs a bit test where they are already. Concurrent callers share one sync. */
int meta_heat(struct meta *m, uint64_t off, uint64_t len);
/* From the settling thread, every few seconds: fine bitmap to stable storage, cool regions out of the
 * coarse map. `changed` may be noted in meanwhile. */
int meta_settle(struct meta *m, const struct bitmap *changed);

#endif
