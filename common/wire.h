/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * wire.h - sockets: file descriptors in messages, whole reads and writes, options
 */
#ifndef COLO_WIRE_H
#define COLO_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One message with up to 4 descriptors. 0 or -errno. */
int wire_send_fds(int sock, const void *p, size_t n, const int *fds, int nfds);
/* n unix socketpairs of the given types, closed on exec: ours[i] and theirs[i] are the two ends of one.
 * 0 or -errno; those made before the error stay open. */
int wire_pairs(const int *types, int n, int *ours, int *theirs);
int wire_set_nonblock(int fd, int on);
void wire_set_tcp(int fd); /* no delay, keep what is queued small */
/* Before it connects or listens: what else the host may do to share the Internet fairly, as BBR does, paces by
 * timers and slows down a wire that is the pair's own. If it cannot be, it stays what it is. */
void wire_set_unpaced(int fd);
/* CLOCK_MONOTONIC */
uint64_t clock_now_ns(void);

#endif
