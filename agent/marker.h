/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * marker.h - write the marker frame into the NIC's stream (agent_proto.h)
 */
#ifndef COLO_AGENT_MARKER_H
#define COLO_AGENT_MARKER_H

#include "util.h"

/* VM stopped. -ETIMEDOUT if the daemon does not read for 200 ms. */
int marker_write(int fd, const uint8_t nonce[AGENT_NONCE], struct errtext *err);
/* Bytes the VM has not yet read from its end; 0 if @fd is none. */
uint64_t marker_unread(int fd);

#endif
