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

/* the scale counts if both SYNs offered one; that of the peer is its SYN-ACK's */
static void scale_of_client(uint8_t peer_scale, uint16_t expected)
{
	struct tcp_spec s = spec(1000, "", 0);

	begin();
	s.flags = F_SYN;
	s.wscale = 4 + 1;
	pvm_spec(&s);
	svm_spec(&s);
	bed_new(&bed);
	s = (struct tcp_spec){ .gport = G, .pport = P, .seq = 5000, .ack = 1001, .flags = F_SYN | F_ACK,
		.wscale = peer_scale };
	peer_spec(s);
	svm_window(5017, 10);
	pvm_window(5001, 20);
	CHECK(bed_last(&bed, 0).window == expected && bed_last(&bed, 0).ack == 5001);
	end();
}

static void test_scale_of_guest_as_client(void)
{
	scale_of_client(8, 11);  /* 4: edges at 5177 and 5321 */
	scale_of_client(0, 20);  /* none: edges at 5027 and 5021 */
}

static struct tcp_spec timed(uint32_t seq, const char *data, uint32_t ts)
{
	struct tcp_spec s = spec(seq, data, 5001);

	s.tsval = ts;
	return s;
}

static void pvm_timed(uint32_t seq, const char *data, uint32_t ts)
{
	struct tcp_spec s = timed(seq, data, ts);

	pvm_spec(&s);
}

/* a repetition overtakes what is held: PAWS must not take that for old */
static void timestamps_from(uint32_t ts)
{
	begin();
	connect_both();
	pvm_timed(1001, "abc", ts);
	svm(1001, "abc", 5001);
	pvm_timed(1004, "def", ts + 10);
	CHECK(bed_new(&bed) == 1);
	pvm_timed(1001, "abc", ts + 200);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).tsval == ts + 200);
	svm(1004, "def", 5001);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1004 && bed_last(&bed, 0).tsval == ts + 200);
	pvm_timed(1007, "", ts + 201);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).tsval == ts + 201);
	pvm_timed(1007, "", ts + 201 + (1u << 31) + 5); /* idle for long: this is no step back */
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).tsval == ts + 201 + (1u << 31) + 5);
	end();
}

static void test_timestamps_do_not_run_back(void)
{
	timestamps_from(1000);
	timestamps_from(0u - 100);
}

static void test_forwarded_ack_keeps_the_clock(void)
{
	struct tcp_spec s = spec(1001, "", 5100);

	begin();
	connect_both();
	s.tsval = 4000;
	pvm_spec(&s); /* owed */
	CHECK(bed_new(&bed) == 0);
	s.ack = 5050;
	s.tsval = 9;
	svm_spec(&s);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5050 && bed_last(&bed, 0).tsval == 4000);
	pvm_timed(1000, "", 3990);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).tsval == 4000);
	end();
}

static void test_ack_numbers_wrap(void)
{
	begin();
	flagged(true, 1000, "", 0xfffffff0, F_SYN | F_ACK);
	flagged(false, 7, "", 0xfffffff0, F_SYN | F_ACK);
	bed_new(&bed);
	pvm(1001, "", 20);
	CHECK(bed_new(&bed) == 0);
	svm(1001, "", 0xfffffffa);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 0xfffffffa);
	svm(1001, "", 10);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 10);
	svm(1001, "", 0xfffffffa); /* late */
	svm(1001, "", 30);
	CHECK(bed_last(&bed, 0).ack == 20 && cm_next_tick(cm) == UINT64_MAX);
	end();
}

/* the peer probes a closed window, or whether we live: each of the PVM's answers leaves, though it says nothing new */
static void test_repeated_acks_leave(void)
{
	struct tcp_spec s = window_spec(5001, 0);

	begin();
	connect_both();
	s.shut = true;
	svm_spec(&s);
	for (int i = 0; i < 3; i++) {
		pvm_spec(&s);
		CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).window == 0 && bed_last(&bed, 0).ack == 5001);
	}
	svm_window(5001, 100);
	pvm_window(5001, 100);
	CHECK(bed_last(&bed, 0).window == 100);
	s = spec(1001, "", 5001);
	s.nsack = 1; /* a duplicate ACK with what came behind a gap */
	s.sack[0] = 5100;
	s.sack[1] = 5200;
	svm_spec(&s);
	bed_new(&bed);
	for (int i = 0; i < 3; i++) {
		pvm_spec(&s);
		CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).nsack == 1 && bed_last(&bed, 0).sack[1] == 5200);
	}
	end();
}

/* an urgent mark counts from the SVM's own number: it does not go with the PVM's */
static void test_forwarded_ack_is_not_urgent(void)
{
	struct tcp_spec s = spec(1001, "", 5050);

	begin();
	connect_both();
	pvm(1001, "", 5100);
	s.flags |= F_URG;
	s.urg = 9;
	svm_spec(&s);
	for (unsigned i = 0; i < bed.n - 1; i++)
		CHECK(!(bed_last(&bed, i).flags & F_URG));
	end();
}

/* the SVM is ahead in acknowledging: the PVM's own numbers leave, never more */
static void test_svm_acks_first(void)
{
	begin();
	connect_both();
	svm(1001, "", 5500);
	CHECK(bed_new(&bed) == 0);
	pvm(1001, "", 5100);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5100);
	pvm(1001, "", 5500);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5500);
	pvm(1001, "", 5501);
	CHECK(bed_new(&bed) == 0);
	end();
}

/* while the boundary is not held, both the old SVM and the new one must stand for what leaves */
static void test_ack_while_pending(void)
{
	begin();
	connect_both();
	svm(1001, "", 5200);
	pvm(1001, "", 5300); /* the PVM stands at 5300, the old SVM at 5200 */
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5200);
	cm_boundary(cm, ++epoch, now);
	pvm(1001, "", 5400);
	CHECK(bed_new(&bed) == 0);
	pvm(1001, "", 5200);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5200);
	cm_held(cm, epoch, now);
	CHECK(bed_new(&bed) >= 1 && bed_last(&bed, 0).ack == 5300);
	svm(1001, "", 5350);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5350);
	svm(1001, "", 5500);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5400);
	end();
}

/* the peer's acknowledgement reached the PVM only: the SVM repeats, and the peer has to say it again */
static void test_svm_missed_an_ack(void)
{
	begin();
	connect_both();
	pvm(1001, "answer", 5001);
	svm(1001, "answer", 5001);
	CHECK(bed_new(&bed) == 1);
	svm(1001, "answer", 5001); /* the peer may not have it: the PVM will repeat it as well */
	CHECK(bed_new(&bed) == 0);
	peer_spec((struct tcp_spec){ .gport = G, .pport = P, .seq = 5001, .ack = 1007, .flags = F_ACK });
	svm(1006, "r", 5001); /* a keep-alive asks by itself */
	CHECK(bed_new(&bed) == 0);
	svm(1001, "answer", 5001);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1001 && bed_last(&bed, 0).len == 0);
	CHECK(bed_last(&bed, 0).ack == 5001 && bed_last(&bed, 0).flags == F_ACK && bed.wants == 0);
	end();
}

/* The window that the peer opened is known to the PVM only: it goes on, and the SVM's probe must reach the peer. */
static void test_svm_missed_an_open_window(void)
{
	begin();
	connect_both();
	pvm(1001, "answer", 5001);
	svm(1001, "answer", 5001);
	CHECK(bed_new(&bed) == 1);
	peer_spec((struct tcp_spec){ .gport = G, .pport = P, .seq = 5001, .ack = 1007, .flags = F_ACK, .shut = true });
	svm(1007, "", 5001); /* no probe */
	CHECK(bed_new(&bed) == 0);
	pvm(1007, "more", 5001);
	svm(1006, "", 5001);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1006 && bed_last(&bed, 0).len == 0);
	CHECK(bed_last(&bed, 0).ack == 5001 && bed_last(&bed, 0).flags == F_ACK);
	svm(999, "", 5001); /* of no connection that is known */
	CHECK(bed_new(&bed) == 0);
	svm(1007, "more", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
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
	test_scale_of_guest_as_client();
	test_timestamps_do_not_run_back();
	test_forwarded_ack_keeps_the_clock();
	test_ack_numbers_wrap();
	test_repeated_acks_leave();
	test_forwarded_ack_is_not_urgent();
	test_svm_acks_first();
	test_ack_while_pending();
	test_svm_missed_an_ack();
	test_svm_missed_an_open_window();
	puts("ok");
	return 0;
}
