/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tcp_cmp.c - compare TCP connections as byte streams
 *
 * Theory of operation
 *
 * Positions are TCP's own sequence numbers in the PVM's count (the translator on the secondary has
 * rewritten the SVM's). A SYN takes one at the start of the stream and a FIN one at its end.
 *
 *	             safe        matched            pvm_next
 *	--------------|-------------|------------------|
 *	 sent or held               held (PVM's frames)
 *	                            said (SVM's bytes that the PVM has not sent yet, or beyond a gap)
 *
 * `matched` advances over bytes that both VMs sent in this epoch and that are alike. A frame of the PVM
 * leaves once all of it lies below `matched`, hence a repetition of matched bytes leaves at once.
 * `held` is sorted by end, so that what may leave is found at its head; `said` is sorted and does not
 * overlap. How the bytes were cut into segments, and in which order they came, does not matter. The
 * first byte that differs makes the flow bad: `matched` stays where it is until the next boundary.
 * What the PVM repeats must be what it said: a frame that contradicts one that is held, or the FIN, is a
 * mismatch and waits for the boundary, as does one that is too far off to belong to the stream. Once a
 * frame has left its bytes are not kept: a guest that repeats bytes below `matched` with other values
 * (TCP forbids that) is not found out. A keep-alive's byte of garbage is such a byte, and leaves.
 *
 * SYN: tcp_syn.c. Until the SVM's is there (T_SYN_WAIT) other segments of the SVM are of an older
 * incarnation of the connection and ignored.
 *
 * Urgent mark. A PVM's frame that has one leaves when the SVM has said the same; one with the byte before
 * the SVM's mark leaves only with that mark. ECN's bits tell about the path and leave as the PVM set
 * them. Signed segments (MD5, AO) leave unaltered or not at all: where ACK number or window would have
 * to be clamped they wait. An SVM whose connection was opened in this epoch cannot be talked to with
 * another's signatures, it stays silent, and the next checkpoint makes both alike.
 *
 * RST. It stays behind what is held before it and leaves when the SVM has sent one too, or when both
 * have sent their FIN at the same place.
 *
 * Acknowledgements (rule R2): tcp_leave.c.
 *
 * Boundary. The new SVM starts as a copy of the PVM: matched := pvm_next, ack_ok := pvm_ack. That holds
 * once the secondary has the checkpoint. Until then the old SVM would go on, so what leaves in between
 * must be below the old `matched` (`safe`), with ACK numbers that both the old and the new SVM stand
 * for (`ack_safe`, the lesser).
 *
 * A connection whose start was not seen: the PVM's first payload in the epoch gives the position.
 * Bytes below were sent before the epoch. If the SVM's first is beyond, the bytes in between wait for
 * its repetition or the next boundary. Its ACK number is unknown until the SVM sends one.
 *
 * Peer. A FIN of each side that was acknowledged, or a RST, closes the flow: it goes first when room is
 * needed. When the peer resets the connection what is held is lost in the network, as it were: the VMs
 * noticed at different times and will not finish the same stream. A forged RST thereby costs at most
 * a few frames, which TCP repeats.
 */
#include <string.h>

#include "cm_priv.h"

#define RESET_US 50000u
#define FAR (1u << 26) /* a sequence number farther off does not belong to this stream */

struct view {
	uint32_t seq, len;
	const uint8_t *p;
};

static bool covers(uint32_t seq, uint32_t len, uint32_t pos)
{
	return pos - seq < len;
}

/* --- the comparison --- */

/* A held frame with payload at `pos`, which only grows: frames before the one found last end below. */
static struct buf *find_held(struct buf *from, uint32_t pos)
{
	struct buf *b = from;

	while (b && !covers(b->seq, b->body_len, pos))
		b = b->next;
	return b;
}

static bool pvm_at(const struct flow *fl, const struct view *now, struct buf **from, struct view *v)
{
	struct buf *b;

	if (now && covers(now->seq, now->len, fl->tcp.matched)) {
		*v = *now;
		return true;
	}
	b = find_held(*from, fl->tcp.matched);
	if (!b)
		return false;
	*from = b;
	*v = (struct view){ b->seq, b->body_len, b->data + b->off };
	return true;
}

/* `said` is sorted, and nothing in it ends below `matched` */
static bool svm_at(const struct flow *fl, const struct view *now, struct view *v)
{
	struct buf *b = fl->said.head;

	if (now && covers(now->seq, now->len, fl->tcp.matched)) {
		*v = *now;
		return true;
	}
	if (!b || !covers(b->seq, b->body_len, fl->tcp.matched))
		return false;
	*v = (struct view){ b->seq, b->body_len, b->data };
	return true;
}

static void forget_said(struct cm *cm, struct flow *fl)
{
	struct buf *b;

	while ((b = fl->said.head) && !seq_after(b->end, fl->tcp.matched)) {
		fl->said_bytes -= b->room;
		buf_unlink(&fl->said, b);
		pool_put(&cm->pool, b);
	}
}

/* both have bytes at `matched`: advance over those that are alike; false: they differ */
static bool compare(struct cm *cm, struct flow *fl, const struct view *p, const struct view *s)
{
	uint32_t at = fl->tcp.matched, poff = at - p->seq, soff = at - s->seq;
	uint32_t n = p->len - poff < s->len - soff ? p->len - poff : s->len - soff, same = n;

	if (memcmp(p->p + poff, s->p + soff, n) != 0)
		for (same = 0; p->p[poff + same] == s->p[soff + same];)
			same++;
	fl->tcp.matched += same;
	cm->stats.matched_bytes += same;
	return same == n;
}

/* a FIN of one VM at `matched`, where the other has `data` or not */
static bool match_fin(struct cm *cm, struct flow *fl, bool pfin, bool sfin, bool data)
{
	if (pfin && sfin) {
		fl->tcp.matched++;
		return true;
	}
	if (data)
		cm_mismatch(cm, fl, CM_KIND_FIN);
	return false;
}

static bool step(struct cm *cm, struct flow *fl, const struct view *pvm, const struct view *svm,
	struct buf **from)
{
	struct tcp_state *t = &fl->tcp;
	bool pfin = tcp_knows(fl, T_PVM_FIN) && t->pvm_fin == t->matched;
	bool sfin = tcp_knows(fl, T_SVM_FIN) && t->svm_fin == t->matched;
	struct view p = { 0 }, s = { 0 };
	bool has_p = pvm_at(fl, pvm, from, &p), has_s = svm_at(fl, svm, &s);

	if (pfin || sfin)
		return match_fin(cm, fl, pfin, sfin, pfin ? has_s : has_p);
	if (!has_p || !has_s)
		return false;
	if (compare(cm, fl, &p, &s))
		return true;
	cm_mismatch(cm, fl, CM_KIND_PAYLOAD);
	return false;
}

/* Go over what is held and said, and over the segment that just came from one side (or NULL). */
static void advance(struct cm *cm, struct flow *fl, const struct view *pvm, const struct view *svm)
{
	struct buf *from = fl->held.head;

	if (!tcp_knows(fl, T_POS) || tcp_knows(fl, T_SYN_WAIT) || tcp_svm_anew(fl))
		return;
	while (!fl->bad && step(cm, fl, pvm, svm, &from))
		forget_said(cm, fl);
}

void tcp_advance(struct cm *cm, struct flow *fl)
{
	forget_said(cm, fl);
	advance(cm, fl, NULL, NULL);
}

/* --- the PVM's segments --- */

/* sorted by end; a RST is behind everything */
static void insert_held(struct flow *fl, struct buf *b)
{
	struct buf *after = fl->held.tail;

	if (b->flags & TCP_RST) {
		b->end = after ? seq_max(after->end, b->end) : b->end;
	} else {
		while (after && seq_after(after->end, b->end))
			after = after->prev;
	}
	buf_insert(&fl->held, after, b);
}

/* A frame of the PVM is lost: it has not been said, whatever it was compared with. */
static void lose(struct flow *fl, uint32_t seq, uint32_t body_len)
{
	struct tcp_state *t = &fl->tcp;

	if (!body_len || !tcp_knows(fl, T_POS))
		return;
	t->matched = seq_min(t->matched, seq);
	t->safe = seq_min(t->safe, seq);
}

static void hold(struct cm *cm, struct flow *fl, const struct frame *f, uint32_t seq, uint32_t end,
	uint64_t now)
{
	struct buf *b;

	if (now < fl->tcp.reset_until)
		return;
	b = cm_hold(cm, f, now);
	if (!b) {
		lose(fl, seq, f->flags & TCP_RST ? 0 : f->body_len);
		return;
	}
	b->seq = seq;
	b->end = end;
	if (f->flags & TCP_RST)
		b->body_len = 0; /* is not of the stream */
	insert_held(fl, b);
	cm_busy(cm, fl);
}

/* Does a segment of the PVM say what the frames that are held say? */
static bool repeats_alike(const struct flow *fl, const struct view *v)
{
	uint32_t end = v->seq + v->len, from, to;

	for (const struct buf *b = fl->held.tail; b && seq_after(b->end, v->seq); b = b->prev) {
		from = seq_max(v->seq, b->seq);
		to = seq_min(end, b->seq + b->body_len);
		if (seq_after(to, from) && memcmp(v->p + (from - v->seq),
						b->data + b->off + (from - b->seq), to - from) != 0)
			return false;
	}
	return true;
}

/* the end of the stream is where it was said to be, and not before what was said */
static bool fin_fits(const struct flow *fl, uint8_t flags, uint32_t end_of_data)
{
	const struct tcp_state *t = &fl->tcp;

	if (!tcp_knows(fl, T_PVM_FIN))
		return !(flags & TCP_FIN) || !seq_after(t->pvm_next, end_of_data);
	if (flags & TCP_FIN)
		return end_of_data == t->pvm_fin;
	return !seq_after(end_of_data, seq_max(t->pvm_fin, t->matched));
}

static bool is_far(const struct flow *fl, uint32_t seq)
{
	return tcp_knows(fl, T_POS) && seq - fl->tcp.matched + FAR >= 2 * FAR;
}

/* the stream position of a connection whose start was not seen */
static void learn_position(struct cm *cm, struct flow *fl, uint32_t seq)
{
	struct tcp_state *t = &fl->tcp;

	if (tcp_knows(fl, T_POS))
		return;
	t->known |= T_POS;
	t->matched = t->safe = t->urg_safe = t->pvm_next = t->first = seq;
	if (fl->said.head && fl->said.head->seq - seq + FAR >= 2 * FAR)
		cm_drop_said(cm, fl);
	forget_said(cm, fl);
	if (tcp_knows(fl, T_SVM_FIN) && seq_after(t->matched, t->svm_fin))
		t->known &= ~(uint32_t)T_SVM_FIN;
}

/* payload or FIN; for a SYN `seq` is that of the first byte after it */
static void pvm_data(struct cm *cm, struct flow *fl, const struct frame *f, uint32_t seq, uint64_t now)
{
	struct tcp_state *t = &fl->tcp;
	uint32_t fin = seq + f->body_len, end = fin + (f->flags & TCP_FIN ? 1 : 0);
	struct view v = { seq, f->body_len, f->data + f->body };

	learn_position(cm, fl, seq);
	if (now < t->reset_until && seq_after(end, t->matched))
		return; /* lost, see below: then nothing of it may count as compared */
	if (!fin_fits(fl, f->flags, fin) || !repeats_alike(fl, &v)) {
		cm_mismatch(cm, fl, CM_KIND_REPEAT);
		cm_hold(cm, f, now);
		return;
	}
	if (f->flags & TCP_FIN) {
		t->known |= T_PVM_FIN;
		t->pvm_fin = fin;
	}
	t->pvm_next = seq_max(t->pvm_next, end);
	advance(cm, fl, &v, NULL);
	tcp_release(cm, fl, now);
	if (!tcp_can_leave(cm, fl, f->flags, end) || !tcp_agrees(cm, fl, f)) {
		hold(cm, fl, f, seq, end, now);
		return;
	}
	if (!cm_pending(cm))
		cm_lag(cm, now, now);
	tcp_leave(cm, fl, f, now);
}

static void pvm_syn(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	tcp_pvm_syn(cm, fl, f);
	pvm_data(cm, fl, f, f->seq + 1, now);
}

static void pvm_rst(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	if (fl->held.head || !tcp_can_leave(cm, fl, f->flags, f->seq)) {
		hold(cm, fl, f, f->seq, f->seq, now);
		tcp_release(cm, fl, now);
		return;
	}
	tcp_leave(cm, fl, f, now);
}

/* --- the SVM's segments --- */

/* put [seq, end) of v, which no piece has, behind the piece `after`; the piece that has it then */
static struct buf *keep_piece(struct cm *cm, struct flow *fl, struct buf *after, uint32_t seq,
	uint32_t end, const struct view *v)
{
	uint32_t n = end - seq;
	struct buf *b = after;

	if (!b || b->end != seq || b->room - b->body_len < n) {
		b = fl->said_bytes < CM_AHEAD_MAX ? cm_keep(cm, fl, n) : NULL;
		if (!b) {
			cm->stats.dropped++;
			cm_full(cm, CM_KIND_AHEAD);
			return NULL;
		}
		b->seq = b->end = seq;
		fl->said_bytes += b->room;
		buf_insert(&fl->said, after, b);
	}
	memcpy(b->data + b->body_len, v->p + (seq - v->seq), n);
	b->body_len += n;
	b->end += n;
	return b;
}

/* keep what the SVM said from `seq` on, where it is not kept already */
static void keep(struct cm *cm, struct flow *fl, const struct view *v, uint32_t seq)
{
	uint32_t end = v->seq + v->len, stop;
	struct buf *prev = fl->said.tail, *next;

	while (prev && seq_after(prev->seq, seq))
		prev = prev->prev;
	for (;;) {
		if (prev)
			seq = seq_max(seq, prev->end);
		if (!seq_after(end, seq))
			return;
		next = prev ? prev->next : fl->said.head;
		stop = next ? seq_min(end, next->seq) : end;
		prev = seq_after(stop, seq) ? keep_piece(cm, fl, prev, seq, stop, v) : next;
		if (!prev)
			return;
	}
}

void tcp_keep_said(struct cm *cm, struct flow *fl, const uint8_t *p, uint32_t len, uint32_t seq)
{
	struct view v = { seq, len, p };

	keep(cm, fl, &v, seq);
}

/* is it part of this stream, or so far off that it is not? */
static bool is_near(struct cm *cm, const struct flow *fl, uint32_t seq)
{
	uint32_t from = tcp_knows(fl, T_POS) ? fl->tcp.matched : fl->said.head ? fl->said.head->seq : seq;
	int32_t d = (int32_t)(seq - from);

	if (d < (int32_t)CM_AHEAD_MAX && d > -(int32_t)FAR)
		return true;
	cm->stats.dropped++;
	if (d >= 0 && d < (int32_t)FAR)
		cm_full(cm, CM_KIND_AHEAD);
	return false;
}

static void note_svm_fin(struct flow *fl, uint32_t fin)
{
	struct tcp_state *t = &fl->tcp;

	if (tcp_knows(fl, T_SVM_FIN) || (tcp_knows(fl, T_POS) && seq_after(t->matched, fin)))
		return;
	t->known |= T_SVM_FIN;
	t->svm_fin = fin;
}

/* payload or FIN; for a SYN `seq` is that of the first byte after it */
/* The peer has all of it. (A keep-alive looks like the last byte, and asks by itself.) */
static bool is_acknowledged(const struct flow *fl, const struct view *v)
{
	const struct tcp_state *t = &fl->tcp;

	return v->len && tcp_knows(fl, T_POS) && !seq_after(v->seq + v->len, t->matched) &&
	       tcp_knows(fl, T_PEER_ACK) && !seq_after(v->seq + v->len, t->peer_ack) &&
	       !(v->len == 1 && v->seq + 1 == t->matched) &&
	       (!tcp_knows(fl, T_SYN) || seq_after(v->seq, t->isn));
}

static void svm_data(struct cm *cm, struct flow *fl, const struct frame *f, uint32_t seq)
{
	struct view v = { seq, f->body_len, f->data + f->body };
	uint32_t end = v.seq + v.len;

	if (fl->bad || !is_near(cm, fl, end))
		return;
	if (is_acknowledged(fl, &v))
		tcp_ask_peer(cm, fl, f);
	if (f->flags & TCP_FIN)
		note_svm_fin(fl, end);
	advance(cm, fl, NULL, &v);
	if (fl->bad || !v.len)
		return;
	if (!tcp_knows(fl, T_POS))
		keep(cm, fl, &v, v.seq);
	else if (seq_after(end, fl->tcp.matched))
		keep(cm, fl, &v, seq_max(v.seq, fl->tcp.matched));
}

static void svm_ack(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	struct tcp_state *t = &fl->tcp;
	bool known = tcp_knows(fl, T_ACK_OK);

	if (known && seq_after(t->ack_ok, f->ack))
		return; /* late */
	t->known |= T_ACK_OK | T_SVM_WINDOW;
	t->svm_window = f->window;
	if (known && f->ack == t->ack_ok)
		return;
	t->ack_ok = f->ack;
	if (!fl->owed)
		return;
	fl->owed->time = now; /* the SVM goes on: begin to wait anew */
	buf_age_unlink(&cm->acks, fl->owed);
	buf_age_append(&cm->acks, fl->owed);
}

static void svm_syn(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	if (!tcp_svm_syn(cm, fl, f))
		return;
	if (f->seq == fl->tcp.isn)
		svm_data(cm, fl, f, f->seq + 1);
	tcp_serve(cm, fl, now);
}

static void note_svm_urgent(struct flow *fl, const struct frame *f)
{
	if (!(f->flags & TCP_URG))
		return;
	fl->tcp.svm_urg = tcp_urgent_mark(f);
	fl->tcp.known |= T_SVM_URG;
}

/* --- entry points --- */

static void note_pvm(struct flow *fl, const struct frame *f)
{
	struct tcp_state *t = &fl->tcp;
	uint32_t end = f->seq + f->body_len + !!(f->flags & TCP_SYN) + !!(f->flags & TCP_FIN);
	bool known = tcp_knows(fl, T_PVM_ACK);

	if (f->flags & TCP_URG) {
		t->pvm_urg = tcp_urgent_mark(f);
		t->known |= T_PVM_URG;
	}
	if (!(f->flags & TCP_ACK))
		return;
	t->pvm_seq = known ? seq_max(t->pvm_seq, end) : end;
	t->pvm_ack = known ? seq_max(t->pvm_ack, f->ack) : f->ack;
	t->pvm_window = f->window;
	t->known |= T_PVM_ACK;
	if (!f->ts)
		return;
	t->known |= T_PVM_TS;
	t->pvm_ts = frame_be32(f->data + f->ts);
}

void tcp_from_pvm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	bool data = f->body_len || f->flags & (TCP_FIN | TCP_URG);

	if (!tcp_knows(fl, T_SYN | T_PVM_ACK))
		tcp_look_for_auth(fl, f);
	if (f->flags & TCP_SYN)
		pvm_syn(cm, fl, f, now);
	else if (f->flags & TCP_RST)
		pvm_rst(cm, fl, f, now);
	else if (is_far(fl, f->seq)) {
		cm_hold(cm, f, now);
		return;
	} else if (data || tcp_knows(fl, T_AUTH))
		pvm_data(cm, fl, f, f->seq, now);
	else
		tcp_leave_ack(cm, fl, f, now);
	if (!(f->flags & TCP_RST))
		note_pvm(fl, f);
}

/* Is a segment without payload a keep-alive, or a probe of a closed window? All others stand at the stream's end. */
static bool is_probe(const struct flow *fl, const struct frame *f)
{
	return tcp_knows(fl, T_POS) && tcp_knows(fl, T_PEER_ACK) && seq_after(fl->tcp.peer_ack, f->seq) &&
	       (!tcp_knows(fl, T_SYN) || !seq_after(fl->tcp.isn, f->seq));
}

void tcp_from_svm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	bool rst = f->flags & TCP_RST, data = f->body_len || f->flags & TCP_FIN;

	if (f->flags & TCP_SYN) {
		svm_syn(cm, fl, f, now);
		return;
	}
	if (tcp_knows(fl, T_SYN_WAIT) && !rst)
		return;
	if (tcp_svm_anew(fl) && !rst) {
		tcp_svm_early(cm, fl, f);
		return;
	}
	if (rst)
		fl->tcp.known |= T_SVM_RST;
	else if (f->flags & TCP_ACK)
		svm_ack(cm, fl, f, now);
	if (!rst)
		note_svm_urgent(fl, f);
	if (!rst && data)
		svm_data(cm, fl, f, f->seq);
	else if (!rst && is_probe(fl, f))
		tcp_ask_peer(cm, fl, f);
	else if (!rst && f->flags & TCP_ACK)
		tcp_forward_ack(cm, fl, f);
	tcp_serve(cm, fl, now);
}

static void lose_held(struct cm *cm, struct flow *fl)
{
	for (const struct buf *b = fl->held.head; b; b = b->next)
		lose(fl, b->seq, b->body_len);
	cm_drop_held(cm, fl);
}

static void peer_reset(struct cm *cm, struct flow *fl, uint32_t seq, uint64_t now)
{
	const struct tcp_state *t = &fl->tcp;
	uint32_t window = tcp_knows(fl, T_WSCALE) ? (uint32_t)t->pvm_window << t->wscale : CM_AHEAD_MAX;

	if (tcp_knows(fl, T_PVM_ACK) && seq - t->pvm_ack > window)
		return; /* out of the window: the guest will ignore it */
	lose_held(cm, fl);
	cm_drop_owed(cm, fl);
	fl->tcp.reset_until = now + RESET_US;
	flow_set_closed(&cm->flows, &fl->node, true);
}

/* Does the peer acknowledge what the guest sent it? Who only pretends to be it cannot know the number. */
static bool proves(const struct tcp_state *t, const struct frame *f)
{
	if (!(f->flags & TCP_ACK))
		return false;
	if (t->known & T_SYN)
		return f->ack - t->isn - 1 < t->pvm_next - t->isn;
	return t->known & T_PVM_ACK && t->pvm_seq - f->ack < CM_AHEAD_MAX;
}

void tcp_from_peer(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	struct tcp_state *t = &fl->tcp;

	if (f->flags & TCP_RST) {
		peer_reset(cm, fl, f->seq, now);
		return;
	}
	if (!fl->proven && proves(t, f))
		cm_prove(cm, fl);
	if (f->flags & TCP_SYN)
		tcp_peer_syn(fl, f);
	if (f->flags & TCP_ACK) {
		t->peer_ack = tcp_knows(fl, T_PEER_ACK) ? seq_max(t->peer_ack, f->ack) : f->ack;
		t->known |= T_PEER_ACK;
	}
	if (f->flags & TCP_FIN)
		t->known |= T_PEER_FIN;
	if (f->flags & TCP_ACK && tcp_knows(fl, T_PVM_FIN) && f->ack == t->pvm_fin + 1)
		t->known |= T_FIN_ACKED;
	if (tcp_knows(fl, T_PEER_FIN) && tcp_knows(fl, T_FIN_ACKED))
		flow_set_closed(&cm->flows, &fl->node, true);
}

/* What is held has not left, though its beginning may lie below `matched`: a repetition of that could not be
 * checked against it any more. `held` is sorted by end, and no frame is longer than 64 KiB. */
static uint32_t safe_position(const struct flow *fl)
{
	uint32_t pos = fl->tcp.matched;

	for (const struct buf *b = fl->held.head; b && !seq_after(b->end, pos + 0x10000); b = b->next)
		if (!(b->flags & TCP_RST))
			pos = seq_min(pos, b->seq);
	return pos;
}

void tcp_new_epoch(struct flow *fl, bool was_held)
{
	struct tcp_state *t = &fl->tcp;
	bool known = was_held ? tcp_knows(fl, T_ACK_OK) : tcp_knows(fl, T_ACK_SAFE);
	uint32_t ack = was_held ? t->ack_ok : t->ack_safe;

	if (was_held)
		t->safe = safe_position(fl);
	t->matched = t->pvm_next;
	t->urg_safe = tcp_knows(fl, T_PVM_URG) ? seq_max(t->pvm_next, t->pvm_urg) : t->pvm_next;
	t->known &= ~(uint32_t)(T_SYN_WAIT | T_SYN_TOLD | T_SVM_SYN | T_SVM_FIN | T_SVM_RST | T_SVM_WINDOW |
			       T_ACK_OK | T_ACK_SAFE | T_SVM_URG);
	if (tcp_knows(fl, T_PVM_FIN)) { /* and so did its copy */
		t->known |= T_SVM_FIN;
		t->svm_fin = t->pvm_fin;
	}
	if (!tcp_knows(fl, T_PVM_ACK))
		return;
	if (known)
		t->known |= T_ACK_SAFE;
	t->ack_safe = seq_min(ack, t->pvm_ack);
	t->ack_ok = t->ack_out = t->pvm_ack;
	t->window_out = t->pvm_window;
	t->known |= T_ACK_OK | T_ACK_OUT;
}
