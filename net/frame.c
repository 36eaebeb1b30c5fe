/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * frame.c - parse frames through one checked accessor, and rewrite TCP headers in place
 */
#include <string.h>

#include "frame.h"

enum {
	ETH_IP4 = 0x0800, ETH_ARP = 0x0806, ETH_RARP = 0x8035, ETH_IP6 = 0x86dd,
	ETH_VLAN = 0x8100, ETH_QINQ = 0x88a8,
	IP_HOPOPT = 0, IP_ICMP = 1, IP_IGMP = 2, IP_TCP = 6, IP_UDP = 17, IP_ROUTE = 43,
	IP_FRAG = 44, IP_ICMP6 = 58, IP_DSTOPT = 60,
	VNET_NEEDS_CSUM = 1,
	TCP_HLEN = 20, TCP_WINDOW = 14, TCP_CSUM = 16, UDP_HLEN = 8, IP6_HLEN = 40, IP6_EXT_MAX = 8,
	ICMP_HLEN = 8, ICMP_BODY = 4, /* type, code and checksum are not body */
	ICMP4_ERROR_MAX = 576, ICMP6_ERROR_MAX = 1280, /* RFC 1812 4.3.2.3, RFC 4443 2.4 (c) */
};

static void set_body(struct frame *f, uint32_t off, uint32_t end)
{
	f->body = off;
	f->body_len = end - off;
}

/* one option of at least two bytes at off; false: stop */
static void take_option(struct frame *f, uint32_t off, uint8_t kind, uint8_t len)
{
	if (kind == 3 && len == 3)
		f->wscale = f->data[off + 2];
	if (kind == 8 && len == 10 && !f->ts)
		f->ts = off + 2;
	if (kind == 5 && len >= 10 && (len - 2) % 8 == 0 && !f->sack) {
		f->sack = off + 2;
		f->sack_n = (len - 2u) / 8;
	}
}

static void parse_tcp_options(struct frame *f)
{
	static const uint8_t usual[4] = { 1, 1, 8, 10 }; /* a timestamp, aligned, and nothing else */
	uint32_t off = f->opt, end = f->opt + f->opt_len;
	const uint8_t *all = f->opt_len == 12 ? frame_at(f, off, 12) : NULL;

	if (all && memcmp(all, usual, 4) == 0) {
		f->ts = off + 4;
		return;
	}
	while (off < end) {
		const uint8_t *p = frame_at(f, off, 1);

		if (!p || p[0] == 0)
			return;
		if (p[0] == 1) {
			off++;
			continue;
		}
		p = frame_at(f, off, 2);
		if (!p || p[1] < 2 || p[1] > end - off)
			return;
		take_option(f, off, p[0], p[1]);
		off += p[1];
	}
}

static enum frame_type parse_tcp(struct frame *f, uint32_t end)
{
	const uint8_t *p = frame_at(f, f->l4, TCP_HLEN);
	uint32_t hlen;

	if (!p || end - f->l4 < TCP_HLEN)
		return FRAME_IP;
	hlen = (p[12] >> 4) * 4u;
	if (hlen < TCP_HLEN || hlen > end - f->l4)
		return FRAME_IP;
	f->sport = frame_be16(p);
	f->dport = frame_be16(p + 2);
	f->seq = frame_be32(p + 4);
	f->ack = frame_be32(p + 8);
	f->flags = p[13];
	f->window = frame_be16(p + TCP_WINDOW);
	f->wscale = 0xff;
	f->opt = f->l4 + TCP_HLEN;
	f->opt_len = hlen - TCP_HLEN;
	set_body(f, f->l4 + hlen, end);
	parse_tcp_options(f);
	return FRAME_TCP;
}

static enum frame_type parse_udp(struct frame *f, uint32_t end)
{
	const uint8_t *p = frame_at(f, f->l4, UDP_HLEN);
	uint32_t ulen;

	if (!p || end - f->l4 < UDP_HLEN)
		return FRAME_IP;
	ulen = frame_be16(p + 4);
	if (ulen != end - f->l4) /* what lies behind would be neither header nor payload */
		return FRAME_IP;
	f->sport = frame_be16(p);
	f->dport = frame_be16(p + 2);
	set_body(f, f->l4 + UDP_HLEN, f->l4 + ulen);
	return FRAME_UDP;
}

static bool is_echo(const struct frame *f, uint8_t type)
{
	return f->family == 4 ? type == 0 || type == 8 : type == 128 || type == 129;
}

/* neighbour and router discovery, redirect, multicast listeners */
static bool is_icmp6_of_link(const struct frame *f, uint8_t type)
{
	return f->family == 6 && ((type >= 130 && type <= 137) || type == 143);
}

/* the message at l4 ends at `end`: does it quote a packet that its receiver sent, and not much more? */
static bool is_icmp_error(const struct frame *f, uint8_t type, uint32_t end)
{
	bool v6 = f->family == 6;
	const uint8_t *quoted = frame_at(f, f->l4 + ICMP_HLEN, v6 ? IP6_HLEN : 20u);
	const uint8_t *ip = f->data + f->l3;
	uint32_t hlen = v6 ? IP6_HLEN : 20;

	if (v6 ? type < 1 || type > 4 : type != 3 && type != 4 && type != 5 && type != 11 && type != 12)
		return false;
	if (!quoted || end < f->l4 + ICMP_HLEN + hlen || quoted[0] >> 4 != f->family ||
	    end - f->l3 > (v6 ? ICMP6_ERROR_MAX : ICMP4_ERROR_MAX))
		return false;
	return memcmp(quoted + (v6 ? 8 : 12), ip + (v6 ? 24 : 16), v6 ? 16 : 4) == 0;
}

/* the key of an echo is its id, of anything else its type and code; the body leaves the checksum out */
static enum frame_type parse_icmp(struct frame *f, uint32_t end)
{
	const uint8_t *p = frame_at(f, f->l4, ICMP_HLEN);

	if (!p || end - f->l4 < ICMP_HLEN)
		return FRAME_IP;
	f->sport = frame_be16(p);
	if (is_icmp6_of_link(f, p[0]))
		return FRAME_PASS;
	f->error = is_icmp_error(f, p[0], end);
	f->extra = is_echo(f, p[0]) ? frame_be16(p + 4) : 0;
	set_body(f, f->l4 + ICMP_BODY, end);
	return FRAME_ICMP;
}

static enum frame_type parse_l4(struct frame *f, uint32_t end)
{
	set_body(f, f->l4, end);
	if (f->proto == IP_TCP)
		return parse_tcp(f, end);
	if (f->proto == IP_UDP)
		return parse_udp(f, end);
	if (f->proto == (f->family == 4 ? IP_ICMP : IP_ICMP6))
		return parse_icmp(f, end);
	if (f->family == 4 && f->proto == IP_IGMP)
		return FRAME_PASS;
	return FRAME_IP;
}

static enum frame_type parse_ip4(struct frame *f)
{
	const uint8_t *p = frame_at(f, f->l3, 20);
	uint32_t hlen, total;

	if (!p || p[0] >> 4 != 4)
		return FRAME_OTHER;
	hlen = (p[0] & 15) * 4u;
	total = frame_be16(p + 2);
	if (hlen < 20 || total < hlen || !frame_at(f, f->l3, total))
		return FRAME_OTHER;
	f->family = 4;
	f->proto = p[9];
	f->l4 = f->l3 + hlen;
	f->frag = frame_be16(p + 6) & 0x3fff; /* without DF */
	if (f->frag) {
		set_body(f, f->l4, f->l3 + total);
		return FRAME_FRAG;
	}
	return parse_l4(f, f->l3 + total);
}

/* walk over extension headers to the transport; false: nothing closer can be said */
static bool skip_ip6_ext(struct frame *f, uint32_t end)
{
	for (int i = 0; i < IP6_EXT_MAX; i++) {
		const uint8_t *p;
		uint32_t n;

		if (f->proto != IP_HOPOPT && f->proto != IP_ROUTE && f->proto != IP_DSTOPT)
			return true;
		p = frame_at(f, f->l4, 8);
		if (!p || end - f->l4 < 8)
			return false;
		n = (p[1] + 1u) * 8;
		if (n > end - f->l4)
			return false;
		f->proto = p[0];
		f->l4 += n;
	}
	return false;
}

static enum frame_type parse_ip6(struct frame *f)
{
	const uint8_t *p = frame_at(f, f->l3, IP6_HLEN);
	uint32_t end;

	if (!p || p[0] >> 4 != 6)
		return FRAME_OTHER;
	end = IP6_HLEN + frame_be16(p + 4);
	if (!frame_at(f, f->l3, end))
		return FRAME_OTHER;
	end += f->l3;
	f->family = 6;
	f->proto = p[6];
	f->l4 = f->l3 + IP6_HLEN;
	set_body(f, f->l4, end);
	if (!skip_ip6_ext(f, end))
		return FRAME_IP;
	set_body(f, f->l4, end);
	if (f->proto != IP_FRAG)
		return parse_l4(f, end);
	p = frame_at(f, f->l4, 8);
	if (!p || end - f->l4 < 8)
		return FRAME_IP;
	f->proto = p[0];
	f->frag = frame_be16(p + 2);
	set_body(f, f->l4 + 8, end);
	return FRAME_FRAG;
}

static enum frame_type parse_l3(struct frame *f)
{
	switch (f->ethertype) {
	case ETH_IP4:
		return parse_ip4(f);
	case ETH_IP6:
		return parse_ip6(f);
	case ETH_ARP:
	case ETH_RARP:
		return FRAME_PASS;
	default:
		return FRAME_OTHER;
	}
}

/* IEEE 802.1Q 8.6.3: group addresses 01:80:c2:00:00:0x, which no bridge forwards (STP, LACP, LLDP, ...) */
static bool stays_on_link(const uint8_t *dst)
{
	static const uint8_t reserved[5] = { 0x01, 0x80, 0xc2, 0x00, 0x00 };

	return dst[0] == reserved[0] && memcmp(dst, reserved, 5) == 0 && dst[5] < 16;
}

static void skip_tags(struct frame *f)
{
	for (int i = 0; i < 2 && (f->ethertype == ETH_VLAN || f->ethertype == ETH_QINQ); i++) {
		const uint8_t *p = frame_at(f, f->l3, 4);

		if (!p)
			return;
		f->vlan = f->vlan << 16 | 0x1000 | (frame_be16(p) & 0xfff);
		f->ethertype = frame_be16(p + 2);
		f->l3 += 4;
	}
}

enum frame_type frame_parse(struct frame *f, const uint8_t *data, size_t len)
{
	memset(f, 0, sizeof(*f));
	f->data = data;
	if (len < FRAME_ETH + FRAME_ETH_HLEN || len > NET_FRAME_MAX)
		return f->type = FRAME_BAD;
	f->len = (uint32_t)len;
	f->partial = data[0] & VNET_NEEDS_CSUM;
	f->ethertype = frame_be16(data + FRAME_ETH + 12);
	f->l3 = FRAME_ETH + FRAME_ETH_HLEN;
	skip_tags(f);
	set_body(f, f->l3, f->len);
	if (stays_on_link(data + FRAME_ETH))
		return f->type = FRAME_PASS;
	f->type = parse_l3(f);
	if (f->type == FRAME_OTHER)
		set_body(f, f->l3, f->len);
	return f->type;
}

uint32_t frame_frag_offset(const struct frame *f)
{
	return f->family == 4 ? (f->frag & 0x1fffu) * 8 : f->frag & 0xfff8u;
}

bool frame_frag_more(const struct frame *f)
{
	return f->frag & (f->family == 4 ? 0x2000 : 1);
}

uint32_t frame_frag_id(const struct frame *f)
{
	return f->family == 4 ? frame_be16(f->data + f->l3 + 4) : frame_be32(f->data + f->l4 + 4);
}

uint32_t frame_frag_whole(struct frame *f, const uint8_t *first, uint32_t n, uint32_t len)
{
	f->type = FRAME_IP;
	if (n < 8)
		return 0;
	if (f->proto == IP_UDP && frame_be16(first + 4) == len) {
		f->type = FRAME_UDP;
		f->sport = frame_be16(first);
		f->dport = frame_be16(first + 2);
		return UDP_HLEN;
	}
	if (f->proto == (f->family == 4 ? IP_ICMP : IP_ICMP6)) {
		f->type = FRAME_ICMP;
		f->sport = frame_be16(first);
		f->extra = is_echo(f, first[0]) ? frame_be16(first + 4) : 0;
		return ICMP_BODY;
	}
	return 0;
}

static uint32_t csum_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* RFC 1624, byte by byte so that any alignment is right. The pseudo-header's sum covers no byte of
 * layer 4, so where that is all there is nothing changes. */
static void set_bytes(uint8_t *data, const struct frame *f, uint32_t csum, uint32_t off,
	const uint8_t *bytes, uint32_t n)
{
	uint32_t sum = (uint16_t)~frame_be16(data + csum);

	if (f->partial) {
		memcpy(data + off, bytes, n);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint8_t *p = data + off + i;
		unsigned shift = (off + i - f->l4) & 1 ? 0 : 8;

		sum += (uint16_t) ~((unsigned)*p << shift);
		sum += (unsigned)bytes[i] << shift;
		*p = bytes[i];
	}
	sum = ~csum_fold(sum);
	data[csum] = (uint8_t)(sum >> 8);
	data[csum + 1] = (uint8_t)sum;
}

void frame_set32(uint8_t *data, const struct frame *f, uint32_t csum, uint32_t off, uint32_t value)
{
	const uint8_t b[4] = { (uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
		(uint8_t)value };

	set_bytes(data, f, csum, off, b, 4);
}

void frame_tcp_set32(uint8_t *data, const struct frame *f, uint32_t off, uint32_t value)
{
	frame_set32(data, f, f->l4 + TCP_CSUM, off, value);
}

void frame_tcp_set_window(uint8_t *data, const struct frame *f, uint16_t window)
{
	const uint8_t b[2] = { (uint8_t)(window >> 8), (uint8_t)window };

	set_bytes(data, f, f->l4 + TCP_CSUM, f->l4 + TCP_WINDOW, b, 2);
}

void frame_tcp_drop_sack(uint8_t *data, const struct frame *f)
{
	uint8_t pad[40];

	if (!f->sack)
		return;
	memset(pad, 1, sizeof(pad));
	set_bytes(data, f, f->l4 + TCP_CSUM, f->sack - 2, pad, 2 + 8 * f->sack_n);
}

static uint32_t csum_add(uint32_t sum, const uint8_t *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	return sum;
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* lengths and IPv4 header checksum of a frame cut to n bytes */
static void fix_ip(uint8_t *out, const struct frame *f, uint32_t n)
{
	uint8_t *ip = out + f->l3;

	if (f->family == 6) {
		put16(ip + 4, n - f->l3 - IP6_HLEN);
		return;
	}
	put16(ip + 2, n - f->l3);
	put16(ip + 10, 0);
	put16(ip + 10, ~csum_fold(csum_add(0, ip, f->l4 - f->l3)));
}

uint32_t frame_make_ack(uint8_t *out, const struct frame *f, uint32_t seq)
{
	uint32_t n = f->body, sum;
	uint8_t *tcp = out + f->l4;

	if (n > FRAME_ACK_MAX)
		return 0;
	memset(out, 0, FRAME_ETH);
	memcpy(out + FRAME_ETH, f->data + FRAME_ETH, n - FRAME_ETH);
	fix_ip(out, f, n);
	tcp[4] = (uint8_t)(seq >> 24);
	tcp[5] = (uint8_t)(seq >> 16);
	put16(tcp + 6, seq);
	tcp[13] = TCP_ACK | (f->flags & 0x40); /* and the congestion echo */
	put16(tcp + TCP_CSUM, 0);
	put16(tcp + 18, 0); /* urgent pointer */
	sum = f->family == 4 ? csum_add(0, out + f->l3 + 12, 8) : csum_add(0, out + f->l3 + 8, 32);
	sum += IP_TCP + (n - f->l4);
	put16(tcp + TCP_CSUM, ~csum_fold(csum_add(sum, tcp, n - f->l4)));
	return n;
}

static uint64_t mix(uint64_t h, uint8_t byte)
{
	return (h ^ byte) * 0x100000001b3u;
}

uint64_t frame_syn_options(const struct frame *f)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (uint32_t i = f->opt; i < f->opt + f->opt_len; i++) {
		bool ts = f->ts && i >= f->ts && i < f->ts + 8;

		h = mix(h, ts ? 0 : f->data[i]);
	}
	return h;
}
