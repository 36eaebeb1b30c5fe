/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * model.h - the parts of the model test: reference (model_ref.c), a disk manager that can lose power (model_host.c),
 * and what a daemon does with two hosts of them (model_pair.c, test_model.c)
 *
 * Theory of operation. Each disk manager is a process: the real plugin, loaded by dlopen(), with this program in
 * nbdkit's place and under the storage double of power.h. Power loss is SIGKILL, wherever the process is just then,
 * or inside its n-th changing call. The driver plays both daemons, and the guest is played by threads in the disk
 * manager's process, which note in shared memory what they begin and what was completed, so that this outlives the
 * process.
 *
 * Each sector that a guest writes holds the number of the write, so reading it tells which write it is of. All
 * guest writes are in some windows of the disk (spots), the rest stays zero.
 */
#ifndef COLO_TESTS_DISK_MODEL_H
#define COLO_TESTS_DISK_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "disk/disk_proto.h"

/* ---- model_ref.c: what a disk holds, and may hold ---- */

#define SECTOR 512u
#define SPOTS 20u
#define SPOT_SECTORS 112u
#define SECTORS (SPOTS * SPOT_SECTORS)
#define DISK_BYTES ((82ull << 20) + 3 * SECTOR) /* some twenty regions of the metadata's coarse map */
#define ZERO_BIT (1ull << 63)   /* a value: the number of a write, with this bit if it wrote zeroes; 0: never written */
#define GARBAGE (ZERO_BIT - 1)  /* what no write left */
#define HOSTS 2u
#define DISKS 2u
#define THREADS 2u

struct sector {
	uint64_t last;   /* begun */
	uint64_t done;   /* completed */
	uint64_t floor;  /* completed before a completed flush: what power loss leaves is this or later */
	uint64_t zeroed; /* the last begun write of zeroes */
};

/* of one disk on one host, in shared memory */
struct ref {
	uint64_t since;  /* number of the first write that may have left anything beyond the floors */
	struct sector s[SECTORS];
};

/* content of a disk at a boundary: values, those of zeroes being ZERO_BIT or 0 */
struct image {
	uint64_t epoch, v[SECTORS];
};

struct shared {
	_Atomic uint64_t next;  /* number of the next write; even ones are of host 0, odd ones of host 1 */
	_Atomic uint64_t ops, reads, flushes;
	struct ref ref[HOSTS][DISKS];
	uint64_t seen[HOSTS][DISKS][SECTORS]; /* HOST_LOOK's answer */
	char fault[HOSTS][DISKS][THREADS][256];
};

uint64_t ref_offset(unsigned sector);
/* Sectors of spots in [off, off + len): the first at or after `from`, SECTORS when there is none. */
unsigned ref_within(unsigned from, uint64_t off, uint64_t len);
uint64_t ref_number(struct shared *sh, unsigned host);
void ref_fill(void *buf, unsigned disk, unsigned sector, uint64_t value);
/* 0: zeroes; GARBAGE: not what ref_fill() makes for that place */
uint64_t ref_value(const void *buf, unsigned disk, unsigned sector);
static inline uint64_t ref_content(uint64_t value)
{
	return value & ZERO_BIT ? 0 : value;
}
/* May this content be there after a power loss of the host that served? */
bool ref_allows(const struct ref *r, unsigned host, unsigned sector, uint64_t content);
/* All completed writes count as stable. */
void ref_all_stable(struct ref *r);
/* The disk is known to hold just this, stable. */
void ref_set(struct ref *r, struct shared *sh, const uint64_t *content);

/* ---- model_host.c: a disk manager in a process of its own ---- */

enum host_op {
	HOST_RUN = 1,  /* guest: `count` operations by each of `threads` */
	HOST_LOOK,     /* read all spots into shared->seen */
	HOST_INJECT,   /* spoil `count` sectors of storage, behind the disk manager's back; from: the first */
	HOST_CUT,      /* lose power at the count-th changing call */
	HOST_WAIT_FLUSH, /* one flush */
};
enum host_flag { RUN_LARGE = 1, RUN_BURST = 2, RUN_FLUSHY = 4 };

struct host_request {
	uint32_t op, count, threads, flags;
	uint64_t seed, from;
};
struct host_answer {
	uint32_t op;
	int32_t status;
};

struct host_config {
	unsigned host, disk;
	const char *plugin, *dir, *file, *name;
	uint64_t seed, cut;
	const char *journal;
	unsigned slow_us; /* see power_slow() */
	int control, guest; /* sockets */
	struct shared *sh;
};
/* Never returns. */
__attribute__((noreturn)) void host_run(const struct host_config *c);
/* Before the first host_run(): load the plugin. */
void host_load(const char *plugin);

#endif
