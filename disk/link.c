/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * link.c - the stream of writes to the peer's disk manager, and the link's life
 *
 * Theory of operation. Writers copy their request into a ring of fixed size, a sender thread writes the
 * ring to the socket. A full ring makes writers wait, which is the back-pressure that a slow peer or
 * network exerts on the guest; nothing grows without bound. Boundary marks may use the last few KiB of
 * the ring, so that the control thread never waits.
 *
 * Waiting cannot last: a writer that sees no byte leave for link_stall_ms gives the link up. Stopping the
 * VM for a checkpoint waits for its writes, so otherwise a full secondary and a primary that cannot take
 * the checkpoint which would empty it could wait for each other for ever.
 *
 * Failure. Whoever notices (sender, receiver, writer, control thread) calls link_fail(): the reason is
 * kept, both directions are shut down, everybody who waits goes on. Only the control thread then joins
 * the threads, closes the descriptor and tells the daemon.
 */
#include "disk/disk.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A small part of the cache that takes it on the other side, which is configured alike: what fills up the
 * ring stands before the mark of the checkpoint that would empty that cache. */
#define RING_MIN (1u << 20)
#define RING_MAX (16u << 20)
#define RING_PART 16
#define MARK_RESERVE 16384u
#define SEND_MAX (1u << 20) /* so that room appears bit by bit */

int link_init(struct disk *d)
{
	struct disk_link *l = &d->link;

	l->fd = -1;
	pthread_mutex_init(&l->lock, NULL);
	disk_cond_init(&l->more);
	disk_cond_init(&l->room);
	l->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->ring_size = d->config.cache_max / RING_PART;
	l->ring_size = l->ring_size < RING_MIN ? RING_MIN : l->ring_size;
	l->ring_size = l->ring_size > RING_MAX ? RING_MAX : l->ring_size;
	l->ring = malloc(l->ring_size);
	return l->ring && l->done_fd >= 0 ? 0 : -ENOMEM;
}

void link_destroy(struct disk *d)
{
	struct disk_link *l = &d->link;

	free(l->ring);
	if (l->done_fd >= 0)
		close(l->done_fd);
	pthread_cond_destroy(&l->more);
	pthread_cond_destroy(&l->room);
	pthread_mutex_destroy(&l->lock);
}

/* ---- the link's life ---- */

void link_fail(struct disk *d, const char *fmt, ...)
{
	struct disk_link *l = &d->link;
	uint64_t one = 1;
	va_list ap;

	pthread_mutex_lock(&l->lock);
	if (!l->failed && l->fd >= 0) {
		l->failed = true;
		l->open = false;
		va_start(ap, fmt);
		vsnprintf(l->reason, sizeof(l->reason), fmt, ap);
		va_end(ap);
		shutdown(l->fd, SHUT_RDWR);
		pthread_cond_broadcast(&l->more);
		pthread_cond_broadcast(&l->room);
		if (write(l->done_fd, &one, sizeof(one)) < 0) {
			/* the counter is not zero already, which is what matters */
		}
	}
	pthread_mutex_unlock(&l->lock);
	pvm_cache_interrupt(&d->pvm, true);
}

int link_open(struct disk *d, int fd, enum disk_role role)
{
	struct disk_link *l = &d->link;
	int type = 0, on = 1;
	socklen_t n = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_STREAM)
		return -ENOTSOCK;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* no TCP: no need */
	pvm_cache_interrupt(&d->pvm, false);
	pthread_mutex_lock(&l->lock);
	l->fd = fd;
	l->role = role;
	l->failed = l->idle = false;
	l->head = l->used = 0;
	l->last_epoch = 0;
	l->reason[0] = 0;
	l->direct = true;
	l->open = role == DISK_PRIMARY;
	pthread_mutex_unlock(&l->lock);
	return 0;
}

static void *sender(void *arg);

int link_start(struct disk *d)
{
	struct disk_link *l = &d->link;
	bool primary = l->role == DISK_PRIMARY;
	int r = disk_thread(&l->thread, primary ? sender : link_receiver, d);

	l->running = r == 0;
	if (r || !primary)
		return r;
	r = disk_thread(&l->sync_thread, sync_thread, d);
	l->syncing = r == 0;
	return r;
}

void link_close(struct disk *d)
{
	struct disk_link *l = &d->link;
	uint64_t count;

	if (l->fd < 0)
		return;
	link_fail(d, "closed on request");
	if (l->running)
		pthread_join(l->thread, NULL);
	if (l->syncing)
		pthread_join(l->sync_thread, NULL);
	l->running = l->syncing = false;
	pthread_mutex_lock(&l->lock);
	close(l->fd);
	l->fd = -1;
	l->used = 0;
	pthread_mutex_unlock(&l->lock);
	if (read(l->done_fd, &count, sizeof(count)) < 0) {
		/* nothing to clear */
	}
}

void link_poll(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	poll(&p, 1, -1);
}

/* ---- sender ---- */

/* One send of what the ring holds from head on. Bytes sent or -errno. */
static ssize_t send_some(int fd, const char *p, size_t n)
{
	ssize_t r = send(fd, p, n < SEND_MAX ? n : SEND_MAX, MSG_NOSIGNAL);

	if (r >= 0)
		return r;
	if (errno == EAGAIN)
		link_poll(fd, POLLOUT);
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

static void ring_take(struct disk_link *l, size_t n)
{
	l->head = (l->head + n) % l->ring_size;
	l->used -= n;
	l->progress += n;
	if (l->waiting)
		pthread_cond_broadcast(&l->room);
}

static void *sender(void *arg)
{
	struct disk *d = arg;
	struct disk_link *l = &d->link;

	pthread_mutex_lock(&l->lock);
	while (!l->failed) {
		size_t n = l->used < l->ring_size - l->head ? l->used : l->ring_size - l->head;
		const char *p = l->ring + l->head;
		ssize_t sent;

		if (!n) {
			l->idle = true;
			pthread_cond_wait(&l->more, &l->lock);
			l->idle = false;
			continue;
		}
		pthread_mutex_unlock(&l->lock);
		sent = send_some(l->fd, p, n);
		if (sent < 0)
			link_fail(d, "sending to the peer: %s", disk_strerror((int)-sent));
		pthread_mutex_lock(&l->lock);
		if (sent > 0)
			ring_take(l, (size_t)sent);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

/* ---- writers ---- */

static void ring_put(struct disk_link *l, const void *data, size_t n)
{
	size_t at = (l->head + l->used) % l->ring_size, first = l->ring_size - at;

	first = first < n ? first : n;
	memcpy(l->ring + at, data, first);
	memcpy(l->ring, (const char *)data + first, n - first);
	l->used += n;
}

static void put_message(struct disk_link *l, uint32_t op, uint64_t offset, uint32_t length, const void *data)
{
	struct disk_link_header h = {
		.magic = htobe32(DISK_LINK_MAGIC),
		.op = htobe32(op),
		.offset = htobe64(offset),
		.length = htobe32(length),
	};

	ring_put(l, &h, sizeof(h));
	if (data)
		ring_put(l, data, length);
	if (l->idle)
		pthread_cond_signal(&l->more);
}

/* Wait until `need` more bytes keep the ring within `limit`. With the lock held; false: the link failed,
 * or nothing moved for link_stall_ms. */
static bool wait_for_room(struct disk *d, size_t need, size_t limit, bool *stalled)
{
	struct disk_link *l = &d->link;
	uint64_t seen = l->progress, since = disk_now_ns();
	uint64_t patience = d->config.link_stall_ms * 1000000ull;

	while (l->open && l->used + need > limit) {
		uint64_t until = since + patience;
		struct timespec ts = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
		int r;

		l->waiting++;
		r = pthread_cond_timedwait(&l->room, &l->lock, &ts);
		l->waiting--;
		if (l->progress != seen) {
			seen = l->progress;
			since = disk_now_ns();
		} else if (r == ETIMEDOUT) {
			*stalled = true;
			return false;
		}
	}
	return l->open;
}

static bool put(struct disk *d, uint32_t op, uint64_t off, uint32_t len, const void *data, size_t limit)
{
	struct disk_link *l = &d->link;
	size_t need = sizeof(struct disk_link_header) + (data ? len : 0);
	bool ok, stalled = false;

	pthread_mutex_lock(&l->lock);
	ok = l->open && wait_for_room(d, need, limit, &stalled);
	if (ok)
		put_message(l, op, off, len, data);
	pthread_mutex_unlock(&l->lock);
	if (stalled)
		link_fail(d, "the peer took nothing for %u ms", d->config.link_stall_ms);
	if (ok && data)
		atomic_fetch_add(&l->moved, len);
	return ok;
}

static bool put_data(struct disk *d, const char *p, uint32_t len, uint64_t off, size_t limit)
{
	bool ok = true;

	while (len && ok) {
		uint32_t n = len < DISK_LINK_MAX_DATA ? len : DISK_LINK_MAX_DATA;

		ok = put(d, DISK_LINK_WRITE, off, n, p, limit);
		p += n;
		off += n;
		len -= n;
	}
	return ok;
}

void link_mirror_write(struct disk *d, const void *buf, uint32_t len, uint64_t off)
{
	put_data(d, buf, len, off, d->link.ring_size - MARK_RESERVE);
}

void link_mirror_zero(struct disk *d, uint32_t len, uint64_t off)
{
	put(d, DISK_LINK_ZERO, off, len, NULL, d->link.ring_size - MARK_RESERVE);
}

bool link_sync_write(struct disk *d, const void *buf, uint32_t len, uint64_t off)
{
	return put_data(d, buf, len, off, d->link.ring_size / 2);
}

bool link_sync_zero(struct disk *d, uint32_t len, uint64_t off)
{
	return put(d, DISK_LINK_ZERO, off, len, NULL, d->link.ring_size / 2);
}

int link_mark(struct disk *d, uint64_t epoch)
{
	struct disk_link *l = &d->link;
	int r = 0;

	pthread_mutex_lock(&l->lock);
	if (!l->open)
		r = -ENOTCONN;
	else if (epoch <= l->last_epoch)
		r = -EINVAL;
	else if (l->used + sizeof(struct disk_link_header) > l->ring_size)
		r = -EAGAIN;
	else
		put_message(l, DISK_LINK_BOUNDARY, epoch, 0, NULL);
	if (!r)
		l->last_epoch = epoch;
	pthread_mutex_unlock(&l->lock);
	return r;
}

int link_send_committed(struct disk *d, uint64_t epoch)
{
	struct disk_link *l = &d->link;
	int r = 0;

	pthread_mutex_lock(&l->lock);
	if (!l->open || l->role != DISK_SECONDARY)
		r = -ENOTCONN;
	else if (l->used + sizeof(struct disk_link_header) > l->ring_size)
		r = -EAGAIN;
	else
		put_message(l, DISK_LINK_COMMITTED, epoch, 0, NULL);
	pthread_mutex_unlock(&l->lock);
	return r;
}

void link_set_rate(struct disk *d, uint64_t bytes_per_second)
{
	atomic_store(&d->link.rate, bytes_per_second);
}
