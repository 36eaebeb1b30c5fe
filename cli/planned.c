/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * planned.c - see planned.h
 *
 * Both need the arbiter before anything changes, so that one that does not answer costs nothing. The order then
 * stands until it answers, which the operator is told.
 */
#include "cli/planned.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/ask.h"

#define POLL_US 50000
#define POLLS 200 /* 10 s */

/* the answer to `what` in a status, or "" */
static const char *text(const json_t *status, const char *what)
{
	const char *s = json_string_value(json_object_get(status, what));

	return s ? s : "";
}

typedef bool done_fn(const json_t *status, const char *role);

/* the daemon's end also ends its part as primary */
static bool exchanged(const json_t *status, const char *role)
{
	return !status || strcmp(text(status, "role"), role) || !strcmp(text(status, "state"), "given-up");
}

static bool alone(const json_t *status, const char *role)
{
	return !strcmp(text(status, "state"), "alone");
}

static bool wait_for(struct ask *a, done_fn *done, const char *role)
{
	bool is = false;
	json_t *status;
	int i;

	a->quiet = true;
	for (i = 0; i < POLLS && !is; i++) {
		status = ask(a, json_pack("{s:s}", "command", "status"));
		is = done(status, role);
		if (!is && !status)
			return false;
		json_decref(status);
		if (!is)
			usleep(POLL_US);
	}
	return is;
}

static int order(const struct config *c, const char *command, done_fn *done, const char *what_stands)
{
	json_t *status, *answer = NULL;
	struct ask a;
	bool is = false;

	if (ask_open(&a, c) < 0)
		return 1;
	status = ask(&a, json_pack("{s:s}", "command", "status"));
	if (status)
		answer = ask(&a, json_pack("{s:s}", "command", command));
	if (answer)
		is = wait_for(&a, done, text(status, "role"));
	if (answer && !is)
		ask_fail(command, what_stands);
	json_decref(answer);
	json_decref(status);
	ask_close(&a);
	return is ? 0 : 1;
}

int planned_switchover(const struct config *c)
{
	return order(c, "switchover", exchanged, "not done after 10 s: the arbiter does not answer, or the peer is slow. "
		     "Protection stays; the roles are exchanged when it answers");
}

int planned_pause(const struct config *c)
{
	return order(c, "pause", alone, "not done after 10 s: the arbiter does not answer. Protection stays until it "
		     "does, and ends then; colo resume takes the order back");
}
