/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * agentlink.c - requests to the agent inside QEMU
 *
 * One request at a time, each answered once; a ping may be under way besides. If QEMU ends, the request under way gets
 * no answer; the end of QEMU is reported by vm.c, silence by watchdog.c.
 *
 * The staging area and the file of device state belong to the daemon, so that with driver standby one agent finds
 * there what came while another one ran the VM.
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

static int map_areas(struct staging *s)
{
	struct stat st;

	if (fstat(s->fd, &st) < 0)
		return -errno;
	if (s->map && s->size == (size_t)st.st_size)
		return 0;
	if (s->map)
		munmap(s->map, s->size);
	s->size = st.st_size;
	s->map = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s->fd, 0);
	if (s->map == MAP_FAILED) {
		s->map = NULL;
		return -errno;
	}
	return 0;
}

static void set_up(struct staging *s, struct agent_reply *reply)
{
	int r;

	s->blocks = *reply;
	s->have_blocks = true;
	r = map_areas(s);
	if (r < 0) {
		reply->status = r;
		snprintf(reply->error, sizeof(reply->error), "staging area: %s", strerror(-r));
	}
}

static void on_reply(void *arg, int events)
{
	const struct vm_home *home = arg;
	struct daemon *d = home->d;
	struct agentlink *a = home->next ? &d->standby.agent : &d->agent;
	struct agent_reply reply;
	agent_fn *fn = a->fn;
	ssize_t n = recv(a->fd, &reply, sizeof(reply), MSG_DONTWAIT);

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
	if (reply.op == AGENT_HELLO)
		a->hello = reply;
	else if (reply.op == AGENT_SETUP && !reply.status)
		set_up(&d->stage, &reply);
	a->fn = NULL;
	fn(d, &reply);
}

static int open_link(struct agentlink *a, struct vm *vm, int fd, agent_fn *fn)
{
	*a = (struct agentlink){ .fd = fd, .fn = fn };
	a->request.op = AGENT_HELLO;
	a->watch = watch_new(&vm->home->d->loop, fd, UV_READABLE, on_reply, vm->home);
	return a->watch ? 0 : -ENOMEM;
}

int agentlink_open(struct daemon *d, int fd, agent_fn *fn)
{
	return open_link(&d->agent, &d->vm, fd, fn);
}

int agentlink_open_next(struct daemon *d, agent_fn *fn)
{
	return open_link(&d->standby.agent, &d->standby.vm, d->standby.vm.agent_fd, fn);
}

void agentlink_shut(struct agentlink *a)
{
	watch_free(a->watch);
	if (a->fd >= 0)
		close(a->fd);
	*a = (struct agentlink){ .fd = -1 };
}

void agentlink_close(struct daemon *d)
{
	struct staging *s = &d->stage;

	agentlink_shut(&d->agent);
	if (s->map)
		munmap(s->map, s->size);
	if (s->fd >= 0)
		close(s->fd);
	if (s->device_fd >= 0)
		close(s->device_fd);
	*s = (struct staging){ .fd = -1, .device_fd = -1 };
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

static int setup(struct daemon *d, struct agentlink *a, agent_fn *fn)
{
	struct agent_request r = { .op = AGENT_SETUP };
	struct staging *s = &d->stage;
	int fds[2];

	if (s->fd < 0)
		s->fd = memfd_create("colo-stage", MFD_CLOEXEC);
	if (s->device_fd < 0)
		s->device_fd = memfd_create("colo-device", MFD_CLOEXEC);
	if (s->fd < 0 || s->device_fd < 0)
		return -errno;
	fds[0] = s->fd;
	fds[1] = s->device_fd;
	return send_request(a, &r, fds, 2, fn);
}

int agentlink_setup(struct daemon *d, agent_fn *fn)
{
	return setup(d, &d->agent, fn);
}

int agentlink_setup_next(struct daemon *d, agent_fn *fn)
{
	return setup(d, &d->standby.agent, fn);
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

int agentlink_request_next(struct daemon *d, const struct agent_request *r, agent_fn *fn)
{
	return send_request(&d->standby.agent, r, NULL, 0, fn);
}
