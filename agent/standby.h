/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * standby.h - the driver for documented interfaces of QEMU only
 */
#ifndef COLO_AGENT_STANDBY_H
#define COLO_AGENT_STANDBY_H

#include "qemu.h"

/*
 * @fd: the file that QEMU has the guest's RAM in; stays the caller's. NULL and why if it is none. Its attach() does not
 * wait for anything, and find_ram() works only once QEMU has made its RAM.
 */
const struct driver *standby_open(int fd, struct errtext *err);

/* Is RAM where it should be, and do write protection and page map work on it? QEMU must not run the VM. */
int standby_selftest(struct errtext *err);

#endif
