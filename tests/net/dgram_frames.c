/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dgram_frames.c - see dgram_frames.h
 */
#include "dgram_frames.h"

static uint8_t *p8(uint8_t *p, uint32_t v)
{
	*p = (uint8_t)v;
	return p + 1;
}

static uint8_t *p16(uint8_t *p, uint32_t v)
{
	return p8(p8(p, v >> 8), v);
}

static uint8_t *p32(uint8_t *p, uint32_t v)
{
	return p16(p16(p, v >> 16), v);
}

static uint8_t *put(uint8_t *p, const void *from, size_t n)
{
	if (n)
		memcpy(p, from, n);
	return p + n;
}

static uint8_t *put_eth(uint8_t *p, bool to_guest, const uint8_t *dst, const struct ip_spec *s,
	uint16_t type)
{
	memset(p, 0, VNET_HLEN);
	p = put(p + VNET_HLEN, dst ? (const void *)dst : to_guest ? MAC_GUEST : MAC_PEER, 6);
	p = put(p, to_guest ? MAC_PEER : MAC_GUEST, 6);
	for (unsigned i = 0; i < s->tags; i++)
		p = p16(p16(p, i + 1 < s->tags ? 0x88a8 : 0x8100), s->vid[i]);
	return p16(p, type);
}

static uint8_t *put_ip4(uint8_t *p, const struct ip_spec *s)
{
	uint32_t guest = 0x0a000002, peer = 0x0a010000 + s->peer;

	p = p16(p16(p, 0x4500), 20 + (uint32_t)s->len);
	p = p16(p16(p, s->id), (s->frag ? s->offset / 8 : 0) | (s->frag && s->more ? 0x2000 : 0));
	p = p16(p8(p8(p, s->ttl ? s->ttl : 64), s->proto), 0);
	return p32(p32(p, s->to_guest ? peer : guest), s->to_guest ? guest : peer);
}

static uint8_t *put_addr6(uint8_t *p, uint32_t low)
{
	return p32(p32(p32(p32(p, 0xfd000000), 0), 0), low);
}

static uint8_t *put_ip6(uint8_t *p, const struct ip_spec *s)
{
	p = p16(p32(p, 0x60000000), (uint32_t)s->len + (s->frag ? 8 : 0));
	p = p8(p8(p, s->frag ? 44 : s->proto), s->ttl ? s->ttl : 64);
	p = put_addr6(p, s->to_guest ? s->peer + 2 : 1);
	p = put_addr6(p, s->to_guest ? 1 : s->peer + 2);
	if (!s->frag)
		return p;
	return p32(p16(p8(p8(p, s->proto), 0), s->offset | s->more), s->id);
}

size_t build_ip(uint8_t *out, const struct ip_spec *s)
{
	uint8_t *p = put_eth(out, s->to_guest, NULL, s, s->v6 ? 0x86dd : 0x0800);

	p = s->v6 ? put_ip6(p, s) : put_ip4(p, s);
	return (size_t)(put(p, s->payload, s->len) - out);
}

size_t build_raw(uint8_t *out, const uint8_t dst[6], const struct ip_spec *tags, uint16_t type,
	const void *payload, size_t n)
{
	static const struct ip_spec none;

	return (size_t)(put(put_eth(out, false, dst, tags ? tags : &none, type), payload, n) - out);
}

size_t put_udp(uint8_t *out, uint16_t sport, uint16_t dport, const void *data, size_t n, uint16_t sum)
{
	uint8_t *p = p16(p16(out, sport), dport);

	p = p16(p16(p, 8 + (uint32_t)n), sum);
	return (size_t)(put(p, data, n) - out);
}

size_t put_icmp(uint8_t *out, uint8_t type, uint8_t code, uint32_t rest, const void *data, size_t n)
{
	uint8_t *p = p32(p16(p8(p8(out, type), code), 0), rest);

	return (size_t)(put(p, data, n) - out);
}

static uint8_t *put_asker(uint8_t *p, uint32_t from)
{
	return p32(p, from ? 0x0a010000 + from : 0);
}

size_t build_arp_of(uint8_t *out, bool to_guest, unsigned op, uint32_t from, uint32_t target)
{
	static const struct ip_spec none;
	uint8_t *p = put_eth(out, to_guest, NULL, &none, 0x0806);

	p = p16(put(p, "\0\1\x08\0\6\4", 6), op);
	p = put_asker(put(p, to_guest ? MAC_PEER : MAC_GUEST, 6), from);
	p = put_asker(put(p, "\0\0\0\0\0\0", 6), target);
	return (size_t)(p - out);
}

size_t build_nd(uint8_t *out, bool to_guest, uint8_t type, uint32_t from, uint32_t target)
{
	uint8_t m[64] = { type }, *p = m + 8;
	struct ip_spec s = { .v6 = true, .to_guest = to_guest, .proto = 58, .ttl = 255, .payload = m };
	size_t n;

	if (type == 135 || type == 136)
		p = put_addr6(p, target);
	if (type == 135 || type == 133)
		p = put(p8(p8(p, 1), 1), to_guest ? MAC_PEER : MAC_GUEST, 6);
	s.len = (size_t)(p - m);
	n = build_ip(out, &s);
	if (!from)
		memset(out + VNET_HLEN + 14 + 8, 0, 16);
	else
		put_addr6(out + VNET_HLEN + 14 + 8, from);
	return n;
}
