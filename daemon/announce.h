/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * announce.h - tell the LAN where the guest's MAC is now
 *
 * Source: RFC 903 (RARP, as QEMU announces a migrated guest), RFC 5227 (ARP announcement).
 */
#ifndef COLO_ANNOUNCE_H
#define COLO_ANNOUNCE_H

#include <stddef.h>
#include <stdint.h>

#define ANNOUNCE_ADDRESSES 8

struct announce {
	uint8_t mac[6];
	uint8_t ip[ANNOUNCE_ADDRESSES][4]; /* IPv4 addresses seen as the guest's own */
	unsigned int n;
};

void announce_init(struct announce *a, const uint8_t mac[6]);
/* looks for the guest's address in a frame that it sent */
void announce_learn(struct announce *a, const uint8_t *frame, size_t len);
void announce_send(const struct announce *a,
		   void (*send)(void *arg, const uint8_t *frame, size_t len), void *arg);

#endif
