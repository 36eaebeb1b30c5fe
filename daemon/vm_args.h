/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * vm_args.h - QEMU's command line, and which descriptors it inherits
 */
#ifndef COLO_VM_ARGS_H
#define COLO_VM_ARGS_H

#include "daemon/daemon.h"

/* Where the child finds its ends; then, NBD connection and boundary socket of each disk, counters of the
 * network namespace, TAP and packet socket of each NIC; with driver standby, the file that RAM is in. */
enum { VM_QMP_FD = 3, VM_AGENT_FD, VM_FIRST_DISK_FD };
#define VM_MAX_FDS (VM_FIRST_DISK_FD - VM_QMP_FD + 2 * CONFIG_DISKS_MAX + NIC_FDS(CONFIG_NICS_MAX) + 1)
#define VM_MAX_ARGS 256

static inline int vm_nbd_fd(unsigned int disk)
{
	return VM_FIRST_DISK_FD + 2 * disk;
}

static inline int vm_boundary_fd(unsigned int disk)
{
	return vm_nbd_fd(disk) + 1;
}

static inline int vm_counters_fd(const struct config *c)
{
	return vm_nbd_fd(c->disks);
}

static inline int vm_tap_fd(const struct config *c, unsigned int nic)
{
	return vm_counters_fd(c) + 1 + 2 * nic;
}

static inline int vm_ram_fd(const struct config *c)
{
	return vm_tap_fd(c, c->nics);
}

struct vm_args {
	char *v[VM_MAX_ARGS]; /* ends with NULL */
	unsigned int n;
	bool failed;
};

/* 0 or -errno; either way vm_args_free() */
int vm_args_build(struct daemon *d, struct vm_args *a, enum vm_kind kind);
void vm_args_free(struct vm_args *a);
/* one more */
void vm_arg(struct vm_args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- vm_devices.c: what the guest finds in its machine --- */

void vm_device_args(struct vm_args *a, struct daemon *d, enum vm_kind kind);

#endif
