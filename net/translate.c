/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * translate.c - the SVM's sequence numbers and timestamps in the PVM's count, and back
 *
 * Theory of operation
 *
 * A connection opened since the last checkpoint got an ISN of its own from each VM. Its entry is made
 * by the first SYN or SYN-ACK of either VM and complete with the other's:
 *
 *	PVM only   the SVM has not answered yet: a client's ACK means nothing to it and is dropped
 *	           (SYNs and RSTs pass)
 *	SVM only   its SYN goes to the comparing module raw, nothing leaves for the client
 *	both       seq_pvm = seq_svm + dseq, tsval_pvm = tsval_svm + dts
 *
 * SYN-ACKs belong together if they acknowledge the same client ISN. A client's SYN with another ISN, or
 * a SYN of a VM with another ISN than before, starts the entry anew (a port used again).
 *
 * Rewritten are, from the SVM: seq and tsval; to the SVM: ack, SACK edges, the echoed tsval, and the
 * sequence number of a TCP header that an ICMP error quotes (the guest checks it against its window).
 * Fragments are not looked at: TCP avoids them.
 *
 * Failover. The SVM's timestamps of connections opened before the checkpoint count as the PVM's did, but
 * the SVM's clock may run behind what clients saw last: all tsval get `bump` from then on, and echoes
 * lose it. An echo of a timestamp that the PVM sent loses it as well, which makes the guest measure one
 * round trip that is too long by `bump`; it cannot be told apart and does no harm. Entries of which
 * only one side is known are forgotten: no client saw either number. Entries last as long as
 * their connections; when the table is full closed ones go first, then the least recently used.
 */
#include <stdlib.h>

#include "flow.h"
#include "net.h"

#define CLOSED_US 120000000u /* beyond TIME_WAIT */

struct tr_flow {
	struct flow_node node; /* first */
	bool has_p, has_s;
	bool is_ack;           /* the SYNs acknowledge (the guest is the server) */
	bool peer_known;
	uint32_t isn_p, isn_s, ts_p, ts_s;
	uint32_t ack;          /* of the SYN-ACKs */
	uint32_t peer_isn;
	uint32_t dseq, dts;
};

struct tr {
	struct flow_table flows;
	uint32_t bump;
	bool failed_over;
	uint64_t now; /* latest seen: tr_pvm_syn() is not told the time */
};

static bool tr_idle(const struct flow_node *n)
{
	(void)n;
	return true;
}

static void tr_drop(void *opaque, struct flow_node *n)
{
	(void)opaque;
	(void)n;
}

static const struct flow_ops tr_ops = { .idle = tr_idle, .drop = tr_drop };

struct tr *tr_new(size_t max_flows)
{
	struct tr *tr = calloc(1, sizeof(*tr));

	if (!tr)
		return NULL;
	if (flow_table_init(&tr->flows, max_flows ? max_flows : 65536, sizeof(struct tr_flow), 0,
		    CLOSED_US, &tr_ops, NULL) < 0) {
		free(tr);
		return NULL;
	}
	return tr;
}

void tr_free(struct tr *tr)
{
	if (!tr)
		return;
	flow_table_free(&tr->flows);
	free(tr);
}

void tr_reset(struct tr *tr)
{
	flow_clear(&tr->flows);
}

size_t tr_flows(const struct tr *tr)
{
	return tr->flows.n;
}

static uint32_t ts_value(const struct frame *f)
{
	return f->ts ? frame_be32(f->data + f->ts) : 0;
}

static struct tr_flow *get(struct tr *tr, const struct flow_key *k)
{
	struct flow_node *n = flow_find(&tr->flows, k);

	if (!n)
		n = flow_add(&tr->flows, k, tr->now);
	return (struct tr_flow *)n;
}

/* forget all but the place in the table */
static void start_anew(struct tr *tr, struct tr_flow *e, const struct frame *f)
{
	flow_set_closed(&tr->flows, &e->node, false);
	e->has_p = e->has_s = false;
	e->is_ack = f->flags & TCP_ACK;
	e->ack = e->is_ack ? f->ack : 0;
	e->peer_known = e->is_ack;
	e->peer_isn = e->ack - 1;
}

static bool same_connection(const struct tr_flow *e, const struct frame *f)
{
	bool is_ack = f->flags & TCP_ACK;

	return e->is_ack == is_ack && (!is_ack || e->ack == f->ack);
}

static void complete(struct tr_flow *e)
{
	if (!e->has_p || !e->has_s)
		return;
	e->dseq = e->isn_p - e->isn_s;
	e->dts = e->ts_p && e->ts_s ? e->ts_p - e->ts_s : 0;
}

void tr_pvm_syn(struct tr *tr, const uint8_t *frame, size_t len)
{
	struct flow_key k;
	struct tr_flow *e;
	struct frame f;

	if (frame_parse(&f, frame, len) != FRAME_TCP || !(f.flags & TCP_SYN))
		return;
	flow_key_from_guest(&k, &f);
	e = get(tr, &k);
	if (!e || (e->has_p && e->isn_p == f.seq))
		return;
	if (e->has_p || !e->has_s || !same_connection(e, &f))
		start_anew(tr, e, &f);
	e->has_p = true;
	e->isn_p = f.seq;
	e->ts_p = ts_value(&f);
	complete(e);
}

static void set32(uint8_t *frame, const struct frame *f, uint32_t off, uint32_t delta)
{
	frame_tcp_set32(frame, f, off, frame_be32(frame + off) + delta);
}

static void svm_syn(struct tr *tr, struct tr_flow *e, const struct frame *f)
{
	if (e->has_s && e->isn_s == f->seq && same_connection(e, f))
		return; /* a repetition */
	if (e->has_p && (e->has_s || !same_connection(e, f))) {
		/* a new incarnation; if the PVM is ahead with it, its number must not be lost */
		if (!e->has_s)
			return;
		start_anew(tr, e, f);
	} else if (!e->has_p) {
		start_anew(tr, e, f);
	}
	e->has_s = true;
	e->isn_s = f->seq;
	e->ts_s = ts_value(f);
	complete(e);
}

/* after failover the SVM's connections are its own: forget an older one at the same ports */
static struct tr_flow *svm_syn_alone(struct tr *tr, struct tr_flow *e, const struct frame *f)
{
	if (e && !(e->isn_s == f->seq && same_connection(e, f))) {
		flow_del(&tr->flows, &e->node);
		e = NULL;
	}
	return e;
}

static void seen(struct tr *tr, struct tr_flow *e, const struct frame *f)
{
	flow_touch(&tr->flows, &e->node, tr->now);
	if (f->flags & TCP_RST)
		flow_set_closed(&tr->flows, &e->node, true);
}

bool tr_from_svm(struct tr *tr, uint8_t *frame, size_t len, uint64_t now)
{
	struct flow_key k;
	struct tr_flow *e;
	struct frame f;

	tr->now = now;
	if (frame_parse(&f, frame, len) == FRAME_BAD)
		return false;
	if (f.type != FRAME_TCP)
		return f.family == 0 || f.frag || f.proto != 6;
	flow_key_from_guest(&k, &f);
	e = (struct tr_flow *)flow_find(&tr->flows, &k);
	if (f.flags & TCP_SYN) {
		if (tr->failed_over)
			e = svm_syn_alone(tr, e, &f);
		else if ((e = get(tr, &k)))
			svm_syn(tr, e, &f);
	}
	if (f.ts && tr->bump)
		set32(frame, &f, f.ts, tr->bump);
	if (!e)
		return true;
	seen(tr, e, &f);
	if (!e->has_p || !e->has_s)
		return e->has_s || f.flags & (TCP_SYN | TCP_RST);
	set32(frame, &f, FRAME_TCP_SEQ(&f), e->dseq);
	if (f.ts)
		set32(frame, &f, f.ts, e->dts);
	return true;
}

/* tsecr, ack and SACK edges of a frame for the SVM */
static void rewrite_to_svm(struct tr *tr, uint8_t *frame, const struct frame *f, const struct tr_flow *e)
{
	uint32_t dseq = e ? e->dseq : 0, dts = (e ? e->dts : 0) + tr->bump;

	if (!(f->flags & TCP_ACK))
		return;
	if (f->ts && dts && frame_be32(frame + f->ts + 4))
		set32(frame, f, f->ts + 4, -dts);
	if (!dseq)
		return;
	set32(frame, f, FRAME_TCP_ACK(f), -dseq);
	for (uint32_t i = 0; i < 2 * f->sack_n; i++)
		set32(frame, f, f->sack + 4 * i, -dseq);
}

/* A client's SYN at known ports: a repetition, or a new connection? NULL: not in the table (any more). */
static struct tr_flow *client_syn(struct tr *tr, struct tr_flow *e, const struct frame *f)
{
	if (f->flags & TCP_ACK) { /* the guest is the client */
		e->peer_known = true;
		e->peer_isn = f->seq;
		return e;
	}
	if (e->peer_known && e->peer_isn == f->seq)
		return e;
	flow_del(&tr->flows, &e->node);
	return NULL;
}

static bool tcp_to_svm(struct tr *tr, uint8_t *frame, const struct frame *f)
{
	struct flow_key k;
	struct tr_flow *e;

	flow_key_to_guest(&k, f);
	e = (struct tr_flow *)flow_find(&tr->flows, &k);
	if (e && f->flags & TCP_SYN)
		e = client_syn(tr, e, f);
	if (e)
		seen(tr, e, f);
	if (e && e->has_p && !e->has_s)
		return !(f->flags & TCP_ACK) || f->flags & TCP_RST;
	rewrite_to_svm(tr, frame, f, e && e->has_p ? e : NULL);
	return true;
}

/* An ICMP error about a TCP segment of the guest: the quoted header counts in the PVM's numbers. */
static void icmp_to_svm(struct tr *tr, uint8_t *frame, const struct frame *f)
{
	const uint8_t *ip = frame + f->body + 4; /* body begins after the checksum */
	uint32_t hlen, off;
	struct flow_key k = { 0 };
	struct tr_flow *e;

	if (f->family != 4 || f->body_len < 4 + 20 + 8 || ip[0] >> 4 != 4 || ip[9] != 6)
		return;
	hlen = (ip[0] & 15) * 4u;
	if (hlen < 20 || f->body_len < 4 + hlen + 8 || (frame_be16(ip + 6) & 0x1fff))
		return;
	off = f->body + 4 + hlen;
	for (int i = 0; i < 4; i++) {
		k.guest[i] = ip[12 + i];
		k.peer[i] = ip[16 + i];
	}
	k.gport = frame_be16(frame + off);
	k.pport = frame_be16(frame + off + 2);
	k.vlan = f->vlan;
	k.ethertype = f->ethertype;
	k.proto = 6;
	k.type = FRAME_TCP;
	e = (struct tr_flow *)flow_find(&tr->flows, &k);
	if (e && e->has_p && e->has_s)
		frame_set32(frame, f, f->l4 + 2, off + 4, frame_be32(frame + off + 4) - e->dseq);
}

bool tr_to_svm(struct tr *tr, uint8_t *frame, size_t len, uint64_t now)
{
	struct frame f;

	tr->now = now;
	switch (frame_parse(&f, frame, len)) {
	case FRAME_BAD:
		return false;
	case FRAME_TCP:
		return tcp_to_svm(tr, frame, &f);
	case FRAME_ICMP:
		if (f.sport >> 8 == 3 || f.sport >> 8 == 11 || f.sport >> 8 == 12)
			icmp_to_svm(tr, frame, &f);
		return true;
	default:
		return f.family == 0 || f.frag || f.proto != 6;
	}
}

static void for_each(struct tr *tr, void (*fn)(struct tr *tr, struct tr_flow *e))
{
	struct flow_list *const lists[] = { &tr->flows.live, &tr->flows.closed };
	struct flow_node *n, *next;

	for (int i = 0; i < 2; i++) {
		for (n = lists[i]->head; n; n = next) {
			next = n->next;
			fn(tr, (struct tr_flow *)n);
		}
	}
}

static void forget_half(struct tr *tr, struct tr_flow *e)
{
	if (!e->has_p || !e->has_s)
		flow_del(&tr->flows, &e->node);
}

void tr_failover(struct tr *tr, uint32_t bump_ms)
{
	tr->failed_over = true;
	tr->bump += bump_ms;
	for_each(tr, forget_half);
}
