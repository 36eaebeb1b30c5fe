/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * neigh.h - which of the SVM's questions to its neighbours leave: pure code
 *
 * Sources: RFC 826 (ARP), RFC 4861 (IPv6 neighbour discovery).
 */
#ifndef COLO_NET_NEIGH_H
#define COLO_NET_NEIGH_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"

#define NEIGH_SELVES 16
#define NEIGH_QUESTIONS 128

/* an address in a VLAN */
struct neigh_addr {
	uint8_t ip[16]; /* IPv4: the first four bytes */
	uint32_t vlan;
	uint8_t family, zero[3];
};

struct neigh {
	struct { /* addresses that the PVM has used as its own */
		struct neigh_addr addr;
		uint8_t mac[6];
	} self[NEIGH_SELVES];
	unsigned nselves, next_self;
	struct { /* questions of either VM without an answer yet */
		struct neigh_addr about;
		uint64_t time; /* 0: none */
	} asked[NEIGH_QUESTIONS];
	uint64_t second; /* the one in which the SVM has asked so often */
	unsigned in_second;
};

/* frames of type FRAME_PASS */
void neigh_from_pvm(struct neigh *n, const struct frame *f, uint64_t now_us);
void neigh_from_peer(struct neigh *n, const struct frame *f, uint64_t now_us);
/* The SVM sends this: shall it leave? If so it counts as asked. */
bool neigh_svm_may_ask(struct neigh *n, const struct frame *f, uint64_t now_us);

#endif
