/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * net_test.h - build frames with right checksums, check them, and record what a cm releases
 */
#ifndef COLO_TESTS_NET_TEST_H
#define COLO_TESTS_NET_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/net.h"

#define CHECK(cond)                                                                        \
	do {                                                                               \
		if (!(cond)) {                                                             \
			fprintf(stderr, "%s:%d: %s: failed: %s (seed %llu)\n", __FILE__,   \
				__LINE__, __func__, #cond, (unsigned long long)test_seed); \
			abort();                                                           \
		}                                                                          \
	} while (0)

extern uint64_t test_seed;

/* a small generator whose sequence depends on its seed only */
struct rnd {
	uint64_t s;
};
uint64_t rnd_next(struct rnd *r);
uint32_t rnd_below(struct rnd *r, uint32_t n);
/* the seed: argv[1], or (none, 0) the time; printed */
uint64_t test_seed_from(int argc, char **argv);

enum { F_FIN = 1, F_SYN = 2, F_RST = 4, F_PSH = 8, F_ACK = 16, F_URG = 32, F_ECE = 64, F_CWR = 128 };

struct tcp_spec {
	bool to_guest, v6, vlan, odd_ts; /* odd_ts: timestamps at an odd offset */
	uint16_t gport, pport;
	uint32_t peer;                   /* low bits of the peer's address */
	uint32_t seq, ack, tsval, tsecr; /* tsval 0: no timestamp option */
	uint8_t flags;
	uint16_t mss;                    /* 0: no option */
	uint8_t wscale;                  /* 0: no option, else one more than the shift */
	unsigned nsack;
	uint32_t sack[8];
	uint16_t window, ipid;           /* window 0: some */
	uint16_t urg;                    /* urgent pointer */
	uint8_t odd_opt;                 /* kind of one more option, of 18 bytes; 0: none */
	const uint8_t *raw_opt;          /* these after all others; a multiple of 4 */
	size_t raw_len;
	bool partial;                    /* checksum left to do, as with offloads */
	bool shut;                       /* but 0 */
	const void *data;
	size_t len;
};

size_t build_tcp(uint8_t *out, const struct tcp_spec *s);
size_t build_udp(uint8_t *out, bool to_guest, uint16_t gport, uint16_t pport, const void *data, size_t len,
	uint16_t ipid);
/* ICMP message of the guest: type, code, id, seq, data */
size_t build_icmp(uint8_t *out, bool to_guest, uint8_t type, uint16_t id, const void *data, size_t len);
size_t build_arp(uint8_t *out);
/* are the IPv4 and TCP checksums right? */
bool checksums_ok(const uint8_t *frame, size_t len);

struct seg { /* what a TCP frame says, parsed independently of net/frame.c */
	uint32_t seq, ack, tsval, tsecr, sack[8];
	unsigned nsack;
	uint8_t flags;
	uint16_t gport, pport, window, urg, ipid;
	const uint8_t *data;
	uint32_t len;
};
bool parse_seg(const uint8_t *frame, size_t len, bool to_guest, struct seg *s);

/* a cm with a record of what it released */
#define REC_MAX 4096
struct rec {
	uint8_t *frame;
	size_t len;
};
struct bed {
	struct cm *cm;
	struct rec out[REC_MAX];
	unsigned n, taken;
	unsigned syns, wants;
	enum cm_cause cause;
	void (*on_release)(struct bed *b, const uint8_t *frame, size_t len);
	void (*on_syn)(const uint8_t *frame, size_t len);
};
void bed_init(struct bed *b, const struct cm_config *cfg);
void bed_fini(struct bed *b);
/* how many frames were released since this was last asked */
unsigned bed_new(struct bed *b);
/* the i-th last released as a segment */
struct seg bed_last(const struct bed *b, unsigned i);

#endif
