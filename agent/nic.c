/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * nic.c - the epoch boundary in what goes to and from a NIC
 *
 * QEMU's NIC is a TAP. What is written to it is in the daemon's packet socket before write() returns, in
 * order, so a frame of our own marks the boundary in the VM's output. The kernel would silently drop it were
 * the socket's buffer full, hence the look at that first; nobody else writes, for the VM is stopped.
 * Frames in the other direction are counted by the kernel as QEMU takes them.
 */
#include "nic.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM_WAIT_NS INT64_C(200000000)
#define ROOM_POLL_NS 100000
#define ROOM_BYTES 65536u
#define VNET_MAX 32

static int own(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return copy < 0 ? -EBADF : copy;
}

int nic_parse(struct nic *n, const char *text)
{
	char *end;
	int fd[3];

	for (int i = 0; i < 3; i++) {
		long v = strtol(text, &end, 10);

		if (end == text || v < 0 || v > 1 << 20 || *end != (i < 2 ? ':' : '\0'))
			return -EINVAL;
		fd[i] = own((int)v);
		if (fd[i] < 0)
			return fd[i];
		text = end + 1;
	}
	*n = (struct nic){ fd[0], fd[1], fd[2] };
	return 0;
}

static bool has_room(int sock, struct errtext *err, int *ret)
{
	uint32_t m[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(m);

	*ret = 0;
	if (getsockopt(sock, SOL_SOCKET, SO_MEMINFO, m, &len) < 0) {
		*ret = agent_fail(err, -errno, "NIC socket: %s", strerror(errno));
		return false;
	}
	return m[SK_MEMINFO_RMEM_ALLOC] + ROOM_BYTES < m[SK_MEMINFO_RCVBUF];
}

static int wait_for_room(int sock, struct errtext *err)
{
	int64_t deadline = now_ns() + ROOM_WAIT_NS;
	int ret;

	while (!has_room(sock, err, &ret)) {
		if (ret < 0)
			return ret;
		if (now_ns() > deadline)
			return agent_fail(err, -ETIMEDOUT, "NIC socket full for 200 ms");
		nanosleep(&(struct timespec){ .tv_nsec = ROOM_POLL_NS }, NULL);
	}
	return 0;
}

/* bytes before each frame: QEMU sets them to what the guest's driver wants */
static int vnet_size(int tap)
{
	struct ifreq ifr;
	int size = 0;

	if (ioctl(tap, TUNGETIFF, &ifr) < 0)
		return -errno;
	if (ifr.ifr_flags & IFF_VNET_HDR && ioctl(tap, TUNGETVNETHDRSZ, &size) < 0)
		return -errno;
	return size > VNET_MAX ? -EINVAL : size;
}

int nic_mark(const struct nic *n, const uint8_t nonce[AGENT_NONCE], struct errtext *err)
{
	struct agent_marker m = { .type = AGENT_MARKER_TYPE };
	uint8_t frame[VNET_MAX + sizeof(m)] = { 0 };
	int vnet = vnet_size(n->tap), ret;
	ssize_t size, done;

	if (vnet < 0)
		return agent_fail(err, vnet, "NIC: %s", strerror(-vnet));
	ret = wait_for_room(n->sock, err);
	if (ret < 0)
		return ret;
	memcpy(m.magic, AGENT_MARKER_MAGIC, sizeof(m.magic));
	memcpy(m.nonce, nonce, AGENT_NONCE);
	memcpy(frame + vnet, &m, sizeof(m));
	size = vnet + (ssize_t)sizeof(m);
	done = write(n->tap, frame, size);
	if (done == size)
		return 0;
	return agent_fail(err, done < 0 ? -errno : -EIO, "NIC: %s",
			  done < 0 ? strerror(errno) : "part of the marker was written only");
}

/* the tenth number after the name: packets sent, by the TAP's kernel side, that is read by QEMU */
static bool find_sent(const char *text, const char *name, uint64_t *frames)
{
	unsigned long long v;
	const char *p = strstr(text, name);

	if (!p || sscanf(p + strlen(name), " %*u %*u %*u %*u %*u %*u %*u %*u %*u %llu", &v) != 1)
		return false;
	*frames = v;
	return true;
}

int nic_taken(const struct nic *n, uint64_t *frames, struct errtext *err)
{
	char text[4096], name[IFNAMSIZ + 2];
	struct ifreq ifr;
	ssize_t len = pread(n->counters, text, sizeof(text) - 1, 0);

	if (len < 0 || ioctl(n->tap, TUNGETIFF, &ifr) < 0)
		return agent_fail(err, -errno, "NIC counters: %s", strerror(errno));
	text[len] = '\0';
	snprintf(name, sizeof(name), "%.*s:", IFNAMSIZ, ifr.ifr_name);
	if (!find_sent(text, name, frames))
		return agent_fail(err, -EIO, "NIC counters: no device %s", name);
	return 0;
}

void nic_drain(const struct nic *n)
{
	char start[256];

	while (read(n->tap, start, sizeof(start)) > 0)
		; /* one frame; the rest of it is thrown away */
}
