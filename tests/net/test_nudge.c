/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_nudge.c - the ICMP messages that make clients send again (RFC 6069), byte by byte
 */
#include "dgram_frames.h"
#include "net/nudge.h"

static struct nudge *nudge;
static uint8_t frame[2000], sent[8][200];
static size_t lens[8];
static unsigned nsent;

static void on_send(void *arg, const uint8_t *f, size_t len)
{
	CHECK(arg == &nsent && nsent < 8 && len <= sizeof(sent[0]));
	memcpy(sent[nsent], f, len);
	lens[nsent++] = len;
}

static void saw(struct tcp_spec s, uint64_t now)
{
	nudge_saw(nudge, frame, build_tcp(frame, &s), now);
}

static unsigned send_since(uint64_t since)
{
	nsent = 0;
	nudge_send(nudge, since, on_send, &nsent);
	return nsent;
}

static void begin(void)
{
	nudge = nudge_new(100);
	CHECK(nudge);
}

static const struct tcp_spec conn = { .gport = 80, .pport = 0x1234, .peer = 5, .seq = 77, .ack = 0xa1b2c3d4,
	.flags = F_ACK };

static uint32_t sum16(const uint8_t *p, size_t n, uint32_t sum)
{
	for (size_t i = 0; i < n; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void test_ip4(void)
{
	static const uint8_t quoted[] = { 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 1, 0, 5, 10, 0, 0, 2,
		0x12, 0x34, 0, 80, 0xa1, 0xb2, 0xc3, 0xd4 };
	const uint8_t *ip = sent[0] + VNET_HLEN + 14, *icmp = ip + 20;
	uint8_t eth[14];

	begin();
	saw(conn, 1000);
	memcpy(eth, frame + VNET_HLEN, 14);
	CHECK(send_since(1001) == 0);
	CHECK(send_since(1000) == 1 && lens[0] == VNET_HLEN + 14 + 56);
	CHECK(memcmp(sent[0] + VNET_HLEN, eth, 14) == 0);
	CHECK(sum16(ip, 20, 0) == 0xffff && ip[3] == 56 && ip[9] == 1 && memcmp(ip + 12, "\x0a\0\0\2", 4) == 0 &&
	      memcmp(ip + 16, "\x0a\1\0\5", 4) == 0);
	CHECK(icmp[0] == 3 && icmp[1] == 1 && sum16(icmp, 36, 0) == 0xffff);
	CHECK(sum16(icmp + 8, 20, 0) == 0xffff);
	memset(sent[0] + VNET_HLEN + 14 + 28 + 10, 0, 2);
	CHECK(memcmp(icmp + 8, quoted, sizeof(quoted)) == 0);
	nudge_free(nudge);
}

static void test_ip6(void)
{
	static const uint8_t header[40] = { 0x60, [5] = 20, [6] = 6, [7] = 64, [8] = 0xfd, [23] = 7, [24] = 0xfd,
		[39] = 1 };
	struct tcp_spec s = conn;
	const uint8_t *ip = sent[0] + VNET_HLEN + 14, *icmp = ip + 40, *quoted = icmp + 8;

	begin();
	s.v6 = true;
	saw(s, 1000);
	CHECK(send_since(0) == 1 && lens[0] == VNET_HLEN + 14 + 40 + 8 + 48);
	CHECK(ip[0] == 0x60 && ip[5] == 56 && ip[6] == 58 && ip[23] == 1 && ip[39] == 7);
	CHECK(icmp[0] == 1 && icmp[1] == 0 && sum16(ip + 8, 32 + 56, 58 + 56) == 0xffff);
	CHECK(memcmp(quoted, header, sizeof(header)) == 0);
	CHECK(memcmp(quoted + 40, "\x12\x34\0\x50\xa1\xb2\xc3\xd4", 8) == 0);
	nudge_free(nudge);
}

static void test_vlan(void)
{
	struct tcp_spec s = conn;
	struct ip_spec two = { .v6 = true, .tags = 2, .vid = { 3, 4 }, .proto = 6 };
	uint8_t tcp[20] = { 0, 80, 0x12, 0x34, [11] = 9, [12] = 0x50, [13] = F_ACK };

	begin();
	s.vlan = true;
	saw(s, 1000);
	CHECK(send_since(0) == 1 && lens[0] == VNET_HLEN + 18 + 56);
	CHECK(memcmp(sent[0] + VNET_HLEN + 12, "\x81\0\0\7\x08\0\x45", 7) == 0);
	two.payload = tcp;
	two.len = 20;
	nudge_saw(nudge, frame, build_ip(frame, &two), 2000);
	CHECK(send_since(2000) == 1 && lens[0] == VNET_HLEN + 22 + 40 + 8 + 48);
	CHECK(memcmp(sent[0] + VNET_HLEN + 12, "\x88\xa8\0\3\x81\0\0\4\x86\xdd\x60", 11) == 0);
	CHECK(sent[0][lens[0] - 1] == 9);
	nudge_free(nudge);
}

static void test_which_connections(void)
{
	struct tcp_spec s = conn;

	begin();
	saw(s, 1000);
	s.ack++;
	saw(s, 2000);
	CHECK(send_since(2000) == 1 && sent[0][lens[0] - 1] == 0xd5); /* the latest word counts */
	CHECK(send_since(2001) == 0);
	s.flags = F_RST;
	saw(s, 3000);
	CHECK(send_since(0) == 0);
	s.flags = F_SYN | F_ACK;
	saw(s, 4000);
	CHECK(send_since(0) == 0);
	nudge_saw(nudge, frame, build_udp(frame, false, 1, 2, "x", 1, 3), 5000);
	nudge_saw(nudge, frame, 5, 5000);
	CHECK(send_since(0) == 0);
	nudge_free(nudge);
}

int main(void)
{
	test_ip4();
	test_ip6();
	test_vlan();
	test_which_connections();
	puts("ok");
	return 0;
}
