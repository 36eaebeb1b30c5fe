/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * throwaway.c - see throwaway.h
 *
 * QEMU is started as for the VM, with nothing behind its devices (VM_SELFTEST), and never runs; but for KVM, where
 * the firmware is the guest. Each wait ends at the deadline.
 */
#include "daemon/throwaway.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/wire.h"
#include "daemon/vm_args.h"

#define RAM_FD VM_FIRST_DISK_FD /* in the child: it has no disks */
#define AWAIT_US 2000

__attribute__((format(printf, 3, 4))) static int fail(struct throwaway *t, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->error, sizeof(t->error), fmt, ap);
	va_end(ap);
	return status;
}

static int ended(struct throwaway *t)
{
	t->died = true;
	return fail(t, -EPIPE, "QEMU has ended; see %s/qemu.log", daemon_state_dir(t->d));
}

/* until fd can be read */
static int wait_for(struct throwaway *t, int fd, const char *what)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t now = clock_now_ns();
	int r;

	do {
		r = now < t->deadline_ns ? poll(&p, 1, (t->deadline_ns - now) / 1000000 + 1) : 0;
		now = clock_now_ns();
	} while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : fail(t, -ETIMEDOUT, "%s does not answer in time", what);
}

/* --- QMP --- */

/* The next message: a new reference, or NULL. */
static json_t *qmp_message(struct throwaway *t)
{
	json_error_t err;
	json_t *msg;
	char *end;
	ssize_t n;

	while (!(end = memchr(t->line, '\n', t->have))) {
		if (t->have == sizeof(t->line)) {
			fail(t, -EPROTO, "QMP: a line that is too long");
			return NULL;
		}
		if (wait_for(t, t->qmp_fd, "QMP") < 0)
			return NULL;
		n = recv(t->qmp_fd, t->line + t->have, sizeof(t->line) - t->have, 0);
		if (n <= 0) {
			ended(t);
			return NULL;
		}
		t->have += n;
	}
	msg = json_loadb(t->line, end - t->line, 0, &err);
	t->have -= end + 1 - t->line;
	memmove(t->line, end + 1, t->have);
	if (!msg)
		fail(t, -EPROTO, "QMP: %s", err.text);
	return msg;
}

static int qmp_answer(struct throwaway *t, const char *command, json_t **result)
{
	json_t *msg, *part;
	int r = -EAGAIN;

	while (r == -EAGAIN) {
		if (!(msg = qmp_message(t)))
			return -EPIPE;
		if ((part = json_object_get(msg, "return"))) {
			if (result)
				*result = json_incref(part);
			r = 0;
		} else if ((part = json_object_get(msg, "error"))) {
			r = fail(t, -EIO, "QMP %s: %s", command, json_string_value(json_object_get(part, "desc")));
		}
		json_decref(msg);
	}
	return r;
}

int throwaway_qmp(struct throwaway *t, const char *command, json_t *args, int pass_fd, json_t **result)
{
	json_t *msg = args ? json_pack("{s:s s:o}", "execute", command, "arguments", args)
			   : json_pack("{s:s}", "execute", command);
	char *text = json_dumps(msg, JSON_COMPACT);
	int r = text ? wire_send_fds(t->qmp_fd, text, strlen(text), &pass_fd, pass_fd >= 0) : -ENOMEM;

	free(text);
	json_decref(msg);
	return r < 0 ? ended(t) : qmp_answer(t, command, result);
}

static int greeting(struct throwaway *t)
{
	json_t *msg = qmp_message(t), *v;
	int major = 0, minor = 0, micro = 0, r;

	if (!msg)
		return -EPIPE;
	v = json_object_get(json_object_get(json_object_get(msg, "QMP"), "version"), "qemu");
	r = json_unpack(v, "{s:i s:i s:i}", "major", &major, "minor", &minor, "micro", &micro);
	json_decref(msg);
	if (r < 0)
		return fail(t, -EPROTO, "QMP does not say QEMU's version");
	snprintf(t->version, sizeof(t->version), "%d.%d.%d", major, minor, micro);
	return throwaway_qmp(t, "qmp_capabilities", NULL, -1, NULL);
}

static bool among(const char *words, const char *word)
{
	const char *at = word && *word ? strstr(words, word) : NULL;

	return at && (at == words || at[-1] == ' ') && (!at[strlen(word)] || at[strlen(word)] == ' ');
}

int throwaway_await(struct throwaway *t, const char *query, const char *good, const char *bad)
{
	json_t *answer;
	char status[64];
	int r;

	for (;;) {
		r = throwaway_qmp(t, query, NULL, -1, &answer);
		if (r < 0)
			return r;
		snprintf(status, sizeof(status), "%s", json_is_string(json_object_get(answer, "status")) ?
			 json_string_value(json_object_get(answer, "status")) : "");
		json_decref(answer);
		if (among(good, status))
			return 0;
		if (among(bad, status))
			return fail(t, -EIO, "%s: %s; see %s/qemu.log", query, status, daemon_state_dir(t->d));
		if (clock_now_ns() > t->deadline_ns)
			return fail(t, -ETIMEDOUT, "%s: %s does not change in time", query, status);
		usleep(AWAIT_US);
	}
}

/* --- the agent --- */

static int agent_answer(struct throwaway *t, uint32_t op)
{
	ssize_t n;

	if (wait_for(t, t->agent_fd, "the agent") < 0)
		return -ETIMEDOUT;
	n = recv(t->agent_fd, &t->reply, sizeof(t->reply), 0);
	if (n <= 0)
		return ended(t);
	if (n != sizeof(t->reply) || t->reply.op != op)
		return fail(t, -EPROTO, "the agent answers %u with %zd bytes", t->reply.op, n);
	if (t->reply.status)
		return fail(t, t->reply.status < 0 ? t->reply.status : -EPROTO, "%.*s", AGENT_ERROR_TEXT - 1, t->reply.error);
	return 0;
}

int throwaway_agent(struct throwaway *t, uint32_t op)
{
	const struct agent_request r = { .op = op };
	int fds[2] = { -1, -1 }, n = op == AGENT_SETUP ? 2 : 0, i, status;

	for (i = 0; i < n; i++)
		fds[i] = memfd_create(i ? "device-state" : "stage", MFD_CLOEXEC);
	status = n && (fds[0] < 0 || fds[1] < 0) ? -errno : wire_send_fds(t->agent_fd, &r, sizeof(r), fds, n);
	for (i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return status < 0 ? ended(t) : agent_answer(t, op);
}

/* --- the process --- */

/* RAM in a file, as driver standby has it, on top of what the VM is. The agent's argument is the last one. */
static int ram_args(struct vm_args *a, const struct daemon *d, const struct throwaway_ram *ram)
{
	char *plugin;

	if (ram->fd < 0)
		return 0;
	if (asprintf(&plugin, "%s,ram=%d", a->v[a->n - 1], RAM_FD) < 0)
		return -ENOMEM;
	free(a->v[a->n - 1]);
	a->v[a->n - 1] = plugin;
	vm_arg(a, "-object");
	vm_arg(a, "memory-backend-file,id=ram0,size=%llu,mem-path=/proc/self/fd/%d,share=on",
	       (unsigned long long)d->cfg->memory, RAM_FD);
	vm_arg(a, "-machine"); vm_arg(a, "memory-backend=ram0,suppress-vmdesc=on");
	if (ram->incoming) {
		vm_arg(a, "-incoming"); vm_arg(a, "defer");
	}
	return a->failed ? -ENOMEM : 0;
}

static int start_child(struct throwaway *t, struct vm_args *a, const int *fds, int n)
{
	int log_fd = daemon_open_log(t->d, "qemu.log");
	int r = spawn_child(&t->child, a->v, fds, n, log_fd, SPAWN_OOM);

	if (log_fd >= 0)
		close(log_fd);
	return r < 0 ? fail(t, r, "%s: %s", a->v[0], strerror(-r)) : 0;
}

static int start(struct throwaway *t, const struct throwaway_ram *ram)
{
	static const int types[2] = { SOCK_STREAM, SOCK_SEQPACKET };
	int ours[2] = { -1, -1 }, fds[3] = { -1, -1, ram->fd }, r;
	struct vm_args a = { .n = 0 };

	r = vm_args_build(t->d, &a, VM_SELFTEST);
	r = r < 0 ? r : ram_args(&a, t->d, ram);
	r = r < 0 ? r : wire_pairs(types, 2, ours, fds);
	r = r < 0 ? fail(t, r, "%s", strerror(-r)) : start_child(t, &a, fds, 2 + (ram->fd >= 0));
	vm_args_free(&a);
	close(fds[0]);
	close(fds[1]);
	t->qmp_fd = ours[0];
	t->agent_fd = ours[1];
	return r;
}

int throwaway_start(struct throwaway *t, struct daemon *d, const struct throwaway_ram *ram, uint64_t limit_ms)
{
	int r;

	*t = (struct throwaway){ .d = d, .child = { .pidfd = -1 }, .qmp_fd = -1, .agent_fd = -1,
		.deadline_ns = clock_now_ns() + limit_ms * 1000000 };
	r = start(t, ram);
	if (r < 0)
		return r;
	r = greeting(t);
	if (r < 0 && t->died)
		return fail(t, r, "%s did not start; see %s/qemu.log", d->cfg->qemu, daemon_state_dir(d));
	return r < 0 ? r : agent_answer(t, AGENT_HELLO);
}

void throwaway_end(struct throwaway *t)
{
	spawn_kill(&t->child);
	if (t->qmp_fd >= 0)
		close(t->qmp_fd);
	if (t->agent_fd >= 0)
		close(t->agent_fd);
	t->qmp_fd = t->agent_fd = -1;
}

/* --- KVM --- */

int throwaway_has_kvm(char *why, size_t size)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), r = 0;

	if (fd < 0 || ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		r = -errno;
		snprintf(why, size, "/dev/kvm: %s", strerror(errno));
	}
	if (fd >= 0)
		close(fd);
	return r;
}

/* SeaBIOS writes what it does to port 0x402; QEMU passes that on to a socket. */
static int kvm_args(struct vm_args *a, const struct config *c)
{
	vm_arg(a, "%s", c->qemu);
	vm_arg(a, "-machine"); vm_arg(a, "%s", c->machine);
	vm_arg(a, "-accel"); vm_arg(a, "kvm");
	vm_arg(a, "-cpu"); vm_arg(a, "%s", *c->cpu ? c->cpu : "host");
	vm_arg(a, "-m"); vm_arg(a, "64M");
	vm_arg(a, "-nodefaults"); vm_arg(a, "-no-user-config");
	vm_arg(a, "-display"); vm_arg(a, "none");
	vm_arg(a, "-chardev"); vm_arg(a, "socket,id=debug,fd=3");
	vm_arg(a, "-device"); vm_arg(a, "isa-debugcon,iobase=0x402,chardev=debug");
	return a->failed ? -ENOMEM : 0;
}

static int await_boot(struct throwaway *t, int fd)
{
	char text[65536];
	size_t have = 0;
	ssize_t n;

	while (have < sizeof(text) - 1) {
		if (wait_for(t, fd, "the firmware") < 0)
			return fail(t, -ETIMEDOUT, "the firmware does not get through its start in time");
		n = recv(fd, text + have, sizeof(text) - 1 - have, 0);
		if (n <= 0)
			return fail(t, -EPIPE, "QEMU ends in it; see %s/qemu.log", daemon_state_dir(t->d));
		have += n;
		text[have] = 0;
		if (strstr(text, "Booting from") || strstr(text, "No bootable device"))
			return 0;
	}
	return fail(t, -E2BIG, "the firmware says too much");
}

int throwaway_kvm(struct daemon *d, uint64_t limit_ms, char *why, size_t size)
{
	static const int type = SOCK_STREAM;
	struct throwaway t = { .d = d, .child = { .pidfd = -1 }, .qmp_fd = -1, .agent_fd = -1,
		.deadline_ns = clock_now_ns() + limit_ms * 1000000 };
	struct vm_args a = { .n = 0 };
	int ours = -1, theirs = -1, r;

	r = throwaway_has_kvm(why, size);
	if (r < 0)
		return r;
	r = kvm_args(&a, d->cfg);
	r = r < 0 ? r : wire_pairs(&type, 1, &ours, &theirs);
	r = r < 0 ? fail(&t, r, "%s", strerror(-r)) : start_child(&t, &a, &theirs, 1);
	vm_args_free(&a);
	if (theirs >= 0)
		close(theirs);
	if (r == 0)
		r = await_boot(&t, ours);
	throwaway_end(&t);
	if (ours >= 0)
		close(ours);
	if (r < 0)
		snprintf(why, size, "%s", t.error);
	return r;
}
