/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_dgram.c - the rule for every kind of frame that is not TCP, one by one (ARCHITECTURE.md, Network)
 */
#include "dgram_bed.h"
#include "net/frame.h"

/* --- UDP --- */

static uint8_t payload[NET_FRAME_MAX];

static void test_udp(void)
{
	begin();
	pvm_says("one");
	pvm_says("two");
	CHECK(left() == 0);
	svm_says("one");
	CHECK(left() == 1);
	svm_says("two");
	svm_says("three");
	CHECK(left() == 1);
	pvm_says("three");
	CHECK(left() == 1);
	pvm_says("");
	svm_says("");
	CHECK(left() == 1);
	finish();
}

static void test_udp_in_another_order(void)
{
	static const char *const words[] = { "a", "b", "c", "d", "e" };

	begin();
	for (int i = 0; i < 3; i++)
		request();
	for (int i = 0; i < 5; i++)
		pvm_says(words[i]);
	for (int i = 5; i-- > 0;) {
		svm_says(words[i]);
		CHECK(left() == 1);
	}
	for (int i = 0; i < 5; i++)
		svm_says(words[i]);
	for (int i = 5; i-- > 0;) {
		pvm_says(words[i]);
		CHECK(left() == 1);
	}
	CHECK(cm_next_tick(cm) == UINT64_MAX);
	finish();
}

static void test_udp_once_for_once(void)
{
	begin();
	svm_says("OK");
	pvm_says("OK");
	CHECK(left() == 1);
	pvm_says("OK"); /* answers another request, which the SVM did not answer yet */
	CHECK(left() == 0);
	svm_says("OK");
	CHECK(left() == 1);
	pvm_says("OK");
	pvm_says("OK");
	svm_says("OK");
	CHECK(left() == 1);
	svm_says("OK");
	CHECK(left() == 1);
	finish();
}

static void test_udp_bodies_differ(void)
{
	begin();
	pvm_says("four");
	svm_says("fOur");
	svm_says("fou");
	svm_says("fourx");
	CHECK(left() == 0);
	svm_says("four");
	CHECK(left() == 1);
	finish();
}

static void test_answer_to_one_request_differs(void)
{
	begin();
	request();
	pvm_says("four");
	CHECK(bed.wants == 0);
	svm_says("fOur");
	CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH && bed_new(&bed) == 0);
	svm_says("other");
	CHECK(stats().mismatches == 1);
	pvm_says("other"); /* a datagram that is alike need not wait */
	CHECK(bed_new(&bed) == 1);
	checkpoint();
	CHECK(bed_new(&bed) == 1);
	request();
	pvm_says("five");
	svm_says("five");
	CHECK(bed_new(&bed) == 1 && bed.wants == 1);
	request();
	svm_says("siX"); /* the SVM is first */
	pvm_says("six");
	CHECK(bed.wants == 2 && bed_new(&bed) == 0);
	finish();
}

/* what waits from before a request is not its answer */
static void test_answer_is_later_than_request(void)
{
	begin();
	svm_says("of a timer of its own");
	now += 1000;
	request();
	pvm_says("four");
	CHECK(bed.wants == 0);
	svm_says("four");
	CHECK(left() == 1);
	finish();
}

static void test_pipelined_requests_differ(void)
{
	begin();
	request();
	request();
	pvm_says("a");
	svm_says("b");
	CHECK(bed.wants == 0);
	CHECK(cm_tick(cm, now + 19999) == now + 20000 && bed.wants == 0);
	cm_tick(cm, now + 20000);
	CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH && stats().mismatches == 1);
	finish();
	begin();
	request();
	pvm_says("a");
	cm_tick(cm, now + 20000);
	CHECK(bed.wants == 1 && bed.cause == CM_MISSING);
	finish();
}

static void test_old_word_of_svm_does_not_vouch(void)
{
	begin();
	svm_says("OK");
	now += 1000001;
	svm_says("later");
	pvm_says("OK");
	CHECK(left() == 0);
	pvm_says("later");
	CHECK(left() == 1);
	finish();
}

static void test_svm_of_old_epoch_does_not_vouch(void)
{
	begin();
	svm_says("OK");
	cm_boundary(cm, ++epoch, now);
	pvm_says("OK");
	CHECK(left() == 0);
	cm_held(cm, epoch, now);
	CHECK(left() == 0);
	svm_says("OK");
	CHECK(left() == 1);
	finish();
}

/* what waits for a boundary is not found in the index of the next epoch */
static void test_held_before_boundary(void)
{
	begin();
	pvm_says("x");
	pvm_says("OK");
	cm_boundary(cm, ++epoch, now);
	pvm_says("y");
	pvm_says("z");
	svm_says("OK"); /* tells that the boundary is held */
	CHECK(left() == 2);
	svm_says("z");
	CHECK(left() == 1);
	pvm_says("OK");
	CHECK(left() == 1);
	finish();
}

static void test_modes(void)
{
	begin();
	pvm_says("a");
	pvm_says("b");
	cm_set_mode(cm, CM_HOLD, now);
	pvm_says("c");
	CHECK(left() == 0);
	cm_set_mode(cm, CM_COMPARE, now);
	pvm_says("d");
	pvm_says("e");
	svm_says("b");
	svm_says("e");
	CHECK(left() == 1);
	cm_set_mode(cm, CM_PASS, now);
	CHECK(left() == 4);
	pvm_says("f");
	CHECK(left() == 1);
	finish();
}

/* thousands outstanding, answered backwards: found by their hash */
static void test_many_outstanding(void)
{
	enum { N = 20000 };
	char text[32];

	begin();
	bed.on_release = NULL;
	for (int k = 0; k < 3; k++) {
		for (int i = 0; i < N / 10; i++) {
			snprintf(text, sizeof(text), "answer %d", i);
			k == 1 ? svm_says(text) : pvm_says(text);
		}
		CHECK(left() == 0);
		for (int i = N / 10; i-- > 0;) {
			snprintf(text, sizeof(text), "answer %d", i);
			k == 1 ? pvm_says(text) : svm_says(text);
		}
		CHECK(left() == N / 10 || k);
		bed_new(&bed);
		for (unsigned i = 0; i < bed.n; i++)
			free(bed.out[i].frame);
		bed.n = bed.taken = 0;
	}
	CHECK(stats().released == 3 * N / 10 && stats().held_packets == 0);
	bed_fini(&bed);
}

static void test_svm_ahead_is_bounded(void)
{
	struct cm_config cfg = { .max_held_bytes = 64 << 10 };
	char text[32];

	begin_with(&cfg);
	for (int i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text), "%d", i);
		svm_says(text);
	}
	CHECK(bed.wants == 1 && bed.cause == CM_FULL && stats().dropped > 0);
	finish();
}

static void test_bytes_behind_the_packet(void)
{
	struct ip_spec s = udp_spec("padded", false);
	size_t n;

	begin();
	n = build_ip(frame, &s);
	memset(frame + n, 0xaa, 60);
	give(true, VNET_HLEN + 60); /* padding of a small frame does not count */
	svm_says("padded");
	CHECK(left() == 1);
	n = build_ip(frame, &s);
	memset(frame + n, 0xaa, 60);
	give(true, n + 60);
	svm_says("padded");
	CHECK(left() == 0);
	n = build_ip(frame, &s);
	memset(frame + n, 0xaa, 60);
	give(false, n + 60);
	CHECK(left() == 1);
	finish();
}

static void test_udp_to_be_cut_elsewhere(void)
{
	struct ip_spec s = udp_spec("to be segmented", true);
	size_t n;

	begin();
	n = build_ip(frame, &s);
	frame[1] = 5; /* VIRTIO_NET_HDR_GSO_UDP_L4 */
	frame[4] = 5;
	give(true, n);
	frame[4] = 7;
	give(false, n);
	CHECK(left() == 0);
	frame[4] = 5;
	give(false, n);
	CHECK(left() == 1);
	give(false, n);
	frame[4] = 9;
	give(true, n);
	CHECK(left() == 0);
	frame[4] = 5;
	give(true, n);
	CHECK(left() == 1);
	finish();
}

/* what was matched does not count to what the SVM is ahead */
static void test_svm_ahead_and_caught_up(void)
{
	static char text[1200];

	begin();
	for (int i = 0; i < 8000; i++) {
		snprintf(text, sizeof(text), "%01190d", i);
		svm_says(text);
		pvm_says(text);
		CHECK(left() == 1);
		free(bed.out[0].frame);
		bed.n = bed.taken = 0;
	}
	CHECK(stats().dropped == 0);
	bed_fini(&bed);
}

/* --- VLANs, IPv6 --- */

/* with n headers in front; of the rest, `body` bytes are compared */
static void extended(unsigned n, uint8_t first_len, bool found, size_t body)
{
	static const uint8_t kinds[] = { 0, 60, 43, 60 };
	uint8_t buf[200] = { 0 }, *p = buf;
	struct ip_spec s = { .v6 = true, .proto = n ? kinds[0] : 17, .payload = buf };
	struct frame f;

	for (unsigned i = 0; i < n; i++, p += 8)
		p[0] = i + 1 < n ? kinds[(i + 1) % 4] : 17;
	buf[1] = n ? first_len : buf[1];
	s.len = 8 * n + put_udp(p, G, P, "text", 4, 0);
	CHECK(frame_parse(&f, frame, build_ip(frame, &s)) == (found ? FRAME_UDP : FRAME_IP));
	CHECK(f.body_len == body && (!found || f.sport == G));
	give_ip(true, s);
	CHECK(left() == 0);
	give_ip(false, s);
	CHECK(left() == 1);
}

static void test_ip6_extension_headers(void)
{
	begin();
	for (unsigned n = 0; n < 8; n++)
		extended(n, 0, true, 4);
	extended(8, 0, false, 8 * 8 + 8 + 4); /* too many to look behind */
	extended(1, 1, false, 4); /* reaches over the UDP header, which is none then */
	extended(1, 2, false, 8 + 8 + 4); /* beyond the end */
	extended(1, 255, false, 8 + 8 + 4);
	finish();
}

static void test_vlans_are_apart(void)
{
	struct ip_spec a = udp_spec("x", true), b = a, c = a, d = a;

	begin();
	a.tags = b.tags = 1;
	a.vid[0] = 7;
	b.vid[0] = 8;
	c.tags = d.tags = 2;
	c.vid[0] = 7;
	d.vid[0] = 8;
	c.vid[1] = d.vid[1] = 8;
	pvm_ip(a);
	svm_ip(b);
	CHECK(left() == 0);
	pvm_ip(c);
	CHECK(left() == 0);
	svm_ip(d);
	CHECK(left() == 0);
	svm_ip(c);
	CHECK(left() == 1);
	svm_ip(a);
	CHECK(left() == 1);
	a.vid[0] |= 3 << 13; /* priority */
	pvm_ip(a);
	a.vid[0] &= 0xfff;
	svm_ip(a);
	CHECK(left() == 1);
	finish();
}

static void test_three_tags(void)
{
	static const uint8_t body[] = "\x81\0\0\x07\x08\0 unknown to us, but not lost";
	struct ip_spec tags = { .tags = 2, .vid = { 3, 4 } };

	begin();
	give(true, build_raw(frame, NULL, &tags, 0x8100, body, sizeof(body)));
	CHECK(left() == 0);
	give(false, build_raw(frame, NULL, &tags, 0x8100, body, sizeof(body)));
	CHECK(left() == 1);
	finish();
}

/* --- ICMP --- */

static struct ip_spec icmp_spec(bool v6, uint8_t type, uint8_t code, uint32_t rest, const void *data,
	size_t n)
{
	return (struct ip_spec){ .v6 = v6, .proto = v6 ? 58 : 1, .payload = payload,
		.len = put_icmp(payload, type, code, rest, data, n) };
}

static void test_echo(void)
{
	begin();
	for (int v6 = 0; v6 < 2; v6++) {
		uint8_t type = v6 ? 129 : 0;

		pvm_ip(icmp_spec(v6, type, 0, 44 << 16 | 1, "ping", 4));
		svm_ip(icmp_spec(v6, type, 0, 45 << 16 | 1, "ping", 4));
		svm_ip(icmp_spec(v6, type, 0, 44 << 16 | 2, "ping", 4));
		svm_ip(icmp_spec(v6, type, 0, 44 << 16 | 1, "pong", 4));
		CHECK(left() == 0);
		svm_ip(icmp_spec(v6, type, 0, 44 << 16 | 1, "ping", 4));
		CHECK(left() == 1);
		pvm_ip(icmp_spec(v6, v6 ? 128 : 13, 0, 1, "x", 1));
		CHECK(left() == 0);
		svm_ip(icmp_spec(v6, v6 ? 128 : 13, 0, 1, "x", 1));
		CHECK(left() == 1);
	}
	finish();
}

/* a packet that the peer had sent to the guest, as an error quotes it */
static size_t quote(uint8_t *out, bool v6, bool of_peer, size_t data)
{
	uint8_t f[3000], dgram[2800] = { 0 };
	struct ip_spec s = { .v6 = v6, .to_guest = of_peer, .proto = 17, .payload = dgram, .len = data };
	size_t n = build_ip(f, &s) - VNET_HLEN - 14;

	memcpy(out, f + VNET_HLEN + 14, n);
	return n;
}

static struct ip_spec error_spec(bool v6, uint8_t type, bool of_peer, size_t data)
{
	static uint8_t q[3000];

	return icmp_spec(v6, type, 3, 0, q, quote(q, v6, of_peer, data));
}

static void test_icmp_errors_pass(void)
{
	static const uint8_t errors4[] = { 3, 4, 5, 11, 12 }, errors6[] = { 1, 2, 3, 4 };

	begin();
	for (unsigned i = 0; i < sizeof(errors4); i++)
		pvm_ip(error_spec(false, errors4[i], true, 8));
	for (unsigned i = 0; i < sizeof(errors6); i++)
		pvm_ip(error_spec(true, errors6[i], true, 8));
	CHECK(left() == 9);
	pvm_ip(error_spec(false, 3, true, 576 - 20 - 8 - 20));
	pvm_ip(error_spec(true, 1, true, 1280 - 40 - 8 - 40));
	CHECK(left() == 2);
	svm_ip(error_spec(false, 3, true, 8)); /* the PVM's is enough */
	CHECK(left() == 0 && stats().flows == 0);
	finish();
}

/* an application could put its words into something that only looks like one */
static void test_what_is_no_icmp_error(void)
{
	struct ip_spec s;

	begin();
	for (int v6 = 0; v6 < 2; v6++) {
		uint8_t type = v6 ? 1 : 3;

		pvm_ip(error_spec(v6, type, false, 8));   /* quotes what its receiver did not send */
		pvm_ip(error_spec(v6, type, true, v6 ? 1280 - 40 - 8 - 39 : 576 - 20 - 8 - 19)); /* too long */
		s = error_spec(v6, type, true, 8);
		s.len = 8 + 39 - (v6 ? 0 : 20); /* not even a header */
		pvm_ip(s);
		pvm_ip(icmp_spec(v6, type, 3, 0, "secretsecretsecretsecretsecretsecretsecret", 42));
		CHECK(left() == 0 && stats().held_packets == 4u * (unsigned)(v6 + 1));
	}
	svm_ip(error_spec(false, 3, false, 8));
	CHECK(left() == 1);
	finish();
}

/* --- neighbours, other protocols --- */

static void test_talk_of_neighbours_passes(void)
{
	static const uint8_t types[] = { 133, 134, 135, 136, 137, 130, 131, 132, 143 };
	uint8_t data[100] = { 0x16 };
	struct ip_spec igmp = { .proto = 2, .payload = data, .len = 8 };

	begin();
	give(true, build_arp_of(frame, false, 1, 9, 10));
	give(true, build_raw(frame, NULL, NULL, 0x8035, data, 28));
	pvm_ip(igmp);
	for (unsigned i = 0; i < sizeof(types); i++)
		give(true, build_nd(frame, false, types[i], 1, 2));
	CHECK(left() == 3 + sizeof(types));
	cm_set_mode(cm, CM_HOLD, now);
	give(true, build_arp_of(frame, false, 1, 9, 10));
	CHECK(left() == 1 && stats().held_packets == 0);
	finish();
}

static void test_what_bridges_keep_to_a_link_passes(void)
{
	static const uint8_t stp[6] = { 1, 0x80, 0xc2, 0, 0, 0 }, lldp[6] = { 1, 0x80, 0xc2, 0, 0, 14 };
	static const uint8_t gmrp[6] = { 1, 0x80, 0xc2, 0, 0, 0x10 }, bpdu[38] = { 0x42, 0x42, 3 };

	begin();
	give(true, build_raw(frame, stp, NULL, 38, bpdu, sizeof(bpdu)));
	give(true, build_raw(frame, lldp, NULL, 0x88cc, "lldp", 4));
	CHECK(left() == 2);
	give(true, build_raw(frame, gmrp, NULL, 38, bpdu, sizeof(bpdu)));
	CHECK(left() == 0);
	give(false, build_raw(frame, gmrp, NULL, 38, bpdu, sizeof(bpdu)));
	CHECK(left() == 1);
	finish();
}

static void test_other_ethertypes(void)
{
	static const uint8_t group[6] = { 1, 2, 3, 4, 5, 6 };

	begin();
	give(true, build_raw(frame, NULL, NULL, 0x88a2, "aoe", 3));
	give(false, build_raw(frame, group, NULL, 0x88a2, "aoe", 3));
	give(false, build_raw(frame, NULL, NULL, 0x88a3, "aoe", 3));
	give(false, build_raw(frame, NULL, NULL, 0x88a2, "Aoe", 3));
	CHECK(left() == 0);
	give(false, build_raw(frame, NULL, NULL, 0x88a2, "aoe", 3));
	CHECK(left() == 1);
	finish();
}

static void test_other_ip_protocols(void)
{
	static const uint8_t protos[] = { 132, 47, 50, 51, 89, 103, 112, 4, 41, 136, 253 };
	struct ip_spec s = { .payload = "whatever it is", .len = 14 }, t;

	begin();
	for (unsigned i = 0; i < 2 * sizeof(protos); i++) {
		s.v6 = i & 1;
		s.proto = protos[i / 2];
		pvm_ip(s);
		t = s;
		t.payload = "whatever it iz";
		svm_ip(t);
		CHECK(left() == 0);
		svm_ip(s);
		CHECK(left() == 1);
	}
	finish();
}

static void set16(size_t off, uint16_t v)
{
	frame[off] = (uint8_t)(v >> 8);
	frame[off + 1] = (uint8_t)v;
}

/* each breaks a header; what is broken is compared as far as it is understood, never lost */
static void test_malformed_ip(void)
{
	struct { bool v6; size_t off; uint16_t value; } const breaks[] = {
		{ false, 0, 0x4400 }, { false, 0, 0x5500 }, { false, 2, 19 }, { false, 2, 2000 },
		{ false, 20 + 4, 7 }, { false, 20 + 4, 2000 }, { false, 20 + 4, 9 },
		{ true, 0, 0x5000 }, { true, 4, 2000 }, { true, 6, 0x0040 }, { true, 40 + 4, 3 },
	};
	struct ip_spec s = udp_spec("a long enough text for the purpose, is it not?", false);
	size_t n;

	begin();
	for (unsigned i = 0; i < sizeof(breaks) / sizeof(*breaks); i++) {
		s.v6 = breaks[i].v6;
		s.id = 0;
		n = build_ip(frame, &s);
		set16(VNET_HLEN + 14 + breaks[i].off, breaks[i].value);
		give(true, n);
		frame[n - 1] ^= 1;
		give(false, n);
		CHECK(left() == 0);
		frame[n - 1] ^= 1;
		give(false, n);
		CHECK(left() == 1);
	}
	finish();
}

/* a TCP header that is broken is compared like an unknown protocol */
static void test_malformed_tcp(void)
{
	uint8_t tcp[20] = { 0, 80, 1, 2, [12] = 0x40, [19] = 9 };
	struct ip_spec s = { .proto = 6, .payload = tcp, .len = 20 };

	begin();
	pvm_ip(s);
	CHECK(left() == 0);
	svm_ip(s);
	CHECK(left() == 1);
	s.len = 19;
	pvm_ip(s);
	svm_ip(s);
	CHECK(left() == 1);
	finish();
}

static void test_multicast_and_dhcp(void)
{
	static const uint8_t all[6] = { 255, 255, 255, 255, 255, 255 };
	struct ip_spec s = { .proto = 17, .payload = payload };
	size_t n;

	begin();
	s.len = put_udp(payload, 68, 67, "xid 1", 5, 0);
	n = build_ip(frame, &s);
	memcpy(frame + VNET_HLEN, all, 6);
	memset(frame + VNET_HLEN + 14 + 16, 255, 4);
	give(true, n);
	frame[n - 1] = '2'; /* a number of its own: a checkpoint, when the time is over */
	give(false, n);
	CHECK(left() == 0);
	cm_tick(cm, now + 20000);
	CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH);
	checkpoint();
	CHECK(bed_new(&bed) == 1);
	give(true, n); /* the next VM is a copy and says the same */
	give(false, n);
	CHECK(bed_new(&bed) == 1 && bed.wants == 1);
	finish();
}

int main(void)
{
	test_udp();
	test_udp_in_another_order();
	test_udp_once_for_once();
	test_udp_bodies_differ();
	test_answer_to_one_request_differs();
	test_answer_is_later_than_request();
	test_pipelined_requests_differ();
	test_old_word_of_svm_does_not_vouch();
	test_svm_of_old_epoch_does_not_vouch();
	test_held_before_boundary();
	test_modes();
	test_many_outstanding();
	test_svm_ahead_is_bounded();
	test_bytes_behind_the_packet();
	test_udp_to_be_cut_elsewhere();
	test_svm_ahead_and_caught_up();
	test_ip6_extension_headers();
	test_vlans_are_apart();
	test_three_tags();
	test_echo();
	test_icmp_errors_pass();
	test_what_is_no_icmp_error();
	test_talk_of_neighbours_passes();
	test_what_bridges_keep_to_a_link_passes();
	test_other_ethertypes();
	test_other_ip_protocols();
	test_malformed_ip();
	test_malformed_tcp();
	test_multicast_and_dhcp();
	puts("ok");
	return 0;
}
