/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_dgram.c - the rule for every kind of frame that is not TCP, one by one (ARCHITECTURE.md, Network)
 */
#include "dgram_frames.h"
#include "net/frame.h"

static struct bed bed;
static struct cm *cm;
static uint64_t now, epoch;
static uint8_t frame[NET_FRAME_MAX], payload[NET_FRAME_MAX];

enum { G = 53, P = 5353 };

static void begin_with(const struct cm_config *cfg)
{
	bed_init(&bed, cfg);
	cm = bed.cm;
	now = 5000000;
	epoch = 1;
}

static void begin(void)
{
	begin_with(NULL);
}

static struct cm_stats stats(void)
{
	struct cm_stats st;

	cm_get_stats(cm, &st);
	return st;
}

static void checkpoint(void)
{
	cm_boundary(cm, ++epoch, now);
	cm_held(cm, epoch, now);
}

/* after a checkpoint nothing is left behind, nor lost */
static void end(void)
{
	checkpoint();
	CHECK(stats().released == bed.n && stats().held_packets == 0 && stats().held_bytes == 0);
	bed_fini(&bed);
}

static void give(bool from_pvm, size_t n)
{
	from_pvm ? cm_from_pvm(cm, frame, n, now) : cm_from_svm(cm, epoch, frame, n, now);
}

static void give_ip(bool from_pvm, struct ip_spec s)
{
	s.id = from_pvm ? 100 : 200;
	s.ttl = from_pvm ? 64 : 63;
	give(from_pvm, build_ip(frame, &s));
}

static void pvm_ip(struct ip_spec s)
{
	give_ip(true, s);
}

static void svm_ip(struct ip_spec s)
{
	give_ip(false, s);
}

static struct ip_spec udp_spec(const char *text, bool v6)
{
	return (struct ip_spec){ .v6 = v6, .proto = 17, .payload = payload,
		.len = put_udp(payload, G, P, text, strlen(text), 0) };
}

static void pvm(const char *text)
{
	pvm_ip(udp_spec(text, false));
}

static void svm(const char *text)
{
	svm_ip(udp_spec(text, false));
}

static void request(void)
{
	struct ip_spec s = { .to_guest = true, .proto = 17, .payload = payload,
		.len = put_udp(payload, P, G, "?", 1, 0) };

	cm_from_client(cm, frame, build_ip(frame, &s), now);
}

/* how many left at once, without a checkpoint wanted */
static unsigned left(void)
{
	CHECK(bed.wants == 0);
	return bed_new(&bed);
}

/* --- UDP --- */

static void test_udp(void)
{
	begin();
	pvm("one");
	pvm("two");
	CHECK(left() == 0);
	svm("one");
	CHECK(left() == 1);
	svm("two");
	svm("three");
	CHECK(left() == 1);
	pvm("three");
	CHECK(left() == 1);
	pvm("");
	svm("");
	CHECK(left() == 1);
	end();
}

static void test_udp_in_another_order(void)
{
	static const char *const words[] = { "a", "b", "c", "d", "e" };

	begin();
	for (int i = 0; i < 3; i++)
		request();
	for (int i = 0; i < 5; i++)
		pvm(words[i]);
	for (int i = 5; i-- > 0;) {
		svm(words[i]);
		CHECK(left() == 1);
	}
	for (int i = 0; i < 5; i++)
		svm(words[i]);
	for (int i = 5; i-- > 0;) {
		pvm(words[i]);
		CHECK(left() == 1);
	}
	CHECK(cm_next_tick(cm) == UINT64_MAX);
	end();
}

static void test_udp_once_for_once(void)
{
	begin();
	svm("OK");
	pvm("OK");
	CHECK(left() == 1);
	pvm("OK"); /* answers another request, which the SVM did not answer yet */
	CHECK(left() == 0);
	svm("OK");
	CHECK(left() == 1);
	pvm("OK");
	pvm("OK");
	svm("OK");
	CHECK(left() == 1);
	svm("OK");
	CHECK(left() == 1);
	end();
}

static void test_udp_bodies_differ(void)
{
	begin();
	pvm("four");
	svm("fOur");
	svm("fou");
	svm("fourx");
	CHECK(left() == 0);
	svm("four");
	CHECK(left() == 1);
	end();
}

static void test_answer_to_one_request_differs(void)
{
	begin();
	request();
	pvm("four");
	CHECK(bed.wants == 0);
	svm("fOur");
	CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH && bed_new(&bed) == 0);
	svm("other");
	CHECK(stats().mismatches == 1);
	pvm("other"); /* a datagram that is alike need not wait */
	CHECK(bed_new(&bed) == 1);
	checkpoint();
	CHECK(bed_new(&bed) == 1);
	request();
	pvm("five");
	svm("five");
	CHECK(bed_new(&bed) == 1 && bed.wants == 1);
	request();
	svm("siX"); /* the SVM is first */
	pvm("six");
	CHECK(bed.wants == 2 && bed_new(&bed) == 0);
	end();
}

/* what waits from before a request is not its answer */
static void test_answer_is_later_than_request(void)
{
	begin();
	svm("of a timer of its own");
	now += 1000;
	request();
	pvm("four");
	CHECK(bed.wants == 0);
	svm("four");
	CHECK(left() == 1);
	end();
}

static void test_pipelined_requests_differ(void)
{
	begin();
	request();
	request();
	pvm("a");
	svm("b");
	CHECK(bed.wants == 0);
	CHECK(cm_tick(cm, now + 19999) == now + 20000 && bed.wants == 0);
	cm_tick(cm, now + 20000);
	CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH && stats().mismatches == 1);
	end();
	begin();
	request();
	pvm("a");
	cm_tick(cm, now + 20000);
	CHECK(bed.wants == 1 && bed.cause == CM_MISSING);
	end();
}

static void test_old_word_of_svm_does_not_vouch(void)
{
	begin();
	svm("OK");
	now += 1000001;
	svm("later");
	pvm("OK");
	CHECK(left() == 0);
	pvm("later");
	CHECK(left() == 1);
	end();
}

static void test_svm_of_old_epoch_does_not_vouch(void)
{
	begin();
	svm("OK");
	cm_boundary(cm, ++epoch, now);
	pvm("OK");
	CHECK(left() == 0);
	cm_held(cm, epoch, now);
	CHECK(left() == 0);
	svm("OK");
	CHECK(left() == 1);
	end();
}

/* what waits for a boundary is not found in the index of the next epoch */
static void test_held_before_boundary(void)
{
	begin();
	pvm("x");
	pvm("OK");
	cm_boundary(cm, ++epoch, now);
	pvm("y");
	pvm("z");
	svm("OK"); /* tells that the boundary is held */
	CHECK(left() == 2);
	svm("z");
	CHECK(left() == 1);
	pvm("OK");
	CHECK(left() == 1);
	end();
}

static void test_modes(void)
{
	begin();
	pvm("a");
	pvm("b");
	cm_set_mode(cm, CM_HOLD, now);
	pvm("c");
	CHECK(left() == 0);
	cm_set_mode(cm, CM_COMPARE, now);
	pvm("d");
	pvm("e");
	svm("b");
	svm("e");
	CHECK(left() == 1);
	cm_set_mode(cm, CM_PASS, now);
	CHECK(left() == 4);
	pvm("f");
	CHECK(left() == 1);
	end();
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
			k == 1 ? svm(text) : pvm(text);
		}
		CHECK(left() == 0);
		for (int i = N / 10; i-- > 0;) {
			snprintf(text, sizeof(text), "answer %d", i);
			k == 1 ? pvm(text) : svm(text);
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
		svm(text);
	}
	CHECK(bed.wants == 1 && bed.cause == CM_FULL && stats().dropped > 0);
	end();
}

static void test_bytes_behind_the_packet(void)
{
	struct ip_spec s = udp_spec("padded", false);
	size_t n;

	begin();
	n = build_ip(frame, &s);
	memset(frame + n, 0xaa, 60);
	give(true, VNET_HLEN + 60); /* padding of a small frame does not count */
	svm("padded");
	CHECK(left() == 1);
	n = build_ip(frame, &s);
	memset(frame + n, 0xaa, 60);
	give(true, n + 60);
	svm("padded");
	CHECK(left() == 0);
	n = build_ip(frame, &s);
	memset(frame + n, 0xaa, 60);
	give(false, n + 60);
	CHECK(left() == 1);
	end();
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
	end();
}

/* --- VLANs, IPv6 --- */

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
	end();
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
	end();
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
	end();
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
	end();
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
	end();
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
	end();
}

static void test_what_bridges_keep_to_a_link_passes(void)
{
	static const uint8_t stp[6] = { 1, 0x80, 0xc2, 0, 0, 0 }, lldp[6] = { 1, 0x80, 0xc2, 0, 0, 14 };
	static const uint8_t gmrp[6] = { 1, 0x80, 0xc2, 0, 0, 0x20 }, bpdu[38] = { 0x42, 0x42, 3 };

	begin();
	give(true, build_raw(frame, stp, NULL, 38, bpdu, sizeof(bpdu)));
	give(true, build_raw(frame, lldp, NULL, 0x88cc, "lldp", 4));
	CHECK(left() == 2);
	give(true, build_raw(frame, gmrp, NULL, 38, bpdu, sizeof(bpdu)));
	CHECK(left() == 0);
	give(false, build_raw(frame, gmrp, NULL, 38, bpdu, sizeof(bpdu)));
	CHECK(left() == 1);
	end();
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
	end();
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
	end();
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
	end();
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
	end();
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
	end();
}

/* --- fragments --- */

static uint8_t big[65536];

static void whole_udp(const char *end, size_t data)
{
	for (size_t i = 0; i < data; i++)
		big[8 + i] = (uint8_t)(i * 7 + i / 256);
	memcpy(big + 8 + data - strlen(end), end, strlen(end));
	put_udp(big, G, P, big + 8, data, 0);
}

static void give_fragment(bool from_pvm, bool v6, uint32_t id, uint32_t from, uint32_t to, uint32_t len)
{
	struct ip_spec s = { .v6 = v6, .proto = 17, .id = id, .frag = true, .more = to < len,
		.offset = from, .payload = big + from, .len = to - from };

	give(from_pvm, build_ip(frame, &s));
}

/* in pieces of `cut` bytes */
static void give_fragments(bool from_pvm, bool v6, uint32_t id, uint32_t len, uint32_t cut)
{
	for (uint32_t at = 0; at < len; at += cut)
		give_fragment(from_pvm, v6, id, at, at + cut < len ? at + cut : len, len);
}

static void test_fragments(void)
{
	enum { N = 4000, LEN = N + 8 };

	for (int v6 = 0; v6 < 2; v6++) {
		begin();
		whole_udp("", N);
		give_fragments(true, v6, 10, LEN, 1480);
		CHECK(left() == 0);
		give_fragment(false, v6, 77, 0, 1480, LEN);
		give_fragment(false, v6, 77, 2960, LEN, LEN);
		CHECK(left() == 0);
		give_fragment(false, v6, 77, 1480, 2960, LEN);
		CHECK(left() == 3);
		give_fragments(false, v6, 78, LEN, 1000); /* the SVM is first, and cuts otherwise */
		give_fragment(true, v6, 11, 0, 1480, LEN);
		give_fragment(true, v6, 11, 1480, 2960, LEN);
		CHECK(left() == 0);
		give_fragment(true, v6, 11, 2960, LEN, LEN);
		CHECK(left() == 3);
		CHECK(stats().held_packets == 0 && cm_next_tick(cm) == UINT64_MAX);
		end();
	}
}

static void test_fragments_and_whole_are_alike(void)
{
	struct ip_spec s = { .proto = 17, .payload = big, .len = 2008 };

	begin();
	whole_udp("", 2000);
	pvm_ip(s);
	give_fragments(false, false, 5, 2008, 1480);
	CHECK(left() == 1);
	give_fragments(true, false, 6, 2008, 8); /* 251 pieces are too many */
	svm_ip(s);
	CHECK(left() == 0);
	give_fragments(true, false, 7, 2008, 16);
	CHECK(left() == 126);
	end();
}

/* halves of two datagrams do not vouch for one that was never said */
static void test_fragments_do_not_mix(void)
{
	begin();
	whole_udp("", 2000);
	give_fragment(false, false, 1, 0, 1480, 2008);
	big[1600] ^= 1;
	give_fragment(false, false, 1, 1480, 2008, 2008);
	big[100] ^= 1;
	give_fragment(false, false, 2, 0, 1480, 2008);
	big[1600] ^= 1;
	give_fragment(false, false, 2, 1480, 2008, 2008);
	big[100] ^= 1;
	give_fragments(true, false, 9, 2008, 1480);
	CHECK(left() == 0);
	give_fragments(false, false, 3, 2008, 1480);
	CHECK(left() == 2);
	end();
}

static void test_flipped_byte_in_a_fragment(void)
{
	static const uint32_t places[] = { 8, 1000, 1479, 1480, 2959, 2960, 4007 };

	for (unsigned i = 0; i < sizeof(places) / sizeof(*places); i++) {
		begin();
		whole_udp("", 4000);
		give_fragments(true, false, 10, 4008, 1480);
		big[places[i]] ^= 0x10;
		give_fragments(false, false, 77, 4008, 1480);
		CHECK(left() == 0);
		cm_tick(cm, now + 20000);
		CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH);
		checkpoint();
		CHECK(bed_new(&bed) == 3);
		end();
	}
}

static void test_fragmented_answer_to_one_request(void)
{
	begin();
	request();
	whole_udp("", 2000);
	give_fragments(true, false, 10, 2008, 1480);
	whole_udp("else", 2000);
	give_fragments(false, false, 10, 2008, 1480);
	CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH);
	end();
}

static void test_fragmented_echo(void)
{
	struct ip_spec s = { .proto = 1, .frag = true };
	size_t n;

	begin();
	memset(payload, 'x', sizeof(payload));
	n = put_icmp(big, 0, 0, 7 << 16 | 1, payload, 3000);
	for (int from_pvm = 1; from_pvm >= 0; from_pvm--) {
		uint32_t cut = from_pvm ? 1480 : 1200;

		for (uint32_t at = 0; at < n; at += cut) {
			s.id = (uint32_t)from_pvm;
			s.offset = at;
			s.more = at + cut < n;
			s.payload = big + at;
			s.len = s.more ? cut : n - at;
			give(from_pvm, build_ip(frame, &s));
		}
	}
	CHECK(left() == 3);
	end();
}

/* what is not whole waits for the boundary, and so does what contradicts itself */
static void test_fragments_that_make_no_datagram(void)
{
	struct cm_stats st;

	begin();
	whole_udp("", 4000);
	give_fragment(true, false, 1, 0, 1480, 4008);    /* incomplete */
	give_fragment(true, false, 2, 0, 1480, 4008);
	give_fragment(true, false, 2, 1472, 2960, 4008); /* overlaps */
	give_fragment(true, false, 3, 1480, 2008, 2008);
	give_fragment(true, false, 3, 2008, 4000, 4008); /* beyond the end */
	give_fragment(true, false, 4, 0, 1477, 4008);    /* not at a multiple of 8 */
	give_fragment(true, true, 5, 64000, 65535, 65536);
	give_fragment(true, true, 5, 65528, 65536, 65536); /* too long */
	CHECK(left() == 0 && stats().held_packets == 8);
	give_fragments(false, false, 1, 4008, 1480);
	CHECK(left() == 0);
	cm_tick(cm, now + 20000);
	CHECK(bed.wants == 1);
	checkpoint();
	CHECK(bed_new(&bed) == 8);
	give_fragment(false, false, 9, 0, 1480, 4008);
	cm_boundary(cm, ++epoch, now);
	st = stats();
	CHECK(st.held_packets == 0 && st.dropped == 0);
	end();
}

static void test_fragment_groups_are_bounded(void)
{
	begin();
	whole_udp("", 2000);
	for (uint32_t i = 0; i < 100; i++) {
		now++;
		give_fragment(true, false, i, 0, 1480, 2008);
		give_fragment(false, false, i, 0, 1480, 2008);
	}
	for (uint32_t i = 98; i < 100; i++) {
		give_fragment(true, false, i, 1480, 2008, 2008);
		give_fragment(false, false, i, 1480, 2008, 2008);
	}
	CHECK(left() == 4); /* the last are complete, the first were given up */
	now += 1000000;
	give_fragment(false, false, 90, 1480, 2008, 2008); /* too late */
	give_fragment(true, false, 90, 1480, 2008, 2008);
	CHECK(left() == 0);
	CHECK(stats().held_packets == 99);
	end();
}

static void test_atomic_fragment(void)
{
	begin();
	whole_udp("", 100);
	give_fragment(true, true, 1, 0, 108, 108);
	CHECK(left() == 0);
	give_fragment(false, true, 2, 0, 108, 108);
	CHECK(left() == 1);
	end();
}

static void test_fragments_and_modes(void)
{
	begin();
	whole_udp("", 2000);
	give_fragments(true, false, 1, 2008, 1480);
	give_fragment(true, false, 2, 0, 1480, 2008);
	give_fragment(false, false, 3, 0, 1480, 2008);
	cm_set_mode(cm, CM_HOLD, now);
	give_fragment(true, false, 2, 1480, 2008, 2008);
	cm_set_mode(cm, CM_COMPARE, now);
	give_fragments(false, false, 4, 2008, 1480);
	CHECK(left() == 0);
	cm_set_mode(cm, CM_PASS, now);
	CHECK(left() == 4 && stats().held_packets == 0);
	end();
}

/* --- the SVM's own questions --- */

static unsigned svm_asks_arp(uint32_t from, uint32_t target)
{
	give(false, build_arp_of(frame, false, 1, from, target));
	return left();
}

static void test_svm_asks_by_arp(void)
{
	begin();
	CHECK(svm_asks_arp(9, 20) == 0); /* as somebody the PVM never was */
	give(true, build_arp_of(frame, false, 2, 9, 1));
	CHECK(left() == 1);
	CHECK(svm_asks_arp(9, 20) == 1);
	CHECK(svm_asks_arp(9, 20) == 0); /* the answer is to come */
	CHECK(svm_asks_arp(8, 21) == 0);
	CHECK(svm_asks_arp(0, 22) == 0); /* a probe */
	CHECK(svm_asks_arp(9, 9) == 0);  /* an announcement */
	give(true, build_arp_of(frame, false, 1, 9, 23));
	CHECK(left() == 1);
	CHECK(svm_asks_arp(9, 23) == 0); /* the PVM has asked */
	cm_from_client(cm, frame, build_arp_of(frame, true, 2, 23, 9), now);
	CHECK(svm_asks_arp(9, 23) == 1); /* it came too early for the SVM */
	now += 900001;
	CHECK(svm_asks_arp(9, 20) == 1);
	give(false, build_arp_of(frame, false, 2, 9, 1)); /* an answer */
	CHECK(left() == 0);
	frame[VNET_HLEN + 14 + 8 + 5] ^= 1; /* another's MAC */
	frame[VNET_HLEN + 6 + 5] ^= 1;
	frame[VNET_HLEN + 14 + 7] = 1;
	give(false, VNET_HLEN + 14 + 28);
	CHECK(left() == 0);
	end();
}

static void test_svm_asks_by_nd(void)
{
	begin();
	give(false, build_nd(frame, false, 135, 1, 20));
	CHECK(left() == 0);
	give(true, build_nd(frame, false, 136, 1, 1));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 135, 1, 20));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 135, 1, 20));
	give(false, build_nd(frame, false, 135, 0, 1)); /* is this address free? */
	CHECK(left() == 0);
	cm_from_client(cm, frame, build_nd(frame, true, 136, 20, 20), now);
	give(false, build_nd(frame, false, 135, 1, 20));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 133, 1, 0));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 133, 1, 0));
	CHECK(left() == 0);
	cm_from_client(cm, frame, build_nd(frame, true, 134, 3, 0), now);
	give(false, build_nd(frame, false, 133, 1, 0));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 136, 1, 1));
	give(false, build_nd(frame, false, 143, 1, 1));
	CHECK(left() == 0);
	end();
}

static void test_svm_asks_with_a_wrong_option(void)
{
	begin();
	give(true, build_nd(frame, false, 136, 1, 1));
	bed_new(&bed);
	build_nd(frame, false, 135, 1, 20);
	frame[VNET_HLEN + 14 + 40 + 24 + 7] ^= 1; /* the link address it teaches */
	give(false, VNET_HLEN + 14 + 40 + 32);
	CHECK(left() == 0);
	end();
}

static void test_svm_asks_not_too_often(void)
{
	unsigned n = 0;

	begin();
	give(true, build_arp_of(frame, false, 1, 9, 1));
	bed_new(&bed);
	for (uint32_t i = 100; i < 1000; i++)
		n += svm_asks_arp(9, i);
	CHECK(n == 64);
	now += 1000000;
	CHECK(svm_asks_arp(9, 1) == 1);
	end();
}

int main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
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
	test_fragments();
	test_fragments_and_whole_are_alike();
	test_fragments_do_not_mix();
	test_flipped_byte_in_a_fragment();
	test_fragmented_answer_to_one_request();
	test_fragmented_echo();
	test_fragments_that_make_no_datagram();
	test_fragment_groups_are_bounded();
	test_atomic_fragment();
	test_fragments_and_modes();
	test_svm_asks_by_arp();
	test_svm_asks_by_nd();
	test_svm_asks_with_a_wrong_option();
	test_svm_asks_not_too_often();
	puts("ok");
	return 0;
}
