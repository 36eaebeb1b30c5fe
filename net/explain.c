/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * explain.c - what the comparing module found different, or waits for: reports, counts, and words
 *
 * A report is made when a difference is found, from what is at hand at that time: the frame that was just
 * being looked at (cm.at), what the flow holds of the PVM, and what it keeps of the SVM. Nothing is kept
 * for reports before that, so frames that match cost nothing. The ring is allocated with the first
 * report; without memory for it differences are only counted. Of an epoch only the first
 * CM_REPORTS_EPOCH are reported, so that a checkpoint of many differences neither costs much nor drives
 * all others out of the ring.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cm_priv.h"

#define WALK 256    /* buffers looked at for an excerpt */
#define CAPTURES 16 /* held frames handed over per report */

struct history {
	uint64_t n;             /* reports ever */
	uint64_t epoch;
	unsigned int in_epoch;
	struct cm_report ring[CM_REPORTS];
};

static const char *const kind_names[CM_NKINDS] = {
#define X(name, text) [CM_KIND_##name] = text,
	CM_KINDS(X)
#undef X
};

const char *cm_kind_name(enum cm_kind k)
{
	return (unsigned)k < CM_NKINDS ? kind_names[k] : "unknown";
}

const struct cm_report *cm_get_report(const struct cm *cm, size_t i)
{
	const struct history *h = cm->history;

	if (!h || i >= CM_REPORTS || i >= h->n)
		return NULL;
	return &h->ring[(h->n - 1 - i) % CM_REPORTS];
}

void cm_set_capture(struct cm *cm, cm_capture_fn *fn, void *opaque)
{
	cm->capture = fn;
	cm->capture_opaque = opaque;
}

/* --- a report's parts --- */

/* counts, and begins a report unless this epoch has had enough */
static struct cm_report *begin(struct cm *cm, enum cm_cause cause, enum cm_kind kind, uint64_t now)
{
	struct history *h = cm->history;
	struct cm_report *r;

	cm->stats.kinds[kind]++;
	if (!h)
		h = cm->history = calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	if (h->epoch != cm->epoch) {
		h->epoch = cm->epoch;
		h->in_epoch = 0;
	}
	if (h->in_epoch >= CM_REPORTS_EPOCH)
		return NULL;
	h->in_epoch++;
	r = &h->ring[h->n++ % CM_REPORTS];
	*r = (struct cm_report){ .number = h->n, .time_us = now, .epoch = cm->epoch, .cause = cause,
		.kind = kind, .origin = CM_OF_NOTHING, .lag_us = cm->stats.lag_us,
		.lag_dev_us = cm->stats.lag_dev_us, .patience_us = (uint32_t)cm_patience(cm) };
	return r;
}

/* of a frame that the guest sent */
static void set_flow(struct cm_report *r, const struct frame *f)
{
	struct flow_key k;

	flow_key_from_guest(&k, f);
	r->has_flow = true;
	r->family = f->family;
	r->proto = f->proto;
	r->fragment = f->type == FRAME_FRAG;
	r->ethertype = f->ethertype;
	r->vlan = f->vlan;
	memcpy(r->guest, k.guest, sizeof(r->guest));
	memcpy(r->peer, k.peer, sizeof(r->peer));
	if (f->type == FRAME_ICMP) {
		r->icmp = frame_be16(f->data + f->l4);
	} else {
		r->gport = f->sport;
		r->pport = f->dport;
	}
}

static uint64_t time_since(uint64_t then, uint64_t now)
{
	return now > then ? now - then : 0;
}

/* the bytes from CM_EXCERPT before a position to as many behind it; bit i of `have`: byte i is known */
struct window {
	uint32_t start;
	uint64_t have;
	uint8_t byte[2 * CM_EXCERPT];
};
_Static_assert(2 * CM_EXCERPT == 64, "a bit for each byte");

static void put(struct window *w, uint32_t seq, uint32_t len, const uint8_t *p)
{
	int64_t at = (int32_t)(seq - w->start);
	int64_t from = at < 0 ? 0 : at;
	int64_t to = at + len < (int64_t)sizeof(w->byte) ? at + len : (int64_t)sizeof(w->byte);

	for (int64_t i = from; i < to; i++) {
		if (w->have & 1ull << i)
			continue; /* the first to say it counts, as in the comparison */
		w->byte[i] = p[i - at];
		w->have |= 1ull << i;
	}
}

/* what is known without a gap on both sides of the position */
static void cut_out(struct cm_side *s, const struct window *w)
{
	uint32_t from = CM_EXCERPT, to = CM_EXCERPT;

	while (from > 0 && w->have & 1ull << (from - 1))
		from--;
	while (to < 2 * CM_EXCERPT && w->have & 1ull << to)
		to++;
	s->known = s->known || to > from;
	s->before = (uint8_t)(CM_EXCERPT - from);
	s->after = (uint8_t)(to - CM_EXCERPT);
	memcpy(s->data, w->byte + from, to - from);
}

static void set_bytes(struct cm_side *s, const uint8_t *p, uint32_t len, uint32_t at)
{
	struct window w = { .start = at - CM_EXCERPT };

	put(&w, 0, len, p);
	s->known = true;
	cut_out(s, &w);
}

/* --- TCP --- */

static void set_offset(struct cm_report *r, const struct flow *fl, uint32_t pos)
{
	const struct tcp_state *t = &fl->tcp;
	uint32_t first = tcp_knows(fl, T_SYN) ? t->isn + 1 : t->first;

	if (pos == first - 1) /* the SYN itself is no byte of the stream */
		return;
	r->origin = tcp_knows(fl, T_SYN) ? CM_OF_STREAM : CM_OF_SEEN;
	r->offset = pos - first;
}

static uint32_t data_seq(const struct frame *f)
{
	return f->seq + (f->flags & TCP_SYN ? 1 : 0);
}

/* what a frame (or NULL), and the buffers of a list, say around a position */
static void set_stream(struct cm_side *s, uint32_t pos, const struct frame *f, const struct buf *b)
{
	struct window w = { .start = pos - CM_EXCERPT };

	if (f)
		put(&w, data_seq(f), f->body_len, f->data + f->body);
	for (int i = 0; b && i < WALK; i++, b = b->next)
		put(&w, b->seq, b->body_len, b->data + b->off);
	cut_out(s, &w);
}

static const struct buf *held_at(const struct flow *fl, uint32_t pos)
{
	const struct buf *b = fl->held.head;

	while (b && !seq_after(b->end, pos))
		b = b->next;
	return b;
}

static void set_tcp(struct cm_report *r, const struct cm *cm, const struct flow *fl)
{
	const struct tcp_state *t = &fl->tcp;
	const struct buf *b = held_at(fl, t->matched);

	set_offset(r, fl, t->matched);
	set_stream(&r->pvm, t->matched, cm->at_svm ? NULL : cm->at, fl->held.head);
	if (!tcp_knows(fl, T_SYN_WAIT)) /* till then the SVM's count is another */
		set_stream(&r->svm, t->matched, cm->at_svm ? cm->at : NULL, fl->said.head);
	r->pvm.fin = tcp_knows(fl, T_PVM_FIN) && t->pvm_fin == t->matched;
	r->svm.fin = tcp_knows(fl, T_SVM_FIN) && t->svm_fin == t->matched;
	r->svm.rst = tcp_knows(fl, T_SVM_RST);
	r->pvm.known |= r->pvm.fin;
	r->svm.known |= r->svm.fin || r->svm.rst;
	if (b && (!cm->at || cm->at_svm))
		r->waited_us = time_since(b->time, r->time_us);
}

/* The PVM said something else before: where? Or it moves its FIN. */
static void set_repeat(struct cm_report *r, const struct cm *cm, const struct flow *fl)
{
	const struct frame *f = cm->at;
	uint32_t seq = data_seq(f), pos = seq + f->body_len;

	for (const struct buf *b = fl->held.head; b; b = b->next) {
		uint32_t from = seq_max(seq, b->seq), to = seq_min(seq + f->body_len, b->seq + b->body_len);

		while (seq_after(to, from) && f->data[f->body + (from - seq)] == b->data[b->off + (from - b->seq)])
			from++;
		if (seq_after(to, from))
			pos = seq_min(pos, from);
	}
	set_offset(r, fl, pos);
	set_stream(&r->pvm, pos, f, NULL);
	set_stream(&r->svm, pos, NULL, fl->held.head);
	r->pvm.fin = f->flags & TCP_FIN && pos == seq + f->body_len;
	r->svm.fin = tcp_knows(fl, T_PVM_FIN) && pos == fl->tcp.pvm_fin;
	r->pvm.known |= r->pvm.fin;
	r->svm.known |= r->svm.fin;
}

/* first difference of two SYNs' options, whose timestamps do not count */
static uint32_t options_differ(const struct frame *p, const struct frame *s)
{
	uint32_t n = p->opt_len < s->opt_len ? p->opt_len : s->opt_len, i = 0;

	while (i < n) {
		if (p->ts && s->ts == p->ts && p->opt + i == p->ts)
			i += 8;
		else if (p->data[p->opt + i] != s->data[s->opt + i])
			break;
		else
			i++;
	}
	return i < n ? i : n;
}

/* Only a hash is kept of a SVM's SYN that came first: then there is nothing to show of it. */
static void set_syn(struct cm_report *r, const struct cm *cm, const struct flow *fl)
{
	const struct buf *b = fl->held.head;
	struct frame pvm = *cm->at;

	while (cm->at_svm && b && !(b->flags & TCP_SYN))
		b = b->next;
	r->origin = CM_OF_OPTIONS;
	if (!cm->at_svm) {
		set_bytes(&r->pvm, pvm.data + pvm.opt, pvm.opt_len, 0);
		return;
	}
	if (b) {
		frame_parse(&pvm, b->data, b->len);
		r->offset = options_differ(&pvm, cm->at);
		r->waited_us = time_since(b->time, r->time_us);
		set_bytes(&r->pvm, pvm.data + pvm.opt, pvm.opt_len, r->offset);
	}
	set_bytes(&r->svm, cm->at->data + cm->at->opt, cm->at->opt_len, r->offset);
}

/* how far one VM acknowledged its peer's stream, from that stream's first byte if it is known */
static void set_ack(struct cm_report *r, const struct flow *fl, uint32_t pvm)
{
	const struct tcp_state *t = &fl->tcp;
	uint32_t from = tcp_knows(fl, T_SYN_ACK) ? t->syn_ack :
			tcp_knows(fl, T_PEER_SYN) ? t->peer_isn + 1 : t->ack_ok;

	r->svm.known = tcp_knows(fl, T_ACK_OK);
	r->pvm.known = r->svm.known || tcp_knows(fl, T_SYN_ACK | T_PEER_SYN);
	r->pvm.value = pvm - from;
	r->svm.value = r->svm.known ? t->ack_ok - from : 0;
}

static void set_window(struct cm_report *r, const struct flow *fl, const struct buf *b)
{
	struct frame f;

	frame_parse(&f, b->data, b->len);
	r->pvm.known = true;
	r->svm.known = tcp_knows(fl, T_SVM_WINDOW);
	r->pvm.value = (uint64_t)f.window << fl->tcp.wscale;
	r->svm.value = (uint64_t)fl->tcp.svm_window << fl->tcp.wscale;
}

/* --- datagrams --- */

/* Two that differ: the one just come and the oldest of the other VM, or the two that waited for longest. */
static const struct buf *differing(const struct cm *cm, const struct flow *fl, bool svm)
{
	const struct buf_list *l = svm ? &fl->said : &fl->held;

	return cm->at && cm->at_svm == svm ? l->tail : l->head;
}

static void set_body(struct cm_side *s, const struct buf *b, uint32_t at)
{
	struct window w = { .start = at - CM_EXCERPT };
	uint32_t pos = 0;

	s->known = true;
	s->value = b->at;
	for (; b; b = b->more) {
		put(&w, pos, b->body_len, b->data + b->off);
		pos += b->body_len;
	}
	cut_out(s, &w);
}

/* the ports, or ICMP's type, of a datagram in fragments are known to its flow only */
static void set_datagram(struct cm_report *r, const struct cm *cm, const struct flow *fl)
{
	const struct buf *p = differing(cm, fl, false), *s = differing(cm, fl, true);
	const struct flow_key *k = &fl->node.key;
	struct frame f;

	frame_parse(&f, p->data, p->len);
	set_flow(r, &f);
	r->gport = k->type == FRAME_ICMP ? 0 : k->gport;
	r->pport = k->type == FRAME_ICMP ? 0 : k->pport;
	r->icmp = k->type == FRAME_ICMP ? k->gport : 0;
	r->fragment = p->more || s->more;
	r->origin = CM_OF_PACKET;
	r->offset = dgram_difference(p, s);
	set_body(&r->pvm, p, r->offset);
	set_body(&r->svm, s, r->offset);
	r->waited_us = time_since(p->time, r->time_us);
}

/* --- frames for the capture --- */

/* b, and what is held behind it */
static void capture_held(const struct cm *cm, const struct cm_report *r, const struct buf *b, int max)
{
	for (int i = 0; b && i < max; i++, b = b->next) {
		cm->capture(cm->capture_opaque, r, false, b->time, b->data, b->len);
		for (const struct buf *m = b->flow ? b->more : NULL; m && ++i < max; m = m->more)
			cm->capture(cm->capture_opaque, r, false, m->time, m->data, m->len);
	}
}

static void capture_mismatch(const struct cm *cm, const struct cm_report *r, const struct flow *fl)
{
	bool tcp = fl->node.key.type == FRAME_TCP && r->kind != CM_KIND_SYN;

	if (!cm->capture)
		return;
	if (cm->at && !cm->at_svm && fl->node.key.type == FRAME_TCP)
		cm->capture(cm->capture_opaque, r, false, cm->at_time, cm->at->data, cm->at->len);
	capture_held(cm, r, tcp ? held_at(fl, fl->tcp.matched) : fl->held.head, CAPTURES);
	if (cm->at && cm->at_svm)
		cm->capture(cm->capture_opaque, r, true, cm->at_time, cm->at->data, cm->at->len);
}

/* --- what cm.c calls --- */

void explain_mismatch(struct cm *cm, const struct flow *fl, enum cm_kind kind)
{
	struct cm_report *r;

	if (kind == CM_KIND_DATAGRAM && (differing(cm, fl, false)->more || differing(cm, fl, true)->more))
		kind = CM_KIND_FRAGMENT;
	r = begin(cm, CM_MISMATCH, kind, cm->at_time);
	if (!r)
		return;
	if (fl->node.key.type == FRAME_TCP)
		set_flow(r, cm->at);
	if (kind == CM_KIND_SYN)
		set_syn(r, cm, fl);
	else if (kind == CM_KIND_REPEAT)
		set_repeat(r, cm, fl);
	else if (fl->node.key.type == FRAME_TCP)
		set_tcp(r, cm, fl);
	else
		set_datagram(r, cm, fl);
	capture_mismatch(cm, r, fl);
}


static const struct flow *flow_of(const struct cm *cm, const struct frame *f)
{
	struct flow_key k;

	flow_key_from_guest(&k, f);
	return (const struct flow *)flow_find(&cm->flows, &k);
}

static void set_bound(struct cm_report *r, uint64_t now, uint64_t bound)
{
	r->pvm.known = r->svm.known = true;
	r->pvm.value = now;
	r->svm.value = bound;
}

void explain_full(struct cm *cm, enum cm_kind kind)
{
	struct cm_report *r = begin(cm, CM_FULL, kind, cm->at_time);
	const struct flow *fl = cm->at ? flow_of(cm, cm->at) : NULL;

	if (!r)
		return;
	if (cm->at)
		set_flow(r, cm->at);
	if (kind == CM_KIND_FLOWS)
		set_bound(r, cm->flows.n, cm->flows.max);
	else if (kind == CM_KIND_HELD)
		set_bound(r, cm->pool.used, cm->cfg.max_held_bytes);
	else if (fl)
		set_bound(r, fl->said_bytes, CM_AHEAD_MAX);
}

/* is it held by its flow as that is now, and not left by an incarnation or entry of before? */
static bool holds(const struct flow *fl, const struct buf *b)
{
	const struct buf *h = fl ? fl->held.head : NULL;

	while (h && h != b)
		h = h->next;
	return h != NULL;
}

static enum cm_kind missing_kind(const struct flow *fl, const struct buf *b)
{
	const struct tcp_state *t = &fl->tcp;

	if (b == fl->owed)
		return b->shut ? CM_KIND_WINDOW : CM_KIND_NO_ACK;
	if (!holds(fl, b) || fl->node.key.type != FRAME_TCP)
		return CM_KIND_NO_ANSWER;
	if (tcp_knows(fl, T_SYN_WAIT))
		return CM_KIND_NO_SYN;
	if (b->flags & TCP_RST || tcp_knows(fl, T_SVM_RST))
		return CM_KIND_RESET;
	if (tcp_knows(fl, T_PVM_FIN) && t->pvm_fin == t->matched)
		return CM_KIND_NO_FIN;
	if (seq_after(b->end, t->matched))
		return CM_KIND_NO_ANSWER;
	return !tcp_knows(fl, T_ACK_OK) || seq_after(b->ack, t->ack_ok) ? CM_KIND_NO_ACK : CM_KIND_URGENT;
}

static void set_missing(struct cm_report *r, const struct cm *cm, const struct flow *fl, const struct buf *b,
	const struct frame *f)
{
	if (r->kind == CM_KIND_WINDOW) {
		set_window(r, fl, b);
	} else if (r->kind == CM_KIND_NO_ACK) {
		set_ack(r, fl, b->ack);
	} else if (f->type == FRAME_TCP && holds(fl, b)) {
		set_tcp(r, cm, fl);
		r->pvm.rst = b->flags & TCP_RST;
		r->pvm.known |= r->pvm.rst;
	} else {
		r->origin = CM_OF_PACKET;
		r->pvm.value = f->body_len;
		set_bytes(&r->pvm, f->data + f->body, f->body_len, 0);
	}
	r->waited_us = time_since(b->time, r->time_us);
}

void explain_missing(struct cm *cm, uint64_t now)
{
	const struct buf *b = cm_waiting(cm).b;
	const struct flow *fl;
	struct cm_report *r;
	struct frame f;

	if (!b)
		return;
	frame_parse(&f, b->data, b->len);
	fl = flow_of(cm, &f);
	r = begin(cm, CM_MISSING, fl ? missing_kind(fl, b) : CM_KIND_NO_ANSWER, now);
	if (!r)
		return;
	set_flow(r, &f);
	set_missing(r, cm, fl, b, &f);
	if (b == cm->acks.head && r->patience_us < cm->cfg.wait_max_us / 2)
		r->patience_us = cm->cfg.wait_max_us / 2;
	if (cm->capture)
		capture_held(cm, r, b, holds(fl, b) ? CAPTURES : 1);
}

/* --- words --- */

static void put_address(char *text, size_t size, const struct cm_report *r, const uint8_t *a, uint16_t port)
{
	char ip[INET6_ADDRSTRLEN] = "";
	bool ports = (r->proto == IPPROTO_TCP || r->proto == IPPROTO_UDP) && (r->gport || r->pport);

	if (!r->family) {
		snprintf(text, size, "%02x:%02x:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3], a[4], a[5]);
		return;
	}
	inet_ntop(r->family == 4 ? AF_INET : AF_INET6, a, ip, sizeof(ip));
	if (!ports)
		snprintf(text, size, "%s", ip);
	else
		snprintf(text, size, r->family == 4 ? "%s:%u" : "[%s]:%u", ip, port);
}

static void put_protocol(char *text, size_t size, const struct cm_report *r)
{
	if (!r->family)
		snprintf(text, size, "ethertype %04x", r->ethertype);
	else if (r->proto == IPPROTO_TCP)
		snprintf(text, size, "tcp");
	else if (r->proto == IPPROTO_UDP)
		snprintf(text, size, "udp");
	else if (r->proto == IPPROTO_ICMP || r->proto == IPPROTO_ICMPV6)
		snprintf(text, size, "icmp%s type %u code %u", r->family == 6 ? "v6" : "", r->icmp >> 8,
			 r->icmp & 0xff);
	else
		snprintf(text, size, "ip protocol %u", r->proto);
}

void cm_report_flow(const struct cm_report *r, char *text, size_t size)
{
	char protocol[40], guest[64], peer[64], vlan[16] = "";

	if (!r->has_flow) {
		snprintf(text, size, "no flow");
		return;
	}
	put_protocol(protocol, sizeof(protocol), r);
	put_address(guest, sizeof(guest), r, r->guest, r->gport);
	put_address(peer, sizeof(peer), r, r->peer, r->pport);
	if (r->vlan)
		snprintf(vlan, sizeof(vlan), ", vlan %u", r->vlan & 0xfffu);
	snprintf(text, size, "%s %s to %s%s%s", protocol, guest, peer, vlan, r->fragment ? ", fragment" : "");
}

static void put_tcp(char *text, size_t size, const struct flow *fl, const struct buf *b)
{
	const struct tcp_state *t = &fl->tcp;

	snprintf(text, size, "%s%s%s%s, %u bytes from %+d to %+d of what matched, acknowledgement %+d of the "
		 "allowed, SVM ahead %u bytes%s%s%s",
		 b->flags & TCP_SYN ? " SYN" : "", b->flags & TCP_FIN ? " FIN" : "",
		 b->flags & TCP_RST ? " RST" : "", fl->bad ? " differs" : "", b->body_len,
		 (int32_t)(b->seq - t->matched), (int32_t)(b->end - t->matched),
		 (int32_t)(b->ack - t->ack_ok), fl->said_bytes, t->known & T_SVM_FIN ? ", SVM's FIN is there" : "",
		 t->known & T_SYN_WAIT ? ", SVM's SYN is missing" : "",
		 t->known & T_ACK_OK ? "" : ", no acknowledgement of the SVM");
}

void cm_explain(const struct cm *cm, uint64_t now, char *text, size_t size)
{
	const struct buf *b = cm_waiting(cm).b;
	bool owed = b && b == cm->acks.head;
	struct cm_report r = { 0 };
	const struct flow *fl;
	struct frame f;
	char where[200];
	int n;

	snprintf(text, size, "nothing is held");
	if (!b)
		return;
	frame_parse(&f, b->data, b->len);
	fl = flow_of(cm, &f);
	set_flow(&r, &f);
	cm_report_flow(&r, where, sizeof(where));
	n = snprintf(text, size, "%s %llu ms old of %s", owed ? "owed acknowledgement" : "frame",
		     (unsigned long long)time_since(b->time, now) / 1000, where);
	if (fl && f.type == FRAME_TCP && n < (int)size)
		put_tcp(text + n, size - n, fl, b);
}
