/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pool_exact.c - net/pool.c with each buffer in memory of its own, for AddressSanitizer
 *
 * In a chunk one buffer's end is the next one's beginning, and what is returned stays mapped: nothing would
 * be seen. Besides, a chunk takes longer to allocate than a whole input to run.
 */
#define pool_init chunk_pool_init
#define pool_fini chunk_pool_fini
#define pool_get chunk_pool_get
#define pool_put chunk_pool_put
#define pool_memory chunk_pool_memory
#include "net/pool.c"
#undef pool_init
#undef pool_fini
#undef pool_get
#undef pool_put
#undef pool_memory

struct exact { /* before each buffer */
	struct exact *prev, *next;
};

static struct exact **head_of(struct pool *p)
{
	return (struct exact **)&p->all;
}

void pool_init(struct pool *p, size_t max)
{
	chunk_pool_init(p, max);
}

void pool_fini(struct pool *p)
{
	struct exact *e = *head_of(p), *next;

	for (; e; e = next) {
		next = e->next;
		free(e);
	}
	memset(p, 0, sizeof(*p));
}

struct buf *pool_get(struct pool *p, size_t n)
{
	int class = class_for(n);
	struct exact *e = class < 0 ? NULL : malloc(sizeof(*e) + class_bytes[class]), **head = head_of(p);
	struct buf *b = e ? (struct buf *)(e + 1) : NULL;

	if (!b)
		return NULL;
	e->prev = NULL;
	e->next = *head;
	if (e->next)
		e->next->prev = e;
	*head = e;
	memset(b, 0, sizeof(*b));
	b->class = (uint8_t)class;
	b->room = class_bytes[class] - (uint32_t)sizeof(*b);
	p->used += class_bytes[class];
	return b;
}

void pool_put(struct pool *p, struct buf *b)
{
	struct exact *e = (struct exact *)b - 1;

	p->used -= class_bytes[b->class];
	*(e->prev ? &e->prev->next : head_of(p)) = e->next;
	if (e->next)
		e->next->prev = e->prev;
	free(e);
}

size_t pool_memory(const struct pool *p)
{
	return p->used;
}
