/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * link.c - the stream to the peer's disk manager, and the link's life
 *
 * Theory of operation. Writers copy their request into a ring of fixed size, a sender thread writes the
 * ring to the socket; a large one goes straight to the socket as far as that takes it while the ring is empty. A full ring makes writers wait, which is the back-pressure that a slow peer or
 * network exerts on the guest; nothing grows without bound. Boundary marks and a secondary's COMMITTED
 * may use the last few KiB of the ring, so that the control thread never waits.
 *
 * Both sides have the same threads: the sender; a receiver (link_recv.c, link_reply.c), which on the primary
 * waits for nothing but the socket, so that a secondary's answers always get through; and a worker (sync.c,
 * flusher.c) for what takes long.
 *
 * Waiting cannot last: a writer that sees no byte leave for link_stall_ms gives the link up, and so does a
 * write of the guest that has waited so long in all, though the link moves: a peer that is too slow shall cost
 * protection, not service. Stopping the VM for a checkpoint waits for its writes, so otherwise a full secondary
 * and a primary that cannot take the checkpoint which would empty it could wait for each other for ever.
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
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* A small part of the cache that takes it on the other side, which is configured alike: what fills up the
 * ring stands before the mark of the checkpoint that would empty that cache. */
#define RING_MIN (1u << 20)
#define RING_MAX (16u << 20)
#define RING_PART 16
#define MARK_RESERVE 16384u
#define SEND_MAX (1u << 20) /* so that room appears bit by bit */
/* Mirrored writes may wait for others to go with them: the peer needs them by the next mark, not before */
#define LAZY_BYTES 131072u
#define LAZY_NS 2000000u
#define PAST_BYTES 65536u /* messages from this size on may go past an empty ring */
#define PIECE 131072u /* of a large write: seven of them fill a slot of the peer's journal well */

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
	sync_init(d);
	return l->ring && l->done_fd >= 0 ? 0 : -ENOMEM;
}

void link_destroy(struct disk *d)
{
	struct disk_link *l = &d->link;

	sync_destroy(d);
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
	sync_wake(d);
}

int link_usable(int fd)
{
	int type = 0;
	socklen_t n = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_STREAM)
		return -ENOTSOCK;
	return 0;
}

static void put_message(struct disk_link *l, uint32_t op, uint64_t offset, uint32_t length, const void *data,
			size_t size);

int link_open(struct disk *d, int fd, enum disk_role role, bool all)
{
	struct disk_link *l = &d->link;
	uint64_t seed;
	int on = 1, r = sync_reset(d, role);

	if (r)
		return r;
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		return -EIO;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* no TCP: no need */
	pvm_cache_interrupt(&d->pvm, false);
	pthread_mutex_lock(&l->lock);
	l->fd = fd;
	l->role = role;
	l->failed = l->idle = false;
	l->head = l->used = 0;
	l->last_epoch = 0;
	l->reason[0] = 0;
	l->seed = seed;
	l->all = all;
	l->direct = true;
	l->open = true;
	if (role == DISK_PRIMARY)
		put_message(l, DISK_LINK_HELLO, seed, all, NULL, 0);
	pthread_mutex_unlock(&l->lock);
	return 0;
}

static void *sender(void *arg);

int link_start(struct disk *d)
{
	bool primary = d->link.role == DISK_PRIMARY;
	struct link_threads *t = &d->link.threads;
	int r = disk_thread(&t->sender, sender, d);

	t->running = 0;
	if (r)
		return r;
	t->running++;
	r = disk_thread(&t->receiver, primary ? link_replies : link_receiver, d);
	if (r)
		return r;
	t->running++;
	r = disk_thread(&t->worker, primary ? sync_thread : flusher_thread, d);
	t->running += r == 0;
	return r;
}

static void join_threads(struct link_threads *t)
{
	pthread_t all[] = { t->sender, t->receiver, t->worker };

	while (t->running)
		pthread_join(all[--t->running], NULL);
}

void link_close(struct disk *d)
{
	struct disk_link *l = &d->link;
	uint64_t count;

	if (l->fd < 0)
		return;
	link_fail(d, "closed on request");
	join_threads(&l->threads);
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

static bool worth_sending(const struct disk_link *l)
{
	return l->urgent || l->used >= LAZY_BYTES;
}

/* Wait until there is something, and until it is urgent, much, or LAZY_NS old. With the lock held. */
static void wait_for_more(struct disk_link *l)
{
	uint64_t until;

	while (!l->used && !l->failed) {
		l->idle = true;
		pthread_cond_wait(&l->more, &l->lock);
		l->idle = false;
	}
	until = disk_now_ns() + LAZY_NS;
	while (!worth_sending(l) && !l->failed) {
		struct timespec ts = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
		int r;

		l->lazy = true;
		r = pthread_cond_timedwait(&l->more, &l->lock, &ts);
		l->lazy = false;
		if (r == ETIMEDOUT)
			break;
	}
}

static void *sender(void *arg)
{
	struct disk *d = arg;
	struct disk_link *l = &d->link;

	pthread_mutex_lock(&l->lock);
	while (!l->failed) {
		size_t n;
		const char *p;
		ssize_t sent;

		if (!l->used)
			l->urgent = false;
		if (!worth_sending(l))
			wait_for_more(l);
		n = l->used < l->ring_size - l->head ? l->used : l->ring_size - l->head;
		p = l->ring + l->head;
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

/* What the socket takes at once of a large message, spared the way through the ring. Only when nothing is
 * before it: the ring is empty and so the sender not at work. Errors are left for the sender to find. */
static size_t send_past(struct disk_link *l, struct disk_link_header *h, const void *data, size_t size)
{
	struct iovec parts[] = { { h, sizeof(*h) }, { (void *)(uintptr_t)data, size } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t sent;

	if (size < PAST_BYTES || l->used)
		return 0;
	sent = sendmsg(l->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent <= 0)
		return 0;
	l->progress += (size_t)sent;
	return (size_t)sent;
}

/* The bytes from `skip` on of header and data */
static void put_rest(struct disk_link *l, const struct disk_link_header *h, const void *data, size_t size,
		     size_t skip)
{
	if (skip < sizeof(*h)) {
		ring_put(l, (const char *)h + skip, sizeof(*h) - skip);
		skip = sizeof(*h);
	}
	skip -= sizeof(*h);
	if (skip < size)
		ring_put(l, (const char *)data + skip, size - skip);
}

static void put_message(struct disk_link *l, uint32_t op, uint64_t offset, uint32_t length, const void *data,
			size_t size)
{
	struct disk_link_header h = {
		.magic = htobe32(DISK_LINK_MAGIC),
		.op = htobe32(op),
		.offset = htobe64(offset),
		.length = htobe32(length),
	};

	put_rest(l, &h, data, size, send_past(l, &h, data, size));
	if (!l->used)
		return;
	if (op != DISK_LINK_WRITE && op != DISK_LINK_ZERO)
		l->urgent = true;
	if (l->idle || (l->lazy && worth_sending(l)))
		pthread_cond_signal(&l->more);
}

static uint64_t patience_ns(const struct disk *d)
{
	return d->config.link_stall_ms * 1000000ull;
}

/* Wait until `need` more bytes keep the ring within `limit`. With the lock held; false: the link failed,
 * or nothing moved for link_stall_ms, or it is later than `last` (UINT64_MAX: that is never too late). */
static bool wait_for_room(struct disk *d, size_t need, size_t limit, uint64_t last, bool *stalled)
{
	struct disk_link *l = &d->link;
	uint64_t seen = l->progress, until = disk_now_ns() + patience_ns(d);

	until = until < last ? until : last;
	while (l->open && l->used + need > limit) {
		struct timespec ts = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
		int r;

		l->waiting++;
		r = pthread_cond_timedwait(&l->room, &l->lock, &ts);
		l->waiting--;
		if (l->progress != seen && last == UINT64_MAX) {
			seen = l->progress;
			until = disk_now_ns() + patience_ns(d);
		} else if (r == ETIMEDOUT && l->used + need > limit) {
			*stalled = true;
			return false;
		}
	}
	return l->open;
}

static bool put(struct disk *d, uint32_t op, uint64_t off, uint32_t len, const void *data, size_t size,
		size_t limit, uint64_t last)
{
	struct disk_link *l = &d->link;
	size_t need = sizeof(struct disk_link_header) + size;
	bool ok, stalled = false;

	pthread_mutex_lock(&l->lock);
	ok = l->open && wait_for_room(d, need, limit, last, &stalled);
	if (ok)
		put_message(l, op, off, len, data, size);
	pthread_mutex_unlock(&l->lock);
	if (stalled && last == UINT64_MAX)
		link_fail(d, "the peer took nothing for %u ms", d->config.link_stall_ms);
	else if (stalled)
		link_fail(d, "a write of the guest has waited %u ms for the peer", d->config.link_stall_ms);
	return ok;
}

static bool put_data(struct disk *d, const char *p, uint32_t len, uint64_t off, size_t limit, uint64_t last)
{
	bool ok = true;

	while (len && ok) {
		uint32_t n = len < PIECE ? len : PIECE;

		ok = put(d, DISK_LINK_WRITE, off, n, p, n, limit, last);
		if (ok)
			atomic_fetch_add(&d->link.moved, n);
		p += n;
		off += n;
		len -= n;
	}
	return ok;
}

void link_mirror_write(struct disk *d, const void *buf, uint32_t len, uint64_t off)
{
	put_data(d, buf, len, off, d->link.ring_size - MARK_RESERVE, disk_now_ns() + patience_ns(d));
}

void link_mirror_zero(struct disk *d, uint32_t len, uint64_t off)
{
	put(d, DISK_LINK_ZERO, off, len, NULL, 0, d->link.ring_size - MARK_RESERVE, disk_now_ns() + patience_ns(d));
}

bool link_sync_write(struct disk *d, const void *buf, uint32_t len, uint64_t off)
{
	return put_data(d, buf, len, off, d->link.ring_size / 2, UINT64_MAX);
}

bool link_sync_zero(struct disk *d, uint32_t len, uint64_t off)
{
	return put(d, DISK_LINK_ZERO, off, len, NULL, 0, d->link.ring_size / 2, UINT64_MAX);
}

bool link_say(struct disk *d, uint32_t op, uint64_t off, uint32_t length, const void *data, size_t size)
{
	return put(d, op, off, length, data, size, d->link.ring_size / 2, UINT64_MAX);
}

/* ---- the control thread, which never waits ---- */

/* With the lock held. */
static int put_now(struct disk_link *l, uint32_t op, uint64_t epoch)
{
	if (l->used + sizeof(struct disk_link_header) > l->ring_size)
		return -EAGAIN;
	put_message(l, op, epoch, 0, NULL, 0);
	return 0;
}

int link_mark(struct disk *d, uint64_t epoch)
{
	struct disk_link *l = &d->link;
	bool synced = sync_phase(d) == SYNC_DONE;
	int r;

	pthread_mutex_lock(&l->lock);
	if (!l->open)
		r = -ENOTCONN;
	else if (!synced)
		r = -EBUSY; /* the peer would take a mixture for a checkpoint */
	else if (epoch <= l->last_epoch)
		r = -EINVAL;
	else
		r = put_now(l, DISK_LINK_BOUNDARY, epoch);
	if (!r)
		l->last_epoch = epoch;
	pthread_mutex_unlock(&l->lock);
	return r;
}

int link_send_committed(struct disk *d, uint64_t epoch)
{
	struct disk_link *l = &d->link;
	int r;

	pthread_mutex_lock(&l->lock);
	if (!l->open || l->role != DISK_SECONDARY)
		r = -ENOTCONN;
	else
		r = put_now(l, DISK_LINK_COMMITTED, epoch);
	pthread_mutex_unlock(&l->lock);
	return r;
}

void link_set_rate(struct disk *d, uint64_t bytes_per_second)
{
	atomic_store(&d->link.rate, bytes_per_second);
	sync_wake(d);
}
