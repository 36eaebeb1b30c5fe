/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * relay.h - lets a process that knows nothing of TLS use a TLS connection
 *
 * The process gets one end of a socketpair; a thread moves bytes between the other end and the connection. Ends
 * in either direction, a close, and errors go through at once; a user that does not read makes the peer wait, as
 * TCP does.
 */
#ifndef COLO_RELAY_H
#define COLO_RELAY_H

#include <stdbool.h>

#include "common/tls.h"

struct relay;

/* Takes t, whose handshake is over, and its socket fd, also on error. notify_fd: eventfd(2) that is written to
 * when the relay is over; not taken. *user: the socketpair's end for the user. NULL: out of something */
struct relay *relay_start(struct tls *t, int fd, int notify_fd, int *user);
bool relay_over(struct relay *r);
/* after that: why, in one line; "": in an orderly way */
const char *relay_error(const struct relay *r);
/* Ends it if it is not over; waits for its thread, which does not wait for anybody then. */
void relay_free(struct relay *r);

#endif
