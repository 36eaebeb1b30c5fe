/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * stage.c - the staging area
 *
 * The writer harvests while the VM stands still, so it must be able to copy pages as it finds them,
 * before it knows how many runs there will be. Room for the records of the worst case (no two dirty
 * pages adjacent) is therefore set aside in front; the area is sparse, so that costs nothing.
 */
#include "stage.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static uint64_t page_align(uint64_t n)
{
	return (n + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

static uint64_t records_end(uint64_t pages)
{
	return page_align(sizeof(struct stage_header) + pages * sizeof(struct stage_record));
}

uint64_t stage_size(uint64_t pages)
{
	return records_end(pages) + pages * PAGE;
}

int stage_begin(struct stage_writer *w, void *base, uint64_t size, uint64_t pages)
{
	if (size < stage_size(pages))
		return -EINVAL;
	*w = (struct stage_writer){
		.base = base,
		.record = (struct stage_record *)((uint8_t *)base + sizeof(struct stage_header)),
		.max = pages,
		.data_off = records_end(pages),
	};
	w->data = w->base + w->data_off;
	return 0;
}

static bool page_is_zero(const uint8_t *page)
{
	const uint64_t *p = (const uint64_t *)page;

	for (unsigned int i = 0; i < PAGE / 8; i += 8)
		if (p[i] | p[i + 1] | p[i + 2] | p[i + 3] |
		    p[i + 4] | p[i + 5] | p[i + 6] | p[i + 7])
			return false;
	return true;
}

static void record_page(struct stage_writer *w, uint32_t block, uint64_t offset, uint32_t flags)
{
	struct stage_record *last = w->nrec ? &w->record[w->nrec - 1] : NULL;

	if (last && last->block == block && last->flags == flags &&
	    last->offset + last->npages * PAGE == offset) {
		last->npages++;
		return;
	}
	w->record[w->nrec++] = (struct stage_record){
		.block = block, .flags = flags, .offset = offset, .npages = 1,
	};
}

int stage_add(struct stage_writer *w, uint32_t block, uint64_t offset, const uint8_t *pages,
	      uint64_t npages)
{
	if (npages > w->max - w->harvested)
		return -ENOSPC;
	w->harvested += npages;
	for (; npages; npages--, offset += PAGE, pages += PAGE) {
		bool zero = page_is_zero(pages);

		record_page(w, block, offset, zero ? STAGE_ZERO : 0);
		if (zero)
			continue;
		memcpy(w->data, pages, PAGE);
		w->data += PAGE;
		w->npages++;
	}
	return 0;
}

void stage_finish(const struct stage_writer *w)
{
	*(struct stage_header *)w->base = (struct stage_header){
		.magic = STAGE_MAGIC,
		.version = STAGE_VERSION,
		.nrec = w->nrec,
		.npages = w->npages,
		.data_off = w->data_off,
	};
}

/* The one accessor for numbers in the area: do @n items of @each bytes from @off lie inside? */
static bool fits(uint64_t area, uint64_t off, uint64_t n, uint64_t each)
{
	return off <= area && n <= (area - off) / each;
}

static int check_header(const struct stage_header *h, uint64_t size, struct errtext *err)
{
	if (h->magic != STAGE_MAGIC || h->version != STAGE_VERSION)
		return agent_fail(err, -EBADMSG, "staging area: not one, or version %u unknown",
				  h->version);
	if (h->data_off % PAGE || h->data_off > size ||
	    !fits(h->data_off, sizeof(*h), h->nrec, sizeof(struct stage_record)))
		return agent_fail(err, -EBADMSG, "staging area: %llu records do not fit",
				  (unsigned long long)h->nrec);
	if (!fits(size, h->data_off, h->npages, PAGE))
		return agent_fail(err, -EBADMSG, "staging area: %llu pages do not fit",
				  (unsigned long long)h->npages);
	return 0;
}

struct position {
	uint32_t block;
	uint64_t offset; /* where the next run may begin at the earliest */
	uint64_t npages;
};

static bool record_ok(const struct stage_record *rec, const uint64_t *block_size, uint32_t nblocks,
		      struct position *pos)
{
	if (rec->block >= nblocks || rec->block < pos->block || (rec->flags & ~STAGE_ZERO))
		return false;
	if (rec->block > pos->block)
		pos->offset = 0;
	if (rec->offset % PAGE || rec->offset < pos->offset || rec->npages == 0 ||
	    !fits(block_size[rec->block], rec->offset, rec->npages, PAGE))
		return false;
	pos->block = rec->block;
	pos->offset = rec->offset + rec->npages * PAGE;
	/* no overflow: runs do not overlap, so the sum is bounded by the pages of RAM */
	if (!(rec->flags & STAGE_ZERO))
		pos->npages += rec->npages;
	return true;
}

int stage_open(struct stage_reader *r, const void *base, uint64_t size,
	       const uint64_t *block_size, uint32_t nblocks, struct errtext *err)
{
	struct stage_header h;
	struct position pos = { 0 };
	int ret;

	if (size < sizeof(h))
		return agent_fail(err, -EBADMSG, "staging area: too small");
	memcpy(&h, base, sizeof(h));
	ret = check_header(&h, size, err);
	if (ret < 0)
		return ret;
	r->record = (const struct stage_record *)((const uint8_t *)base + sizeof(h));
	r->data = (const uint8_t *)base + h.data_off;
	r->nrec = h.nrec;
	r->at = 0;
	for (uint64_t i = 0; i < h.nrec; i++)
		if (!record_ok(&r->record[i], block_size, nblocks, &pos))
			return agent_fail(err, -EBADMSG, "staging area: record %llu is invalid",
					  (unsigned long long)i);
	if (pos.npages != h.npages)
		return agent_fail(err, -EBADMSG, "staging area: %llu pages announced, %llu listed",
				  (unsigned long long)h.npages, (unsigned long long)pos.npages);
	return 0;
}

int stage_next(struct stage_reader *r, struct stage_run *run)
{
	const struct stage_record *rec;

	if (r->at == r->nrec)
		return 0;
	rec = &r->record[r->at++];
	run->block = rec->block;
	run->offset = rec->offset;
	run->npages = rec->npages;
	run->data = NULL;
	if (!(rec->flags & STAGE_ZERO)) {
		run->data = r->data;
		r->data += rec->npages * PAGE;
	}
	return 1;
}
