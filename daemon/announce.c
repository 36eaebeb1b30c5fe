/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * announce.c - see announce.h
 *
 * Theory of operation
 *
 * The survivor's guest has MAC and addresses that the LAN knows; what the LAN does not know is behind which
 * port of which switch it is now. Any frame from the MAC tells switches, in each VLAN separately: a RARP
 * request does, as QEMU announces a guest that has moved. An ARP announcement for each IPv4 address and an
 * unsolicited neighbour advertisement for each IPv6 address tell neighbours besides, among them those that
 * filter by address or count the MAC as gone.
 *
 * Only addresses that are surely the guest's own may be announced: announcing another host's would take
 * its traffic away. They are learnt from ARP and neighbour discovery, and from IP packets only with a
 * TTL that a host sends with, for what the guest forwards has one less. Probes for duplicate addresses
 * are sent from no address, and not learnt from. What was not seen for STALE_US, counted from the guest's
 * last frame, is not announced, it may be another's by now. In a full table the one not seen for longest goes.
 */
#include "daemon/announce.h"

#include <string.h>

#include "net/frame.h"

#define STALE_US 600000000ull

enum {
	ETH_MIN = 60, RARP = 0x8035, ARP = 0x0806, IP6 = 0x86dd,
	ARP_LEN = 28, ARP_OP = 6, ARP_SHA = 8, ARP_SPA = 14, ARP_THA = 18, ARP_TPA = 24,
	ICMP6 = 58, ND_NS = 135, ND_NA = 136, NA_TARGET = 8, NA_LEN = 32, IP6_HLEN = 40,
	NA_ROUTER = 0x80, NA_OVERRIDE = 0x20,
	FRAME_LEN = VNET_HLEN + 14 + ANNOUNCE_TAGS_MAX + IP6_HLEN + NA_LEN,
};

void announce_init(struct announce *a, const uint8_t mac[6])
{
	memset(a, 0, sizeof(*a));
	memcpy(a->mac, mac, 6);
}

static struct announce_address address_of(const struct frame *f, uint8_t family, const uint8_t *ip)
{
	struct announce_address d = { .family = family };
	const uint8_t *tags = f->data + FRAME_ETH + 12;
	uint32_t n = f->l3 - FRAME_ETH - FRAME_ETH_HLEN;

	if (family)
		memcpy(d.ip, ip, family == 4 ? 4 : 16);
	memcpy(d.tags, tags, n <= ANNOUNCE_TAGS_MAX ? n : 0);
	d.tags_len = n;
	for (uint32_t i = 2; i < d.tags_len; i += 4)
		d.tags[i] &= 0x0f;
	return d;
}

static bool unusable(uint8_t family, const uint8_t *ip)
{
	static const uint8_t none[16];

	return memcmp(ip, none, family == 4 ? 4 : 16) == 0 || (family == 4 ? ip[0] >= 224 : ip[0] == 0xff);
}

static bool same(const struct announce_address *x, const struct announce_address *y)
{
	return x->family == y->family && x->tags_len == y->tags_len && !memcmp(x->ip, y->ip, 16) &&
	       !memcmp(x->tags, y->tags, ANNOUNCE_TAGS_MAX);
}

/* its place, a free one, or that of the one not seen for longest */
static unsigned int place_of(const struct announce *a, const struct announce_address *d)
{
	unsigned int i, oldest = 0;

	if (a->last < a->n && same(&a->address[a->last], d))
		return a->last; /* most often it is that of the frame before */
	for (i = 0; i < a->n; i++) {
		if (same(&a->address[i], d))
			return i;
		if (a->address[i].seen_us < a->address[oldest].seen_us)
			oldest = i;
	}
	return a->n < ANNOUNCE_ADDRESSES ? a->n : oldest;
}

static void remember(struct announce *a, const struct frame *f, uint8_t family, const uint8_t *ip,
		     uint64_t now_us)
{
	struct announce_address d;
	unsigned int i;

	if (family && unusable(family, ip))
		return;
	d = address_of(f, family, ip);
	d.seen_us = now_us;
	i = place_of(a, &d);
	a->address[i] = d;
	a->last = i;
	if (i == a->n)
		a->n++;
}

static bool is_initial_ttl(uint8_t ttl)
{
	return ttl == 64 || ttl == 128 || ttl == 255;
}

static void learn_from_advertisement(struct announce *a, const struct frame *f, uint64_t now_us)
{
	const uint8_t *p = frame_at(f, f->body, NA_TARGET + 16);

	if (f->sport >> 8 != ND_NA || !p)
		return;
	a->router = p[4] & NA_ROUTER;
	remember(a, f, 6, p + NA_TARGET, now_us);
}

void announce_learn(struct announce *a, const uint8_t *frame, size_t len, uint64_t now_us)
{
	const uint8_t *p;
	struct frame f;

	if (frame_parse(&f, frame, len) == FRAME_BAD || memcmp(frame + FRAME_ETH + 6, a->mac, 6))
		return;
	p = frame + f.l3;
	if (f.family == 4 && is_initial_ttl(p[8]))
		remember(a, &f, 4, p + 12, now_us);
	else if (f.family == 6 && is_initial_ttl(p[7]))
		remember(a, &f, 6, p + 8, now_us);
	else if (f.ethertype == ARP && frame_at(&f, f.l3, ARP_LEN))
		remember(a, &f, 4, p + ARP_SPA, now_us);
	else
		remember(a, &f, 0, NULL, now_us);
	if (f.family == 6 && f.type == FRAME_PASS && f.proto == ICMP6)
		learn_from_advertisement(a, &f, now_us);
}

static uint8_t *put16(uint8_t *p, uint32_t v)
{
	p[0] = v >> 8;
	p[1] = v;
	return p + 2;
}

/* to a broadcast or multicast address, in the VLAN of d; returns where the payload begins */
static uint8_t *eth(const struct announce *a, uint8_t frame[FRAME_LEN], const uint8_t dst[6],
		    const struct announce_address *d, uint16_t type)
{
	uint8_t *p = frame + VNET_HLEN;

	memset(frame, 0, FRAME_LEN);
	memcpy(p, dst, 6);
	memcpy(p + 6, a->mac, 6);
	memcpy(p + 12, d->tags, d->tags_len);
	return put16(p + 12 + d->tags_len, type);
}

static size_t arp(const struct announce *a, uint8_t frame[FRAME_LEN], const struct announce_address *d,
		  bool rarp)
{
	static const uint8_t all[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint8_t *p = eth(a, frame, all, d, rarp ? RARP : ARP);

	memcpy(p, "\x00\x01\x08\x00\x06\x04\x00", 7);
	p[ARP_OP + 1] = rarp ? 3 : 1;
	memcpy(p + ARP_SHA, a->mac, 6);
	if (rarp) { /* what is my address? */
		memcpy(p + ARP_THA, a->mac, 6);
	} else {
		memcpy(p + ARP_SPA, d->ip, 4);
		memcpy(p + ARP_TPA, d->ip, 4);
	}
	return VNET_HLEN + ETH_MIN + d->tags_len;
}

static uint16_t checksum6(const uint8_t *ip6, size_t n)
{
	uint32_t sum = ICMP6 + n;

	for (size_t i = 8; i < IP6_HLEN + n; i += 2)
		sum += frame_be16(ip6 + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static size_t advertisement(const struct announce *a, uint8_t frame[FRAME_LEN],
			    const struct announce_address *d)
{
	static const uint8_t all_nodes_mac[6] = { 0x33, 0x33, 0, 0, 0, 1 };
	static const uint8_t all_nodes[16] = { 0xff, 2, [15] = 1 };
	uint8_t *ip = eth(a, frame, all_nodes_mac, d, IP6), *na = ip + IP6_HLEN;

	ip[0] = 0x60;
	put16(ip + 4, NA_LEN);
	ip[6] = ICMP6;
	ip[7] = 255;
	memcpy(ip + 8, d->ip, 16);
	memcpy(ip + 24, all_nodes, 16);
	na[0] = ND_NA;
	na[4] = NA_OVERRIDE | (a->router ? NA_ROUTER : 0);
	memcpy(na + NA_TARGET, d->ip, 16);
	na[24] = 2; /* the target's link address */
	na[25] = 1;
	memcpy(na + 26, a->mac, 6);
	put16(na + 2, checksum6(ip, NA_LEN));
	return na + NA_LEN - frame;
}

static bool is_stale(const struct announce *a, unsigned int i)
{
	return a->address[i].seen_us + STALE_US < a->address[a->last].seen_us;
}

/* has an address before the i-th been seen in the same VLAN? */
static bool vlan_is_done(const struct announce *a, unsigned int i)
{
	for (unsigned int k = 0; k < i; k++)
		if (!is_stale(a, k) && a->address[k].tags_len == a->address[i].tags_len &&
		    !memcmp(a->address[k].tags, a->address[i].tags, ANNOUNCE_TAGS_MAX))
			return true;
	return false;
}

void announce_send(const struct announce *a,
		   void (*send)(void *arg, const uint8_t *frame, size_t len), void *arg)
{
	static const struct announce_address untagged;
	const struct announce_address *d;
	uint8_t f[FRAME_LEN];

	if (!a->n)
		send(arg, f, arp(a, f, &untagged, true));
	for (unsigned int i = 0; i < a->n; i++) {
		d = &a->address[i];
		if (is_stale(a, i))
			continue;
		if (!vlan_is_done(a, i))
			send(arg, f, arp(a, f, d, true));
		if (d->family == 4)
			send(arg, f, arp(a, f, d, false));
		else if (d->family == 6)
			send(arg, f, advertisement(a, f, d));
	}
}
