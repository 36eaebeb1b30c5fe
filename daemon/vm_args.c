/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * vm_args.c - QEMU's command line
 *
 * All that QEMU is told to be. The throw-away QEMU of the self-test has the same devices as the VM, with nothing
 * behind them.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/daemon.h"
#include "daemon/vm_args.h"

_Static_assert(CONFIG_DISKS_MAX <= AGENT_MAX_DISKS, "each writable disk needs its boundary");

void vm_arg(struct vm_args *a, const char *fmt, ...)
{
	va_list ap;

	if (a->n + 1 >= VM_MAX_ARGS) {
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

/* The main RAM in a file of the daemon's, so that a migration can leave it out (capability x-ignore-shared) */
static void ram_args(struct vm_args *a, const struct config *c)
{
	vm_arg(a, "-object");
	vm_arg(a, "memory-backend-file,id=ram0,size=%llu,mem-path=/proc/self/fd/%d,share=on",
	       (unsigned long long)c->memory, vm_ram_fd(c));
}

/* vmdesc: a description of the migration stream that nobody reads */
static void machine_args(struct vm_args *a, const struct daemon *d, bool ram_in_file)
{
	const struct config *c = d->cfg;

	vm_arg(a, "%s", c->qemu);
	vm_arg(a, "-name"); vm_arg(a, "%s", c->name);
	vm_arg(a, "-machine"); vm_arg(a, "%s%s", c->machine, ram_in_file ? ",memory-backend=ram0,suppress-vmdesc=on" : "");
	vm_arg(a, "-accel"); vm_arg(a, "%s", d->accel);
	vm_arg(a, "-cpu"); vm_arg(a, "%s", *c->cpu ? c->cpu : strcmp(d->accel, "kvm") ? "max" : "host");
	vm_arg(a, "-m"); vm_arg(a, "%lluM", (unsigned long long)(c->memory >> 20));
	vm_arg(a, "-smp"); vm_arg(a, "%u", (unsigned int)c->vcpus);
	vm_arg(a, "-nodefaults"); vm_arg(a, "-no-user-config");
	/* loading device state takes a third of the time without it */
	vm_arg(a, "-global"); vm_arg(a, "apic-common.vapic=off");
	/* QEMU 7.2 forgets that a VM is suspended when it stops and runs on, as for a checkpoint, and such a VM never
	 * wakes: the guest is not offered suspend to RAM */
	if (!config_is_q35(c)) {
		vm_arg(a, "-global"); vm_arg(a, "PIIX4_PM.disable_s3=1");
	}
	if (!config_is_i440fx(c)) {
		vm_arg(a, "-global"); vm_arg(a, "ICH9-LPC.disable_s3=1");
	}
	vm_arg(a, "-no-shutdown");
}

static void boot_args(struct vm_args *a, const struct config *c)
{
	if (!*c->kernel)
		return;
	vm_arg(a, "-kernel"); vm_arg(a, "%s", c->kernel);
	if (*c->initrd) {
		vm_arg(a, "-initrd"); vm_arg(a, "%s", c->initrd);
	}
	if (*c->append) {
		vm_arg(a, "-append"); vm_arg(a, "%s", c->append);
	}
}

static const char *const tracking[] = { [TRACKING_AUTO] = "", [TRACKING_ASYNC] = ",track=async",
	[TRACKING_SYNC] = ",track=sync" };

static void agent_args(struct vm_args *a, const char *agent, const struct config *c, enum vm_kind kind, bool ram_in_file)
{
	char text[AGENT_MAX_NICS * 48 + AGENT_MAX_DISKS * 16 + 16] = "";
	unsigned int i;
	size_t n = 0;

	if (ram_in_file)
		n += snprintf(text, sizeof(text), ",ram=%d", vm_ram_fd(c));

	for (i = 0; kind != VM_SELFTEST && i < c->disks; i++)
		if (config_disk_writable(c, i))
			n += snprintf(text + n, sizeof(text) - n, ",diskfd=%d", vm_boundary_fd(i));
	for (i = 0; kind != VM_SELFTEST && i < c->nics; i++)
		n += snprintf(text + n, sizeof(text) - n, ",nic=%d:%d:%d", vm_tap_fd(c, i), vm_tap_fd(c, i) + 1,
			      vm_counters_fd(c));
	vm_arg(a, "-plugin");
	vm_arg(a, "%s,fd=%d%s%s", agent, VM_AGENT_FD, tracking[c->tracking], text);
}

static void control_args(struct vm_args *a, enum vm_kind kind)
{
	vm_arg(a, "-chardev"); vm_arg(a, "socket,id=qmp0,fd=%d", VM_QMP_FD);
	vm_arg(a, "-mon"); vm_arg(a, "chardev=qmp0,mode=control");
	if (kind != VM_RUN)
		vm_arg(a, "-S");
	if (kind == VM_INCOMING || kind == VM_STANDBY) {
		vm_arg(a, "-incoming"); vm_arg(a, "defer");
	}
}

void vm_args_free(struct vm_args *a)
{
	while (a->n)
		free(a->v[--a->n]);
}

int vm_args_build(struct daemon *d, struct vm_args *a, enum vm_kind kind)
{
	char agent[300];
	bool ram_in_file = standby_on(d) && kind != VM_SELFTEST;
	int r = daemon_find(d, "agent", "colo-agent.so", agent, sizeof(agent));

	if (r < 0)
		return r;
	machine_args(a, d, ram_in_file);
	if (ram_in_file)
		ram_args(a, d->cfg);
	boot_args(a, d->cfg);
	vm_device_args(a, d, kind);
	control_args(a, kind);
	agent_args(a, agent, d->cfg, kind, ram_in_file);
	return a->failed ? -ENOMEM : 0;
}
