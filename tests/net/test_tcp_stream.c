/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tcp_stream.c - TCP streams: what is alike, what differs, and what leaves
 */
#include "cm_bed.h"

static void test_data_waits_for_svm(void)
{
	begin();
	connect_both();
	pvm(1001, "hello", 5001);
	CHECK(bed_new(&bed) == 0);
	svm(1001, "hel", 5001);
	CHECK(bed_new(&bed) == 0);
	svm(1004, "lo wor", 5001);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).len == 5);
	pvm(1006, " ", 5001); /* the SVM is ahead */
	CHECK(bed_new(&bed) == 1);
	pvm(1007, "world", 5001);
	CHECK(bed_new(&bed) == 0);
	svm(1010, "ld", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

static void test_repetition_leaves_at_once(void)
{
	begin();
	connect_both();
	pvm(1001, "abc", 5001);
	svm(1001, "abc", 5001);
	CHECK(bed_new(&bed) == 1);
	pvm(1001, "abc", 5001);
	CHECK(bed_new(&bed) == 1);
	pvm(1002, "bcd", 5001); /* one byte is new */
	CHECK(bed_new(&bed) == 0);
	svm(1004, "d", 5001);
	CHECK(bed_new(&bed) == 1);
	end();
}

static void test_out_of_order(void)
{
	begin();
	connect_both();
	pvm(1004, "def", 5001);
	svm(1007, "ghi", 5001);
	svm(1002, "bcde", 5001);
	CHECK(bed_new(&bed) == 0);
	pvm(1001, "abc", 5001);
	svm(1001, "ab", 5001);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1001);
	svm(1006, "f", 5001);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1004);
	pvm(1007, "ghi", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

static void test_mismatch(void)
{
	begin();
	connect_both();
	pvm(1001, "abc", 5001);
	pvm(1004, "dXf", 5001);
	svm(1001, "abcdef", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 1 && bed.cause == CM_MISMATCH);
	svm(1004, "dXf", 5001); /* too late */
	CHECK(bed_new(&bed) == 0 && bed.wants == 1);
	cm_boundary(cm, ++epoch, now);
	CHECK(bed_new(&bed) == 0);
	cm_held(cm, epoch, now);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1004);
	pvm(1007, "go on", 5001);
	svm(1001, "zzzzzzgo on", 5001); /* below the boundary: not compared */
	CHECK(bed_new(&bed) == 1 && bed.wants == 1);
	end();
}

static void test_mismatch_holds_one_flow_only(void)
{
	struct tcp_spec s = spec(500, "other", 1);

	begin();
	connect_both();
	pvm(1001, "a", 5001);
	svm(1001, "b", 5001);
	CHECK(bed.wants == 1 && bed_new(&bed) == 0);
	s.pport = 4001;
	pvm_spec(&s);
	svm_spec(&s);
	CHECK(bed_new(&bed) == 1);
	end();
}

static void test_fin(void)
{
	begin();
	connect_both();
	flagged(true, 1001, "bye", 5001, F_ACK | F_FIN);
	svm(1001, "bye", 5001);
	CHECK(bed_new(&bed) == 0);
	flagged(false, 1004, "", 5001, F_ACK | F_FIN);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
	begin();
	connect_both();
	flagged(false, 1001, "by", 5001, F_ACK | F_FIN);
	pvm(1001, "bye", 5001);
	CHECK(bed_new(&bed) == 0 && bed.wants == 1 && bed.cause == CM_MISMATCH);
	end();
	begin();
	connect_both();
	flagged(true, 1001, "by", 5001, F_ACK | F_FIN);
	svm(1001, "bye", 5001);
	CHECK(bed_new(&bed) == 0 && bed.wants == 1 && bed.cause == CM_MISMATCH);
	end();
}

static void test_unknown_connection(void)
{
	begin();
	pvm(1001, "", 5001); /* a pure ACK says nothing of the SVM's */
	CHECK(bed_new(&bed) == 0);
	svm(1005, "", 5001);
	CHECK(bed_new(&bed) == 1);
	svm(995, "zzzzzzab", 5001); /* from below the position */
	CHECK(bed_new(&bed) == 0);
	pvm(1001, "abc", 5001);
	CHECK(bed_new(&bed) == 0);
	svm(1003, "c", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

static void test_overlaps_that_are_alike(void)
{
	begin();
	connect_both();
	pvm(1001, "abcd", 5001);
	pvm(1003, "cdef", 5001);
	pvm(1001, "abcdefgh", 5001);
	pvm(1002, "b", 5001);
	svm(1004, "defgh", 5001);
	svm(1001, "abcde", 5001);
	CHECK(bed_new(&bed) == 4 && bed.wants == 0);
	end();
}

/* what leaves must be what was compared, whichever of two overlapping segments that was */
static void test_overlap_contradicts(void)
{
	begin();
	connect_both();
	pvm(1001, "abcd", 5001);
	pvm(1003, "cXe", 5001);
	CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH);
	svm(1001, "abcdef", 5001);
	CHECK(bed_new(&bed) == 0);
	checkpoint();
	CHECK(bed_new(&bed) == 2 && bed_last(&bed, 0).seq == 1003);
	pvm(1005, "ef", 5001); /* the end of the contradiction does not count as said */
	CHECK(bed_new(&bed) == 0);
	svm(1005, "ef", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 1);
	end();
}

static void test_contradiction_below_matched(void)
{
	begin();
	connect_both();
	pvm(1001, "abcdef", 5001);
	svm(1001, "abc", 5001);
	pvm(1001, "aXc", 5001); /* of which the SVM said all, but not this way */
	CHECK(bed_new(&bed) == 0 && bed.wants == 1 && bed.cause == CM_MISMATCH);
	svm(1004, "def", 5001);
	CHECK(bed_new(&bed) == 0);
	checkpoint();
	CHECK(bed_new(&bed) == 2);
	end();
}

/* of what the SVM repeats otherwise the first counts, as it does for a receiver */
static void test_svm_contradicts_itself(void)
{
	begin();
	connect_both();
	svm(1001, "abc", 5001);
	svm(1002, "XXdef", 5001);
	pvm(1001, "abcdef", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	svm(1009, "i", 5001); /* behind a gap, and then with more around it */
	svm(1008, "hXj", 5001);
	svm(1007, "g", 5001);
	pvm(1007, "ghij", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

static void test_keep_alive(void)
{
	begin();
	connect_both();
	pvm(1001, "abc", 5001);
	svm(1001, "abc", 5001);
	CHECK(bed_new(&bed) == 1);
	pvm(1003, "", 5001);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1003);
	pvm(1003, "Z", 5001); /* one byte of garbage, as BSD does */
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).len == 1);
	svm(1003, "Y", 5001);
	svm(1003, "", 5001);
	pvm(1004, "def", 5001);
	svm(1004, "def", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0 && bed_last(&bed, 0).seq == 1004);
	end();
}

static void test_zero_window_probe(void)
{
	begin();
	connect_both();
	pvm(1001, "abc", 5001);
	svm(1001, "abc", 5001);
	bed_new(&bed);
	pvm(1003, "", 5001); /* Linux: a number too low, without data */
	CHECK(bed_new(&bed) == 1);
	pvm(1004, "d", 5001); /* others: the next byte */
	CHECK(bed_new(&bed) == 0);
	pvm(1004, "d", 5001);
	svm(1004, "def", 5001);
	CHECK(bed_new(&bed) == 2);
	pvm(1004, "def", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

static void test_numbers_wrap(void)
{
	begin();
	flagged(true, 0xfffffffd, "", 0xfffffff0, F_SYN | F_ACK);
	flagged(false, 77, "", 0xfffffff0, F_SYN | F_ACK);
	CHECK(bed_new(&bed) == 1);
	pvm(0xfffffffe, "ab", 5);
	pvm(0, "cd", 5);
	svm(1, "def", 3);
	svm(0xffffffff, "bcd", 0xfffffff8);
	CHECK(bed_new(&bed) == 0);
	svm(0xfffffffe, "a", 3);
	CHECK(bed_new(&bed) == 2 && bed_last(&bed, 0).seq == 0 && bed_last(&bed, 0).ack == 3);
	svm(4, "", 5);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5); /* that was owed */
	flagged(true, 2, "efg", 5, F_ACK | F_FIN);
	flagged(false, 5, "", 5, F_ACK | F_FIN);
	CHECK(bed_new(&bed) == 0);
	svm(4, "g", 5);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 2 && bed.wants == 0);
	end();
}

/* a segment that cannot be of the stream must not move the place where comparing begins */
static void test_far_segment(void)
{
	begin();
	connect_both();
	pvm(1001 + (1u << 30), "zz", 5001);
	pvm(1001 - (1u << 30), "zz", 5001);
	pvm(1001 + (1u << 30), "", 5001);
	CHECK(bed_new(&bed) == 0 && cm_next_tick(cm) == now + 20000);
	checkpoint();
	CHECK(bed_new(&bed) == 3);
	pvm(1001, "abc", 5001);
	CHECK(bed_new(&bed) == 0);
	svm(1001, "abc", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

static void test_fin_elsewhere(void)
{
	begin();
	connect_both();
	flagged(true, 1001, "abc", 5001, F_ACK | F_FIN);
	flagged(true, 1001, "ab", 5001, F_ACK | F_FIN);
	CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH);
	flagged(false, 1001, "abc", 5001, F_ACK | F_FIN);
	CHECK(bed_new(&bed) == 0);
	end();
	begin();
	connect_both();
	flagged(true, 1001, "abc", 5001, F_ACK | F_FIN);
	pvm(1001, "abcdef", 5001); /* beyond its end */
	CHECK(bed.wants == 1 && bed_new(&bed) == 0);
	end();
	begin();
	connect_both();
	pvm(1001, "abc", 5001);
	svm(1001, "abc", 5001);
	CHECK(bed_new(&bed) == 1);
	flagged(true, 1001, "a", 5001, F_ACK | F_FIN); /* before what was said */
	CHECK(bed.wants == 1 && bed_new(&bed) == 0);
	end();
}

static void test_half_close(void)
{
	begin();
	connect_both();
	flagged(true, 1001, "ab", 5001, F_ACK | F_FIN);
	flagged(false, 1001, "ab", 5001, F_ACK | F_FIN);
	CHECK(bed_new(&bed) == 1);
	peer_spec(spec(5001, "still", 1004)); /* the peer goes on */
	pvm(1004, "", 5006);
	CHECK(bed_new(&bed) == 0);
	svm(1004, "", 5003);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5003);
	svm(1004, "", 5006);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5006);
	pvm(1003, "", 5006); /* a keep-alive behind the FIN */
	pvm(1003, "Z", 5006);
	flagged(true, 1003, "", 5006, F_ACK | F_FIN);
	CHECK(bed_new(&bed) == 3 && bed.wants == 0);
	end();
}

static void test_peer_half_closes(void)
{
	struct tcp_spec s = spec(5001, "", 1001);

	begin();
	connect_both();
	s.flags |= F_FIN;
	peer_spec(s);
	svm(1001, "", 5002);
	pvm(1001, "", 5002);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5002);
	pvm(1001, "the rest", 5002);
	svm(1001, "the rest", 5002);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

/* a frame of 60000 bytes against 1448 at a time, either way, checksum not done */
static void gso(bool pvm_is_large)
{
	static char data[60001];
	struct tcp_spec s;
	struct rnd r = { 1 };
	uint32_t n;

	for (n = 0; n < 60000; n++)
		data[n] = (char)(1 + rnd_below(&r, 255));
	begin();
	connect_both();
	for (int i = 0; i < 2; i++) {
		bool from_pvm = i == 1;

		s = spec(1001, data, 5001);
		s.partial = true;
		for (uint32_t at = 0; at < 60000; at += n) {
			n = from_pvm == pvm_is_large ? 60000 : 60000 - at < 1448 ? 60000 - at : 1448;
			s.seq = 1001 + at;
			s.data = data + at;
			s.len = n;
			from_pvm ? pvm_spec(&s) : svm_spec(&s);
		}
	}
	CHECK(bed_new(&bed) == (pvm_is_large ? 1 : 42) && bed.wants == 0);
	CHECK(bed_last(&bed, 0).len == (pvm_is_large ? 60000 : 60000 % 1448));
	end();
}

static void test_large_frames(void)
{
	gso(true);
	gso(false);
}

static void urgent(bool from_pvm, uint32_t seq, const char *data, uint16_t mark)
{
	struct tcp_spec s = spec(seq, data, 5001);

	if (mark)
		s.flags |= F_URG;
	s.urg = mark;
	from_pvm ? pvm_spec(&s) : svm_spec(&s);
}

static void test_urgent_mark(void)
{
	begin();
	connect_both();
	urgent(false, 1001, "ab", 3);
	urgent(false, 1003, "c", 1);
	urgent(true, 1001, "abc", 3); /* the same place, otherwise cut */
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).urg == 3 && bed_last(&bed, 0).flags & F_URG);
	pvm(1004, "d", 5001);
	svm(1004, "d", 5001);
	CHECK(bed_new(&bed) == 1);
	urgent(true, 1005, "e", 1);
	svm(1005, "e", 5001);
	CHECK(bed_new(&bed) == 0);
	urgent(false, 1005, "e", 1);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

/* one VM has no mark: that is missing, and heals with a checkpoint */
static void test_urgent_marks_differ(void)
{
	begin();
	connect_both();
	pvm(1001, "abc", 5001);
	urgent(false, 1001, "abc", 2);
	CHECK(bed_new(&bed) == 0 && cm_next_tick(cm) != UINT64_MAX);
	checkpoint();
	CHECK(bed_new(&bed) == 1);
	urgent(true, 1004, "def", 5); /* a mark before its byte */
	svm(1004, "def", 5001);
	CHECK(bed_new(&bed) == 0);
	cm_boundary(cm, ++epoch, now);
	urgent(true, 1004, "def", 5);
	CHECK(bed_new(&bed) == 0);
	cm_held(cm, epoch, now);
	CHECK(bed_new(&bed) == 2); /* the repetition, too: the mark is in the checkpoint */
	urgent(true, 1007, "gh", 2);
	svm(1007, "gh", 5001);
	CHECK(bed_new(&bed) == 1);
	urgent(true, 1009, "", 7); /* without a byte */
	CHECK(bed_new(&bed) == 0);
	urgent(false, 1009, "", 7);
	CHECK(bed_new(&bed) == 1);
	end();
}

/* its first segment seen repeats what was sent before protection: the SVM does, or the next boundary serves */
static void test_unknown_connection_repeats(void)
{
	begin();
	svm(1004, "de", 5001);
	pvm(1001, "abc", 5001);
	pvm(1004, "de", 5001);
	CHECK(bed_new(&bed) == 0);
	svm(1001, "abc", 5001);
	CHECK(bed_new(&bed) == 2);
	end();
	begin();
	svm(1004, "de", 5001);
	pvm(1001, "abc", 5001);
	pvm(1004, "de", 5001);
	checkpoint();
	CHECK(bed_new(&bed) == 2);
	pvm(1006, "f", 5001);
	svm(1006, "f", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

/* until there is no room for more */
static void fill_with(size_t size)
{
	char data[1200] = { 0 };
	struct cm_stats before, st;

	cm_get_stats(cm, &before);
	do {
		cm_from_pvm(cm, frame, build_udp(frame, false, 53, 1000, data, size, 1), now);
		cm_get_stats(cm, &st);
	} while (st.dropped == before.dropped);
}

/* A frame for which there is no room at all has not been said: the guest may not say something else instead. */
static void test_lost_for_want_of_room(void)
{
	struct cm_config cfg = { .max_held_bytes = 1 << 20 };
	char data[1001] = "aaaa";

	memset(data + 4, 'b', 996);
	begin_with(&cfg);
	connect_both();
	svm(1001, "aaaa", 5001);
	bed_new(&bed);
	fill_with(1200);
	fill_with(1);
	pvm(1001, data, 5001);
	CHECK(bed_new(&bed) == 0);
	pvm(1001, "xxxx", 5001);
	CHECK(bed_new(&bed) == 0);
	checkpoint();
	CHECK(bed_new(&bed) > 100);
	pvm(1001, data, 5001);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).len == 1000);
	end();
}

int main(void)
{
	test_lost_for_want_of_room();
	test_data_waits_for_svm();
	test_repetition_leaves_at_once();
	test_out_of_order();
	test_mismatch();
	test_mismatch_holds_one_flow_only();
	test_fin();
	test_unknown_connection();
	test_overlaps_that_are_alike();
	test_overlap_contradicts();
	test_contradiction_below_matched();
	test_svm_contradicts_itself();
	test_keep_alive();
	test_zero_window_probe();
	test_numbers_wrap();
	test_far_segment();
	test_fin_elsewhere();
	test_half_close();
	test_peer_half_closes();
	test_large_frames();
	test_urgent_mark();
	test_urgent_marks_differ();
	test_unknown_connection_repeats();
	puts("ok");
	return 0;
}
