/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * commit.c - the daemon's requests that end an epoch or a pair: BOUNDARY, COMMIT, FAILOVER, SERVE
 *
 * Theory of operation: what is on stable storage when. A secondary's life, with the changes of the
 * metadata (each one atomic) numbered:
 *
 *   LINK        nothing changes yet.
 *   receiving   before the first thing is written to storage or journal, what was committed in an earlier link
 *               is flushed; then
 *          (1)  lineage_receive(), no redo, no write-back: this is no copy of anything
 *   first sync  written straight to storage
 *   boundary    journal synced (pvm_cache.c), DISK_EV_BOUNDARY
 *   1st COMMIT  records applied to storage, storage flushed; then
 *          (2)  lineage_adopt(), redo: session, tail, epoch. Now this is a copy, for good.
 *   COMMIT      records applied to storage, through the page cache. Nothing else: after a power loss the
 *               journal repeats them, from the tail on to this boundary or a later one
 *   settling    storage flushed; then
 *          (3)  tail and epoch move; then slots before the tail are free
 *   FAILOVER    the SVM's writes are saved in a file and synced; then
 *          (4)  PREPARED, with the file's size and hash, the failover's number, and the epoch committed last.
 *               If this is the last change before a power loss, OPEN is told whether it counts
 *   SERVE  (5)  WRITEBACK, a new generation: it counts. Only now may anybody outside see what the VM does
 *   write-back  the SVM's writes go to storage. No flush of the VM is acknowledged before (6); storage flushed, the
 *               bits of these blocks in the map of changes; then
 *          (6)  no write-back, no redo: storage is all there is
 *
 * A power loss between two of these leaves what recover.c turns into the content that the last change
 * stands for. (3) may fall between (4) and (5) as well.
 *
 * Between FAILOVER and SERVE the SVM may go on, on the SVM cache; what it writes then is not in the
 * file, and a flush waits (settle_wait()), so it is of no more worth than any write that was not
 * flushed.
 *
 * If the file cannot be written, FAILOVER fails, and the daemon may say SERVE all the same: (5) then says
 * that the disk is a mixture, until (6).
 *
 * A COMMIT that fails half-way leaves the log as it was and can be repeated. If it never is, the
 * journal is repeated at OPEN. In this process there is no failover meanwhile (`torn`).
 */
#include "disk/disk.h"

#include <errno.h>

#include "common/failpoint.h"
#include "disk/writeback.h"

void role_boundary(struct disk *d, uint64_t epoch, struct disk_message *answer)
{
	int r;

	if (d->role != DISK_PRIMARY) {
		role_refuse(answer, -EINVAL, "only a primary marks boundaries");
		return;
	}
	r = link_mark(d, epoch);
	FAILPOINT("disk-marked");
	if (!r)
		dirty_boundary(d, epoch);
	if (r == -EBUSY)
		role_refuse(answer, r, "the peer does not have the whole disk yet");
	else if (r == -EINVAL)
		role_refuse(answer, r, "epoch %llu is not above the one before", (unsigned long long)epoch);
	else if (r)
		role_refuse(answer, r, "%s", r == -ENOTCONN ? "the link is lost" : "the link's ring is full of marks");
}

/* ---- receiving ---- */

static void receive(struct meta_state *st, void *opaque)
{
	struct disk *d = opaque;

	lineage_receive(&st->lineage, &d->source);
	st->redo = META_NO_REDO;
	st->writeback = META_NO_WRITEBACK;
	st->epoch = st->redo_upto = st->failover = 0;
}

int commit_receive(struct disk *d)
{
	int r;

	if (d->receiving)
		return 0;
	/* What the metadata cease to say must be in storage, and in the map of changes, before:
	 * blocks that the peer takes for equal are not compared again. */
	r = storage_flush(&d->storage);
	if (!r)
		r = dirty_settle(d);
	if (!r)
		r = meta_change(&d->meta, receive, d);
	if (!r)
		r = pvm_cache_begin(&d->pvm);
	d->receiving = r == 0;
	return r;
}

void commit_reset(struct disk *d)
{
	pvm_cache_drop(&d->pvm);
	svm_cache_drop(&d->svm);
	d->based = d->torn = d->receiving = false;
	d->committed = (struct pvm_applied){ 0 };
}

/* ---- COMMIT ---- */

static int apply_record(void *opaque, uint64_t off, const void *data, uint32_t len)
{
	struct disk *d = opaque;

	FAILPOINT("disk-commit-record");
	return data ? storage_write(&d->storage, data, len, off)
		    : storage_zero(&d->storage, len, off, true);
}

static void adopt(struct meta_state *st, void *opaque)
{
	struct disk *d = opaque;

	lineage_adopt(&st->lineage, &d->source);
	st->redo = META_REDO;
	st->redo_session = d->committed.session;
	st->redo_tail = d->committed.tail;
	st->epoch = d->committed.epoch;
}

/* This disk begins to be a copy. */
static int first_commit(struct disk *d)
{
	int r = storage_flush(&d->storage);

	if (!r)
		r = meta_change(&d->meta, adopt, d);
	if (r)
		return r;
	pvm_cache_settled(&d->pvm, &d->committed);
	dirty_adopted(d);
	return 0;
}

static int commit(struct disk *d, uint64_t epoch)
{
	int r = 0;

	/* applied before, but (2) failed: this is the repetition */
	if (d->based || d->committed.epoch != epoch)
		r = pvm_cache_commit(&d->pvm, epoch, apply_record, d);
	if (r)
		return r;
	d->committed = pvm_cache_applied(&d->pvm);
	return d->based ? 0 : first_commit(d);
}

void role_commit(struct disk *d, uint64_t epoch, struct disk_message *answer)
{
	int r;

	if (d->role != DISK_SECONDARY) {
		role_refuse(answer, -EINVAL, "only a secondary commits");
		return;
	}
	FAILPOINT("disk-commit");
	pthread_rwlock_wrlock(&d->io);
	r = epoch ? commit(d, epoch) : -ENOENT;
	if (!r) {
		svm_cache_drop(&d->svm);
		d->based = true;
		d->torn = false;
	} else if (r != -ENOENT) {
		d->torn = true;
	}
	pthread_rwlock_unlock(&d->io);
	FAILPOINT("disk-committed");
	if (!r) {
		settle_kick(d);
		link_send_committed(d, epoch); /* without a link it counts all the same */
	} else if (r == -ENOENT) {
		role_refuse(answer, r, "the boundary of epoch %llu is not here", (unsigned long long)epoch);
	} else {
		role_refuse(answer, r, "writing the checkpoint to storage failed: %s", disk_strerror(-r));
	}
}

/* ---- FAILOVER ---- */

struct preparing {
	struct disk *d;
	uint64_t generation;
	struct writeback_seal seal;
};

static void prepare(struct meta_state *st, void *opaque)
{
	struct preparing *p = opaque;

	st->writeback = META_PREPARED;
	st->writeback_bytes = p->seal.bytes;
	st->writeback_hash = p->seal.hash;
	st->failover = p->generation;
	st->redo_upto = p->d->committed.epoch;
}

static int save(struct disk *d, uint64_t generation)
{
	struct preparing p = { .d = d, .generation = generation };
	int r = writeback_save(d->config.data, d->config.name, &d->svm, &p.seal);

	if (!r)
		r = meta_change(&d->meta, prepare, &p);
	return r;
}

void role_failover(struct disk *d, uint64_t generation, struct disk_message *answer)
{
	int r;

	if (d->role != DISK_SECONDARY) {
		role_refuse(answer, -EINVAL, "only a secondary can fail over");
		return;
	}
	if (!d->based || d->torn) {
		role_refuse(answer, -ENODATA, "%s",
		       d->torn ? "a commit failed half-way: repeat it first" : ROLE_UNDEFINED);
		return;
	}
	link_close(d);
	pthread_rwlock_wrlock(&d->io);
	FAILPOINT("disk-failover");
	pvm_cache_drop(&d->pvm);
	d->generation = generation;
	settle_prepare(d); /* before any guest's flush can be seen as ours to keep */
	r = save(d, generation);
	FAILPOINT("disk-saved");
	pthread_rwlock_unlock(&d->io);
	if (r)
		role_refuse(answer, r, "the SVM's writes cannot be saved in %s: %s", d->config.data,
			    disk_strerror(-r));
}

/* ---- SERVE ---- */

/* What the SVM wrote differs from what the pair agreed on. */
static void note_cached_blocks(struct disk *d)
{
	uint64_t off = 0, len;

	while (svm_cache_next(&d->svm, off, d->storage.size, UINT64_MAX, &off, &len)) {
		bitmap_note(&d->changed, off, len);
		off += len;
		if (off >= d->storage.size)
			break;
	}
}

static void take_over(struct meta_state *st, void *opaque)
{
	struct disk *d = opaque;

	lineage_go_alone(&st->lineage, d->generation);
	if (st->writeback == META_PREPARED && st->failover == d->generation) {
		st->writeback = META_WRITEBACK;
		return;
	}
	st->writeback = META_NO_WRITEBACK;
	st->redo = META_NO_REDO;
	st->epoch = 0;
	st->failover = d->generation;
	st->lineage.flags &= ~(uint32_t)LINEAGE_CONSISTENT;
}

static int serve_after_failover(struct disk *d)
{
	int r;

	pthread_rwlock_wrlock(&d->io);
	note_cached_blocks(d);
	FAILPOINT("disk-serve");
	r = meta_change(&d->meta, take_over, d);
	FAILPOINT("disk-serving");
	if (!r) {
		settle_write_back(d); /* first: no flush may find nothing to wait for */
		d->role = DISK_ALONE;
		d->serving = true;
	}
	pthread_rwlock_unlock(&d->io);
	return r;
}

void role_serve(struct disk *d, struct disk_message *answer)
{
	bool failover = d->role == DISK_SECONDARY;
	int r;

	if (d->role == DISK_PRIMARY)
		role_refuse(answer, -EBUSY, "the link to the peer stands");
	else if (failover && !d->settle.prepared)
		role_refuse(answer, -EINVAL, "a secondary serves after FAILOVER");
	else if (!d->opened)
		role_refuse(answer, -EINVAL, "OPEN comes before SERVE");
	else if ((r = failover ? serve_after_failover(d) : disk_go_alone(d, disk_random())))
		role_refuse(answer, r, "noting that this host serves: %s", disk_strerror(-r));
}
