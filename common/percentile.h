/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * percentile.h - percentiles of the last few thousand samples
 */
#ifndef COLO_PERCENTILE_H
#define COLO_PERCENTILE_H

#include <stddef.h>
#include <stdint.h>

#define PERCENTILE_SAMPLES 4096

struct percentile {
	uint32_t sample[PERCENTILE_SAMPLES];
	uint64_t count; /* ever */
	uint32_t max;   /* ever */
};

void percentile_add(struct percentile *p, uint64_t value);
/* percent in 0..100 of the samples kept (nearest rank); 0 if there are none */
uint32_t percentile_get(const struct percentile *p, unsigned int percent);

#endif
