/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * daemon_stub.h - what the daemon's parsers call, for fuzzing one file of the daemon at a time
 *
 * Each stub reads all the bytes that it is given, so that a sanitizer sees what is beyond.
 */
#ifndef COLO_TESTS_DAEMON_STUB_H
#define COLO_TESTS_DAEMON_STUB_H

#include "daemon/daemon.h"

#define CHECK(cond) do { if (!(cond)) abort(); } while (0)

/* a daemon without parts: configuration, core state, no descriptors */
struct daemon *stub_daemon(bool primary);
void stub_touch(const void *p, size_t n);
extern unsigned stub_events;
extern enum core_event_type stub_last_event;

#endif
