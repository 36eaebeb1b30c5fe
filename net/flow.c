/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * flow.c - hash table of flows with two lists by time of use
 *
 * Every element is on one of two lists: `live`, and `closed` for connections that ended and for
 * datagram flows, which have no end. Adding an element takes up to two closed ones that were not used
 * for long off the table, so that no timer is needed; a full table loses the least recently used
 * element that its user calls idle, closed ones first. Only a bounded number of candidates is looked at.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "flow.h"

#define CHUNK 256 /* elements */
#define CANDIDATES 64

struct chunk {
	struct chunk *next;
	_Alignas(16) uint8_t elems[];
};

static uint32_t key_hash(const struct flow_table *t, const struct flow_key *k)
{
	const uint8_t *p = (const uint8_t *)k;
	uint64_t h = t->seed ^ 0x9e3779b97f4a7c15u, w;
	uint32_t last;

	for (size_t i = 0; i + 8 <= sizeof(*k); i += 8) {
		memcpy(&w, p + i, 8);
		h = (h ^ w) * 0xd6e8feb86659fd93u;
		h ^= h >> 32;
	}
	memcpy(&last, p + sizeof(*k) - 4, 4);
	h = (h ^ last) * 0xd6e8feb86659fd93u;
	return (uint32_t)(h ^ h >> 32);
}

int flow_table_init(struct flow_table *t, size_t max, size_t size, uint64_t seed, uint64_t close_us,
	const struct flow_ops *ops, void *opaque)
{
	size_t buckets = 64;

	while (buckets < max && buckets < (1u << 24))
		buckets *= 2;
	memset(t, 0, sizeof(*t));
	t->buckets = calloc(buckets, sizeof(*t->buckets));
	if (!t->buckets)
		return -ENOMEM;
	t->mask = (uint32_t)buckets - 1;
	t->max = max;
	t->size = (size + 15) & ~(size_t)15;
	t->seed = seed;
	t->close_us = close_us;
	t->ops = ops;
	t->opaque = opaque;
	return 0;
}

void flow_table_free(struct flow_table *t)
{
	struct chunk *c = t->chunks;

	while (c) {
		struct chunk *next = c->next;

		free(c);
		c = next;
	}
	free(t->buckets);
	memset(t, 0, sizeof(*t));
}

static void set_addresses(struct flow_key *k, const struct frame *f, bool from_guest)
{
	const uint8_t *src = f->data + FRAME_ETH + 6, *dst = f->data + FRAME_ETH;
	size_t n = 6;

	if (f->family == 4) {
		src = f->data + f->l3 + 12;
		dst = src + 4;
		n = 4;
	} else if (f->family == 6) {
		src = f->data + f->l3 + 8;
		dst = src + 16;
		n = 16;
	}
	memcpy(from_guest ? k->guest : k->peer, src, n);
	memcpy(from_guest ? k->peer : k->guest, dst, n);
}

static void key_of(struct flow_key *k, const struct frame *f, bool from_guest)
{
	memset(k, 0, sizeof(*k));
	set_addresses(k, f, from_guest);
	k->gport = from_guest ? f->sport : f->dport;
	k->pport = from_guest ? f->dport : f->sport;
	k->vlan = f->vlan;
	k->ethertype = f->ethertype;
	k->extra = f->extra;
	k->proto = f->proto;
	k->type = (uint8_t)f->type;
}

void flow_key_from_guest(struct flow_key *k, const struct frame *f)
{
	key_of(k, f, true);
}

void flow_key_to_guest(struct flow_key *k, const struct frame *f)
{
	key_of(k, f, false);
}

static struct flow_list *list_of(struct flow_table *t, const struct flow_node *n)
{
	return n->closed ? &t->closed : &t->live;
}

static void unlink_node(struct flow_list *l, struct flow_node *n)
{
	*(n->prev ? &n->prev->next : &l->head) = n->next;
	*(n->next ? &n->next->prev : &l->tail) = n->prev;
}

static void append_node(struct flow_list *l, struct flow_node *n)
{
	n->next = NULL;
	n->prev = l->tail;
	*(l->tail ? &l->tail->next : &l->head) = n;
	l->tail = n;
}

struct flow_node *flow_find(const struct flow_table *t, const struct flow_key *k)
{
	uint32_t h = key_hash(t, k);
	struct flow_node *n = t->buckets[h & t->mask];

	while (n && (n->hash != h || memcmp(&n->key, k, sizeof(*k)) != 0))
		n = n->chain;
	return n;
}

static bool grow(struct flow_table *t)
{
	struct chunk *c = malloc(sizeof(*c) + CHUNK * t->size);

	if (!c)
		return false;
	c->next = t->chunks;
	t->chunks = c;
	for (size_t i = CHUNK; i-- > 0;) {
		struct flow_node *n = (struct flow_node *)(c->elems + i * t->size);

		n->chain = t->free;
		t->free = n;
	}
	return true;
}

void flow_del(struct flow_table *t, struct flow_node *n)
{
	struct flow_node **pp = &t->buckets[n->hash & t->mask];

	t->ops->drop(t->opaque, n);
	while (*pp != n)
		pp = &(*pp)->chain;
	*pp = n->chain;
	unlink_node(list_of(t, n), n);
	n->chain = t->free;
	t->free = n;
	t->n--;
}

static bool evict_from(struct flow_table *t, struct flow_list *l)
{
	struct flow_node *n = l->head;

	for (int i = 0; n && i < CANDIDATES; i++, n = n->next) {
		if (!t->ops->idle(n))
			continue;
		flow_del(t, n);
		return true;
	}
	return false;
}

static void expire(struct flow_table *t, uint64_t now)
{
	for (int i = 0; i < 2; i++) {
		struct flow_node *n = t->closed.head;

		if (!n || now < n->used || now - n->used < t->close_us || !t->ops->idle(n))
			return;
		flow_del(t, n);
	}
}

struct flow_node *flow_add(struct flow_table *t, const struct flow_key *k, uint64_t now)
{
	struct flow_node *n;
	uint32_t h = key_hash(t, k);

	expire(t, now);
	if (t->n >= t->max && !evict_from(t, &t->closed) && !evict_from(t, &t->live))
		return NULL;
	if (!t->free && !grow(t))
		return NULL;
	n = t->free;
	t->free = n->chain;
	memset(n, 0, t->size);
	n->key = *k;
	n->hash = h;
	n->used = now;
	n->chain = t->buckets[h & t->mask];
	t->buckets[h & t->mask] = n;
	append_node(&t->live, n);
	t->n++;
	return n;
}

void flow_touch(struct flow_table *t, struct flow_node *n, uint64_t now)
{
	struct flow_list *l = list_of(t, n);

	n->used = now;
	if (l->tail == n)
		return;
	unlink_node(l, n);
	append_node(l, n);
}

void flow_set_closed(struct flow_table *t, struct flow_node *n, bool closed)
{
	if (n->closed == closed)
		return;
	unlink_node(list_of(t, n), n);
	n->closed = closed;
	append_node(list_of(t, n), n);
}

void flow_clear(struct flow_table *t)
{
	while (t->live.head)
		flow_del(t, t->live.head);
	while (t->closed.head)
		flow_del(t, t->closed.head);
}
