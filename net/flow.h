/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * flow.h - a bounded table of flows, shared by the comparing module and the translator
 *
 * An element starts with a struct flow_node; the rest is the user's and is zeroed when the element is
 * added. Elements come in chunks and are reused; their memory goes back in flow_table_free().
 */
#ifndef COLO_NET_FLOW_H
#define COLO_NET_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"

#define FLOW_LINE 64u /* of the cache; elements begin at one */

struct flow_key {
	uint8_t guest[16], peer[16]; /* IPv4: the first four bytes; no IP: the MACs */
	uint16_t gport, pport;
	uint32_t vlan;
	uint16_t ethertype, extra;
	uint8_t proto, type;
	uint16_t zero;
};
_Static_assert(sizeof(struct flow_key) == 48, "no padding: keys are hashed and compared as words");

/* What each frame needs is in the first line. */
struct flow_node {
	struct flow_key key;
	uint64_t used;                 /* time */
	uint32_t hash;
	uint32_t index : 30;           /* the element's, for good */
	uint32_t closed : 1;           /* on the list of those that may go first */
	uint32_t touched : 1;          /* used since it was put on its list */
	struct flow_node *prev, *next; /* on its list; next: on the free list */
};

struct flow_ops {
	/* may this element be thrown out to make room? */
	bool (*idle)(const struct flow_node *n);
	/* clean the user's part up; NULL: nothing to do */
	void (*drop)(void *opaque, struct flow_node *n);
};

struct flow_list {
	struct flow_node *head, *tail; /* head: the first to be asked whether it may go */
};

struct flow_slot {
	uint32_t hash, place; /* place: index + 1 of the element, 0: none */
};

struct flow_table {
	struct flow_slot *slots;
	uint32_t mask;       /* number of slots - 1 */
	uint32_t made;       /* elements in chunks that were in use once */
	size_t n, max, size; /* elements now, at most; bytes of one */
	size_t nclosed;
	uint64_t seed[6], close_us;
	struct flow_list live, closed;
	struct flow_node *free;
	uint8_t **chunks;    /* each begins CHUNK elements; several of them may be one allocation */
	size_t nchunks, memory;
	uint64_t evicted;    /* elements thrown out that were not closed, ever */
	const struct flow_ops *ops;
	void *opaque;
};

/* size: of an element; close_us: closed elements go after this time without use. -ENOMEM. */
int flow_table_init(struct flow_table *t, size_t max, size_t size, uint64_t seed, uint64_t close_us,
	const struct flow_ops *ops, void *opaque);
void flow_table_free(struct flow_table *t);

/* the key of a frame that the guest sent, and of one that goes to the guest */
void flow_key_from_guest(struct flow_key *k, const struct frame *f);
void flow_key_to_guest(struct flow_key *k, const struct frame *f);

uint32_t flow_hash(const struct flow_table *t, const struct flow_key *k);
struct flow_node *flow_find(const struct flow_table *t, const struct flow_key *k);
/* hash: flow_hash() of k */
struct flow_node *flow_find_hashed(const struct flow_table *t, const struct flow_key *k, uint32_t hash);
/* Get the way to the element of that hash, then the element itself, into the cache: two steps, so that
 * each can be under way for several keys at once. */
void flow_prefetch_slot(const struct flow_table *t, uint32_t hash);
void flow_prefetch(const struct flow_table *t, uint32_t hash);
/* A new element, not closed, for a key that is not in the table, throwing out an idle one if need be.
 * NULL: full of flows that are not idle, or out of memory. */
struct flow_node *flow_add(struct flow_table *t, const struct flow_key *k, uint64_t now);
void flow_set_closed(struct flow_table *t, struct flow_node *n, bool closed);
void flow_del(struct flow_table *t, struct flow_node *n);
void flow_clear(struct flow_table *t);

/* Writes to the element's first line only: the lists are set right when room is needed. */
static inline void flow_touch(struct flow_table *t, struct flow_node *n, uint64_t now)
{
	(void)t;
	n->used = now;
	n->touched = 1;
}

#endif
