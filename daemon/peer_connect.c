/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * peer_connect.c - how the link to the other daemon comes about, and ends
 *
 * Theory of operation: both listen, but only a primary accepts; the secondary dials, and so does a node that does
 * not know its role yet. Each connection begins with a handshake (handshake.c). The dialler opens CONTROL, then BULK
 * and a DISK for each writable disk with the session number it was given; with all of them the link is up.
 * A link is dropped as a whole. Nothing here waits. No more strangers are accepted in a second than leave the loop
 * time for its work.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define PARTIAL_MS 5000
#define ACCEPTS_A_SECOND 40
#define REDIAL_MS 200
#define CONTROL_BUFFER (32u << 20)

static void dial_next(struct daemon *d);

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

static void control_open(struct daemon *d, bool dialled)
{
	struct peer *p = &d->peer;

	tls_set_fine(p->tls[PEER_CONTROL]);
	p->dialled = dialled;
	p->their_state = 0;
	buffer_clear(&p->in);
	buffer_clear(&p->out);
	p->watch[PEER_CONTROL] = watch_new(&d->loop, p->fd[PEER_CONTROL], UV_READABLE, peer_on_control, d);
	if (!dialled)
		uv_timer_start(&p->retry, on_partial, PARTIAL_MS, 0);
}

bool peer_has_channel(const struct peer *p, enum peer_channel channel, unsigned int disk)
{
	return channel == PEER_DISK ? p->disk[disk].fd >= 0 : p->fd[channel] >= 0;
}

/* CONTROL and BULK are the daemon's own; others are given away */
static void channel_take(struct daemon *d, enum peer_channel channel, unsigned int disk, struct tls *tls, int fd,
			 bool dialled)
{
	struct peer *p = &d->peer;

	if (channel == PEER_DISK) {
		p->disk[disk].fd = channel_for_others(d, tls, fd, "disk");
		return;
	}
	p->fd[channel] = fd;
	p->tls[channel] = tls;
	if (channel == PEER_CONTROL)
		control_open(d, dialled);
	else
		p->watch[channel] = watch_new(&d->loop, fd, UV_READABLE, transfer_on_bulk, d);
}

void peer_channel_open(struct daemon *d, enum peer_channel channel, unsigned int disk, struct tls *tls, int fd,
		       bool dialled)
{
	struct peer *p = &d->peer;

	if (channel == PEER_SEED) {
		fd = channel_for_others(d, tls, fd, "seed");
		if (fd >= 0)
			seed_channel(d, fd);
		return;
	}
	channel_take(d, channel, disk, tls, fd, dialled);
	FAILPOINT_IF(p->dialled, "session-dialled");
	FAILPOINT_IF(!p->dialled, "session-accepted");
	if (p->dialled)
		dial_next(d);
	link_up(d);
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

void peer_dial_failed(struct daemon *d)
{
	if (d->ending || !d->peer.dialling)
		return;
	if (d->peer.fd[PEER_CONTROL] >= 0 && d->peer.dialled)
		peer_drop(d);
	peer_redial(d);
}

static void on_listen_again(uv_timer_t *t)
{
	struct daemon *d = t->data;

	watch_events(d->peer.listen_watch, UV_READABLE);
}

/* A flood waits with the kernel. */
static bool too_many(struct daemon *d)
{
	struct peer *p = &d->peer;
	uint64_t now = uv_now(&d->loop);

	if (now - p->accepted_since_ms >= 1000) {
		p->accepted_since_ms = now;
		p->accepted = 0;
	}
	if (p->accepted++ < ACCEPTS_A_SECOND)
		return false;
	watch_events(p->listen_watch, 0);
	uv_timer_start(&p->accept_again, on_listen_again, 1000 - (now - p->accepted_since_ms), 0);
	return true;
}

static void on_listen(void *arg, int events)
{
	struct daemon *d = arg;
	struct peer *p = &d->peer;
	int fd;

	if (too_many(d))
		return;
	fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		handshake_accepted(d, fd);
	else
		watchdog_rest(d, p->listen_watch, errno);
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
	return handshake_dialled(d, fd, channel, disk);
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
		uv_timer_init(&d->loop, &p->accept_again);
		p->retry.data = p->accept_again.data = d;
	}
	r = channel_init(d);
	return r < 0 ? r : listen_on(d);
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
		if (p->tls[c])
			tls_bye(p->tls[c]);
		tls_free(p->tls[c]);
		p->tls[c] = NULL;
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
	if (p->in.data)
		uv_close((uv_handle_t *)&p->accept_again, NULL);
	handshake_end_strangers(d);
	buffer_free(&p->in);
	buffer_free(&p->out);
	if (p->address)
		freeaddrinfo(p->address);
	p->address = NULL;
}
