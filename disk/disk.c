/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * disk.c - the guest's requests
 *
 * ALONE, PRIMARY: storage serves. A write is on storage and in the link's stream before the guest is
 * answered; the range lock makes the order of overlapping writes the same in both. After a failover the
 * SVM cache still lies over storage until it has been written back; svm_cache.c says how that stays exact.
 *
 * SECONDARY: the SVM reads storage as of the last checkpoint with its own writes on top, and writes to
 * its cache only. Its flushes promise nothing: nobody outside sees what the SVM does before a failover.
 */
#include "disk/disk.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "disk/identity.h"

uint64_t disk_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

const char *disk_strerror(int errnum)
{
	const char *s = strerrordesc_np(errnum);

	return s ? s : "unknown error";
}

void disk_cond_init(pthread_cond_t *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(c, &attr);
	pthread_condattr_destroy(&attr);
}

int disk_thread(pthread_t *t, void *(*fn)(void *), void *arg)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(t, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

static void init_locks(struct disk *d)
{
	pthread_rwlockattr_t attr;

	/* a COMMIT must not wait behind an endless row of readers */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&d->io, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&d->control_lock, NULL);
	range_lock_init(&d->ranges);
	fault_init(d);
}

static int init_parts(struct disk *d)
{
	int r = bitmap_init(&d->changed, d->storage.size);

	if (!r)
		r = dirty_init(d);
	if (!r)
		r = svm_cache_init(&d->svm, &d->storage, d->config.cache_max, d->config.spill_dir);
	if (!r)
		r = pvm_cache_init(&d->pvm, &d->redo, d->storage.size, d->config.cache_max);
	return r ? r : link_init(d);
}

/* What is kept beside the disk. The lock of the metadata covers the rest. */
static int open_data(struct disk *d, char *why, size_t why_size)
{
	int r = meta_open(&d->meta, d->config.data, d->config.name, d->storage.size, &d->changed, &d->known, why,
			  why_size);

	return r ? r : redo_open(&d->redo, d->config.data, d->config.name, d->config.journal, why, why_size);
}

int disk_init(struct disk *d, char *why, size_t why_size)
{
	int n = snprintf(why, why_size, "file=%s: ", d->config.file);
	int r;

	n = n < 0 || (size_t)n >= why_size ? 0 : n;
	d->meta.fd = d->redo.fd = -1;
	r = storage_open(&d->storage, d->config.file, d->config.format, d->config.read_only, why + n,
			 why_size - (size_t)n);
	if (r)
		return r;
	init_locks(d);
	r = init_parts(d);
	if (r)
		snprintf(why, why_size, "cannot set up caches: %s", disk_strerror(-r));
	else if (!d->config.read_only)
		r = open_data(d, why, why_size);
	d->ready = r == 0;
	return r;
}

void disk_destroy(struct disk *d)
{
	link_destroy(d);
	pvm_cache_destroy(&d->pvm);
	redo_close(&d->redo);
	svm_cache_destroy(&d->svm);
	dirty_destroy(d);
	bitmap_free(&d->changed);
	fault_destroy(d);
	range_lock_destroy(&d->ranges);
	pthread_mutex_destroy(&d->control_lock);
	pthread_rwlock_destroy(&d->io);
	if (d->closed)
		return;
	meta_close(&d->meta, NULL, NULL);
	storage_close(&d->storage);
}

void disk_storage_error(struct disk *d, int r, const char *doing)
{
	uint64_t now = disk_now_ns(), last = atomic_load(&d->last_error_ns);
	struct disk_message m = { .op = DISK_EV_ERROR, .status = r };

	if (last && now - last < 1000000000u)
		return;
	if (!atomic_compare_exchange_strong(&d->last_error_ns, &last, now))
		return;
	snprintf(m.text, sizeof(m.text), "%s: %s failed: %s", d->config.file, doing, disk_strerror(-r));
	control_send(d, &m, false);
}

/* A request of the guest failed; it is answered when this returns. */
static void guest_error(struct disk *d, int r, const char *doing)
{
	disk_storage_error(d, r, doing);
	fault_park(d, r, doing);
}

static bool is_secondary(struct disk *d)
{
	return atomic_load(&d->role) == DISK_SECONDARY;
}

static void want_checkpoint_if_full(struct disk *d)
{
	if (!svm_cache_wants_checkpoint(&d->svm))
		return;
	control_event(d, DISK_EV_WANT_CHECKPOINT, 0, false, "the SVM cache fills up");
}

int disk_read(struct disk *d, void *buf, uint32_t len, uint64_t off)
{
	int r;

	if (!range_ok(off, len, d->storage.size))
		return -EINVAL;
	pthread_rwlock_rdlock(&d->io);
	r = d->closing || !d->opened ? -ESHUTDOWN : svm_cache_read(&d->svm, buf, len, off);
	pthread_rwlock_unlock(&d->io);
	atomic_fetch_add(&d->reads, 1);
	if (r)
		guest_error(d, r, "reading");
	return r;
}

static int write_secondary(struct disk *d, const void *buf, uint32_t len, uint64_t off)
{
	return buf ? svm_cache_write(&d->svm, buf, len, off) : svm_cache_zero(&d->svm, len, off);
}

static int write_serving(struct disk *d, const void *buf, uint32_t len, uint64_t off, bool punch)
{
	bool overlay = !svm_cache_empty(&d->svm);
	int r;

	/* noted first: a sync that begins now sees either this bit or, by the range lock, the data */
	r = dirty_note(d, off, len);
	if (!r && overlay)
		r = svm_cache_settle_edges(&d->svm, off, len);
	if (!r && buf)
		r = storage_write(&d->storage, buf, len, off);
	else if (!r)
		r = storage_zero(&d->storage, len, off, punch);
	if (r)
		return r;
	if (overlay)
		svm_cache_forget(&d->svm, off, len);
	if (buf)
		link_mirror_write(d, buf, len, off);
	else
		link_mirror_zero(d, len, off);
	return 0;
}

/* True when it was done, or failed. A secondary's flush promises nothing, but between FAILOVER and the end of the
 * write-back it must wait, without io, which SERVE and the write-back's end need. */
static bool try_flush(struct disk *d, int *r)
{
	bool done = true;

	pthread_rwlock_rdlock(&d->io);
	if (d->closing || !d->opened)
		*r = -ESHUTDOWN;
	else if (settle_pending(d))
		done = false;
	else
		*r = is_secondary(d) ? 0 : storage_flush(&d->storage);
	pthread_rwlock_unlock(&d->io);
	return done;
}

static int flush(struct disk *d)
{
	int r = 0;

	while (!try_flush(d, &r)) {
		r = settle_wait(d);
		if (r)
			break;
	}
	return r;
}

/* buf NULL: zeroes */
static int change(struct disk *d, const void *buf, uint32_t len, uint64_t off, bool punch, bool fua)
{
	bool secondary;
	struct range held;
	int r;

	if (!range_ok(off, len, d->storage.size))
		return -EINVAL;
	if (!len)
		return 0;
	pthread_rwlock_rdlock(&d->io);
	secondary = is_secondary(d);
	range_lock(&d->ranges, &held, off, len);
	if (d->closing || !d->opened || !(secondary || d->serving))
		r = -ESHUTDOWN;
	else if (secondary)
		r = write_secondary(d, buf, len, off);
	else
		r = write_serving(d, buf, len, off, punch);
	range_unlock(&d->ranges, &held);
	pthread_rwlock_unlock(&d->io);
	if (!r && fua)
		r = flush(d);
	atomic_fetch_add(&d->writes, 1);
	if (r)
		guest_error(d, r, "writing");
	else if (secondary)
		want_checkpoint_if_full(d);
	return r;
}

int disk_write(struct disk *d, const void *buf, uint32_t len, uint64_t off, bool fua)
{
	return change(d, buf, len, off, false, fua);
}

int disk_zero(struct disk *d, uint32_t len, uint64_t off, bool punch, bool fua)
{
	return change(d, NULL, len, off, punch, fua);
}

int disk_flush(struct disk *d)
{
	int r = flush(d);

	atomic_fetch_add(&d->flushes, 1);
	if (r)
		guest_error(d, r, "flushing");
	return r;
}
