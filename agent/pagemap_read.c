/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pagemap_read.c - what PAGEMAP_SCAN tells, on kernels that do not have it (before Linux 6.7)
 *
 * A read of /proc/self/pagemap gives a word for each page, so that the cost grows with RAM and not with
 * what is found. Two things the words do not tell:
 * - the shared zero page, without a privilege: it counts as any page that is present;
 * - before Linux 6.11, that a page of a file is the file's where it is mapped as part of a huge one. It would
 *   be taken for a private page, and fold.c would give away a page that the guest still reads. Pages
 *   that were copied on write are never mapped as huge ones in a mapping of a file, so a whole huge page of
 *   apparently private ones is believed only while this machine has no memory of files mapped so.
 */
#include "pagemap_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PM_PRESENT (UINT64_C(1) << 63)
#define PM_SWAP (UINT64_C(1) << 62)
#define PM_FILE (UINT64_C(1) << 61)
#define PM_UFFD_WP (UINT64_C(1) << 57)

#define CHUNK 512 /* entries a read, a huge page's worth; the kernel itself walks in such steps */
#define HUGE (CHUNK * (uint64_t)PAGE)

static bool matches(enum pagemap_what what, uint64_t entry)
{
	switch (what) {
	case PAGEMAP_PRIVATE:
		return (entry & (PM_PRESENT | PM_FILE)) == PM_PRESENT;
	case PAGEMAP_COPIED:
		return (entry & (PM_PRESENT | PM_FILE)) == PM_PRESENT || entry & PM_SWAP;
	default:
		return entry & (PM_PRESENT | PM_SWAP);
	}
}

/* The entries of the huge page, or what would be one, that @at lies in. */
static int read_chunk(uint64_t at, uint64_t entry[CHUNK], struct errtext *err)
{
	const size_t want = CHUNK * sizeof(*entry);
	int fd = pagemap_fd(err);
	ssize_t n;

	if (fd < 0)
		return fd;
	do {
		n = pread(fd, entry, want, at / HUGE * want);
	} while (n < 0 && errno == EINTR);
	if (n != (ssize_t)want)
		return agent_fail(err, n < 0 ? -errno : -EIO, "cannot read /proc/self/pagemap: %s",
				  n < 0 ? strerror(errno) : "it ends early");
	return 0;
}

/* Unknown counts as yes. */
static bool files_mapped_huge(void)
{
	static const char *const keys[] = { "ShmemPmdMapped: %lu", "FilePmdMapped: %lu" };
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long kib, sum = 0;
	unsigned int found = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		for (unsigned int i = 0; i < 2; i++)
			if (sscanf(line, keys[i], &kib) == 1) {
				found |= 1u << i;
				sum += kib;
			}
	if (f)
		fclose(f);
	return !(found & 1) || sum;
}

/* A whole huge page of what looks private, and may not be. */
static bool doubtful(enum pagemap_what what, const uint64_t *entry)
{
	if (what != PAGEMAP_PRIVATE)
		return false;
	for (int i = 0; i < CHUNK; i++)
		if (!matches(what, entry[i]))
			return false;
	return files_mapped_huge();
}

static uint64_t chunk_end(const struct pagemap_iter *it)
{
	uint64_t border = (it->at / HUGE + 1) * HUGE;

	return border < it->end ? border : it->end;
}

/* Add what matches to it->region, as far as there is room; it->at is where to go on. */
static int collect(struct pagemap_iter *it, int regions, const uint64_t *entry)
{
	for (uint64_t end = chunk_end(it); it->at < end; it->at += PAGE) {
		if (!matches(it->what, entry[it->at / PAGE % CHUNK]))
			continue;
		if (regions && it->region[regions - 1].end == it->at) {
			it->region[regions - 1].end += PAGE;
			continue;
		}
		if (regions == PAGEMAP_BATCH)
			break;
		it->region[regions++] = (struct page_region){ it->at, it->at + PAGE, 0 };
	}
	return regions;
}

int pagemap_read_next(struct pagemap_iter *it, struct errtext *err)
{
	uint64_t entry[CHUNK];
	int regions = 0;

	if (it->what == PAGEMAP_DIRTY)
		return agent_fail(err, -EINVAL, "the page map does not tell what was written");
	while (it->at < it->end && regions < PAGEMAP_BATCH) {
		int ret = read_chunk(it->at, entry, err);

		if (ret < 0)
			return ret;
		if (doubtful(it->what, entry))
			it->at = chunk_end(it);
		else
			regions = collect(it, regions, entry);
	}
	return regions;
}

int pagemap_check_protected(const void *addr, uint64_t len, struct errtext *err)
{
	uint64_t at = (uintptr_t)addr, end = at + len;
	uint64_t entry[CHUNK];
	int ret;

	for (; at < end; at += PAGE) {
		if (at == (uintptr_t)addr || at % HUGE == 0) {
			ret = read_chunk(at, entry, err);
			if (ret < 0)
				return ret;
		}
		if (!(entry[at / PAGE % CHUNK] & PM_UFFD_WP))
			return agent_fail(err, -EILSEQ, "write protection: the kernel left out the page at %#llx",
					  (unsigned long long)(at - (uintptr_t)addr));
	}
	return 0;
}
