/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * peer.c - the link to the other daemon
 *
 * Theory of operation: both listen, only a primary accepts; the secondary dials. Every connection starts with a hello of
 * the dialler, which is checked against our own configuration, and an answer. The secondary dials
 * CONTROL, then BULK and DISK with the session number it was given; with all three the link is up.
 * A link is dropped as a whole. Nothing here waits: each handshake is a small state machine with a
 * time limit, so that a peer that says garbage or nothing costs one descriptor for five seconds.
 *
 * What comes in is never trusted: lengths are checked before use, and a message that makes no sense
 * drops the link, which costs protection, not service (R6).
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
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
#define MAX_STRANGERS 16 /* connections without a hello */
#define REDIAL_MS 200
#define SIDE_LIMIT_MS 200
#define CONTROL_BUFFER (32u << 20)
#define DATA_PLANE_RESERVE (4u << 20) /* room kept for control messages */
#define READ_CHUNK (256u << 10)

/* one connection in its handshake */
struct handshake {
	struct daemon *d;
	int fd;
	struct watch *watch;
	uv_timer_t timer;
	enum peer_channel channel;
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
static void on_control(void *arg, int events);
static void parse(struct daemon *d);

/* --- channels --- */

static void link_up(struct daemon *d)
{
	struct peer *p = &d->peer;

	if (p->up || p->fd[PEER_CONTROL] < 0 || p->fd[PEER_BULK] < 0 || p->fd[PEER_DISK] < 0)
		return;
	p->up = true;
	uv_timer_stop(&p->retry);
	log_info("linked with %s", config_peer(d->cfg)->name);
	daemon_event(d, (struct core_event){ .type = CORE_EV_PEER_UP });
	parse(d); /* what the other side, up a moment earlier, has said already */
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

static void channel_open(struct daemon *d, enum peer_channel channel, int fd)
{
	struct peer *p = &d->peer;

	if (channel == PEER_SEED) {
		seed_channel(d, fd);
		return;
	}
	p->fd[channel] = fd;
	if (channel == PEER_CONTROL) {
		buffer_clear(&p->in);
		buffer_clear(&p->out);
		p->watch[channel] = watch_new(&d->loop, fd, UV_READABLE, on_control, d);
		if (!p->dialling)
			uv_timer_start(&p->retry, on_partial, HANDSHAKE_MS, 0);
	} else if (channel == PEER_BULK) {
		p->watch[channel] = watch_new(&d->loop, fd, UV_READABLE, transfer_on_bulk, d);
	}
	if (p->dialling)
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

static void dial_later(struct daemon *d)
{
	if (d->peer.dialling && (d->core.state == CORE_CONNECTING || start_is_undecided(d)))
		uv_timer_start(&d->peer.retry, retry_dial, REDIAL_MS, 0);
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
	if (dialled && !d->ending && d->peer.dialling) {
		if (d->peer.fd[PEER_CONTROL] >= 0)
			peer_drop(d);
		dial_later(d);
	}
}

static void on_handshake_timeout(uv_timer_t *t)
{
	failed_handshake(t->data, "no proper hello in time");
}

static void on_answer(struct handshake *hs)
{
	struct peer_answer *a = &hs->in.answer;
	struct daemon *d = hs->d;
	enum peer_channel channel = hs->channel;
	char text[300];
	int fd;

	if (be32toh(a->magic) != PEER_MAGIC) {
		failed_handshake(hs, "answers with something that is not colo's protocol");
		return;
	}
	hello_text(a->text, sizeof(a->text));
	if (!d->peer.dialling) { /* this node serves by now */
		failed_handshake(hs, NULL);
		return;
	}
	if (be16toh(a->status) == PEER_OK && be16toh(a->version) == PEER_VERSION) {
		if (channel == PEER_CONTROL)
			d->peer.session = be64toh(a->session);
		if (start_is_undecided(d))
			start_taken(d);
		d->peer.last_refusal[0] = 0;
		fd = hs->fd;
		hs->fd = -1;
		end_handshake(hs);
		channel_open(d, channel, fd);
		return;
	}
	if (be16toh(a->status) == PEER_OK)
		snprintf(text, sizeof(text), "speaks peer protocol %u, this is colo %s with protocol %u",
			 be16toh(a->version), COLO_VERSION, PEER_VERSION);
	else
		snprintf(text, sizeof(text), "refused: %s", a->text);
	if (be16toh(a->status) == PEER_REFUSED && channel == PEER_CONTROL) {
		end_handshake(hs);
		daemon_fail_start(d, "%s refuses this node: %s", config_peer(d->cfg)->name, a->text);
		return;
	}
	failed_handshake(hs, text);
}

static void on_hello(struct handshake *hs)
{
	struct peer_answer a = { .magic = htobe32(PEER_MAGIC), .version = htobe16(PEER_VERSION) };
	struct daemon *d = hs->d;
	enum peer_channel channel = be16toh(hs->in.hello.channel);
	enum peer_status s = hello_check(d, &hs->in.hello, a.text, sizeof(a.text));
	uint64_t session = d->peer.session;
	char text[280];
	int fd;

	if (s == PEER_OK && channel == PEER_CONTROL &&
	    getrandom(&session, sizeof(session), 0) != sizeof(session))
		s = PEER_LATER;
	a.status = htobe16(s);
	a.session = htobe64(session);
	if (send(hs->fd, &a, sizeof(a), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(a) || s != PEER_OK) {
		snprintf(text, sizeof(text), "turned away: %s", a.text);
		failed_handshake(hs, text);
		return;
	}
	d->peer.session = session;
	fd = hs->fd;
	hs->fd = -1;
	end_handshake(hs);
	channel_open(d, channel, fd);
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
	hello_fill(hs->d, &h, hs->channel);
	if (send(hs->fd, &h, sizeof(h), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(h)) {
		failed_handshake(hs, "cannot send");
		return;
	}
	watch_events(hs->watch, UV_READABLE);
}

static void on_handshake(void *arg, int events)
{
	struct handshake *hs = arg;
	size_t want = hs->dialled ? sizeof(struct peer_answer) : sizeof(struct peer_hello);
	ssize_t n;

	if (hs->dialled && !hs->connected) {
		send_hello(hs);
		return;
	}
	n = recv(hs->fd, hs->in.raw + hs->got, want - hs->got, MSG_DONTWAIT);
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
	if (hs->got < want)
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

int peer_dial(struct daemon *d, enum peer_channel channel)
{
	struct addrinfo *ai;
	struct handshake *hs;
	int fd, r;

	if (!d->peer.address && resolve(config_peer(d->cfg), &d->peer.address) < 0)
		return -EINVAL;
	ai = d->peer.address;
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	r = fd < 0 ? -errno : connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 ? -errno : 0;
	if (r < 0 && r != -EINPROGRESS) {
		if (fd >= 0)
			close(fd);
		uv_timer_start(&d->peer.retry, retry_dial, REDIAL_MS, 0);
		return r;
	}
	hs = new_handshake(d, fd, true, UV_WRITABLE);
	if (hs)
		hs->channel = channel;
	return hs ? 0 : -ENOMEM;
}

static void dial_next(struct daemon *d)
{
	unsigned int c;

	for (c = PEER_CONTROL; c <= PEER_DISK; c++)
		if (d->peer.fd[c] < 0) {
			peer_dial(d, c);
			return;
		}
}

static int listen_on(struct daemon *d)
{
	const struct config_host *h = config_local(d->cfg);
	struct addrinfo *ai;
	int one = 1, r = 0, fd;

	if (resolve(h, &ai) < 0)
		return -EINVAL;
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
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
	p->up = p->mute = false;
}

void peer_mute(struct daemon *d)
{
	struct peer *p = &d->peer;
	unsigned int c;

	for (c = 0; c < PEER_NCHANNELS; c++)
		watch_events(p->watch[c], 0);
	p->mute = true;
	buffer_clear(&p->in);
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

/* --- messages --- */

static void lost(struct daemon *d, enum core_loss how, const char *why)
{
	bool was_up = d->peer.up;

	log_warn("peer %s: %s", config_peer(d->cfg)->name, why);
	if (was_up && how == CORE_LOSS_PROTOCOL)
		peer_mute(d); /* the core may want to have a last word on it */
	else
		peer_drop(d);
	if (was_up)
		daemon_event(d, (struct core_event){ .type = CORE_EV_PEER_LOST, .loss = how });
	else
		dial_later(d);
}

static void on_side_limit(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->peer.up)
		lost(d, CORE_LOSS_CLOSED, "a channel is closed");
}

/* A peer that ends closes all its channels, and may have had a last word on CONTROL: who serves. That
 * one's end counts, and what stands before it is read first. */
void peer_side_closed(struct daemon *d, enum peer_channel channel)
{
	struct peer *p = &d->peer;

	watch_events(p->watch[channel], 0);
	if (p->up && !uv_is_active((uv_handle_t *)&p->retry))
		uv_timer_start(&p->retry, on_side_limit, SIDE_LIMIT_MS, 0);
}

static void on_heartbeat(struct daemon *d, const uint8_t *p, size_t n)
{
	uint64_t v[3], rtt, now = clock_now_ns();

	if (n != sizeof(v))
		return;
	memcpy(v, p, n);
	d->peer.their_time = be64toh(v[0]);
	d->peer.their_time_at = now;
	if (!be64toh(v[1]))
		return;
	rtt = now - be64toh(v[1]) - be64toh(v[2]);
	/* the least of late is the nearest to the wire's own */
	if (rtt < 1000000000 && (!d->peer.rtt_ns || rtt < d->peer.rtt_ns))
		d->peer.rtt_ns = rtt;
	else
		d->peer.rtt_ns += d->peer.rtt_ns / 64 + 1;
}

void peer_heartbeat(struct daemon *d)
{
	uint64_t now = clock_now_ns();
	uint64_t v[3] = { htobe64(now), htobe64(d->peer.their_time),
			  htobe64(now - d->peer.their_time_at) };

	peer_send(d, PEER_HEARTBEAT, d->core.epoch, v, sizeof(v), NULL, 0);
}

static bool secondary_message(struct daemon *d, unsigned int type, uint64_t epoch, const uint8_t *p,
			      size_t n)
{
	switch (type) {
	case PEER_INPUT:
	case PEER_PVM_SYN: return nic_message(d, type, epoch, p, n);
	case PEER_BOUNDARY: return checkpoint_boundary(d, epoch, p, n);
	case PEER_SYNCED:
		daemon_event(d, (struct core_event){ .type = CORE_EV_DISK_SYNCED, .epoch = epoch });
		return true;
	case PEER_SEED_START: seed_receive(d); return true;
	case PEER_HANDOVER:
		log_warn("the primary hands over");
		daemon_event(d, (struct core_event){
			.type = CORE_EV_HANDOVER,
			.loss = epoch == CORE_LOSS_MANUAL || epoch == CORE_LOSS_DISK ? epoch : CORE_LOSS_PVM_DIED,
		});
		return true;
	case PEER_DISMISS:
		log_warn("the primary serves alone and dismisses this node");
		daemon_event(d, (struct core_event){ .type = CORE_EV_DISMISSED });
		return true;
	case PEER_GUEST_OFF:
		log_info("the primary has ended the VM");
		daemon_event(d, (struct core_event){ .type = CORE_EV_STOP });
		return true;
	}
	return false;
}

static bool primary_message(struct daemon *d, unsigned int type, uint64_t epoch, const uint8_t *p,
			    size_t n)
{
	switch (type) {
	case PEER_OUTPUT: return nic_message(d, type, epoch, p, n);
	case PEER_HELD:
		daemon_event(d, (struct core_event){ .type = CORE_EV_HELD, .epoch = epoch });
		return true;
	case PEER_ASK:
		log_warn("the secondary is told to take over");
		daemon_event(d, (struct core_event){ .type = CORE_EV_ASKED });
		return true;
	case PEER_TAKEN:
		log_error("this node was silent too long: the secondary has taken over");
		daemon_event(d, (struct core_event){ .type = CORE_EV_TAKEN });
		return true;
	case PEER_APPLIED: checkpoint_peer_applied(d, epoch, p, n); return true;
	case PEER_SEED_READY: seed_peer_ready(d, p, n); return true;
	case PEER_GOODBYE: faults_heard_goodbye(d, p, n); return true;
	}
	return false;
}

static bool message(struct daemon *d, unsigned int type, uint64_t epoch, const uint8_t *p, size_t n)
{
	if (type == PEER_HEARTBEAT) {
		on_heartbeat(d, p, n);
		return true;
	}
	/* after a takeover the former primary may still forward input */
	if (daemon_is_primary(d) && d->survivor)
		return type == PEER_INPUT ? secondary_message(d, type, epoch, p, n) : true;
	return daemon_is_primary(d) ? primary_message(d, type, epoch, p, n) :
				      secondary_message(d, type, epoch, p, n);
}

static void parse(struct daemon *d)
{
	struct peer *p = &d->peer;
	struct peer_header h;
	uint32_t n;
	bool ok;

	while (p->up && !p->mute && p->fd[PEER_CONTROL] >= 0 && buffer_len(&p->in) >= sizeof(h)) {
		memcpy(&h, buffer_peek(&p->in), sizeof(h));
		n = be32toh(h.length);
		if (n > PEER_PAYLOAD_MAX) {
			lost(d, CORE_LOSS_PROTOCOL, "sent a message that is too long");
			return;
		}
		if (buffer_len(&p->in) < sizeof(h) + n)
			return;
		ok = message(d, be16toh(h.type), be64toh(h.epoch), buffer_peek(&p->in) + sizeof(h), n);
		if (p->fd[PEER_CONTROL] < 0 || p->mute)
			return; /* the message ended the link */
		if (!ok) {
			lost(d, CORE_LOSS_PROTOCOL, "sent a message that makes no sense");
			return;
		}
		buffer_skip(&p->in, sizeof(h) + n);
	}
}

void peer_read(struct daemon *d)
{
	struct peer *p = &d->peer;
	ssize_t n;

	if (p->fd[PEER_CONTROL] < 0 || p->mute)
		return;
	n = buffer_read_from(&p->in, p->fd[PEER_CONTROL], READ_CHUNK);
	if (n < 0) {
		lost(d, CORE_LOSS_CLOSED, n == -EPIPE ? "closed the link" : strerror(-n));
		return;
	}
	if (n == 0)
		return;
	p->rx_bytes += n;
	if (p->up)
		daemon_event(d, (struct core_event){ .type = CORE_EV_RX });
	parse(d);
}

static void on_control(void *arg, int events)
{
	struct daemon *d = arg;

	if (events & UV_WRITABLE)
		peer_flush(d);
	if (events & UV_READABLE)
		peer_read(d);
}

bool peer_send(struct daemon *d, enum peer_type type, uint64_t epoch, const void *a, size_t na,
	       const void *b, size_t nb)
{
	struct peer_header h = { htobe32(na + nb), htobe16(type), 0, htobe64(epoch) };
	struct buffer *out = &d->peer.out;

	if (d->peer.fd[PEER_CONTROL] < 0 || buffer_room(out) < sizeof(h) + na + nb)
		return false;
	buffer_put(out, &h, sizeof(h));
	if (na)
		buffer_put(out, a, na);
	if (nb)
		buffer_put(out, b, nb);
	return true;
}

bool peer_has_room(const struct peer *p)
{
	return p->fd[PEER_CONTROL] < 0 || buffer_room(&p->out) > DATA_PLANE_RESERVE;
}

void peer_flush(struct daemon *d)
{
	struct peer *p = &d->peer;
	ssize_t n = 0;

	if (p->fd[PEER_CONTROL] < 0)
		return;
	while (buffer_len(&p->out) && (n = buffer_write_to(&p->out, p->fd[PEER_CONTROL])) > 0)
		p->tx_bytes += n;
	/* an error shows up on the reading side, too, where it is handled */
	watch_events(p->watch[PEER_CONTROL],
		     (p->mute ? 0 : UV_READABLE) | (buffer_len(&p->out) && n == 0 ? UV_WRITABLE : 0));
}

void peer_flush_blocking(struct daemon *d)
{
	struct peer *p = &d->peer;
	struct pollfd pfd = { .fd = p->fd[PEER_CONTROL], .events = POLLOUT };
	uint64_t end = clock_now_ns() + 1000000000;

	while (pfd.fd >= 0 && buffer_len(&p->out) && clock_now_ns() < end)
		if (poll(&pfd, 1, 100) > 0 && buffer_write_to(&p->out, pfd.fd) < 0)
			return;
}
