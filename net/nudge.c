/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * nudge.c - see nudge.h
 */
#include "nudge.h"

#include <stdlib.h>
#include <string.h>

#include "flow.h"

#define CLOSED_US 10000000u

struct nudge_flow {
	struct flow_node node; /* first */
	uint8_t guest_mac[6], peer_mac[6];
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

	if (frame_parse(&f, frame, len) != FRAME_TCP || f.family != 4 || f.vlan)
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
	memcpy(fl->peer_mac, frame + FRAME_ETH, 6);
	memcpy(fl->guest_mac, frame + FRAME_ETH + 6, 6);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static void put_checksum(uint8_t *p, size_t n, size_t at)
{
	uint32_t sum = 0;
	size_t i;

	for (i = 0; i < n; i += 2)
		sum += frame_be16(p + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	put16(p + at, ~sum);
}

/* addresses are the first four bytes of the key's */
static void ip_header(uint8_t *p, const uint8_t *src, const uint8_t *dst, uint8_t proto, uint16_t len)
{
	p[0] = 0x45;
	put16(p + 2, len);
	p[8] = 64;
	p[9] = proto;
	memcpy(p + 12, src, 4);
	memcpy(p + 16, dst, 4);
	put_checksum(p, 20, 10);
}

#define IP_LEN 20u
#define QUOTED (IP_LEN + 8u) /* header and the first eight bytes of TCP */
#define NUDGE_LEN (FRAME_ETH + FRAME_ETH_HLEN + IP_LEN + 8u + QUOTED)

static void make(const struct nudge_flow *fl, uint8_t m[NUDGE_LEN])
{
	const struct flow_key *k = &fl->node.key;
	uint8_t *eth = m + FRAME_ETH, *ip = eth + FRAME_ETH_HLEN, *icmp = ip + IP_LEN, *quoted = icmp + 8, *tcp = quoted + IP_LEN;

	memset(m, 0, NUDGE_LEN);
	memcpy(eth, fl->peer_mac, 6);
	memcpy(eth + 6, fl->guest_mac, 6);
	put16(eth + 12, 0x0800);
	ip_header(ip, k->guest, k->peer, 1, IP_LEN + 8 + QUOTED);
	icmp[0] = 3; /* destination unreachable */
	icmp[1] = 1; /* host */
	ip_header(quoted, k->peer, k->guest, 6, IP_LEN + 20);
	put16(tcp, k->pport);
	put16(tcp + 2, k->gport);
	put16(tcp + 4, fl->ack >> 16);
	put16(tcp + 6, fl->ack);
	put_checksum(icmp, 8 + QUOTED, 2);
}

void nudge_send(struct nudge *n, uint64_t since_us,
		void (*send)(void *arg, const uint8_t *frame, size_t len), void *arg)
{
	uint8_t message[NUDGE_LEN];
	struct flow_node *fl;

	for (fl = n->flows.live.head; fl; fl = fl->next) {
		if (fl->used < since_us)
			continue;
		make((const struct nudge_flow *)fl, message);
		send(arg, message, sizeof(message));
	}
}
