/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * failpoint.h - named steps at which a test makes a process fail
 *
 * FAILPOINT("name") stands at a step of a protocol. Without meson's option `failpoints` it is nothing. With it, a
 * process looks at each passing whether the file that the environment variable COLO_FAILPOINT names arms this step.
 * The file has one line:
 *
 *	NAME PASSING ACTION [ARGUMENT]
 *
 * PASSING is 1 for the next time the step is reached, 2 for the one after, and so on. ACTION:
 *
 *	kill	SIGKILL to itself
 *	stop	SIGSTOP to itself
 *	exit	_exit(1), which closes its sockets in an orderly way
 *	sleep	ARGUMENT ms, in this thread
 *	power	its network devices, named in ARGUMENT with commas, go down, then SIGSTOP: who watches the file kills
 *		the rest of the host
 *
 * The file is removed when the step fires, so it fires once, and whoever armed it sees that it has. All processes of a
 * host share the file. tests/campaign/points.py knows all names.
 *
 * if (!FAILPOINT_SKIP("name")) stands before something that must not be left out. "NAME 1 skip" leaves it out for as
 * long as the file is there, so that a test can show that this would be noticed (tests/matrix/negative.py).
 */
#ifndef COMMON_FAILPOINT_H
#define COMMON_FAILPOINT_H

#ifdef COLO_FAILPOINTS

#include <stdbool.h>

#define FAILPOINT(name) ((void)(failpoint_due(name) && (failpoint_fire(), 0)))
#define FAILPOINT_IF(condition, name) ((void)((condition) && failpoint_due(name) && (failpoint_fire(), 0)))
/* @first is done only where it fires: for a step "after sending", where sending is a queue's */
#define FAILPOINT_AFTER(first, name) ((void)(failpoint_due(name) && ((first), failpoint_fire(), 0)))
#define FAILPOINT_SKIP(name) failpoint_skip(name)

/* Is this the passing of @name that was armed? If so the file is gone, and failpoint_fire() follows. */
bool failpoint_due(const char *name);
void failpoint_fire(void);
bool failpoint_skip(const char *name);

#else

#define FAILPOINT(name) ((void)0)
#define FAILPOINT_IF(condition, name) ((void)0)
#define FAILPOINT_AFTER(first, name) ((void)0)
#define FAILPOINT_SKIP(name) 0

#endif
#endif
