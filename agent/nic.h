/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * nic.h - the epoch boundary in what goes to and from a NIC (agent_proto.h)
 */
#ifndef COLO_AGENT_NIC_H
#define COLO_AGENT_NIC_H

#include "util.h"

struct nic {
	int tap;      /* QEMU's end; a descriptor of our own: QEMU may close its */
	int sock;     /* the daemon's end, to see how much waits in it */
	int counters; /* /proc/net/dev of the TAP's network namespace */
};

/* "TAP:SOCKET:COUNTERS", three descriptors. -EINVAL; -EBADF: one is not open. */
int nic_parse(struct nic *n, const char *text);

/* The VM is stopped for all of these. */

/* -ETIMEDOUT if the daemon has no room for it for 200 ms. */
int nic_mark(const struct nic *n, const uint8_t nonce[AGENT_NONCE], struct errtext *err);
/* how many frames the VM has taken from its TAP, ever */
int nic_taken(const struct nic *n, uint64_t *frames, struct errtext *err);
/* Throw away what waits for the VM in its TAP. */
void nic_drain(const struct nic *n);

#endif
