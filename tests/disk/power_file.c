/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * power_file.c - the unflushed content of one file (power.h)
 *
 * A table of regions of 2 MiB, each of 512 pages. A page is absent (the real file has it), a hole (zeroes that are
 * unflushed) or has content, with one bit for each of its sectors that is unflushed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "power.h"

#define REGION_PAGES 512u
#define REGION ((uint64_t)REGION_PAGES * POWER_PAGE)
#define ALL_DIRTY 0xffu

struct page {
	uint8_t dirty;
	char data[POWER_PAGE];
};
static struct page hole; /* all that are holes point here */

struct power_region {
	unsigned used;
	struct page *page[REGION_PAGES];
};

static void die(const char *what)
{
	fprintf(stderr, "power: %s: %s\n", what, strerror(errno));
	abort();
}

static void *allocate(size_t n)
{
	void *p = calloc(1, n);

	if (!p)
		die("memory");
	return p;
}

/* ---- the real file ---- */

static size_t real_read(struct power_file *f, char *buf, size_t len, uint64_t off)
{
	size_t got = 0;

	while (got < len) {
		long n = syscall(SYS_pread64, f->fd, buf + got, len - got, off + got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			die("reading the real file");
		if (n == 0)
			break;
		got += (size_t)n;
	}
	memset(buf + got, 0, len - got); /* behind its end: not stable yet */
	return len;
}

static void real_write(struct power_file *f, const char *buf, size_t len, uint64_t off)
{
	while (len) {
		long n = syscall(SYS_pwrite64, f->fd, buf, len, off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			die("writing the real file");
		buf += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
}

static void real_zero(struct power_file *f, uint64_t off, uint64_t len)
{
	static const char zeroes[POWER_PAGE];
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	if (syscall(SYS_fallocate, f->fd, mode, off, len) == 0)
		return;
	for (; len; off += POWER_PAGE, len -= len < POWER_PAGE ? len : POWER_PAGE)
		real_write(f, zeroes, len < POWER_PAGE ? len : POWER_PAGE, off);
}

static uint64_t real_size(struct power_file *f)
{
	struct stat sb;

	if (syscall(SYS_fstat, f->fd, &sb) < 0)
		die("size of the real file");
	return (uint64_t)sb.st_size;
}

/* ---- pages ---- */

static struct page **page_slot(struct power_file *f, uint64_t page, bool make)
{
	size_t r = page / REGION_PAGES;

	if (r >= f->nregions) {
		size_t n = r + r / 2 + 16;

		if (!make)
			return NULL;
		f->regions = realloc(f->regions, n * sizeof(*f->regions));
		if (!f->regions)
			die("memory");
		memset(f->regions + f->nregions, 0, (n - f->nregions) * sizeof(*f->regions));
		f->nregions = n;
	}
	if (!f->regions[r]) {
		if (!make)
			return NULL;
		f->regions[r] = allocate(sizeof(struct power_region));
	}
	return &f->regions[r]->page[page % REGION_PAGES];
}

static void put_page(struct power_file *f, uint64_t page, struct page *p)
{
	struct page **slot = page_slot(f, page, true);

	f->regions[page / REGION_PAGES]->used += !*slot;
	f->pages += !*slot;
	if (*slot && *slot != &hole)
		free(*slot);
	*slot = p;
}

static void drop_page(struct power_file *f, uint64_t page)
{
	struct page **slot = page_slot(f, page, false);

	if (!slot || !*slot)
		return;
	if (*slot != &hole)
		free(*slot);
	*slot = NULL;
	f->regions[page / REGION_PAGES]->used--;
	f->pages--;
}

static struct page *get_page(struct power_file *f, uint64_t page)
{
	struct page **slot = page_slot(f, page, false);

	return slot ? *slot : NULL;
}

/* A page with content of its own, to be written to. */
static struct page *own_page(struct power_file *f, uint64_t n, bool whole)
{
	struct page *p = get_page(f, n);

	if (p && p != &hole)
		return p;
	if (p == &hole) {
		p = allocate(sizeof(*p));
		p->dirty = ALL_DIRTY;
	} else {
		p = allocate(sizeof(*p));
		if (!whole)
			real_read(f, p->data, POWER_PAGE, n * POWER_PAGE);
	}
	put_page(f, n, p);
	return p;
}

static uint8_t sectors(size_t from, size_t len)
{
	unsigned first = (unsigned)(from / POWER_SECTOR), last = (unsigned)((from + len - 1) / POWER_SECTOR);

	return (uint8_t)((0xffu << first) & (0xffu >> (7 - last)));
}

/* First page at or after n that is (not) absent, at most end. */
static uint64_t next_page(struct power_file *f, uint64_t n, uint64_t end, bool present)
{
	while (n < end) {
		size_t r = n / REGION_PAGES;

		if (r >= f->nregions || !f->regions[r] || !f->regions[r]->used) {
			if (!present)
				return n;
			n = (r + 1) * REGION_PAGES;
		} else if ((f->regions[r]->page[n % REGION_PAGES] != NULL) == present) {
			return n;
		} else {
			n++;
		}
	}
	return end;
}

static void touch(struct power_file *f)
{
	clock_gettime(CLOCK_REALTIME, &f->mtime);
	f->touched = true;
}

/* ---- what the process does ---- */

ssize_t power_file_read(struct power_file *f, char *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	if (off >= f->size)
		return 0;
	len = len < f->size - off ? len : (size_t)(f->size - off);
	while (done < len) {
		uint64_t at = off + done, n = at / POWER_PAGE;
		size_t in = at % POWER_PAGE, part = POWER_PAGE - in;
		struct page *p = get_page(f, n);

		if (!p) {
			uint64_t end = (off + len + POWER_PAGE - 1) / POWER_PAGE;

			part = (size_t)(next_page(f, n, end, true) * POWER_PAGE - at);
		}
		part = part < len - done ? part : len - done;
		if (!p)
			real_read(f, buf + done, part, at);
		else
			memcpy(buf + done, p->data + in, part);
		done += part;
	}
	return (ssize_t)len;
}

ssize_t power_file_write(struct power_file *f, const char *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		size_t in = (off + done) % POWER_PAGE, part = POWER_PAGE - in;
		struct page *p;

		part = part < len - done ? part : len - done;
		p = own_page(f, (off + done) / POWER_PAGE, part == POWER_PAGE);
		memcpy(p->data + in, buf + done, part);
		p->dirty |= sectors(in, part);
		done += part;
	}
	if (off + len > f->size)
		f->size = off + len;
	touch(f);
	return (ssize_t)len;
}

void power_file_zero(struct power_file *f, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;

	while (off < end) {
		size_t in = off % POWER_PAGE, part = POWER_PAGE - in;
		struct page *p;

		part = part < end - off ? part : (size_t)(end - off);
		if (part == POWER_PAGE) {
			put_page(f, off / POWER_PAGE, &hole);
		} else {
			p = own_page(f, off / POWER_PAGE, false);
			memset(p->data + in, 0, part);
			p->dirty |= sectors(in, part);
		}
		off += part;
	}
	touch(f);
}

void power_file_truncate(struct power_file *f, uint64_t size)
{
	uint64_t real = real_size(f), old = f->size > real ? f->size : real;

	if (size < old) /* what is cut off must not come back when the file grows again */
		power_file_zero(f, size, old - size);
	f->size = size;
	touch(f);
}

off_t power_file_seek(struct power_file *f, off_t off, int whence)
{
	bool data = whence == SEEK_DATA;
	uint64_t at = (uint64_t)off, end = (f->size + POWER_PAGE - 1) / POWER_PAGE;

	if (off < 0 || at >= f->size)
		return -ENXIO;
	while (at < f->size) {
		uint64_t n = at / POWER_PAGE, stop;
		struct page *p = get_page(f, n);
		off_t found;

		if (p && (p != &hole) == data)
			return (off_t)at;
		if (p) {
			at = (n + 1) * POWER_PAGE;
			continue;
		}
		stop = next_page(f, n, end, true) * POWER_PAGE;
		found = syscall(SYS_lseek, f->fd, at, whence);
		if (found < 0 && !data) /* behind the real end */
			found = (off_t)at;
		if (found >= 0 && (uint64_t)found < stop)
			return (uint64_t)found < f->size ? found : data ? -ENXIO : (off_t)f->size;
		at = stop;
	}
	return data ? -ENXIO : (off_t)f->size;
}

/* ---- to the real file ---- */

/* A page counts to the end of the file only. */
static size_t page_length(struct power_file *f, uint64_t n)
{
	uint64_t off = n * POWER_PAGE;

	if (off >= f->size)
		return 0;
	return f->size - off < POWER_PAGE ? (size_t)(f->size - off) : POWER_PAGE;
}

/* Some sectors of a page become stable. */
static void write_sectors(struct power_file *f, uint64_t n, uint8_t which)
{
	struct page *p = own_page(f, n, false);
	size_t end = page_length(f, n);

	which &= p->dirty;
	for (size_t s = 0; s < 8; s++) {
		size_t from = s * POWER_SECTOR;

		if (which & 1u << s && from < end)
			real_write(f, p->data + from, end - from < POWER_SECTOR ? end - from : POWER_SECTOR,
				   n * POWER_PAGE + from);
	}
	p->dirty &= (uint8_t)~which;
	if (!p->dirty)
		drop_page(f, n);
}

static uint64_t write_page(struct power_file *f, uint64_t n)
{
	struct page *p = get_page(f, n);
	uint64_t last = n;
	size_t len = page_length(f, n);

	if (p == &hole) {
		while (get_page(f, last + 1) == &hole)
			last++;
		real_zero(f, n * POWER_PAGE, (last - n + 1) * POWER_PAGE);
	} else if (p->dirty == ALL_DIRTY && len) {
		real_write(f, p->data, len, n * POWER_PAGE);
	} else {
		write_sectors(f, n, ALL_DIRTY);
	}
	for (uint64_t i = n; i <= last; i++)
		drop_page(f, i);
	return last + 1;
}

static void keep_mtime(struct power_file *f)
{
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, f->mtime };

	if (f->touched)
		syscall(SYS_utimensat, f->fd, NULL, t, 0);
}

void power_file_flush(struct power_file *f)
{
	uint64_t end = (uint64_t)f->nregions * REGION_PAGES;

	for (uint64_t n = 0; (n = next_page(f, n, end, true)) < end;)
		n = write_page(f, n);
	if (real_size(f) != f->size && syscall(SYS_ftruncate, f->fd, f->size) < 0)
		die("size of the real file");
	keep_mtime(f);
	f->touched = false;
}

void power_file_leak(struct power_file *f, unsigned tries)
{
	uint64_t end = (uint64_t)f->nregions * REGION_PAGES;

	while (f->pages && tries--) {
		uint64_t n = next_page(f, power_random(end), end, true);

		for (unsigned run = (unsigned)power_random(4) + 1; run && n < end; run--) {
			if (power_random(4))
				n = write_page(f, n);
			else
				write_sectors(f, n++, (uint8_t)power_random(256));
			n = next_page(f, n, end, true);
		}
	}
	keep_mtime(f);
}

void power_file_scatter(struct power_file *f, unsigned chance)
{
	uint64_t end = (uint64_t)f->nregions * REGION_PAGES;

	for (uint64_t n = 0; (n = next_page(f, n, end, true)) < end; n++) {
		uint8_t which = 0;

		for (unsigned s = 0; s < 8; s++)
			which |= (uint8_t)((power_random(256) < chance) << s);
		if (which)
			write_sectors(f, n, which);
	}
}
