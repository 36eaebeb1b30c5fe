/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * translate.c - the SVM's ports, sequence numbers and timestamps in the PVM's terms, and back
 *
 * Theory of operation
 *
 * A connection opened since the last checkpoint got an ISN and a timestamp clock of its own from each VM,
 * and, where the guest is the client, a port of its own. So it has two names, the PVM's, by which the LAN
 * knows it, and the SVM's; an entry (tr_table.c) is found by either. Half an entry is made by the first
 * SYN or SYN-ACK of either VM, and is whole with the other's:
 *
 *	seq_pvm = seq_svm + dseq, tsval_pvm = tsval_svm + dts, port_pvm <-> port_svm
 *
 * What has no entry is older than the checkpoint: both VMs name and count it alike.
 *
 * "PVM" stands for the LAN's names and numbers. They are the PVM's own unless its host has survived a failover
 * itself: then its guest is behind a translator as well, which rewrites before the comparing module sees a
 * frame, and in whose terms the PVM's SYNs come here. What that translator has at a checkpoint is the base:
 * the checkpoint makes the SVM a copy of that guest, so a reset goes back to the base, not to an empty
 * table (tr_base.c), and only what is neither in the base nor opened since is named and counted alike.
 *
 * Guest as server. The port is the same; SYN-ACKs belong together if they acknowledge the same ISN.
 *	PVM's only   the SVM has not answered yet: a client's ACK means nothing to it and is dropped (SYN and
 *	             RST pass)
 *	SVM's only   its SYN-ACK goes to the comparing module raw, nothing leaves for the client
 * Guest as client. SYNs are paired by destination and order (tr_pair.c).
 *	PVM's only   nothing of this name reaches the SVM
 *	SVM's only   its SYN waits for the PVM's; repetitions of it are dropped
 * The PVM's SYN cannot leave before the SVM's was compared with it, so nothing of the peer's is missed. If
 * the peer answers half an entry all the same, the SYN is one of before the checkpoint, repeated since.
 *
 * A VM's SYN with another ISN than before at the same port is a new connection: the VM has done with
 * the old one, whose entry loses that name (the other VM may still use it by the other). What comes by a
 * name whose counterpart is lost is dropped. A client's SYN alone changes nothing: the guest may refuse it.
 *
 * Names of old connections. A port may be free again in one VM, and be given to a new connection, while
 * the other VM still has an old connection there. Frames of the old one would pass as they are and
 * reach the new one; so a frame without an entry is dropped if its name is an entry's on the other side.
 *
 * Rewritten are, from the SVM: source port, seq, tsval; to the SVM: destination port, ack, SACK edges, the
 * echoed tsval; what ICMP errors quote: tr_icmp.c. Fragments are not looked at: TCP avoids them.
 *
 * Classes. An entry is young until the peer acknowledges the guest's SYN (within 64 KiB, so that who sees
 * no answers can hardly guess it), then open, then over: the guest reset it, or the peer did with the very
 * next sequence number (RFC 5961), or both FINs were acknowledged. A full table loses those that are over,
 * then young ones. If all are open there is no entry for a new connection, and its SYNs are dropped: the
 * comparing module misses the answer to the PVM's, and the checkpoint that follows empties the table.
 *
 * Failover. Whole entries last as long as their connections. Halves are forgotten: nobody outside has seen
 * anything of them. SYNs of the SVM that wait leave at once, in order, as new connections. From now on the
 * map from the SVM's ports to the LAN's (for one peer and port) has the entries, and is otherwise the
 * identity. A new connection of a port p that the LAN uses for an entry gets the port by which
 * that entry is known inside, since nothing else inside has that one; if the LAN uses this one too, it goes
 * on from there: p has no entry inside, so it is not come back to, and no two chains meet; it ends at a
 * port that is free outside. The new connection gets an entry. A SYN of the LAN's to a port that has no
 * entry outside, but one inside, goes the same chain the other way, and so does the RST that the
 * guest answers. Other frames of such names are of connections that are over, and dropped.
 *
 * The SVM's timestamps of connections opened before the checkpoint count as the PVM's did, but
 * the SVM's clock may run behind what clients saw last: all tsval get `bump` from then on, and echoes
 * lose it. An echo of a timestamp that the PVM sent loses it as well, which makes the guest measure one
 * round trip that is too long by `bump`; it cannot be told apart and does no harm. The bump is part of the
 * base, and grows with each failover; dts are relative to it.
 */
#include <stdlib.h>
#include <string.h>

#include "tr_priv.h"

#define MAX_FLOWS 131072
#define FIRST_WINDOW 65536u /* the guest's first answer is acknowledged within */
#define CHAIN_GUEST 65536u  /* entries followed for a SYN of the guest: it may use all its ports */
#define CHAIN_LAN 64u       /* for what anybody may send */

struct tr *tr_new(const struct tr_config *cfg, const struct tr_ops *ops, void *opaque)
{
	struct tr *tr = calloc(1, sizeof(*tr));

	if (!tr)
		return NULL;
	tr->ops = *ops;
	tr->opaque = opaque;
	tr->seed = cfg ? cfg->hash_seed : 0;
	if (tr_table_init(tr, cfg && cfg->max_flows ? cfg->max_flows : MAX_FLOWS) == 0 && tr_pair_init(tr) == 0)
		return tr;
	tr_free(tr);
	return NULL;
}

void tr_free(struct tr *tr)
{
	if (!tr)
		return;
	tr_table_free(tr);
	tr_pair_free(tr);
	tr_base_free(tr);
	free(tr);
}

static void for_each(struct tr *tr, void (*fn)(struct tr *tr, struct tr_entry *e))
{
	struct tr_entry *e, *next;

	for (int i = 0; i < TR_CLASSES; i++) {
		for (e = tr->class[i].head; e; e = next) {
			next = e->next;
			fn(tr, e);
		}
	}
}

void tr_reset(struct tr *tr, uint64_t now)
{
	tr_set_now(tr, now);
	for_each(tr, tr_del);
	tr_base_load(tr);
}

void tr_get_stats(const struct tr *tr, struct tr_stats *out)
{
	*out = (struct tr_stats){
		.entries = tr->n,
		.paired_clients = tr->paired,
		.waiting_syns = tr->waiting,
		.full = tr->full,
	};
}

/* --- rewriting --- */

static void add32(uint8_t *frame, const struct frame *f, uint32_t off, uint32_t delta)
{
	if (delta)
		frame_tcp_set32(frame, f, off, frame_be32(frame + off) + delta);
}

static void set_ports(uint8_t *frame, const struct frame *f, uint16_t sport, uint16_t dport)
{
	if (sport != f->sport || dport != f->dport)
		frame_tcp_set32(frame, f, f->l4, (uint32_t)sport << 16 | dport);
}

/* e: NULL: the same in both VMs */
static void rewrite_from_svm(struct tr *tr, uint8_t *frame, const struct frame *f, const struct tr_entry *e)
{
	if (f->ts)
		add32(frame, f, f->ts, tr->bump + (e ? e->dts : 0));
	if (!e)
		return;
	set_ports(frame, f, e->port[TR_PVM], f->dport);
	add32(frame, f, FRAME_TCP_SEQ(f), e->dseq);
}

static void rewrite_to_svm(struct tr *tr, uint8_t *frame, const struct frame *f, const struct tr_entry *e)
{
	uint32_t dseq = e ? e->dseq : 0, dts = (e ? e->dts : 0) + tr->bump;

	if (e)
		set_ports(frame, f, f->sport, e->port[TR_SVM]);
	if (!(f->flags & TCP_ACK))
		return;
	if (f->ts && frame_be32(frame + f->ts + 4))
		add32(frame, f, f->ts + 4, -dts);
	add32(frame, f, FRAME_TCP_ACK(f), -dseq);
	for (uint32_t i = 0; i < 2 * f->sack_n; i++)
		add32(frame, f, f->sack + 4 * i, -dseq);
}

/* --- SYNs --- */

static bool is_syn_ack(const struct frame *f)
{
	return f->flags & TCP_ACK;
}

/* Of the connection whose SYN this entry has? The SYN-ACK of a simultaneous open has the SYN's number. */
static bool is_repetition(const struct tr_entry *e, enum tr_side side, const struct frame *f)
{
	if (e->isn[side] != f->seq)
		return false;
	return e->is_ack ? is_syn_ack(f) && e->ack == f->ack : true;
}

static void know(struct tr *tr, struct tr_entry *e, enum tr_side side, const struct frame *f)
{
	e->known[side] = true;
	e->isn[side] = f->seq;
	e->ts[side] = f->ts ? frame_be32(f->data + f->ts) + (side == TR_SVM ? tr->bump : 0) : 0;
	tr_link(tr, e, side, f->sport);
	if (!e->known[tr_other(side)])
		return;
	e->dseq = e->isn[TR_PVM] - e->isn[TR_SVM];
	e->dts = e->ts[TR_PVM] && e->ts[TR_SVM] ? e->ts[TR_PVM] - e->ts[TR_SVM] : 0;
}

static struct tr_entry *add_half(struct tr *tr, const struct tr_key *key, enum tr_side side,
	const struct frame *f)
{
	struct tr_entry *e = tr_add(tr, key);

	if (!e)
		return NULL;
	e->is_ack = is_syn_ack(f);
	e->ack = e->is_ack ? f->ack : 0;
	know(tr, e, side, f);
	return e;
}

static struct tr_entry *server_syn(struct tr *tr, const struct tr_key *key, enum tr_side side,
	const struct frame *f)
{
	struct tr_entry *e = tr_find(tr, key, tr_other(side), key->port);

	if (!e || !e->is_ack || e->known[side] || e->ack != f->ack)
		return add_half(tr, key, side, f);
	know(tr, e, side, f);
	return e;
}

static struct tr_entry *client_syn(struct tr *tr, const struct tr_key *key, enum tr_side side,
	const struct frame *f)
{
	struct tr_entry *e = tr_partner(tr, key, side, f);

	if (e) {
		know(tr, e, side, f);
		return e;
	}
	e = add_half(tr, key, side, f);
	if (e && !tr_queue(tr, e, f)) {
		tr_del(tr, e);
		return NULL;
	}
	return e;
}

/* A SYN that is there already. One that was given up belongs to the other VM's that has come since. */
static struct tr_entry *repeated_syn(struct tr *tr, const struct tr_key *key, struct tr_entry *e, enum tr_side side,
	const struct frame *f)
{
	bool given_up = !e->is_ack && !is_syn_ack(f) && !e->queued && !e->known[tr_other(side)];
	struct tr_entry *other = given_up ? tr_partner(tr, key, side, f) : NULL;

	if (!other)
		return e;
	tr_del(tr, e);
	know(tr, other, side, f);
	return other;
}

/* A SYN of one of the VMs. NULL: there is no room for its entry. */
static struct tr_entry *vm_syn(struct tr *tr, const struct tr_key *key, enum tr_side side,
	const struct frame *f)
{
	struct tr_entry *e = tr_find(tr, key, side, key->port);

	if (e && is_repetition(e, side, f))
		return repeated_syn(tr, key, e, side, f);
	if (e)
		tr_unlink(tr, e, side);
	return is_syn_ack(f) ? server_syn(tr, key, side, f) : client_syn(tr, key, side, f);
}

/* the SVM's SYN that has waited for the PVM's leaves */
static void serve_waiting(struct tr *tr, struct tr_entry *e)
{
	uint32_t len = tr_take_syn(tr, e);
	struct frame f;

	if (!len)
		return;
	frame_parse(&f, tr->scratch, len);
	rewrite_from_svm(tr, tr->scratch, &f, e);
	if (!e->linked[TR_SVM]) /* it was given up in the meantime, and its port used again */
		tr_set_class(tr, e, TR_OVER);
	tr->ops.from_svm(tr->opaque, tr->scratch, len);
}

void tr_pvm_syn(struct tr *tr, const uint8_t *frame, size_t len, uint64_t now)
{
	struct tr_entry *e;
	struct tr_key key;
	struct frame f;

	tr_set_now(tr, now);
	if (tr->failed_over || frame_parse(&f, frame, len) != FRAME_TCP || !(f.flags & TCP_SYN))
		return;
	tr_key_from_guest(tr, &key, &f);
	e = vm_syn(tr, &key, TR_PVM, &f);
	if (e && e->known[TR_SVM])
		serve_waiting(tr, e);
}

/* After failover the SVM's connections are its own. NULL: there is no room for the entry it needs; *same: it
 * needs none. */
static struct tr_entry *alone_syn(struct tr *tr, const struct tr_key *key, const struct frame *f, bool *same)
{
	struct tr_entry *e = tr_find(tr, key, TR_SVM, key->port);
	uint16_t port = key->port;

	if (e && is_repetition(e, TR_SVM, f))
		return e;
	if (e)
		tr_del(tr, e);
	tr_expire(tr, 2);
	if (!tr_follow(tr, key, TR_SVM, &port, CHAIN_GUEST))
		return NULL;
	*same = port == key->port;
	e = *same ? NULL : add_half(tr, key, TR_SVM, f);
	if (!e)
		return NULL;
	e->known[TR_PVM] = true;
	e->isn[TR_PVM] = f->seq;
	e->ts[TR_PVM] = e->ts[TR_SVM];
	tr_link(tr, e, TR_PVM, port);
	return e;
}

/* --- what becomes of a connection --- */

static void end(struct tr *tr, struct tr_entry *e)
{
	tr_set_class(tr, e, TR_OVER);
}

static void note_fins(struct tr *tr, struct tr_entry *e)
{
	if (e->class == TR_OVER || (e->guest_fin_acked && e->peer_fin_acked))
		end(tr, e); /* again: last used now */
}

static void note_flag(struct tr *tr, bool *flag, bool value)
{
	tr->version += value && !*flag;
	*flag |= value;
}

static void note_from_svm(struct tr *tr, struct tr_entry *e, const struct frame *f)
{
	if (f->flags & TCP_RST && e->class == TR_OPEN)
		end(tr, e);
	else if (!(f->flags & TCP_RST) && e->class == TR_OVER) /* it did not take the peer's RST */
		tr_set_class(tr, e, TR_OPEN);
	else if (!(f->flags & TCP_SYN) && e->class == TR_YOUNG) /* in use, if unacknowledged */
		tr_set_class(tr, e, TR_YOUNG);
	if (f->flags & TCP_FIN) {
		note_flag(tr, &e->has_guest_fin, true);
		e->guest_fin = f->seq + f->body_len + 1;
	}
	if (f->flags & TCP_ACK) {
		e->has_guest_ack = true;
		e->guest_ack = f->ack;
		note_flag(tr, &e->peer_fin_acked, e->has_peer_fin && f->ack == e->peer_fin);
	}
	note_fins(tr, e);
}

static void note_peer_rst(struct tr *tr, struct tr_entry *e, const struct frame *f)
{
	bool refused = !e->is_ack && e->class == TR_YOUNG && is_syn_ack(f) && f->ack == e->isn[TR_PVM] + 1;

	if (refused || (e->has_guest_ack && f->seq == e->guest_ack))
		end(tr, e);
}

/* f: in the LAN's numbers */
static void note_to_svm(struct tr *tr, struct tr_entry *e, const struct frame *f)
{
	if (f->flags & TCP_RST) {
		note_peer_rst(tr, e, f);
		return;
	}
	if (f->flags & TCP_FIN) {
		note_flag(tr, &e->has_peer_fin, true);
		e->peer_fin = f->seq + f->body_len + 1;
	}
	if (f->flags & TCP_ACK) {
		note_flag(tr, &e->guest_fin_acked, e->has_guest_fin && f->ack - e->dseq == e->guest_fin);
		if (e->class == TR_YOUNG && f->ack - e->isn[TR_PVM] - 1 < FIRST_WINDOW)
			tr_set_class(tr, e, TR_OPEN);
	}
	note_fins(tr, e);
}

/* --- from the SVM --- */

static bool syn_from_svm(struct tr *tr, uint8_t *frame, const struct frame *f, const struct tr_key *key)
{
	bool raw = false;
	struct tr_entry *e;

	e = tr->failed_over ? alone_syn(tr, key, f, &raw) : vm_syn(tr, key, TR_SVM, f);
	if (e && tr_whole(e)) {
		note_from_svm(tr, e, f);
		rewrite_from_svm(tr, frame, f, e);
		return true;
	}
	if (raw)
		rewrite_from_svm(tr, frame, f, NULL);
	return raw || (e && e->is_ack && !e->known[TR_PVM]);
}

/* `e` lacks its name on the LAN */
static bool half_from_svm(const struct tr_entry *e)
{
	return e->is_ack && !e->known[TR_PVM];
}

/* no entry has this name inside */
static bool stranger_from_svm(struct tr *tr, uint8_t *frame, const struct frame *f, const struct tr_key *key)
{
	struct tr_entry *e = tr_find(tr, key, TR_PVM, key->port);
	uint16_t port = key->port;

	if (e && !tr->failed_over) /* a RST may refuse what the PVM has answered */
		return e->is_ack && !e->known[TR_SVM] && f->flags & TCP_RST;
	if (e && (!(f->flags & TCP_RST) || !tr_follow(tr, key, TR_SVM, &port, CHAIN_LAN)))
		return false;
	set_ports(frame, f, port, f->dport);
	rewrite_from_svm(tr, frame, f, NULL);
	return true;
}

static bool tcp_from_svm(struct tr *tr, uint8_t *frame, const struct frame *f)
{
	struct tr_entry *e;
	struct tr_key key;

	tr_key_from_guest(tr, &key, f);
	if (f->flags & TCP_SYN)
		return syn_from_svm(tr, frame, f, &key);
	e = tr_find(tr, &key, TR_SVM, key.port);
	if (!e)
		return stranger_from_svm(tr, frame, f, &key);
	if (!tr_whole(e))
		return half_from_svm(e);
	note_from_svm(tr, e, f);
	rewrite_from_svm(tr, frame, f, e);
	return true;
}

/* what is no TCP segment: broken TCP is dropped, the rest passes */
static bool pass_other(const struct frame *f)
{
	return f->family == 0 || f->frag || f->proto != 6;
}

bool tr_from_svm(struct tr *tr, uint8_t *frame, size_t len, uint64_t now)
{
	struct frame f;

	tr_set_now(tr, now);
	switch (frame_parse(&f, frame, len)) {
	case FRAME_BAD:
		return false;
	case FRAME_TCP:
		return tcp_from_svm(tr, frame, &f);
	case FRAME_ICMP:
		return tr_icmp(tr, frame, &f, TR_SVM);
	default:
		return pass_other(&f);
	}
}

/* --- to the SVM --- */

/* a peer that uses the port of a connection that is over for a new one means the guest's own port */
static bool is_used_again(const struct tr_entry *e, const struct frame *f)
{
	return e->class == TR_OVER && (f->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	       e->port[TR_PVM] != e->port[TR_SVM];
}

/* The peer has seen what only one VM is known to have sent: the SYN is older than the checkpoint, that VM
 * has just repeated it, and the other has the same. */
static bool is_old_client(const struct tr_entry *e, enum tr_side side, const struct frame *f)
{
	return !e->is_ack && !e->known[tr_other(side)] && f->flags & TCP_SYN && f->flags & TCP_ACK &&
	       f->ack == e->isn[side] + 1;
}

/* `e` lacks its name inside */
static bool half_to_svm(const struct tr_entry *e, const struct frame *f)
{
	return e->is_ack && (!(f->flags & TCP_ACK) || f->flags & TCP_RST);
}

/* no entry has this name on the LAN */
static bool stranger_to_svm(struct tr *tr, uint8_t *frame, const struct frame *f, const struct tr_key *key)
{
	struct tr_entry *e = tr_find(tr, key, TR_SVM, key->port);
	bool syn = (f->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	uint16_t port = key->port;

	if (e && is_old_client(e, TR_SVM, f)) {
		tr_del(tr, e);
		e = NULL;
	}
	if (e && !tr->failed_over && !(e->is_ack && (syn || !e->known[TR_PVM])))
		return false;
	if (e && tr->failed_over && (!syn || !tr_follow(tr, key, TR_PVM, &port, CHAIN_LAN)))
		return false;
	set_ports(frame, f, f->sport, port);
	rewrite_to_svm(tr, frame, f, NULL);
	return true;
}

static bool tcp_to_svm(struct tr *tr, uint8_t *frame, const struct frame *f)
{
	struct tr_entry *e;
	struct tr_key key;

	tr_key_to_guest(tr, &key, f);
	e = tr_find(tr, &key, TR_PVM, key.port);
	if (e && (is_used_again(e, f) || is_old_client(e, TR_PVM, f))) {
		tr_del(tr, e);
		e = NULL;
	}
	if (!e)
		return stranger_to_svm(tr, frame, f, &key);
	if (!tr_whole(e))
		return half_to_svm(e, f);
	note_to_svm(tr, e, f);
	rewrite_to_svm(tr, frame, f, e);
	return true;
}

bool tr_to_svm(struct tr *tr, uint8_t *frame, size_t len, uint64_t now)
{
	struct frame f;

	tr_set_now(tr, now);
	switch (frame_parse(&f, frame, len)) {
	case FRAME_BAD:
		return false;
	case FRAME_TCP:
		return tcp_to_svm(tr, frame, &f);
	case FRAME_ICMP:
		return tr_icmp(tr, frame, &f, TR_PVM);
	default:
		return pass_other(&f);
	}
}

/* --- failover --- */

static void forget_half(struct tr *tr, struct tr_entry *e)
{
	if (!tr_whole(e) && !e->syn)
		tr_del(tr, e);
}

void tr_failover(struct tr *tr, uint32_t bump_ms)
{
	struct tr_entry *e;
	uint32_t len;
	bool live;

	tr->failed_over = true;
	tr->bump += bump_ms;
	tr->version++;
	for_each(tr, forget_half);
	while (tr->first_syn) {
		e = tr->first_syn->e;
		live = e->linked[TR_SVM]; /* otherwise the SVM has given it up itself */
		len = tr_take_syn(tr, e);
		tr_del(tr, e);
		if (live && tr_from_svm(tr, tr->scratch, len, tr->now))
			tr->ops.from_svm(tr->opaque, tr->scratch, len);
	}
}
