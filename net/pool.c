/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pool.c - size classes cut from chunks
 *
 * A chunk belongs to one class while a buffer of it is in use, and to none after that: so a burst of large
 * frames after one of small ones takes the same memory. Chunks are aligned to their size, so that
 * a buffer tells its chunk. They are kept until the end. Buffers of a chunk are handed out in order
 * at first, so that it is not touched before it is needed, and then the last one returned first.
 *
 * The bound on `used` is the caller's: it looks before it asks for more. The bound on chunks is larger, for
 * what is lost at their ends and in those that are partly free.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"
#include "pool.h"

/* whole buffers: an acknowledgement or small answer, an Ethernet frame, a jumbo frame, the largest */
static const uint32_t class_bytes[POOL_CLASSES] = {
	384, 1728, 9344, (NET_FRAME_MAX + 319) & ~63u,
};

_Static_assert(sizeof(struct buf) <= 256 - 64, "the largest class has room for NET_FRAME_MAX");

struct pool_chunk {
	struct pool_chunk *prev, *next; /* in `room` or `spare`; prev of the head is NULL */
	struct pool_chunk *chain;       /* of all */
	struct buf *free;
	uint32_t class, used, made;     /* buffers in use, and ever handed out since it has its class */
	_Alignas(64) uint8_t bytes[];
};

void pool_init(struct pool *p, size_t max)
{
	memset(p, 0, sizeof(*p));
	p->most = max / POOL_CHUNK + POOL_CLASSES;
}

void pool_fini(struct pool *p)
{
	struct pool_chunk *c = p->all;

	while (c) {
		struct pool_chunk *next = c->chain;

		free(c);
		c = next;
	}
	memset(p, 0, sizeof(*p));
}

size_t pool_memory(const struct pool *p)
{
	return p->chunks * POOL_CHUNK;
}

size_t pool_in_use(const struct pool *p)
{
	return (p->chunks - p->spares) * POOL_CHUNK;
}

static int class_for(size_t n)
{
	for (int i = 0; i < POOL_CLASSES; i++)
		if (n <= class_bytes[i] - sizeof(struct buf))
			return i;
	return -1;
}

static uint32_t capacity(int class)
{
	return (POOL_CHUNK - (uint32_t)sizeof(struct pool_chunk)) / class_bytes[class];
}

static bool has_room(const struct pool_chunk *c)
{
	return c->free || c->made < capacity((int)c->class);
}

static void push(struct pool_chunk **list, struct pool_chunk *c)
{
	c->prev = NULL;
	c->next = *list;
	if (c->next)
		c->next->prev = c;
	*list = c;
}

static void take_out(struct pool_chunk **list, struct pool_chunk *c)
{
	*(c->prev ? &c->prev->next : list) = c->next;
	if (c->next)
		c->next->prev = c->prev;
}

static struct pool_chunk *new_chunk(struct pool *p)
{
	void *mem = NULL;
	struct pool_chunk *c;

	if (p->chunks >= p->most || posix_memalign(&mem, POOL_CHUNK, POOL_CHUNK) != 0)
		return NULL;
	c = mem;
	c->chain = p->all;
	p->all = c;
	p->chunks++;
	return c;
}

static struct pool_chunk *chunk_for(struct pool *p, int class)
{
	struct pool_chunk *c = p->room[class];

	if (c)
		return c;
	c = p->spare;
	if (c) {
		take_out(&p->spare, c);
		p->spares--;
	} else if (!(c = new_chunk(p))) {
		return NULL;
	}
	c->class = (uint32_t)class;
	c->used = c->made = 0;
	c->free = NULL;
	push(&p->room[class], c);
	return c;
}

static struct buf *take(struct pool_chunk *c)
{
	struct buf *b = c->free;

	if (b)
		c->free = b->next;
	else
		b = (struct buf *)(c->bytes + (size_t)c->made++ * class_bytes[c->class]);
	c->used++;
	return b;
}

struct buf *pool_get(struct pool *p, size_t n)
{
	int class = class_for(n);
	struct pool_chunk *c = class < 0 ? NULL : chunk_for(p, class);
	struct buf *b;

	if (!c)
		return NULL;
	b = take(c);
	if (!has_room(c))
		take_out(&p->room[class], c);
	memset(b, 0, sizeof(*b));
	b->class = (uint8_t)class;
	b->room = class_bytes[class] - (uint32_t)sizeof(*b);
	p->used += class_bytes[class];
	return b;
}

/* The last chunk of a class stays with it, for the next frame. */
void pool_put(struct pool *p, struct buf *b)
{
	struct pool_chunk *c = (struct pool_chunk *)((uintptr_t)b & ~(uintptr_t)(POOL_CHUNK - 1));
	struct pool_chunk **room = &p->room[c->class];

	p->used -= class_bytes[b->class];
	if (!has_room(c))
		push(room, c);
	b->next = c->free;
	c->free = b;
	if (--c->used || (*room == c && !c->next))
		return;
	take_out(room, c);
	push(&p->spare, c);
	p->spares++;
}

void buf_insert(struct buf_list *l, struct buf *after, struct buf *b)
{
	b->prev = after;
	b->next = after ? after->next : l->head;
	*(b->next ? &b->next->prev : &l->tail) = b;
	*(after ? &after->next : &l->head) = b;
}

void buf_append(struct buf_list *l, struct buf *b)
{
	buf_insert(l, l->tail, b);
}

void buf_unlink(struct buf_list *l, struct buf *b)
{
	*(b->prev ? &b->prev->next : &l->head) = b->next;
	*(b->next ? &b->next->prev : &l->tail) = b->prev;
	b->prev = b->next = NULL;
}

void buf_age_insert(struct buf_list *l, struct buf *b, struct buf *before)
{
	b->anext = before;
	b->aprev = before ? before->aprev : l->tail;
	*(b->aprev ? &b->aprev->anext : &l->head) = b;
	*(before ? &before->aprev : &l->tail) = b;
}

void buf_age_append(struct buf_list *l, struct buf *b)
{
	buf_age_insert(l, b, NULL);
}

void buf_age_unlink(struct buf_list *l, struct buf *b)
{
	*(b->aprev ? &b->aprev->anext : &l->head) = b->anext;
	*(b->anext ? &b->anext->aprev : &l->tail) = b->aprev;
	b->aprev = b->anext = NULL;
}
