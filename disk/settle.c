/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * settle.c - background: make commits stable, write the SVM cache back after a failover, keep the map of changes
 *
 * One thread, which sleeps until it is kicked or some seconds are over. commit.c says in which
 * order things get to stable storage; the steps (3) and (6) there are ours.
 *
 *   commits      at most once a second, or at once when the journal is short of slots: what was applied
 *                is noted first, storage flushed second; then the metadata say that it is there, and its
 *                slots are free
 *   write-back   from SERVE on, until all of the SVM cache is in storage. The VM is served meanwhile; its
 *                flushes wait (settle_wait()), because a power loss now brings back what the write-back
 *                file has, over anything the VM has written since
 *   map          every few seconds, whatever the role: see meta.h
 */
#include "disk/disk.h"

#include <errno.h>
#include <time.h>

#include "common/failpoint.h"
#include "disk/writeback.h"

#define BATCH 1048576u
#define REST_NS 1000000000u /* between two rounds: also the pause before a retry */
#define MAP_NS 3000000000u

/* With the lock held; true when the time is over. */
static bool sleep_until(struct disk_settle *s, uint64_t until)
{
	struct timespec ts = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };

	return pthread_cond_timedwait(&s->work, &s->lock, &ts) == ETIMEDOUT;
}

static bool has_work(const struct disk_settle *s)
{
	return s->kicked || s->writing_back;
}

static void wait_for_work(struct disk_settle *s, uint64_t until)
{
	while (!s->stop && !has_work(s) && disk_now_ns() < until)
		sleep_until(s, until);
}

static void rest(struct disk_settle *s)
{
	uint64_t until = disk_now_ns() + REST_NS;
	bool failed = s->error != 0;

	/* a failover or a full journal cuts the rest short, but not the pause after an error */
	while (!s->stop && (failed || !(s->writing_back || s->urgent)))
		if (sleep_until(s, until))
			return;
}

/* ---- commits ---- */

struct moving {
	struct pvm_applied applied;
	bool moved;
};

static void move_tail(struct meta_state *st, void *opaque)
{
	struct moving *m = opaque;

	/* not before the first commit of this session has made it count, and not when it counts no
	 * more */
	m->moved = st->redo == META_REDO && st->redo_session == m->applied.session &&
		   st->writeback != META_WRITEBACK;
	if (!m->moved)
		return;
	st->epoch = m->applied.epoch;
	st->redo_tail = m->applied.tail;
}

static int settle_commits(struct disk *d)
{
	struct moving m = { .applied = pvm_cache_applied(&d->pvm) };
	int r;

	storage_start_writeout(&d->storage);
	r = storage_flush(&d->storage);
	if (r || !m.applied.epoch)
		return r;
	FAILPOINT("disk-settle");
	r = meta_change(&d->meta, move_tail, &m);
	if (!r && m.moved)
		pvm_cache_settled(&d->pvm, &m.applied);
	return r;
}

/* ---- write-back ---- */

static int write_all_back(struct disk *d)
{
	uint64_t off = 0, len;
	int r = 0;

	while (!r && d->settle.writing_back && svm_cache_next(&d->svm, off, d->storage.size, BATCH, &off, &len)) {
		struct range held;

		range_lock(&d->ranges, &held, off, len);
		r = svm_cache_write_back(&d->svm, off, len);
		range_unlock(&d->ranges, &held);
		FAILPOINT("disk-write-back");
		off += len;
		if (off >= d->storage.size)
			break;
	}
	return r;
}

static void storage_is_all(struct meta_state *st, void *unused)
{
	(void)unused;
	st->writeback = META_NO_WRITEBACK;
	st->redo = META_NO_REDO;
	st->epoch = st->redo_upto = st->writeback_bytes = st->writeback_hash = 0;
	st->lineage.flags |= LINEAGE_CONSISTENT;
}

int settle_written_back(struct disk *d)
{
	int r = storage_flush(&d->storage);

	if (!r) /* the file says no more which blocks these were */
		r = dirty_settle(d);
	FAILPOINT("disk-written-back");
	if (!r)
		r = meta_change(&d->meta, storage_is_all, NULL);
	if (!r)
		writeback_remove(d->config.data, d->config.name);
	return r;
}

static int settle_write_back_round(struct disk *d)
{
	int r = write_all_back(d);

	storage_start_writeout(&d->storage);
	if (r)
		return r;
	return d->settle.writing_back ? settle_written_back(d) : -ECANCELED;
}

/* The guest's flushes are answered; now the memory, which wants nobody in the cache. */
static void written_back(struct disk *d)
{
	pthread_rwlock_wrlock(&d->io);
	if (svm_cache_empty(&d->svm))
		svm_cache_drop(&d->svm);
	pthread_rwlock_unlock(&d->io);
	control_event(d, DISK_EV_WRITTEN_BACK, 0, true, "");
}

/* ---- the thread ---- */

static int settle_round(struct disk *d, bool write_back)
{
	int r = write_back ? settle_write_back_round(d) : settle_commits(d);

	if (r && r != -ECANCELED)
		disk_storage_error(d, r, write_back ? "writing back" : "making a checkpoint stable");
	return r;
}

static void finish_round(struct disk_settle *s, bool write_back, int r)
{
	s->busy = false;
	s->error = r;
	if (write_back && r)
		s->attempt++;
	if (write_back && !r)
		s->writing_back = false;
	pthread_cond_broadcast(&s->done);
}

/* With the lock held, but let go while it works. */
static void work(struct disk *d)
{
	struct disk_settle *s = &d->settle;
	bool write_back = s->writing_back;
	int r;

	s->kicked = s->urgent = false;
	s->busy = true;
	pthread_mutex_unlock(&s->lock);
	r = settle_round(d, write_back);
	pthread_mutex_lock(&s->lock);
	write_back &= s->writing_back; /* it may have been given up */
	finish_round(s, write_back, r);
	if (!write_back || r || s->stop)
		return;
	pthread_mutex_unlock(&s->lock);
	written_back(d);
	pthread_mutex_lock(&s->lock);
}

static void settle_map(struct disk *d)
{
	struct disk_settle *s = &d->settle;
	int r;

	pthread_mutex_unlock(&s->lock);
	r = d->config.read_only ? 0 : dirty_settle(d);
	if (r)
		disk_storage_error(d, r, "writing the map of changes");
	pthread_mutex_lock(&s->lock);
}

static void *settle_thread(void *arg)
{
	struct disk *d = arg;
	struct disk_settle *s = &d->settle;
	uint64_t map_due = disk_now_ns() + MAP_NS;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		wait_for_work(s, map_due);
		if (s->stop && !has_work(s))
			break;
		if (disk_now_ns() >= map_due) {
			settle_map(d);
			map_due = disk_now_ns() + MAP_NS;
		}
		if (!has_work(s))
			continue;
		work(d);
		if (s->stop)
			break;
		rest(s);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int settle_start(struct disk *d)
{
	struct disk_settle *s = &d->settle;
	int r;

	pthread_mutex_init(&s->lock, NULL);
	disk_cond_init(&s->work);
	disk_cond_init(&s->done);
	pvm_cache_on_short(&d->pvm, settle_hurry, d);
	pvm_cache_set_patience(&d->pvm, d->config.link_stall_ms);
	r = disk_thread(&s->thread, settle_thread, d);
	s->running = r == 0;
	return r;
}

void settle_stop(struct disk *d)
{
	struct disk_settle *s = &d->settle;

	if (!s->running)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->work);
	pthread_cond_broadcast(&s->done);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	s->running = false;
}

static void kick(struct disk_settle *s, bool urgent)
{
	pthread_mutex_lock(&s->lock);
	s->kicked = true;
	s->urgent |= urgent;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
}

void settle_kick(struct disk *d)
{
	kick(&d->settle, pvm_cache_half_unsettled(&d->pvm));
}

void settle_hurry(void *disk)
{
	struct disk *d = disk;

	kick(&d->settle, true);
}

void settle_prepare(struct disk *d)
{
	pthread_mutex_lock(&d->settle.lock);
	d->settle.prepared = true;
	pthread_mutex_unlock(&d->settle.lock);
}

void settle_write_back(struct disk *d)
{
	pthread_mutex_lock(&d->settle.lock);
	d->settle.writing_back = true; /* first: settle_pending() looks without the lock */
	d->settle.prepared = false;
	pthread_cond_signal(&d->settle.work);
	pthread_mutex_unlock(&d->settle.lock);
}

void settle_abandon(struct disk *d)
{
	struct disk_settle *s = &d->settle;

	pthread_mutex_lock(&s->lock);
	s->prepared = s->writing_back = false;
	pthread_cond_broadcast(&s->done);
	while (s->busy)
		pthread_cond_wait(&s->done, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

bool settle_pending(struct disk *d)
{
	return d->settle.prepared || d->settle.writing_back;
}

int settle_wait(struct disk *d)
{
	struct disk_settle *s = &d->settle;
	unsigned attempt;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	attempt = s->attempt;
	while (settle_pending(d) && s->attempt == attempt && !(s->stop && s->prepared))
		pthread_cond_wait(&s->done, &s->lock);
	if (s->writing_back)
		r = s->error;
	else if (s->prepared)
		r = -ESHUTDOWN;
	pthread_mutex_unlock(&s->lock);
	return r;
}
