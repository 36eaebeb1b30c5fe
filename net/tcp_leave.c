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
 *
 * An SVM that is behind in receiving may have lost a segment that the PVM has. Only the SVM's own ACKs
 * tell the peer which: while it is behind, they leave (with the PVM's sequence number and timestamp), the
 * repeated ones too, and what leaves of the PVM loses its SACK option, which would say the opposite.
 *
 * The other way round, an SVM may have missed an acknowledgement of the peer that the PVM has, and repeat what
 * both have said. The PVM says no more until the SVM does, so the peer would never acknowledge again. The
 * SVM's segment leaves without its payload: below what the peer expects, that is answered by an ACK
 * (RFC 9293, 3.10.7.4), which goes to both. Likewise if the SVM has missed that the peer opened its window: what the
 * PVM sends into it waits for the SVM, whose probes leave, so that the peer says again how large its window is.
 *
 * Window. The peer may send only what both VMs have room for: the right edge of what leaves is the lesser
 * of both, or, where the scale is unknown (the connection is older than its entry), the lesser number.
 * An ACK of the PVM that would only have moved the window beyond the SVM's does not leave, since it
 * would look like a loss report. When the SVM's window opens its ACK leaves. A window that only the SVM
 * has closed is owed like an acknowledgement: it may mean that the SVM's application is stuck.
 *
 * Timestamps. A frame that was held leaves after younger ones (a repetition, a keep-alive), whose timestamp
 * would let the peer's PAWS drop it: no timestamp leaves that is less than the one before.
 */
#include <string.h>

#include "cm_priv.h"

#define TS_HELD_MAX (1u << 24) /* ticks: 16 s of a clock in microseconds */

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

/* Both VMs have ended the stream alike: whether one of them then answers a late segment with a RST is a
 * matter of timing, and takes nothing from the client. */
static bool all_was_said(const struct cm *cm, const struct flow *fl)
{
	return tcp_knows(fl, T_PVM_FIN) && tcp_knows(fl, T_SVM_FIN) &&
	       seq_after(may_leave(cm, fl), fl->tcp.pvm_fin);
}

bool tcp_can_leave(const struct cm *cm, const struct flow *fl, uint8_t flags, uint32_t end)
{
	if (flags & TCP_RST)
		return tcp_knows(fl, T_SVM_RST) || all_was_said(cm, fl);
	if (seq_after(end, may_leave(cm, fl)))
		return false;
	return (flags & TCP_SYN) || !(flags & TCP_ACK) || ack_known(cm, fl);
}

/* Both VMs have put the urgent mark at the same place, or neither has put one into what the frame says. */
static bool urgent_agrees(const struct cm *cm, const struct flow *fl, const struct frame *f)
{
	const struct tcp_state *t = &fl->tcp;
	uint32_t mark = tcp_urgent_mark(f);

	if (!(f->flags & TCP_URG))
		return !tcp_knows(fl, T_SVM_URG) || !seq_after(t->svm_urg, t->urg_safe) ||
		       t->svm_urg - f->seq - 1 >= f->body_len;
	if (cm_pending(cm))
		return false;
	return (tcp_knows(fl, T_SVM_URG) && t->svm_urg == mark) || !seq_after(mark, t->urg_safe);
}

bool tcp_agrees(const struct cm *cm, const struct flow *fl, const struct frame *f)
{
	if (!(f->flags & (TCP_URG | TCP_SYN)) && !tcp_knows(fl, T_SVM_URG | T_AUTH))
		return true;
	if (f->flags & TCP_SYN) /* that it acknowledges alike is known, but for a simultaneous open */
		return !(f->flags & TCP_ACK) || tcp_knows(fl, T_SYN_ACK) ||
		       (ack_known(cm, fl) && !seq_after(f->ack, ack_allowed(cm, fl)));
	if (tcp_knows(fl, T_AUTH) && f->flags & TCP_ACK && seq_after(f->ack, ack_allowed(cm, fl)))
		return false;
	return urgent_agrees(cm, fl, f);
}

/* The window to leave with the ACK number `out`, where the PVM says `window` at `ack`. */
static uint16_t window_allowed(const struct cm *cm, const struct flow *fl, uint32_t ack, uint16_t window,
	uint32_t out)
{
	const struct tcp_state *t = &fl->tcp;
	uint32_t edge, n;

	if (cm_pending(cm) || !tcp_knows(fl, T_SVM_WINDOW) || tcp_knows(fl, T_AUTH))
		return window;
	if (!tcp_knows(fl, T_WSCALE))
		return window < t->svm_window ? window : t->svm_window;
	edge = seq_min(ack + ((uint32_t)window << t->wscale),
		t->ack_ok + ((uint32_t)t->svm_window << t->wscale));
	n = seq_after(edge, out) ? (edge - out) >> t->wscale : 0;
	return n > 0xffff ? 0xffff : (uint16_t)n;
}

/* an acknowledgement left; does it make the one that is owed needless? */
static void ack_left(struct cm *cm, struct flow *fl, uint32_t ack, uint16_t window)
{
	struct tcp_state *t = &fl->tcp;
	struct buf *b = fl->owed;

	t->ack_out = tcp_knows(fl, T_ACK_OUT) ? seq_max(t->ack_out, ack) : ack;
	t->window_out = window;
	t->known |= T_ACK_OUT;
	if (!b || seq_after(b->ack, ack))
		return;
	if (b->ack != ack || (b->shut ? window != 0 : b->body_len != 0))
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
static void owe(struct cm *cm, struct flow *fl, const struct frame *f, bool shut, uint64_t now)
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
	b->shut = shut;
	cm->stats.held_packets++;
	cm->stats.held_bytes += b->len;
}

/* Note the timestamp that leaves, not less than the last. One that is far behind is no held frame's: a
 * clock that went on for half its range since the last frame. */
static uint32_t ts_left(struct flow *fl, uint32_t ts)
{
	struct tcp_state *t = &fl->tcp;

	if (!tcp_knows(fl, T_TS_OUT) || t->ts_out - ts >= TS_HELD_MAX)
		t->ts_out = ts;
	t->known |= T_TS_OUT;
	return t->ts_out;
}

/* a frame in need of another ACK number, window or timestamp */
static void emit_altered(struct cm *cm, const struct frame *f, uint32_t ack, uint16_t window, uint32_t ts)
{
	memcpy(cm->scratch, f->data, f->len);
	frame_tcp_set_window(cm->scratch, f, window);
	if (ack != f->ack) {
		frame_tcp_set32(cm->scratch, f, FRAME_TCP_ACK(f), ack);
		frame_tcp_drop_sack(cm->scratch, f);
	}
	if (f->ts)
		frame_tcp_set32(cm->scratch, f, f->ts, ts);
	cm_emit(cm, cm->scratch, f->len);
}

static void emit_as(struct cm *cm, struct flow *fl, const struct frame *f, uint32_t ack, uint16_t window)
{
	uint32_t own = f->ts ? frame_be32(f->data + f->ts) : 0;
	uint32_t ts = f->ts ? ts_left(fl, own) : 0;

	if ((ack != f->ack || window != f->window || ts != own) && !tcp_knows(fl, T_AUTH))
		emit_altered(cm, f, ack, window, ts);
	else
		cm_emit(cm, f->data, f->len);
	ack_left(cm, fl, ack, window);
}

/* nobody waits for an acknowledgement any more */
static void connection_over(struct cm *cm, struct flow *fl)
{
	cm_drop_owed(cm, fl);
	flow_set_closed(&cm->flows, &fl->node, true);
}

/* a frame of which all bytes may leave goes, its acknowledgement as far as allowed */
void tcp_leave(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	uint32_t ack;
	uint16_t window;

	if (!(f->flags & TCP_ACK) || (f->flags & (TCP_SYN | TCP_RST))) {
		cm_emit(cm, f->data, f->len);
		if (f->flags & TCP_RST)
			connection_over(cm, fl);
		return;
	}
	ack = seq_min(f->ack, ack_allowed(cm, fl));
	window = window_allowed(cm, fl, f->ack, f->window, ack);
	if (ack != f->ack)
		owe(cm, fl, f, false, now);
	else if (!window && f->window)
		owe(cm, fl, f, true, now);
	emit_as(cm, fl, f, ack, window);
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
	uint16_t window;
	struct frame f;

	if (!b || !ack_known(cm, fl))
		return;
	ack = seq_min(b->ack, ack_allowed(cm, fl));
	if (ack != b->ack && !ack_is_new(fl, ack))
		return;
	frame_parse(&f, b->data, b->len);
	window = window_allowed(cm, fl, f.ack, f.window, ack);
	if (ack == b->ack && b->shut && !window)
		return;
	if (ack != b->ack || b->shut || !b->body_len || ack_is_new(fl, ack))
		emit_as(cm, fl, &f, ack, window);
	if (ack == f.ack)
		cm_drop_owed(cm, fl);
}

void tcp_release(struct cm *cm, struct flow *fl, uint64_t now)
{
	struct buf *b;
	struct frame f;

	while ((b = fl->held.head) && tcp_can_leave(cm, fl, b->flags, b->end)) {
		frame_parse(&f, b->data, b->len);
		if (!tcp_agrees(cm, fl, &f))
			return;
		if (!(b->flags & TCP_RST) && !cm_pending(cm))
			cm_lag(cm, b->time, now);
		tcp_leave(cm, fl, &f, now);
		cm_drop(cm, fl, b);
	}
}

void tcp_serve(struct cm *cm, struct flow *fl, uint64_t now)
{
	tcp_release(cm, fl, now);
	serve_owed(cm, fl);
}

/* Does this ACK of the PVM, which may leave, only move the window to where the SVM's does not let it? */
static bool window_is_masked(const struct cm *cm, const struct flow *fl, const struct frame *f)
{
	const struct tcp_state *t = &fl->tcp;
	uint16_t window = window_allowed(cm, fl, f->ack, f->window, f->ack);

	return window != f->window && window == t->window_out && f->window != t->pvm_window &&
	       tcp_knows(fl, T_ACK_OUT) && f->ack == t->ack_out && !f->sack;
}

/* A segment without payload leaves, or becomes what is owed, of which the part that is allowed leaves. */
void tcp_leave_ack(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	if (!(f->flags & TCP_ACK)) {
		cm_emit(cm, f->data, f->len);
	} else if (!ack_known(cm, fl) || seq_after(f->ack, ack_allowed(cm, fl))) {
		owe(cm, fl, f, false, now);
		serve_owed(cm, fl);
	} else if (!window_is_masked(cm, fl, f)) {
		tcp_leave(cm, fl, f, now);
	}
}

/* can a segment of the SVM leave in the PVM's place? */
static bool svm_may_speak(const struct flow *fl, const struct frame *f)
{
	return tcp_knows(fl, T_PVM_ACK) && (f->ts != 0) == tcp_knows(fl, T_PVM_TS) && !tcp_knows(fl, T_AUTH) &&
	       !(f->flags & TCP_URG);
}

/* a segment of the SVM without payload leaves */
static void emit_of_svm(struct cm *cm, struct flow *fl, const struct frame *f, uint32_t seq, uint32_t ack,
	uint16_t window)
{
	memcpy(cm->scratch, f->data, f->len);
	frame_tcp_set32(cm->scratch, f, FRAME_TCP_SEQ(f), seq);
	frame_tcp_set32(cm->scratch, f, FRAME_TCP_ACK(f), ack);
	frame_tcp_set_window(cm->scratch, f, window);
	if (f->ts)
		frame_tcp_set32(cm->scratch, f, f->ts, ts_left(fl, fl->tcp.pvm_ts));
	if (ack != f->ack)
		frame_tcp_drop_sack(cm->scratch, f);
	cm_emit(cm, cm->scratch, f->len);
	ack_left(cm, fl, ack, window);
}

void tcp_ask_peer(struct cm *cm, struct flow *fl, const struct frame *f)
{
	const struct tcp_state *t = &fl->tcp;
	uint8_t bare[FRAME_ACK_MAX];
	struct frame g;
	uint32_t ack;

	if (!(f->flags & TCP_ACK) || !svm_may_speak(fl, f) || f->body > FRAME_ACK_MAX)
		return;
	frame_parse(&g, bare, frame_make_ack(bare, f, f->seq));
	ack = seq_min(f->ack, t->pvm_ack);
	emit_of_svm(cm, fl, &g, f->seq, ack, window_allowed(cm, fl, t->pvm_ack, t->pvm_window, ack));
}

void tcp_forward_ack(struct cm *cm, struct flow *fl, const struct frame *f)
{
	struct tcp_state *t = &fl->tcp;
	uint32_t ack;
	uint16_t window;

	if (!svm_may_speak(fl, f))
		return;
	ack = seq_min(f->ack, t->pvm_ack);
	window = window_allowed(cm, fl, t->pvm_ack, t->pvm_window, ack);
	if (!seq_after(t->pvm_ack, f->ack) &&
	    !(tcp_knows(fl, T_ACK_OUT) && ack == t->ack_out && window > t->window_out))
		return;
	emit_of_svm(cm, fl, f, t->pvm_seq, ack, window);
}
