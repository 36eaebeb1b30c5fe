/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * vm.c - the QEMU process
 *
 * QEMU is the distribution's; it is told what to be on its command line only. It inherits sockets
 * (QMP, agent) and the VM's side of its NICs, and dies with the daemon: a VM whose network nobody serves is of no use.
 *
 * Its threads are SCHED_BATCH. Each request passes through several threads of QEMU and two daemons; where
 * each that wakes pushes another one off a busy CPU, a VM handles one frame at a time where it could
 * handle eight (bench/RESULTS.md). The daemon, which has little to do, stays an ordinary process.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"
#include "daemon/vm_args.h"

#define LOOK_MS 20
#define PF_EXITING 4u /* linux/sched.h */
#define VM_SPAWN (SPAWN_BATCH | SPAWN_OOM)

static void ended(struct daemon *d)
{
	d->vm.ended = true;
	uv_timer_stop(&d->vm_look);
	if (d->core.state == CORE_STARTING)
		daemon_fail_start(d, "%s did not start; see %s/qemu.log", d->cfg->qemu,
				  daemon_state_dir(d));
	else
		daemon_event(d, (struct core_event){ .type = CORE_EV_VM_DIED });
}

static struct vm *vm_of(const struct vm_home *home)
{
	return home->next ? &home->d->standby.vm : &home->d->vm;
}

static void on_exit_event(void *opaque, int events)
{
	const struct vm_home *home = opaque;
	struct daemon *d = home->d;
	struct vm *vm = vm_of(home);
	bool dying = vm->dying, next = home->next;
	int status = 0;

	if (spawn_reap(&vm->child, &status) < 0)
		return;
	watch_free(vm->exit_watch);
	vm->exit_watch = NULL;
	if (dying)
		return;
	log_error("QEMU%s has ended (%s %d); its messages are in %s/qemu.log", next ? " that stood by" : "",
		  WIFSIGNALED(status) ? "signal" : "exit status",
		  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), daemon_state_dir(d));
	if (next)
		standby_died(d);
	else if (!vm->ended)
		ended(d);
}

/* Has the process begun to end? flags is the seventh word after its name (proc_pid_stat(5)). */
static bool is_ending(pid_t pid)
{
	char path[40], text[512], *name_end;
	unsigned int flags = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	name_end = strrchr(text, ')');
	return name_end && sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && flags & PF_EXITING;
}

/* A pidfd, and QEMU's sockets, say that it has ended only when all its memory has been given back, and that
 * takes half a second for a large VM or on a busy host. */
static void on_look(uv_timer_t *t)
{
	struct daemon *d = t->data;
	struct vm *vm = &d->vm;

	if (!vm->child.pid || vm->dying || vm->ended || !is_ending(vm->child.pid))
		return;
	log_error("QEMU is ending");
	ended(d);
}

static void on_qmp_event(void *opaque, const char *event, json_t *data)
{
	const struct vm_home *home = opaque;
	struct daemon *d = home->d;

	log_debug("QEMU: %s", event);
	if (home->next) {
		if (!strcmp(event, "MIGRATION"))
			standby_migration(d, json_string_value(json_object_get(data, "status")));
		return;
	}
	/* -no-shutdown keeps QEMU there; the SVM's own shutdown is overtaken by the primary's word */
	if (!strcmp(event, "SHUTDOWN") && json_is_true(json_object_get(data, "guest")) &&
	    daemon_is_primary(d)) {
		log_info("the guest has powered itself off");
		daemon_event(d, (struct core_event){ .type = CORE_EV_GUEST_OFF });
	}
}

/* fds: those of QEMU's descriptors VM_FIRST_DISK_FD and on */
static int connect_disks(struct daemon *d, int *fds)
{
	unsigned int i;
	int r;

	for (i = 0; i < d->disk.n; i++) {
		r = diskman_connect(&d->disk.disk[i]);
		fds[2 * i] = r;
		fds[2 * i + 1] = d->disk.disk[i].boundary_fd;
		if (r < 0)
			return r;
	}
	return 0;
}

static void close_disks(struct daemon *d, int *fds)
{
	unsigned int i;

	for (i = 0; i < d->disk.n; i++)
		if (fds[2 * i] >= 0)
			close(fds[2 * i]);
}

/* A VM that boots, or gets the seed, has RAM of its own. */
static int ram_file(struct daemon *d, enum vm_kind kind)
{
	int r = standby_on(d) && kind != VM_STANDBY ? standby_new_ram(d) : 0;

	return r < 0 ? r : standby_on(d) ? d->standby.ram_fd : -1;
}

/* fds: what QEMU inherits, from 3 on; the first two are ours to close */
static int start_child(struct daemon *d, struct vm *vm, struct vm_args *a, int fds[VM_MAX_FDS], enum vm_kind kind)
{
	int log_fd, nfds = 2, r;

	log_fd = daemon_open_log(d, "qemu.log");
	if (kind == VM_SELFTEST) {
		r = spawn_child(&vm->child, a->v, fds, nfds, log_fd, VM_SPAWN);
	} else {
		memset(fds + nfds, 0xff, (VM_MAX_FDS - nfds) * sizeof(*fds));
		r = connect_disks(d, fds + nfds);
		nfds += 2 * d->disk.n;
		if (r == 0)
			r = kind == VM_STANDBY ? nic_prepare_next(d, fds + nfds) : nic_prepare(d, fds + nfds);
		nfds += NIC_FDS(d->cfg->nics);
		r = r < 0 ? r : ram_file(d, kind);
		if (r >= 0)
			fds[nfds++] = r;
		if (r >= 0 || !standby_on(d)) {
			r = spawn_child(&vm->child, a->v, fds, nfds, log_fd, VM_SPAWN);
			nic_prepared(d);
		}
		close_disks(d, fds + 2);
	}
	if (log_fd >= 0)
		close(log_fd);
	return r;
}

static int new_home(struct daemon *d, struct vm *vm, bool next)
{
	struct vm_home *home = vm->home ? vm->home : malloc(sizeof(*home));

	*vm = (struct vm){ .home = home, .child = { .pidfd = -1 }, .agent_fd = -1 };
	if (!home)
		return -ENOMEM;
	*home = (struct vm_home){ d, next };
	return 0;
}

int vm_start(struct daemon *d, enum vm_kind kind)
{
	static const int types[2] = { SOCK_STREAM, SOCK_SEQPACKET };
	int ours[2] = { -1, -1 }, fds[VM_MAX_FDS] = { -1, -1 }, r, i;
	struct vm *vm = kind == VM_STANDBY ? &d->standby.vm : &d->vm;
	struct vm_args a = { .n = 0 };

	r = new_home(d, vm, kind == VM_STANDBY);
	r = r < 0 ? r : vm_args_build(d, &a, kind);
	r = r < 0 ? r : wire_pairs(types, 2, ours, fds);
	if (r == 0)
		r = start_child(d, vm, &a, fds, kind);
	vm_args_free(&a);
	for (i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		if (r < 0 && ours[i] >= 0)
			close(ours[i]);
	}
	if (r < 0) {
		log_error("%s: %s", d->cfg->qemu, strerror(-r));
		return r;
	}
	vm->exit_watch = watch_new(&d->loop, vm->child.pidfd, UV_READABLE, on_exit_event, vm->home);
	vm->qmp = qmp_new(&d->loop, ours[0], on_qmp_event, vm->home);
	vm->agent_fd = ours[1];
	if (kind != VM_STANDBY)
		uv_timer_start(&d->vm_look, on_look, LOOK_MS, LOOK_MS);
	return 0;
}

int vm_request(struct daemon *d, const struct agent_request *r, agent_fn *fn)
{
	return standby_on(d) ? standby_request(d, r, fn) : agentlink_request(d, r, fn);
}

/* --- ends --- */

static void no_vm(struct vm *vm)
{
	free(vm->home);
	*vm = (struct vm){ .child = { .pidfd = -1 }, .agent_fd = -1 };
}

void vm_kill(struct daemon *d)
{
	struct vm *vm = &d->vm;

	vm->dying = true;
	uv_timer_stop(&d->vm_look);
	standby_drop(d);
	agentlink_close(d);
	watch_free(vm->exit_watch);
	vm->exit_watch = NULL;
	spawn_kill(&vm->child);
	qmp_free(vm->qmp);
	vm->qmp = NULL;
}

struct leftover { /* killed, and not collected yet */
	struct child child;
	struct watch *watch;
};

static void on_leftover(void *arg, int events)
{
	struct leftover *l = arg;
	int status;

	if (spawn_reap(&l->child, &status) < 0)
		return;
	watch_free(l->watch);
	free(l);
}

/* To give its memory back may take it long. */
static void end_child(struct daemon *d, struct child *c)
{
	struct leftover *l = malloc(sizeof(*l));

	if (!l || !c->pid) {
		free(l);
		spawn_kill(c);
		return;
	}
	kill(c->pid, SIGKILL);
	l->child = *c;
	l->watch = watch_new(&d->loop, c->pidfd, UV_READABLE, on_leftover, l);
}

void vm_discard(struct daemon *d, struct vm *vm)
{
	struct qmp *qmp = vm->qmp;
	bool next = vm == &d->standby.vm;

	vm->dying = true;
	vm->qmp = NULL;
	agentlink_shut(next ? &d->standby.agent : &d->agent);
	watch_free(vm->exit_watch);
	vm->exit_watch = NULL;
	end_child(d, &vm->child);
	qmp_free(qmp);
	if (next)
		nic_drop_next(d);
	else
		uv_timer_stop(&d->vm_look);
	no_vm(vm);
}

void vm_promote(struct daemon *d)
{
	struct vm *vm = &d->standby.vm;

	d->vm = *vm;
	d->agent = d->standby.agent;
	d->vm.home->next = false;
	nic_switch(d);
	uv_timer_start(&d->vm_look, on_look, LOOK_MS, LOOK_MS);
	*vm = (struct vm){ .child = { .pidfd = -1 }, .agent_fd = -1 };
	d->standby.agent = (struct agentlink){ .fd = -1 };
}
