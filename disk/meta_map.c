/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * meta_map.c - which blocks may differ from the peer's, on stable storage
 *
 * Theory of operation. A region is, in memory, in one of these states:
 *
 *   COLD     not in the coarse map; the fine map on stable storage has all its noted blocks
 *   HEATING  a writer to it or to a neighbour waits for the sync that puts it into the coarse map
 *   SYNCING  that sync is under way
 *   USED     in the coarse map, and written to since the last meta_settle()
 *   HOT      in the coarse map, not written to since
 *   COOLING  in the coarse map; meta_settle() is making its part of the fine map stable
 *
 * A writer notes its blocks in the bitmap, and then makes its regions USED: by one atomic operation from HOT
 * and COOLING, with a sync from COLD. meta_settle() makes USED to HOT and HOT to COOLING, writes the fine
 * map, and then makes COOLING to COLD, where no writer was quicker. A writer who was quicker is in the
 * coarse map; one who comes later syncs; and one who went ahead when the region was USED has noted its blocks
 * long before the fine map was written. In each case the blocks are on stable storage before they change.
 *
 * Everything but COLD is in the coarse map, whoever writes it. Taking a region out of it needs no sync:
 * a crash leaves one region too many.
 */
#include "disk/meta_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum heat { COLD, HEATING, SYNCING, USED, HOT, COOLING };

#define COARSE_REGIONS (META_WORDS * 64u) /* of one sector */
#define GROUP 16u /* regions: a sync for one is a sync for its neighbours, which are likely to be next */

static uint64_t coarse_sectors(const struct meta *m)
{
	return (m->regions + COARSE_REGIONS - 1) / COARSE_REGIONS;
}

static uint64_t fine_sectors(const struct meta *m)
{
	return (m->regions + META_WORDS - 1) / META_WORDS;
}

static uint64_t coarse_at(uint64_t sector)
{
	return META_MAPS + sector * META_SECTOR;
}

static uint64_t fine_at(const struct meta *m, uint64_t sector)
{
	return META_MAPS + (coarse_sectors(m) + sector) * META_SECTOR;
}

static uint64_t seal(const struct meta_sector *s, uint64_t at)
{
	return XXH3_64bits_withSeed(s->words, sizeof(s->words), at);
}

static int put_sector(struct meta *m, struct meta_sector *s, uint64_t at)
{
	s->hash = seal(s, at);
	return meta_put(m, s, sizeof(*s), at);
}

uint64_t meta_map_bytes(uint64_t size)
{
	struct meta m = { .regions = size / META_REGION + (size % META_REGION != 0) };

	return fine_at(&m, fine_sectors(&m));
}

int meta_map_init(struct meta *m)
{
	m->heat = calloc(m->regions, sizeof(*m->heat));
	m->fine = calloc(fine_sectors(m), sizeof(*m->fine));
	m->stale = calloc(coarse_sectors(m), sizeof(*m->stale));
	return m->heat && m->fine && m->stale ? 0 : -ENOMEM;
}

void meta_map_free(struct meta *m)
{
	free(m->heat);
	free(m->fine);
	free(m->stale);
}

int meta_map_make(struct meta *m)
{
	struct meta_sector zero = { 0 };
	int r = 0;

	for (uint64_t s = 0; !r && s < coarse_sectors(m) + fine_sectors(m); s++)
		r = put_sector(m, &zero, coarse_at(s));
	return r;
}

/* One that was written in part says nothing, so everything in it may differ. */
static int get_sector(struct meta *m, struct meta_sector *s, uint64_t at)
{
	ssize_t n;

	do {
		n = pread(m->fd, s, sizeof(*s), (off_t)at);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n != (ssize_t)sizeof(*s) || s->hash != seal(s, at))
		memset(s->words, 0xff, sizeof(s->words));
	return 0;
}

static int load_coarse(struct meta *m, struct bitmap *changed)
{
	struct meta_sector s;
	int r = 0;

	for (uint64_t i = 0; !r && i < m->regions; i++) {
		if (i % COARSE_REGIONS == 0)
			r = get_sector(m, &s, coarse_at(i / COARSE_REGIONS));
		if (r || !(s.words[i % COARSE_REGIONS / 64] >> (i % 64) & 1))
			continue;
		bitmap_or(changed, i, UINT64_MAX);
		m->heat[i] = HOT;
	}
	return r;
}

int meta_map_load(struct meta *m, struct bitmap *changed)
{
	int r = load_coarse(m, changed);

	for (uint64_t i = 0; !r && i < m->regions; i++) {
		struct meta_sector *s = &m->fine[i / META_WORDS];

		if (i % META_WORDS == 0)
			r = get_sector(m, s, fine_at(m, i / META_WORDS));
		if (!r)
			bitmap_or(changed, i, s->words[i % META_WORDS]);
	}
	return r;
}

/* ---- heating ---- */

/* With the lock held, so that of two versions of a sector the newer one comes last. */
static int write_coarse(struct meta *m)
{
	int r = 0;

	for (uint64_t s = 0; !r && s < coarse_sectors(m); s++) {
		struct meta_sector sector = { 0 };
		uint64_t first = s * COARSE_REGIONS;

		if (!m->stale[s])
			continue;
		for (uint64_t i = 0; i < COARSE_REGIONS && first + i < m->regions; i++)
			if (atomic_load(&m->heat[first + i]) != COLD)
				sector.words[i / 64] |= 1ull << (i % 64);
		r = put_sector(m, &sector, coarse_at(s));
		m->stale[s] = false;
	}
	return r;
}

/* True: the region is in the coarse map, and stays until two calls of meta_settle() have passed. */
static bool touch(struct meta *m, uint64_t region)
{
	uint8_t h = atomic_load_explicit(&m->heat[region], memory_order_seq_cst);

	while (h == HOT || h == COOLING)
		if (atomic_compare_exchange_weak(&m->heat[region], &h, USED))
			return true;
	return h == USED;
}

static void change_all(struct meta *m, uint8_t from, uint8_t to)
{
	for (uint64_t i = 0; i < m->regions; i++) {
		uint8_t h = from;

		if (atomic_load_explicit(&m->heat[i], memory_order_relaxed) == from)
			atomic_compare_exchange_strong(&m->heat[i], &h, to);
	}
}

/* Whoever comes first syncs for all who came before it began. With the lock held. */
static void sync_for_all(struct meta *m)
{
	uint64_t upto = m->asked;
	int r = write_coarse(m);

	change_all(m, HEATING, SYNCING);
	m->syncing = true;
	pthread_mutex_unlock(&m->lock);
	r = r ? r : meta_sync(m);
	pthread_mutex_lock(&m->lock);
	m->syncing = false;
	if (!r) {
		change_all(m, SYNCING, HOT);
		m->stable = upto;
	}
	pthread_cond_broadcast(&m->done);
}

static void wait_until_stable(struct meta *m, uint64_t ticket)
{
	while (!m->broken && m->stable < ticket) {
		if (m->syncing)
			pthread_cond_wait(&m->done, &m->lock);
		else
			sync_for_all(m);
	}
}

struct span {
	uint64_t first, last;
};

static struct span groups_of(const struct meta *m, struct span s)
{
	uint64_t end = s.last / GROUP * GROUP + GROUP;

	return (struct span){ s.first / GROUP * GROUP, (end < m->regions ? end : m->regions) - 1 };
}

/* With the lock held: the ticket of the sync to wait for. */
static uint64_t ask_for(struct meta *m, struct span around)
{
	bool any = false;

	for (uint64_t i = around.first; i <= around.last; i++) {
		if (atomic_load(&m->heat[i]) != COLD)
			continue;
		atomic_store(&m->heat[i], HEATING);
		m->stale[i / COARSE_REGIONS] = true;
		any = true;
	}
	if (any)
		m->asked++;
	return m->asked;
}

/* With the lock held. False: one has cooled down again during the wait for another. */
static bool all_used(struct meta *m, struct span s)
{
	bool all = true;

	for (uint64_t i = s.first; i <= s.last; i++)
		all &= touch(m, i);
	return all;
}

static int heat_cold(struct meta *m, struct span s)
{
	struct span around = groups_of(m, s);
	int r;

	pthread_mutex_lock(&m->lock);
	do {
		wait_until_stable(m, ask_for(m, around));
	} while (!m->broken && !all_used(m, s));
	r = m->broken;
	pthread_mutex_unlock(&m->lock);
	return r;
}

int meta_heat(struct meta *m, uint64_t off, uint64_t len)
{
	struct span s = { off / META_REGION, (off + len - 1) / META_REGION };

	if (!len)
		return 0;
	for (uint64_t i = s.first; i <= s.last; i++)
		if (!touch(m, i))
			return heat_cold(m, s);
	return 0;
}

/* ---- cooling ---- */

/* The coarse map speaks for regions that are in it and stay there. */
static bool fine_counts(struct meta *m, uint64_t region)
{
	uint8_t h = atomic_load(&m->heat[region]);

	return h == COLD || h == COOLING;
}

/* True: it is to be written. */
static bool refresh(struct meta *m, uint64_t sector, struct meta_sector *to, meta_blocks_fn *blocks,
		    void *opaque)
{
	uint64_t first = sector * META_WORDS;
	bool any = false;

	memset(to, 0, sizeof(*to));
	for (uint64_t i = 0; i < META_WORDS && first + i < m->regions; i++) {
		to->words[i] = blocks(opaque, first + i);
		any |= to->words[i] != m->fine[sector].words[i] && fine_counts(m, first + i);
	}
	return any;
}

static int write_fine(struct meta *m, meta_blocks_fn *blocks, void *opaque)
{
	bool any = false;
	int r = 0;

	for (uint64_t s = 0; !r && s < fine_sectors(m); s++) {
		struct meta_sector sector;

		if (!refresh(m, s, &sector, blocks, opaque))
			continue;
		r = put_sector(m, &sector, fine_at(m, s));
		m->fine[s] = sector;
		any = true;
	}
	return r || !any ? r : meta_sync(m);
}

static int cool_down(struct meta *m)
{
	int r;

	pthread_mutex_lock(&m->lock);
	for (uint64_t i = 0; i < m->regions; i++) {
		uint8_t h = COOLING;

		if (atomic_load(&m->heat[i]) == COOLING && atomic_compare_exchange_strong(&m->heat[i], &h, COLD))
			m->stale[i / COARSE_REGIONS] = true;
	}
	r = write_coarse(m);
	pthread_mutex_unlock(&m->lock);
	return r;
}

int meta_settle(struct meta *m, meta_blocks_fn *blocks, void *opaque)
{
	int r;

	pthread_mutex_lock(&m->settle);
	change_all(m, HOT, COOLING);
	change_all(m, USED, HOT);
	r = m->broken ? m->broken : write_fine(m, blocks, opaque);
	if (!r)
		r = cool_down(m);
	else
		change_all(m, COOLING, HOT);
	pthread_mutex_unlock(&m->settle);
	return r;
}
