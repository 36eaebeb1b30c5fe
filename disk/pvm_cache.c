/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pvm_cache.c - the secondary's log of what the PVM wrote since the last committed checkpoint
 *
 * Theory of operation. Storage on the secondary stays what it was at the last checkpoint, because the
 * SVM reads it; what the PVM writes meanwhile waits here. Overlapping and partial writes are right for
 * free, because the log is applied in the order in which it was written.
 *
 * The log is a list of chunks of 1 MiB; a record never straddles two. A boundary is a mark that says how
 * many records came before it. Commit applies records up to a mark and gives back the chunks that are
 * used up.
 *
 * Bound: max_chunks. At half, append() reports once that a checkpoint is wanted. Above three quarters
 * the appending thread is slowed down, and with it, through TCP and the primary's ring, the PVM: its
 * requests must still complete for the checkpoint that would relieve us, because stopping a VM waits for
 * them. When full the thread waits for a commit; should none come, the primary's link gives up (link.c).
 */
#include "disk/pvm_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPARES_MAX 16    /* empty chunks kept for reuse */
#define SLOWEST_US 4000  /* per 64 KiB, just before the cache is full */

struct pvm_record {
	uint64_t offset;
	uint32_t length;
	uint32_t stored; /* bytes of data that follow, 0 or length */
};

/* a little more, so that four of the largest writes fit with their headers */
#define CHUNK_SIZE (PVM_CHUNK + 4096)
#define CHUNK_ROOM (CHUNK_SIZE - sizeof(struct pvm_chunk *) - 2 * sizeof(uint32_t))

struct pvm_chunk {
	struct pvm_chunk *next;
	uint32_t used;  /* end of the last record */
	uint32_t taken; /* end of the last record applied and forgotten */
	_Alignas(8) char room[CHUNK_ROOM];
};
_Static_assert(sizeof(struct pvm_chunk) == CHUNK_SIZE, "no hidden padding");

/* where in the log a reader is */
struct pvm_cursor {
	struct pvm_chunk *chunk;
	uint32_t pos;
};

int pvm_cache_init(struct pvm_cache *c, uint64_t max_bytes)
{
	pthread_condattr_t attr;

	memset(c, 0, sizeof(*c));
	c->max_chunks = (unsigned)(max_bytes / PVM_CHUNK);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->room, &attr);
	pthread_condattr_destroy(&attr);
	return c->max_chunks ? 0 : -EINVAL;
}

static uint32_t record_size(uint32_t stored)
{
	return (uint32_t)sizeof(struct pvm_record) + ((stored + 7) & ~7u);
}

static void free_chunk(struct pvm_cache *c, struct pvm_chunk *chunk)
{
	c->chunks--;
	if (c->spares >= SPARES_MAX) {
		free(chunk);
		return;
	}
	chunk->next = c->spare;
	c->spare = chunk;
	c->spares++;
}

static int add_chunk(struct pvm_cache *c)
{
	struct pvm_chunk *chunk = c->spare;

	if (chunk) {
		c->spare = chunk->next;
		c->spares--;
	} else {
		chunk = malloc(sizeof(*chunk));
		if (!chunk)
			return -ENOMEM;
	}
	chunk->next = NULL;
	chunk->used = chunk->taken = 0;
	if (c->last)
		c->last->next = chunk;
	else
		c->first = chunk;
	c->last = chunk;
	c->chunks++;
	return 0;
}

static bool fits_last(const struct pvm_cache *c, uint32_t size)
{
	return c->last && CHUNK_ROOM - c->last->used >= size;
}

static void wait_us(struct pvm_cache *c, uint64_t us)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += (time_t)(us / 1000000);
	ts.tv_nsec += (long)(us % 1000000) * 1000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_nsec -= 1000000000;
		ts.tv_sec++;
	}
	pthread_cond_timedwait(&c->room, &c->lock, &ts);
}

/* Above three quarters: the fuller, the slower. Small debts are added up, as short sleeps are inexact. */
static void throttle(struct pvm_cache *c, uint32_t length)
{
	unsigned quarter = c->max_chunks / 4;

	if (!quarter || c->chunks <= c->max_chunks - quarter) {
		c->debt_us = 0;
		return;
	}
	c->debt_us += (uint64_t)length * SLOWEST_US / 65536 *
		      (c->chunks - (c->max_chunks - quarter)) / quarter;
	if (c->debt_us < 1000 || c->interrupted)
		return;
	wait_us(c, c->debt_us);
	c->debt_us = 0;
}

int pvm_cache_reserve(struct pvm_cache *c, uint32_t length, void **data)
{
	uint32_t size = record_size(length);
	int r = 0;

	if (size > CHUNK_ROOM)
		return -EMSGSIZE;
	pthread_mutex_lock(&c->lock);
	throttle(c, length);
	while (!fits_last(c, size) && c->chunks >= c->max_chunks && !c->interrupted)
		pthread_cond_wait(&c->room, &c->lock);
	if (c->interrupted)
		r = -EINTR;
	else if (!fits_last(c, size))
		r = add_chunk(c);
	if (!r) {
		c->reserved = true;
		*data = c->last->room + c->last->used + sizeof(struct pvm_record);
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

static bool crossed_half(struct pvm_cache *c)
{
	if (c->warned || c->chunks * 2 <= c->max_chunks)
		return false;
	c->warned = true;
	return true;
}

bool pvm_cache_append(struct pvm_cache *c, uint64_t offset, uint32_t length, bool with_data)
{
	struct pvm_record rec = { offset, length, with_data ? length : 0 };
	bool half;

	pthread_mutex_lock(&c->lock);
	memcpy(c->last->room + c->last->used, &rec, sizeof(rec));
	c->last->used += record_size(rec.stored);
	c->appended++;
	c->bytes += rec.stored;
	c->reserved = false;
	half = crossed_half(c);
	pthread_mutex_unlock(&c->lock);
	return half;
}

int pvm_cache_mark(struct pvm_cache *c, uint64_t epoch)
{
	int r = 0;

	pthread_mutex_lock(&c->lock);
	if (epoch <= c->last_epoch)
		r = -EPROTO;
	else if (c->nmarks == PVM_MARKS)
		r = -ENOSPC;
	else
		c->marks[c->nmarks++] = (struct pvm_mark){ epoch, c->appended };
	if (!r)
		c->last_epoch = epoch;
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* The record at the cursor, and the cursor behind it. There must be one. */
static const struct pvm_record *next_record(struct pvm_cache *c, struct pvm_cursor *at)
{
	const struct pvm_record *rec;

	pthread_mutex_lock(&c->lock); /* the appending thread may be writing `used` and `next` */
	if (!at->chunk)
		*at = (struct pvm_cursor){ c->first, c->first->taken };
	while (at->pos == at->chunk->used)
		*at = (struct pvm_cursor){ at->chunk->next, 0 };
	pthread_mutex_unlock(&c->lock);
	rec = (const struct pvm_record *)(at->chunk->room + at->pos);
	at->pos += record_size(rec->stored);
	return rec;
}

static int find_mark(struct pvm_cache *c, uint64_t epoch, uint64_t *records)
{
	int found = -ENOENT;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < c->nmarks; i++)
		if (c->marks[i].epoch == epoch) {
			*records = c->marks[i].records;
			found = (int)i;
		}
	pthread_mutex_unlock(&c->lock);
	return found;
}

/* Give back the chunks before the cursor, and all others that hold nothing any more. */
static void free_taken(struct pvm_cache *c, const struct pvm_cursor *at)
{
	struct pvm_chunk *chunk = c->first;

	for (; at->chunk && chunk != at->chunk; chunk = chunk->next)
		chunk->taken = chunk->used;
	if (at->chunk)
		chunk->taken = at->pos;
	while ((chunk = c->first) && chunk != c->last && chunk->taken == chunk->used) {
		c->first = chunk->next;
		free_chunk(c, chunk);
	}
	/* all taken: reuse it, unless a write is being received into it just now */
	if (chunk && chunk == c->last && chunk->taken == chunk->used && !c->reserved)
		chunk->taken = chunk->used = 0;
}

/* Forget everything before the cursor and the first `marks` marks. */
static void forget(struct pvm_cache *c, const struct pvm_cursor *at, uint64_t bytes, unsigned marks,
		   uint64_t applied)
{
	pthread_mutex_lock(&c->lock);
	c->applied = applied;
	free_taken(c, at);
	c->bytes -= bytes;
	c->nmarks -= marks;
	memmove(c->marks, c->marks + marks, c->nmarks * sizeof(c->marks[0]));
	c->warned = false;
	pthread_cond_broadcast(&c->room);
	pthread_mutex_unlock(&c->lock);
}

int pvm_cache_commit(struct pvm_cache *c, uint64_t epoch, pvm_apply_fn *fn, void *opaque)
{
	struct pvm_cursor at = { NULL, 0 };
	uint64_t upto = 0, bytes = 0;
	int mark = find_mark(c, epoch, &upto);

	if (mark < 0)
		return mark;
	for (uint64_t n = c->applied; n < upto; n++) {
		const struct pvm_record *rec = next_record(c, &at);
		int r = fn(opaque, rec->offset, rec->stored ? rec + 1 : NULL, rec->length);

		if (r)
			return r;
		bytes += rec->stored;
	}
	forget(c, &at, bytes, (unsigned)mark + 1, upto);
	return 0;
}

static void free_list(struct pvm_chunk *chunk)
{
	while (chunk) {
		struct pvm_chunk *next = chunk->next;

		free(chunk);
		chunk = next;
	}
}

void pvm_cache_drop(struct pvm_cache *c)
{
	pthread_mutex_lock(&c->lock);
	free_list(c->first);
	free_list(c->spare);
	c->first = c->last = c->spare = NULL;
	c->chunks = c->spares = 0;
	c->applied = c->appended;
	c->bytes = c->debt_us = c->last_epoch = 0;
	c->nmarks = 0;
	c->reserved = c->warned = false;
	pthread_mutex_unlock(&c->lock);
}

void pvm_cache_destroy(struct pvm_cache *c)
{
	pvm_cache_drop(c);
	pthread_cond_destroy(&c->room);
	pthread_mutex_destroy(&c->lock);
}

void pvm_cache_interrupt(struct pvm_cache *c, bool on)
{
	pthread_mutex_lock(&c->lock);
	c->interrupted = on;
	pthread_cond_broadcast(&c->room);
	pthread_mutex_unlock(&c->lock);
}

uint64_t pvm_cache_bytes(struct pvm_cache *c)
{
	uint64_t bytes;

	pthread_mutex_lock(&c->lock);
	bytes = c->bytes;
	pthread_mutex_unlock(&c->lock);
	return bytes;
}

uint64_t pvm_cache_appended(struct pvm_cache *c)
{
	uint64_t n;

	pthread_mutex_lock(&c->lock);
	n = c->appended;
	pthread_mutex_unlock(&c->lock);
	return n;
}

uint64_t pvm_cache_applied(struct pvm_cache *c)
{
	uint64_t n;

	pthread_mutex_lock(&c->lock);
	n = c->applied;
	pthread_mutex_unlock(&c->lock);
	return n;
}

bool pvm_cache_touches(struct pvm_cache *c, uint64_t off, uint64_t len)
{
	bool any;

	pthread_mutex_lock(&c->lock);
	any = c->appended != c->applied;
	pthread_mutex_unlock(&c->lock);
	return any && len;
}
