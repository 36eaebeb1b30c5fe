/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * range.h - byte ranges of the disk: the one bounds check, and locks on ranges
 */
#ifndef COLO_DISK_RANGE_H
#define COLO_DISK_RANGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* ranges are locked in whole blocks, because a cache keeps and fills whole blocks */
#define DISK_BLOCK 4096u

/* Every offset and length from a peer or a guest goes through here before use. */
static inline bool range_ok(uint64_t offset, uint64_t length, uint64_t size)
{
	return offset <= size && length <= size - offset;
}

/* A locked range; lives on the stack of whoever holds it. */
struct range {
	uint64_t start, end;
	struct range *prev, *next;
};

struct range_lock {
	pthread_mutex_t lock;
	pthread_cond_t released;
	struct range *first, *last; /* oldest first, waiting ones included */
	unsigned waiting;
};

void range_lock_init(struct range_lock *rl);
void range_lock_destroy(struct range_lock *rl);
/* First come, first served among ranges that overlap; others do not wait. length > 0. */
void range_lock(struct range_lock *rl, struct range *r, uint64_t offset, uint64_t length);
void range_unlock(struct range_lock *rl, struct range *r);

#endif
