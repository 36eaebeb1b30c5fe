/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tr_table.c - the translator's connections, found by either of their names
 *
 * A name is addresses, VLAN, the peer's port and the guest's port; the guest's port is one on the LAN and
 * may be another in the SVM. Each side has a hash table of its own; the hash is seeded, since peers choose
 * addresses. An entry is on one list, that of its class. Making room takes, oldest first, one that is over,
 * else one that is young: those of a SYN flood, never an open one. What is over for CLOSED_US without
 * having been used goes by itself when others come, or when the table is saved; after a failover, when no
 * checkpoint empties the table any more, also what has been young for so long.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tr_priv.h"

#define CHUNK 256          /* entries */
#define CLOSED_US 120000000u /* beyond TIME_WAIT */

struct chunk {
	struct chunk *next;
	struct tr_entry entries[CHUNK];
};

int tr_table_init(struct tr *tr, size_t max)
{
	size_t buckets = 64;

	while (buckets < max && buckets < (1u << 24))
		buckets *= 2;
	tr->mask = (uint32_t)buckets - 1;
	tr->max = max;
	for (int i = 0; i < TR_SIDES; i++) {
		tr->buckets[i] = calloc(buckets, sizeof(*tr->buckets[i]));
		if (!tr->buckets[i])
			return -ENOMEM;
	}
	return 0;
}

void tr_table_free(struct tr *tr)
{
	struct chunk *c = tr->chunks;

	while (c) {
		struct chunk *next = c->next;

		free(c);
		c = next;
	}
	free(tr->buckets[TR_PVM]);
	free(tr->buckets[TR_SVM]);
}

static uint64_t mix(uint64_t h, uint64_t w)
{
	h = (h ^ w) * 0xd6e8feb86659fd93u;
	return h ^ h >> 32;
}

void tr_key_hash(const struct tr *tr, struct tr_key *key)
{
	uint8_t bytes[48] = { 0 };
	uint64_t w;

	memcpy(bytes, &key->k, sizeof(key->k));
	key->hash = tr->seed ^ 0x9e3779b97f4a7c15u;
	for (size_t i = 0; i < sizeof(bytes); i += 8) {
		memcpy(&w, bytes + i, 8);
		key->hash = mix(key->hash, w);
	}
}

static void finish_key(const struct tr *tr, struct tr_key *key)
{
	key->port = key->k.gport;
	key->k.gport = 0;
	tr_key_hash(tr, key);
}

void tr_key_from_guest(const struct tr *tr, struct tr_key *key, const struct frame *f)
{
	flow_key_from_guest(&key->k, f);
	finish_key(tr, key);
}

void tr_key_to_guest(const struct tr *tr, struct tr_key *key, const struct frame *f)
{
	flow_key_to_guest(&key->k, f);
	finish_key(tr, key);
}

static struct tr_entry **bucket(const struct tr *tr, uint64_t hash, enum tr_side side, uint16_t port)
{
	return &tr->buckets[side][mix(hash, port) & tr->mask];
}

struct tr_entry *tr_find(const struct tr *tr, const struct tr_key *key, enum tr_side side, uint16_t port)
{
	struct tr_entry *e = *bucket(tr, key->hash, side, port);

	while (e && (e->port[side] != port || e->hash != key->hash ||
		     memcmp(&e->key, &key->k, sizeof(key->k)) != 0))
		e = e->chain[side];
	return e;
}

/* --- classes --- */

static void leave_class(struct tr *tr, struct tr_entry *e)
{
	struct tr_list *l = &tr->class[e->class];

	*(e->prev ? &e->prev->next : &l->head) = e->next;
	*(e->next ? &e->next->prev : &l->tail) = e->prev;
}

static void enter_class(struct tr *tr, struct tr_entry *e, enum tr_class class)
{
	struct tr_list *l = &tr->class[class];

	e->class = class;
	e->next = NULL;
	e->prev = l->tail;
	*(l->tail ? &l->tail->next : &l->head) = e;
	l->tail = e;
}

void tr_set_class(struct tr *tr, struct tr_entry *e, enum tr_class class)
{
	e->used = tr->now;
	tr->version += e->class != class;
	leave_class(tr, e);
	enter_class(tr, e, class);
}

/* --- entries --- */

static bool grow(struct tr *tr)
{
	struct chunk *c = aligned_alloc(_Alignof(struct chunk), sizeof(*c));

	if (!c)
		return false;
	c->next = tr->chunks;
	tr->chunks = c;
	for (size_t i = CHUNK; i-- > 0;) {
		c->entries[i].chain[0] = tr->free;
		tr->free = &c->entries[i];
	}
	return true;
}

static uint32_t expire_class(struct tr *tr, enum tr_class class, uint32_t most)
{
	struct tr_entry *e;

	while (most && (e = tr->class[class].head) && tr->now - e->used >= CLOSED_US) {
		tr_del(tr, e);
		most--;
	}
	return most;
}

void tr_expire(struct tr *tr, uint32_t most)
{
	most = expire_class(tr, TR_OVER, most);
	if (tr->failed_over)
		expire_class(tr, TR_YOUNG, most);
}

static bool make_room(struct tr *tr)
{
	struct tr_entry *e = tr->class[TR_OVER].head;

	if (tr->n < tr->max)
		return true;
	if (!e)
		e = tr->class[TR_YOUNG].head;
	if (!e) {
		tr->full++;
		return false;
	}
	tr_del(tr, e);
	return true;
}

struct tr_entry *tr_add(struct tr *tr, const struct tr_key *key)
{
	struct tr_entry *e;

	tr_expire(tr, 2);
	if (!make_room(tr) || (!tr->free && !grow(tr)))
		return NULL;
	e = tr->free;
	tr->free = e->chain[0];
	memset(e, 0, sizeof(*e));
	e->key = key->k;
	e->hash = key->hash;
	e->used = tr->now;
	enter_class(tr, e, TR_YOUNG);
	tr->n++;
	tr->version++;
	return e;
}

void tr_link(struct tr *tr, struct tr_entry *e, enum tr_side side, uint16_t port)
{
	struct tr_entry **b = bucket(tr, e->hash, side, port);

	e->port[side] = port;
	e->linked[side] = true;
	e->chain[side] = *b;
	*b = e;
}

static void remove_name(struct tr *tr, struct tr_entry *e, enum tr_side side)
{
	struct tr_entry **b = bucket(tr, e->hash, side, e->port[side]);

	if (!e->linked[side])
		return;
	while (*b != e)
		b = &(*b)->chain[side];
	*b = e->chain[side];
	e->linked[side] = false;
}

void tr_del(struct tr *tr, struct tr_entry *e)
{
	tr_unqueue(tr, e);
	remove_name(tr, e, TR_PVM);
	remove_name(tr, e, TR_SVM);
	leave_class(tr, e);
	e->chain[0] = tr->free;
	tr->free = e;
	tr->n--;
	tr->version++;
}

void tr_unlink(struct tr *tr, struct tr_entry *e, enum tr_side side)
{
	remove_name(tr, e, side);
	if (e->queued)
		return;
	if (e->linked[tr_other(side)])
		tr_set_class(tr, e, TR_OVER);
	else
		tr_del(tr, e);
}

bool tr_follow(const struct tr *tr, const struct tr_key *key, enum tr_side side, uint16_t *port,
	uint32_t most)
{
	enum tr_side other = tr_other(side);
	struct tr_entry *e;

	while ((e = tr_find(tr, key, other, *port))) {
		if (!e->linked[side] || !most--)
			return false;
		*port = e->port[side];
	}
	return true;
}
