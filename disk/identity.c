/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * identity.c - one number for the size and the content of a disk
 *
 * XXH3 over the size, then over (offset, data) of every aligned 64 KiB chunk that is not all zeroes. A
 * chunk of zeroes counts the same whether it is a hole or not, so holes can be skipped unread. Not a
 * cryptographic hash: it guards against the wrong image, not against malice.
 */
#include "disk/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/xxh.h"

#define CHUNK 65536u
#define BATCH (16 * CHUNK)

static bool all_zero(const char *p, size_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

static void hash_number(XXH3_state_t *h, uint64_t v)
{
	unsigned char b[8];

	for (int i = 0; i < 8; i++)
		b[i] = (unsigned char)(v >> (8 * i));
	XXH3_64bits_update(h, b, sizeof(b));
}

/* True: all of it is zeroes. */
static bool hash_batch(XXH3_state_t *h, const char *buf, size_t len, uint64_t off)
{
	bool zero = true;

	for (size_t i = 0; i < len; i += CHUNK) {
		size_t n = len - i < CHUNK ? len - i : CHUNK;

		if (all_zero(buf + i, n))
			continue;
		zero = false;
		hash_number(h, off + i);
		XXH3_64bits_update(h, buf + i, n);
	}
	return zero;
}

/* Aligned start of the next chunk with data at or after off; the size when there is none. */
static uint64_t next_data(struct storage *st, uint64_t off)
{
	uint64_t data = storage_next_data(st, off);

	return data < st->size ? data / CHUNK * CHUNK : data;
}

struct hashing {
	struct storage *st;
	XXH3_state_t *h;
	char *buf;
	uint64_t hole; /* there is none between off and here; finding it may cost a walk through the file */
	bool blank;
	identity_progress_fn *progress;
	void *opaque;
};

/* End of the data that starts at off, as far as one batch reads. */
static uint64_t data_end(struct hashing *c, uint64_t off)
{
	uint64_t size = c->st->size, end = size - off < BATCH ? size : off + BATCH;

	if (c->hole <= off)
		c->hole = storage_next_hole(c->st, off);
	if (c->hole > off && c->hole < end)
		end = (c->hole + CHUNK - 1) / CHUNK * CHUNK;
	return end < size ? end : size;
}

static int hash_all(struct hashing *c)
{
	uint64_t off = 0, size = c->st->size;
	int r = 0;

	hash_number(c->h, size);
	while (!r && (off = next_data(c->st, off)) < size) {
		uint64_t end = data_end(c, off);

		r = storage_read(c->st, c->buf, end - off, off);
		if (!r && !hash_batch(c->h, c->buf, end - off, off))
			c->blank = false;
		off = end;
		c->progress(c->opaque, off);
	}
	return r;
}

int identity_compute(struct storage *st, uint64_t *identity, bool *blank, identity_progress_fn *progress,
		     void *opaque)
{
	struct hashing c = { .st = st, .h = XXH3_createState(), .buf = malloc(BATCH), .blank = true,
			     .progress = progress, .opaque = opaque };
	int r = -ENOMEM;

	if (c.h && c.buf) {
		XXH3_64bits_reset(c.h);
		(void)posix_fadvise(st->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
		r = hash_all(&c);
		(void)posix_fadvise(st->fd, 0, 0, POSIX_FADV_NORMAL);
		*identity = XXH3_64bits_digest(c.h);
		*identity += *identity == 0;
		*blank = c.blank;
	}
	free(c.buf);
	XXH3_freeState(c.h);
	return r;
}
