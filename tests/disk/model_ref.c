/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * model_ref.c - the reference: what each sector of a disk holds, and what it may hold after a power loss
 */
#include "model.h"

#include <string.h>

#include "disk/range.h"

#define WORDS (SECTOR / 8)

/* Spots lie about 4 MiB apart, at all alignments to blocks of 4 and 64 KiB; the last ends with the disk. */
uint64_t ref_offset(unsigned sector)
{
	uint64_t spot = sector / SPOT_SECTORS, in = sector % SPOT_SECTORS;
	uint64_t start = spot == SPOTS - 1 ? DISK_BYTES - SPOT_SECTORS * SECTOR
					   : (spot << 22) + spot * 7 * SECTOR + (spot & 1) * 40960;

	return start + in * SECTOR;
}

unsigned ref_within(unsigned from, uint64_t off, uint64_t len)
{
	while (from < SECTORS) {
		uint64_t at = ref_offset(from);

		if (at >= off)
			return at < off + len ? from : SECTORS;
		from++;
	}
	return SECTORS;
}

uint64_t ref_number(struct shared *sh, unsigned host)
{
	return (atomic_fetch_add(&sh->next, 1) << 1) | host;
}

static uint64_t word(unsigned disk, unsigned sector, uint64_t value, unsigned i)
{
	return (value + i) * 0x9e3779b97f4a7c15u ^ ((uint64_t)disk << 40 | sector);
}

void ref_fill(void *buf, unsigned disk, unsigned sector, uint64_t value)
{
	uint64_t *w = buf;

	w[0] = value;
	for (unsigned i = 1; i < WORDS; i++)
		w[i] = word(disk, sector, value, i);
}

uint64_t ref_value(const void *buf, unsigned disk, unsigned sector)
{
	const uint64_t *w = buf;

	if (!w[0]) {
		for (unsigned i = 1; i < WORDS; i++)
			if (w[i])
				return GARBAGE;
		return 0;
	}
	for (unsigned i = 1; i < WORDS; i++)
		if (w[i] != word(disk, sector, w[0], i))
			return GARBAGE;
	return w[0];
}

bool ref_allows(const struct ref *r, unsigned host, unsigned sector, uint64_t content)
{
	const struct sector *s = &r->s[sector];
	uint64_t floor = s->floor & ~ZERO_BIT;

	if (content == ref_content(s->floor))
		return true;
	if (!content)
		return s->zeroed > floor && s->zeroed >= r->since;
	if (content == GARBAGE)
		return false;
	return content > floor && content >= r->since && content <= (s->last & ~ZERO_BIT) && (content & 1) == host;
}

void ref_all_stable(struct ref *r)
{
	for (unsigned i = 0; i < SECTORS; i++)
		r->s[i].floor = r->s[i].done;
}

void ref_set(struct ref *r, struct shared *sh, const uint64_t *content)
{
	r->since = atomic_load(&sh->next) << 1;
	for (unsigned i = 0; i < SECTORS; i++) {
		r->s[i].last = r->s[i].done = r->s[i].floor = content[i];
		r->s[i].zeroed = 0;
	}
}
