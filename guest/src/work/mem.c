// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory writer: in each round, random pages of an area are checked against what was last written
 * there and written anew. The sequence number of each page is kept a second time outside the area,
 * so that a page that went back to an older state as a whole is noticed as well.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "work.h"

#define PAGE_SIZE 4096
#define PAGE_WORDS (PAGE_SIZE / sizeof(uint64_t))
#define STRIDE 16	/* one word in each 128 bytes */

struct mem {
	uint64_t (*pages)[PAGE_WORDS];
	uint32_t *seqs;
	size_t npages;
};

static void page_write(struct mem *m, size_t page, uint32_t seq)
{
	m->seqs[page] = seq;
	for (size_t i = 0; i < PAGE_WORDS; i += STRIDE)
		m->pages[page][i] = work_mix(page << 16 | i, seq);
}

static void page_check(struct worker *w, struct mem *m, size_t page)
{
	uint32_t seq = m->seqs[page];

	for (size_t i = 0; i < PAGE_WORDS; i += STRIDE) {
		uint64_t want = work_mix(page << 16 | i, seq);

		if (m->pages[page][i] == want)
			continue;
		work_corrupt(w, "page %zu word %zu seq %u: %016lx, expected %016lx", page, i, seq,
			     m->pages[page][i], want);
		return;
	}
}

static int mem_setup(struct worker *w)
{
	size_t len = (size_t)w->args[0] << 20;
	struct mem *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	w->priv = m;
	m->npages = len / PAGE_SIZE;
	m->seqs = calloc(m->npages, sizeof(*m->seqs));
	m->pages = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->pages == MAP_FAILED)
		m->pages = NULL;
	if (!m->seqs || !m->pages || !m->npages)
		return -ENOMEM;
	for (size_t i = 0; i < m->npages; i++)
		page_write(m, i, 1);
	return 0;
}

static void mem_round(struct worker *w)
{
	struct mem *m = w->priv;

	for (long i = 0; i < w->args[1]; i++) {
		size_t page = work_random(w) % m->npages;

		page_check(w, m, page);
		page_write(m, page, m->seqs[page] + 1);
	}
}

static void mem_cleanup(struct worker *w)
{
	struct mem *m = w->priv;

	if (!m)
		return;
	if (m->pages)
		munmap(m->pages, m->npages * PAGE_SIZE);
	free(m->seqs);
	free(m);
}

const struct work_kind work_mem = {
	.name = "mem",
	.args = "MIB PAGES-PER-ROUND PERIOD-MS",
	.nargs = 3,
	.defaults = { 64, 256, 20 },
	.setup = mem_setup,
	.round = mem_round,
	.cleanup = mem_cleanup,
};
