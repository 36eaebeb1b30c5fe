/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_clock.c - setting clocks forward in saved device state
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "clock.h"

#define TICKS 1000
#define CLOCK 5000

/* as QEMU 7.2 writes it, file header and footer included; a second section follows */
static const uint8_t sample[] = {
	'Q', 'E', 'V', 'M', 0, 0, 0, 3,
	4, 0, 0, 0, 0, 5, 't', 'i', 'm', 'e', 'r', 0, 0, 0, 0, 0, 0, 0, 2,
	0, 0, 0, 0, 0, 0, TICKS >> 8, TICKS & 0xff,
	0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 0, 0, CLOCK >> 8, CLOCK & 0xff,
	0x7e, 0, 0, 0, 0,
	4, 0, 0, 0, 1, 3, 'c', 'p', 'u', 0, 0, 0, 0, 0, 0, 0, 2, 42,
	0x7e, 0, 0, 0, 1,
	0,
};

#define TICKS_AT 27
#define CLOCK_AT 43

static uint64_t be64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static void test_patch(void **state)
{
	uint8_t s[sizeof(sample)];
	int64_t clock;

	(void)state;
	memcpy(s, sample, sizeof(s));
	assert_int_equal(clock_patch(s, sizeof(s), 7, 21, &clock), 0);
	assert_int_equal(clock, CLOCK + 7);
	assert_int_equal(be64(s + CLOCK_AT), CLOCK + 7);
	assert_int_equal(be64(s + TICKS_AT), TICKS + 21);
	memcpy(s + CLOCK_AT, sample + CLOCK_AT, 8);
	memcpy(s + TICKS_AT, sample + TICKS_AT, 8);
	assert_memory_equal(s, sample, sizeof(s)); /* nothing else was touched */
}

static void test_absent(void **state)
{
	uint8_t s[sizeof(sample)];
	int64_t clock;

	(void)state;
	memcpy(s, sample, sizeof(s));
	s[14] = 'T';
	assert_int_equal(clock_patch(s, sizeof(s), 7, 21, &clock), -ENOENT);
	memcpy(s, sample, sizeof(s));
	s[26] = 3; /* another version: another layout, perhaps */
	assert_int_equal(clock_patch(s, sizeof(s), 7, 21, &clock), -ENOENT);
}

static void test_cut_off(void **state)
{
	int64_t clock;

	(void)state;
	for (size_t n = 0; n < CLOCK_AT + 8; n++) {
		uint8_t *s = malloc(n + 1); /* so that a checker sees a byte too far */

		memcpy(s, sample, n);
		assert_int_equal(clock_patch(s, n, 7, 21, &clock), -ENOENT);
		free(s);
	}
}

static void test_overflow(void **state)
{
	uint8_t s[sizeof(sample)];
	int64_t clock;

	(void)state;
	memcpy(s, sample, sizeof(s));
	memset(s + CLOCK_AT, 0xff, 8);
	s[CLOCK_AT] = 0x7f;
	assert_int_equal(clock_patch(s, sizeof(s), 1, 1, &clock), -EOVERFLOW);
}

static void test_section(void **state)
{
	uint8_t out[CLOCK_SECTION_MAX], s[sizeof(sample)];
	int64_t clock;
	int n = clock_section(sample, sizeof(sample), out);

	(void)state;
	assert_int_equal(n, 43 + 5 + 1); /* section, footer, end */
	assert_memory_equal(out, sample + 8, n - 1);
	assert_int_equal(out[n - 1], 0);
	assert_int_equal(clock_patch(out, n, 1, 1, &clock), 0);
	/* something unknown inside the section: a subsection, say */
	memcpy(s, sample, sizeof(s));
	s[51] = 5;
	assert_int_equal(clock_section(s, sizeof(s), out), -ENOENT);
	/* without footer */
	memcpy(s, sample, sizeof(s));
	memmove(s + 51, s + 56, sizeof(s) - 56);
	assert_int_equal(clock_section(s, sizeof(s) - 5, out), 43 + 1);
	/* the end is missing */
	assert_int_equal(clock_section(sample, 56, out), -ENOENT);
}

static void test_rate(void **state)
{
	const struct timespec wait = { .tv_nsec = 60000000 };
	int64_t second;

	(void)state;
	clock_start();
	nanosleep(&wait, NULL);
	second = clock_ticks(INT64_C(1000000000));
#ifdef __x86_64__
	uint64_t t = __builtin_ia32_rdtsc();

	nanosleep(&wait, NULL);
	t = __builtin_ia32_rdtsc() - t;
	/* 60 ms or somewhat more have passed */
	assert_true((int64_t)t > second / 1000 * 59);
	assert_true(clock_ticks(2000) / 2 - clock_ticks(1000) <= 1);
#else
	assert_int_equal(second, 0);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patch), cmocka_unit_test(test_absent),
		cmocka_unit_test(test_cut_off), cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_section), cmocka_unit_test(test_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
