/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pvm_cache.c - the secondary's log of what the PVM wrote since the last committed checkpoint
 *
 * Theory of operation. Storage on the secondary stays what it was at the last checkpoint, because the
 * SVM reads it; what the PVM writes meanwhile waits here. Overlapping and partial writes are right for
 * free, because the log is applied in the order in which it was written.
 *
 * The log is a list of chunks, each the image of one slot of the journal (redo.h). A chunk is
 * written to its slot when it is full; a boundary writes what the last chunk has and syncs the
 * journal, and only then is there a mark that can be committed. So nothing reaches the disk that
 * could not be repeated from stable storage after a power loss. Commit applies records up to a mark
 * and forgets the chunks that are used up; their slots are free when the disk has been synced and
 * the metadata say so (pvm_cache_settled()).
 *
 *   slots    tail          first               last    next
 *             | committed,  | being applied,    |       |
 *             | not settled | or waiting        |       |
 *   memory                  | max_in_memory of them     |
 *
 * Bounds. Memory: max_in_memory chunks; the memory of any further one is given back when it is
 * full, and commit reads it back from its slot. Journal: its slots. When half of either waits for a
 * commit, append() says so once, and a checkpoint is asked for. Above three quarters of the slots
 * the appending thread is slowed down, and with it, through TCP and the primary's ring, the PVM:
 * its requests must still complete for the checkpoint that would relieve us, because stopping a VM
 * waits for them. When full the thread waits for a commit and its settling; should none come for as
 * long as the primary waits for room in its ring (link.c), the link fails, and if none can come,
 * because no boundary is here, at once. Boundaries never wait: one slot is theirs alone, and has
 * room for more of them than there may be marks.
 */
#include "disk/pvm_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "disk/bitmap.h"

#define SLOWEST_US 4000 /* per 64 KiB, just before the journal is full */
#define POLL_US 100000  /* that long until a look at the clock */
#define SPARES_PART 8   /* of the spares nobody needs, one in so many is freed per commit */

_Static_assert(REDO_SLOT / REDO_BLOCK >= PVM_MARKS, "all marks fit in one slot");

struct pvm_chunk {
	struct pvm_chunk *next;
	uint64_t number, seed;
	uint32_t used;    /* where the next record goes */
	uint32_t written; /* what is before this is in the slot */
	uint32_t taken;   /* end of the last record applied and forgotten */
	bool sealed;      /* nothing more is appended */
	char *image;      /* NULL: only in the slot */
};

/* memory of a chunk that waits to be used again: new memory costs a page fault per page */
struct pvm_spare {
	struct pvm_spare *next;
};

/* where in the log a reader is */
struct pvm_cursor {
	struct pvm_chunk *chunk;
	uint32_t pos;
};

static uint64_t blocks_of(uint64_t size)
{
	return (size + BITMAP_BLOCK - 1) / BITMAP_BLOCK;
}

int pvm_cache_init(struct pvm_cache *c, struct redo *journal, uint64_t size, uint64_t max_bytes)
{
	pthread_condattr_t attr;

	*c = (struct pvm_cache){ .journal = journal, .size = size };
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->room, &attr);
	pthread_condattr_destroy(&attr);
	c->max_in_memory = max_bytes / REDO_SLOT > 3 ? (unsigned)(max_bytes / REDO_SLOT) - 1 : 2;
	c->back = malloc(REDO_SLOT);
	/* memory is used only where the disk is written to */
	c->touched = mmap(NULL, blocks_of(size) * sizeof(uint64_t), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->touched == MAP_FAILED)
		c->touched = NULL;
	return c->back && c->touched ? 0 : -ENOMEM;
}

void pvm_cache_destroy(struct pvm_cache *c)
{
	pvm_cache_drop(c);
	free(c->back);
	if (c->touched)
		munmap(c->touched, blocks_of(c->size) * sizeof(uint64_t));
	pthread_cond_destroy(&c->room);
	pthread_mutex_destroy(&c->lock);
}

void pvm_cache_set_patience(struct pvm_cache *c, unsigned ms)
{
	c->patience_us = ms * 1000ull;
}

void pvm_cache_on_short(struct pvm_cache *c, void (*fn)(void *opaque), void *opaque)
{
	pthread_mutex_lock(&c->lock);
	c->short_of_slots = fn;
	c->opaque = opaque;
	pthread_mutex_unlock(&c->lock);
}

/* ---- chunks; the lock is held ---- */

static void give_image(struct pvm_cache *c, struct pvm_chunk *chunk)
{
	struct pvm_spare *spare = (struct pvm_spare *)(void *)chunk->image;

	if (!spare)
		return;
	spare->next = c->spare;
	c->spare = spare;
	c->spares++;
	c->in_memory--;
	chunk->image = NULL;
}

static struct pvm_spare *take_spare(struct pvm_cache *c)
{
	struct pvm_spare *spare = c->spare;

	if (spare) {
		c->spare = spare->next;
		if (--c->spares < c->spares_least)
			c->spares_least = c->spares;
	}
	return spare;
}

static char *take_image(struct pvm_cache *c)
{
	char *image = (char *)take_spare(c);

	if (!image)
		image = aligned_alloc(REDO_BLOCK, REDO_SLOT);
	c->in_memory += image != NULL;
	return image;
}

/* At a commit: little by little, as the next epoch may be a busy one again. */
static void free_spares(struct pvm_cache *c)
{
	for (unsigned n = (c->spares_least + SPARES_PART - 1) / SPARES_PART; n; n--)
		free(take_spare(c));
}

static int add_chunk(struct pvm_cache *c)
{
	struct pvm_chunk *chunk = calloc(1, sizeof(*chunk));

	if (!chunk)
		return -ENOMEM;
	chunk->image = take_image(c);
	if (!chunk->image) {
		free(chunk);
		return -ENOMEM;
	}
	chunk->number = c->next++;
	chunk->seed = redo_seed(c->session, chunk->number);
	if (c->last)
		c->last->next = chunk;
	else
		c->first = chunk;
	c->last = chunk;
	c->chunks++;
	return 0;
}

static void free_chunk(struct pvm_cache *c, struct pvm_chunk *chunk)
{
	give_image(c, chunk);
	c->chunks--;
	free(chunk);
}

static bool fits_last(const struct pvm_cache *c, uint32_t stored)
{
	return c->last && !c->last->sealed && redo_room(c->last->used) &&
	       REDO_SLOT - c->last->used >= sizeof(struct redo_record) + stored;
}

static uint64_t slots_used(const struct pvm_cache *c)
{
	return c->next - c->tail;
}

/* ---- the appending thread ---- */

/* What the last chunk has that its slot has not. Only this thread changes `used` and `written`. The
 * lock is held, and let go meanwhile. */
static int write_out(struct pvm_cache *c)
{
	struct pvm_chunk *chunk = c->last;
	uint32_t end = chunk->used;
	int r;

	if (chunk->written == end)
		return 0;
	pthread_mutex_unlock(&c->lock);
	r = redo_write(c->journal, chunk->number, chunk->written, chunk->image + chunk->written,
		       end - chunk->written);
	pthread_mutex_lock(&c->lock);
	if (!r)
		chunk->written = end;
	return r;
}

/* The last chunk is full: to its slot with it, and out of memory if there are enough. */
static int seal(struct pvm_cache *c)
{
	struct pvm_chunk *chunk = c->last;
	int r;

	if (!chunk || chunk->sealed)
		return 0;
	if (redo_room(chunk->used)) {
		redo_put(chunk->image, chunk->used, chunk->seed, REDO_END, 0, 0);
		chunk->used = redo_next(chunk->used, REDO_END, 0);
	}
	chunk->sealed = true;
	r = write_out(c);
	if (!r && c->in_memory >= c->max_in_memory && c->reading != chunk)
		give_image(c, chunk);
	return r;
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

static void ask_to_settle(struct pvm_cache *c)
{
	if (!c->short_of_slots || c->applied_tail <= c->tail)
		return;
	pthread_mutex_unlock(&c->lock);
	c->short_of_slots(c->opaque);
	pthread_mutex_lock(&c->lock);
}

/* Above three quarters: the fuller, the slower. Small debts are added up, as short sleeps are inexact. */
static void throttle(struct pvm_cache *c, uint32_t length)
{
	uint64_t slots = c->journal->slots, quarter = slots / 4, used = slots_used(c);

	if (used <= slots - quarter) {
		c->debt_us = 0;
		return;
	}
	c->debt_us += (uint64_t)length * SLOWEST_US / 65536 * (used - (slots - quarter)) / quarter;
	if (c->debt_us < 1000 || c->interrupted)
		return;
	ask_to_settle(c);
	wait_us(c, c->debt_us);
	c->debt_us = 0;
}

/* The last slot is for boundaries: a record has room in the last chunk unless that is in this slot. */
static bool has_room(const struct pvm_cache *c, uint32_t stored)
{
	if (fits_last(c, stored))
		return slots_used(c) < c->journal->slots;
	return slots_used(c) + 1 < c->journal->slots;
}

/* Full, and no boundary is here that could be committed: the one that could be stands behind what
 * has no room. Nobody else may notice: the guest's writes may all be on their way already. */
static bool is_stuck(const struct pvm_cache *c)
{
	return !c->nmarks && c->applied_tail <= c->tail;
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* A boundary that is here need not ever be committed: its checkpoint may have been given up for the
 * one that stands behind us. */
static int wait_for_room(struct pvm_cache *c, uint32_t stored)
{
	uint64_t until = now_us() + c->patience_us, seen = c->applied + c->tail;

	while (!has_room(c, stored) && !c->interrupted) {
		if (is_stuck(c))
			return -EXFULL;
		ask_to_settle(c);
		if (has_room(c, stored) || c->interrupted)
			break;
		wait_us(c, POLL_US);
		if (c->applied + c->tail != seen || c->applied_tail > c->tail || !c->patience_us) {
			until = now_us() + c->patience_us;
			seen = c->applied + c->tail;
		} else if (now_us() >= until) {
			return -EXFULL;
		}
	}
	return c->interrupted ? -EINTR : 0;
}

/* A last chunk in which a record fits */
static int make_fit(struct pvm_cache *c, uint32_t stored)
{
	int r;

	if (fits_last(c, stored))
		return 0;
	r = seal(c);
	return r ? r : add_chunk(c);
}

int pvm_cache_reserve(struct pvm_cache *c, uint32_t length, void **data)
{
	int r;

	if (length > REDO_SLOT - sizeof(struct redo_record))
		return -EMSGSIZE;
	pthread_mutex_lock(&c->lock);
	r = c->begun ? 0 : -EPERM;
	if (!r) {
		throttle(c, length);
		r = wait_for_room(c, length);
	}
	if (!r)
		r = make_fit(c, length);
	if (!r) {
		c->reserved = true;
		*data = c->last->image + c->last->used + sizeof(struct redo_record);
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

static bool crossed_half(struct pvm_cache *c)
{
	uint64_t bound = c->journal->slots < c->max_in_memory ? c->journal->slots : c->max_in_memory;

	if (c->warned || c->chunks * 2ull <= bound)
		return false;
	c->warned = true;
	return true;
}

/* The hash is made without the lock: nobody else looks beyond `used`. */
static struct pvm_chunk *put_record(struct pvm_cache *c, uint32_t kind, uint64_t offset, uint32_t length)
{
	struct pvm_chunk *chunk = c->last;

	redo_put(chunk->image, chunk->used, chunk->seed, kind, offset, length);
	return chunk;
}

bool pvm_cache_append(struct pvm_cache *c, uint64_t offset, uint32_t length, bool with_data)
{
	uint32_t kind = with_data ? REDO_WRITE : REDO_ZERO, stored = with_data ? length : 0;
	struct pvm_chunk *chunk = put_record(c, kind, offset, length);
	uint64_t number;
	bool half;

	pthread_mutex_lock(&c->lock);
	chunk->used = redo_next(chunk->used, kind, stored);
	number = ++c->appended;
	c->bytes += stored;
	c->reserved = false;
	half = crossed_half(c);
	pthread_mutex_unlock(&c->lock);
	for (uint64_t b = offset / BITMAP_BLOCK; b <= (offset + length - 1) / BITMAP_BLOCK; b++)
		c->touched[b] = number;
	return half;
}

static int may_mark(const struct pvm_cache *c, uint64_t epoch)
{
	if (!c->begun)
		return -EPERM;
	if (epoch <= c->last_epoch)
		return -EPROTO;
	return c->nmarks == PVM_MARKS ? -EXFULL : 0;
}

/* The boundary's record on stable storage, with all before it. */
static int write_boundary(struct pvm_cache *c, uint64_t epoch)
{
	struct pvm_chunk *chunk;
	int r = fits_last(c, 0) || slots_used(c) < c->journal->slots ? make_fit(c, 0) : -EXFULL;

	if (r)
		return r;
	chunk = put_record(c, REDO_BOUNDARY, epoch, 0);
	chunk->used = redo_next(chunk->used, REDO_BOUNDARY, 0);
	c->appended++;
	r = write_out(c);
	if (r)
		return r;
	pthread_mutex_unlock(&c->lock);
	r = redo_sync(c->journal);
	pthread_mutex_lock(&c->lock);
	return r;
}

int pvm_cache_mark(struct pvm_cache *c, uint64_t epoch)
{
	int r;

	pthread_mutex_lock(&c->lock);
	r = may_mark(c, epoch);
	if (!r)
		r = write_boundary(c, epoch);
	if (!r) {
		c->marks[c->nmarks++] = (struct pvm_mark){ epoch, c->appended, c->last->number };
		c->last_epoch = epoch;
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

bool pvm_cache_touches(struct pvm_cache *c, uint64_t off, uint64_t len)
{
	uint64_t applied;

	pthread_mutex_lock(&c->lock);
	applied = c->applied;
	pthread_mutex_unlock(&c->lock);
	for (uint64_t b = off / BITMAP_BLOCK; len && b <= (off + len - 1) / BITMAP_BLOCK; b++)
		if (c->touched[b] > applied)
			return true;
	return false;
}

/* ---- commit ---- */

/* The chunk's image: its own memory, which seal() leaves alone while we are there, or its slot's. */
static int open_chunk(struct pvm_cache *c, struct pvm_chunk *chunk, const char **image)
{
	pthread_mutex_lock(&c->lock);
	c->reading = chunk;
	*image = chunk->image;
	pthread_mutex_unlock(&c->lock);
	if (*image)
		return 0;
	*image = c->back;
	return redo_read(c->journal, chunk->number, c->back);
}

/* The cursor to the next record, into the next chunk if this one has no more. There must be one. */
static int seek_record(struct pvm_cache *c, struct pvm_cursor *at, const char **image)
{
	struct pvm_chunk *chunk = at->chunk;

	pthread_mutex_lock(&c->lock); /* the appending thread may be writing `used` and `next` */
	if (!chunk)
		*at = (struct pvm_cursor){ c->first, c->first->taken };
	while (at->pos == at->chunk->used)
		*at = (struct pvm_cursor){ at->chunk->next, 0 };
	pthread_mutex_unlock(&c->lock);
	return at->chunk == chunk ? 0 : open_chunk(c, at->chunk, image);
}

static int find_mark(struct pvm_cache *c, uint64_t epoch, struct pvm_mark *mark)
{
	int found = -ENOENT;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < c->nmarks; i++)
		if (c->marks[i].epoch == epoch) {
			*mark = c->marks[i];
			found = (int)i;
		}
	pthread_mutex_unlock(&c->lock);
	return found;
}

/* One record; a spilled one is judged anew, as it comes from a disk. */
static int apply_one(struct pvm_cache *c, const struct pvm_cursor *at, const char *image, pvm_apply_fn *fn,
		     void *opaque, const struct redo_record **rec)
{
	*rec = image == c->back ? redo_at(image, at->pos, at->chunk->seed)
				: (const struct redo_record *)(image + at->pos);
	if (!*rec)
		return -EIO;
	if ((*rec)->kind == REDO_WRITE || (*rec)->kind == REDO_ZERO)
		return fn(opaque, (*rec)->offset, (*rec)->kind == REDO_WRITE ? *rec + 1 : NULL, (*rec)->length);
	return 0;
}

/* `n` records, END not counted among them, from the first on. The cursor is behind the last one then. */
static int apply_records(struct pvm_cache *c, uint64_t n, struct pvm_cursor *at, uint64_t *bytes,
			 pvm_apply_fn *fn, void *opaque)
{
	const char *image = NULL;
	int r = 0;

	while (n && !r) {
		const struct redo_record *rec;

		r = seek_record(c, at, &image);
		if (!r)
			r = apply_one(c, at, image, fn, opaque, &rec);
		if (r)
			break;
		at->pos = redo_next(at->pos, rec->kind, redo_stored(rec));
		*bytes += redo_stored(rec);
		n -= rec->kind != REDO_END;
	}
	pthread_mutex_lock(&c->lock);
	c->reading = NULL;
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* Forget the chunks before the cursor, and the one that it is in if nothing follows there. */
static void free_taken(struct pvm_cache *c, const struct pvm_cursor *at)
{
	struct pvm_chunk *chunk;

	while ((chunk = c->first) && chunk != at->chunk) {
		c->first = chunk->next;
		free_chunk(c, chunk);
	}
	if (chunk)
		chunk->taken = at->pos;
}

static void forget(struct pvm_cache *c, const struct pvm_cursor *at, const struct pvm_mark *mark,
		   unsigned marks, uint64_t bytes)
{
	pthread_mutex_lock(&c->lock);
	free_spares(c);
	free_taken(c, at);
	c->spares_least = c->spares;
	c->applied = mark->records;
	c->applied_epoch = mark->epoch;
	c->applied_tail = mark->chunk;
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
	struct pvm_mark mark;
	uint64_t bytes = 0;
	int found = find_mark(c, epoch, &mark), r;

	if (found < 0)
		return found;
	r = apply_records(c, mark.records - c->applied, &at, &bytes, fn, opaque);
	if (!r)
		forget(c, &at, &mark, (unsigned)found + 1, bytes);
	return r;
}

struct pvm_applied pvm_cache_applied(struct pvm_cache *c)
{
	struct pvm_applied a;

	pthread_mutex_lock(&c->lock);
	a = (struct pvm_applied){ c->session, c->applied_epoch, c->applied_tail };
	pthread_mutex_unlock(&c->lock);
	return a;
}

void pvm_cache_settled(struct pvm_cache *c, const struct pvm_applied *a)
{
	pthread_mutex_lock(&c->lock);
	if (a->session == c->session && a->tail > c->tail)
		c->tail = a->tail;
	pthread_cond_broadcast(&c->room);
	pthread_mutex_unlock(&c->lock);
}

bool pvm_cache_half_unsettled(struct pvm_cache *c)
{
	bool half;

	pthread_mutex_lock(&c->lock);
	half = c->applied_tail > c->tail && (c->applied_tail - c->tail) * 2 >= c->journal->slots;
	pthread_mutex_unlock(&c->lock);
	return half;
}

/* ---- beginning anew ---- */

static uint64_t random_number(void)
{
	uint64_t n = 0;

	while (getrandom(&n, sizeof(n), 0) != sizeof(n))
		;
	return n;
}

void pvm_cache_drop(struct pvm_cache *c)
{
	struct pvm_chunk *chunk;

	pthread_mutex_lock(&c->lock);
	while ((chunk = c->first)) {
		c->first = chunk->next;
		free_chunk(c, chunk);
	}
	while (c->spares)
		free(take_spare(c));
	c->last = c->reading = NULL;
	c->session = random_number();
	c->next = c->tail = c->applied_epoch = c->applied_tail = 0;
	c->applied = c->appended;
	c->bytes = c->debt_us = c->last_epoch = c->spares_least = 0;
	c->nmarks = 0;
	c->begun = c->reserved = c->warned = false;
	pthread_mutex_unlock(&c->lock);
}

int pvm_cache_begin(struct pvm_cache *c)
{
	int r = 0;

	pthread_mutex_lock(&c->lock);
	if (!c->begun) {
		r = c->journal->fd < 0 ? -EBADF : redo_reset(c->journal);
		if (!c->session)
			c->session = random_number();
		c->begun = r == 0;
	}
	pthread_mutex_unlock(&c->lock);
	return r;
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

uint64_t pvm_cache_memory_bytes(struct pvm_cache *c)
{
	uint64_t bytes;

	pthread_mutex_lock(&c->lock);
	bytes = (uint64_t)(c->in_memory + c->spares) * REDO_SLOT;
	pthread_mutex_unlock(&c->lock);
	return bytes;
}

uint64_t pvm_cache_journal_bytes(struct pvm_cache *c)
{
	uint64_t bytes;

	pthread_mutex_lock(&c->lock);
	bytes = slots_used(c) * REDO_SLOT;
	pthread_mutex_unlock(&c->lock);
	return bytes;
}
