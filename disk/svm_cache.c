/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * svm_cache.c - what the SVM wrote since the last checkpoint, laid over storage
 *
 * Theory of operation. The unit is the block of 4 KiB. A table entry says where a block's content is:
 * on storage (absent), nowhere (all zeroes), in a page of the pool, or in the spill file at the block's
 * own offset. A block written in part is completed from storage first, so a cached block is always whole.
 *
 * Bound: the pool holds max_bytes. The SVM must never wait for room here, because stopping a VM waits for
 * its requests, and only stopping it makes room. So what does not fit goes to an unlinked sparse file
 * next to the disk, which cannot grow beyond the disk's size.
 *
 * After a failover the cache lives on as an overlay until all of it has been written back: whoever
 * writes a block to storage, write-back or guest, holds the block's range lock, writes first and removes
 * the entry second, so that a reader finds the content in one place or the other at every moment.
 *
 * The lock guards tables, pool and entries; page contents are copied under it.
 */
#include "disk/svm_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "disk/range.h"

#define TABLE 512u /* entries */
#define BOUNCE 16u /* blocks written back at a time */
#define ASK_EACH ((16u << 20) / DISK_BLOCK) /* blocks with data */

enum { ABSENT = 0, ZERO = 1, SPILLED = 2, FIRST_PAGE = 3 };

static uint64_t ask_each(const struct svm_cache *c)
{
	return c->max_pages / 2 < ASK_EACH ? c->max_pages / 2 : ASK_EACH;
}

int svm_cache_init(struct svm_cache *c, struct storage *st, uint64_t max_bytes, const char *spill_dir)
{
	uint64_t pages = max_bytes / DISK_BLOCK;

	*c = (struct svm_cache){ .storage = st, .spill_fd = -1 };
	pthread_mutex_init(&c->lock, NULL);
	if (!pages || pages > UINT32_MAX - FIRST_PAGE)
		return -EINVAL;
	c->max_pages = (uint32_t)pages;
	c->ask_at = ask_each(c);
	c->ntables = st->size / (DISK_BLOCK * TABLE) + 1;
	c->tables = calloc(c->ntables, sizeof(*c->tables));
	c->spill_dir = strdup(spill_dir);
	if (!c->tables || !c->spill_dir)
		return -ENOMEM;
	c->pool = mmap(NULL, pages * DISK_BLOCK, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->pool == MAP_FAILED) {
		c->pool = NULL;
		return -errno;
	}
	return 0;
}

void svm_cache_destroy(struct svm_cache *c)
{
	for (uint64_t i = 0; c->tables && i < c->ntables; i++)
		free(c->tables[i]);
	free(c->tables);
	free(c->spill_dir);
	if (c->pool)
		munmap(c->pool, (size_t)c->max_pages * DISK_BLOCK);
	if (c->spill_fd >= 0)
		close(c->spill_fd);
	pthread_mutex_destroy(&c->lock);
}

/* ---- entries; the lock is held ---- */

static uint32_t get_entry(const struct svm_cache *c, uint64_t block)
{
	const uint32_t *table = c->tables[block / TABLE];

	return table ? table[block % TABLE] : ABSENT;
}

static char *page_of(const struct svm_cache *c, uint32_t entry)
{
	return c->pool + (size_t)(entry - FIRST_PAGE) * DISK_BLOCK;
}

/* An entry for a free page, or SPILLED when there is none. Entries double as list links. */
static uint32_t take_page(struct svm_cache *c)
{
	uint32_t entry = c->free_page;

	if (entry)
		memcpy(&c->free_page, page_of(c, entry), sizeof(c->free_page));
	else if (c->next_page < c->max_pages)
		entry = FIRST_PAGE + c->next_page++;
	else
		return SPILLED;
	c->pages++;
	return entry;
}

static void give_page(struct svm_cache *c, uint32_t entry)
{
	memcpy(page_of(c, entry), &c->free_page, sizeof(c->free_page));
	c->free_page = entry;
	c->pages--;
}

static int set_entry(struct svm_cache *c, uint64_t block, uint32_t entry)
{
	uint32_t **table = &c->tables[block / TABLE], *slot;

	if (!*table) {
		*table = calloc(TABLE, sizeof(**table));
		if (!*table)
			return -ENOMEM;
		c->tables_used++;
	}
	slot = &(*table)[block % TABLE];
	if (*slot >= FIRST_PAGE && *slot != entry)
		give_page(c, *slot);
	c->stored += (entry >= SPILLED) - (uint64_t)(*slot >= SPILLED);
	if (*slot == ABSENT && entry != ABSENT)
		c->blocks++;
	if (*slot != ABSENT && entry == ABSENT)
		c->blocks--;
	*slot = entry;
	return 0;
}

/* First block at or after `block` whose being cached is `cached`; `end` when there is none before it. */
static uint64_t seek_block(const struct svm_cache *c, uint64_t block, uint64_t end, bool cached)
{
	while (block < end) {
		if (!c->tables[block / TABLE] && cached)
			block = (block / TABLE + 1) * TABLE;
		else if ((get_entry(c, block) != ABSENT) == cached)
			return block;
		else
			block++;
	}
	return end;
}

static uint64_t end_block(const struct svm_cache *c)
{
	return (c->storage->size + DISK_BLOCK - 1) / DISK_BLOCK;
}

/* ---- spill file ---- */

static int open_spill(struct svm_cache *c)
{
	char *path;

	c->spill_fd = open(c->spill_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (c->spill_fd >= 0)
		return 0;
	if (asprintf(&path, "%s/.colo-spill-XXXXXX", c->spill_dir) < 0)
		return -ENOMEM;
	c->spill_fd = mkostemp(path, O_CLOEXEC);
	if (c->spill_fd >= 0)
		unlink(path);
	free(path);
	return c->spill_fd < 0 ? -errno : 0;
}

static int spill_block(struct svm_cache *c, uint64_t block, const char *data)
{
	ssize_t n;
	int r;

	pthread_mutex_lock(&c->lock);
	r = c->spill_fd < 0 ? open_spill(c) : 0;
	pthread_mutex_unlock(&c->lock);
	if (r)
		return r;
	n = pwrite(c->spill_fd, data, DISK_BLOCK, (off_t)(block * DISK_BLOCK));
	if (n == DISK_BLOCK)
		return 0;
	return n < 0 ? -errno : -ENOSPC;
}

/* ---- reading ---- */

/* Part of one block, wherever it is. */
static int read_part(struct svm_cache *c, void *buf, size_t len, uint64_t off)
{
	uint32_t entry;
	ssize_t n;

	pthread_mutex_lock(&c->lock);
	entry = get_entry(c, off / DISK_BLOCK);
	if (entry >= FIRST_PAGE)
		memcpy(buf, page_of(c, entry) + off % DISK_BLOCK, len);
	pthread_mutex_unlock(&c->lock);
	switch (entry) {
	case ABSENT:
		return storage_read(c->storage, buf, len, off);
	case ZERO:
		memset(buf, 0, len);
		return 0;
	case SPILLED:
		n = pread(c->spill_fd, buf, len, (off_t)off);
		return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
	default:
		return 0;
	}
}

/* How much from off on is not cached, up to len. */
static size_t absent_bytes(struct svm_cache *c, uint64_t off, size_t len)
{
	uint64_t end = (off + len + DISK_BLOCK - 1) / DISK_BLOCK, block;

	pthread_mutex_lock(&c->lock);
	block = seek_block(c, off / DISK_BLOCK, end, true);
	pthread_mutex_unlock(&c->lock);
	if (block == end)
		return len;
	return block * DISK_BLOCK > off ? (size_t)(block * DISK_BLOCK - off) : 0;
}

int svm_cache_read(struct svm_cache *c, void *buf, size_t len, uint64_t off)
{
	char *p = buf;
	int r = 0;

	if (svm_cache_empty(c))
		return storage_read(c->storage, buf, len, off);
	while (len && !r) {
		size_t n = absent_bytes(c, off, len);

		if (n) {
			r = storage_read(c->storage, p, n, off);
		} else {
			n = DISK_BLOCK - off % DISK_BLOCK;
			n = n < len ? n : len;
			r = read_part(c, p, n, off);
		}
		p += n;
		off += n;
		len -= n;
	}
	return r;
}

/* ---- writing; the caller holds the range ---- */

static int store_block(struct svm_cache *c, uint64_t block, const char *data)
{
	uint32_t entry;
	int r = 0;

	pthread_mutex_lock(&c->lock);
	entry = get_entry(c, block);
	if (entry < FIRST_PAGE)
		entry = take_page(c);
	if (entry >= FIRST_PAGE) {
		memcpy(page_of(c, entry), data, DISK_BLOCK);
		r = set_entry(c, block, entry);
		if (r)
			give_page(c, entry);
	}
	pthread_mutex_unlock(&c->lock);
	if (entry >= FIRST_PAGE)
		return r;
	r = spill_block(c, block, data);
	if (r)
		return r;
	pthread_mutex_lock(&c->lock);
	r = set_entry(c, block, SPILLED);
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* Whole content of a block; what lies behind the end of the disk is zero. */
static int load_block(struct svm_cache *c, uint64_t block, char *data)
{
	uint64_t off = block * DISK_BLOCK, rest = c->storage->size - off;
	size_t n = rest < DISK_BLOCK ? (size_t)rest : DISK_BLOCK;

	memset(data + n, 0, DISK_BLOCK - n);
	return svm_cache_read(c, data, n, off);
}

/* buf NULL: zeroes */
static int write_part(struct svm_cache *c, const char *buf, size_t len, uint64_t off)
{
	char data[DISK_BLOCK];
	uint64_t block = off / DISK_BLOCK;
	int r;

	if (buf && len == DISK_BLOCK)
		return store_block(c, block, buf);
	r = load_block(c, block, data);
	if (r)
		return r;
	if (buf)
		memcpy(data + off % DISK_BLOCK, buf, len);
	else
		memset(data + off % DISK_BLOCK, 0, len);
	return store_block(c, block, data);
}

int svm_cache_write(struct svm_cache *c, const void *buf, size_t len, uint64_t off)
{
	const char *p = buf;
	int r = 0;

	while (len && !r) {
		size_t n = DISK_BLOCK - off % DISK_BLOCK;

		n = n < len ? n : len;
		r = write_part(c, p, n, off);
		p += n;
		off += n;
		len -= n;
	}
	return r;
}

/* Blocks [block, end) are zero; as many as one table holds at a time. */
static int zero_blocks(struct svm_cache *c, uint64_t block, uint64_t end)
{
	int r = 0;

	while (block < end && !r) {
		uint64_t stop = (block / TABLE + 1) * TABLE;

		stop = stop < end ? stop : end;
		pthread_mutex_lock(&c->lock);
		for (; block < stop && !r; block++)
			r = set_entry(c, block, ZERO);
		pthread_mutex_unlock(&c->lock);
	}
	return r;
}

int svm_cache_zero(struct svm_cache *c, uint64_t len, uint64_t off)
{
	int r = 0;

	while (len && !r) {
		uint64_t n = DISK_BLOCK - off % DISK_BLOCK;

		if (off % DISK_BLOCK == 0 && len >= DISK_BLOCK) {
			n = len / DISK_BLOCK * DISK_BLOCK;
			r = zero_blocks(c, off / DISK_BLOCK, (off + n) / DISK_BLOCK);
		} else {
			n = n < len ? n : len;
			r = write_part(c, NULL, n, off);
		}
		off += n;
		len -= n;
	}
	return r;
}

void svm_cache_drop(struct svm_cache *c)
{
	pthread_mutex_lock(&c->lock);
	for (uint64_t i = 0; c->tables_used; i++) {
		c->tables_used -= c->tables[i] != NULL;
		free(c->tables[i]);
		c->tables[i] = NULL;
	}
	if (c->next_page)
		madvise(c->pool, (size_t)c->next_page * DISK_BLOCK, MADV_DONTNEED);
	if (c->spill_fd >= 0)
		close(c->spill_fd);
	c->spill_fd = -1;
	c->blocks = 0;
	c->pages = c->next_page = c->free_page = 0;
	c->stored = 0;
	c->ask_at = ask_each(c);
	pthread_mutex_unlock(&c->lock);
}

/* ---- writing back ---- */

bool svm_cache_next(struct svm_cache *c, uint64_t from, uint64_t end, uint64_t max, uint64_t *off,
		    uint64_t *len)
{
	uint64_t stop = (end + DISK_BLOCK - 1) / DISK_BLOCK, first, last;

	pthread_mutex_lock(&c->lock);
	first = seek_block(c, from / DISK_BLOCK, stop, true);
	if (stop - first > max / DISK_BLOCK)
		last = seek_block(c, first, first + max / DISK_BLOCK, false);
	else
		last = seek_block(c, first, stop, false);
	pthread_mutex_unlock(&c->lock);
	*off = first * DISK_BLOCK;
	*len = (last < end_block(c) ? last * DISK_BLOCK : c->storage->size) - *off;
	return first < stop;
}

/* Length of the run at block, all of zeroes or none of them. */
static uint64_t same_kind(struct svm_cache *c, uint64_t block, uint64_t end, bool *zero)
{
	uint64_t b = block;

	pthread_mutex_lock(&c->lock);
	*zero = get_entry(c, block) == ZERO;
	while (b < end && (get_entry(c, b) == ZERO) == *zero)
		b++;
	pthread_mutex_unlock(&c->lock);
	return b - block;
}

bool svm_cache_next_run(struct svm_cache *c, uint64_t from, uint64_t max, uint64_t *off, uint64_t *len,
			bool *zero)
{
	uint64_t size = c->storage->size, n;

	if (from >= size || !svm_cache_next(c, from, size, UINT64_MAX, off, len))
		return false;
	n = same_kind(c, *off / DISK_BLOCK, (*off + *len + DISK_BLOCK - 1) / DISK_BLOCK, zero) * DISK_BLOCK;
	*len = n < *len ? n : *len; /* the disk's last block may be short */
	if (!*zero && *len > max)
		*len = max / DISK_BLOCK * DISK_BLOCK;
	return true;
}

static void remove_blocks(struct svm_cache *c, uint64_t block, uint64_t end)
{
	pthread_mutex_lock(&c->lock);
	while ((block = seek_block(c, block, end, true)) < end)
		set_entry(c, block++, ABSENT); /* cannot fail: the table exists */
	pthread_mutex_unlock(&c->lock);
}

static int write_back_run(struct svm_cache *c, uint64_t off, uint64_t len, bool zero)
{
	char data[BOUNCE * DISK_BLOCK];
	int r;

	if (zero)
		return storage_zero(c->storage, len, off, true);
	r = svm_cache_read(c, data, len, off);
	return r ? r : storage_write(c->storage, data, len, off);
}

int svm_cache_write_back(struct svm_cache *c, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, run;
	int r = 0;

	while (!r && off < end && svm_cache_next(c, off, end, BOUNCE * DISK_BLOCK, &off, &run)) {
		uint64_t block = off / DISK_BLOCK;
		bool zero;
		uint64_t n = same_kind(c, block, (off + run + DISK_BLOCK - 1) / DISK_BLOCK, &zero);

		run = n * DISK_BLOCK < run ? n * DISK_BLOCK : run; /* the disk's last block may be short */
		r = write_back_run(c, off, run, zero);
		if (!r)
			remove_blocks(c, block, block + n);
		off += n * DISK_BLOCK;
	}
	return r;
}

int svm_cache_settle_edges(struct svm_cache *c, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	int r = 0;

	if (off % DISK_BLOCK)
		r = svm_cache_write_back(c, off, 1);
	if (!r && end % DISK_BLOCK && end != c->storage->size)
		r = svm_cache_write_back(c, end, 1);
	return r;
}

void svm_cache_forget(struct svm_cache *c, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	uint64_t last = end == c->storage->size ? end_block(c) : end / DISK_BLOCK;

	remove_blocks(c, (off + DISK_BLOCK - 1) / DISK_BLOCK, last);
}

uint64_t svm_cache_bytes(struct svm_cache *c)
{
	return atomic_load(&c->blocks) * DISK_BLOCK;
}

uint64_t svm_cache_memory_bytes(struct svm_cache *c)
{
	uint64_t bytes;

	pthread_mutex_lock(&c->lock);
	bytes = (uint64_t)c->next_page * DISK_BLOCK + c->tables_used * TABLE * sizeof(uint32_t);
	pthread_mutex_unlock(&c->lock);
	return bytes;
}

bool svm_cache_wants_checkpoint(struct svm_cache *c)
{
	bool wants;

	pthread_mutex_lock(&c->lock);
	wants = c->stored > c->ask_at;
	if (wants)
		c->ask_at = c->stored + ask_each(c);
	pthread_mutex_unlock(&c->lock);
	return wants;
}
