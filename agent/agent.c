/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * agent.c - how the agent gets into QEMU, and its thread
 *
 * QEMU loads this library by `-plugin FILE,fd=N[,ram=N][,nic=T:S:C][,diskfd=N]...[,track=W]`, or LD_PRELOAD does,
 * with COLO_AGENT="fd=N,..." in the environment. A thread of its own then serves the daemon over
 * the inherited socket fd. It takes no signals, which belong to QEMU's threads, and ends when the
 * daemon does; the VM goes on regardless.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "ops.h"
#include "qemu.h"
#include "standby.h"
#include "util.h"
#include "wp.h"

#define EXPORT __attribute__((visibility("default")))
#define ENV_ARGS "COLO_AGENT"
#define ENV_API "COLO_PLUGIN_API"

/* QEMU reads this after our constructor has run, and refuses numbers it does not know. */
EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);

static struct {
	int fd;
	int ram_fd; /* -1: driver direct */
	int disk_fd[AGENT_MAX_DISKS];
	unsigned int disks;
	struct nic nic[AGENT_MAX_NICS];
	unsigned int nics;
	pthread_t thread;
} agent = { .fd = -1, .ram_fd = -1 };

static int parse_fd(const char *text)
{
	char *end;
	long fd;

	errno = 0;
	fd = strtol(text, &end, 10);
	if (errno || end == text || *end || fd < -1 || fd > 1 << 20)
		return -EINVAL;
	return fd;
}

static int parse_nic(const char *text)
{
	if (agent.nics == AGENT_MAX_NICS)
		return -ENOSPC;
	return nic_parse(&agent.nic[agent.nics++], text);
}

static int parse_disk(const char *text)
{
	int fd = parse_fd(text);

	if (agent.disks == AGENT_MAX_DISKS)
		return -ENOSPC;
	if (fd >= 0)
		agent.disk_fd[agent.disks++] = fd;
	return fd < -1 ? fd : 0;
}

static int parse_one(const char *text, int *to)
{
	int fd = parse_fd(text);

	if (fd < -1)
		return fd;
	*to = fd;
	return 0;
}

/* one "key=value" */
static int parse_arg(const char *arg)
{
	if (!strncmp(arg, "nic=", 4))
		return parse_nic(arg + 4);
	if (!strncmp(arg, "track=", 6))
		return wp_choose(arg + 6);
	if (!strncmp(arg, "diskfd=", 7))
		return parse_disk(arg + 7);
	if (!strncmp(arg, "ram=", 4))
		return parse_one(arg + 4, &agent.ram_fd);
	if (!strncmp(arg, "fd=", 3))
		return parse_one(arg + 3, &agent.fd);
	return -EINVAL;
}

/* --- messages --- */

struct message {
	struct agent_request req;
	ssize_t len;
	int fds[2];
};

/* Keep the first two descriptors; whatever else came is closed. */
static void take_fds(struct message *m, struct msghdr *h)
{
	struct cmsghdr *c;
	int taken = 0;

	for (c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (taken < 2)
				m->fds[taken++] = fd;
			else
				close(fd);
		}
	}
}

static bool hung_up(void)
{
	struct pollfd p = { .fd = agent.fd, .events = POLLIN | POLLRDHUP };

	return poll(&p, 1, 0) < 0 || (p.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL));
}

/* false: the daemon is gone */
static bool receive(struct message *m)
{
	union {
		char bytes[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { &m->req, sizeof(m->req) };
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control.bytes, .msg_controllen = sizeof(control.bytes),
	};

	memset(m, 0, sizeof(*m));
	m->fds[0] = m->fds[1] = -1;
	do {
		m->len = recvmsg(agent.fd, &h, MSG_CMSG_CLOEXEC | MSG_TRUNC);
	} while (m->len < 0 && errno == EINTR);
	if (m->len < 0 || (m->len == 0 && hung_up()))
		return false;
	take_fds(m, &h);
	return true;
}

static bool answer(const struct agent_reply *reply)
{
	return send(agent.fd, reply, sizeof(*reply), MSG_NOSIGNAL) == sizeof(*reply);
}

static void handle(struct message *m, struct agent_reply *reply, bool usable)
{
	reply->op = m->req.op;
	if (m->len != sizeof(m->req)) {
		reply->status = -EPROTO;
		snprintf(reply->error, sizeof(reply->error),
			 "request of %zd bytes, expected %zu", m->len, sizeof(m->req));
	} else if (!usable) {
		reply->status = -ENOSYS;
		snprintf(reply->error, sizeof(reply->error), "no way to drive this QEMU");
	} else {
		ops_handle(&m->req, m->fds, reply);
	}
	for (int i = 0; i < 2; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
}

static bool hello(const struct driver *drv, const struct errtext *err, struct agent_reply *reply)
{
	struct qemu_version v = qemu_version();

	reply->op = AGENT_HELLO;
	reply->hello.proto = AGENT_PROTO_VERSION;
	reply->hello.major = v.major;
	reply->hello.minor = v.minor;
	reply->hello.micro = v.micro;
	if (drv) {
		snprintf(reply->hello.driver, sizeof(reply->hello.driver), "%s", drv->name);
	} else {
		reply->status = -ENOSYS;
		memcpy(reply->error, err->text, sizeof(reply->error));
	}
	return answer(reply);
}

static const struct driver *find_driver(struct errtext *err)
{
	const struct driver *drv = agent.ram_fd >= 0 ? standby_open(agent.ram_fd, err) : driver_find(err);

	return drv && drv->attach(err) == 0 ? drv : NULL;
}

static void *serve(void *unused)
{
	static struct agent_reply reply;
	static struct message m;
	struct errtext err = { "" };
	const struct driver *drv;

	(void)unused;
	clock_start();
	drv = find_driver(&err);
	if (drv)
		ops_init(drv, agent.nic, agent.nics, agent.disk_fd, agent.disks);
	if (!hello(drv, &err, &reply))
		goto gone;
	while (receive(&m)) {
		memset(&reply, 0, sizeof(reply));
		handle(&m, &reply, drv != NULL);
		if (!answer(&reply))
			break;
	}
gone:
	close(agent.fd);
	return NULL;
}

/* --- start --- */

static int start(void)
{
	sigset_t all, old;
	int ret;

	if (agent.fd < 0 || fcntl(agent.fd, F_SETFD, FD_CLOEXEC) < 0)
		return -EBADF;
	for (unsigned int i = 0; i < agent.disks; i++)
		if (fcntl(agent.disk_fd[i], F_SETFD, FD_CLOEXEC) < 0)
			return -EBADF;
	if (agent.ram_fd >= 0 && fcntl(agent.ram_fd, F_SETFD, FD_CLOEXEC) < 0)
		return -EBADF;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&agent.thread, NULL, serve, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret == 0)
		pthread_detach(agent.thread);
	return ret;
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)id;
	(void)info;
	for (int i = 0; i < argc; i++)
		if (parse_arg(argv[i]) < 0) {
			fprintf(stderr, "colo-agent: bad argument '%s'\n", argv[i]);
			return -1;
		}
	if (start() < 0) {
		fprintf(stderr, "colo-agent: fd and diskfd must be open sockets, ram an open file\n");
		return -1;
	}
	return 0;
}

/* the plugin API number this QEMU accepts; ours uses nothing of the API but its being loaded */
static int plugin_api(void)
{
	const char *set = getenv(ENV_API);
	struct qemu_version v = qemu_version();

	if (set)
		return atoi(set);
	if (v.major > 11 || (v.major == 11 && v.minor >= 1))
		return 7;
	return v.major >= 10 ? 4 : v.major >= 9 ? 2 : 1;
}

/* By a symbol, for a program that its dynamic loader was told to run has the loader's name; or by its name, for
 * a build without modules exports no symbol. */
static bool in_qemu(void)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const char *name;

	if (dlsym(RTLD_DEFAULT, "qemu_get_aio_context"))
		return true;
	if (n <= 0)
		return false;
	exe[n] = '\0';
	name = strrchr(exe, '/');
	return name && strstr(name, "qemu");
}

static void start_preloaded(const char *args)
{
	char copy[256];
	char *save = NULL;

	snprintf(copy, sizeof(copy), "%s", args);
	unsetenv(ENV_ARGS); /* not for QEMU's children */
	for (char *arg = strtok_r(copy, ",", &save); arg; arg = strtok_r(NULL, ",", &save))
		if (parse_arg(arg) < 0) {
			fprintf(stderr, "colo-agent: " ENV_ARGS ": bad argument '%s'\n", arg);
			return;
		}
	if (start() < 0)
		fprintf(stderr, "colo-agent: fd and diskfd must be open sockets, ram an open file\n");
}

/* Preloaded, this runs before QEMU's own constructors, so QEMU must not be called from here. */
__attribute__((constructor)) static void loaded(void)
{
	const char *args = getenv(ENV_ARGS);

	if (!in_qemu())
		return;
	if (args)
		start_preloaded(args);
	else
		qemu_plugin_version = plugin_api();
}
