/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pool.c - size classes cut from chunks that are kept until the end
 *
 * The bound is the caller's: it looks at pool.used before it asks for more.
 */
#include <stdlib.h>
#include <string.h>

#include "net.h"
#include "pool.h"

#define CHUNK_BYTES (256u * 1024)

/* whole buffers: an acknowledgement or small answer, an Ethernet frame, a jumbo frame, the largest */
static const uint32_t class_bytes[POOL_CLASSES] = {
	384, 1728, 9344, (NET_FRAME_MAX + 319) & ~63u,
};

_Static_assert(sizeof(struct buf) <= 256 - 64, "the largest class has room for NET_FRAME_MAX");

struct chunk {
	struct chunk *next;
	_Alignas(16) uint8_t bytes[];
};

void pool_init(struct pool *p)
{
	memset(p, 0, sizeof(*p));
}

void pool_fini(struct pool *p)
{
	struct chunk *c = p->chunks;

	while (c) {
		struct chunk *next = c->next;

		free(c);
		c = next;
	}
	pool_init(p);
}

static int class_for(size_t n)
{
	for (int i = 0; i < POOL_CLASSES; i++)
		if (n <= class_bytes[i] - sizeof(struct buf))
			return i;
	return -1;
}

static int grow(struct pool *p, int class)
{
	size_t size = class_bytes[class], n = CHUNK_BYTES / size;
	struct chunk *c = malloc(sizeof(*c) + n * size);

	if (!c)
		return -1;
	c->next = p->chunks;
	p->chunks = c;
	for (size_t i = n; i-- > 0;) {
		struct buf *b = (struct buf *)(c->bytes + i * size);

		b->next = p->free[class];
		p->free[class] = b;
	}
	return 0;
}

struct buf *pool_get(struct pool *p, size_t n)
{
	int class = class_for(n);
	struct buf *b;

	if (class < 0 || (!p->free[class] && grow(p, class) < 0))
		return NULL;
	b = p->free[class];
	p->free[class] = b->next;
	memset(b, 0, sizeof(*b));
	b->class = (uint8_t)class;
	b->room = class_bytes[class] - (uint32_t)sizeof(*b);
	p->used += class_bytes[class];
	return b;
}

void pool_put(struct pool *p, struct buf *b)
{
	p->used -= class_bytes[b->class];
	b->next = p->free[b->class];
	p->free[b->class] = b;
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

void buf_age_append(struct buf_list *l, struct buf *b)
{
	b->aprev = l->tail;
	b->anext = NULL;
	*(l->tail ? &l->tail->anext : &l->head) = b;
	l->tail = b;
}

void buf_age_unlink(struct buf_list *l, struct buf *b)
{
	*(b->aprev ? &b->aprev->anext : &l->head) = b->anext;
	*(b->anext ? &b->anext->aprev : &l->tail) = b->aprev;
	b->aprev = b->anext = NULL;
}
