/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * settle.c - background: write the SVM cache back after a failover, make commits stable
 *
 * What survives a crash of this host, and what does not. As ALONE or PRIMARY a completed flush is on
 * stable storage, always. A secondary keeps both caches in memory and commits a checkpoint through the
 * page cache, in several writes; stable storage follows within about a second. So a secondary that
 * loses power is no longer a copy of anything and must be synchronised anew, and so is a survivor that
 * loses power before DISK_EV_WRITTEN_BACK. That is one failure more than this pair is meant to survive.
 * A journal that closes the gap is planned.
 */
#include "disk/disk.h"

#include <errno.h>
#include <time.h>

#define BATCH 1048576u
#define REST_NS 1000000000u /* between two rounds: also the pause before a retry */

/* Wait for work or the end; with the lock held. */
static void wait_for_work(struct disk_settle *s)
{
	while (!s->stop && !s->kicked && !s->writing_back)
		pthread_cond_wait(&s->work, &s->lock);
}

static void rest(struct disk_settle *s)
{
	uint64_t until = disk_now_ns() + REST_NS;
	struct timespec ts = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
	bool failed = s->error != 0;

	/* a failover cuts the rest short, but not the pause after an error */
	while (!s->stop && (failed || !s->writing_back))
		if (pthread_cond_timedwait(&s->work, &s->lock, &ts) == ETIMEDOUT)
			return;
}

static int write_all_back(struct disk *d)
{
	uint64_t off = 0, len;
	int r = 0;

	while (!r && d->settle.writing_back && svm_cache_next(&d->svm, off, d->storage.size, BATCH, &off, &len)) {
		struct range held;

		range_lock(&d->ranges, &held, off, len);
		r = svm_cache_write_back(&d->svm, off, len);
		range_unlock(&d->ranges, &held);
		off += len;
		if (off >= d->storage.size)
			break;
	}
	return r;
}

static int settle_round(struct disk *d, bool write_back)
{
	int r = write_back ? write_all_back(d) : 0;

	storage_start_writeout(&d->storage);
	if (!r)
		r = storage_flush(&d->storage);
	if (r)
		disk_storage_error(d, r, write_back ? "writing back" : "making a checkpoint stable");
	return r;
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

static void finish_round(struct disk_settle *s, bool write_back, int r)
{
	s->error = r;
	if (write_back && r)
		s->attempt++;
	if (write_back && !r)
		s->writing_back = false;
	pthread_cond_broadcast(&s->done);
}

static void *settle_thread(void *arg)
{
	struct disk *d = arg;
	struct disk_settle *s = &d->settle;
	bool write_back;
	int r;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		wait_for_work(s);
		if (!s->kicked && !s->writing_back)
			break;
		write_back = s->writing_back;
		s->kicked = false;
		s->busy = true;
		pthread_mutex_unlock(&s->lock);
		r = settle_round(d, write_back);
		pthread_mutex_lock(&s->lock);
		s->busy = false;
		write_back &= s->writing_back; /* it may have been given up */
		finish_round(s, write_back, r);
		if (s->stop)
			break;
		if (write_back && !r) {
			pthread_mutex_unlock(&s->lock);
			written_back(d);
			pthread_mutex_lock(&s->lock);
		}
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
	r = disk_thread(&s->thread, settle_thread, d);
	s->running = r == 0;
	return r;
}

/* Nothing that is set is ever taken back here. */
static void demand(struct disk_settle *s, bool stop, bool kick, bool write_back)
{
	pthread_mutex_lock(&s->lock);
	s->stop |= stop;
	s->kicked |= kick;
	if (write_back)
		s->writing_back = true;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
}

void settle_stop(struct disk *d)
{
	if (!d->settle.running)
		return;
	demand(&d->settle, true, false, false);
	pthread_join(d->settle.thread, NULL);
	d->settle.running = false;
}

void settle_kick(struct disk *d)
{
	demand(&d->settle, false, true, false);
}

void settle_write_back(struct disk *d)
{
	demand(&d->settle, false, false, true);
}

void settle_abandon(struct disk *d)
{
	struct disk_settle *s = &d->settle;

	pthread_mutex_lock(&s->lock);
	s->writing_back = false;
	while (s->busy)
		pthread_cond_wait(&s->done, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

int settle_wait(struct disk *d)
{
	struct disk_settle *s = &d->settle;
	unsigned attempt;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	attempt = s->attempt;
	while (s->writing_back && s->attempt == attempt)
		pthread_cond_wait(&s->done, &s->lock);
	if (s->writing_back)
		r = s->error;
	pthread_mutex_unlock(&s->lock);
	return r;
}
