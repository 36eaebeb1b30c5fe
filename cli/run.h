/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * run.h - `colo run`: a daemon, and the supervisor that starts it again
 */
#ifndef COLO_RUN_H
#define COLO_RUN_H

#include <stdbool.h>

#include "daemon/daemon.h"

/* Runs until the VM or the operator ends it. Returns the process' exit status. once: the daemon in this process,
 * and nobody who starts it again */
int run_node(const struct config *c, const struct run_options *o, bool once);

#endif
