/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * vm_devices.c - QEMU's command line: what the guest finds in its machine
 *
 * Devices stand in an order that gives them the PCI addresses which libvirt's have: screen, NICs, USB, disks, the rest.
 * What comes with a key of its own in the configuration is added only if asked for, for it moves those behind it.
 */
#include <stdio.h>

#include "daemon/daemon.h"
#include "daemon/devices.h"
#include "daemon/vm_args.h"

#define ROOT_PORT_SLOT 2 /* and on, eight in each */

static bool has_usb(const struct config *c)
{
	const char *list = c->devices;
	char name[DEVICE_NAME_MAX];

	if (c->tablet)
		return true;
	while (devices_next(&list, name))
		if (device_is_usb(name))
			return true;
	return false;
}

/* A root port for each device that a PCI Express machine would have behind one: those of virtio, and USB. More than
 * there are devices do no harm. */
static unsigned int root_ports(const struct config *c)
{
	const char *list = c->devices;
	char name[DEVICE_NAME_MAX];
	unsigned int n = c->nics + has_usb(c) + c->disks + c->rng;

	while (devices_next(&list, name))
		n += device_is_virtio(name);
	return n;
}

static void root_port_args(struct vm_args *a, const struct config *c)
{
	unsigned int i, n = root_ports(c);

	for (i = 0; i < n; i++) {
		vm_arg(a, "-device");
		vm_arg(a, "pcie-root-port,id=port%u,chassis=%u,bus=pcie.0,addr=%x.%x%s", i + 1, i + 1,
		       ROOT_PORT_SLOT + i / 8, i % 8, i % 8 ? "" : ",multifunction=on");
	}
}

/* where the next of those goes */
static const char *bus(const struct config *c, unsigned int *port, char text[32])
{
	*text = 0;
	if (c->root_ports)
		snprintf(text, 32, ",bus=port%u", ++*port);
	return text;
}

/* The state of a legacy device is a seventh of that of a modern one, and so is the time to save it, which is part of
 * the PVM's pause. */
static const char *virtio(const struct config *c)
{
	if (c->virtio == VIRTIO_LEGACY)
		return "disable-modern=on,disable-legacy=off";
	return c->root_ports ? "disable-modern=off,disable-legacy=on" : "disable-modern=off,disable-legacy=off";
}

/* No VLAN filter: QEMU forgets it while it loads device state (the features, set last, clear it), and the SVM would be
 * deaf in every VLAN. */
static void nic_args(struct vm_args *a, const struct config *c, unsigned int i, unsigned int *port, enum vm_kind kind)
{
	char on[32];

	vm_arg(a, "-netdev");
	if (kind == VM_SELFTEST)
		vm_arg(a, "hubport,id=nic%u,hubid=%u", i, i);
	else
		vm_arg(a, "tap,id=nic%u,fd=%u", i, vm_tap_fd(c, i));
	vm_arg(a, "-device");
	vm_arg(a, "virtio-net-pci,netdev=nic%u,mac=%s,%s,ctrl_vlan=off,romfile=%s", i, c->nic[i].mac, virtio(c),
	       bus(c, port, on));
}

/* Booted from in their order. */
static void disk_args(struct vm_args *a, struct daemon *d, unsigned int i, unsigned int *port, enum vm_kind kind)
{
	const struct config_disk *k = &d->cfg->disk[i];
	const char *only = k->read_only ? ",read-only=on" : ",discard=unmap";
	char on[32];

	vm_arg(a, "-blockdev");
	if (kind == VM_SELFTEST)
		vm_arg(a, "driver=null-co,node-name=disk%u,size=%llu,read-zeroes=on%s", i,
		       (unsigned long long)d->disk.disk[i].size, only);
	else
		vm_arg(a, "driver=nbd,node-name=disk%u,server.type=fd,server.str=%d%s", i, vm_nbd_fd(i), only);
	vm_arg(a, "-device");
	if (k->cdrom)
		vm_arg(a, "ide-cd,drive=disk%u,bootindex=%u", i, i + 1);
	else
		vm_arg(a, "virtio-blk-pci,drive=disk%u,bootindex=%u,%s,logical_block_size=%u,physical_block_size=%u%s", i,
		       i + 1, virtio(d->cfg), (unsigned int)k->sector, (unsigned int)k->sector, bus(d->cfg, port, on));
}

/* The screen is seen by VNC, on a socket of root's own. */
static void screen_args(struct vm_args *a, struct daemon *d, enum vm_kind kind)
{
	vm_arg(a, "-display");
	if (d->cfg->vga == VGA_NONE || kind == VM_SELFTEST)
		vm_arg(a, "none");
	else
		vm_arg(a, "vnc=unix:%s/vnc.sock", daemon_state_dir(d));
	if (d->cfg->vga == VGA_STD) {
		vm_arg(a, "-device"); vm_arg(a, "VGA");
	}
}

static void usb_args(struct vm_args *a, const struct config *c, unsigned int *port)
{
	char on[32];

	if (!has_usb(c))
		return;
	vm_arg(a, "-device"); vm_arg(a, "qemu-xhci,id=usb%s", bus(c, port, on));
	if (c->tablet) {
		vm_arg(a, "-device"); vm_arg(a, "usb-tablet,bus=usb.0");
	}
}

static void other_args(struct vm_args *a, const struct config *c, unsigned int *port)
{
	const char *list = c->devices;
	char name[DEVICE_NAME_MAX], on[32];

	if (c->rng) {
		vm_arg(a, "-object"); vm_arg(a, "rng-builtin,id=rng0");
		vm_arg(a, "-device"); vm_arg(a, "virtio-rng-pci,rng=rng0,%s%s", virtio(c), bus(c, port, on));
	}
	while (devices_next(&list, name)) {
		vm_arg(a, "-device");
		if (device_is_usb(name))
			vm_arg(a, "%s,bus=usb.0", name);
		else if (device_is_virtio(name))
			vm_arg(a, "%s%s", name, bus(c, port, on)); /* is modern always */
		else
			vm_arg(a, "%s", name);
	}
}

static void serial_args(struct vm_args *a, struct daemon *d, enum vm_kind kind)
{
	if (kind == VM_STANDBY) { /* what the VM of now writes there stays */
		vm_arg(a, "-chardev");
		vm_arg(a, "file,id=console,path=%s/console.log,append=on", daemon_state_dir(d));
	}
	vm_arg(a, "-serial");
	if (kind == VM_SELFTEST)
		vm_arg(a, "null");
	else if (kind == VM_STANDBY)
		vm_arg(a, "chardev:console");
	else
		vm_arg(a, "file:%s/console.log", daemon_state_dir(d));
}

void vm_device_args(struct vm_args *a, struct daemon *d, enum vm_kind kind)
{
	const struct config *c = d->cfg;
	unsigned int i, port = 0;

	screen_args(a, d, kind);
	if (c->root_ports)
		root_port_args(a, c);
	for (i = 0; i < c->nics; i++)
		nic_args(a, c, i, &port, kind);
	usb_args(a, c, &port);
	for (i = 0; i < c->disks; i++)
		disk_args(a, d, i, &port, kind);
	other_args(a, c, &port);
	serial_args(a, d, kind);
}
