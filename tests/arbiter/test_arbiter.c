/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_arbiter.c - records, base64, and the witness' lines
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "arbiter/arbiter.h"
#include "arbiter/base64.h"
#include "arbiter/witness_proto.h"

static void test_judge(void **state)
{
	const struct arbiter_record nobody = { 0 }, a7 = { 7, "a" };

	assert_int_equal(record_judge(&nobody, 1, "a"), ARBITER_OPEN);
	assert_int_equal(record_judge(&a7, 8, "b"), ARBITER_OPEN);
	assert_int_equal(record_judge(&a7, 7, "a"), ARBITER_WON);
	assert_int_equal(record_judge(&a7, 7, "b"), ARBITER_LOST);
	assert_int_equal(record_judge(&a7, 6, "a"), ARBITER_LOST);
	assert_int_equal(record_judge(&a7, 0, "a"), ARBITER_LOST); /* a generation nobody may claim */
}

static void test_record(void **state)
{
	const struct arbiter_record in = { 1234567890123456789, "host-1.example" };
	char text[RECORD_TEXT_MAX];
	struct arbiter_record out;
	size_t len = record_format(&in, "web", text), i;

	assert_int_equal(record_parse(text, len, "web", &out), 0);
	assert_int_equal(out.generation, in.generation);
	assert_string_equal(out.owner, in.owner);
	assert_true(record_parse(text, len, "web2", &out) < 0);
	for (i = 0; i < len - 1; i++) /* the newline counts for nothing */
		assert_true(record_parse(text, i, "web", &out) < 0);
	for (i = 0; i < len - 1; i++) { /* a bit that falls over */
		text[i] ^= 1;
		assert_true(record_parse(text, len, "web", &out) < 0);
		assert_int_equal(out.generation, 0);
		text[i] ^= 1;
	}
	len = record_format(&in, NULL, text);
	assert_int_equal(record_parse(text, len, NULL, &out), 0);
	assert_true(record_parse(text, len, "web", &out) < 0);
}

static void test_names(void **state)
{
	static const char *const bad[] = { "", "a b", "a/b", "a\n", "\xff", "0123456789012345678901234567890x" };
	unsigned int i;

	assert_true(record_is_name("web-1.example_2"));
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_false(record_is_name(bad[i]));
}

static void test_base64(void **state)
{
	static const char *const bad[] = { "A", "AA", "AAA", "A===", "====", "AA=A", "AA==AAAA", "A A=", "AAA\n", "=" };
	static const char *const text[] = { "", "f", "fo", "foo", "foob", "fooba", "foobar" };
	static const char *const want[] = { "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy" };
	char out[16];
	unsigned int i;

	for (i = 0; i < 7; i++) { /* RFC 4648, 10 */
		base64_encode(text[i], strlen(text[i]), out);
		assert_string_equal(out, want[i]);
		assert_int_equal(base64_decode(want[i], out, sizeof(out)), strlen(text[i]));
		assert_memory_equal(out, text[i], strlen(text[i]));
	}
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_true(base64_decode(bad[i], out, sizeof(out)) < 0);
	assert_int_equal(base64_decode("Zm9vYmFy", out, 6), 6);
	assert_true(base64_decode("Zm9vYmFy", out, 5) < 0);
}

static void test_requests(void **state)
{
	struct witness_request q;

	assert_true(witness_parse_request("colo-witness 1 read web", &q));
	assert_int_equal(q.op, ARBITER_READ);
	assert_string_equal(q.vm, "web");
	assert_true(witness_parse_request("colo-witness 1 claim web a 999999999999999999", &q));
	assert_int_equal(q.op, ARBITER_CLAIM);
	assert_string_equal(q.host, "a");
	assert_int_equal(q.generation, 999999999999999999);
	assert_false(witness_parse_request("colo-witness 1 claim web a 1000000000000000000", &q));
	assert_false(witness_parse_request("colo-witness 1 claim web a 5 6", &q));
	assert_false(witness_parse_request("colo-witness 1 won 5 a", &q));
}

static void test_answers(void **state)
{
	struct arbiter_record r;
	const char *text;
	char word[8];

	assert_true(witness_parse_answer("colo-witness 1 won 5 a", word, &r, &text));
	assert_string_equal(word, "won");
	assert_int_equal(r.generation, 5);
	assert_string_equal(r.owner, "a");
	assert_true(witness_parse_answer("colo-witness 1 none", word, &r, &text));
	assert_true(witness_parse_answer("colo-witness 1 refused one two three four five six seven", word, &r, &text));
	assert_string_equal(text, "one two three four five six seven");
	assert_false(witness_parse_answer("colo-witness 1 won 5", word, &r, &text));
	assert_false(witness_parse_answer("colo-witness 1 maybe 5 a", word, &r, &text));
	assert_false(witness_parse_answer("colo-witness 1 aaaaaaaaaaaaaaaaaaaaa", word, &r, &text));
	assert_false(witness_parse_answer("colo-witness 1", word, &r, &text));
}

static void test_addresses(void **state)
{
	static const char *const bad[] = { "", ":1", "::1", "[::1", "[]:1", "a:", "a:b", "a:1:2", "[::1]x", "[::1]:" };
	const char *port;
	char host[256];
	unsigned int i;

	assert_true(witness_split("host:17", host, &port));
	assert_string_equal(host, "host");
	assert_string_equal(port, "17");
	assert_true(witness_split("host", host, &port));
	assert_string_equal(port, WITNESS_PORT);
	assert_true(witness_split("[fd00::1]:17", host, &port));
	assert_string_equal(host, "fd00::1");
	assert_true(witness_split("[fd00::1]", host, &port));
	assert_string_equal(port, WITNESS_PORT);
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_false(witness_split(bad[i], host, &port));
	assert_true(witness_is_loopback("127.1.2.3") && witness_is_loopback("::1") && witness_is_loopback("localhost"));
	assert_false(witness_is_loopback("10.0.0.1") || witness_is_loopback("::") || witness_is_loopback("localhost.example"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_judge),	 cmocka_unit_test(test_record),	  cmocka_unit_test(test_names),
		cmocka_unit_test(test_base64),	 cmocka_unit_test(test_requests), cmocka_unit_test(test_answers),
		cmocka_unit_test(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
