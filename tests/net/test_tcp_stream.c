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

int main(void)
{
	test_data_waits_for_svm();
	test_repetition_leaves_at_once();
	test_out_of_order();
	test_mismatch();
	test_mismatch_holds_one_flow_only();
	test_fin();
	test_unknown_connection();
	puts("ok");
	return 0;
}
