/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * helper.c - colo-arbiter: asks the arbiter for the daemon, which must not wait
 *
 * One request at a time, with libraries that block; see arbiter_proto.h. A second thread sends the pulse and does
 * nothing else, so that a daemon can tell a helper that waits (for a server, for NFS) from one that was
 * stopped. The helper ends with its daemon, also in the middle of a request.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "arbiter/arbiter.h"

#define SOCKET 3

static const struct arbiter_backend *const backends[] = {
	[ARBITER_WITNESS] = &arbiter_witness, [ARBITER_ETCD] = &arbiter_etcd, [ARBITER_FILE] = &arbiter_file,
};

static void send_answer(const struct arbiter_answer *answer, int flags)
{
	if (send(SOCKET, answer, sizeof(*answer), MSG_NOSIGNAL | flags) < 0 && errno != EAGAIN)
		_exit(0); /* the daemon is gone */
}

static void *pulse(void *arg)
{
	const struct arbiter_answer beat = { .op = ARBITER_PULSE };
	struct pollfd p = { .fd = SOCKET, .events = 0 };

	for (;;) {
		if (poll(&p, 1, ARBITER_PULSE_MS) > 0) /* its end is closed */
			_exit(0);
		send_answer(&beat, MSG_DONTWAIT);
	}
	return NULL;
}

static void answer(struct arbiter *a, const struct arbiter_request *q)
{
	const struct arbiter_backend *b = backends[a->cfg->type];
	struct arbiter_answer out = { .op = q->op, .generation = q->generation };

	a->deadline_ms = arbiter_now_ms() + q->limit_ms;
	*a->error = 0;
	if (q->op == ARBITER_CLAIM)
		out.status = b->claim(a, q->generation, &out.record);
	else
		out.status = b->read(a, &out.record);
	snprintf(out.error, sizeof(out.error), "%s", out.status < 0 ? a->error : "");
	send_answer(&out, 0);
}

static void fail(const char *why)
{
	fprintf(stderr, "colo-arbiter: %s\n", why);
	exit(2);
}

int main(void)
{
	static struct arbiter_config cfg;
	struct arbiter a = { .cfg = &cfg };
	struct arbiter_request q;
	pthread_t thread;

	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_NAME, "colo-arbiter");
	if (recv(SOCKET, &cfg, sizeof(cfg), 0) != sizeof(cfg))
		fail("this program is started by the daemon, which has not sent a configuration");
	if (cfg.type >= sizeof(backends) / sizeof(*backends) || !backends[cfg.type])
		fail("there is no such arbiter");
	if (pthread_create(&thread, NULL, pulse, NULL))
		fail("no thread");
	while (recv(SOCKET, &q, sizeof(q), 0) == sizeof(q))
		answer(&a, &q);
	return 0;
}
