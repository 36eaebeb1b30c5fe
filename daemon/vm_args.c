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

static int nbd_fd(unsigned int disk)
{
	return VM_FIRST_DISK_FD + 2 * disk;
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

__attribute__((format(printf, 2, 3))) static void arg(struct vm_args *a, const char *fmt, ...)
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

static void machine_args(struct vm_args *a, const struct daemon *d)
{
	const struct config *c = d->cfg;

	arg(a, "%s", c->qemu);
	arg(a, "-name"); arg(a, "%s", c->name);
	arg(a, "-machine"); arg(a, "%s", c->machine);
	arg(a, "-accel"); arg(a, "%s", d->accel);
	arg(a, "-cpu"); arg(a, "%s", *c->cpu ? c->cpu : strcmp(d->accel, "kvm") ? "max" : "host");
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

static void boot_args(struct vm_args *a, const struct config *c)
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

static void nic_args(struct vm_args *a, const struct config *c, unsigned int i, enum vm_kind kind)
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
static void disk_args(struct vm_args *a, struct daemon *d, unsigned int i, enum vm_kind kind)
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
static void device_args(struct vm_args *a, struct daemon *d, enum vm_kind kind)
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

static void agent_args(struct vm_args *a, const char *agent, const struct config *c, enum vm_kind kind)
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
	arg(a, "%s,fd=%d%s", agent, VM_AGENT_FD, text);
}

static void control_args(struct vm_args *a, enum vm_kind kind)
{
	arg(a, "-chardev"); arg(a, "socket,id=qmp0,fd=%d", VM_QMP_FD);
	arg(a, "-mon"); arg(a, "chardev=qmp0,mode=control");
	if (kind != VM_RUN)
		arg(a, "-S");
	if (kind == VM_INCOMING) {
		arg(a, "-incoming"); arg(a, "defer");
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
	int r = daemon_find(d, "agent", "colo-agent.so", agent, sizeof(agent));

	if (r < 0)
		return r;
	machine_args(a, d);
	boot_args(a, d->cfg);
	device_args(a, d, kind);
	control_args(a, kind);
	agent_args(a, agent, d->cfg, kind);
	return a->failed ? -ENOMEM : 0;
}
