/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_capture.c - the capture is a well-formed pcapng file, holds the newest, and can be read in pieces
 *
 * The blocks are parsed here by what the format says, not by the code that wrote them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/capture.h"

#define BYTES (256u << 10)

static struct capture capture;
static uint8_t file[4 * BYTES], frame[NET_FRAME_MAX];

static uint32_t u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

static uint16_t u16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return v;
}

/* the block at p: its type; its length is plausible and stands at both ends */
static uint32_t block(const uint8_t *p, size_t n, uint32_t *len)
{
	assert_true(n >= 12);
	*len = u32(p + 4);
	assert_true(*len >= 12 && *len <= n && *len % 4 == 0);
	assert_int_equal(u32(p + *len - 4), *len);
	return u32(p);
}

/* the value of an option among those from `at` to the block's end, or NULL; the list is well formed */
static const uint8_t *option(const uint8_t *p, uint32_t len, uint32_t at, uint16_t code, uint16_t *size)
{
	const uint8_t *found = NULL;

	for (;;) {
		assert_true(at + 4 <= len - 4);
		if (u16(p + at) == 0)
			break;
		assert_true(at + 4 + u16(p + at + 2) <= len - 4);
		if (u16(p + at) == code) {
			found = p + at + 4;
			*size = u16(p + at + 2);
		}
		at += 4 + ((u16(p + at + 2) + 3u) & ~3u);
	}
	assert_int_equal(u16(p + at + 2), 0);
	assert_int_equal(at + 4, len - 4); /* the end of the list is the end of the block */
	return found;
}

static void assert_text(const uint8_t *p, uint32_t len, uint32_t at, uint16_t code, const char *want)
{
	uint16_t size = 0;
	const uint8_t *v = option(p, len, at, code, &size);

	assert_non_null(v);
	assert_int_equal(size, strlen(want));
	assert_memory_equal(v, want, size);
}

static void test_section(void **state)
{
	uint8_t out[200];
	size_t n = pcapng_section(out, sizeof(out), "colo 1");
	uint32_t len;

	assert_int_equal(block(out, n, &len), 0x0a0d0d0a);
	assert_int_equal(len, n);
	assert_int_equal(u32(out + 8), 0x1a2b3c4d);
	assert_int_equal(u16(out + 12), 1);
	assert_int_equal(u16(out + 14), 0);
	assert_int_equal(u32(out + 16), 0xffffffff);
	assert_int_equal(u32(out + 20), 0xffffffff);
	assert_text(out, len, 24, 4, "colo 1");
	for (size_t i = 0; i < n; i++)
		assert_int_equal(pcapng_section(out, i, "colo 1"), 0);
}

static void test_interface(void **state)
{
	uint8_t out[200];
	size_t n = pcapng_interface(out, sizeof(out), "PVM", "what it said");
	uint16_t size = 0;
	uint32_t len;

	assert_int_equal(block(out, n, &len), 1);
	assert_int_equal(len, n);
	assert_int_equal(u16(out + 8), 1); /* Ethernet */
	assert_int_equal(u32(out + 12), 0);
	assert_text(out, len, 16, 2, "PVM");
	assert_text(out, len, 16, 3, "what it said");
	assert_int_equal(*option(out, len, 16, 9, &size), 6); /* microseconds */
	assert_int_equal(size, 1);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(pcapng_interface(out, i, "PVM", "what it said"), 0);
}

/* what packet `i` of these tests is */
static size_t length_of(uint64_t i)
{
	return 14 + i * 37 % 1500;
}

static void add(uint64_t i)
{
	char comment[80];

	memset(frame, (uint8_t)i, length_of(i));
	snprintf(comment, sizeof(comment), "packet %llu", (unsigned long long)i);
	capture_add(&capture, &(struct pcapng_packet){ .interface = i & 1, .time_us = i << 20, .comment = comment,
		.data = frame, .len = length_of(i) });
}

/* checks the packet block at p; which one it is */
static uint64_t check_packet(const uint8_t *p, size_t n, uint32_t *len)
{
	uint64_t i, time;
	char comment[80];
	uint32_t size;

	assert_int_equal(block(p, n, len), 6);
	time = (uint64_t)u32(p + 12) << 32 | u32(p + 16);
	i = time >> 20;
	size = (uint32_t)length_of(i);
	assert_int_equal(time, i << 20);
	assert_int_equal(u32(p + 8), i & 1);
	assert_int_equal(u32(p + 20), size);
	assert_int_equal(u32(p + 24), size);
	for (uint32_t k = 0; k < size; k++)
		assert_int_equal(p[28 + k], (uint8_t)i);
	snprintf(comment, sizeof(comment), "packet %llu", (unsigned long long)i);
	assert_text(p, *len, 28 + ((size + 3) & ~3u), 1, comment);
	return i;
}

static int setup(void **state)
{
	return capture_init(&capture, BYTES);
}

static int teardown(void **state)
{
	capture_free(&capture);
	return 0;
}

static void test_packets(void **state)
{
	uint64_t i, last = 0;
	size_t n, at = 0;
	uint32_t len;

	assert_int_equal(capture_read(&capture, 0, file, sizeof(file), &last), 0);
	for (i = 1; i <= 50; i++)
		add(i);
	n = capture_read(&capture, 0, file, sizeof(file), &last);
	assert_int_equal(last, 50);
	for (i = 1; at < n; i++, at += len)
		assert_int_equal(check_packet(file + at, n - at, &len), i);
	assert_int_equal(i, 51);
	assert_int_equal(capture_read(&capture, 50, file, sizeof(file), &last), 0);
}

/* in pieces of any size, while packets go on coming: each once, in order */
static void test_pieces(void **state)
{
	uint64_t next = 1, seen = 0, last = 0, count = 0;
	uint32_t len;
	size_t n, at;

	srand(7);
	for (int round = 0; round < 2000; round++) {
		for (int k = rand() % 4; k; k--)
			add(next++);
		n = capture_read(&capture, seen, file, 2000 + rand() % 3000, &last);
		for (at = 0; at < n; at += len, count++) {
			uint64_t i = check_packet(file + at, n - at, &len);

			assert_true(i > seen && (count == 0 || i == seen + 1));
			seen = i;
		}
		assert_int_equal(seen, last);
	}
	assert_true(count > 1000);
}

static void test_the_newest_stay(void **state)
{
	uint64_t last = 0, first;
	uint32_t len;
	size_t n, at = 0;

	for (uint64_t i = 1; i <= 5000; i++)
		add(i);
	n = capture_read(&capture, 0, file, sizeof(file), &last);
	assert_int_equal(last, 5000);
	assert_true(n <= BYTES && n > BYTES / 2);
	first = check_packet(file, n, &len);
	for (; at < n; at += len)
		assert_int_equal(check_packet(file + at, n - at, &len), first++);
	assert_int_equal(first, 5001);
}

/* the largest frame and a comment that is too long */
static void test_large(void **state)
{
	static char comment[2000];
	uint16_t size = 0;
	uint64_t last;
	uint32_t len;
	size_t n;

	memset(comment, 'c', sizeof(comment) - 1);
	capture_add(&capture, &(struct pcapng_packet){ .time_us = 1, .comment = comment, .data = frame,
		.len = NET_FRAME_MAX - VNET_HLEN });
	n = capture_read(&capture, 0, file, sizeof(file), &last);
	assert_int_equal(block(file, n, &len), 6);
	assert_int_equal(len, n);
	assert_int_equal(u32(file + 20), NET_FRAME_MAX - VNET_HLEN);
	assert_non_null(option(file, len, 28 + ((u32(file + 20) + 3) & ~3u), 1, &size));
	assert_int_equal(size, CAPTURE_COMMENT_MAX);
	assert_int_equal(capture_read(&capture, 0, file, n - 1, &last), 0);
	assert_int_equal(last, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_section),
		cmocka_unit_test(test_interface),
		cmocka_unit_test_setup_teardown(test_packets, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_newest_stay, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
