/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dgram_cmp.c - compare whatever is not TCP, datagram by datagram
 *
 * Theory of operation
 *
 * Datagrams of a flow (addresses, VLAN, protocol, ports, or ICMP id or type) have no order: a server with
 * several threads answers in another order in each VM. So a flow is two sets, of which no element is
 * alike: `held`, frames that the PVM sent and the SVM did not, and `said`, bodies that the SVM sent and the
 * PVM did not. A datagram of one VM that is alike to one of the other's set takes it out, and the
 * PVM's frame leaves at once. One of the SVM's lets exactly one of the PVM's go: a second "OK" may answer
 * a second request, of which the SVM's first "OK" says nothing. This is R1 with "the same place of the same
 * stream" read as "once for once".
 *
 * Alike means the same flow and the same body (frame.h): checksums, IP id, TTL, TOS and options do not
 * count. Bytes behind the packet that are more than padding to Ethernet's least size count as body. A
 * UDP frame that the receiver's side will cut into datagrams (USO) has to be cut alike. Datagrams that came
 * in fragments are put together first (frag.c), and compared like others.
 *
 * Finding. In most cases the heads of the lists are alike. Else the body's hash finds it in an index over
 * all flows, so that the number of outstanding datagrams does not matter. The hash does not depend on
 * how a body is cut into fragments. It is a filter only, bytes are always compared.
 *
 * When they differ. One-way traffic and pipelined requests are expected to come in another order, so
 * a datagram of the PVM waits for its like until the time for missing answers is over; then it is a
 * mismatch if the SVM said something in that flow that the PVM did not, else missing. That time is short
 * against what a needless checkpoint costs every connection. But if the peer has sent exactly one
 * datagram that was not answered yet, and both VMs have sent different ones since, that is the answer,
 * and a mismatch at once: its client waits for nothing else. Requests are counted in a small table by
 * the flow's hash, in which newer ones take the place of others, for most flows begin with a
 * request and a scan must not fill the table of flows; an unknown count means to wait. A mismatch does not
 * stop the flow: its other datagrams may still prove alike, and leave.
 *
 * What the SVM said and the PVM does not say within SAID_US is forgotten: it is the SVM's alone (a
 * timer's repetition), and must not vouch for a like datagram that the PVM says much later. If it would
 * have, the cost is a checkpoint. The SVM's set is bounded in bytes too (CM_AHEAD_MAX).
 */
#include <string.h>

#include "cm_priv.h"

#define SAID_US 1000000u
#define REQUEST_US 1000000u /* a request not answered in this time is not answered */
#define OF_PVM 1u           /* in buf.flags */
#define ETH_PAYLOAD_MIN 46u
#define GSO_UDP_L4 5u /* linux/virtio_net.h */

/* --- a datagram, as it is compared --- */

struct dgram {
	const uint8_t *p; /* its first n bytes; the others are those of `more` and on */
	uint32_t n;
	const struct buf *more;
	uint32_t len, cut;
	uint32_t head;    /* what of it comes before a place where it could be cut into fragments */
	uint32_t hash;    /* 0: not known yet */
};

static uint32_t cut_of(const struct frame *f)
{
	const uint8_t *h = f->data;

	return f->type == FRAME_UDP && (h[1] & 0x7f) == GSO_UDP_L4 ? 0x10000u | frame_be16(h + 4) : 0;
}

static uint32_t head_of(const struct frame *f)
{
	return f->type == FRAME_ICMP ? 4 : 0; /* half of ICMP's header */
}

static struct dgram dgram_of(const struct frame *f)
{
	bool padded = f->len <= f->l3 + ETH_PAYLOAD_MIN;
	uint32_t n = padded ? f->body_len : f->len - f->body;

	return (struct dgram){ .p = f->data + f->body, .n = n, .len = n, .cut = cut_of(f),
		.head = head_of(f) };
}

/* of fragments; `at` of the first is the length of the whole */
static struct dgram dgram_of_chain(const struct frame *f, const struct buf *b)
{
	return (struct dgram){ .p = b->data + b->off, .n = b->body_len, .more = b->more, .len = b->at,
		.head = head_of(f) };
}

/* a place in a datagram */
struct place {
	const uint8_t *p;
	uint32_t n;
	const struct buf *more;
};

static void advance(struct place *at, uint32_t n)
{
	at->p += n;
	at->n -= n;
	if (at->n || !at->more)
		return;
	*at = (struct place){ at->more->data + at->more->off, at->more->body_len, at->more->more };
}

/* how many of the first n bytes are alike, before one that is not */
static uint32_t same_until(struct place a, struct place b, uint32_t n)
{
	uint32_t done = 0, k;

	while (done < n) {
		k = a.n < b.n ? a.n : b.n;
		if (memcmp(a.p, b.p, k) != 0) {
			for (k = 0; a.p[k] == b.p[k];)
				k++;
			return done + k;
		}
		done += k;
		advance(&a, k);
		advance(&b, k);
	}
	return n;
}

static struct place start_of(const struct buf *b)
{
	return (struct place){ b->data + b->off, b->body_len, b->more };
}

uint32_t dgram_difference(const struct buf *a, const struct buf *b)
{
	return same_until(start_of(a), start_of(b), a->at < b->at ? a->at : b->at);
}

static bool same_bytes(const struct dgram *d, const struct buf *b)
{
	return same_until((struct place){ d->p, d->n, d->more }, start_of(b), d->len) == d->len;
}

static bool same(const struct dgram *d, const struct buf *b)
{
	return d->len == b->at && d->cut == b->cut && same_bytes(d, b);
}

struct mixer {
	uint64_t lane[4]; /* in turn, so that the products need not wait for each other */
	unsigned at;
};

static void mix(struct mixer *m, const uint8_t *p, uint32_t n)
{
	uint64_t w = 0, *lane;

	for (; n >= 8; p += 8, n -= 8) {
		memcpy(&w, p, 8);
		lane = &m->lane[m->at++ & 3];
		*lane = (*lane ^ w) * 0x9e3779b97f4a7c15u;
	}
	if (!n)
		return;
	w = 0;
	memcpy(&w, p, n);
	lane = &m->lane[m->at++ & 3];
	*lane = (*lane ^ w) * 0x9e3779b97f4a7c15u;
}

static uint32_t fold(const struct mixer *m)
{
	uint64_t h = 0;

	for (int i = 0; i < 4; i++) {
		h = (h ^ m->lane[i]) * 0xd6e8feb86659fd93u;
		h ^= h >> 32;
	}
	return (uint32_t)h ? (uint32_t)h : 1;
}

/* fragments are cut at multiples of 8 from where `head` ends */
static uint32_t hash_of(const struct cm *cm, const struct flow *fl, struct dgram *d)
{
	uint64_t seed = cm->cfg.hash_seed ^ (uintptr_t)fl;
	struct mixer m = { .lane = { seed, seed ^ d->len, seed ^ d->cut, ~seed } };
	uint32_t head = d->head < d->n ? d->head : d->n;

	if (d->hash)
		return d->hash;
	mix(&m, d->p, head);
	mix(&m, d->p + head, d->n - head);
	for (const struct buf *b = d->more; b; b = b->more)
		mix(&m, b->data + b->off, b->body_len);
	return d->hash = fold(&m);
}

/* --- the two sets --- */

static void index_add(struct cm *cm, struct flow *fl, struct buf *b, uint32_t hash)
{
	struct buf **head = &cm->dgrams[hash % CM_DGRAM_CHAINS];

	b->hash = hash;
	b->flow = fl;
	b->chain = *head;
	b->pchain = head;
	if (b->chain)
		b->chain->pchain = &b->chain;
	*head = b;
}

void dgram_unindex(struct buf *b)
{
	if (!b->flow)
		return;
	*b->pchain = b->chain;
	if (b->chain)
		b->chain->pchain = b->pchain;
	b->flow = NULL;
}

/* the element of a set that is alike; what an older epoch left in the index does not count */
static struct buf *find(struct cm *cm, struct flow *fl, const struct buf_list *set, struct dgram *d,
	unsigned whose)
{
	struct buf *b = set->head;
	uint32_t h;

	if (!b || same(d, b))
		return b;
	if (b == set->tail)
		return NULL;
	h = hash_of(cm, fl, d);
	for (b = cm->dgrams[h % CM_DGRAM_CHAINS]; b; b = b->chain)
		if (b->hash == h && b->flow == fl && b->epoch == cm->epoch && b->flags == whose && same(d, b))
			return b;
	return NULL;
}

static uint32_t room_of(const struct buf *b)
{
	uint32_t n = 0;

	for (; b; b = b->more)
		n += b->room;
	return n;
}

void dgram_put_chain(struct cm *cm, struct buf *b)
{
	while (b) {
		struct buf *more = b->more;

		pool_put(&cm->pool, b);
		b = more;
	}
}

void dgram_forget(struct cm *cm, struct buf *b)
{
	dgram_unindex(b);
	buf_age_unlink(&cm->heard, b);
	dgram_put_chain(cm, b);
}

static void take_said(struct cm *cm, struct flow *fl, struct buf *b)
{
	buf_unlink(&fl->said, b);
	fl->said_bytes -= room_of(b);
	dgram_forget(cm, b);
}

/* two for each that comes: that is enough, and no timer is needed */
static void expire_said(struct cm *cm, uint64_t now)
{
	for (int i = 0; i < 2; i++) {
		struct buf *b = cm->heard.head;

		if (!b || now < b->time + SAID_US)
			return;
		take_said(cm, b->flow, b);
	}
}

static void let_go(struct cm *cm, struct buf *b)
{
	while (b) {
		struct buf *more = b->more;

		cm_let_go(cm, b);
		b = more;
	}
}

/* --- requests --- */

static struct dgram_request *request_of(struct cm *cm, uint32_t hash)
{
	return &cm->requests[hash % CM_REQUESTS];
}

void dgram_from_peer(struct cm *cm, const struct frame *f, uint64_t now)
{
	struct dgram_request *r;
	struct flow_key k;
	uint32_t h;

	flow_key_to_guest(&k, f);
	h = flow_hash(&cm->flows, &k);
	r = request_of(cm, h);
	if (r->hash != h || now > r->time + REQUEST_US)
		*r = (struct dgram_request){ .hash = h };
	r->n++;
	r->time = now;
}

static void answered(struct cm *cm, struct flow *fl)
{
	uint32_t h = flow_hash(&cm->flows, &fl->node.key);
	struct dgram_request *r = request_of(cm, h);

	if (r->hash == h && r->n)
		r->n--;
}

/* Both VMs have said something that the other did not: is it the answer to one request? */
static void look_for_mismatch(struct cm *cm, struct flow *fl)
{
	const struct buf *held = fl->held.tail, *said = fl->said.tail;
	const struct dgram_request *r;
	uint32_t h;

	if (!held || !said || fl->bad)
		return;
	h = flow_hash(&cm->flows, &fl->node.key);
	r = request_of(cm, h);
	if (r->hash == h && r->n == 1 && held->time >= r->time && said->time >= r->time)
		cm_mismatch(cm, fl, CM_KIND_DATAGRAM);
}

static void match(struct cm *cm, struct flow *fl, const struct dgram *d, uint64_t then, uint64_t now)
{
	cm->stats.matched_bytes += d->len;
	cm_lag(cm, then, now);
	answered(cm, fl);
}

/* --- entry points --- */

static void hold(struct cm *cm, struct flow *fl, struct buf *b, struct dgram *d)
{
	b->cut = d->cut;
	b->at = d->len;
	b->flags = OF_PVM;
	index_add(cm, fl, b, hash_of(cm, fl, d));
	buf_append(&fl->held, b);
	cm_busy(cm, fl);
	look_for_mismatch(cm, fl);
}

void dgram_from_pvm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	struct dgram d = dgram_of(f);
	struct buf *b = find(cm, fl, &fl->said, &d, 0);

	if (b) {
		take_said(cm, fl, b);
		match(cm, fl, &d, now, now);
		cm_emit(cm, f->data, f->len);
		return;
	}
	b = cm_hold(cm, f, now);
	if (!b)
		return;
	b->body_len = d.n;
	hold(cm, fl, b, &d);
}

void dgram_from_pvm_whole(struct cm *cm, struct flow *fl, const struct frame *f, struct buf *b,
	uint64_t now)
{
	struct dgram d = dgram_of_chain(f, b);
	struct buf *said = find(cm, fl, &fl->said, &d, 0);

	if (!said) {
		hold(cm, fl, b, &d);
		return;
	}
	take_said(cm, fl, said);
	match(cm, fl, &d, now, now);
	let_go(cm, b);
}

static void keep(struct cm *cm, struct flow *fl, struct buf *b, struct dgram *d, uint64_t now)
{
	b->cut = d->cut;
	b->at = d->len;
	b->time = now;
	index_add(cm, fl, b, hash_of(cm, fl, d));
	fl->said_bytes += room_of(b);
	buf_append(&fl->said, b);
	buf_age_append(&cm->heard, b);
	cm_busy(cm, fl);
	look_for_mismatch(cm, fl);
}

/* the PVM's like datagram, if it has sent one, leaves */
static bool confirm(struct cm *cm, struct flow *fl, struct dgram *d, uint64_t now)
{
	struct buf *b;

	expire_said(cm, now);
	b = find(cm, fl, &fl->held, d, OF_PVM);
	if (!b)
		return false;
	match(cm, fl, d, b->time, now);
	buf_unlink(&fl->held, b);
	let_go(cm, b);
	return true;
}

/* the whole buffer counts: many small datagrams must not take unbounded memory */
static bool may_keep(struct cm *cm, const struct flow *fl)
{
	if (fl->said_bytes < CM_AHEAD_MAX)
		return true;
	cm->stats.dropped++;
	cm_full(cm, CM_KIND_AHEAD);
	return false;
}

void dgram_from_svm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	struct dgram d = dgram_of(f);
	struct buf *b;

	if (confirm(cm, fl, &d, now) || !may_keep(cm, fl))
		return;
	b = cm_keep(cm, fl, d.n);
	if (!b)
		return;
	memcpy(b->data, d.p, d.n);
	b->body_len = d.n;
	keep(cm, fl, b, &d, now);
}

void dgram_from_svm_whole(struct cm *cm, struct flow *fl, const struct frame *f, struct buf *b,
	uint64_t now)
{
	struct dgram d = dgram_of_chain(f, b);

	if (confirm(cm, fl, &d, now) || !may_keep(cm, fl))
		dgram_put_chain(cm, b);
	else
		keep(cm, fl, b, &d, now);
}
