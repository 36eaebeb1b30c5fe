/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_announce.c - the guest's addresses are learnt from its own frames, and announced byte by byte as
 * RFC 903, RFC 5227 and RFC 4861 say
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
static uint8_t sent[80][128]; /* without their vnet header */
static size_t lens[80];
static unsigned int nsent;
static uint64_t now;

static int setup(void **state)
{
	announce_init(&a, mac);
	nsent = 0;
	now = 1000;
	return 0;
}

static void on_send(void *arg, const uint8_t *p, size_t len)
{
	static const uint8_t plain[VNET_HLEN];

	assert_ptr_equal(arg, &a);
	assert_in_range(len, VNET_HLEN + 60, VNET_HLEN + 128);
	assert_memory_equal(p, plain, VNET_HLEN);
	assert_true(nsent < 80);
	lens[nsent] = len - VNET_HLEN;
	memcpy(sent[nsent++], p + VNET_HLEN, len - VNET_HLEN);
}

static uint8_t frame[VNET_HLEN + 128], *const f = frame + VNET_HLEN;

/* returns where the payload begins */
static uint8_t *frame_of(const uint8_t from[6], unsigned int ntags, uint16_t type)
{
	uint8_t *p = f + 12;

	memset(f, 0, 128);
	memset(f, 0xff, 6);
	memcpy(f + 6, from, 6);
	for (unsigned int i = 0; i < ntags; i++, p += 4)
		memcpy(p, i + 1 < ntags ? "\x88\xa8\x60\x05" : "\x81\0\xa0\x07", 4);
	p[0] = type >> 8;
	p[1] = type;
	return p + 2;
}

static void learn_len(size_t len)
{
	announce_learn(&a, frame, VNET_HLEN + len, now);
}

static void learn_ipv4(const uint8_t from[6], uint8_t last, uint8_t ttl)
{
	uint8_t *ip = frame_of(from, 0, 0x0800);

	memcpy(ip, "\x45\0\0\x14", 4);
	ip[8] = ttl;
	ip[9] = 99;
	memcpy(ip + 12, (uint8_t[]){ 10, 0, 0, last }, 4);
	learn_len(60);
}

static void learn_arp(unsigned int tags, uint8_t last)
{
	uint8_t *p = frame_of(mac, tags, 0x0806);

	memcpy(p, "\0\1\x08\0\6\4\0\1", 8);
	memcpy(p + 14, (uint8_t[]){ 10, 0, 0, last }, 4);
	learn_len(60);
}

static const uint8_t link_local[16] = { 0xfe, 0x80, [8] = 0x50, [15] = 3 };
static const uint8_t global[16] = { 0x20, 1, 0xd, 0xb8, [15] = 9 };

static void learn_ipv6(unsigned int tags, const uint8_t src[16], uint8_t hops)
{
	uint8_t *ip = frame_of(mac, tags, 0x86dd);

	ip[0] = 0x60;
	ip[6] = 59;
	ip[7] = hops;
	memcpy(ip + 8, src, 16);
	learn_len(100);
}

static void learn_nd(uint8_t type, const uint8_t src[16], const uint8_t target[16], uint8_t flags)
{
	uint8_t *ip = frame_of(mac, 0, 0x86dd);

	memcpy(ip, "\x60\0\0\0\0\x18\x3a\xff", 8);
	memcpy(ip + 8, src, 16);
	ip[40] = type;
	ip[44] = flags;
	memcpy(ip + 48, target, 16);
	learn_len(14 + 40 + 24);
}

static void announce(void)
{
	nsent = 0;
	announce_send(&a, on_send, &a);
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
	learn_arp(0, 9);
	announce();
	assert_int_equal(nsent, 2);
	assert_memory_equal(sent[1], arp, sizeof(arp));
}

static void test_address_from_ipv4_once(void **state)
{
	learn_ipv4(mac, 7, 64);
	learn_ipv4(mac, 7, 64);
	learn_ipv4(mac, 8, 128);
	assert_int_equal(a.n, 2);
	announce();
	assert_int_equal(nsent, 3);
	assert_int_equal(sent[1][31], 7);
	assert_int_equal(sent[2][31], 8);
}

static void test_neighbour_advertisement(void **state)
{
	static const uint8_t na[] = {
		0x33, 0x33, 0, 0, 0, 1, 0x52, 0x54, 0, 1, 2, 3, 0x86, 0xdd,
		0x60, 0, 0, 0, 0, 32, 58, 255, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 3,
		0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
		136, 0, 0x65, 0x3f, 0x20, 0, 0, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 3,
		2, 1, 0x52, 0x54, 0, 1, 2, 3,
	};
	learn_ipv6(0, link_local, 255);
	learn_ipv6(0, global, 64);
	announce();
	assert_int_equal(nsent, 3);
	assert_int_equal(lens[1], sizeof(na));
	assert_memory_equal(sent[1], na, sizeof(na));
	assert_memory_equal(sent[2] + 22, global, 16);
	assert_memory_equal(sent[2] + 62, global, 16);
}

static void test_addresses_of_neighbour_discovery(void **state)
{
	learn_nd(135, link_local, global, 0); /* asks for another's */
	assert_int_equal(a.n, 1);
	learn_nd(136, link_local, global, 0x60);
	assert_int_equal(a.n, 2);
	assert_false(a.router);
	learn_nd(136, link_local, global, 0xe0);
	announce();
	assert_int_equal(nsent, 3);
	assert_int_equal(sent[2][58], 0xa0); /* or it would be thrown out as a router */
}

static void test_vlans(void **state)
{
	static const uint8_t one[] = { 0x81, 0, 0, 7 }, two[] = { 0x88, 0xa8, 0, 5, 0x81, 0, 0, 7 };

	learn_arp(1, 9);
	learn_arp(2, 9);
	learn_ipv6(2, global, 64);
	announce();
	assert_int_equal(nsent, 5); /* no frame without a tag: the guest sends none */
	assert_memory_equal(sent[0] + 12, one, 4);
	assert_memory_equal(sent[0] + 16, "\x80\x35\0\1", 4);
	assert_memory_equal(sent[1] + 12, one, 4);
	assert_memory_equal(sent[1] + 16, "\x08\x06\0\1", 4);
	assert_memory_equal(sent[2] + 12, two, 8);
	assert_memory_equal(sent[2] + 20, "\x80\x35\0\1", 4);
	assert_memory_equal(sent[3] + 20, "\x08\x06\0\1", 4);
	assert_memory_equal(sent[4] + 12, two, 8);
	assert_memory_equal(sent[4] + 20, "\x86\xdd\x60", 3);
}

static void test_mac_seen_in_a_vlan(void **state)
{
	frame_of(mac, 1, 0x88b5);
	learn_len(60);
	learn_ipv4(mac, 7, 64);
	announce();
	assert_int_equal(nsent, 3);
	assert_memory_equal(sent[0] + 12, "\x81\0\0\7\x80\x35", 6);
	assert_memory_equal(sent[1] + 12, "\x80\x35", 2);
}

static unsigned int addresses(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < a.n; i++)
		n += a.address[i].family != 0;
	return n;
}

static void test_what_is_not_the_guests_own(void **state)
{
	static const uint8_t other[6] = { 0x52, 0x54, 0, 9, 9, 9 }, none[16], group[16] = { 0xff, 2 };

	learn_ipv4(other, 7, 64); /* of another guest */
	assert_int_equal(a.n, 0);
	learn_ipv4(mac, 7, 63);   /* forwarded */
	learn_ipv6(0, global, 63);
	assert_int_equal(addresses(), 0);
	learn_len(41);            /* too short to hold an address */
	announce_learn(&a, NULL, 0, now);
	frame_of(mac, 0, 0x0800)[8] = 64;
	learn_len(60);            /* no IP header */
	learn_nd(135, none, global, 0); /* is it free? */
	learn_ipv6(0, group, 64);
	learn_ipv6(0, none, 64);
	assert_int_equal(addresses(), 0);
	announce();
	assert_int_equal(nsent, 1);
}

/* a probe asks from no address, and DHCP too */
static void test_nobody(void **state)
{
	uint8_t *p = frame_of(mac, 0, 0x0806);

	memcpy(p, "\0\1\x08\0\6\4\0\1", 8);
	learn_len(60);
	p = frame_of(mac, 0, 0x0800);
	memcpy(p, "\x45\0\0\x14\0\0\0\0\x40\x11", 10);
	learn_len(60);
	assert_int_equal(addresses(), 0);
}

static void test_bound(void **state)
{
	unsigned int i;

	for (i = 1; i < 100; i++, now++)
		learn_ipv4(mac, i, 64);
	assert_int_equal(a.n, ANNOUNCE_ADDRESSES);
	announce();
	assert_int_equal(nsent, 1 + ANNOUNCE_ADDRESSES);
	for (i = 1; i < nsent; i++)
		assert_true(sent[i][31] >= 100 - ANNOUNCE_ADDRESSES); /* the latest */
}

static void test_stale_address(void **state)
{
	learn_ipv4(mac, 7, 64);
	now += 600000000;
	learn_ipv4(mac, 8, 64);
	announce();
	assert_int_equal(nsent, 3);
	now++;
	learn_ipv4(mac, 8, 64);
	announce();
	assert_int_equal(nsent, 2);
	assert_int_equal(sent[1][31], 8);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_mac_alone, setup),
		cmocka_unit_test_setup(test_address_from_arp, setup),
		cmocka_unit_test_setup(test_address_from_ipv4_once, setup),
		cmocka_unit_test_setup(test_neighbour_advertisement, setup),
		cmocka_unit_test_setup(test_addresses_of_neighbour_discovery, setup),
		cmocka_unit_test_setup(test_vlans, setup),
		cmocka_unit_test_setup(test_mac_seen_in_a_vlan, setup),
		cmocka_unit_test_setup(test_what_is_not_the_guests_own, setup),
		cmocka_unit_test_setup(test_nobody, setup),
		cmocka_unit_test_setup(test_bound, setup),
		cmocka_unit_test_setup(test_stale_address, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
