/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * qemu.h - the ways to drive an unmodified QEMU, each a table of functions
 *
 * All functions but probe(), attach() and call() must run in QEMU's main loop, that is inside
 * call(). The VM counts as running between cont() and stop().
 */
#ifndef COLO_AGENT_QEMU_H
#define COLO_AGENT_QEMU_H

#include <stdbool.h>
#include <stdint.h>

#include "ram.h"
#include "util.h"

struct qemu_version {
	int major, minor, micro; /* -1: unknown */
};

struct driver {
	const char *name; /* as the hello says it, up to 15 characters */
	bool by_qmp; /* the daemon stops, saves, loads and runs the VM: load() and what follows it may be NULL */
	/* Can this QEMU be driven this way? -ENOSYS and what is missing otherwise. */
	int (*probe)(struct errtext *err);
	/* Wait until QEMU's main loop runs; then call() works. */
	int (*attach)(struct errtext *err);
	/* Run @fn in the main loop, never nested in other work of QEMU's; return when done. */
	void (*call)(void (*fn)(void *opaque), void *opaque);
	int (*find_ram)(struct ram *ram, struct errtext *err);
	/* Forbid or allow devices to give RAM back behind our back (balloon, virtio-mem). */
	int (*pin_ram)(bool pin, struct errtext *err);
	bool (*running)(void);
	/* Stop without flushing disks. @replace: because the state will be replaced by a load. */
	void (*stop)(bool replace);
	/*
	 * VM running: hold its vCPUs without stopping it, so that the guest's clocks go on; until release() in the
	 * same callback, or stop(). false: nothing is done, this VM must be stopped.
	 */
	bool (*hold)(void);
	void (*release)(void);
	int (*cont)(struct errtext *err);
	/* Device state without RAM, to or from offset 0 of a file. */
	int (*save)(int fd, uint64_t *len, struct errtext *err);
	int (*load)(int fd, struct errtext *err);
	void (*reset)(void);
	/* Is the guest's time stamp counter the host's plus an offset in the device state? */
	bool (*emulates_tsc)(void);
	/* QEMU's virtual clock, ns */
	int64_t (*clock)(void);
	/* VM stopped: let the next load set the counter back, which QEMU would prevent. */
	void (*allow_tsc_back)(void);
	/* How often translated code was thrown away; -1: not known, or nothing is translated. */
	int64_t (*jit_flushes)(void);
};

/* The first driver that fits, or NULL and why the last did not. */
const struct driver *driver_find(struct errtext *err);

/* Of the QEMU this library is loaded in. May be called before its main loop runs. */
struct qemu_version qemu_version(void);

#endif
