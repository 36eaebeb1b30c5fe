/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * flusher.c - the secondary's worker thread: the first sync becomes stable
 *
 * While the first sync writes to storage its pages are written out now and then, so that little is left when
 * SYNCED comes. What is written to storage between that flush and the first boundary is flushed by the
 * first commit. A thread of its own, because the receiver must go on: the primary gives up a peer that takes
 * nothing for long, and a flush can take long.
 */
#include <errno.h>
#include <time.h>

#include "disk/disk.h"

#define ROUND_NS 1000000000u

/* Wait for SYNCED for one round; true when it is there. */
static bool synced(struct disk *d)
{
	uint64_t until = disk_now_ns() + ROUND_NS;
	struct timespec ts = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
	struct disk_sync *s = &d->sync;
	bool there;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	while (s->phase < SYNC_FLUSHING && r != ETIMEDOUT && !atomic_load(&d->link.failed))
		r = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	there = s->phase == SYNC_FLUSHING;
	pthread_mutex_unlock(&s->lock);
	return there;
}

void *flusher_thread(void *disk)
{
	struct disk *d = disk;
	bool last = false;

	while (!last && !atomic_load(&d->link.failed)) {
		int r;

		last = synced(d);
		r = storage_flush(&d->storage);
		if (!r)
			continue;
		disk_storage_error(d, r, "flushing what the peer sent");
		link_fail(d, "flushing what the peer sent failed: %s", disk_strerror(-r));
		return NULL;
	}
	if (!last)
		return NULL;
	sync_set_phase(d, SYNC_DONE); /* first: the boundary may follow the answer at once */
	link_say(d, DISK_LINK_SYNC_STABLE, 0, 0, NULL, 0);
	return NULL;
}
