/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dgram_frames.h - build frames of any protocol over IPv4, IPv6, VLANs, whole or in fragments
 */
#ifndef COLO_TESTS_DGRAM_FRAMES_H
#define COLO_TESTS_DGRAM_FRAMES_H

#include "net_test.h"

#define MAC_GUEST "\x02\0\0\0\0\x01"
#define MAC_PEER "\x02\0\0\0\0\x02"

struct ip_spec {
	bool v6, to_guest;
	unsigned tags;    /* VLAN tags */
	uint16_t vid[2];  /* outermost first */
	uint8_t proto;
	uint32_t peer;    /* low bits of the peer's address */
	uint32_t id;      /* of the datagram */
	uint8_t ttl;      /* 0: 64 */
	bool frag, more;  /* frag: IPv6 has a fragment header even if this is all */
	uint32_t offset;
	const void *payload;
	size_t len;
};

/* guest 10.0.0.2, fd00::1; peer 10.1.0.0 + peer, fd00::2 + peer */
size_t build_ip(uint8_t *out, const struct ip_spec *s);
/* Ethernet header, tags, type, and n bytes of payload */
size_t build_raw(uint8_t *out, const uint8_t dst[6], const struct ip_spec *tags, uint16_t type,
	const void *payload, size_t n);
/* UDP header and data, with a checksum that is wrong where `sum` is not 0 */
size_t put_udp(uint8_t *out, uint16_t sport, uint16_t dport, const void *data, size_t n, uint16_t sum);
size_t put_icmp(uint8_t *out, uint8_t type, uint8_t code, uint32_t rest, const void *data, size_t n);
/* target's number in 10.1.0.0/16 or fd00::/64; `from` is the asker's, 0: nobody */
size_t build_arp_of(uint8_t *out, bool to_guest, unsigned op, uint32_t from, uint32_t target);
size_t build_nd(uint8_t *out, bool to_guest, uint8_t type, uint32_t from, uint32_t target);

#endif
