/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tcp_syn.c - compare how TCP connections begin
 *
 * Theory of operation
 *
 * The SVM's SYN-ACK has sequence number and timestamp of its own; it is alike if it acknowledges the same,
 * asks for ECN alike, and its options but for the timestamps are the same. Either VM may be first. A SYN
 * of the guest as client comes from the translator with the PVM's port and number, after the PVM's. A
 * SYN of the PVM with a new number starts a new incarnation of the connection (a port used again,
 * TIME_WAIT cut short); what is still held of the old one leaves with the next boundary.
 *
 * Data on a SYN (TCP Fast Open) is the stream's beginning like any other. What the SVM says from its SYN on,
 * before the PVM's SYN is known, counts in its own numbers: it is kept, and moved to the PVM's when the
 * SYNs match. Where the port was used before, the flow still has the PVM's connection of then, of which the
 * SVM will say no more: nothing of that is compared until the PVM's SYN is there.
 *
 * Simultaneous open: the SYN-ACK of each VM repeats its SYN, with an acknowledgement, which is the first
 * to leave only if the SVM has sent it too.
 */
#include "cm_priv.h"

enum { OPT_MD5 = 19, OPT_AO = 29 };

void tcp_look_for_auth(struct flow *fl, const struct frame *f)
{
	const uint8_t *p = f->data + f->opt, *end = p + f->opt_len;

	while (p < end && *p) {
		if (*p == OPT_MD5 || *p == OPT_AO)
			fl->tcp.known |= T_AUTH;
		if (*p != 1 && (end - p < 2 || p[1] < 2))
			return;
		p += *p == 1 ? 1 : p[1];
	}
}

static uint64_t syn_options(const struct frame *f)
{
	return frame_syn_options(f) ^ (f->flags & (TCP_ECE | TCP_CWR));
}

/* what the SVM said since its SYN, from its own count to the PVM's */
static void rebase_said(struct flow *fl)
{
	struct tcp_state *t = &fl->tcp;
	uint32_t delta = t->isn - t->svm_isn;

	for (struct buf *b = fl->said.head; b; b = b->next) {
		b->seq += delta;
		b->end += delta;
	}
	t->svm_fin += delta;
	t->svm_urg += delta;
}

static void match_syn(struct cm *cm, struct flow *fl)
{
	struct tcp_state *t = &fl->tcp;

	if (!tcp_knows(fl, T_SYN_WAIT) || !tcp_knows(fl, T_SVM_SYN))
		return;
	if (tcp_knows(fl, T_SYN_ACK) != tcp_knows(fl, T_SVM_SYN_ACK) || t->syn_ack != t->svm_syn_ack)
		return; /* of another incarnation */
	if (!tcp_knows(fl, T_SYN_ACK) && t->svm_isn != t->isn)
		return; /* likewise: the translator has paired them */
	if (t->syn_opts != t->svm_syn_opts) {
		cm_mismatch(cm, fl, CM_KIND_SYN);
		return;
	}
	t->known &= ~(uint32_t)(T_SYN_WAIT | T_SVM_SYN);
	t->matched++;
	rebase_said(fl);
	if (tcp_knows(fl, T_SYN_ACK)) {
		t->ack_ok = t->ack_out = t->syn_ack;
		t->window_out = 0xffff;
		t->known |= T_ACK_OK | T_ACK_OUT;
	}
	tcp_advance(cm, fl);
}

static void use_wscale(struct tcp_state *t, uint8_t shift)
{
	t->known |= T_WSCALE;
	t->wscale = shift == 0xff ? 0 : shift > 14 ? 14 : shift;
}

/* frames of the old incarnation stay on the list by age */
static void new_incarnation(struct cm *cm, struct flow *fl, const struct frame *f)
{
	struct tcp_state *t = &fl->tcp, old = *t;
	uint32_t stays = T_PEER_SYN;

	if (old.known & T_SVM_SYN)
		stays |= T_SVM_SYN | T_SVM_SYN_ACK | T_SVM_FIN | T_SVM_URG;
	else
		cm_drop_said(cm, fl);
	fl->held = (struct buf_list){ 0 };
	fl->bad = false;
	cm_drop_owed(cm, fl);
	flow_set_closed(&cm->flows, &fl->node, true);
	fl->proven = false;
	*t = (struct tcp_state){
		.known = T_POS | T_SYN | T_SYN_WAIT | T_SYN_TOLD | (old.known & stays),
		.matched = f->seq,
		.safe = f->seq,
		.urg_safe = f->seq,
		.pvm_next = f->seq + 1,
		.isn = f->seq,
		.offer = f->wscale,
		.syn_opts = syn_options(f),
		.svm_isn = old.svm_isn,
		.svm_fin = old.svm_fin,
		.svm_urg = old.svm_urg,
		.svm_syn_ack = old.svm_syn_ack,
		.svm_syn_opts = old.svm_syn_opts,
		.peer_isn = old.peer_isn,
	};
	tcp_look_for_auth(fl, f);
	if (!(f->flags & TCP_ACK))
		return;
	t->known |= T_SYN_ACK;
	t->syn_ack = f->ack;
	use_wscale(t, f->wscale);
}

/* the SVM will repeat a SYN of before the boundary, too */
static void tell_again(struct cm *cm, struct flow *fl, const struct frame *f)
{
	if (f->flags & TCP_ACK || tcp_knows(fl, T_SYN_TOLD))
		return;
	fl->tcp.known |= T_SYN_TOLD;
	cm->ops.pvm_syn(cm->opaque, f->data, f->len);
}

void tcp_pvm_syn(struct cm *cm, struct flow *fl, const struct frame *f)
{
	if (tcp_knows(fl, T_SYN) && fl->tcp.isn == f->seq) {
		tell_again(cm, fl, f);
		return;
	}
	new_incarnation(cm, fl, f);
	cm->ops.pvm_syn(cm->opaque, f->data, f->len);
	match_syn(cm, fl);
}

bool tcp_svm_anew(const struct flow *fl)
{
	return tcp_knows(fl, T_SVM_SYN) && tcp_knows(fl, T_SYN) && !tcp_knows(fl, T_SYN_WAIT);
}

void tcp_svm_early(struct cm *cm, struct flow *fl, const struct frame *f)
{
	struct tcp_state *t = &fl->tcp;

	if (f->seq - t->svm_isn - 1 >= CM_AHEAD_MAX)
		return; /* of the old connection */
	if (f->flags & TCP_URG) {
		t->known |= T_SVM_URG;
		t->svm_urg = tcp_urgent_mark(f);
	}
	if (f->flags & TCP_FIN && !tcp_knows(fl, T_SVM_FIN)) {
		t->known |= T_SVM_FIN;
		t->svm_fin = f->seq + f->body_len;
	}
	tcp_keep_said(cm, fl, f->data + f->body, f->body_len, f->seq);
}

static bool is_repetition(const struct flow *fl, const struct frame *f)
{
	if (!tcp_knows(fl, T_SYN) || tcp_knows(fl, T_SYN_WAIT))
		return false;
	if (tcp_knows(fl, T_SYN_ACK))
		return f->flags & TCP_ACK && f->ack == fl->tcp.syn_ack;
	return f->seq == fl->tcp.isn;
}

bool tcp_svm_syn(struct cm *cm, struct flow *fl, const struct frame *f)
{
	struct tcp_state *t = &fl->tcp;
	bool ack = f->flags & TCP_ACK;

	if (is_repetition(fl, f)) {
		if (ack && (!tcp_knows(fl, T_ACK_OK) || seq_after(f->ack, t->ack_ok))) {
			t->ack_ok = f->ack;
			t->known |= T_ACK_OK;
		}
		return true;
	}
	if (!tcp_knows(fl, T_SVM_SYN) || t->svm_isn != f->seq) {
		cm_drop_said(cm, fl);
		t->known &= ~(uint32_t)(T_SVM_FIN | T_SVM_URG);
		tcp_keep_said(cm, fl, f->data + f->body, f->body_len, f->seq + 1);
	}
	t->known &= ~(uint32_t)T_SVM_SYN_ACK;
	t->known |= T_SVM_SYN | (ack ? T_SVM_SYN_ACK : 0);
	t->svm_isn = f->seq;
	t->svm_syn_ack = ack ? f->ack : 0;
	t->svm_syn_opts = syn_options(f);
	match_syn(cm, fl);
	return !tcp_knows(fl, T_SVM_SYN);
}

void tcp_peer_syn(struct flow *fl, const struct frame *f)
{
	struct tcp_state *t = &fl->tcp;

	if (!tcp_knows(fl, T_PEER_SYN) || t->peer_isn != f->seq) {
		t->peer_isn = f->seq;
		t->known |= T_PEER_SYN;
		t->known &= ~(uint32_t)T_SVM_RST;
		t->reset_until = 0;
	}
	if (!(f->flags & TCP_ACK) || !tcp_knows(fl, T_SYN) || tcp_knows(fl, T_SYN_ACK | T_WSCALE) ||
	    f->ack != t->isn + 1)
		return;
	use_wscale(t, f->wscale == 0xff ? 0xff : t->offer); /* if both have offered one */
}
