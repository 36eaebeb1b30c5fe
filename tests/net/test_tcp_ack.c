/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tcp_ack.c - acknowledgements, windows, SACK and timestamps (rule R2)
 */
#include "cm_bed.h"

static struct tcp_spec window_spec(uint32_t ack, uint16_t window)
{
	struct tcp_spec s = spec(1001, "", ack);

	s.window = window;
	return s;
}

static void pvm_window(uint32_t ack, uint16_t window)
{
	struct tcp_spec s = window_spec(ack, window);

	pvm_spec(&s);
}

static void svm_window(uint32_t ack, uint16_t window)
{
	struct tcp_spec s = window_spec(ack, window);

	svm_spec(&s);
}

static void test_ack_is_clamped(void)
{
	struct cm_stats st;

	begin();
	connect_both();
	svm(1001, "abc", 5011);
	pvm(1001, "abc", 5021);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5011 && bed_last(&bed, 0).len == 3);
	pvm(1004, "", 5021); /* says nothing new */
	pvm(1004, "", 5031);
	CHECK(bed_new(&bed) == 0);
	svm(1004, "", 5025);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5025 && bed_last(&bed, 0).len == 0);
	svm(1004, "", 5025); /* repeated while it is behind: it may have lost something */
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5025);
	svm(1004, "", 5041);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5031 && bed_last(&bed, 0).seq == 1004);
	pvm(1004, "", 5041);
	CHECK(bed_new(&bed) == 1);
	cm_get_stats(cm, &st);
	CHECK(st.acks_clamped == 3 && st.held_packets == 0 && st.held_bytes == 0);
	end();
}

/* a data frame left with a smaller ACK number: the rest follows without another frame of the PVM */
static void test_ack_of_data_is_owed(void)
{
	begin();
	connect_both();
	svm(1001, "abc", 5001);
	pvm(1001, "abc", 5021);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5001);
	svm(1004, "", 5030);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5021 && bed_last(&bed, 0).seq == 1004 &&
	      bed_last(&bed, 0).len == 0 && bed_last(&bed, 0).flags == F_ACK);
	end();
}

/* the SVM lost a segment that the PVM has: the peer sees the SVM's SACKs, not the PVM's */
static void test_svm_is_behind(void)
{
	struct tcp_spec s = spec(1001, "", 5200);
	struct seg r;

	begin();
	connect_both();
	s.nsack = 1; /* as if the peer had repeated something */
	s.sack[0] = 5000;
	s.sack[1] = 5100;
	pvm_spec(&s);
	CHECK(bed_new(&bed) == 0);
	s = spec(1009, "", 5100); /* ahead in sending, and with a later clock */
	s.tsval = 99999;
	s.tsecr = 7;
	s.nsack = 1;
	s.sack[0] = 5150;
	s.sack[1] = 5200;
	for (int i = 0; i < 3; i++) {
		svm_spec(&s);
		CHECK(bed_new(&bed) == 1);
		r = bed_last(&bed, 0);
		CHECK(r.ack == 5100 && r.seq == 1001 && r.tsval == 1000 + now / 1000 && r.tsecr == 7);
		CHECK(r.nsack == 1 && r.sack[0] == 5150 && r.sack[1] == 5200);
	}
	svm(1009, "", 5200);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5200 && bed_last(&bed, 0).nsack == 1);
	end();
}

static void test_sack_goes_with_clamp(void)
{
	struct tcp_spec s = spec(1001, "abc", 5200);

	begin();
	connect_both();
	svm(1001, "abc", 5100);
	s.nsack = 1;
	s.sack[0] = 5050;
	s.sack[1] = 5150;
	pvm_spec(&s);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5100 && bed_last(&bed, 0).nsack == 0);
	end();
}

static void test_window(void)
{
	begin();
	connect_both();
	svm_window(5001, 300);
	bed_new(&bed);
	pvm_window(5001, 500);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).window == 300);
	pvm_window(5001, 600); /* would look like a repeated ACK */
	CHECK(bed_new(&bed) == 0);
	pvm_window(5001, 600); /* is one */
	CHECK(bed_new(&bed) == 1);
	svm_window(5001, 550);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).window == 550 && bed_last(&bed, 0).ack == 5001);
	svm_window(5001, 700);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).window == 600);
	svm_window(5101, 700);
	CHECK(bed_new(&bed) == 0);
	pvm_window(5051, 800); /* the SVM's edge is 5801, the PVM's 5851 */
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).window == 750 && bed_last(&bed, 0).ack == 5051);
	end();
}

static void test_svm_window_is_shut(void)
{
	struct tcp_spec s = window_spec(5004, 0);

	begin();
	connect_both();
	svm_window(5002, 1);
	bed_new(&bed);
	pvm_window(5004, 400);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5002 && bed_last(&bed, 0).window == 1);
	s.shut = true;
	svm_spec(&s);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5004 && bed_last(&bed, 0).window == 0);
	pvm_window(5004, 410);
	CHECK(bed_new(&bed) == 0);
	svm_window(5004, 200);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).window == 200 && cm_next_tick(cm) == UINT64_MAX);
	svm_spec(&s);
	pvm_window(5004, 420);
	bed_new(&bed);
	pvm_window(5004, 420);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).window == 0);
	CHECK(cm_next_tick(cm) == now + 100000); /* its application may be stuck */
	svm_spec(&s);
	CHECK(bed_new(&bed) == 0 && cm_next_tick(cm) == now + 100000);
	svm_window(5004, 100);
	CHECK(bed_new(&bed) == 1 && cm_next_tick(cm) == UINT64_MAX);
	end();
}

static void test_window_opens_with_svm_ahead(void)
{
	struct tcp_spec s = window_spec(5101, 900);

	begin();
	connect_both();
	svm_window(5001, 300);
	pvm_window(5001, 500);
	bed_new(&bed);
	s.nsack = 1;
	s.sack[0] = 5201;
	s.sack[1] = 5301;
	svm_spec(&s);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5001 && bed_last(&bed, 0).window == 500);
	CHECK(bed_last(&bed, 0).nsack == 0);
	end();
}

static void test_window_narrows_unmasked(void)
{
	begin();
	connect_both();
	svm_window(5001, 300);
	pvm_window(5001, 500);
	CHECK(bed_new(&bed) >= 1);
	svm_window(5001, 200);
	pvm_window(5001, 600); /* masked too, but the peer does not know the SVM's lesser one */
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).window == 200);
	end();
}

static void test_window_scale(void)
{
	struct tcp_spec s = spec(1000, "", 5001);

	begin();
	s.flags = F_SYN | F_ACK;
	s.wscale = 4 + 1;
	pvm_spec(&s);
	svm_spec(&s);
	bed_new(&bed);
	svm_window(5017, 10); /* edge 5177 */
	pvm_window(5001, 20); /* edge 5321 */
	CHECK(bed_last(&bed, 0).window == 11 && bed_last(&bed, 0).ack == 5001);
	end();
}

static void test_window_of_unknown_scale(void)
{
	begin();
	svm_window(5017, 10);
	pvm_window(5001, 20);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).window == 10);
	end();
}

static void test_old_owed_ack_is_dropped(void)
{
	begin();
	connect_both();
	pvm(1001, "", 5021);
	pvm(1001, "abc", 5040);
	svm(1001, "abc", 5050);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5040);
	end();
}

/* a frame that waits for the boundary says what is owed: it is not said twice */
static void test_owed_ack_is_said_once(void)
{
	begin();
	connect_both();
	svm(1001, "abc", 5001);
	pvm(1001, "abc", 5021);
	pvm(1004, "def", 5021);
	CHECK(bed_new(&bed) == 1);
	cm_boundary(cm, ++epoch, now);
	cm_held(cm, epoch, now);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1004);
	end();
}

/* R2 after a boundary: the new SVM has only what the PVM had acknowledged then */
static void test_ack_falls_back_at_boundary(void)
{
	begin();
	connect_both();
	svm(1001, "", 5500);
	pvm(1001, "", 5400);
	CHECK(bed_new(&bed) == 1);
	cm_boundary(cm, ++epoch, now);
	pvm(1001, "", 5500);
	CHECK(bed_new(&bed) == 0);
	cm_held(cm, epoch, now);
	CHECK(bed_new(&bed) == 0);
	svm(1001, "", 5500);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5500);
	end();
}

static void test_owed_ack_is_missing_later(void)
{
	begin();
	connect_both();
	pvm(1001, "", 5100);
	CHECK(cm_next_tick(cm) == now + 100000);
	now += 90000;
	svm(1001, "", 5050);
	CHECK(bed_new(&bed) == 1 && cm_next_tick(cm) == now + 100000);
	cm_tick(cm, now + 100000);
	CHECK(bed.wants == 1 && bed.cause == CM_MISSING);
	end();
}

int main(void)
{
	test_ack_is_clamped();
	test_ack_of_data_is_owed();
	test_svm_is_behind();
	test_sack_goes_with_clamp();
	test_window();
	test_svm_window_is_shut();
	test_window_opens_with_svm_ahead();
	test_window_narrows_unmasked();
	test_window_scale();
	test_window_of_unknown_scale();
	test_old_owed_ack_is_dropped();
	test_owed_ack_is_said_once();
	test_ack_falls_back_at_boundary();
	test_owed_ack_is_missing_later();
	puts("ok");
	return 0;
}
