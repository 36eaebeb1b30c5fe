/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * log.c - see log.h
 */
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *context_vm = "-", *context_role = "-";
static uint64_t context_epoch;
static enum log_level threshold = LOG_INFO;

void log_set_context(const char *vm, const char *role, uint64_t epoch)
{
	context_vm = vm;
	context_role = role;
	context_epoch = epoch;
}

void log_set_level(enum log_level level)
{
	threshold = level;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	char line[1024], stamp[32];
	struct timespec ts;
	struct tm tm;
	va_list ap;
	int n;

	if (level > threshold)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	n = snprintf(line, sizeof(line), "%s.%03ld %s %s %llu %s: ", stamp, ts.tv_nsec / 1000000,
		     context_vm, context_role, (unsigned long long)context_epoch, names[level]);
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	/* nothing sensible can be done about a log that cannot be written */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}
