/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_percentile.c - nearest-rank percentiles of the last samples
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/percentile.h"

static struct percentile p;

static int setup(void **state)
{
	memset(&p, 0, sizeof(p));
	return 0;
}

static void test_none(void **state)
{
	assert_int_equal(percentile_get(&p, 50), 0);
	assert_int_equal(percentile_get(&p, 100), 0);
}

static void test_one(void **state)
{
	percentile_add(&p, 42);
	assert_int_equal(percentile_get(&p, 0), 42);
	assert_int_equal(percentile_get(&p, 50), 42);
	assert_int_equal(percentile_get(&p, 100), 42);
}

static void test_hundred_in_any_order(void **state)
{
	unsigned int i;

	for (i = 0; i < 100; i++)
		percentile_add(&p, i * 37 % 100 + 1); /* each of 1..100 once */
	assert_int_equal(percentile_get(&p, 1), 1);
	assert_int_equal(percentile_get(&p, 50), 50);
	assert_int_equal(percentile_get(&p, 99), 99);
	assert_int_equal(percentile_get(&p, 100), 100);
	assert_int_equal(p.count, 100);
	assert_int_equal(p.max, 100);
}

static void test_old_ones_go(void **state)
{
	unsigned int i;

	percentile_add(&p, 1000000);
	for (i = 0; i < PERCENTILE_SAMPLES; i++)
		percentile_add(&p, 5);
	assert_int_equal(percentile_get(&p, 100), 5);
	assert_int_equal(p.max, 1000000); /* of all, ever */
	assert_int_equal(p.count, PERCENTILE_SAMPLES + 1);
}

static void test_too_large_is_cut(void **state)
{
	percentile_add(&p, 1ull << 40);
	assert_int_equal(percentile_get(&p, 50), UINT32_MAX);
	assert_int_equal(p.max, UINT32_MAX);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_none, setup),
		cmocka_unit_test_setup(test_one, setup),
		cmocka_unit_test_setup(test_hundred_in_any_order, setup),
		cmocka_unit_test_setup(test_old_ones_go, setup),
		cmocka_unit_test_setup(test_too_large_is_cut, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
