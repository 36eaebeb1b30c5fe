/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sync.c - the primary's worker thread: the first sync of a link, then verifies as they are asked for
 *
 *   HELLO is in the stream and mirroring is on (link_open)
 *   TARGET     the peer says which blocks it changed
 *   COMPARING  candidates: blocks changed here, or there, or all; compare.c finds and sends what differs
 *   FLUSHING   lineage: from now on the peer may take over; SYNCED; the peer's storage becomes stable
 *   DONE       DISK_EV_SYNCED: the first checkpoint may be taken
 *
 * Mirroring is on before the bitmap is copied, and every write is noted in the bitmap before it reaches
 * storage. So each change is in the copy, or in the stream, or in both. A block that is in neither bitmap
 * has not changed since the content both copies share; whether they do share one the daemons have judged by
 * their lineages (lineage.h), and said DISK_LINK_ALL if they do not.
 *
 * An interrupted sync has cost nothing but time: neither side's bitmap was cleared, and what was sent is
 * found to be the same next time.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/failpoint.h"
#include "disk/compare.h"
#include "disk/disk.h"

void sync_init(struct disk *d)
{
	pthread_mutex_init(&d->sync.lock, NULL);
	disk_cond_init(&d->sync.changed);
}

void sync_destroy(struct disk *d)
{
	bitmap_free(&d->sync.target);
	pthread_cond_destroy(&d->sync.changed);
	pthread_mutex_destroy(&d->sync.lock);
}

int sync_reset(struct disk *d, enum disk_role role)
{
	struct disk_sync *s = &d->sync;
	struct bitmap target = { .words = NULL };
	int r = role == DISK_PRIMARY ? bitmap_init(&target, d->storage.size) : 0;

	if (r)
		return r;
	pthread_mutex_lock(&s->lock);
	bitmap_free(&s->target);
	s->target = target;
	s->target_end = 0;
	s->phase = role == DISK_PRIMARY ? SYNC_TARGET : SYNC_COMPARING;
	s->asked = s->answered = s->committed = 0;
	s->verify = false;
	pthread_mutex_unlock(&s->lock);
	atomic_store(&s->moved, 0);
	return 0;
}

void sync_wake(struct disk *d)
{
	pthread_mutex_lock(&d->sync.lock);
	pthread_cond_broadcast(&d->sync.changed);
	pthread_mutex_unlock(&d->sync.lock);
}

enum sync_phase sync_phase(struct disk *d)
{
	enum sync_phase phase;

	pthread_mutex_lock(&d->sync.lock);
	phase = d->sync.phase;
	pthread_mutex_unlock(&d->sync.lock);
	return phase;
}

void sync_set_phase(struct disk *d, enum sync_phase phase)
{
	pthread_mutex_lock(&d->sync.lock);
	d->sync.phase = phase;
	pthread_cond_broadcast(&d->sync.changed);
	pthread_mutex_unlock(&d->sync.lock);
}

/* False: the link is gone. */
static bool wait_for_phase(struct disk *d, enum sync_phase phase)
{
	struct disk_sync *s = &d->sync;
	bool there;

	pthread_mutex_lock(&s->lock);
	while (s->phase < phase && !atomic_load(&d->link.failed))
		pthread_cond_wait(&s->changed, &s->lock);
	there = s->phase >= phase;
	pthread_mutex_unlock(&s->lock);
	return there;
}

/* ---- commits ---- */

static uint64_t last_marked(struct disk *d)
{
	uint64_t epoch;

	pthread_mutex_lock(&d->link.lock);
	epoch = d->link.last_epoch;
	pthread_mutex_unlock(&d->link.lock);
	return epoch;
}

bool sync_committed(struct disk *d, uint64_t epoch)
{
	struct disk_sync *s = &d->sync;
	bool good = epoch <= last_marked(d);

	pthread_mutex_lock(&s->lock);
	good = good && epoch > s->committed;
	if (good)
		s->committed = epoch;
	pthread_cond_broadcast(&s->changed); /* verify may try again what was busy */
	pthread_mutex_unlock(&s->lock);
	return good;
}

/* ---- the first sync ---- */

static void unite(struct bitmap *b, const struct bitmap *other)
{
	for (uint64_t i = 0; (i = bitmap_next(other, i)) < other->blocks; i++)
		bitmap_note(b, i * BITMAP_BLOCK, 1);
}

static int candidates(struct disk *d, struct bitmap *b)
{
	int r;

	if (d->link.all) {
		r = bitmap_init(b, d->storage.size);
		if (!r)
			bitmap_note(b, 0, d->storage.size);
		return r;
	}
	r = dirty_copy(d, b);
	if (!r)
		unite(b, &d->sync.target); /* complete: the phase says so */
	return r;
}

static bool compare_all(struct disk *d, struct compare *c)
{
	FAILPOINT("disk-sync-begin");
	while (!compare_finished(c))
		if (!compare_pass(c))
			return false;
	return true;
}

static void say_synced(struct disk *d, struct compare *c)
{
	struct disk_message m = { .op = DISK_EV_SYNCED };

	compare_progress(c, &m);
	m.sync.eta_s = 0;
	snprintf(m.text, sizeof(m.text), "compared %llu KiB, %llu KiB differed, %llu KiB went over the link",
		 (unsigned long long)m.sync.total / 1024, (unsigned long long)c->mended / 1024,
		 (unsigned long long)(m.sync.moved + 1023) / 1024);
	control_send(d, &m, true);
}

static bool sync_with(struct disk *d, struct compare *c)
{
	int r;

	if (!compare_all(d, c))
		return false;
	sync_set_phase(d, SYNC_FLUSHING);
	FAILPOINT("disk-sync-end");
	r = dirty_share(d);
	if (r) {
		link_fail(d, "noting that the peer may take over: %s", disk_strerror(-r));
		return false;
	}
	if (!link_say(d, DISK_LINK_SYNCED, 0, 0, NULL, 0) || !wait_for_phase(d, SYNC_DONE))
		return false;
	say_synced(d, c);
	return true;
}

static bool first_sync(struct disk *d)
{
	uint64_t moved;
	struct bitmap b;
	struct compare c;
	bool ok = false;

	if (!wait_for_phase(d, SYNC_COMPARING))
		return false;
	moved = atomic_load(&d->sync.moved); /* what came with TARGET */
	if (candidates(d, &b)) {
		link_fail(d, "out of memory");
		return false;
	}
	if (compare_init(&c, d, &b, true, 0)) {
		link_fail(d, "out of memory");
	} else {
		atomic_fetch_add(&d->sync.moved, moved);
		ok = sync_with(d, &c);
	}
	compare_free(&c);
	return ok;
}

/* ---- then ---- */

static bool wait_for_verify(struct disk *d)
{
	struct disk_sync *s = &d->sync;
	bool wanted;

	pthread_mutex_lock(&s->lock);
	while (!s->verify && !atomic_load(&d->link.failed))
		pthread_cond_wait(&s->changed, &s->lock);
	wanted = s->verify;
	pthread_mutex_unlock(&s->lock);
	return wanted;
}

void *sync_thread(void *disk)
{
	struct disk *d = disk;

	if (first_sync(d))
		while (wait_for_verify(d))
			verify_run(d);
	return NULL;
}
