/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_hex.c - bytes survive being written as digits; what is not digits is refused
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "common/hex.h"

static void test_all_bytes(void **state)
{
	uint8_t in[256], out[256];
	char text[513];

	for (int i = 0; i < 256; i++)
		in[i] = (uint8_t)(255 - i);
	hex_encode(text, in, sizeof(in));
	assert_int_equal(strlen(text), 512);
	assert_memory_equal(text, "fffefdfc", 8);
	assert_int_equal(hex_decode(out, sizeof(out), text), 256);
	assert_memory_equal(in, out, 256);
	hex_encode(text, in, 0);
	assert_string_equal(text, "");
	assert_int_equal(hex_decode(out, 0, ""), 0);
}

static void test_refused(void **state)
{
	uint8_t out[4] = { 1, 2, 3, 4 };

	assert_int_equal(hex_decode(out, 4, "0"), -EINVAL);
	assert_int_equal(hex_decode(out, 4, "0g"), -EINVAL);
	assert_int_equal(hex_decode(out, 4, "FF"), -EINVAL);
	assert_int_equal(hex_decode(out, 1, "0000"), -EINVAL);
	assert_int_equal(hex_decode(out, 2, "0000"), 2);
	assert_int_equal(out[2], 3);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_bytes),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
