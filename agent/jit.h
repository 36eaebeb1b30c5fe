/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * jit.h - keep TCG's translated code across a load of device state, but for what changed
 */
#ifndef COLO_AGENT_JIT_H
#define COLO_AGENT_JIT_H

#include <stdbool.h>
#include <stdint.h>

#include "qemu.h"

/*
 * From the agent's thread, VM stopped: find out whether this QEMU lets us. If not, the other
 * functions do nothing, and loading throws all translated code away, as it always does.
 */
void jit_calibrate(const struct driver *drv);
/* In the main loop, VM stopped: the content of a part of RAM has changed. */
void jit_changed(const struct ram_block *b, uint64_t offset, uint64_t len);
/* In the main loop, after a load and all jit_changed(): cancel the flush the load has ordered. */
void jit_keep(void);

#endif
