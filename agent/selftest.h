/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * selftest.h - does this QEMU, with these devices, come back from its own saved state?
 */
#ifndef COLO_AGENT_SELFTEST_H
#define COLO_AGENT_SELFTEST_H

#include "qemu.h"

/* From the agent's thread. The VM must not run; it is left stopped. */
int selftest_run(const struct driver *drv, struct errtext *err);

#endif
