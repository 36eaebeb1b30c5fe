/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * clock.c - guest clocks
 *
 * A VM that is stopped has its clocks in two numbers: the virtual clock (ns, drives all timers) and
 * the offset of its time stamp counter against the host's. QEMU saves both in the section "timer",
 * the first one it registers. The SVM starts later than the PVM ran on; adding the difference here
 * lets both guests read the same time, so that they answer alike.
 *
 *   u8 4 (full section) | be32 section id | u8 length, "timer" | be32 instance | be32 version 2 |
 *   be64 cpu_ticks_offset | 8 bytes unused | be64 cpu_clock_offset
 *   [ u8 0x7e (footer) | be32 section id ]
 */
#include "clock.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "util.h"

#define SECTION_EOF 0
#define SECTION_FULL 4
#define SECTION_FOOTER 0x7e
#define FOOTER_LEN 5 /* and the section id */
#define CALIBRATE_NS 50000000 /* the least time the rate is measured over */

static const uint8_t after_id[] = {
	5, 't', 'i', 'm', 'e', 'r', 0, 0, 0, 0, 0, 0, 0, 2,
};

#define ID_OFFSET 5
#define TICKS_OFFSET (ID_OFFSET + sizeof(after_id))
#define CLOCK_OFFSET (TICKS_OFFSET + 16)
#define SECTION_LEN (CLOCK_OFFSET + 8)

_Static_assert(SECTION_LEN + FOOTER_LEN + 1 <= CLOCK_SECTION_MAX, "room for the section");

struct instant {
	int64_t ns;
	uint64_t ticks;
};

static struct instant start;

#ifdef __x86_64__
/* both clocks at the same moment: the closest of a few tries */
static struct instant instant_now(void)
{
	struct instant best = { 0, 0 };
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		uint64_t before = __builtin_ia32_rdtsc();
		int64_t ns = now_ns();
		uint64_t after = __builtin_ia32_rdtsc();

		if (after - before < least) {
			least = after - before;
			best = (struct instant){ ns, before + least / 2 };
		}
	}
	return best;
}
#else
static struct instant instant_now(void)
{
	return (struct instant){ now_ns(), 0 };
}
#endif

void clock_start(void)
{
	start = instant_now();
}

int64_t clock_ticks(int64_t ns)
{
	const struct timespec wait = { .tv_nsec = CALIBRATE_NS };
	struct instant now = instant_now();

	if (now.ns - start.ns < CALIBRATE_NS) {
		nanosleep(&wait, NULL);
		now = instant_now();
	}
	return (double)ns * (double)(now.ticks - start.ticks) / (double)(now.ns - start.ns);
}

static const uint8_t *find_timer(const uint8_t *state, size_t len)
{
	for (size_t i = 0; i + SECTION_LEN <= len; i++)
		if (state[i] == SECTION_FULL &&
		    !memcmp(state + i + ID_OFFSET, after_id, sizeof(after_id)))
			return state + i;
	return NULL;
}

static int add_be64(uint8_t *at, int64_t add, int64_t *result)
{
	uint64_t raw;

	memcpy(&raw, at, sizeof(raw));
	if (__builtin_add_overflow((int64_t)be64toh(raw), add, result))
		return -EOVERFLOW;
	raw = htobe64((uint64_t)*result);
	memcpy(at, &raw, sizeof(raw));
	return 0;
}

int clock_patch(uint8_t *state, size_t len, int64_t add_ns, int64_t add_ticks, int64_t *clock)
{
	const uint8_t *found = find_timer(state, len);
	uint8_t *timer;
	int64_t ticks;
	int ret;

	if (!found)
		return -ENOENT;
	timer = state + (found - state);
	ret = add_be64(timer + CLOCK_OFFSET, add_ns, clock);
	if (ret == 0)
		ret = add_be64(timer + TICKS_OFFSET, add_ticks, &ticks);
	return ret;
}

int clock_section(const uint8_t *state, size_t len, uint8_t out[CLOCK_SECTION_MAX])
{
	const uint8_t *timer = find_timer(state, len);
	size_t n = SECTION_LEN, left;

	if (!timer)
		return -ENOENT;
	left = len - (timer - state);
	if (left >= n + FOOTER_LEN && timer[n] == SECTION_FOOTER)
		n += FOOTER_LEN;
	/* what follows must be a section or the end, not a part of this one that is unknown here */
	if (left <= n || (timer[n] != SECTION_FULL && timer[n] != SECTION_EOF))
		return -ENOENT;
	memcpy(out, timer, n);
	out[n] = SECTION_EOF;
	return n + 1;
}
