/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * explain.h - the last differences for people, and the packets of them as a file
 */
#ifndef COLO_CLI_EXPLAIN_H
#define COLO_CLI_EXPLAIN_H

#include "cli/ask.h"

/* the daemon's answer to "explain", newest last */
void explain_show(json_t *answer);
/* Fetches the daemon's capture into a pcapng file. Returns the number of packets, or -1 after a message. */
long explain_save(struct ask *a, const char *path);

#endif
