/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * show.c - see show.h
 */
#include "cli/show.h"

#include <stdio.h>
#include <time.h>

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "?";
}

static long long number(json_t *o, const char *key)
{
	return (long long)json_number_value(json_object_get(o, key));
}

static void show_causes(json_t *checkpoints)
{
	json_t *v;
	const char *key;

	printf("checkpoints   %lld", number(checkpoints, "total"));
	json_object_foreach(json_object_get(checkpoints, "by_cause"), key, v)
		if (json_integer_value(v))
			printf(", %s %lld", key, (long long)json_integer_value(v));
	printf("\n");
}

static void show_alarms(json_t *alarms)
{
	char when[32] = "?";
	struct tm tm;
	time_t at;
	size_t i;
	json_t *a;

	json_array_foreach(alarms, i, a) {
		at = number(a, "at") / 1000;
		if (localtime_r(&at, &tm))
			strftime(when, sizeof(when), "%F %T", &tm);
		printf("ALARM         %s: %s\n", when, text(a, "text"));
	}
}

static void show_disks(json_t *disks)
{
	json_t *k, *sync, *eta;
	size_t i;

	json_array_foreach(disks, i, k) {
		printf("disk%zu         %s, %lld MiB", i, text(k, "file"), number(k, "size") >> 20);
		sync = json_object_get(k, "sync");
		if (json_is_object(sync)) {
			printf(", sync %lld %%, %lld MiB moved", number(sync, "percent"), number(sync, "moved") >> 20);
			eta = json_object_get(sync, "eta_s");
			if (json_is_integer(eta) && json_integer_value(eta))
				printf(", %lld s left", (long long)json_integer_value(eta));
		}
		printf("\n");
	}
}

void show_status(json_t *s)
{
	json_t *pause = json_object_get(s, "pause_us"), *link = json_object_get(s, "link");
	json_t *f = json_object_get(s, "last_failover"), *net = json_object_get(s, "net");

	printf("VM            %s on node %s\n", text(s, "vm"), text(s, "node"));
	printf("role, state   %s, %s (mode %s, epoch %lld)\n", text(s, "role"), text(s, "state"),
	       text(s, "mode"), number(s, "epoch"));
	show_causes(json_object_get(s, "checkpoints"));
	printf("pause         p50 %.1f ms, p99 %.1f ms, dirty pages p50 %lld\n", number(pause, "p50") / 1e3,
	       number(pause, "p99") / 1e3, number(json_object_get(s, "dirty_pages"), "p50"));
	printf("link          %s, sent %lld MiB, received %lld MiB\n",
	       json_is_true(json_object_get(link, "up")) ? "up" : "down", number(link, "tx_bytes") >> 20,
	       number(link, "rx_bytes") >> 20);
	printf("network       %lld flows, %lld packets held, %lld mismatches, %lld missing answers\n",
	       number(net, "flows"), number(net, "held_packets"), number(net, "mismatches"),
	       number(net, "missing"));
	show_disks(json_object_get(s, "disks"));
	if (json_is_object(f))
		printf("last failover %s, noticed after %lld ms, serving after %lld ms\n", text(f, "cause"),
		       number(f, "detect_ms"), number(f, "total_ms"));
	show_alarms(json_object_get(s, "alarms"));
}
