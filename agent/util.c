/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * util.c - error texts and the clock
 */
#include "util.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

int agent_fail(struct errtext *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return code;
}

int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}
