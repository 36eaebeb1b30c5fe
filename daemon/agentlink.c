/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * agentlink.c - requests to the agent inside QEMU
 *
 * One request at a time, each answered once; a ping may be under way besides. If QEMU ends, the request under way gets
 * no answer; the end of QEMU is reported by vm.c, silence by watchdog.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

static int map_areas(struct agentlink *a)
{
	struct stat st;

	if (fstat(a->stage_fd, &st) < 0)
		return -errno;
	a->stage_size = st.st_size;
	a->stage = mmap(NULL, a->stage_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			a->stage_fd, 0);
	if (a->stage == MAP_FAILED) {
		a->stage = NULL;
		return -errno;
	}
	return 0;
}

static void on_reply(void *arg, int events)
{
	struct daemon *d = arg;
	struct agentlink *a = &d->agent;
	struct agent_reply reply;
	agent_fn *fn = a->fn;
	ssize_t n = recv(a->fd, &reply, sizeof(reply), MSG_DONTWAIT);
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		watch_events(a->watch, 0); /* QEMU is ending, as vm.c will tell. If not: */
		a->gone = true;
		watchdog_soon(d);
		return;
	}
	a->silent = false;
	if (n == sizeof(reply) && reply.op == AGENT_PING && a->pinged) {
		a->pinged = false;
		return;
	}
	if (n != sizeof(reply) || !fn || (reply.op != a->request.op && reply.op != AGENT_HELLO)) {
		log_error("agent: unexpected reply %u of %zd bytes", reply.op, n);
		return;
	}
	reply.error[sizeof(reply.error) - 1] = 0;
	if (reply.op == AGENT_HELLO) {
		a->hello = reply;
	} else if (reply.op == AGENT_SETUP && !reply.status) {
		a->blocks = reply;
		a->have_blocks = true;
		r = map_areas(a);
		if (r < 0) {
			reply.status = r;
			snprintf(reply.error, sizeof(reply.error), "staging area: %s", strerror(-r));
		}
	}
	a->fn = NULL;
	fn(d, &reply);
}

int agentlink_open(struct daemon *d, int fd, agent_fn *fn)
{
	struct agentlink *a = &d->agent;

	*a = (struct agentlink){ .fd = fd, .fn = fn, .stage_fd = -1, .device_fd = -1 };
	a->request.op = AGENT_HELLO;
	a->watch = watch_new(&d->loop, fd, UV_READABLE, on_reply, d);
	return a->watch ? 0 : -ENOMEM;
}

void agentlink_close(struct daemon *d)
{
	struct agentlink *a = &d->agent;

	watch_free(a->watch);
	if (a->stage)
		munmap(a->stage, a->stage_size);
	if (a->stage_fd >= 0)
		close(a->stage_fd);
	if (a->device_fd >= 0)
		close(a->device_fd);
	if (a->fd >= 0)
		close(a->fd);
	*a = (struct agentlink){ .fd = -1, .stage_fd = -1, .device_fd = -1 };
}

static int send_request(struct agentlink *a, const struct agent_request *r, const int *fds, int nfds,
			agent_fn *fn)
{
	int e;

	if (a->fd < 0)
		return -EPIPE;
	if (a->fn)
		return -EBUSY;
	a->request = *r;
	e = wire_send_fds(a->fd, r, sizeof(*r), fds, nfds);
	if (e == 0)
		a->fn = fn;
	return e;
}

int agentlink_setup(struct daemon *d, agent_fn *fn)
{
	struct agent_request r = { .op = AGENT_SETUP };
	struct agentlink *a = &d->agent;
	int fds[2];

	a->stage_fd = memfd_create("colo-stage", MFD_CLOEXEC);
	a->device_fd = memfd_create("colo-device", MFD_CLOEXEC);
	if (a->stage_fd < 0 || a->device_fd < 0)
		return -errno;
	fds[0] = a->stage_fd;
	fds[1] = a->device_fd;
	return send_request(a, &r, fds, 2, fn);
}

void agentlink_ping(struct daemon *d)
{
	struct agent_request r = { .op = AGENT_PING };
	struct agentlink *a = &d->agent;

	if (a->fd < 0 || a->fn || a->pinged || a->gone)
		return;
	a->pinged = wire_send_fds(a->fd, &r, sizeof(r), NULL, 0) == 0;
}

int agentlink_request(struct daemon *d, const struct agent_request *r, agent_fn *fn)
{
	return send_request(&d->agent, r, NULL, 0, fn);
}
