/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * relay.c - see relay.h
 *
 * Theory of operation: one thread, two directions with one piece of data each: `up` goes from the user to the
 * peer, `down` from the peer to the user. A side is read only while its piece is empty, so what one side does
 * not take is not read from the other, and nothing grows.
 *
 * The end of what the user sends becomes the session's farewell, and the peer's farewell a half-close, so that
 * data under way the other way still arrive. The user closed for good (hang-up): what it sent before is still
 * sent, for a limited time. The session failed (cut, forged, peer dead): what came before that is still given to
 * the user, then it sees a close.
 */
#include "daemon/relay.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/wire.h"

#define PIECE (128u << 10)
#define PIECES_A_ROUND 4
#define LAST_WORDS_MS 2000
#define STACK (256u << 10)

struct piece {
	uint8_t *data;
	size_t pos, len;
	bool ended; /* nothing more is read for it */
};

struct relay {
	struct tls *t;
	int net, user;
	int notify_fd;
	pthread_t thread;
	atomic_bool stop, over;
	struct piece up, down;
	bool down_told;    /* the user knows that down has ended */
	bool more;         /* was left to be read in the session, where poll(2) does not see it */
	bool hung_up;      /* the user */
	bool broken;       /* the session: nothing comes or goes, but what has come is still the user's */
	uint64_t until_ns; /* of last words, once it has */
	char error[240];
};

/* --- one direction each. false: the relay is over --- */

static bool failed(struct relay *r)
{
	snprintf(r->error, sizeof(r->error), "%s", tls_error(r->t));
	return false;
}

static bool read_user(struct relay *r)
{
	struct piece *p = &r->up;
	ssize_t n = recv(r->user, p->data, PIECE, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	p->pos = 0;
	p->len = n > 0 ? n : 0;
	if (n > 0)
		return true;
	p->ended = true;
	return tls_bye(r->t) >= 0 || tls_unsent(r->t) || failed(r);
}

static bool send_up(struct relay *r)
{
	struct piece *p = &r->up;
	ssize_t n;

	while (p->len) {
		n = tls_send(r->t, p->data + p->pos, p->len, false);
		if (n < 0)
			return failed(r);
		if (n == 0)
			return true;
		p->pos += n;
		p->len -= n;
	}
	n = tls_flush(r->t);
	return n == 0 || n == -EAGAIN || failed(r);
}

static void tell_end(struct relay *r)
{
	if (r->down.ended && !r->down.len && !r->down_told) {
		shutdown(r->user, SHUT_WR);
		r->down_told = true;
	}
}

/* What the user does not take any more is nobody's loss. */
static void send_down(struct relay *r)
{
	struct piece *p = &r->down;
	ssize_t n;

	while (p->len) {
		n = send(r->user, p->data + p->pos, p->len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			r->hung_up = true;
			n = p->len;
		}
		p->pos += n;
		p->len -= n;
	}
	if (!r->broken)
		tell_end(r);
}

static void read_net(struct relay *r)
{
	struct piece *p = &r->down;
	ssize_t n = 1;
	int i;

	for (i = 0; i < PIECES_A_ROUND && !p->len && !p->ended; i++) {
		n = tls_recv(r->t, p->data, PIECE);
		if (n == 0)
			break;
		p->ended = n < 0;
		p->pos = 0;
		p->len = n > 0 ? n : 0;
		r->broken = n < 0 && n != -EPIPE;
		send_down(r);
	}
	r->more = n > 0;
	if (r->broken)
		failed(r);
	else
		tell_end(r);
}

/* --- the thread --- */

static bool finished(const struct relay *r)
{
	bool up_done = r->up.ended && !r->up.len && !tls_unsent(r->t);

	if (r->broken)
		return !r->down.len || r->hung_up;
	if (r->hung_up)
		return up_done || clock_now_ns() > r->until_ns;
	return up_done && r->down.ended && !r->down.len;
}

static bool wants_net(const struct relay *r)
{
	return !r->down.len && !r->down.ended && !r->hung_up;
}

static bool wants_user(const struct relay *r)
{
	return !r->up.len && !tls_unsent(r->t) && !r->up.ended && !r->broken;
}

static void wait_for_events(struct relay *r, short *user, short *net)
{
	struct pollfd p[2] = { { .fd = r->user }, { .fd = r->net } };
	bool unsent = !r->broken && (r->up.len || tls_unsent(r->t));

	p[0].events = (wants_user(r) ? POLLIN : 0) | (r->down.len ? POLLOUT : 0);
	p[1].events = (wants_net(r) ? POLLIN : 0) | (unsent ? POLLOUT : 0);
	if (!p[0].events && r->hung_up) /* a hang-up is reported without end */
		p[0].fd = -1;
	if (!p[1].events)
		p[1].fd = -1;
	if (poll(p, 2, r->more && wants_net(r) ? 0 : r->hung_up ? 100 : -1) < 0)
		p[0].revents = p[1].revents = 0;
	*user = p[0].revents;
	*net = p[1].revents;
}

static void note_hang_up(struct relay *r, short user)
{
	if (!(user & (POLLHUP | POLLERR)) || r->until_ns)
		return;
	r->hung_up = true;
	r->until_ns = clock_now_ns() + LAST_WORDS_MS * 1000000ull;
}

static bool step(struct relay *r)
{
	short user, net;

	wait_for_events(r, &user, &net);
	if (r->stop)
		return false;
	note_hang_up(r, user);
	if ((user & (POLLIN | POLLHUP)) && wants_user(r) && !read_user(r))
		return false;
	if (!r->broken && (r->up.len || tls_unsent(r->t)) && !send_up(r))
		return false;
	if (user & POLLOUT)
		send_down(r);
	if ((net || r->more) && wants_net(r))
		read_net(r);
	return !finished(r);
}

static void *run(void *arg)
{
	static const uint64_t one = 1;
	struct relay *r = arg;

	while (step(r))
		;
	if (r->stop && !r->up.ended && !r->broken)
		tls_bye(r->t); /* if it goes out at once */
	/* the descriptors are closed by whoever frees the relay, so that their numbers stay its own */
	shutdown(r->user, SHUT_RDWR);
	shutdown(r->net, SHUT_RDWR);
	r->over = true;
	if (write(r->notify_fd, &one, sizeof(one)) < 0)
		return NULL; /* its counter is full: it is readable anyway */
	return NULL;
}

static int start_thread(struct relay *r)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int e;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	e = pthread_create(&r->thread, &attr, run, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -e;
}

static void release(struct relay *r)
{
	tls_free(r->t);
	close(r->net);
	if (r->user >= 0)
		close(r->user);
	free(r->up.data);
	free(r->down.data);
	free(r);
}

struct relay *relay_start(struct tls *t, int fd, int notify_fd, int *user)
{
	struct relay *r = calloc(1, sizeof(*r));
	int type = SOCK_STREAM;

	if (!r) {
		tls_free(t);
		close(fd);
		return NULL;
	}
	*r = (struct relay){ .t = t, .net = fd, .user = -1, .notify_fd = notify_fd };
	*user = -1;
	r->up.data = malloc(PIECE);
	r->down.data = malloc(PIECE);
	if (r->up.data && r->down.data && tls_read_ahead(t) == 0 && wire_pairs(&type, 1, &r->user, user) == 0 &&
	    start_thread(r) == 0)
		return r;
	if (*user >= 0)
		close(*user);
	*user = -1;
	release(r);
	return NULL;
}

bool relay_over(struct relay *r)
{
	return r->over;
}

const char *relay_error(const struct relay *r)
{
	return r->error;
}

void relay_free(struct relay *r)
{
	r->stop = true;
	shutdown(r->user, SHUT_RDWR); /* it wakes up */
	pthread_join(r->thread, NULL);
	release(r);
}
