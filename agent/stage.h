/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * stage.h - write and read the staging area (layout in agent_proto.h)
 */
#ifndef COLO_AGENT_STAGE_H
#define COLO_AGENT_STAGE_H

#include <stdint.h>

#include "util.h"

/* Bytes needed so that @pages dirty pages always fit, in whatever runs they come */
uint64_t stage_size(uint64_t pages);

struct stage_writer {
	uint8_t *base;
	struct stage_record *record;
	uint8_t *data;     /* where the next page goes */
	uint64_t max, nrec, npages, harvested, data_off;
};

/* @size must be at least stage_size(@pages); -EINVAL otherwise */
int stage_begin(struct stage_writer *w, void *base, uint64_t size, uint64_t pages);
/* Copy a run of pages; runs must come in order. Pages that are all zero cost no room. */
int stage_add(struct stage_writer *w, uint32_t block, uint64_t offset, const uint8_t *pages,
	      uint64_t npages);
/* Write the header: from here on the area is valid. */
void stage_finish(const struct stage_writer *w);

struct stage_run {
	uint32_t block;
	uint64_t offset, npages;
	const uint8_t *data; /* NULL: all zero */
};

struct stage_reader {
	const struct stage_record *record;
	const uint8_t *data;
	uint64_t nrec, at;
};

/*
 * Check the whole area, every record included, against the block sizes (bytes). Nothing in it is
 * trusted: it came from another host. -EBADMSG and a text if anything is wrong.
 */
int stage_open(struct stage_reader *r, const void *base, uint64_t size,
	       const uint64_t *block_size, uint32_t nblocks, struct errtext *err);
/* 1 and the next run, or 0 at the end */
int stage_next(struct stage_reader *r, struct stage_run *run);

#endif
