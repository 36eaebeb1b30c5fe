/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dirty.c - which blocks may differ from what the peer has
 */
#include "disk/dirty.h"

#include "disk/disk.h"

#define ROUND_NS 1000000000u /* between the beginnings of two rounds, at least */

int dirty_init(struct disk *d)
{
	pthread_mutex_init(&d->dirty.lock, NULL);
	return bitmap_init(&d->dirty.older, d->storage.size);
}

void dirty_destroy(struct disk *d)
{
	bitmap_free(&d->dirty.older);
	pthread_mutex_destroy(&d->dirty.lock);
}

int dirty_note(struct disk *d, uint64_t off, uint64_t len)
{
	bitmap_note(&d->changed, off, len);
	return meta_heat(&d->meta, off, len);
}

/* With the lock held, so that nobody sees a bit in neither of the two. */
static void move_all(struct bitmap *to, struct bitmap *from)
{
	for (uint64_t i = 0; from->set && i < bitmap_words(from); i++) {
		uint64_t bits = bitmap_take(from, i);

		if (bits)
			bitmap_or(to, i, bits);
	}
}

static void forget_all(struct bitmap *b)
{
	for (uint64_t i = 0; b->set && i < bitmap_words(b); i++)
		bitmap_take(b, i);
}

void dirty_boundary(struct disk *d, uint64_t epoch)
{
	struct dirty *dirty = &d->dirty;
	uint64_t now = disk_now_ns();

	pthread_mutex_lock(&dirty->lock);
	if (!dirty->epoch && (!dirty->began_ns || now - dirty->began_ns >= ROUND_NS)) {
		move_all(&dirty->older, &d->changed);
		dirty->epoch = epoch;
		dirty->changes = atomic_load(&d->storage.changes);
		dirty->began_ns = now;
	}
	pthread_mutex_unlock(&dirty->lock);
}

static void note_shared(struct meta_state *s, void *opaque)
{
	lineage_shared(&s->lineage);
}

static void mark_shared(struct meta_state *s, void *opaque)
{
	s->lineage.flags |= LINEAGE_SHARED;
}

/* Nothing may be forgotten before the base is the generation that the peer has. */
static int move_base(struct disk *d)
{
	struct meta_state s;

	meta_get(&d->meta, &s);
	return s.lineage.base == s.lineage.current ? 0 : meta_change(&d->meta, note_shared, NULL);
}

/* What the peer has must not be lost here by a power loss any more, or the copies would differ where no bit
 * says so. QEMU flushes whenever it stops the VM, so there is nothing to do as a rule. */
static int stabilise_round(struct disk *d, uint64_t epoch)
{
	uint64_t changes;
	bool ends;

	pthread_mutex_lock(&d->dirty.lock);
	ends = d->dirty.epoch && epoch >= d->dirty.epoch;
	changes = d->dirty.changes;
	pthread_mutex_unlock(&d->dirty.lock);
	return ends ? storage_flush_upto(&d->storage, changes) : 0;
}

int dirty_committed(struct disk *d, uint64_t epoch)
{
	struct dirty *dirty = &d->dirty;
	int r = move_base(d);

	if (r)
		return r;
	if (stabilise_round(d, epoch))
		return 0; /* the VM's next flush says so, and the bits stay */
	pthread_mutex_lock(&dirty->lock);
	if (dirty->epoch && epoch >= dirty->epoch) {
		forget_all(&dirty->older);
		dirty->epoch = 0;
	}
	pthread_mutex_unlock(&dirty->lock);
	return 0;
}

void dirty_unlinked(struct disk *d)
{
	pthread_mutex_lock(&d->dirty.lock);
	move_all(&d->changed, &d->dirty.older);
	d->dirty.epoch = d->dirty.began_ns = 0;
	pthread_mutex_unlock(&d->dirty.lock);
}

int dirty_share(struct disk *d)
{
	return meta_change(&d->meta, mark_shared, NULL);
}

void dirty_adopted(struct disk *d)
{
	pthread_mutex_lock(&d->dirty.lock);
	forget_all(&d->changed);
	forget_all(&d->dirty.older);
	d->dirty.epoch = 0;
	pthread_mutex_unlock(&d->dirty.lock);
}

uint64_t dirty_blocks(void *opaque, uint64_t region)
{
	struct disk *d = opaque;
	uint64_t bits;

	pthread_mutex_lock(&d->dirty.lock);
	bits = bitmap_word(&d->changed, region) | bitmap_word(&d->dirty.older, region);
	pthread_mutex_unlock(&d->dirty.lock);
	return bits;
}

int dirty_copy(struct disk *d, struct bitmap *dst)
{
	int r = bitmap_init(dst, d->storage.size);

	for (uint64_t i = 0; !r && i < bitmap_words(dst); i++)
		bitmap_or(dst, i, dirty_blocks(d, i));
	return r;
}

uint64_t dirty_bytes(struct disk *d)
{
	uint64_t blocks = 0;

	if (!d->dirty.older.set)
		return bitmap_bytes(&d->changed);
	for (uint64_t i = 0; i < bitmap_words(&d->changed); i++)
		blocks += (uint64_t)__builtin_popcountll(dirty_blocks(d, i));
	return blocks * BITMAP_BLOCK;
}

int dirty_settle(struct disk *d)
{
	return meta_settle(&d->meta, dirty_blocks, d);
}
