/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * verify.c - see verify.h
 */
#include "cli/verify.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/ask.h"

#define POLL_US 200000

enum { SAME, DIFFER, UNKNOWN };

static long long number(json_t *o, const char *key)
{
	return (long long)json_number_value(json_object_get(o, key));
}

static void show_progress(json_t *disks)
{
	long long done = 0, total = 0, eta = -1;
	size_t i;
	json_t *k;

	json_array_foreach(disks, i, k) {
		if (!json_is_true(json_object_get(k, "running")))
			continue;
		done += number(k, "done");
		total += number(k, "total");
		if (json_is_integer(json_object_get(k, "eta_s")) && number(k, "eta_s") > eta)
			eta = number(k, "eta_s");
	}
	fprintf(stderr, "\r%lld of %lld MiB compared", done >> 20, total >> 20);
	if (eta >= 0)
		fprintf(stderr, ", %lld s left", eta);
	fprintf(stderr, "      ");
}

static void show_result(json_t *disks)
{
	const char *error, *places;
	size_t i;
	json_t *k;

	json_array_foreach(disks, i, k) {
		error = json_string_value(json_object_get(k, "error"));
		places = json_string_value(json_object_get(k, "places"));
		printf("%s: ", json_string_value(json_object_get(k, "name")));
		if (error)
			printf("could not be verified: %s\n", error);
		else if (!number(k, "differing"))
			printf("equal, %lld bytes\n", number(k, "checked"));
		else
			printf("%lld of %lld bytes differ, %lld repaired%s%s\n", number(k, "differing"),
			       number(k, "checked"), number(k, "repaired"), places && *places ? ": " : "",
			       places ? places : "");
	}
}

static int judge(json_t *disks)
{
	bool differ = false, unknown = !json_array_size(disks);
	size_t i;
	json_t *k;

	json_array_foreach(disks, i, k) {
		unknown = unknown || json_is_string(json_object_get(k, "error"));
		differ = differ || number(k, "differing") > number(k, "repaired");
	}
	return differ ? DIFFER : unknown ? UNKNOWN : SAME;
}

/* the state of the verify this began, when it is over; NULL: the daemon is gone, or began another one */
static json_t *wait_for_end(struct ask *a)
{
	bool shown = isatty(STDERR_FILENO);
	json_t *s, *v = NULL;

	for (;;) {
		s = ask(a, json_pack("{s:s}", "command", "status"));
		v = json_incref(json_object_get(s, "verify"));
		json_decref(s);
		if (!json_is_true(json_object_get(v, "running")))
			break;
		if (shown)
			show_progress(json_object_get(v, "disks"));
		json_decref(v);
		usleep(POLL_US);
	}
	if (shown)
		fprintf(stderr, "\r%60s\r", "");
	return v;
}

static int verify(struct ask *a, bool repair, bool json)
{
	json_t *answer = ask(a, json_pack("{s:s s:b}", "command", "verify", "repair", repair)), *v, *disks;
	int r = UNKNOWN;

	if (!answer)
		return UNKNOWN;
	json_decref(answer);
	v = wait_for_end(a);
	disks = json_object_get(v, "disks");
	if (v) {
		r = judge(disks);
		if (json) {
			json_dumpf(v, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
			printf("\n");
		} else {
			show_result(disks);
		}
	}
	json_decref(v);
	return r;
}

int verify_disks(const struct config *c, bool repair, bool json)
{
	struct ask a;
	int r;

	if (ask_open(&a, c) < 0)
		return UNKNOWN;
	r = verify(&a, repair, json);
	ask_close(&a);
	return r;
}
