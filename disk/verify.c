/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * verify.c - DISK_VERIFY: compare the whole disk with the peer's while both are in use
 *
 * The same comparison as for a sync (compare.c says why it is exact), at a rate of its own if none is set,
 * so that no guest notices. What the peer has received and not committed it cannot compare: those blocks
 * are busy, and are asked about again after the next checkpoint, which is asked for when nothing
 * else is left. A block that is written all the time may never be caught between a commit and the
 * next write; after VERIFY_TRIES checkpoints it is said to be left out.
 *
 * The page cache is read, not the medium: what is compared is what guests read and checkpoints wrote.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "disk/compare.h"
#include "disk/disk.h"

#define VERIFY_RATE (100u << 20) /* bytes a second, when no rate is set */
#define VERIFY_TRIES 30
#define CHECKPOINT_NS 10000000000u /* to wait for one */

void verify_begin(struct disk *d, uint32_t flags, struct disk_message *answer)
{
	struct disk_sync *s = &d->sync;

	if (d->role != DISK_PRIMARY || d->link.fd < 0) {
		role_refuse(answer, -ENOTCONN, "there is no peer to compare with");
		return;
	}
	pthread_mutex_lock(&s->lock);
	if (s->phase != SYNC_DONE) {
		role_refuse(answer, -EBUSY, "the sync is not over");
	} else if (s->verify) {
		role_refuse(answer, -EBUSY, "a verify is under way");
	} else {
		s->verify = true;
		s->verify_flags = flags;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
}

static uint64_t committed(struct disk *d)
{
	uint64_t epoch;

	pthread_mutex_lock(&d->sync.lock);
	epoch = d->sync.committed;
	pthread_mutex_unlock(&d->sync.lock);
	return epoch;
}

/* Wait until the peer has committed something newer than `epoch`. False: the link is gone, or nothing came. */
static bool wait_for_commit(struct disk *d, uint64_t epoch)
{
	uint64_t until = disk_now_ns() + CHECKPOINT_NS;
	struct timespec ts = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
	struct disk_sync *s = &d->sync;
	bool newer;
	int r = 0;

	control_event(d, DISK_EV_WANT_CHECKPOINT, 0, false, "verify waits for blocks in use");
	pthread_mutex_lock(&s->lock);
	while (s->committed <= epoch && r != ETIMEDOUT && !atomic_load(&d->link.failed))
		r = pthread_cond_timedwait(&s->changed, &s->lock, &ts);
	newer = s->committed > epoch;
	pthread_mutex_unlock(&s->lock);
	return newer;
}

static bool compare_disk(struct disk *d, struct compare *c)
{
	c->tolerant = true;
	for (unsigned tries = 0; !compare_finished(c); tries += c->busy) {
		uint64_t epoch = committed(d);

		if (!compare_pass(c))
			return false;
		if (c->busy && (tries >= VERIFY_TRIES || !wait_for_commit(d, epoch)))
			return !atomic_load(&d->link.failed);
	}
	return true;
}

static void describe(const struct compare *c, char *text, size_t size)
{
	size_t n = 0;

	for (unsigned i = 0; i < c->nplaces && n < size; i++)
		n += (size_t)snprintf(text + n, size - n, "%s%llu", i ? ", " : "differs at byte ",
				      (unsigned long long)c->places[i]);
	if (n < size && c->differing > (uint64_t)c->nplaces * DISK_HASH_PART)
		n += (size_t)snprintf(text + n, size - n, " and elsewhere");
	if (n < size && c->todo.set)
		snprintf(text + n, size - n, "%sleft out, as it is written all the time: %llu KiB", n ? "; " : "",
			 (unsigned long long)bitmap_bytes(&c->todo) / 1024);
}

static void say_verified(struct disk *d, const struct compare *c, bool ok)
{
	struct disk_message m = { .op = DISK_EV_VERIFIED, .status = ok ? c->error : -ENOTCONN };

	m.verified.checked = c->done;
	m.verified.differing = c->differing;
	m.verified.repaired = c->mended;
	if (!ok)
		snprintf(m.text, sizeof(m.text), "the link to the peer is lost");
	else if (c->error)
		snprintf(m.text, sizeof(m.text), "this host's disk cannot be read at byte %llu: %s",
			 (unsigned long long)c->unread, disk_strerror(-c->error));
	else
		describe(c, m.text, sizeof(m.text));
	control_send(d, &m, true);
}

static int whole_disk(struct disk *d, struct bitmap *b)
{
	int r = bitmap_init(b, d->storage.size);

	if (!r)
		bitmap_note(b, 0, d->storage.size);
	return r;
}

void verify_run(struct disk *d)
{
	struct compare c = { .d = d };
	struct bitmap b;
	bool ok = false, mend;

	pthread_mutex_lock(&d->sync.lock);
	mend = d->sync.verify_flags & DISK_VERIFY_REPAIR;
	pthread_mutex_unlock(&d->sync.lock);
	if (whole_disk(d, &b) || compare_init(&c, d, &b, mend, VERIFY_RATE))
		link_fail(d, "out of memory");
	else
		ok = compare_disk(d, &c);
	pthread_mutex_lock(&d->sync.lock);
	d->sync.verify = false; /* before it is said to be over */
	pthread_mutex_unlock(&d->sync.lock);
	say_verified(d, &c, ok);
	compare_free(&c);
}
