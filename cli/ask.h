/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ask.h - questions to the daemon, over its control socket
 *
 * All say on standard error what went wrong.
 */
#ifndef COLO_ASK_H
#define COLO_ASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "daemon/config.h"

struct ask {
	const struct config *cfg;
	char path[CONFIG_PATH_MAX + 16];
	FILE *f;
	bool quiet; /* ask() says nothing of what goes wrong */
};

/* "colo: WHAT: WHY"; returns 1, an exit status */
int ask_fail(const char *what, const char *why);
int ask_open(struct ask *a, const struct config *c); /* 0 or -errno */
void ask_close(struct ask *a);
/* Takes the request. The answer, a new reference; NULL: none, or the daemon refused. */
json_t *ask(struct ask *a, json_t *request);
/* one question on a connection of its own */
json_t *ask_once(const struct config *c, json_t *request);

#endif
