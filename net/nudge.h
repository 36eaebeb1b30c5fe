/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * nudge.h - make clients send again at once after a failover: pure code
 *
 * A client whose segment died with the primary waits for its retransmission timer, which has doubled
 * with each try. RFC 6069 (TCP-LCD; Linux does it) lets an ICMP destination-unreachable message that
 * quotes the first unacknowledged segment take one doubling back, and with that retransmit at once if
 * the shorter time is over. The survivor knows that segment: it begins at the number the SVM
 * acknowledged last. Stacks that do not know RFC 6069 ignore the message (a soft error, RFC 1122).
 */
#ifndef COLO_NET_NUDGE_H
#define COLO_NET_NUDGE_H

#include <stddef.h>
#include <stdint.h>

struct nudge;

struct nudge *nudge_new(size_t max_flows);
void nudge_free(struct nudge *n);
/* a frame of the SVM in the client's numbers */
void nudge_saw(struct nudge *n, const uint8_t *frame, size_t len, uint64_t now_us);
/* One message for each TCP connection used since since_us, in its VLAN. Frames are valid during the call. */
void nudge_send(struct nudge *n, uint64_t since_us,
		void (*send)(void *arg, const uint8_t *frame, size_t len), void *arg);

#endif
