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
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define MAX_ARGS 128
#define LOOK_MS 20
#define PF_EXITING 4u /* linux/sched.h */
#define VM_SPAWN (SPAWN_BATCH | SPAWN_OOM)
/* where the child finds its ends; then, NBD connection and boundary socket of each disk, counters of the
 * network namespace, TAP and packet socket of each NIC */
enum { QMP_FD = 3, AGENT_FD, FIRST_DISK_FD };
#define MAX_FDS (FIRST_DISK_FD - QMP_FD + 2 * CONFIG_DISKS_MAX + NIC_FDS(CONFIG_NICS_MAX))
_Static_assert(CONFIG_DISKS_MAX <= AGENT_MAX_DISKS, "each writable disk needs its boundary");

static int nbd_fd(unsigned int disk)
{
	return FIRST_DISK_FD + 2 * disk;
}

static int boundary_fd(unsigned int disk)
{
	return nbd_fd(disk) + 1;
}

static int counters_fd(const struct config *c)
{
	return nbd_fd(c->disks);
}

static int tap_fd(const struct config *c, unsigned int nic)
{
	return counters_fd(c) + 1 + 2 * nic;
}

struct args {
	char *v[MAX_ARGS];
	unsigned int n;
	bool failed;
};

__attribute__((format(printf, 2, 3))) static void arg(struct args *a, const char *fmt, ...)
{
	va_list ap;

	if (a->n + 1 >= MAX_ARGS) {
		a->failed = true;
		return;
	}
	va_start(ap, fmt);
	if (vasprintf(&a->v[a->n], fmt, ap) < 0) {
		a->v[a->n] = NULL;
		a->failed = true;
	}
	va_end(ap);
	a->n++;
}

static void free_args(struct args *a)
{
	while (a->n)
		free(a->v[--a->n]);
}

static void machine_args(struct args *a, const struct config *c)
{
	arg(a, "%s", c->qemu);
	arg(a, "-name"); arg(a, "%s", c->name);
	arg(a, "-machine"); arg(a, "%s", c->machine);
	arg(a, "-accel"); arg(a, "%s", c->accel);
	arg(a, "-cpu"); arg(a, "%s", *c->cpu ? c->cpu : strcmp(c->accel, "kvm") ? "max" : "host");
	arg(a, "-m"); arg(a, "%lluM", (unsigned long long)(c->memory >> 20));
	arg(a, "-smp"); arg(a, "%u", (unsigned int)c->vcpus);
	arg(a, "-nodefaults"); arg(a, "-no-user-config");
	arg(a, "-display"); arg(a, "none");
	/* loading device state takes a third of the time without it */
	arg(a, "-global"); arg(a, "apic-common.vapic=off");
	/* QEMU 7.2 forgets that a VM is suspended when it stops and runs on, as for a checkpoint, and such a VM never
	 * wakes: the guest is not offered suspend to RAM */
	arg(a, "-global"); arg(a, strcmp(c->machine, "q35") ? "PIIX4_PM.disable_s3=1" : "ICH9-LPC.disable_s3=1");
	arg(a, "-no-shutdown");
}

static void boot_args(struct args *a, const struct config *c)
{
	if (!*c->kernel)
		return;
	arg(a, "-kernel"); arg(a, "%s", c->kernel);
	if (*c->initrd) {
		arg(a, "-initrd"); arg(a, "%s", c->initrd);
	}
	if (*c->append) {
		arg(a, "-append"); arg(a, "%s", c->append);
	}
}

static void nic_args(struct args *a, const struct config *c, unsigned int i, enum vm_kind kind)
{
	arg(a, "-netdev");
	if (kind == VM_SELFTEST)
		arg(a, "hubport,id=nic%u,hubid=%u", i, i);
	else
		arg(a, "tap,id=nic%u,fd=%u", i, tap_fd(c, i));
	arg(a, "-device");
	arg(a, "virtio-net-pci,netdev=nic%u,mac=%s,disable-modern=on,disable-legacy=off,ctrl_vlan=off,romfile=", i,
	    c->nic[i].mac);
}

/* Booted from in their order. */
static void disk_args(struct args *a, struct daemon *d, unsigned int i, enum vm_kind kind)
{
	const struct config_disk *k = &d->cfg->disk[i];
	const char *only = k->read_only ? ",read-only=on" : ",discard=unmap";

	arg(a, "-blockdev");
	if (kind == VM_SELFTEST)
		arg(a, "driver=null-co,node-name=disk%u,size=%llu,read-zeroes=on%s", i,
		    (unsigned long long)d->disk.disk[i].size, only);
	else
		arg(a, "driver=nbd,node-name=disk%u,server.type=fd,server.str=%d%s", i, nbd_fd(i), only);
	arg(a, "-device");
	if (k->cdrom)
		arg(a, "ide-cd,drive=disk%u,bootindex=%u", i, i + 1);
	else
		arg(a, "virtio-blk-pci,drive=disk%u,bootindex=%u,disable-modern=on,disable-legacy=off,"
		    "logical_block_size=%u,physical_block_size=%u", i, i + 1, (unsigned int)k->sector,
		    (unsigned int)k->sector);
}

/* Legacy virtio: its device state is a seventh of that of the modern one, and so is the time to
 * save it, which is part of the PVM's pause. No VLAN filter in the NIC: QEMU forgets it while it loads device
 * state (the features, set last, clear it), and the SVM would be deaf in every VLAN. */
static void device_args(struct args *a, struct daemon *d, enum vm_kind kind)
{
	const struct config *c = d->cfg;
	unsigned int i;

	for (i = 0; i < c->nics; i++)
		nic_args(a, c, i, kind);
	for (i = 0; i < c->disks; i++)
		disk_args(a, d, i, kind);
	if (kind == VM_SELFTEST) {
		arg(a, "-serial"); arg(a, "null");
	} else {
		arg(a, "-serial"); arg(a, "file:%s/console.log", daemon_state_dir(d));
	}
}

static void agent_args(struct args *a, const char *agent, const struct config *c, enum vm_kind kind)
{
	char text[AGENT_MAX_NICS * 48 + AGENT_MAX_DISKS * 16] = "";
	unsigned int i;
	size_t n = 0;

	for (i = 0; kind != VM_SELFTEST && i < c->disks; i++)
		if (config_disk_writable(c, i))
			n += snprintf(text + n, sizeof(text) - n, ",diskfd=%d", boundary_fd(i));
	for (i = 0; kind != VM_SELFTEST && i < c->nics; i++)
		n += snprintf(text + n, sizeof(text) - n, ",nic=%d:%d:%d", tap_fd(c, i), tap_fd(c, i) + 1,
			      counters_fd(c));
	arg(a, "-plugin");
	arg(a, "%s,fd=%d%s", agent, AGENT_FD, text);
}

static void control_args(struct args *a, enum vm_kind kind)
{
	arg(a, "-chardev"); arg(a, "socket,id=qmp0,fd=%d", QMP_FD);
	arg(a, "-mon"); arg(a, "chardev=qmp0,mode=control");
	if (kind != VM_RUN)
		arg(a, "-S");
	if (kind == VM_INCOMING) {
		arg(a, "-incoming"); arg(a, "defer");
	}
}

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

static void on_exit_event(void *opaque, int events)
{
	struct daemon *d = opaque;
	struct vm *vm = &d->vm;
	int status = 0;
	bool dying = vm->dying;

	if (spawn_reap(&vm->child, &status) < 0)
		return;
	watch_free(vm->exit_watch);
	vm->exit_watch = NULL;
	if (dying)
		return;
	log_error("QEMU has ended (%s %d); its messages are in %s/qemu.log",
		  WIFSIGNALED(status) ? "signal" : "exit status",
		  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), daemon_state_dir(d));
	if (!vm->ended)
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
	struct daemon *d = opaque;

	log_debug("QEMU: %s", event);
	/* -no-shutdown keeps QEMU there; the SVM's own shutdown is overtaken by the primary's word */
	if (!strcmp(event, "SHUTDOWN") && json_is_true(json_object_get(data, "guest")) &&
	    daemon_is_primary(d)) {
		log_info("the guest has powered itself off");
		daemon_event(d, (struct core_event){ .type = CORE_EV_GUEST_OFF });
	}
}

/* fds: those of QEMU's descriptors FIRST_DISK_FD and on */
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

/* fds: what QEMU inherits, from 3 on; the first two are ours to close */
static int start_child(struct daemon *d, struct args *a, int fds[MAX_FDS], enum vm_kind kind)
{
	int log_fd, nfds = 2, r;

	log_fd = daemon_open_log(d, "qemu.log");
	if (kind == VM_SELFTEST) {
		r = spawn_child(&d->vm.child, a->v, fds, nfds, log_fd, VM_SPAWN);
	} else {
		memset(fds + nfds, 0xff, (MAX_FDS - nfds) * sizeof(*fds));
		r = connect_disks(d, fds + nfds);
		nfds += 2 * d->disk.n;
		r = r < 0 ? r : nic_prepare(d, fds + nfds);
		nfds += NIC_FDS(d->cfg->nics);
		if (r == 0) {
			r = spawn_child(&d->vm.child, a->v, fds, nfds, log_fd, VM_SPAWN);
			nic_prepared(d);
		}
		close_disks(d, fds + 2);
	}
	if (log_fd >= 0)
		close(log_fd);
	return r;
}

static int build_args(struct daemon *d, struct args *a, enum vm_kind kind)
{
	char agent[300];
	int r = daemon_find(d, "agent", "colo-agent.so", agent, sizeof(agent));

	if (r < 0)
		return r;
	machine_args(a, d->cfg);
	boot_args(a, d->cfg);
	device_args(a, d, kind);
	control_args(a, kind);
	agent_args(a, agent, d->cfg, kind);
	return a->failed ? -ENOMEM : 0;
}

int vm_start(struct daemon *d, enum vm_kind kind)
{
	static const int types[2] = { SOCK_STREAM, SOCK_SEQPACKET };
	int ours[2] = { -1, -1 }, fds[MAX_FDS] = { -1, -1 }, r, i;
	struct vm *vm = &d->vm;
	struct args a = { .n = 0 };

	*vm = (struct vm){ .child = { .pidfd = -1 }, .agent_fd = -1 };
	r = build_args(d, &a, kind);
	r = r < 0 ? r : wire_pairs(types, 2, ours, fds);
	if (r == 0)
		r = start_child(d, &a, fds, kind);
	free_args(&a);
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
	vm->exit_watch = watch_new(&d->loop, vm->child.pidfd, UV_READABLE, on_exit_event, d);
	vm->qmp = qmp_new(&d->loop, ours[0], on_qmp_event, d);
	vm->agent_fd = ours[1];
	uv_timer_start(&d->vm_look, on_look, LOOK_MS, LOOK_MS);
	return 0;
}

void vm_kill(struct daemon *d)
{
	struct vm *vm = &d->vm;

	vm->dying = true;
	uv_timer_stop(&d->vm_look);
	agentlink_close(d);
	watch_free(vm->exit_watch);
	vm->exit_watch = NULL;
	spawn_kill(&vm->child);
	qmp_free(vm->qmp);
	vm->qmp = NULL;
}
