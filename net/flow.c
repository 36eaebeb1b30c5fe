/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * flow.c - hash table of flows with two lists of what may go first
 *
 * Finding. An open table of slots, each a hash and the number of an element, at most half full, probed
 * linearly: one cache line tells the element of nearly every flow, and another its key. It doubles as
 * needed. The hash is a sum of products of key and secret (NH, as in UMAC), so that who chooses addresses
 * but does not know the secret cannot make them collide.
 *
 * Elements lie in chunks, the first ones small; later ones are whole huge pages, for with 100,000
 * flows in random order most accesses would miss the TLB.
 *
 * Making room. Every element is on one of two lists: `closed`, for those that may go first, and `live`.
 * Adding an element takes up to two closed ones that were not used for long off the table, so that
 * no timer is needed. A full table loses an element that its user calls idle: a closed one, or, if few are
 * closed, a live one.
 * Using an element does not move it, which would write to its neighbours' cache lines with each
 * frame; it is marked, and goes to the end of its list when its turn comes to be thrown out (CLOCK).
 * Only a bounded number of candidates is looked at.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "flow.h"

#define CHUNK 512u /* elements */
#define AREA 16u   /* chunks in one allocation, once there are as many */
#define CANDIDATES 64
#define FLOW_MAX ((1u << 30) - 1) /* an index has so many bits */
#define FIRST_SLOTS 64u
#define HUGE_PAGE (2u << 20)

static uint64_t mul(uint64_t a, uint64_t b)
{
	unsigned __int128 m = (unsigned __int128)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

#define WORDS 6

/* Eight bytes at a time, not more (the compiler would): a wider load of what was just written in parts has to
 * wait until the stores are in the cache. */
static inline uint64_t load64(const void *p)
{
	uint64_t w;

	memcpy(&w, p, 8);
	__asm__("" : "+r"(w));
	return w;
}

static inline void key_words(const struct flow_key *k, uint64_t w[WORDS])
{
#pragma GCC unroll 6
	for (int i = 0; i < WORDS; i++)
		w[i] = load64((const uint8_t *)k + 8 * i);
}

static inline uint32_t hash_words(const struct flow_table *t, const uint64_t w[WORDS])
{
	const uint64_t *s = t->seed;
	uint64_t h;

	h = mul(w[0] ^ s[0], w[1] ^ s[1]) + mul(w[2] ^ s[2], w[3] ^ s[3]) + mul(w[4] ^ s[4], w[5] ^ s[5]);
	h *= 0x9e3779b97f4a7c15u;
	return (uint32_t)(h >> 32);
}

static inline bool has_key(const struct flow_node *n, const uint64_t w[WORDS])
{
	uint64_t differ = 0;

#pragma GCC unroll 6
	for (int i = 0; i < WORDS; i++)
		differ |= load64((const uint8_t *)&n->key + 8 * i) ^ w[i];
	return !differ;
}

static void make_secrets(struct flow_table *t, uint64_t seed)
{
	for (int i = 0; i < WORDS; i++) {
		uint64_t z = seed += 0x9e3779b97f4a7c15u;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
		z = (z ^ z >> 27) * 0x94d049bb133111ebu;
		t->seed[i] = z ^ z >> 31;
	}
}

static void *alloc(struct flow_table *t, size_t bytes)
{
	bool huge = bytes >= HUGE_PAGE;
	void *p = NULL;

	if (posix_memalign(&p, huge ? HUGE_PAGE : FLOW_LINE, bytes) != 0)
		return NULL;
	if (huge)
		madvise(p, bytes, MADV_HUGEPAGE); /* slower without, not worse */
	t->memory += bytes;
	return p;
}

static struct flow_slot *alloc_slots(struct flow_table *t, size_t n)
{
	struct flow_slot *s = alloc(t, n * sizeof(*s));

	if (s)
		memset(s, 0, n * sizeof(*s));
	return s;
}

int flow_table_init(struct flow_table *t, size_t max, size_t size, uint64_t seed, uint64_t close_us,
	const struct flow_ops *ops, void *opaque)
{
	memset(t, 0, sizeof(*t));
	t->max = max < FLOW_MAX ? max : FLOW_MAX;
	t->size = (size + FLOW_LINE - 1) & ~(size_t)(FLOW_LINE - 1);
	t->close_us = close_us;
	t->ops = ops;
	t->opaque = opaque;
	make_secrets(t, seed);
	t->slots = alloc_slots(t, FIRST_SLOTS);
	t->chunks = calloc(t->max / CHUNK + AREA + 1, sizeof(*t->chunks));
	t->memory += (t->max / CHUNK + AREA + 1) * sizeof(*t->chunks);
	t->mask = FIRST_SLOTS - 1;
	if (t->slots && t->chunks)
		return 0;
	flow_table_free(t);
	return -ENOMEM;
}

void flow_table_free(struct flow_table *t)
{
	for (size_t i = 0; i < t->nchunks; i += i < AREA ? 1 : AREA)
		free(t->chunks[i]);
	free(t->chunks);
	free(t->slots);
	memset(t, 0, sizeof(*t));
}

static void set_ip4(uint8_t *to, const uint8_t *address)
{
	uint64_t w = 0;

	memcpy(&w, address, 4);
	memcpy(to, &w, 8);
	memset(to + 8, 0, 8);
}

static void set_addresses(struct flow_key *k, const struct frame *f, bool from_guest)
{
	uint8_t *src = from_guest ? k->guest : k->peer, *dst = from_guest ? k->peer : k->guest;
	const uint8_t *ip = f->data + f->l3;

	if (f->family == 4) {
		set_ip4(src, ip + 12);
		set_ip4(dst, ip + 16);
		return;
	}
	if (f->family == 6) {
		memcpy(src, ip + 8, 16);
		memcpy(dst, ip + 24, 16);
		return;
	}
	memset(src, 0, 16);
	memset(dst, 0, 16);
	memcpy(src, f->data + FRAME_ETH + 6, 6);
	memcpy(dst, f->data + FRAME_ETH, 6);
}

/* four adjacent fields in one store; see load64() */
/* bytes in the order of memory, to be stored at once; see load64() */
static inline void put64(void *to, uint16_t a, uint16_t b, uint16_t c, uint16_t d)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	uint64_t w = (uint64_t)a | (uint64_t)b << 16 | (uint64_t)c << 32 | (uint64_t)d << 48;
#else
	uint64_t w = (uint64_t)d | (uint64_t)c << 16 | (uint64_t)b << 32 | (uint64_t)a << 48;
#endif
	memcpy(to, &w, 8);
}

static inline void key_of(struct flow_key *k, const struct frame *f, bool from_guest)
{
	uint16_t gport = from_guest ? f->sport : f->dport, pport = from_guest ? f->dport : f->sport;
	const uint32_t tags = f->vlan;
	const uint8_t bytes[2] = { f->proto, (uint8_t)f->type };
	uint16_t vlan[2], kind;

	memcpy(vlan, &tags, 4);
	memcpy(&kind, bytes, 2);
	set_addresses(k, f, from_guest);
	put64((uint8_t *)k + offsetof(struct flow_key, gport), gport, pport, vlan[0], vlan[1]);
	put64((uint8_t *)k + offsetof(struct flow_key, ethertype), f->ethertype, f->extra, kind, 0);
}

_Static_assert(offsetof(struct flow_key, vlan) == offsetof(struct flow_key, gport) + 4 &&
		       offsetof(struct flow_key, proto) == offsetof(struct flow_key, ethertype) + 4,
	"see key_of()");

void flow_key_from_guest(struct flow_key *k, const struct frame *f)
{
	key_of(k, f, true);
}

void flow_key_to_guest(struct flow_key *k, const struct frame *f)
{
	key_of(k, f, false);
}

/* --- slots --- */

static struct flow_node *element(const struct flow_table *t, uint32_t index)
{
	return (struct flow_node *)(t->chunks[index / CHUNK] + index % CHUNK * t->size);
}

uint32_t flow_hash(const struct flow_table *t, const struct flow_key *k)
{
	uint64_t w[WORDS];

	key_words(k, w);
	return hash_words(t, w);
}

static inline void prefetch_element(const struct flow_node *n)
{
	__builtin_prefetch((const uint8_t *)n + FLOW_LINE);
	__builtin_prefetch((const uint8_t *)n + 2 * FLOW_LINE);
}

static inline struct flow_node *find(const struct flow_table *t, const uint64_t w[WORDS], uint32_t h)
{
	for (uint32_t i = h & t->mask; t->slots[i].place; i = (i + 1) & t->mask) {
		struct flow_node *n;

		if (t->slots[i].hash != h)
			continue;
		n = element(t, t->slots[i].place - 1);
		prefetch_element(n); /* it is nearly always this one */
		if (has_key(n, w))
			return n;
	}
	return NULL;
}

struct flow_node *flow_find(const struct flow_table *t, const struct flow_key *k)
{
	uint64_t w[WORDS];

	key_words(k, w);
	return find(t, w, hash_words(t, w));
}

struct flow_node *flow_find_hashed(const struct flow_table *t, const struct flow_key *k, uint32_t hash)
{
	uint64_t w[WORDS];

	key_words(k, w);
	return find(t, w, hash);
}

void flow_prefetch_slot(const struct flow_table *t, uint32_t hash)
{
	__builtin_prefetch(&t->slots[hash & t->mask]);
}

void flow_prefetch(const struct flow_table *t, uint32_t hash)
{
	uint32_t i = hash & t->mask;

	while (t->slots[i].place && t->slots[i].hash != hash)
		i = (i + 1) & t->mask;
	if (!t->slots[i].place)
		return;
	__builtin_prefetch(element(t, t->slots[i].place - 1));
	prefetch_element(element(t, t->slots[i].place - 1));
}

static void put_slot(struct flow_slot *slots, uint32_t mask, struct flow_slot s)
{
	uint32_t i = s.hash & mask;

	while (slots[i].place)
		i = (i + 1) & mask;
	slots[i] = s;
}

/* close the gap: what follows and would be sought from before it moves up */
static void remove_slot(struct flow_table *t, const struct flow_node *n)
{
	struct flow_slot *s = t->slots;
	uint32_t i = n->hash & t->mask, j;

	while (s[i].place != (uint32_t)n->index + 1)
		i = (i + 1) & t->mask;
	for (j = (i + 1) & t->mask; s[j].place; j = (j + 1) & t->mask) {
		if (((j - s[j].hash) & t->mask) < ((j - i) & t->mask))
			continue;
		s[i] = s[j];
		i = j;
	}
	s[i].place = 0;
}

/* at most half of the slots are in use; without memory for more, some are always free */
static bool grow_slots(struct flow_table *t)
{
	size_t have = (size_t)t->mask + 1;
	struct flow_slot *bigger;

	if (2 * (t->n + 1) <= have)
		return true;
	bigger = alloc_slots(t, 2 * have);
	if (!bigger)
		return t->n + 1 < have - have / 8;
	for (size_t i = 0; i < have; i++)
		if (t->slots[i].place)
			put_slot(bigger, (uint32_t)(2 * have - 1), t->slots[i]);
	free(t->slots);
	t->memory -= have * sizeof(*t->slots);
	t->slots = bigger;
	t->mask = (uint32_t)(2 * have - 1);
	return true;
}

/* --- lists --- */

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
	n->touched = 0;
	n->next = NULL;
	n->prev = l->tail;
	*(l->tail ? &l->tail->next : &l->head) = n;
	l->tail = n;
}

static void rotate(struct flow_list *l)
{
	struct flow_node *n = l->head;

	unlink_node(l, n);
	append_node(l, n);
}

void flow_set_closed(struct flow_table *t, struct flow_node *n, bool closed)
{
	if (n->closed == closed)
		return;
	unlink_node(list_of(t, n), n);
	n->closed = closed;
	t->nclosed += closed ? 1 : -1;
	append_node(list_of(t, n), n);
}

/* --- elements --- */

static void remove_node(struct flow_table *t, struct flow_node *n)
{
	if (t->ops->drop)
		t->ops->drop(t->opaque, n);
	unlink_node(list_of(t, n), n);
	t->nclosed -= n->closed;
	n->next = t->free;
	t->free = n;
	t->n--;
}

void flow_del(struct flow_table *t, struct flow_node *n)
{
	remove_slot(t, n);
	remove_node(t, n);
}

void flow_clear(struct flow_table *t)
{
	while (t->live.head)
		remove_node(t, t->live.head);
	while (t->closed.head)
		remove_node(t, t->closed.head);
	memset(t->slots, 0, ((size_t)t->mask + 1) * sizeof(*t->slots));
}

static bool evict_from(struct flow_table *t, struct flow_list *l)
{
	for (int i = 0; l->head && i < CANDIDATES; i++) {
		struct flow_node *n = l->head;

		if (!t->ops->idle(n) || (n->touched && i < CANDIDATES / 2)) {
			rotate(l);
			continue;
		}
		t->evicted += !n->closed;
		flow_del(t, n);
		return true;
	}
	return false;
}

/* Who floods the table with elements that are not idle does not get those that are in use for long. */
static bool make_room(struct flow_table *t)
{
	return evict_from(t, &t->closed) || (t->nclosed <= t->max / 4 && evict_from(t, &t->live));
}

static void expire(struct flow_table *t, uint64_t now)
{
	for (int i = 0; i < 2; i++) {
		struct flow_node *n = t->closed.head;
		bool old = n && now > n->used && now - n->used >= t->close_us;

		if (n && old && t->ops->idle(n))
			flow_del(t, n);
		else if (n && (old || n->touched))
			rotate(&t->closed);
		else
			return;
	}
}

static bool grow(struct flow_table *t)
{
	size_t n = t->nchunks < AREA ? 1 : AREA;
	uint8_t *p;

	if (t->made < t->nchunks * CHUNK)
		return true;
	p = alloc(t, n * CHUNK * t->size);
	if (!p)
		return false;
	for (size_t i = 0; i < n; i++)
		t->chunks[t->nchunks++] = p + i * CHUNK * t->size;
	return true;
}

static struct flow_node *take(struct flow_table *t)
{
	struct flow_node *n = t->free;
	uint32_t index;

	if (n) {
		t->free = n->next;
		index = n->index;
	} else if (grow(t)) {
		index = t->made++;
		n = element(t, index);
	} else {
		return NULL;
	}
	memset(n, 0, t->size);
	n->index = index;
	return n;
}

struct flow_node *flow_add(struct flow_table *t, const struct flow_key *k, uint64_t now)
{
	struct flow_node *n;

	expire(t, now);
	if (t->n >= t->max && !make_room(t))
		return NULL;
	if (!grow_slots(t) || !(n = take(t)))
		return NULL;
	n->key = *k;
	n->hash = flow_hash(t, k);
	n->used = now;
	put_slot(t->slots, t->mask, (struct flow_slot){ n->hash, n->index + 1 });
	append_node(&t->live, n);
	t->n++;
	return n;
}
