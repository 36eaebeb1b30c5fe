/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * frag.c - put the guest's IP fragments together, so that datagrams are compared
 *
 * Theory of operation
 *
 * PVM and SVM number their datagrams differently and may cut them differently. Fragments alike one by one
 * would not do: halves of two datagrams that the SVM said could vouch for a datagram that it never said.
 * So the fragments of each VM are collected per datagram (addresses, VLAN, protocol, number); when it is
 * whole it is compared in the flow that it would belong to in one piece (dgram_cmp.c), and the PVM's
 * frames leave as they came, together. Nothing is copied together: the pieces stay a chain, in order of
 * offset.
 *
 * Bounds. At most CM_FRAG_GROUPS datagrams are incomplete at a time, and CM_FRAG_PIECES pieces make one;
 * buffers count to max_held_bytes. The oldest is given up for a new one, and so is one whose pieces overlap
 * or contradict each other (no stack sends such), and one that is not whole within FRAG_US. Given up means:
 * the PVM's frames wait for the next boundary like any answer that is missing, the SVM's are forgotten. So
 * it is with a datagram of which a boundary took a part.
 *
 * TCP in fragments (TCP avoids them) is not translated on the way from the SVM, and compared like an unknown
 * protocol: connections opened since the last checkpoint differ.
 */
#include <string.h>

#include "cm_priv.h"

#define FRAG_US 1000000u
#define DATAGRAM_MAX 65535u
#define ETH_PAYLOAD_MIN 46u

static void remove_group(struct cm *cm, struct frag_group *g)
{
	*g = cm->frags[--cm->nfrags];
}

static void give_up(struct cm *cm, struct frag_group *g)
{
	if (!g->pvm)
		dgram_put_chain(cm, g->head);
	remove_group(cm, g);
}

void frag_forget(struct cm *cm)
{
	while (cm->nfrags)
		give_up(cm, &cm->frags[0]);
}

static struct frag_group *oldest(struct cm *cm)
{
	struct frag_group *g = &cm->frags[0];

	for (unsigned i = 1; i < cm->nfrags; i++)
		if (cm->frags[i].time < g->time)
			g = &cm->frags[i];
	return g;
}

static struct frag_group *find_group(struct cm *cm, const struct flow_key *k, uint32_t id, bool pvm)
{
	for (unsigned i = 0; i < cm->nfrags; i++) {
		struct frag_group *g = &cm->frags[i];

		if (g->id == id && g->pvm == pvm && memcmp(&g->key, k, sizeof(*k)) == 0)
			return g;
	}
	return NULL;
}

static struct frag_group *group_of(struct cm *cm, const struct frame *f, bool pvm, uint64_t now)
{
	uint32_t id = frame_frag_id(f);
	struct frag_group *g;
	struct flow_key k;

	flow_key_from_guest(&k, f);
	g = find_group(cm, &k, id, pvm);
	if (g && now < g->time + FRAG_US)
		return g;
	if (g)
		give_up(cm, g);
	else if (cm->nfrags == CM_FRAG_GROUPS)
		give_up(cm, oldest(cm));
	g = &cm->frags[cm->nfrags++];
	*g = (struct frag_group){ .key = k, .id = id, .pvm = pvm, .time = now };
	return g;
}

/* the piece behind which b belongs (NULL: none); false: it overlaps */
static bool find_place(const struct frag_group *g, const struct buf *b, struct buf **after)
{
	struct buf *prev = NULL, *next = g->head;

	if (g->tail && g->tail->at < b->at) { /* in order, as stacks send them */
		prev = g->tail;
		next = NULL;
	}
	while (next && next->at < b->at) {
		prev = next;
		next = next->more;
	}
	*after = prev;
	return (!prev || prev->at + prev->body_len <= b->at) && (!next || b->at + b->body_len <= next->at);
}

static bool take_piece(struct frag_group *g, struct buf *b, bool more)
{
	uint32_t end = b->at + b->body_len;
	struct buf *after;

	if (g->n == CM_FRAG_PIECES || end > DATAGRAM_MAX || (more && (!b->body_len || b->body_len % 8)))
		return false;
	if ((!more && g->ended) || !find_place(g, b, &after))
		return false;
	b->more = after ? after->more : g->head;
	*(after ? &after->more : &g->head) = b;
	if (!b->more)
		g->tail = b;
	g->n++;
	g->have += b->body_len;
	if (!more) {
		g->ended = true;
		g->total = end;
	}
	return !g->ended || g->tail->at + g->tail->body_len <= g->total;
}

/* the group is not needed any more, its chain of pieces is a datagram */
static void complete(struct cm *cm, struct frag_group *g, const struct frame *f, uint64_t now)
{
	struct frame whole = *f;
	struct buf *b = g->head;
	uint32_t skip = frame_frag_whole(&whole, b->data + b->off, b->body_len, g->total);
	struct flow_key k;
	struct flow *fl;
	bool pvm = g->pvm;

	b->off += skip;
	b->body_len -= skip;
	b->at = g->total - skip;
	remove_group(cm, g);
	flow_key_from_guest(&k, &whole);
	fl = cm_flow(cm, &k, now);
	if (!fl)
		cm_full(cm, CM_KIND_FLOWS);
	if (fl && pvm)
		dgram_from_pvm_whole(cm, fl, &whole, b, now);
	else if (fl)
		dgram_from_svm_whole(cm, fl, &whole, b, now);
	else if (!pvm)
		dgram_put_chain(cm, b);
}

static void collect(struct cm *cm, const struct frame *f, struct buf *b, bool pvm, uint64_t now)
{
	struct frag_group *g = group_of(cm, f, pvm, now);
	unsigned n = g->n;

	b->at = frame_frag_offset(f);
	if (!take_piece(g, b, frame_frag_more(f))) {
		if (!pvm && g->n == n) /* not in the chain */
			pool_put(&cm->pool, b);
		give_up(cm, g);
	} else if (g->ended && g->have == g->total) {
		complete(cm, g, f, now);
	}
}

/* bytes behind the packet which are not padding are neither compared nor can they be left out */
static bool has_trailer(const struct frame *f)
{
	return f->body + f->body_len < f->len && f->len > f->l3 + ETH_PAYLOAD_MIN;
}

void frag_from_pvm(struct cm *cm, const struct frame *f, uint64_t now)
{
	struct buf *b = cm_hold(cm, f, now);

	if (b && !has_trailer(f))
		collect(cm, f, b, true, now);
}

void frag_from_svm(struct cm *cm, const struct frame *f, uint64_t now)
{
	struct buf *b = has_trailer(f) ? NULL : cm_keep(cm, NULL, f->body_len);

	if (!b)
		return;
	memcpy(b->data, f->data + f->body, f->body_len);
	b->body_len = f->body_len;
	collect(cm, f, b, false, now);
}
