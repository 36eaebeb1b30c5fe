/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * boundary.c - the epoch boundary in the disks' streams
 *
 * Asking and having the answer are two steps, so that device state is saved while the disk managers
 * work, all at the same time. An answer that came too late belongs to an epoch that failed; it is passed over.
 */
#include "boundary.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "disk/disk_proto.h"

#define BOUNDARY_WAIT_NS INT64_C(200000000)

int boundary_send(const int *fd, unsigned int n, uint64_t epoch, struct errtext *err)
{
	struct disk_request req = { .op = DISK_BOUNDARY, .role = DISK_PRIMARY, .epoch = epoch };

	for (unsigned int i = 0; i < n; i++)
		if (send(fd[i], &req, sizeof(req), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(req))
			return agent_fail(err, -errno, "disk manager: %s", strerror(errno));
	return 0;
}

static int check_answer(const struct disk_message *m, struct errtext *err)
{
	if (m->status >= 0)
		return 0;
	return agent_fail(err, m->status, "disk manager: boundary: %.150s",
			  m->text[0] ? m->text : strerror(-m->status));
}

static int wait_one(int fd, uint64_t epoch, int64_t deadline, struct errtext *err)
{
	int64_t left;

	while ((left = deadline - now_ns()) > 0) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		struct disk_message m;
		ssize_t n;

		if (poll(&p, 1, left / 1000000 + 1) <= 0)
			continue;
		n = recv(fd, &m, sizeof(m), MSG_DONTWAIT);
		if (n == 0)
			return agent_fail(err, -EPIPE, "disk manager is gone");
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return agent_fail(err, -errno, "disk manager: %s", strerror(errno));
		m.text[sizeof(m.text) - 1] = '\0';
		if (n == sizeof(m) && m.op == DISK_BOUNDARY && m.epoch == epoch)
			return check_answer(&m, err);
	}
	return agent_fail(err, -ETIMEDOUT, "disk manager does not answer within 200 ms");
}

int boundary_wait(const int *fd, unsigned int n, uint64_t epoch, struct errtext *err)
{
	int64_t deadline = now_ns() + BOUNDARY_WAIT_NS;
	int ret = 0;

	for (unsigned int i = 0; ret == 0 && i < n; i++)
		ret = wait_one(fd[i], epoch, deadline, err);
	return ret;
}
