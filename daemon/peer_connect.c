/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * peer_connect.c - how the link to the other daemon comes about, and ends
 *
 * Theory of operation: both listen, but only a primary accepts; the secondary dials, and so does a node that does
 * not know its role yet. Every connection starts with a hello of the dialler, which is checked against our own configuration, and
 * an answer. The dialler opens CONTROL, then BULK and a DISK for each writable disk with the session number
 * it was given; with all of them the link is up.
 * A link is dropped as a whole. Nothing here waits: each handshake is a small state machine with a
 * time limit, so that a peer that says garbage or nothing costs one descriptor for five seconds.
 */
#include <endian.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define HANDSHAKE_MS 5000
#define MAX_STRANGERS 16 /* connections without a hello */
#define REDIAL_MS 200
#define CONTROL_BUFFER (32u << 20)

/* one connection in its handshake */
struct handshake {
	struct daemon *d;
	int fd;
	struct watch *watch;
	uv_timer_t timer;
	enum peer_channel channel;
	unsigned int disk;
	bool dialled;
	bool connected; /* the hello is sent */
	size_t got;
	union {
		struct peer_hello hello;
		struct peer_answer answer;
		uint8_t raw[1];
	} in;
};

static void dial_next(struct daemon *d);
static void end_handshake(struct handshake *hs);
static void failed_handshake(struct handshake *hs, const char *why);

/* --- channels --- */

/* the first writable disk without its channel; none: their number */
static unsigned int unlinked_disk(const struct daemon *d)
{
	unsigned int i = 0;

	while (i < d->cfg->disks && (!config_disk_writable(d->cfg, i) || d->peer.disk[i].fd >= 0))
		i++;
	return i;
}

static void link_up(struct daemon *d)
{
	struct peer *p = &d->peer;

	if (p->up || p->fd[PEER_CONTROL] < 0 || p->fd[PEER_BULK] < 0 || unlinked_disk(d) < d->cfg->disks)
		return;
	p->up = true;
	uv_timer_stop(&p->retry);
	log_info("linked with %s, peer protocol %u", config_peer(d->cfg)->name, p->version);
	daemon_event(d, (struct core_event){ .type = CORE_EV_PEER_UP });
	peer_parse(d); /* what the other side, up a moment earlier, has said already */
}

/* a peer that ends, or loses its way, between two channels must not keep the next one out */
static void on_partial(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->peer.up || d->peer.fd[PEER_CONTROL] < 0)
		return;
	log_warn("peer %s: did not open all channels in time", config_peer(d->cfg)->name);
	peer_drop(d);
}

static void control_open(struct daemon *d, int fd, bool dialled)
{
	struct peer *p = &d->peer;

	p->fd[PEER_CONTROL] = fd;
	p->dialled = dialled;
	p->their_state = 0;
	buffer_clear(&p->in);
	buffer_clear(&p->out);
	p->watch[PEER_CONTROL] = watch_new(&d->loop, fd, UV_READABLE, peer_on_control, d);
	if (!dialled)
		uv_timer_start(&p->retry, on_partial, HANDSHAKE_MS, 0);
}

static bool taken(const struct peer *p, const struct handshake *hs)
{
	return hs->channel == PEER_DISK ? p->disk[hs->disk].fd >= 0 : p->fd[hs->channel] >= 0;
}

/* The handshake is over and good. */
static void channel_open(struct handshake *hs)
{
	struct daemon *d = hs->d;
	struct peer *p = &d->peer;
	enum peer_channel channel = hs->channel;
	unsigned int disk = hs->disk;
	bool dialled = hs->dialled;
	int fd = hs->fd;

	if (taken(p, hs)) {
		failed_handshake(hs, NULL);
		return;
	}
	hs->fd = -1;
	end_handshake(hs); /* first: a descriptor has one watch at a time */
	if (channel == PEER_SEED) {
		seed_channel(d, fd);
		return;
	}
	if (channel == PEER_CONTROL) {
		control_open(d, fd, dialled);
	} else if (channel == PEER_DISK) {
		p->disk[disk].fd = fd;
	} else {
		p->fd[channel] = fd;
		p->watch[channel] = watch_new(&d->loop, fd, UV_READABLE, transfer_on_bulk, d);
	}
	FAILPOINT_IF(p->dialled, "session-dialled");
	FAILPOINT_IF(!p->dialled, "session-accepted");
	if (p->dialled)
		dial_next(d);
	link_up(d);
}

static void free_handshake(uv_handle_t *h)
{
	free(h->data);
}

/* fd: stays open if it was taken out of hs before */
static void end_handshake(struct handshake *hs)
{
	watch_free(hs->watch);
	if (!hs->dialled)
		hs->d->peer.strangers--;
	if (hs->fd >= 0)
		close(hs->fd);
	hs->fd = -1;
	hs->watch = NULL;
	uv_close((uv_handle_t *)&hs->timer, free_handshake);
}

static void retry_dial(uv_timer_t *t)
{
	struct daemon *d = t->data;

	dial_next(d);
}

void peer_redial(struct daemon *d)
{
	if (d->peer.dialling && d->peer.fd[PEER_CONTROL] < 0 &&
	    (d->core.state == CORE_CONNECTING || start_is_undecided(d) || hello_is_claiming(d)))
		uv_timer_start(&d->peer.retry, retry_dial, REDIAL_MS, 0);
}

static void failed_handshake(struct handshake *hs, const char *why)
{
	struct daemon *d = hs->d;
	bool dialled = hs->dialled, ours = d->peer.dialled;

	if (why && strcmp(why, d->peer.last_refusal)) {
		snprintf(d->peer.last_refusal, sizeof(d->peer.last_refusal), "%s", why);
		log_warn("peer %s: %s", config_peer(d->cfg)->name, why);
	}
	end_handshake(hs);
	if (dialled && !d->ending && d->peer.dialling) {
		if (d->peer.fd[PEER_CONTROL] >= 0 && ours)
			peer_drop(d);
		peer_redial(d);
	}
}

static void on_handshake_timeout(uv_timer_t *t)
{
	failed_handshake(t->data, "no proper hello in time");
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

	if (be16toh(a->status) != PEER_SERVES || generation < d->core.generation) {
		failed_handshake(hs, be16toh(a->status) == PEER_OK ? "makes no sense" : a->text);
		return;
	}
	log_warn("%s", a->text);
	end_handshake(hs);
	daemon_event(d, (struct core_event){ .type = CORE_EV_DISMISSED, .epoch = generation });
}

static void on_answer(struct handshake *hs)
{
	struct peer_answer *a = &hs->in.answer;
	char text[300];

	if (be32toh(a->magic) != PEER_MAGIC) {
		failed_handshake(hs, "answers with something that is not colo's protocol");
		return;
	}
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
	if (send(hs->fd, &a, sizeof(a), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(a) || s != PEER_OK) {
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
	int error = 0;
	socklen_t n = sizeof(error);

	if (getsockopt(hs->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 || error) {
		failed_handshake(hs, NULL); /* not up yet: the usual case */
		return;
	}
	hs->connected = true;
	hello_fill(hs->d, &h, hs->channel, hs->disk);
	if (send(hs->fd, &h, sizeof(h), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(h)) {
		failed_handshake(hs, "cannot send");
		return;
	}
	watch_events(hs->watch, UV_READABLE);
}

/* Of another version only what all versions have can be awaited. */
static size_t wanted(const struct handshake *hs)
{
	/* magic and version are at the same place in both */
	bool other = hs->got >= PEER_HELLO_ANY && be16toh(hs->in.hello.version) < PEER_VERSION_MIN;

	if (hs->dialled)
		return other ? PEER_ANSWER_ANY : sizeof(struct peer_answer);
	return other ? PEER_HELLO_ANY : sizeof(struct peer_hello);
}

static void on_handshake(void *arg, int events)
{
	struct handshake *hs = arg;
	ssize_t n;

	if (hs->dialled && !hs->connected) {
		send_hello(hs);
		return;
	}
	n = recv(hs->fd, hs->in.raw + hs->got,
		 (hs->dialled ? sizeof(struct peer_answer) : sizeof(struct peer_hello)) - hs->got, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		failed_handshake(hs, "closed the connection in its hello");
		return;
	}
	hs->got += n;
	/* garbage is noticed at the first four bytes, not after the time limit */
	if (!hs->dialled && hs->got >= 4 && be32toh(hs->in.hello.magic) != PEER_MAGIC) {
		failed_handshake(hs, "turned away a connection that is not a colo daemon's");
		return;
	}
	if (hs->got < wanted(hs))
		return;
	if (hs->dialled)
		on_answer(hs);
	else
		on_hello(hs);
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
	wire_set_tcp(fd);
	uv_timer_init(&d->loop, &hs->timer);
	hs->timer.data = hs;
	uv_timer_start(&hs->timer, on_handshake_timeout, HANDSHAKE_MS, 0);
	hs->watch = watch_new(&d->loop, fd, events, on_handshake, hs);
	return hs;
}

static void on_listen(void *arg, int events)
{
	struct daemon *d = arg;
	int fd = accept4(d->peer.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (d->peer.strangers >= MAX_STRANGERS)
		close(fd);
	else if (new_handshake(d, fd, false, UV_READABLE))
		d->peer.strangers++;
}

/* --- dialling and listening --- */

/* Asked once: a name server must not be able to stall the event loop while a VM is served. */
static int resolve(const struct config_host *h, struct addrinfo **out)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	char port[8];
	int r;

	snprintf(port, sizeof(port), "%u", (unsigned int)h->port);
	r = getaddrinfo(h->address, port, &hints, out);
	if (r)
		log_error("[host %s] address: %s: %s", h->name, h->address, gai_strerror(r));
	return r ? -EINVAL : 0;
}

static int dial(struct daemon *d, enum peer_channel channel, unsigned int disk)
{
	struct addrinfo *ai;
	struct handshake *hs;
	int fd, r;

	if (!d->peer.address && resolve(config_peer(d->cfg), &d->peer.address) < 0)
		return -EINVAL;
	ai = d->peer.address;
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		wire_set_unpaced(fd);
	r = fd < 0 ? -errno : connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 ? -errno : 0;
	if (r < 0 && r != -EINPROGRESS) {
		if (fd >= 0)
			close(fd);
		uv_timer_start(&d->peer.retry, retry_dial, REDIAL_MS, 0);
		return r;
	}
	hs = new_handshake(d, fd, true, UV_WRITABLE);
	if (!hs)
		return -ENOMEM;
	hs->channel = channel;
	hs->disk = disk;
	return 0;
}

int peer_dial(struct daemon *d, enum peer_channel channel)
{
	return dial(d, channel, 0);
}

static void dial_next(struct daemon *d)
{
	struct peer *p = &d->peer;
	unsigned int disk = unlinked_disk(d);

	if (p->fd[PEER_CONTROL] < 0)
		dial(d, PEER_CONTROL, 0);
	else if (p->fd[PEER_BULK] < 0)
		dial(d, PEER_BULK, 0);
	else if (disk < d->cfg->disks)
		dial(d, PEER_DISK, disk);
}

static int listen_on(struct daemon *d)
{
	const struct config_host *h = config_local(d->cfg);
	struct addrinfo *ai;
	int one = 1, r = 0, fd;

	if (resolve(h, &ai) < 0)
		return -EINVAL;
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		wire_set_unpaced(fd); /* so are those it accepts */
	}
	if (fd < 0 || bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 8) < 0) {
		r = -errno;
		log_error("[host %s] address: cannot listen on %s port %u: %s", h->name, h->address,
			  (unsigned int)h->port, strerror(errno));
		if (fd >= 0)
			close(fd);
	} else {
		d->peer.listen_fd = fd;
		d->peer.listen_watch = watch_new(&d->loop, fd, UV_READABLE, on_listen, d);
	}
	freeaddrinfo(ai);
	return r;
}

int peer_start(struct daemon *d)
{
	struct peer *p = &d->peer;
	int r;

	if (!p->in.data) {
		r = buffer_init(&p->in, CONTROL_BUFFER);
		r = r < 0 ? r : buffer_init(&p->out, CONTROL_BUFFER);
		if (r < 0)
			return r;
		uv_timer_init(&d->loop, &p->retry);
		p->retry.data = d;
	}
	return listen_on(d);
}

void peer_start_dialling(struct daemon *d)
{
	d->peer.dialling = true;
	dial_next(d);
}

void peer_stop_dialling(struct daemon *d)
{
	d->peer.dialling = false;
	if (d->peer.fd[PEER_CONTROL] < 0)
		uv_timer_stop(&d->peer.retry);
}

void peer_drop(struct daemon *d)
{
	struct peer *p = &d->peer;
	unsigned int c;

	for (c = 0; c < PEER_NCHANNELS; c++) {
		watch_free(p->watch[c]);
		p->watch[c] = NULL;
		if (p->fd[c] >= 0)
			close(p->fd[c]);
		p->fd[c] = -1;
	}
	for (c = 0; c < CONFIG_DISKS_MAX; c++) {
		if (p->disk[c].fd >= 0)
			close(p->disk[c].fd);
		p->disk[c].fd = -1;
	}
	p->up = p->mute = p->dialled = p->former = false;
}

void peer_stop(struct daemon *d)
{
	struct peer *p = &d->peer;

	peer_drop(d);
	watch_free(p->listen_watch);
	p->listen_watch = NULL;
	if (p->listen_fd >= 0)
		close(p->listen_fd);
	p->listen_fd = -1;
	if (p->in.data)
		uv_close((uv_handle_t *)&p->retry, NULL);
	buffer_free(&p->in);
	buffer_free(&p->out);
	if (p->address)
		freeaddrinfo(p->address);
	p->address = NULL;
}
