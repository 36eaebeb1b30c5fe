/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * recover.c - what OPEN does to storage: repeat from journal and write-back file what a power loss took
 *
 * Theory of operation. The metadata (meta.h) say which of these is the case; commit.c and settle.c
 * say what is on stable storage whenever they change.
 *
 *   redo  writeback   content of this disk                              recovered by
 *   NO    NO          storage                                           nothing
 *   REDO  NO          storage, and the journal up to an epoch           redo_recover()
 *   REDO  PREPARED    the same, if the failover does not count;         redo_recover()
 *                     if it does: as the next line                      writeback_recover()
 *   any   WRITEBACK   storage, the journal up to redo_upto, the file    writeback_recover()
 *
 * Storage itself may hold any mixture of what was written to it since `epoch`; all of that is in
 * the journal up to the epoch we come back to, because a COMMIT is only asked for when every disk
 * has its boundary on stable storage, and the epoch of OPEN is one that every disk has. Repeating a
 * record that is in storage already changes nothing in the end, since the last record that covers a
 * byte is the one that counts, and it is repeated, too. So recovery can be cut off anywhere and
 * begun anew. Its end is one change of the metadata, after storage was flushed.
 *
 * Under WRITEBACK the VM may have written to storage, too, after what the journal and the file
 * have. That may be overwritten with what is older: no flush of that time was acknowledged
 * (settle.c). Since the peer may have that already, every block that is written here is noted as
 * changed.
 */
#include "disk/disk.h"

#include <errno.h>
#include <stdio.h>

#include "disk/writeback.h"

/* How far the journal reaches. -EBADMSG: it is not the one the metadata speak of, or is damaged. */
static int journal_reaches(struct disk *d, const struct meta_state *st, uint64_t *last)
{
	/* What a process that was killed left in the page cache must not be lost by a later power
	 * loss: another disk may have come back to this epoch by then. */
	int r = redo_sync(&d->redo);

	if (!r)
		r = redo_last_epoch(&d->redo, st->redo_session, st->redo_tail, last);
	if (r)
		return r;
	return *last < st->epoch ? -EBADMSG : 0; /* that boundary is in the tail's chunk */
}

int recover_epoch(struct disk *d, uint64_t *epoch)
{
	struct meta_state st;

	meta_get(&d->meta, &st);
	*epoch = 0;
	if (st.writeback == META_WRITEBACK || !(st.lineage.flags & LINEAGE_CONSISTENT))
		return 0;
	*epoch = st.epoch;
	if (st.redo != META_REDO)
		return 0;
	if (journal_reaches(d, &st, epoch))
		*epoch = 0; /* redo_recover() deals with it */
	return 0;
}

static void is_mixture(struct meta_state *st, void *unused)
{
	(void)unused;
	st->lineage.flags &= ~(uint32_t)LINEAGE_CONSISTENT;
	st->lineage.base = 0; /* commits are in no map of changes */
	st->redo = META_NO_REDO;
	st->writeback = META_NO_WRITEBACK;
	st->epoch = st->redo_upto = st->failover = 0;
}

/* Without the journal nobody knows what of the last commits storage has; but the peer has all of it. */
static int do_without(struct disk *d, int why)
{
	struct disk_message m = { .op = DISK_EV_ERROR, .status = why };

	snprintf(m.text, sizeof(m.text), "%s/%s.journal is damaged or gone (%s): all of the disk has to be compared "
		 "with the peer's", d->config.data, d->config.name, disk_strerror(-why));
	control_send(d, &m, false);
	return meta_change(&d->meta, is_mixture, NULL);
}

static int repeat(void *opaque, uint64_t off, const void *data, uint64_t len)
{
	struct disk *d = opaque;

	if (!range_ok(off, len, d->storage.size))
		return -EBADMSG;
	return data ? storage_write(&d->storage, data, (size_t)len, off)
		    : storage_zero(&d->storage, len, off, true);
}

static int repeat_record(void *opaque, uint64_t off, const void *data, uint32_t len)
{
	return repeat(opaque, off, data, len);
}

/* As these, and the peer may have something else there. */
static int repeat_noted(void *opaque, uint64_t off, const void *data, uint64_t len)
{
	struct disk *d = opaque;

	if (range_ok(off, len, d->storage.size))
		bitmap_note(&d->changed, off, len);
	return repeat(d, off, data, len);
}

static int repeat_record_noted(void *opaque, uint64_t off, const void *data, uint32_t len)
{
	return repeat_noted(opaque, off, data, len);
}

static int replay(struct disk *d, const struct meta_state *st, uint64_t epoch, redo_apply_fn *fn)
{
	if (epoch < st->epoch)
		return -ESTALE;
	if (epoch == st->epoch)
		return 0;
	return redo_replay(&d->redo, st->redo_session, st->redo_tail, epoch, fn, d);
}

static void is_at_epoch(struct meta_state *st, void *epoch)
{
	st->epoch = *(const uint64_t *)epoch;
	st->redo = META_NO_REDO;
	st->writeback = META_NO_WRITEBACK;
	st->redo_upto = st->failover = 0;
}

int redo_recover(struct disk *d, uint64_t epoch)
{
	struct meta_state st;
	uint64_t last = 0;
	int r;

	meta_get(&d->meta, &st);
	if (st.writeback == META_WRITEBACK)
		return -EINVAL;
	if (!st.epoch) /* not a secondary that has a checkpoint */
		return 0;
	if (st.redo != META_REDO)
		return epoch && epoch != st.epoch ? (epoch < st.epoch ? -ESTALE : -ENODATA) : 0;
	r = journal_reaches(d, &st, &last);
	if (r)
		return do_without(d, r);
	epoch = epoch ? epoch : last;
	r = replay(d, &st, epoch, repeat_record);
	if (!r)
		r = storage_flush(&d->storage);
	return r ? r : meta_change(&d->meta, is_at_epoch, &epoch);
}

static void counts(struct meta_state *st, void *unused)
{
	(void)unused;
	st->writeback = META_WRITEBACK;
	lineage_go_alone(&st->lineage, st->failover);
}

static int write_file_back(struct disk *d, const struct meta_state *st)
{
	struct writeback_seal seal = { st->writeback_bytes, st->writeback_hash };
	int r = st->redo == META_REDO ? replay(d, st, st->redo_upto, repeat_record_noted) : 0;

	if (!r)
		r = writeback_load(d->config.data, d->config.name, d->storage.size, &seal, repeat_noted, d);
	return r ? r : settle_written_back(d);
}

int writeback_recover(struct disk *d)
{
	struct meta_state st;
	int r = 0;

	meta_get(&d->meta, &st);
	if (st.writeback == META_NO_WRITEBACK)
		return 0;
	if (st.writeback == META_PREPARED)
		r = meta_change(&d->meta, counts, NULL);
	meta_get(&d->meta, &st);
	return r ? r : write_file_back(d, &st);
}
