/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * devices.h - which machines and devices can be protected, and the way out where one cannot
 *
 * Names are QEMU's, as for -device and -machine. A list has them separated by commas or blanks.
 */
#ifndef COLO_DEVICES_H
#define COLO_DEVICES_H

#include <stdbool.h>
#include <stddef.h>

#define DEVICE_NAME_MAX 40

/* 0, or -EINVAL with why not, and what to do instead. A machine that is not known passes: the self-test judges. */
int machine_check(const char *machine, char *why, size_t size);
int devices_check(const char *list, char *why, size_t size);
/* The next name of a list; false: there is none, or one that is too long. */
bool devices_next(const char **list, char name[DEVICE_NAME_MAX]);
bool device_is_usb(const char *name);    /* needs a controller */
bool device_is_virtio(const char *name); /* is legacy or modern */

#endif
