/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * clock.h - set the guest's clocks forward in saved device state
 */
#ifndef COLO_AGENT_CLOCK_H
#define COLO_AGENT_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Take the first of the two points in time the counter's rate is measured between. */
void clock_start(void);
/* @ns in ticks of the host's time stamp counter; 0 if the host has none we know. */
int64_t clock_ticks(int64_t ns);

/*
 * Find QEMU's "timer" section in @state and add to its offsets. Where QEMU's virtual clock will
 * stand after a load goes to *clock. -ENOENT: no such section, -EOVERFLOW: nonsense in it.
 */
int clock_patch(uint8_t *state, size_t len, int64_t add_ns, int64_t add_ticks, int64_t *clock);

#define CLOCK_SECTION_MAX 64

/*
 * Cut the "timer" section out of @state, as a stream that can be loaded by itself. Its length, or
 * -ENOENT if it is not there or has more in it than known.
 */
int clock_section(const uint8_t *state, size_t len, uint8_t out[CLOCK_SECTION_MAX]);

#endif
