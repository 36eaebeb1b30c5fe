/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * devices.c - see devices.h
 *
 * A device can be protected if all that it is to the guest is in RAM blocks and device state: then a checkpoint
 * has it. What the two VMs of a pair are given from outside must come through NICs and disks, which the daemon
 * serves; and nothing but the VM's own QEMU may write to its RAM, for the tracker does not see it. Allowed is what
 * was seen to come back from checkpoints with RAM equal, in use (tests/agent/test_devices.py). docs/colo.5.md has these
 * tables for people; tests/cli/test_help.py looks for the names.
 */
#include "daemon/devices.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const allowed[] = {
	"i6300esb", "usb-kbd", "usb-mouse", "virtio-keyboard-pci", "virtio-mouse-pci", "virtio-tablet-pci",
};

struct refusal {
	const char *name; /* one that ends with '*': all that begin so */
	const char *why;
};

#define A_NIC "network cards are [net] and [net N], which are virtio-net: leave it out"
#define A_DISK "disks are [disk] and [disk N], CD drives have cdrom = yes there: leave it out"
#define A_SCREEN "its pixels would be part of each checkpoint: take vga = std"
#define A_CHANNEL "it leads to a program on one host: use the network, as by ssh"
#define PASSED_THROUGH "its state is in hardware of one host: give the guest disks and network cards that QEMU emulates"
#define OTHERS_WRITE "another process or the kernel would write to the guest's RAM, unseen: "

/* the first that fits counts */
static const struct refusal refused[] = {
	{ "virtio-balloon*", "it takes RAM from the guest behind the tracker's back: leave it out, the guest keeps all of "
			     "[vm] memory" },
	{ "virtio-mem*", "it changes RAM behind the tracker's back: set [vm] memory to what the guest needs at most" },
	{ "pc-dimm", "RAM cannot be plugged: set [vm] memory to what the guest needs at most" },
	{ "nvdimm", "it is storage that is not replicated: make it a disk, [disk N]" },
	{ "virtio-pmem*", "it is storage that is not replicated: make it a disk, [disk N]" },
	{ "vfio-*", PASSED_THROUGH },
	{ "usb-host", PASSED_THROUGH },
	{ "usb-redir", PASSED_THROUGH },
	{ "pci-assign", PASSED_THROUGH },
	{ "ivshmem*", OTHERS_WRITE "let the guests talk over the network" },
	{ "vhost-user-fs*", OTHERS_WRITE "share files over the network, as by NFS" },
	{ "virtio-9p*", "files of a host are not replicated: share them over the network, as by NFS, or make a disk" },
	{ "vhost-vsock*", OTHERS_WRITE "talk to the guest over the network" },
	{ "vhost-*", OTHERS_WRITE "use [net N] and [disk N], which QEMU emulates" },
	{ "virtio-net*", A_NIC }, { "e1000*", A_NIC }, { "rtl8139", A_NIC }, { "ne2k*", A_NIC }, { "vmxnet3", A_NIC },
	{ "pcnet", A_NIC }, { "usb-net", A_NIC },
	{ "virtio-blk*", A_DISK }, { "virtio-scsi*", A_DISK }, { "scsi-*", A_DISK }, { "ide-*", A_DISK },
	{ "nvme*", A_DISK }, { "usb-storage", A_DISK }, { "usb-uas", A_DISK }, { "usb-bot", A_DISK },
	{ "floppy", A_DISK }, { "lsi*", A_DISK }, { "megasas*", A_DISK }, { "ahci", A_DISK }, { "sd-card", A_DISK },
	{ "VGA", "say vga = std instead" },
	{ "virtio-vga*", A_SCREEN }, { "virtio-gpu*", A_SCREEN }, { "qxl*", A_SCREEN }, { "cirrus-vga", A_SCREEN },
	{ "vmware-svga", A_SCREEN }, { "bochs-display", A_SCREEN }, { "ramfb", A_SCREEN }, { "ati-vga", A_SCREEN },
	{ "virtio-rng*", "say rng = yes instead" },
	{ "usb-tablet", "say tablet = yes instead" },
	{ "qemu-xhci", "it comes with tablet = yes, and with devices that need it: leave it out" },
	{ "*-xhci", "the USB controller is qemu-xhci, and comes with the devices that need it: leave it out" },
	{ "tpm-*", "its secrets are in a process of one host: do without" },
	{ "virtio-serial*", A_CHANNEL }, { "virtserialport", A_CHANNEL }, { "virtconsole", A_CHANNEL },
	{ "isa-serial", "the VM has one serial port, whose output is in console.log: leave it out" },
	{ "pci-serial*", A_CHANNEL }, { "usb-serial", A_CHANNEL }, { "isa-parallel", A_CHANNEL },
	{ "usb-ccid", A_CHANNEL }, { "ccid-*", A_CHANNEL }, { "usb-mtp", A_DISK },
	{ "*-hda", "sound is not replicated: leave it out" }, { "hda-*", "sound is not replicated: leave it out" },
	{ "AC97", "sound is not replicated: leave it out" }, { "usb-audio", "sound is not replicated: leave it out" },
	{ "pcie-root-port", "say root-ports = yes instead" },
	{ "sgx*", PASSED_THROUGH },
	{ "intel-iommu", "with it was nothing tried: leave it out" },
	{ "virtio-iommu*", "with it was nothing tried: leave it out" },
};

static const struct refusal refused_machine[] = {
	{ "microvm", "it has no PCI bus: take pc or q35" },
	{ "isapc", "it has no PCI bus: take pc or q35" },
	{ "none", "it is no machine: take pc or q35" },
	{ "xen*", "it needs Xen: take pc or q35" },
	{ "nitro*", "it needs Nitro Enclaves: take pc or q35" },
	{ "x-remote", "its devices are in other processes: take pc or q35" },
};

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

static bool fits(const char *pattern, const char *name)
{
	size_t n = strlen(pattern), m = strlen(name);

	if (*pattern == '*')
		return m >= n - 1 && !strcmp(name + m - (n - 1), pattern + 1);
	return pattern[n - 1] == '*' ? !strncmp(pattern, name, n - 1) : !strcmp(pattern, name);
}

static const char *look_up(const struct refusal *r, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (fits(r[i].name, name))
			return r[i].why;
	return NULL;
}

int machine_check(const char *machine, char *why, size_t size)
{
	const char *refusal = look_up(refused_machine, COUNT(refused_machine), machine);

	if (!refusal)
		return 0;
	snprintf(why, size, "%s cannot be protected: %s", machine, refusal);
	return -EINVAL;
}

static bool is_allowed(const char *name)
{
	size_t i;

	for (i = 0; i < COUNT(allowed); i++)
		if (!strcmp(allowed[i], name))
			return true;
	return false;
}

static int say_unknown(const char *name, char *why, size_t size)
{
	size_t i;
	int n = snprintf(why, size, "it is not known whether %s comes back from a checkpoint; known are ", name);

	for (i = 0; i < COUNT(allowed) && n >= 0 && n < (int)size; i++)
		n += snprintf(why + n, size - n, "%s%s", i ? ", " : "", allowed[i]);
	return -EINVAL;
}

static int check_one(const char *name, char *why, size_t size)
{
	const char *refusal = look_up(refused, COUNT(refused), name);

	if (refusal) {
		snprintf(why, size, "%s cannot be protected: %s", name, refusal);
		return -EINVAL;
	}
	return is_allowed(name) ? 0 : say_unknown(name, why, size);
}

bool devices_next(const char **list, char name[DEVICE_NAME_MAX])
{
	const char *s = *list + strspn(*list, ", \t");
	size_t n = strcspn(s, ", \t");

	if (!n || n >= DEVICE_NAME_MAX)
		return false;
	memcpy(name, s, n);
	name[n] = 0;
	*list = s + n;
	return true;
}

int devices_check(const char *list, char *why, size_t size)
{
	char name[DEVICE_NAME_MAX];
	int r = 0;

	while (r == 0 && devices_next(&list, name))
		r = check_one(name, why, size);
	if (r == 0 && list[strspn(list, ", \t")]) {
		snprintf(why, size, "a name of more than %d characters", DEVICE_NAME_MAX - 1);
		return -EINVAL;
	}
	return r;
}

bool device_is_usb(const char *name)
{
	return !strncmp(name, "usb-", 4);
}

bool device_is_virtio(const char *name)
{
	return !strncmp(name, "virtio-", 7);
}
