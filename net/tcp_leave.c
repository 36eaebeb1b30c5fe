/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tcp_leave.c - what of the PVM's may leave, and with which ACK number
 *
 * Theory of operation
 *
 * Positions are tcp_cmp.c's. A frame leaves when it ends at or below `matched`, while the last boundary is
 * not held yet `safe`.
 *
 * Acknowledgements (rule R2). The ACK number of what leaves is at most `ack_ok`, the SVM's highest. A
 * data frame never waits for that, it leaves with the smaller number. A pure ACK that would say nothing
 * new with the smaller number does not leave: a repeated ACK is a loss report to the peer. In both
 * cases the flow owes its peer the full acknowledgement; it is kept as a pure ACK (`owed`) and leaves,
 * as far as allowed, when the SVM's advances. SYN and RST are not clamped, both VMs have sent one.
 */
#include <string.h>

#include "cm_priv.h"

static uint32_t may_leave(const struct cm *cm, const struct flow *fl)
{
	return cm_pending(cm) ? fl->tcp.safe : fl->tcp.matched;
}

static bool ack_known(const struct cm *cm, const struct flow *fl)
{
	return tcp_knows(fl, cm_pending(cm) ? T_ACK_SAFE : T_ACK_OK);
}

static uint32_t ack_allowed(const struct cm *cm, const struct flow *fl)
{
	return cm_pending(cm) ? fl->tcp.ack_safe : fl->tcp.ack_ok;
}

bool tcp_can_leave(const struct cm *cm, const struct flow *fl, uint8_t flags, uint32_t end)
{
	if (flags & TCP_RST)
		return tcp_knows(fl, T_SVM_RST);
	if (seq_after(end, may_leave(cm, fl)))
		return false;
	return (flags & TCP_SYN) || !(flags & TCP_ACK) || ack_known(cm, fl);
}

static void ack_left(struct cm *cm, struct flow *fl, uint32_t ack)
{
	struct tcp_state *t = &fl->tcp;

	t->ack_out = tcp_knows(fl, T_ACK_OUT) ? seq_max(t->ack_out, ack) : ack;
	t->known |= T_ACK_OUT;
	if (!fl->owed || seq_after(fl->owed->ack, ack))
		return;
	if (fl->owed->body_len || fl->owed->ack != ack) /* else it may tell a window */
		cm_drop_owed(cm, fl);
}

static struct buf *owed_buf(struct cm *cm, struct flow *fl, uint64_t now)
{
	struct buf *b = fl->owed;

	if (b) {
		cm->stats.held_packets--;
		cm->stats.held_bytes -= b->len;
		return b;
	}
	b = cm_keep(cm, fl, FRAME_ACK_MAX);
	if (!b)
		return NULL;
	b->time = now;
	buf_age_append(&cm->acks, b);
	fl->owed = b;
	return b;
}

/* remember the acknowledgement of a frame that may not leave as it is */
static void owe(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	uint32_t seq = f->seq + f->body_len + (f->flags & TCP_FIN ? 1 : 0);
	struct buf *b;

	cm->stats.acks_clamped++;
	if (f->body > FRAME_ACK_MAX || (fl->owed && seq_after(fl->owed->ack, f->ack)))
		return;
	b = owed_buf(cm, fl, now);
	if (!b)
		return;
	b->len = frame_make_ack(b->data, f, seq);
	b->ack = f->ack;
	b->body_len = seq - f->seq; /* 0: the PVM said it so */
	cm->stats.held_packets++;
	cm->stats.held_bytes += b->len;
}

static void emit_clamped(struct cm *cm, const struct frame *f, uint32_t ack)
{
	memcpy(cm->scratch, f->data, f->len);
	frame_tcp_set32(cm->scratch, f, FRAME_TCP_ACK(f), ack);
	cm_emit(cm, cm->scratch, f->len);
}

/* a frame of which all bytes may leave goes, its acknowledgement as far as allowed */
void tcp_leave(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	uint32_t ack = ack_allowed(cm, fl);
	bool free_ack = !(f->flags & TCP_ACK) || (f->flags & (TCP_SYN | TCP_RST));

	if (free_ack || !seq_after(f->ack, ack)) {
		cm_emit(cm, f->data, f->len);
		if (!free_ack)
			ack_left(cm, fl, f->ack);
		return;
	}
	owe(cm, fl, f, now);
	emit_clamped(cm, f, ack);
	ack_left(cm, fl, ack);
}

/* the same for a held frame, which is freed */
static void leave_held(struct cm *cm, struct flow *fl, struct buf *b, uint64_t now)
{
	bool free_ack = !(b->flags & TCP_ACK) || (b->flags & (TCP_SYN | TCP_RST));
	struct frame f;

	if (!free_ack && seq_after(b->ack, ack_allowed(cm, fl))) {
		frame_parse(&f, b->data, b->len);
		owe(cm, fl, &f, now);
		frame_tcp_set32(b->data, &f, FRAME_TCP_ACK(&f), ack_allowed(cm, fl));
		b->ack = ack_allowed(cm, fl);
	}
	if (!free_ack)
		ack_left(cm, fl, b->ack);
	cm_let_go(cm, fl, b);
}

/* is this acknowledgement news to the peer? */
static bool ack_is_new(const struct flow *fl, uint32_t ack)
{
	return !tcp_knows(fl, T_ACK_OUT) || seq_after(ack, fl->tcp.ack_out);
}

bool tcp_owed_counts(const struct flow *fl)
{
	const struct buf *b = fl->owed;

	if (!b->body_len) /* the PVM said so itself, it may tell a window */
		return true;
	for (const struct buf *h = fl->held.head; h; h = h->next)
		if (h->flags & TCP_ACK && !seq_after(b->ack, h->ack))
			return false;
	return ack_is_new(fl, b->ack);
}

static void serve_owed(struct cm *cm, struct flow *fl)
{
	struct buf *b = fl->owed;
	uint32_t ack;
	struct frame f;

	if (!b || !ack_known(cm, fl))
		return;
	ack = seq_min(b->ack, ack_allowed(cm, fl));
	if (ack == b->ack) {
		if (!b->body_len || ack_is_new(fl, ack))
			cm_emit(cm, b->data, b->len);
		ack_left(cm, fl, ack);
		cm_drop_owed(cm, fl);
	} else if (ack_is_new(fl, ack)) {
		frame_parse(&f, b->data, b->len);
		emit_clamped(cm, &f, ack);
		ack_left(cm, fl, ack);
	}
}

void tcp_release(struct cm *cm, struct flow *fl, uint64_t now)
{
	struct buf *b;

	while ((b = fl->held.head) && tcp_can_leave(cm, fl, b->flags, b->end)) {
		if (b->flags & TCP_RST)
			flow_set_closed(&cm->flows, &fl->node, true);
		else if (!cm_pending(cm))
			cm_lag(cm, b->time, now);
		leave_held(cm, fl, b, now);
	}
}

void tcp_serve(struct cm *cm, struct flow *fl, uint64_t now)
{
	tcp_release(cm, fl, now);
	serve_owed(cm, fl);
}

/* A segment without payload leaves, or becomes what is owed, of which the part that is allowed leaves. */
void tcp_leave_ack(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	if (!(f->flags & TCP_ACK) || (ack_known(cm, fl) && !seq_after(f->ack, ack_allowed(cm, fl)))) {
		tcp_leave(cm, fl, f, now);
		return;
	}
	owe(cm, fl, f, now);
	serve_owed(cm, fl);
}
