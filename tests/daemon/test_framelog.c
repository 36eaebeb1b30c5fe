/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_framelog.c - the log of frames keeps the newest, in order, within its bound
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "daemon/framelog.h"

#define BYTES 4096

static struct framelog l;

struct seen {
	uint64_t first, last, count;
	size_t bytes;
};

static void look(void *arg, uint64_t number, uint64_t when_us, const uint8_t *frame, size_t len)
{
	struct seen *s = arg;
	size_t i;

	if (!s->count++)
		s->first = number;
	else
		assert_int_equal(number, s->last + 1);
	s->last = number;
	s->bytes += len;
	assert_int_equal(when_us, number * 10);
	for (i = 0; i < len; i++)
		assert_int_equal(frame[i], (uint8_t)number);
}

static void add(uint64_t number, size_t len)
{
	uint8_t frame[2 * BYTES];

	memset(frame, (uint8_t)number, len);
	framelog_add(&l, number, number * 10, frame, len);
}

static struct seen all(void)
{
	struct seen s = { 0 };

	framelog_each(&l, look, &s);
	return s;
}

static int setup(void **state)
{
	return framelog_init(&l, BYTES);
}

static int teardown(void **state)
{
	framelog_free(&l);
	return 0;
}

static void test_empty(void **state)
{
	assert_int_equal(all().count, 0);
}

static void test_keeps_order_and_content(void **state)
{
	add(1, 60);
	add(2, 0);
	add(3, 1500);
	assert_int_equal(all().count, 3);
	assert_int_equal(all().first, 1);
	assert_int_equal(all().bytes, 1560);
	framelog_clear(&l);
	assert_int_equal(all().count, 0);
}

static void test_the_oldest_go_first(void **state)
{
	uint64_t i;

	for (i = 1; i <= 10000; i++) {
		add(i, 40 + i * 7 % 1000);
		assert_int_equal(all().last, i);
		assert_true(all().bytes <= BYTES);
	}
	assert_true(all().count >= 2);
	assert_true(all().bytes > BYTES / 2);
}

/* sizes up to the log's own; the newest is always kept */
static void test_any_sizes(void **state)
{
	uint64_t i, n, kept = 0;

	for (i = 1, n = 1; i <= 20000; i++) {
		n = n * 6364136223846793005u + 1442695040888963407u;
		add(i, (n >> 33) % (n >> 60 ? 300 : BYTES - 23));
		assert_int_equal(all().last, i);
		kept += all().count;
	}
	assert_true(kept > 8 * i);
}

static void test_a_frame_that_never_fits(void **state)
{
	add(1, 100);
	add(2, BYTES + 1);
	assert_int_equal(all().count, 1); /* it costs nothing else its place */
	assert_int_equal(all().last, 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keeps_order_and_content, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_oldest_go_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_any_sizes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_frame_that_never_fits, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
