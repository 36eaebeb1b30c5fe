/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * log.h - one line an event on standard error, with VM, role and epoch
 *
 * "2026-11-23T05:00:00.123 web primary 17 info: text". Not thread-safe by design: one event loop.
 */
#ifndef COLO_LOG_H
#define COLO_LOG_H

#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* vm and role must outlive their use here (role: a string constant) */
void log_set_context(const char *vm, const char *role, uint64_t epoch);
void log_set_level(enum log_level level);
__attribute__((format(printf, 2, 3))) void log_line(enum log_level level, const char *fmt, ...);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
