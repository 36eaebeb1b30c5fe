/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * peer.c - what the two daemons say to each other over the link
 *
 * What comes in is never trusted: lengths are checked before use, and a message that makes no sense
 * drops the link, which costs protection, not service (R6).
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define SIDE_LIMIT_MS 200
#define SECONDARY_SIDE_LIMIT_MS 5000
#define DATA_PLANE_RESERVE (4u << 20) /* room kept for control messages */
#define READ_CHUNK (256u << 10)

void peer_mute(struct daemon *d)
{
	struct peer *p = &d->peer;
	unsigned int c;

	for (c = 0; c < PEER_NCHANNELS; c++)
		watch_events(p->watch[c], 0);
	p->mute = true;
	buffer_clear(&p->in);
}

void peer_keep_former(struct daemon *d)
{
	struct peer *p = &d->peer;
	unsigned int c;

	p->former = p->up;
	uv_timer_stop(&p->retry); /* its channels may end in any order */
	for (c = 0; c < PEER_NCHANNELS; c++)
		if (c != PEER_CONTROL)
			watch_events(p->watch[c], 0);
}

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
		peer_redial(d);
}

static void on_side_limit(uv_timer_t *t)
{
	struct daemon *d = t->data;

	/* what has come is read before that is judged */
	peer_read(d);
	if (d->peer.up)
		lost(d, CORE_LOSS_PROTOCOL, "a channel is closed");
}

/* A peer that ends closes all its channels, and may have had a last word on CONTROL: who serves. That
 * one's end counts, and what stands before it is read first. If CONTROL stays, both nodes live, and
 * only one may serve: the primary does, and says so. The secondary waits for that. */
void peer_side_closed(struct daemon *d, enum peer_channel channel)
{
	struct peer *p = &d->peer;

	watch_events(p->watch[channel], 0);
	if (p->up && !p->former && !uv_is_active((uv_handle_t *)&p->retry))
		uv_timer_start(&p->retry, on_side_limit,
			       daemon_is_primary(d) ? SIDE_LIMIT_MS : SECONDARY_SIDE_LIMIT_MS, 0);
}

static void on_heartbeat(struct daemon *d, const uint8_t *p, size_t n)
{
	uint64_t v[4], rtt, now = clock_now_ns();

	if (n != (d->peer.version < 4 ? 3 : 4) * sizeof(*v))
		return;
	memcpy(v, p, n);
	if (d->peer.version >= 4 && be64toh(v[3]) < CORE_NSTATES)
		d->peer.their_state = be64toh(v[3]) + 1;
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
	uint64_t v[4] = { htobe64(now), htobe64(d->peer.their_time),
			  htobe64(now - d->peer.their_time_at), htobe64(d->core.state) };

	peer_send(d, PEER_HEARTBEAT, d->core.epoch, v, (d->peer.version < 4 ? 3 : 4) * sizeof(*v), NULL, 0);
}

static bool handed_over(struct daemon *d, uint64_t why, const uint8_t *p, size_t n)
{
	uint64_t generation = 0;

	FAILPOINT("hand-over-received");
	if (n != sizeof(generation))
		return false;
	memcpy(&generation, p, sizeof(generation));
	log_warn("the primary hands over");
	daemon_event(d, (struct core_event){ .type = CORE_EV_HANDOVER, .epoch = be64toh(generation),
					     .loss = why < CORE_NLOSSES ? why : CORE_LOSS_PVM_DIED });
	return true;
}

static bool secondary_message(struct daemon *d, unsigned int type, uint64_t epoch, const uint8_t *p,
			      size_t n)
{
	switch (type) {
	case PEER_INPUT:
	case PEER_PVM_SYN:
	case PEER_TRANSLATIONS: return nic_message(d, type, epoch, p, n);
	case PEER_BOUNDARY: return checkpoint_boundary(d, epoch, p, n);
	case PEER_SYNCED:
		daemon_event(d, (struct core_event){ .type = CORE_EV_DISK_SYNCED, .epoch = epoch });
		return true;
	case PEER_SEED_START: seed_receive(d); return true;
	case PEER_HANDOVER: return handed_over(d, epoch, p, n);
	case PEER_SWITCHOVER:
		daemon_event(d, (struct core_event){ .type = CORE_EV_SWITCHOVER });
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
		FAILPOINT("held-received");
		daemon_event(d, (struct core_event){ .type = CORE_EV_HELD, .epoch = epoch });
		return true;
	case PEER_ASK:
		log_warn("the secondary is told to take over");
		daemon_event(d, (struct core_event){
			.type = CORE_EV_ASKED, .cause = epoch ? CORE_CAUSE_SWITCHOVER : CORE_CAUSE_MANUAL });
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
	if (d->peer.former)
		return type == PEER_INPUT ? secondary_message(d, type, epoch, p, n) : true;
	return daemon_is_primary(d) ? primary_message(d, type, epoch, p, n) :
				      secondary_message(d, type, epoch, p, n);
}

void peer_parse(struct daemon *d)
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

/* As tls_recv(), to the end of what came before. */
static ssize_t read_some(struct peer *p)
{
	size_t room = buffer_room(&p->in) < READ_CHUNK ? buffer_room(&p->in) : READ_CHUNK;
	uint8_t *to = buffer_reserve(&p->in, room);
	ssize_t n = room ? tls_recv(p->tls[PEER_CONTROL], to, room) : 0;

	if (n > 0)
		buffer_commit(&p->in, n);
	return n;
}

/* One that is broken or forged is not the peer's word, nor its death. */
static enum core_loss loss_of(int error)
{
	return error == -EBADMSG || error == -EPROTO ? CORE_LOSS_PROTOCOL : CORE_LOSS_CLOSED;
}

void peer_read(struct daemon *d)
{
	struct peer *p = &d->peer;
	ssize_t n;

	if (p->fd[PEER_CONTROL] < 0 || p->mute)
		return;
	n = read_some(p);
	if (n < 0) {
		lost(d, loss_of(n), tls_error(p->tls[PEER_CONTROL]));
		return;
	}
	if (n == 0)
		return;
	p->rx_bytes += n;
	if (p->up)
		daemon_event(d, (struct core_event){ .type = CORE_EV_RX });
	peer_parse(d);
}

void peer_on_control(void *arg, int events)
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

/* As tls_send(), from what waits. */
static ssize_t write_some(struct peer *p)
{
	ssize_t n = tls_send(p->tls[PEER_CONTROL], buffer_peek(&p->out), buffer_len(&p->out), false);

	if (n > 0) {
		buffer_skip(&p->out, n);
		p->tx_bytes += n;
	}
	return n;
}

static bool unsent(const struct peer *p)
{
	return buffer_len(&p->out) || tls_unsent(p->tls[PEER_CONTROL]);
}

void peer_flush(struct daemon *d)
{
	struct peer *p = &d->peer;
	ssize_t n = 0;

	if (p->fd[PEER_CONTROL] < 0)
		return;
	while (buffer_len(&p->out) && (n = write_some(p)) > 0)
		;
	if (tls_unsent(p->tls[PEER_CONTROL]))
		n = tls_flush(p->tls[PEER_CONTROL]);
	/* an error shows up on the reading side, too, where it is handled */
	watch_events(p->watch[PEER_CONTROL],
		     (p->mute ? 0 : UV_READABLE) | (unsent(p) && (n == 0 || n == -EAGAIN) ? UV_WRITABLE : 0));
}

void peer_flush_blocking(struct daemon *d)
{
	struct peer *p = &d->peer;
	struct pollfd pfd = { .fd = p->fd[PEER_CONTROL], .events = POLLOUT };
	uint64_t end = clock_now_ns() + 1000000000;
	ssize_t n = 0;

	while (pfd.fd >= 0 && unsent(p) && clock_now_ns() < end) {
		if (poll(&pfd, 1, 100) <= 0)
			continue;
		n = buffer_len(&p->out) ? write_some(p) : tls_flush(p->tls[PEER_CONTROL]);
		if (n < 0 && n != -EAGAIN)
			return;
	}
}

bool peer_hear_goodbye(struct daemon *d)
{
	struct peer *p = &d->peer;
	uint64_t end = clock_now_ns() + 1000000000;

	peer_flush_blocking(d);
	while (p->fd[PEER_CONTROL] >= 0 && !*d->alarms.goodbye && clock_now_ns() < end) {
		struct pollfd pfd = { .fd = p->fd[PEER_CONTROL], .events = POLLIN };

		if (poll(&pfd, 1, 100) > 0)
			peer_read(d);
	}
	return *d->alarms.goodbye;
}
