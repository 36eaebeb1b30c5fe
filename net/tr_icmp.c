/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tr_icmp.c - ICMP and ICMPv6 errors about segments of translated connections
 *
 * An error quotes the segment it is about, which the receiver uses to find the connection (ports) and to
 * see that the error is no forgery (sequence number). Errors for the SVM quote what the guest sent, in the
 * LAN's terms: guest's port and sequence number are rewritten. Errors of the SVM quote what it received:
 * guest's port, and the ACK number if the quote goes that far. The rest of a quote (its options and
 * checksum) stays as it is, receivers do not use it.
 */
#include <string.h>

#include "tr_priv.h"

enum {
	ICMP_UNREACH = 3, ICMP_QUENCH = 4, ICMP_REDIRECT = 5, ICMP_TIME = 11, ICMP_PARAMETER = 12,
	ICMP6_UNREACH = 1, ICMP6_PARAMETER = 4,
	P_HOPOPT = 0, P_TCP = 6, P_ROUTE = 43, P_FRAG = 44, P_DSTOPT = 60,
	EXT_MAX = 8,
};

/* offsets in the frame */
struct quote {
	uint32_t ip, l4, end;
	const uint8_t *src, *dst;
	uint32_t addr_len;
};

/* the one accessor: n bytes of the frame at off, inside the quote, or NULL */
static const uint8_t *quote_at(const struct frame *f, const struct quote *q, uint32_t off, uint32_t n)
{
	if (off > q->end || n > q->end - off)
		return NULL;
	return f->data + off;
}

static bool is_error(const struct frame *f)
{
	uint32_t type = f->sport >> 8;

	if (f->family == 6)
		return type >= ICMP6_UNREACH && type <= ICMP6_PARAMETER;
	return type == ICMP_UNREACH || type == ICMP_QUENCH || type == ICMP_REDIRECT || type == ICMP_TIME ||
	       type == ICMP_PARAMETER;
}

static bool quoted_tcp4(const struct frame *f, struct quote *q)
{
	const uint8_t *ip = quote_at(f, q, q->ip, 20);

	if (!ip || ip[0] >> 4 != 4 || (ip[0] & 15) < 5 || ip[9] != P_TCP || frame_be16(ip + 6) & 0x1fff)
		return false;
	q->src = ip + 12;
	q->dst = ip + 16;
	q->addr_len = 4;
	q->l4 = q->ip + (ip[0] & 15) * 4u;
	return true;
}

static bool quoted_tcp6(const struct frame *f, struct quote *q)
{
	const uint8_t *ip = quote_at(f, q, q->ip, 40), *p;
	uint8_t proto;

	if (!ip || ip[0] >> 4 != 6)
		return false;
	q->src = ip + 8;
	q->dst = ip + 24;
	q->addr_len = 16;
	q->l4 = q->ip + 40;
	proto = ip[6];
	for (int i = 0; i < EXT_MAX && proto != P_TCP; i++) {
		p = quote_at(f, q, q->l4, 8);
		if (!p || (proto != P_HOPOPT && proto != P_ROUTE && proto != P_DSTOPT && proto != P_FRAG))
			return false;
		if (proto == P_FRAG && frame_be16(p + 2) & 0xfff8)
			return false;
		q->l4 += proto == P_FRAG ? 8 : (p[1] + 1u) * 8;
		proto = p[0];
	}
	return proto == P_TCP;
}

static void quote_key(const struct tr *tr, struct tr_key *key, const struct frame *f, const struct quote *q,
	bool guests)
{
	uint16_t sport = frame_be16(f->data + q->l4), dport = frame_be16(f->data + q->l4 + 2);

	memset(key, 0, sizeof(*key));
	memcpy(key->k.guest, guests ? q->src : q->dst, q->addr_len);
	memcpy(key->k.peer, guests ? q->dst : q->src, q->addr_len);
	key->port = guests ? sport : dport;
	key->k.pport = guests ? dport : sport;
	key->k.vlan = f->vlan;
	key->k.ethertype = f->ethertype;
	key->k.proto = P_TCP;
	key->k.type = FRAME_TCP;
	tr_key_hash(tr, key);
}

static void set_port(uint8_t *frame, const struct frame *f, const struct quote *q, bool src, uint16_t port)
{
	uint32_t both = frame_be32(frame + q->l4);

	both = src ? (uint32_t)port << 16 | (both & 0xffff) : (both & 0xffff0000u) | port;
	frame_set32(frame, f, f->l4 + 2, q->l4, both);
}

static void rewrite(uint8_t *frame, const struct frame *f, const struct quote *q, const struct tr_entry *e,
	bool guests)
{
	uint32_t off = q->l4 + (guests ? 4 : 8), delta = guests ? -e->dseq : e->dseq;

	set_port(frame, f, q, guests, e->port[guests ? TR_SVM : TR_PVM]);
	if (quote_at(f, q, off, 4))
		frame_set32(frame, f, f->l4 + 2, off, frame_be32(frame + off) + delta);
}

bool tr_icmp(const struct tr *tr, uint8_t *frame, const struct frame *f, enum tr_side from)
{
	struct quote q = { .ip = f->body + 4, .end = f->body + f->body_len }; /* body: after the checksum */
	bool guests = from == TR_PVM; /* of the quoted segment, the LAN's errors are about the guest's */
	struct tr_entry *e;
	struct tr_key key;

	if (!is_error(f) || !(f->family == 4 ? quoted_tcp4(f, &q) : quoted_tcp6(f, &q)) ||
	    !quote_at(f, &q, q.l4, 8))
		return true;
	quote_key(tr, &key, f, &q, guests);
	e = tr_find(tr, &key, from, key.port);
	if (!e) /* older than the checkpoint, unless the name is another's on the other side */
		return !tr_find(tr, &key, tr_other(from), key.port);
	if (!tr_whole(e))
		return false;
	rewrite(frame, f, &q, e, guests);
	return true;
}
