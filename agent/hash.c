/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hash.c - hash of guest RAM
 *
 * The sum over all pages of a hash of place and content, in which zero pages count nothing. So
 * pages that cannot be other than zero (never mapped, holes of the image) need not be touched,
 * which would populate them, and pages may come in any order. Not cryptographic: it finds faults.
 */
#include "hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pagemap.h"

#define LANES 8

static uint64_t mix(uint64_t x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	x ^= x >> 32;
	return x;
}

uint64_t hash_page(const uint8_t *page, uint32_t block, uint64_t offset)
{
	const uint64_t *p = (const uint64_t *)page;
	uint64_t lane[LANES] = { 0 }, any = 0, sum;

	for (unsigned int i = 0; i < PAGE / 8; i += LANES)
		for (unsigned int k = 0; k < LANES; k++) {
			any |= p[i + k];
			lane[k] = (lane[k] ^ p[i + k]) * 0x9e3779b97f4a7c15u;
			lane[k] ^= lane[k] >> 29;
		}
	if (!any)
		return 0;
	sum = mix(offset + 1) + block;
	for (unsigned int k = 0; k < LANES; k++)
		sum = mix(sum ^ lane[k]);
	return sum;
}

/* Which pages of a block were counted already; the largest block's fits */
static struct {
	uint8_t *bits;
	uint64_t room; /* pages */
} seen;

static int forget_seen(uint64_t pages, struct errtext *err)
{
	if (pages > seen.room) {
		uint8_t *p = realloc(seen.bits, pages / 8 + 1);

		if (!p)
			return agent_fail(err, -ENOMEM, "hash of RAM: out of memory");
		seen.bits = p;
		seen.room = pages;
	}
	memset(seen.bits, 0, pages / 8 + 1);
	return 0;
}

static bool first_time(uint64_t page)
{
	uint8_t bit = 1u << page % 8;
	bool first = !(seen.bits[page / 8] & bit);

	seen.bits[page / 8] |= bit;
	return first;
}

static uint64_t hash_range(const struct ram_block *b, uint32_t index, uint64_t at, uint64_t end)
{
	uint64_t sum = 0;

	for (; at < end; at += PAGE)
		if (first_time(at / PAGE))
			sum += hash_page(b->host + at, index, at);
	return sum;
}

static int hash_listed(const struct ram_block *b, uint32_t index, enum pagemap_what what, uint64_t *sum,
		       struct errtext *err)
{
	static struct pagemap_iter it;
	int n;

	pagemap_begin(&it, what, b->host, b->size);
	while ((n = pagemap_next(&it, err)) > 0)
		for (int i = 0; i < n; i++)
			*sum += hash_range(b, index, it.region[i].start - (uintptr_t)b->host,
					   it.region[i].end - (uintptr_t)b->host);
	return n;
}

/* Is any private page of this process swapped out? PAGEMAP_PRIVATE would not list it. */
static bool any_swapped(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long kib = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f) && sscanf(line, "VmSwap: %lu", &kib) != 1)
		;
	if (f)
		fclose(f);
	return !f || kib;
}

/*
 * What the image holds, as the guest sees it, then what the guest wrote where it holds nothing. The image may lose pages
 * between the two: by folding (fold.c), and by the kernel, which drops zero pages that were only ever read.
 */
static int hash_view(const struct ram_block *b, uint32_t index, uint64_t *sum, struct errtext *err)
{
	off_t at = 0, end;

	while ((at = lseek(b->image_fd, at, SEEK_DATA)) >= 0) {
		end = lseek(b->image_fd, at, SEEK_HOLE);
		if (end < 0)
			return agent_fail(err, -errno, "image of %s: %s", b->name, strerror(errno));
		*sum += hash_range(b, index, at & ~(off_t)(PAGE - 1), end);
		at = end;
	}
	if (errno != ENXIO)
		return agent_fail(err, -errno, "image of %s: %s", b->name, strerror(errno));
	/* MAPPED has what is swapped out, and what is untouched as well: zeroes, at the price of populating them */
	return hash_listed(b, index, any_swapped() ? PAGEMAP_MAPPED : PAGEMAP_PRIVATE, sum, err);
}

int hash_ram(const struct ram *ram, uint64_t *hash, struct errtext *err)
{
	uint64_t sum = 0;
	int ret = 0;

	for (unsigned int i = 0; i < ram->n && ret == 0; i++) {
		const struct ram_block *b = &ram->block[i];

		ret = forget_seen(b->size / PAGE, err);
		if (ret < 0)
			break;
		if (b->image_fd >= 0)
			ret = hash_view(b, i, &sum, err);
		else if (b->anon)
			ret = hash_listed(b, i, PAGEMAP_MAPPED, &sum, err);
		else
			sum += hash_range(b, i, 0, b->size);
	}
	*hash = sum;
	return ret;
}
