/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tr_bed.h - a translator with two VMs and a peer around it, for connections that the guest opens
 *
 * The PVM's timestamps are 300 ahead of the SVM's. frame and len are what was last given to the
 * translator, as it came out.
 */
#ifndef COLO_TESTS_TR_BED_H
#define COLO_TESTS_TR_BED_H

#include "net_test.h"

enum { DEST = 443, PEER_ISN = 700, SECOND = 1000000, WAITED_MAX = 2000 };

extern struct tr *tr;
extern uint8_t frame[NET_FRAME_MAX];
extern size_t len;
extern uint64_t now;
extern struct tcp_spec dest; /* what distinguishes a destination; begin() makes it DEST */

/* SYNs that came through the callback since take_waited() was last asked for their number */
extern struct seg waited[WAITED_MAX];
unsigned take_waited(void);

void begin(void);
void begin_with(size_t max_flows);
void end(void); /* all that waited was taken */
struct tr_stats stats(void);

struct seg result(bool to_guest);
struct tcp_spec spec(uint16_t gport, uint8_t flags, uint32_t seq, uint32_t ack);
void give_pvm(struct tcp_spec s);
void pvm_syn(uint16_t gport, uint32_t isn);
bool give_svm(struct tcp_spec s);
bool svm_syn(uint16_t gport, uint32_t isn);
bool svm(uint16_t gport, uint8_t flags, uint32_t seq);
bool peer(uint16_t gport, uint8_t flags, uint32_t seq, uint32_t ack);
/* is pport/pisn on the LAN sport/sisn inside, in both directions? */
bool is_pair(uint16_t pport, uint32_t pisn, uint16_t sport, uint32_t sisn);
/* one connection, the PVM's SYN first */
void connect_pair(uint16_t pport, uint32_t pisn, uint16_t sport, uint32_t sisn);

#endif
