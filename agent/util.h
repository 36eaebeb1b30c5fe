/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * util.h - what every file of the agent needs: error texts, the clock, mapped descriptors
 */
#ifndef COLO_AGENT_UTIL_H
#define COLO_AGENT_UTIL_H

#include <stdint.h>

#include "agent_proto.h"

#define PAGE AGENT_PAGE_SIZE

/* One line for the operator. Whoever fails first writes it; it travels in the reply. */
struct errtext {
	char text[AGENT_ERROR_TEXT];
};

/* Format @err and return @code (a negative errno), so that callers can `return agent_fail(...)`. */
int agent_fail(struct errtext *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* CLOCK_MONOTONIC in nanoseconds */
int64_t now_ns(void);

#endif
