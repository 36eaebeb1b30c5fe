/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * verify.h - colo verify: progress while it runs, then what was found
 */
#ifndef COLO_VERIFY_H
#define COLO_VERIFY_H

#include <stdbool.h>

#include "daemon/config.h"

/* An exit status: 0 the disks are equal (or were made so), 1 they differ, 2 it could not be found out. */
int verify_disks(const struct config *c, bool repair, bool json);

#endif
