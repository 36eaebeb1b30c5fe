/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tls_wait.c - a TLS session for those who can wait: see "blocking use" in tls.h
 */
#include <errno.h>
#include <poll.h>

#include "common/tls_priv.h"
#include "common/wire.h"

/* 0: it may be ready; -ETIMEDOUT */
static int wait_for(struct tls *t, short events, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = t->fd, .events = events };
	uint64_t now = clock_now_ns();
	int ms;

	if (now >= deadline_ns)
		return -ETIMEDOUT;
	ms = deadline_ns - now > 1000000000 ? 1000 : (int)((deadline_ns - now + 999999) / 1000000);
	poll(&p, 1, ms);
	return 0;
}

int tls_handshake_by(struct tls *t, uint64_t deadline_ns)
{
	int r;

	while ((r = tls_handshake(t)) == -EAGAIN)
		if (wait_for(t, tls_events(t), deadline_ns) < 0)
			return -ETIMEDOUT;
	return r;
}

int tls_send_all(struct tls *t, const void *p, size_t n, uint64_t deadline_ns)
{
	const uint8_t *from = p;
	ssize_t r;

	while (n || tls_unsent(t)) {
		r = n ? tls_send(t, from, n, false) : tls_flush(t);
		if (r < 0 && r != -EAGAIN)
			return r;
		if (r > 0) {
			from += r;
			n -= r;
		} else if ((n || tls_unsent(t)) && wait_for(t, POLLOUT, deadline_ns) < 0) {
			return -ETIMEDOUT;
		}
	}
	return 0;
}

ssize_t tls_recv_some(struct tls *t, void *p, size_t n, uint64_t deadline_ns)
{
	ssize_t r;

	while ((r = tls_recv(t, p, n)) == 0)
		if (wait_for(t, POLLIN, deadline_ns) < 0)
			return -ETIMEDOUT;
	return r;
}

int tls_recv_all(struct tls *t, void *p, size_t n, uint64_t deadline_ns)
{
	uint8_t *to = p;
	ssize_t r;

	for (; n; n -= r, to += r) {
		r = tls_recv_some(t, to, n, deadline_ns);
		if (r < 0)
			return r;
	}
	return 0;
}
