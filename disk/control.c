/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * control.c - messages from and to the daemon
 *
 * One thread serves the daemon's requests one after another and takes down a link that failed. The
 * daemon owns QEMU and us: when it is gone (end of file) there is nobody left to decide anything, so
 * nbdkit ends, after what was written is stable.
 */
#include "disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define GRACE_MS 500 /* for clients to hang up once the daemon is gone */

static int send_to(struct disk *d, int sock, const struct disk_message *m, bool wait)
{
	ssize_t n;

	do {
		pthread_mutex_lock(&d->control_lock);
		n = send(sock, m, sizeof(*m), MSG_NOSIGNAL | MSG_DONTWAIT);
		pthread_mutex_unlock(&d->control_lock);
		if (n < 0 && errno == EAGAIN && wait)
			link_poll(sock, POLLOUT);
	} while (n < 0 && (errno == EINTR || (errno == EAGAIN && wait)));
	return n < 0 ? -errno : 0;
}

int control_send(struct disk *d, const struct disk_message *m, bool wait)
{
	return send_to(d, d->config.control_fd, m, wait);
}

int control_event(struct disk *d, uint32_t op, uint64_t epoch, bool wait, const char *text)
{
	struct disk_message m = { .op = op, .epoch = epoch };

	snprintf(m.text, sizeof(m.text), "%s", text);
	return control_send(d, &m, wait);
}

static void say_hello(struct disk *d)
{
	struct disk_message m = { .op = DISK_EV_HELLO };

	disk_hello(d, &m);
	control_send(d, &m, true);
}

/* Closes all descriptors in the message but the first one of a LINK. */
static int take_fd(struct msghdr *msg, bool keep)
{
	int kept = -1;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (keep && kept < 0)
				kept = fd;
			else
				close(fd);
		}
	}
	return kept;
}

static void dispatch(struct disk *d, const struct disk_request *req, int fd, struct disk_message *answer)
{
	switch (req->op) {
	case DISK_LINK:
		role_link(d, fd, req, answer);
		break;
	case DISK_UNLINK:
		role_unlink(d, answer);
		fault_release(d);
		break;
	case DISK_BOUNDARY:
		role_boundary(d, req->epoch, answer);
		break;
	case DISK_COMMIT:
		role_commit(d, req->epoch, answer);
		break;
	case DISK_FAILOVER:
		role_failover(d, req->epoch, answer);
		break;
	case DISK_OPEN:
		role_open(d, req->epoch, req->flags, answer);
		break;
	case DISK_SERVE:
		role_serve(d, answer);
		if (!answer->status)
			fault_release(d);
		break;
	case DISK_FAULT:
		fault_release(d);
		break;
	case DISK_VERIFY:
		verify_begin(d, req->flags, answer);
		break;
	case DISK_RATE:
		link_set_rate(d, req->epoch);
		break;
	case DISK_STATUS:
		role_status(d, answer);
		break;
	default:
		answer->status = -EOPNOTSUPP;
		snprintf(answer->text, sizeof(answer->text), "unknown request %u", req->op);
	}
}

/* What an answer says of the disk, as disk_proto.h has it: the disk as it is afterwards. */
static void add_state(struct disk *d, struct disk_message *answer)
{
	static const uint32_t with_state = 1u << DISK_OPEN | 1u << DISK_SERVE | 1u << DISK_LINK | 1u << DISK_UNLINK |
					   1u << DISK_COMMIT | 1u << DISK_FAILOVER;
	struct disk_message now = { .op = 0 };

	if (answer->status || answer->op > DISK_RATE || !(with_state & 1u << answer->op))
		return;
	role_status(d, &now);
	answer->status_reply = now.status_reply;
}

static void serve(struct disk *d, int sock, const struct disk_request *req, int fd)
{
	struct disk_message answer = { .op = req->op, .epoch = req->epoch };
	bool linked;
	int r;

	if (sock == d->config.control_fd || req->op == DISK_BOUNDARY)
		dispatch(d, req, fd, &answer);
	else
		answer.status = -EPERM; /* the agent, inside QEMU, marks boundaries and no more */
	add_state(d, &answer);
	linked = req->op == DISK_LINK && answer.status == 0;
	if (!linked && fd >= 0)
		close(fd);
	send_to(d, sock, &answer, true);
	if (!linked)
		return;
	r = link_start(d); /* after the answer, so that no event overtakes it */
	if (r)
		link_fail(d, "cannot start a thread: %s", disk_strerror(-r));
}

/* One request, of the daemon or of the agent. False at end of file. */
static bool receive_request(struct disk *d, int sock)
{
	struct disk_request req = { .op = 0 };
	char fds[CMSG_SPACE(8 * sizeof(int))];
	struct iovec iov = { &req, sizeof(req) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = fds,
			      .msg_controllen = sizeof(fds) };
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	bool sane = n == (ssize_t)sizeof(req) && !(msg.msg_flags & MSG_TRUNC);
	int fd;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	fd = take_fd(&msg, sane && req.op == DISK_LINK);
	if (n == 0)
		return false;
	if (sane) {
		serve(d, sock, &req, fd);
	} else {
		struct disk_message answer = { .op = req.op, .status = -EBADMSG };

		snprintf(answer.text, sizeof(answer.text), "a request has %zu bytes, this one not",
			 sizeof(req));
		send_to(d, sock, &answer, true);
	}
	return true;
}

/* nbdkit_shutdown() waits for clients to hang up, but a QEMU that outlives its daemon may not. */
static void end_process(struct disk *d, int status)
{
	struct pollfd stop = { .fd = d->control_stop_fd, .events = POLLIN };

	nbdkit_shutdown();
	if (poll(&stop, 1, GRACE_MS) == 0)
		_exit(status);
}

static void daemon_gone(struct disk *d)
{
	int r;

	nbdkit_debug("the daemon is gone");
	link_close(d); /* so that no request waits for the peer */
	pthread_rwlock_wrlock(&d->io);
	d->closing = true;
	pthread_rwlock_unlock(&d->io);
	fault_close(d);
	settle_stop(d);
	r = disk_close_clean(d);
	if (r)
		nbdkit_error("last flush: %s", disk_strerror(-r));
	end_process(d, r ? 1 : 0);
}

static void *control_thread(void *arg)
{
	struct disk *d = arg;

	for (;;) {
		struct pollfd p[] = {
			{ .fd = d->config.control_fd, .events = POLLIN },
			{ .fd = d->control_stop_fd, .events = POLLIN },
			{ .fd = d->link.done_fd, .events = POLLIN },
			{ .fd = d->config.boundary_fd, .events = POLLIN },
		};

		if (poll(p, 4, -1) < 0)
			continue;
		if (p[1].revents)
			break;
		if (p[2].revents)
			role_link_lost(d);
		if (p[3].revents && !receive_request(d, d->config.boundary_fd)) {
			close(d->config.boundary_fd); /* QEMU has ended; the daemon knows */
			d->config.boundary_fd = -1;
		}
		if (p[0].revents && !receive_request(d, d->config.control_fd)) {
			daemon_gone(d);
			break;
		}
	}
	return NULL;
}

int control_start(struct disk *d)
{
	int r;

	d->control_stop_fd = eventfd(0, EFD_CLOEXEC);
	if (d->control_stop_fd < 0)
		return -errno;
	say_hello(d);
	r = disk_thread(&d->control_thread, control_thread, d);
	d->control_running = r == 0;
	return r;
}

void control_stop(struct disk *d)
{
	uint64_t one = 1;

	if (!d->control_running)
		return;
	while (write(d->control_stop_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(d->control_thread, NULL);
	d->control_running = false;
	close(d->control_stop_fd);
}
