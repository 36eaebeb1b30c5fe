/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * handshake.c - how a connection of the peer link begins
 *
 * Theory of operation: first a TLS handshake (unless [tls] mode = off), in which both prove who they are; nothing is
 * said or heard before it. Then a hello of the dialler, which is checked against our own configuration, and an
 * answer. Each is a small state machine with a time limit, so that a peer that says garbage or nothing costs one
 * descriptor for five seconds. Strangers are few at a time, and a newcomer takes the place of the oldest, so that
 * they cannot keep the peer out.
 *
 *   connecting -> (connected) TLS -> (secure) hello sent -> answer -> channel   dialled
 *                             TLS -> (secure) hello -> answer sent -> channel   accepted
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define HANDSHAKE_MS 5000

/* one connection in its handshake */
struct handshake {
	struct daemon *d;
	int fd;
	struct watch *watch;
	uv_timer_t timer;
	enum peer_channel channel;
	unsigned int disk;
	struct tls *tls;
	bool dialled;
	bool connected;
	bool secure;    /* TLS is established, or not wanted */
	size_t got;
	union {
		struct peer_hello hello;
		struct peer_answer answer;
		uint8_t raw[1];
	} in;
};

static void failed_handshake(struct handshake *hs, const char *why);

static void free_handshake(uv_handle_t *h)
{
	free(h->data);
}

static void forget_stranger(struct peer *p, const struct handshake *hs)
{
	unsigned int i = 0;

	while (i < p->strangers && p->stranger[i] != hs)
		i++;
	if (i == p->strangers)
		return;
	p->strangers--;
	memmove(p->stranger + i, p->stranger + i + 1, (p->strangers - i) * sizeof(*p->stranger));
}

/* tls and fd: stay if they were taken out of hs before */
static void end_handshake(struct handshake *hs)
{
	watch_free(hs->watch);
	forget_stranger(&hs->d->peer, hs);
	tls_free(hs->tls);
	if (hs->fd >= 0)
		close(hs->fd);
	hs->fd = -1;
	hs->tls = NULL;
	hs->watch = NULL;
	uv_close((uv_handle_t *)&hs->timer, free_handshake);
}

static void failed_handshake(struct handshake *hs, const char *why)
{
	struct daemon *d = hs->d;
	bool dialled = hs->dialled;

	if (why && strcmp(why, d->peer.last_refusal)) {
		snprintf(d->peer.last_refusal, sizeof(d->peer.last_refusal), "%s", why);
		log_warn("peer %s: %s", config_peer(d->cfg)->name, why);
	}
	end_handshake(hs);
	if (dialled)
		peer_dial_failed(d);
}

static void on_handshake_timeout(uv_timer_t *t)
{
	struct handshake *hs = t->data;

	failed_handshake(hs, hs->secure ? "no proper hello in time" : "no TLS handshake in time");
}

/* It is over and good. */
static void channel_open(struct handshake *hs)
{
	enum peer_channel channel = hs->channel;
	unsigned int disk = hs->disk;
	struct daemon *d = hs->d;
	bool dialled = hs->dialled;
	struct tls *tls = hs->tls;
	int fd = hs->fd;

	if (channel != PEER_SEED && peer_has_channel(&d->peer, channel, disk)) {
		failed_handshake(hs, NULL);
		return;
	}
	hs->fd = -1;
	hs->tls = NULL;
	end_handshake(hs); /* first: a descriptor has one watch at a time */
	peer_channel_open(d, channel, disk, tls, fd, dialled);
}

static void refused(struct handshake *hs, const char *who, const char *text)
{
	struct daemon *d = hs->d;

	end_handshake(hs);
	daemon_fail_start(d, "%s refuses %s: %s", who, who == config_local(d->cfg)->name ? "the peer" : "this node",
			  text);
}

static void accepted(struct handshake *hs)
{
	struct peer_answer *a = &hs->in.answer;
	struct daemon *d = hs->d;
	char text[240];

	if (hs->channel == PEER_CONTROL) {
		if (hello_answer_check(d, a, text, sizeof(text)) != PEER_OK) {
			refused(hs, config_local(d->cfg)->name, text);
			return;
		}
		d->peer.session = be64toh(a->session);
		if (start_is_undecided(d))
			start_taken(d);
	}
	d->peer.last_refusal[0] = 0;
	channel_open(hs);
}

/* This node has a VM that may yet have to serve: nothing but the word that the peer does ends that. */
static void answer_to_claiming(struct handshake *hs)
{
	struct peer_answer *a = &hs->in.answer;
	uint64_t generation = be64toh(a->generation);
	struct daemon *d = hs->d;

	if (be16toh(a->status) != PEER_SERVES) {
		failed_handshake(hs, be16toh(a->status) == PEER_OK ? "makes no sense" : a->text);
		return;
	}
	log_warn("%s", a->text);
	end_handshake(hs);
	daemon_event(d, (struct core_event){ .type = CORE_EV_DISMISSED, .epoch = generation });
	peer_dial_failed(d); /* if that says nothing of who may serve, ask again */
}

static void on_answer(struct handshake *hs)
{
	struct peer_answer *a = &hs->in.answer;
	char text[300];

	hello_text(a->text, sizeof(a->text));
	if (!hs->d->peer.dialling) { /* this node serves by now */
		failed_handshake(hs, NULL);
		return;
	}
	if (hello_is_claiming(hs->d)) {
		answer_to_claiming(hs);
		return;
	}
	if (be16toh(a->status) == PEER_OK && hello_version(hs->d, be16toh(a->version), be16toh(a->version))) {
		hs->d->peer.version = be16toh(a->version);
		accepted(hs);
		return;
	}
	if (be16toh(a->status) == PEER_OK)
		snprintf(text, sizeof(text), "speaks peer protocol %u, this is colo %s with protocols %u to %u",
			 be16toh(a->version), COLO_VERSION, PEER_VERSION_MIN, hello_newest(hs->d));
	else
		snprintf(text, sizeof(text), "refused: %s", a->text);
	if (be16toh(a->status) == PEER_REFUSED && hs->channel == PEER_CONTROL)
		refused(hs, config_peer(hs->d->cfg)->name, a->text);
	else
		failed_handshake(hs, text);
}

static void on_hello(struct handshake *hs)
{
	struct daemon *d = hs->d;
	struct peer_answer a = { .magic = htobe32(PEER_MAGIC), .version = htobe16(hello_newest(d)) };
	unsigned int v = hello_version(d, be16toh(hs->in.hello.version_min), be16toh(hs->in.hello.version));
	enum peer_status s = hello_check(d, &hs->in.hello, a.text, sizeof(a.text));
	uint64_t session = d->peer.session;
	char text[280];

	hs->channel = be16toh(hs->in.hello.channel);
	hs->disk = be16toh(hs->in.hello.disk);
	if (s == PEER_OK && hs->channel == PEER_CONTROL) {
		if (getrandom(&session, sizeof(session), 0) != sizeof(session))
			s = PEER_LATER;
		hello_answer_fill(d, &a);
	}
	if (s == PEER_OK)
		a.version = htobe16(v);
	else
		a.generation = htobe64(d->core.generation);
	a.status = htobe16(s);
	a.session = htobe64(session);
	if (tls_send(hs->tls, &a, sizeof(a), false) != sizeof(a) || tls_unsent(hs->tls) || s != PEER_OK) {
		snprintf(text, sizeof(text), "turned away: %s", a.text);
		failed_handshake(hs, text);
		return;
	}
	d->peer.session = session;
	if (hs->channel == PEER_CONTROL)
		d->peer.version = v;
	channel_open(hs);
}

static void send_hello(struct handshake *hs)
{
	struct peer_hello h;

	hello_fill(hs->d, &h, hs->channel, hs->disk);
	if (tls_send(hs->tls, &h, sizeof(h), false) != sizeof(h) || tls_unsent(hs->tls))
		failed_handshake(hs, "cannot send");
}

/* --- TLS --- */

/* To a daemon without TLS, so that its log says it, too; no more than that is said. */
static void answer_plainly(struct handshake *hs, const char *text)
{
	struct peer_answer a = { .magic = htobe32(PEER_MAGIC), .version = htobe16(hello_newest(hs->d)),
				 .status = htobe16(PEER_LATER) };
	uint8_t hello[sizeof(struct peer_hello)];

	snprintf(a.text, sizeof(a.text), "%s", text);
	/* what is left unread would take the answer with it */
	while (recv(hs->fd, hello, sizeof(hello), MSG_DONTWAIT) > 0)
		;
	if (send(hs->fd, &a, sizeof(a), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("peer: %s", strerror(errno));
}

static void failed_tls(struct handshake *hs, int error)
{
	const char *why = tls_error(hs->tls);
	char text[300], wants[100];

	if (error == -EPROTONOSUPPORT && !hs->dialled) {
		snprintf(wants, sizeof(wants), "this node wants TLS: [tls] mode = %s", config_tls_name(hs->d->cfg));
		answer_plainly(hs, wants);
	}
	snprintf(text, sizeof(text), "%s: %s", hs->dialled ? "cannot be linked with" : "turned away a connection", why);
	failed_handshake(hs, text);
}

static void shake(struct handshake *hs)
{
	char text[400], who[300];
	int r = tls_handshake(hs->tls);
	short e = tls_events(hs->tls);

	if (r == -EAGAIN) {
		watch_events(hs->watch, (e & POLLIN ? UV_READABLE : 0) | (e & POLLOUT ? UV_WRITABLE : 0));
		return;
	}
	if (r < 0) {
		failed_tls(hs, r);
		return;
	}
	if (channel_check_peer(hs->d, hs->tls, who, sizeof(who))) {
		snprintf(text, sizeof(text), "turned away: %s", who);
		failed_handshake(hs, text);
		return;
	}
	hs->secure = true;
	watch_events(hs->watch, UV_READABLE);
	if (hs->dialled)
		send_hello(hs);
}

static void on_connected(struct handshake *hs)
{
	int error = 0;
	socklen_t n = sizeof(error);

	if (getsockopt(hs->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 || error) {
		failed_handshake(hs, NULL); /* not up yet: the usual case */
		return;
	}
	hs->connected = true;
	shake(hs);
}

/* --- hello and answer come in --- */

/* Of another version only what all versions have can be awaited. */
static size_t wanted(const struct handshake *hs)
{
	/* magic and version are at the same place in both */
	bool other = hs->got >= PEER_HELLO_ANY && be16toh(hs->in.hello.version) < PEER_VERSION_MIN;

	if (hs->dialled)
		return other ? PEER_ANSWER_ANY : sizeof(struct peer_answer);
	return other ? PEER_HELLO_ANY : sizeof(struct peer_hello);
}

/* Garbage is noticed at the first four bytes, not after the time limit. */
static void not_colo(struct handshake *hs)
{
	bool tls = hs->in.raw[0] == 0x16 && hs->in.raw[1] == 0x03; /* a handshake record */

	if (hs->dialled) {
		failed_handshake(hs, "answers with something that is not colo's protocol");
		return;
	}
	if (tls)
		answer_plainly(hs, "no TLS here");
	failed_handshake(hs, tls ? "turned away a connection that begins with TLS: [tls] mode = off here" :
				   "turned away a connection that is not a colo daemon's");
}

static void read_hello(struct handshake *hs)
{
	size_t whole = hs->dialled ? sizeof(struct peer_answer) : sizeof(struct peer_hello);
	ssize_t n = tls_recv(hs->tls, hs->in.raw + hs->got, whole - hs->got);
	char text[300];

	if (n == 0)
		return;
	if (n < 0) {
		snprintf(text, sizeof(text), "in its hello: %s", tls_error(hs->tls));
		failed_handshake(hs, n == -EPIPE ? "closed the connection in its hello" : text);
		return;
	}
	hs->got += n;
	if (hs->got >= 4 && be32toh(hs->in.hello.magic) != PEER_MAGIC) /* as in an answer */
		not_colo(hs);
	else if (hs->got < wanted(hs))
		return;
	else if (hs->dialled)
		on_answer(hs);
	else
		on_hello(hs);
}

static void on_handshake(void *arg, int events)
{
	struct handshake *hs = arg;

	if (hs->dialled && !hs->connected)
		on_connected(hs);
	else if (!hs->secure)
		shake(hs);
	else
		read_hello(hs);
}

static struct handshake *new_handshake(struct daemon *d, int fd, bool dialled, int events)
{
	struct handshake *hs = calloc(1, sizeof(*hs));

	if (!hs) {
		close(fd);
		return NULL;
	}
	hs->d = d;
	hs->fd = fd;
	hs->dialled = dialled;
	hs->tls = channel_session(d, fd, dialled);
	if (!hs->tls) {
		free(hs);
		close(fd);
		return NULL;
	}
	wire_set_tcp(fd);
	uv_timer_init(&d->loop, &hs->timer);
	hs->timer.data = hs;
	uv_timer_start(&hs->timer, on_handshake_timeout, HANDSHAKE_MS, 0);
	hs->watch = watch_new(&d->loop, fd, events, on_handshake, hs);
	return hs;
}

int handshake_dialled(struct daemon *d, int fd, enum peer_channel channel, unsigned int disk)
{
	struct handshake *hs = new_handshake(d, fd, true, UV_WRITABLE);

	if (!hs)
		return -ENOMEM;
	hs->channel = channel;
	hs->disk = disk;
	return 0;
}

void handshake_accepted(struct daemon *d, int fd)
{
	struct peer *p = &d->peer;
	struct handshake *hs;

	if (p->strangers == PEER_STRANGERS)
		failed_handshake(p->stranger[0], "too many connections without a hello");
	hs = new_handshake(d, fd, false, UV_READABLE);
	if (hs)
		p->stranger[p->strangers++] = hs;
}

void handshake_end_strangers(struct daemon *d)
{
	while (d->peer.strangers)
		end_handshake(d->peer.stranger[0]);
}
