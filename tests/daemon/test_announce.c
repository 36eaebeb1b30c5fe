/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_announce.c - the guest's addresses are learnt from its own frames, and announced byte by byte as
 * RFC 903 and RFC 5227 say
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "daemon/announce.h"
#include "net/net.h"

static const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };
static struct announce a;
static uint8_t sent[16][60]; /* without their vnet header */
static unsigned int nsent;

static int setup(void **state)
{
	announce_init(&a, mac);
	nsent = 0;
	return 0;
}

static void on_send(void *arg, const uint8_t *p, size_t len)
{
	static const uint8_t plain[VNET_HLEN];

	assert_ptr_equal(arg, &a);
	assert_int_equal(len, VNET_HLEN + 60);
	assert_memory_equal(p, plain, VNET_HLEN);
	assert_true(nsent < 16);
	memcpy(sent[nsent++], p + VNET_HLEN, len - VNET_HLEN);
}

static uint8_t frame[VNET_HLEN + 60], *const f = frame + VNET_HLEN;

static void frame_of(const uint8_t from[6], uint16_t type)
{
	memset(f, 0, 60);
	memset(f, 0xff, 6);
	memcpy(f + 6, from, 6);
	f[12] = type >> 8;
	f[13] = type;
}

static void learn_ipv4(const uint8_t from[6], uint8_t last, size_t len)
{
	frame_of(from, 0x0800);
	memcpy(f + 14 + 12, (uint8_t[]){ 10, 0, 0, last }, 4);
	announce_learn(&a, frame, VNET_HLEN + len);
}

static void test_mac_alone(void **state)
{
	static const uint8_t rarp[] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1, 2, 3, 0x80, 0x35,
		0, 1, 8, 0, 6, 4, 0, 3, 0x52, 0x54, 0, 1, 2, 3, 0, 0, 0, 0, 0x52, 0x54, 0, 1, 2, 3, 0, 0, 0, 0,
	};

	announce_send(&a, on_send, &a);
	assert_int_equal(nsent, 1);
	assert_memory_equal(sent[0], rarp, sizeof(rarp));
}

static void test_address_from_arp(void **state)
{
	static const uint8_t arp[] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1, 2, 3, 0x08, 0x06,
		0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 1, 2, 3, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0, 0, 9,
	};
	frame_of(mac, 0x0806);
	memcpy(f + 28, (uint8_t[]){ 10, 0, 0, 9 }, 4);
	announce_learn(&a, frame, sizeof(frame));
	announce_send(&a, on_send, &a);
	assert_int_equal(nsent, 2);
	assert_memory_equal(sent[1], arp, sizeof(arp));
}

static void test_address_from_ipv4_once(void **state)
{
	learn_ipv4(mac, 7, 60);
	learn_ipv4(mac, 7, 60);
	learn_ipv4(mac, 8, 60);
	assert_int_equal(a.n, 2);
}

static void test_what_is_not_the_guests_own(void **state)
{
	static const uint8_t other[6] = { 0x52, 0x54, 0, 9, 9, 9 };
	learn_ipv4(other, 7, 60);  /* of another guest */
	learn_ipv4(mac, 7, 41);    /* too short to hold an address */
	announce_learn(&a, NULL, 0);
	frame_of(mac, 0x0800);
	announce_learn(&a, frame, VNET_HLEN + 60); /* 0.0.0.0: asks for one by DHCP */
	frame_of(mac, 0x86dd);
	memset(f + 14, 1, 46);
	announce_learn(&a, frame, VNET_HLEN + 60); /* IPv6 */
	assert_int_equal(a.n, 0);
}

static void test_bound(void **state)
{
	unsigned int i;

	for (i = 1; i < 100; i++)
		learn_ipv4(mac, i, 60);
	assert_int_equal(a.n, ANNOUNCE_ADDRESSES);
	announce_send(&a, on_send, &a);
	assert_int_equal(nsent, 1 + ANNOUNCE_ADDRESSES);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_mac_alone, setup),
		cmocka_unit_test_setup(test_address_from_arp, setup),
		cmocka_unit_test_setup(test_address_from_ipv4_once, setup),
		cmocka_unit_test_setup(test_what_is_not_the_guests_own, setup),
		cmocka_unit_test_setup(test_bound, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
