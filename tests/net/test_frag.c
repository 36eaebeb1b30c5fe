/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_frag.c - datagrams in fragments are compared when they are whole
 */
#include "dgram_bed.h"

static uint8_t big[65536];

static void whole_udp(const char *end, size_t data)
{
	static uint8_t text[65536];

	for (size_t i = 0; i < data; i++)
		text[i] = (uint8_t)(i * 7 + i / 256);
	memcpy(text + data - strlen(end), end, strlen(end));
	put_udp(big, G, P, text, data, 0);
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
		finish();
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
	finish();
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
	finish();
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
		finish();
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
	finish();
}

static void test_fragmented_echo(void)
{
	struct ip_spec s = { .proto = 1, .frag = true };
	uint8_t data[3000];
	size_t n;

	begin();
	memset(data, 'x', sizeof(data));
	n = put_icmp(big, 0, 0, 7 << 16 | 1, data, sizeof(data));
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
	finish();
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
	finish();
}

/* without the piece that overlaps it would have been whole */
static void test_overlap_spoils_a_datagram(void)
{
	begin();
	whole_udp("", 4000);
	give_fragments(false, false, 9, 4008, 1480);
	give_fragment(true, false, 2, 0, 1480, 4008);
	give_fragment(true, false, 2, 1472, 2960, 4008);
	give_fragment(true, false, 2, 1480, 2960, 4008);
	give_fragment(true, false, 2, 2960, 4008, 4008);
	CHECK(left() == 0);
	give_fragments(true, false, 3, 4008, 1480);
	CHECK(left() == 3);
	finish();
}

/* bytes behind a fragment would leave without having been compared */
static void test_trailer_of_a_fragment(void)
{
	struct ip_spec s = { .proto = 17, .id = 1, .frag = true, .more = true, .payload = big, .len = 1480 };

	begin();
	whole_udp("", 2000);
	give_fragments(false, false, 9, 2008, 1480);
	give(true, build_ip(frame, &s) + 1);
	give_fragment(true, false, 1, 1480, 2008, 2008);
	CHECK(left() == 0);
	s.payload = big + 1480;
	s.offset = 1480;
	s.len = 8;
	s.more = false;
	s.id = 5;
	whole_udp("", 1480);
	give_fragments(false, false, 10, 1488, 1480);
	give_fragment(true, false, 5, 0, 1480, 1488);
	build_ip(frame, &s);
	give(true, VNET_HLEN + 60); /* padded to Ethernet's least size */
	CHECK(left() == 2);
	finish();
}

static void test_number_used_again_later(void)
{
	begin();
	whole_udp("", 2000);
	give_fragment(true, false, 1, 0, 1480, 2008);
	give_fragment(false, false, 1, 0, 1480, 2008);
	now += 1000000;
	give_fragments(true, false, 1, 2008, 1480);
	give_fragments(false, false, 1, 2008, 1480);
	CHECK(left() == 2);
	finish();
}

static void test_fragments_and_a_full_table(void)
{
	struct cm_config cfg = { .max_flows = 1 };

	begin_with(&cfg);
	pvm_says("holds the only place");
	whole_udp("", 2000);
	big[1]++; /* another port */
	give_fragments(true, false, 1, 2008, 1480);
	give_fragments(false, false, 1, 2008, 1480);
	CHECK(bed_new(&bed) == 0 && stats().held_packets == 3);
	finish();
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
	finish();
}

static void test_atomic_fragment(void)
{
	begin();
	whole_udp("", 100);
	give_fragment(true, true, 1, 0, 108, 108);
	CHECK(left() == 0);
	give_fragment(false, true, 2, 0, 108, 108);
	CHECK(left() == 1);
	finish();
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
	finish();
}

int main(void)
{
	test_fragments();
	test_fragments_and_whole_are_alike();
	test_fragments_do_not_mix();
	test_flipped_byte_in_a_fragment();
	test_fragmented_answer_to_one_request();
	test_fragmented_echo();
	test_fragments_that_make_no_datagram();
	test_overlap_spoils_a_datagram();
	test_trailer_of_a_fragment();
	test_number_used_again_later();
	test_fragments_and_a_full_table();
	test_fragment_groups_are_bounded();
	test_atomic_fragment();
	test_fragments_and_modes();
	puts("ok");
	return 0;
}
