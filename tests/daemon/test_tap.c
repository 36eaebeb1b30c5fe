/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tap.c - the VM's side of a NIC: what QEMU writes to its TAP comes out whole and in order, and the other
 * way round; nobody answers by himself; offloads are what the guest takes
 *
 * Needs root and /dev/net/tun (else 77).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "daemon/tap.h"
#include "net/net.h"

static struct tap_room room;
static struct vmtap t;
static uint8_t frame[NET_FRAME_MAX], got[NET_FRAME_MAX];
static size_t got_len;
static unsigned int ngot;

static int setup(void **state)
{
	(void)state;
	ngot = 0;
	memset(frame, 0, sizeof(frame));
	return vmtap_open(&t, &room, 0, true);
}

static int teardown(void **state)
{
	(void)state;
	vmtap_close(&t);
	return 0;
}

static void on_frame(void *arg, uint8_t *p, size_t len)
{
	assert_ptr_equal(arg, &t);
	assert_true(len <= sizeof(got));
	memcpy(got, p, len);
	got_len = len;
	ngot++;
}

/* an Ethernet frame with a body of n bytes; its length with vnet header */
static size_t make(uint16_t type, size_t n)
{
	uint8_t *p = frame + VNET_HLEN;

	memcpy(p, "\x52\x54\0\0\0\1\x52\x54\0\0\0\2", 12);
	p[12] = type >> 8;
	p[13] = type & 255;
	for (size_t i = 0; i < n; i++)
		p[14 + i] = (uint8_t)(i * 7);
	return VNET_HLEN + 14 + n;
}

/* TCP over IPv4 with n bytes of data, to be cut into segments of 1000 */
static size_t make_large(size_t n)
{
	size_t len = make(0x0800, 40 + n);
	struct virtio_net_hdr h = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = 54, .gso_size = 1000, .csum_start = 34, .csum_offset = 16 };
	uint8_t *ip = frame + VNET_HLEN + 14;

	memcpy(frame, &h, sizeof(h));
	memset(ip, 0, 40);
	ip[0] = 0x45;
	ip[2] = (40 + n) >> 8;
	ip[3] = (40 + n) & 255;
	ip[8] = 64;
	ip[9] = 6;
	ip[12] = ip[16] = 10;
	ip[15] = 1;
	ip[19] = 2;
	ip[32] = 0x50;
	ip[33] = 0x10;
	return len;
}

static void from_vm(size_t len)
{
	assert_int_equal(write(t.tap, frame, len), len);
	assert_int_equal(vmtap_receive(&t, on_frame, &t), 1);
	assert_int_equal(got_len, len);
	assert_memory_equal(got, frame, len);
}

static void test_from_vm(void **state)
{
	from_vm(make(0x0800, 46));
	from_vm(make(0x88b5, 1500));
	from_vm(make(0x0806, 46));
	assert_int_equal(vmtap_receive(&t, on_frame, &t), 0);
}

static void test_vlan_tag_is_kept(void **state)
{
	from_vm(make(0x8100, 60));
	from_vm(make(0x88a8, 60));
}

static void test_large_from_vm(void **state)
{
	from_vm(make_large(30000));
}

static void test_order(void **state)
{
	size_t len = make(0x0800, 46);

	for (unsigned int i = 0; i < 3 * TAP_BATCH; i++) {
		frame[len - 1] = (uint8_t)i;
		assert_int_equal(write(t.tap, frame, len), len);
	}
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(vmtap_receive(&t, on_frame, &t), TAP_BATCH);
		assert_int_equal(got[len - 1], (i + 1) * TAP_BATCH - 1);
	}
}

static void test_to_vm(void **state)
{
	size_t len = make(0x0800, 46);

	assert_int_equal(vmtap_send(&t, frame, len), 0);
	assert_int_equal(read(t.tap, got, sizeof(got)), len);
	assert_memory_equal(got, frame, len);
	assert_int_equal(vmtap_receive(&t, on_frame, &t), 0); /* it does not come back */
	assert_int_equal(vmtap_send(&t, frame, 4), -EINVAL);
}

static void test_full(void **state)
{
	size_t len = make(0x0800, 46);
	int i = 0;

	while (vmtap_send(&t, frame, len) == 0)
		assert_true(++i < 100000);
	assert_int_equal(vmtap_send(&t, frame, len), -ENOBUFS);
	while (i-- > 0)
		assert_int_equal(read(t.tap, got, sizeof(got)), len);
	assert_int_equal(vmtap_send(&t, frame, len), 0);
}

static void test_offloads(void **state)
{
	bool csum, tso;
	size_t len = make_large(3000);

	vmtap_offloads(&t, &csum, &tso);
	assert_false(csum || tso);
	assert_int_equal(vmtap_send(&t, frame, len), -ENOBUFS); /* not in pieces: they would not be counted */
	assert_int_equal(ioctl(t.tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4), 0);
	vmtap_offloads(&t, &csum, &tso);
	assert_true(csum && tso);
	assert_int_equal(vmtap_send(&t, frame, len), 0);
	assert_int_equal(read(t.tap, got, sizeof(got)), len);
	assert_memory_equal(got + VNET_HLEN, frame + VNET_HLEN, len - VNET_HLEN);
}

/* the kernel on our side says nothing to the VM by itself */
static void test_silence(void **state)
{
	size_t len = make(0x0806, 46);
	uint8_t *p = frame + VNET_HLEN;

	memset(p, 0xff, 6);
	memcpy(p + 14, "\0\1\x08\0\6\4\0\1\x52\x54\0\0\0\2\x0a\0\0\1\0\0\0\0\0\0\x7f\0\0\1", 28);
	from_vm(len); /* who has 127.0.0.1? */
	assert_int_equal(read(t.tap, got, sizeof(got)), -1);
	assert_int_equal(errno, EAGAIN);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_from_vm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vlan_tag_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_from_vm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_to_vm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_offloads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silence, setup, teardown),
	};

	if (geteuid() || access("/dev/net/tun", W_OK) < 0 || tap_room_open(&room) < 0)
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
