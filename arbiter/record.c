/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * record.c - the record of a VM: what it says of a claim, and how it is written
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "arbiter/arbiter.h"

int arbiter_unknown(struct arbiter *a, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->error, sizeof(a->error), fmt, ap);
	va_end(ap);
	return r < 0 ? r : -EIO; /* never anything that means won */
}

uint64_t arbiter_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

uint64_t arbiter_left_ms(const struct arbiter *a, uint64_t most)
{
	uint64_t now = arbiter_now_ms(), left = a->deadline_ms > now ? a->deadline_ms - now : 0;

	return left < most ? left : most;
}

int record_judge(const struct arbiter_record *r, uint64_t generation, const char *me)
{
	if (r->generation < generation)
		return ARBITER_OPEN;
	return r->generation == generation && !strcmp(r->owner, me) ? ARBITER_WON : ARBITER_LOST;
}

bool record_is_name(const char *s)
{
	size_t n = strlen(s);

	if (!n || n >= ARBITER_NAME_MAX)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("-_.", *s))
			return false;
	return true;
}

/* FNV-1a, 64 bits: against bits that fall over on a disk, not against people */
static uint64_t checksum(const struct arbiter_record *r, const char *vm)
{
	char text[2 * ARBITER_NAME_MAX + 32];
	uint64_t h = 0xcbf29ce484222325;
	const char *s;

	snprintf(text, sizeof(text), "%s %" PRIu64 " %s", vm, r->generation, r->owner);
	for (s = text; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3;
	return h;
}

size_t record_format(const struct arbiter_record *r, const char *vm, char text[RECORD_TEXT_MAX])
{
	int n = snprintf(text, RECORD_TEXT_MAX, "{\"generation\":%" PRIu64 ",\"owner\":\"%s\"", r->generation, r->owner);

	if (vm)
		n += snprintf(text + n, RECORD_TEXT_MAX - n, ",\"vm\":\"%s\",\"check\":\"%016" PRIx64 "\"", vm,
			      checksum(r, vm));
	return n + snprintf(text + n, RECORD_TEXT_MAX - n, "}\n");
}

static bool take(const json_t *o, const char *vm, struct arbiter_record *r)
{
	const json_t *generation = json_object_get(o, "generation");
	const char *owner = json_string_value(json_object_get(o, "owner"));
	const char *whose = json_string_value(json_object_get(o, "vm"));
	const char *check = json_string_value(json_object_get(o, "check"));
	char want[20];

	if (!json_is_integer(generation) || json_integer_value(generation) <= 0 || !owner || !record_is_name(owner))
		return false;
	r->generation = json_integer_value(generation);
	snprintf(r->owner, sizeof(r->owner), "%s", owner);
	if (!vm)
		return true;
	snprintf(want, sizeof(want), "%016" PRIx64, checksum(r, vm));
	return whose && !strcmp(whose, vm) && check && !strcmp(check, want);
}

int record_parse(const char *text, size_t len, const char *vm, struct arbiter_record *r)
{
	json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	bool good;

	memset(r, 0, sizeof(*r));
	good = take(o, vm, r);
	json_decref(o);
	if (!good)
		memset(r, 0, sizeof(*r));
	return good ? 0 : -EBADMSG;
}
