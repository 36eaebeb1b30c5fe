/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_buffer.c - the byte queue: order, bound, and its use with sockets
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/wire.h"

#define SIZE 64

static struct buffer b;

static int setup(void **state)
{
	return buffer_init(&b, SIZE);
}

static int teardown(void **state)
{
	buffer_free(&b);
	return 0;
}

static void test_keeps_order(void **state)
{
	assert_true(buffer_put(&b, "abc", 3));
	assert_true(buffer_put(&b, "de", 2));
	assert_int_equal(buffer_len(&b), 5);
	assert_memory_equal(buffer_peek(&b), "abcde", 5);
	buffer_skip(&b, 2);
	assert_memory_equal(buffer_peek(&b), "cde", 3);
	buffer_clear(&b);
	assert_int_equal(buffer_len(&b), 0);
}

static void test_full(void **state)
{
	uint8_t bytes[SIZE] = { 1, 2, 3 };

	assert_true(buffer_put(&b, bytes, SIZE));
	assert_int_equal(buffer_room(&b), 0);
	assert_false(buffer_put(&b, "x", 1));
	assert_null(buffer_reserve(&b, 1));
	assert_int_equal(buffer_len(&b), SIZE);
	assert_memory_equal(buffer_peek(&b), bytes, SIZE);
}

/* room at the front is used although there is none at the end */
static void test_moves_to_the_front(void **state)
{
	uint8_t bytes[SIZE] = { 0 };

	bytes[SIZE - 1] = 7;
	assert_true(buffer_put(&b, bytes, SIZE));
	buffer_skip(&b, SIZE - 1);
	assert_true(buffer_put(&b, bytes, SIZE - 1));
	assert_int_equal(buffer_len(&b), SIZE);
	assert_int_equal(buffer_peek(&b)[0], 7);
	assert_int_equal(buffer_peek(&b)[1], 0);
}

/* one that is never empty stays within a part of its storage */
static void test_does_not_wander(void **state)
{
	enum { BIG = 16 << 20, PIECE = 64 << 10, LEFT = 1000 };
	static uint8_t bytes[PIECE];
	struct buffer big;
	size_t i, furthest = 0;

	assert_int_equal(buffer_init(&big, BIG), 0);
	assert_true(buffer_put(&big, bytes, LEFT));
	for (i = 0; i < 1000; i++) {
		memset(bytes, (int)i, PIECE);
		assert_true(buffer_put(&big, bytes, PIECE));
		furthest = big.tail > furthest ? big.tail : furthest;
		buffer_skip(&big, PIECE);
		assert_int_equal(buffer_len(&big), LEFT);
		assert_int_equal(buffer_peek(&big)[0], (uint8_t)i);
		assert_int_equal(buffer_peek(&big)[LEFT - 1], (uint8_t)i);
	}
	assert_in_range(furthest, PIECE, 1 << 20);
	buffer_free(&big);
}

static void test_reserve_and_commit(void **state)
{
	uint8_t *p = buffer_reserve(&b, 10);

	assert_non_null(p);
	memcpy(p, "0123", 4);
	assert_int_equal(buffer_len(&b), 0);
	buffer_commit(&b, 4);
	assert_int_equal(buffer_len(&b), 4);
	assert_memory_equal(buffer_peek(&b), "0123", 4);
}

/* any sequence of puts and skips is that of an endless stream */
static void test_any_sequence(void **state)
{
	unsigned int seed = time(NULL), i, n, at_in = 0, at_out = 0;
	uint8_t piece[SIZE];

	print_message("seed %u\n", seed);
	srand(seed);
	for (i = 0; i < 100000; i++) {
		n = rand() % (SIZE + 8);
		if (rand() % 2) {
			for (unsigned int k = 0; k < n && k < SIZE; k++)
				piece[k] = (at_in + k) * 37;
			if (buffer_put(&b, piece, n <= SIZE ? n : SIZE))
				at_in += n <= SIZE ? n : SIZE;
			else
				assert_true((n <= SIZE ? n : SIZE) > SIZE - (at_in - at_out));
		} else {
			n = n > buffer_len(&b) ? buffer_len(&b) : n;
			for (unsigned int k = 0; k < n; k++)
				assert_int_equal(buffer_peek(&b)[k], (uint8_t)((at_out + k) * 37));
			buffer_skip(&b, n);
			at_out += n;
		}
		assert_int_equal(buffer_len(&b), at_in - at_out);
		assert_int_equal(buffer_len(&b) + buffer_room(&b), SIZE);
	}
}

static void test_socket(void **state)
{
	char got[16];
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(wire_set_nonblock(sv[0], 1), 0);
	assert_int_equal(buffer_read_from(&b, sv[0], 10), 0); /* nothing there */
	assert_int_equal(buffer_write_to(&b, sv[1]), 0);      /* nothing to say */
	assert_int_equal(write(sv[1], "0123456789", 10), 10);
	assert_int_equal(buffer_read_from(&b, sv[0], 4), 4);
	assert_int_equal(buffer_read_from(&b, sv[0], 100), 6);
	assert_memory_equal(buffer_peek(&b), "0123456789", 10);
	assert_int_equal(buffer_write_to(&b, sv[0]), 10);
	assert_int_equal(buffer_len(&b), 0);
	assert_int_equal(read(sv[1], got, sizeof(got)), 10);
	assert_memory_equal(got, "0123456789", 10);
	close(sv[1]);
	assert_int_equal(buffer_read_from(&b, sv[0], 4), -EPIPE);
	buffer_put(&b, "x", 1);
	assert_true(buffer_write_to(&b, sv[0]) < 0);
	close(sv[0]);
}

static void test_socket_that_takes_no_more(void **state)
{
	uint8_t bytes[SIZE] = { 0 };
	ssize_t n;
	int sv[2], i;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	for (i = 0; i < 1000000; i++) {
		buffer_put(&b, bytes, buffer_room(&b));
		n = buffer_write_to(&b, sv[0]);
		assert_true(n >= 0);
		if (!n)
			break;
	}
	assert_true(i < 1000000);
	assert_int_equal(buffer_len(&b), SIZE); /* kept for later */
	close(sv[0]);
	close(sv[1]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_keeps_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moves_to_the_front, setup, teardown),
		cmocka_unit_test(test_does_not_wander),
		cmocka_unit_test_setup_teardown(test_reserve_and_commit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_any_sequence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_socket, setup, teardown),
		cmocka_unit_test_setup_teardown(test_socket_that_takes_no_more, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
