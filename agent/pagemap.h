/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pagemap.h - iterate over the pages of this process that satisfy a condition
 */
#ifndef COLO_AGENT_PAGEMAP_H
#define COLO_AGENT_PAGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util.h"

enum pagemap_what {
	PAGEMAP_DIRTY,   /* written since the last such scan; protects them again. Only with
			  * asynchronous write protection: ask wp.h, which knows */
	PAGEMAP_PRIVATE, /* copied on write, no longer the file's; not if swapped out. Slow */
	PAGEMAP_COPIED,  /* the same, and what is swapped out. Slow; without PAGEMAP_SCAN only, and only
			  * where nothing is write-protected: a marker counts as swapped */
	PAGEMAP_MAPPED,  /* present or swapped (or protected: a marker counts as swapped), but not
			  * the shared zero page, if the kernel tells it */
};

struct page_region {
	uint64_t start, end; /* addresses */
	uint64_t categories;
};

#define PAGEMAP_BATCH 2048

struct pagemap_iter {
	enum pagemap_what what;
	uint64_t at, end;
	struct page_region region[PAGEMAP_BATCH];
};

/* Begin at @addr, @len bytes; both page-aligned. */
void pagemap_begin(struct pagemap_iter *it, enum pagemap_what what, const void *addr, uint64_t len);

/* Fill it->region; returns how many, 0 at the end, or a negative errno. */
int pagemap_next(struct pagemap_iter *it, struct errtext *err);

/* Forget what was written in a range: what PAGEMAP_DIRTY does, without listing. */
int pagemap_clean(const void *addr, uint64_t len, struct errtext *err);

/* From now on as on a kernel without PAGEMAP_SCAN; for tests, and where write protection is synchronous. */
void pagemap_avoid_scan(void);

/* For synchronous write protection: -EILSEQ if a page of the range is not protected. */
int pagemap_check_protected(const void *addr, uint64_t len, struct errtext *err);

#endif
