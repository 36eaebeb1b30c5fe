/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * cm_bed.h - what the unit tests of the comparing module say to it, in few words
 *
 * One connection: the guest's port G, the peer's P.
 */
#ifndef COLO_TESTS_CM_BED_H
#define COLO_TESTS_CM_BED_H

#include "net_test.h"

enum { G = 80, P = 4000 };

extern struct bed bed;
extern struct cm *cm; /* the bed's */
extern uint64_t now, epoch;
extern uint8_t frame[NET_FRAME_MAX]; /* the last one that was built */

/* a segment of the guest, with ACK and timestamp */
struct tcp_spec spec(uint32_t seq, const char *data, uint32_t ack);
void pvm_spec(const struct tcp_spec *s);
void svm_spec(const struct tcp_spec *s);
void peer_spec(struct tcp_spec s);
void pvm(uint32_t seq, const char *data, uint32_t ack);
void svm(uint32_t seq, const char *data, uint32_t ack);
void flagged(bool from_pvm, uint32_t seq, const char *data, uint32_t ack, uint8_t flags);
void begin_with(const struct cm_config *cfg);
void begin(void);
void connect_both(void);
void end(void);
/* cm_boundary() and cm_held() */
void checkpoint(void);

#endif
