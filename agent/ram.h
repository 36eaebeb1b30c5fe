/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ram.h - the guest's RAM as the agent sees it: a table of blocks in QEMU's address space
 *
 * Blocks are sorted by name, so that an index means the same block on both hosts whatever order
 * QEMU lists them in.
 */
#ifndef COLO_AGENT_RAM_H
#define COLO_AGENT_RAM_H

#include <stdbool.h>
#include <stdint.h>

#include "agent_proto.h"

struct ram_block {
	char name[AGENT_BLOCK_NAME];
	uint8_t *host;
	uint64_t size;  /* bytes, whole pages */
	uint64_t ram_addr; /* where the block begins in QEMU's numbering of all RAM */
	bool anon;      /* no file behind it: a page that is not mapped reads as zero */
	bool in_file;   /* driver standby: a file holds it, the same one before and after a view is made */
	int image_fd;   /* memfd of the checkpoint image, or with in_file that file; -1: none */
	uint8_t *image; /* the image, mapped shared; NULL: this block has no view */
};

struct ram {
	unsigned int n;
	struct ram_block block[AGENT_MAX_BLOCKS];
};

static inline uint64_t ram_pages(const struct ram *ram)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < ram->n; i++)
		pages += ram->block[i].size / AGENT_PAGE_SIZE;
	return pages;
}

#endif
