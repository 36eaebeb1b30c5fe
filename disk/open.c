/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * open.c - a disk's way into service, and its clean end
 *
 * disk_find() before HELLO: what is this disk? With metadata it is what the metadata say, unless somebody else
 * wrote to it since the last clean end: then it is a generation of its own, of which no other copy knows
 * anything. Without metadata its number is a hash of its content, so that two copies of one image
 * know each other.
 *
 * role_open() once the daemon has seen all disks: now it is certain which checkpoint counts, or that the
 * failover does, and storage is brought there (recover.c). Before that nothing on storage is changed.
 *
 * disk_close_clean() at the end: stable storage has all, the bitmap is exact, and the file's time of change is
 * kept, to tell next time whether somebody wrote.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "disk/disk.h"
#include "disk/identity.h"

#define PROGRESS_NS 200000000u

uint64_t disk_random(void)
{
	uint64_t x = 0;

	while (!x)
		if (getrandom(&x, sizeof(x), 0) != (ssize_t)sizeof(x))
			x = 0;
	return x;
}

static void tell_progress(void *opaque, uint64_t done)
{
	struct disk *d = opaque;
	uint64_t now = disk_now_ns();
	struct disk_message m = { .op = DISK_EV_OPENING,
				  .sync = { .done = done, .total = d->storage.size, .eta_s = UINT64_MAX } };

	if (now - d->told_ns < PROGRESS_NS)
		return;
	d->told_ns = now;
	control_send(d, &m, false);
}

static void set_lineage(struct meta_state *s, void *opaque)
{
	s->lineage = *(const struct lineage *)opaque;
	s->stamp_mtime_ns = 0;
}

static int find_by_content(struct disk *d)
{
	struct lineage l = { .flags = LINEAGE_NEW | LINEAGE_CONSISTENT };
	bool blank;
	int r;

	d->told_ns = disk_now_ns();
	r = identity_compute(&d->storage, &d->identity, &blank, tell_progress, d);
	if (r || d->config.read_only)
		return r;
	l.current = l.base = d->identity;
	l.flags |= blank ? LINEAGE_BLANK : 0;
	return meta_change(&d->meta, set_lineage, &l);
}

static void forget_past(struct meta_state *s, void *opaque)
{
	lineage_disown(&s->lineage, disk_random());
	s->redo = META_NO_REDO; /* to be laid over the content that is gone */
	s->writeback = META_NO_WRITEBACK;
	s->epoch = s->redo_upto = s->failover = 0;
	s->stamp_mtime_ns = 0;
}

/* Somebody wrote to it while nobody kept account: no bitmap covers that. */
static int disown(struct disk *d)
{
	struct disk_message m = { .op = DISK_EV_ERROR };

	snprintf(m.text, sizeof(m.text), "%s was written to by somebody else since it was closed: all of it has "
		 "to be compared with the peer's", d->config.file);
	control_send(d, &m, false);
	return meta_change(&d->meta, forget_past, NULL);
}

int disk_find(struct disk *d)
{
	struct meta_state s;
	uint64_t mtime;
	bool same;

	if (d->config.read_only)
		return find_by_content(d);
	meta_get(&d->meta, &s);
	mtime = storage_mtime_ns(d->config.file);
	same = s.stamp_mtime_ns && s.stamp_mtime_ns == mtime;
	if (!d->known || ((s.lineage.flags & LINEAGE_NEW) && !same))
		return find_by_content(d);
	if (s.stamp_mtime_ns && mtime && !same)
		return disown(d);
	if (s.lineage.flags & LINEAGE_NEW)
		d->identity = s.lineage.current;
	return 0;
}

void disk_hello(struct disk *d, struct disk_message *m)
{
	struct meta_state s;

	m->hello.proto = DISK_PROTO_VERSION;
	m->hello.size = d->storage.size;
	m->hello.identity = d->identity;
	if (d->config.read_only) {
		m->hello.flags = DISK_HELLO_READ_ONLY;
		return;
	}
	meta_get(&d->meta, &s);
	m->hello.lineage = s.lineage;
	m->hello.failover = s.failover;
	if (s.writeback == META_PREPARED)
		m->hello.flags = DISK_HELLO_PREPARED;
	else if (s.failover)
		m->hello.flags = DISK_HELLO_FAILED_OVER;
	m->status = recover_epoch(d, &m->epoch);
	if (m->status)
		snprintf(m->text, sizeof(m->text), "reading the journal: %s", disk_strerror(-m->status));
}

/* ---- OPEN ---- */

/* Storage is written to from now on; a crash must not look like somebody else's write. */
static void unstamp(struct meta_state *s, void *opaque)
{
	s->stamp_mtime_ns = 0;
}

/* A failover that was prepared, and did not count, never will. */
static void abandon_prepared(struct meta_state *s, void *opaque)
{
	if (s->writeback != META_PREPARED)
		return;
	s->writeback = META_NO_WRITEBACK;
	s->failover = 0;
}

static int recover(struct disk *d, uint64_t epoch, bool failover)
{
	struct meta_state s;
	int r = meta_change(&d->meta, unstamp, NULL);

	if (r)
		return r;
	meta_get(&d->meta, &s);
	if (s.writeback == META_WRITEBACK || (s.writeback == META_PREPARED && failover))
		r = writeback_recover(d);
	else
		r = redo_recover(d, epoch);
	if (!r)
		r = storage_flush(&d->storage);
	return r ? r : meta_change(&d->meta, abandon_prepared, NULL);
}

void role_open(struct disk *d, uint64_t epoch, uint32_t flags, struct disk_message *answer)
{
	struct meta_state s;
	int r = 0;

	if (d->opened) {
		role_refuse(answer, -EALREADY, "this disk is open already");
		return;
	}
	if (!d->config.read_only) {
		r = recover(d, epoch, flags & DISK_OPEN_FAILOVER);
		meta_get(&d->meta, &s);
		answer->status_reply.lineage = s.lineage;
	}
	if (r) {
		role_refuse(answer, r, "%s cannot be brought to checkpoint %llu: %s", d->config.file,
			    (unsigned long long)epoch, disk_strerror(-r));
		return;
	}
	pthread_rwlock_wrlock(&d->io);
	d->opened = true;
	pthread_rwlock_unlock(&d->io);
}

/* ---- SERVE ---- */

static void go_alone(struct meta_state *s, void *opaque)
{
	lineage_go_alone(&s->lineage, *(const uint64_t *)opaque);
	if (s->writeback != META_NO_WRITEBACK) /* what has to be repeated after a crash stays */
		return;
	s->redo = META_NO_REDO;
	s->epoch = s->redo_upto = s->failover = 0;
}

int disk_go_alone(struct disk *d, uint64_t fresh)
{
	struct meta_state s;
	int r;

	if (d->config.read_only)
		return 0;
	meta_get(&d->meta, &s);
	if (!d->serving && !(s.lineage.flags & LINEAGE_CONSISTENT))
		return -ENODATA; /* a mixture is nobody's disk */
	dirty_unlinked(d);
	r = meta_change(&d->meta, go_alone, &fresh);
	if (r)
		return r;
	pthread_rwlock_wrlock(&d->io);
	d->serving = true;
	pthread_rwlock_unlock(&d->io);
	return 0;
}

/* ---- the end ---- */

static void stamp(struct meta_state *s, void *opaque)
{
	s->stamp_mtime_ns = *(const uint64_t *)opaque;
}

int disk_close_clean(struct disk *d)
{
	uint64_t mtime;
	int r;

	if (d->closed)
		return 0;
	r = d->config.read_only ? 0 : storage_flush(&d->storage);
	storage_close(&d->storage); /* an image's own tables are written now */
	d->closed = true;
	if (d->config.read_only)
		return r;
	mtime = storage_mtime_ns(d->config.file);
	if (!r && d->opened)
		r = meta_change(&d->meta, stamp, &mtime);
	meta_close(&d->meta, r ? NULL : dirty_blocks, d);
	return r;
}
