/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * nudge.c - see nudge.h
 *
 * The message begins with the Ethernet header of the guest's own last frame, tags included, for it goes the
 * same way. IPv4: destination unreachable, host; IPv6: destination unreachable, no route; these are the ones
 * that RFC 6069 and Linux take.
 */
#include "nudge.h"

#include <stdlib.h>
#include <string.h>

#include "flow.h"

#define CLOSED_US 10000000u

struct nudge_flow {
	struct flow_node node; /* first */
	uint8_t eth[FRAME_ETH_HLEN + 8], eth_len; /* to the peer */
	uint32_t ack; /* the guest expects this number next */
};

struct nudge {
	struct flow_table flows;
};

static bool always_idle(const struct flow_node *n)
{
	(void)n;
	return true;
}

static void nothing_to_drop(void *opaque, struct flow_node *n)
{
	(void)opaque;
	(void)n;
}

static const struct flow_ops nudge_ops = { .idle = always_idle, .drop = nothing_to_drop };

struct nudge *nudge_new(size_t max_flows)
{
	struct nudge *n = calloc(1, sizeof(*n));

	if (n && flow_table_init(&n->flows, max_flows, sizeof(struct nudge_flow), 0, CLOSED_US, &nudge_ops,
				 n) < 0) {
		free(n);
		return NULL;
	}
	return n;
}

void nudge_free(struct nudge *n)
{
	if (!n)
		return;
	flow_table_free(&n->flows);
	free(n);
}

void nudge_saw(struct nudge *n, const uint8_t *frame, size_t len, uint64_t now_us)
{
	struct nudge_flow *fl;
	struct flow_key k;
	struct frame f;

	if (frame_parse(&f, frame, len) != FRAME_TCP)
		return;
	flow_key_from_guest(&k, &f);
	fl = (struct nudge_flow *)flow_find(&n->flows, &k);
	if (f.flags & (TCP_RST | TCP_SYN) || !(f.flags & TCP_ACK)) {
		if (fl)
			flow_del(&n->flows, &fl->node);
		return;
	}
	if (!fl)
		fl = (struct nudge_flow *)flow_add(&n->flows, &k, now_us);
	if (!fl)
		return;
	flow_touch(&n->flows, &fl->node, now_us);
	fl->ack = f.ack;
	fl->eth_len = (uint8_t)(f.l3 - FRAME_ETH); /* with at most two tags */
	memcpy(fl->eth, frame + FRAME_ETH, fl->eth_len);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static void put_checksum(uint8_t *p, size_t n, size_t at, uint32_t sum)
{
	size_t i;

	for (i = 0; i < n; i += 2)
		sum += frame_be16(p + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put16(p + at, ~sum);
}

#define TCP_QUOTED 8u /* bytes of the TCP header that both protocols promise to quote */
#define ICMP_LEN 8u
#define IP4_LEN 20u
#define IP6_LEN 40u
#define NUDGE_MAX (FRAME_ETH + FRAME_ETH_HLEN + 8u + IP6_LEN + ICMP_LEN + IP6_LEN + TCP_QUOTED)

static uint8_t *ip4_header(uint8_t *p, const uint8_t *src, const uint8_t *dst, uint8_t proto, uint16_t len)
{
	p[0] = 0x45;
	put16(p + 2, IP4_LEN + len);
	p[8] = 64;
	p[9] = proto;
	memcpy(p + 12, src, 4);
	memcpy(p + 16, dst, 4);
	put_checksum(p, IP4_LEN, 10, 0);
	return p + IP4_LEN;
}

static uint8_t *ip6_header(uint8_t *p, const uint8_t *src, const uint8_t *dst, uint8_t proto, uint16_t len)
{
	p[0] = 0x60;
	put16(p + 4, len);
	p[6] = proto;
	p[7] = 64;
	memcpy(p + 8, src, 16);
	memcpy(p + 24, dst, 16);
	return p + IP6_LEN;
}

static uint8_t *tcp_header(uint8_t *p, const struct nudge_flow *fl)
{
	put16(p, fl->node.key.pport);
	put16(p + 2, fl->node.key.gport);
	put16(p + 4, fl->ack >> 16);
	put16(p + 6, fl->ack);
	return p + TCP_QUOTED;
}

/* the quoted segment pretends to be as small as a TCP header */
static uint8_t *message4(uint8_t *ip, const struct nudge_flow *fl)
{
	const struct flow_key *k = &fl->node.key;
	uint8_t *icmp = ip4_header(ip, k->guest, k->peer, 1, ICMP_LEN + IP4_LEN + TCP_QUOTED), *end;

	icmp[0] = 3; /* destination unreachable */
	icmp[1] = 1; /* host */
	end = tcp_header(ip4_header(icmp + ICMP_LEN, k->peer, k->guest, 6, 20), fl);
	put_checksum(icmp, end - icmp, 2, 0);
	return end;
}

static uint8_t *message6(uint8_t *ip, const struct nudge_flow *fl)
{
	const struct flow_key *k = &fl->node.key;
	uint16_t len = ICMP_LEN + IP6_LEN + TCP_QUOTED;
	uint8_t *icmp = ip6_header(ip, k->guest, k->peer, 58, len), *end;

	icmp[0] = 1; /* destination unreachable */
	icmp[1] = 0; /* no route */
	end = tcp_header(ip6_header(icmp + ICMP_LEN, k->peer, k->guest, 6, 20), fl);
	put_checksum(ip + 8, end - (ip + 8), IP6_LEN - 8 + 2, 58 + len);
	return end;
}

static size_t make(const struct nudge_flow *fl, uint8_t m[NUDGE_MAX])
{
	uint8_t *ip = m + FRAME_ETH + fl->eth_len;

	memset(m, 0, NUDGE_MAX);
	memcpy(m + FRAME_ETH, fl->eth, fl->eth_len);
	return (fl->node.key.ethertype == 0x0800 ? message4(ip, fl) : message6(ip, fl)) - m;
}

void nudge_send(struct nudge *n, uint64_t since_us,
		void (*send)(void *arg, const uint8_t *frame, size_t len), void *arg)
{
	uint8_t message[NUDGE_MAX];
	struct flow_node *fl;

	for (fl = n->flows.live.head; fl; fl = fl->next) {
		if (fl->used < since_us)
			continue;
		send(arg, message, make((const struct nudge_flow *)fl, message));
	}
}
