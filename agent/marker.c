/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * marker.c - the epoch boundary in the stream of frames
 *
 * QEMU writes each frame with one sendmsg() and either all or nothing of it goes into the socket
 * (a stream socket takes up to 32 KiB in one piece), and frames it could not write are purged when
 * the VM stops. So between two of its writes the stream is at the start of a frame, always.
 */
#include "marker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define MARKER_WAIT_NS INT64_C(200000000)

struct __attribute__((packed)) frame {
	uint32_t len;
	struct agent_marker marker;
};

_Static_assert(sizeof(struct frame) == 4 + 8 + AGENT_NONCE, "marker frame");

static void wait_writable(int fd, int64_t ns)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	poll(&p, 1, ns / 1000000 + 1);
}

int marker_write(int fd, const uint8_t nonce[AGENT_NONCE], struct errtext *err)
{
	int64_t deadline = now_ns() + MARKER_WAIT_NS;
	struct frame f = { .len = htonl(sizeof(f.marker)) };

	memcpy(f.marker.magic, AGENT_MARKER_MAGIC, sizeof(f.marker.magic));
	memcpy(f.marker.nonce, nonce, AGENT_NONCE);
	for (;;) {
		ssize_t n = send(fd, &f, sizeof(f), MSG_DONTWAIT | MSG_NOSIGNAL);
		int64_t left = deadline - now_ns();

		if (n == sizeof(f))
			return 0;
		if (n >= 0)
			return agent_fail(err, -EIO, "NIC socket took part of the marker only");
		if (errno != EAGAIN && errno != EINTR)
			return agent_fail(err, -errno, "NIC socket: %s", strerror(errno));
		if (left <= 0)
			return agent_fail(err, -ETIMEDOUT, "NIC socket full for 200 ms");
		wait_writable(fd, left);
	}
}

uint64_t marker_unread(int fd)
{
	int n = 0;

	if (fd < 0 || ioctl(fd, SIOCINQ, &n) < 0 || n < 0)
		return 0;
	return n;
}
