/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * percentile.c - see percentile.h
 */
#include "common/percentile.h"

#include <stdlib.h>
#include <string.h>

void percentile_add(struct percentile *p, uint64_t value)
{
	uint32_t v = value > UINT32_MAX ? UINT32_MAX : value;

	p->sample[p->count++ % PERCENTILE_SAMPLES] = v;
	if (v > p->max)
		p->max = v;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

uint32_t percentile_get(const struct percentile *p, unsigned int percent)
{
	size_t n = p->count < PERCENTILE_SAMPLES ? p->count : PERCENTILE_SAMPLES, rank;
	static uint32_t sorted[PERCENTILE_SAMPLES];

	if (!n)
		return 0;
	memcpy(sorted, p->sample, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare);
	rank = (n * percent + 99) / 100;
	return sorted[rank ? rank - 1 : 0];
}
