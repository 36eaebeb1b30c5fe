/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * announce.c - see announce.h
 */
#include "daemon/announce.h"

#include <string.h>

#include "net/net.h"

enum { FRAME_LEN = VNET_HLEN + 60, ETHERTYPE = 12, PAYLOAD = 14, ARP_OP = 20, ARP_SHA = 22, ARP_SPA = 28, ARP_THA = 32, ARP_TPA = 38 };

void announce_init(struct announce *a, const uint8_t mac[6])
{
	memset(a, 0, sizeof(*a));
	memcpy(a->mac, mac, 6);
}

static void remember(struct announce *a, const uint8_t ip[4])
{
	static const uint8_t none[4];
	unsigned int i;

	if (!memcmp(ip, none, 4))
		return;
	for (i = 0; i < a->n; i++)
		if (!memcmp(a->ip[i], ip, 4))
			return;
	if (a->n < ANNOUNCE_ADDRESSES)
		memcpy(a->ip[a->n++], ip, 4);
}

void announce_learn(struct announce *a, const uint8_t *frame, size_t len)
{
	const uint8_t *f = frame + VNET_HLEN;

	if (len < VNET_HLEN + ARP_TPA + 4 || memcmp(f + 6, a->mac, 6))
		return;
	if (f[ETHERTYPE] == 0x08 && f[ETHERTYPE + 1] == 0x06)
		remember(a, f + ARP_SPA);
	else if (f[ETHERTYPE] == 0x08 && f[ETHERTYPE + 1] == 0x00)
		remember(a, f + PAYLOAD + 12);
}

static void arp(const struct announce *a, uint8_t frame[FRAME_LEN], uint16_t type, uint8_t op,
		const uint8_t *ip)
{
	uint8_t *f = frame + VNET_HLEN;

	memset(frame, 0, FRAME_LEN);
	memset(f, 0xff, 6);
	memcpy(f + 6, a->mac, 6);
	f[ETHERTYPE] = type >> 8;
	f[ETHERTYPE + 1] = type;
	memcpy(f + PAYLOAD, "\x00\x01\x08\x00\x06\x04\x00", 7);
	f[ARP_OP + 1] = op;
	memcpy(f + ARP_SHA, a->mac, 6);
	if (ip) {
		memcpy(f + ARP_SPA, ip, 4);
		memcpy(f + ARP_TPA, ip, 4);
	} else {
		memcpy(f + ARP_THA, a->mac, 6);
	}
}

void announce_send(const struct announce *a,
		   void (*send)(void *arg, const uint8_t *frame, size_t len), void *arg)
{
	uint8_t f[FRAME_LEN];
	unsigned int i;

	arp(a, f, 0x8035, 3, NULL); /* RARP: what is my address? Switches learn from it */
	send(arg, f, sizeof(f));
	for (i = 0; i < a->n; i++) {
		arp(a, f, 0x0806, 1, a->ip[i]);
		send(arg, f, sizeof(f));
	}
}
