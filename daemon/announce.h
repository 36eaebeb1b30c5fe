/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * announce.h - tell the LAN where the guest's MAC is now
 *
 * Sources: RFC 903 (RARP, as QEMU announces a migrated guest), RFC 5227 (ARP announcement), RFC 4861 7.2.6
 * (unsolicited neighbour advertisement).
 */
#ifndef COLO_ANNOUNCE_H
#define COLO_ANNOUNCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANNOUNCE_ADDRESSES 32
#define ANNOUNCE_TAGS_MAX 8 /* bytes of two VLAN tags */

struct announce_address {
	uint8_t family;    /* 4 or 6; 0: the MAC alone was seen */
	uint8_t ip[16];    /* IPv4: the first four bytes */
	uint8_t tags_len;
	uint8_t tags[ANNOUNCE_TAGS_MAX]; /* of the VLAN it was seen in, without priorities */
	uint64_t seen_us;  /* last */
};

struct announce {
	uint8_t mac[6];
	bool router; /* the guest's neighbour advertisements say that it is one */
	struct announce_address address[ANNOUNCE_ADDRESSES]; /* seen as the guest's own */
	unsigned int n, last; /* last: the one seen last */
};

void announce_init(struct announce *a, const uint8_t mac[6]);
/* looks for the guest's address in a frame that it sent */
void announce_learn(struct announce *a, const uint8_t *frame, size_t len, uint64_t now_us);
void announce_send(const struct announce *a,
		   void (*send)(void *arg, const uint8_t *frame, size_t len), void *arg);

#endif
