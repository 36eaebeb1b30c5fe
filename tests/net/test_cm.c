/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_cm.c - the rules of the comparing module, one by one
 */
#include "net_test.h"

static struct bed bed;
static struct cm *cm;
static uint64_t now;
static uint8_t frame[NET_FRAME_MAX];
static uint64_t epoch;

enum { G = 80, P = 4000 }; /* ports of guest and peer */

static struct tcp_spec spec(uint32_t seq, const char *data, uint32_t ack)
{
	return (struct tcp_spec){ .gport = G, .pport = P, .seq = seq, .ack = ack, .flags = F_ACK,
		.tsval = 1000 + (uint32_t)(now / 1000), .tsecr = 1, .data = data, .len = strlen(data) };
}

static void pvm_spec(const struct tcp_spec *s)
{
	cm_from_pvm(cm, frame, build_tcp(frame, s), now);
}

static void svm_spec(const struct tcp_spec *s)
{
	cm_from_svm(cm, epoch, frame, build_tcp(frame, s), now);
}

static void peer_spec(struct tcp_spec s)
{
	s.to_guest = true;
	cm_from_client(cm, frame, build_tcp(frame, &s), now);
}

static void pvm(uint32_t seq, const char *data, uint32_t ack)
{
	struct tcp_spec s = spec(seq, data, ack);

	pvm_spec(&s);
}

static void svm(uint32_t seq, const char *data, uint32_t ack)
{
	struct tcp_spec s = spec(seq, data, ack);

	s.window = 77;
	s.ipid = 9;
	svm_spec(&s);
}

static void flagged(bool from_pvm, uint32_t seq, const char *data, uint32_t ack, uint8_t flags)
{
	struct tcp_spec s = spec(seq, data, ack);

	s.flags = flags;
	if (flags & F_SYN) {
		s.mss = 1460;
		s.tsval += from_pvm ? 0 : 555;
	}
	from_pvm ? pvm_spec(&s) : svm_spec(&s);
}

static void begin_with(const struct cm_config *cfg)
{
	bed_init(&bed, cfg);
	cm = bed.cm;
	now = 1000000;
	epoch = 1;
}

static void begin(void)
{
	begin_with(NULL);
}

/* an established connection: guest's stream at 1001, peer's at 5001 */
static void connect_both(void)
{
	flagged(true, 1000, "", 5001, F_SYN | F_ACK);
	flagged(false, 77000, "", 5001, F_SYN | F_ACK);
	CHECK(bed_new(&bed) == 1);
}

static void end(void)
{
	struct cm_stats st;

	cm_get_stats(cm, &st);
	CHECK(st.released == bed.n);
	bed_fini(&bed);
}

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

static void test_rst(void)
{
	begin();
	connect_both();
	flagged(true, 1001, "", 5001, F_RST | F_ACK);
	CHECK(bed_new(&bed) == 0);
	flagged(false, 1001, "", 5001, F_RST | F_ACK);
	CHECK(bed_new(&bed) == 1 && (bed_last(&bed, 0).flags & F_RST));
	end();
}

static void test_syn(void)
{
	begin();
	flagged(true, 1000, "", 5001, F_SYN | F_ACK);
	CHECK(bed_new(&bed) == 0 && bed.syns == 1);
	flagged(false, 9000, "", 5002, F_SYN | F_ACK); /* of another incarnation */
	CHECK(bed_new(&bed) == 0);
	flagged(false, 9000, "", 5001, F_SYN | F_ACK);
	CHECK(bed_new(&bed) == 1);
	flagged(true, 1000, "", 5001, F_SYN | F_ACK); /* a repetition */
	CHECK(bed_new(&bed) == 1 && bed.syns == 1);
	peer_spec((struct tcp_spec){ .gport = G, .pport = P, .seq = 8000, .flags = F_SYN });
	flagged(false, 60000, "", 8001, F_SYN | F_ACK); /* the SVM is first */
	flagged(true, 50000, "", 8001, F_SYN | F_ACK);
	CHECK(bed_new(&bed) == 1 && bed.syns == 2 && bed.wants == 0);
	pvm(50001, "x", 8001);
	svm(50001, "x", 8001);
	CHECK(bed_new(&bed) == 1);
	end();
}

static void test_syn_options_differ(void)
{
	struct tcp_spec s = spec(4000, "", 5001);

	begin();
	flagged(true, 1000, "", 5001, F_SYN | F_ACK);
	s.flags = F_SYN | F_ACK;
	s.mss = 1400;
	svm_spec(&s);
	CHECK(bed_new(&bed) == 0 && bed.wants == 1 && bed.cause == CM_MISMATCH);
	end();
}

static void test_guest_as_client(void)
{
	begin();
	flagged(true, 1000, "", 0, F_SYN);
	CHECK(bed.syns == 1 && bed_new(&bed) == 0);
	flagged(false, 3333, "", 0, F_SYN); /* of another incarnation */
	CHECK(bed_new(&bed) == 0);
	flagged(false, 1000, "", 0, F_SYN);
	CHECK(bed_new(&bed) == 1);
	pvm(1001, "", 7001); /* the handshake's third: the SVM must have it too */
	CHECK(bed_new(&bed) == 0);
	svm(1001, "", 7001);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 7001);
	end();
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

static void test_rst_after_both_fins(void)
{
	begin();
	connect_both();
	flagged(true, 1001, "", 5001, F_ACK | F_FIN);
	flagged(true, 1002, "", 0, F_RST);
	CHECK(bed_new(&bed) == 0);
	flagged(false, 1001, "", 5001, F_ACK | F_FIN);
	CHECK(bed_new(&bed) == 2);
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

static void test_boundary_and_held(void)
{
	begin();
	connect_both();
	pvm(1001, "abc", 5011);
	pvm(1004, "", 5021);
	cm_boundary(cm, ++epoch, now);
	pvm(1001, "abc", 5021); /* repeats what is not held yet */
	pvm(1004, "def", 5031);
	CHECK(bed_new(&bed) == 0);
	svm(1004, "def", 5001);
	CHECK(bed_new(&bed) == 4); /* implies that the checkpoint is held: 2 before, repetition, new */
	CHECK(bed_last(&bed, 0).ack == 5021 && bed_last(&bed, 0).seq == 1004);
	svm(1007, "", 5031);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5031);
	CHECK(bed.wants == 0);
	end();
}

/* what waits for the boundary after it needs no word of the new SVM */
static void test_held_serves_repetitions(void)
{
	begin();
	connect_both();
	pvm(1001, "abc", 5011);
	cm_boundary(cm, ++epoch, now);
	pvm(1001, "abc", 5011);
	pvm(1004, "", 5011);
	CHECK(bed_new(&bed) == 0);
	cm_held(cm, epoch, now);
	CHECK(bed_new(&bed) == 3);
	end();
}

static void test_held_comes_first(void)
{
	begin();
	connect_both();
	pvm(1001, "abc", 5001);
	cm_held(cm, 2, now);
	CHECK(bed_new(&bed) == 0);
	cm_boundary(cm, 2, now);
	CHECK(bed_new(&bed) == 1);
	end();
}

static void test_old_svm_is_ignored(void)
{
	struct cm_stats st;

	begin();
	connect_both();
	pvm(1001, "abc", 5001);
	cm_boundary(cm, 2, now);
	svm(1001, "abc", 5001); /* epoch 1 */
	CHECK(bed_new(&bed) == 0);
	cm_get_stats(cm, &st);
	CHECK(st.stale_svm_frames == 1);
	end();
}

static void test_two_boundaries(void)
{
	begin();
	connect_both();
	pvm(1001, "a", 5001);
	cm_boundary(cm, 2, now);
	pvm(1002, "b", 5001);
	cm_boundary(cm, 3, now);
	pvm(1003, "c", 5001);
	cm_held(cm, 2, now);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1001);
	cm_held(cm, 3, now);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).seq == 1002);
	epoch = 3;
	svm(1003, "c", 5001);
	CHECK(bed_new(&bed) == 1);
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

static void test_missing(void)
{
	begin();
	connect_both();
	CHECK(cm_next_tick(cm) == UINT64_MAX);
	pvm(1001, "abc", 5001);
	CHECK(cm_next_tick(cm) == now + 20000);
	CHECK(cm_tick(cm, now + 19999) == now + 20000 && bed.wants == 0);
	CHECK(cm_tick(cm, now + 20000) == UINT64_MAX && bed.wants == 1 && bed.cause == CM_MISSING);
	cm_tick(cm, now + 50000);
	CHECK(bed.wants == 1);
	now += 60000;
	cm_boundary(cm, ++epoch, now);
	pvm(1004, "d", 5001);
	CHECK(cm_tick(cm, now + 500000) == UINT64_MAX);
	now += 500000;
	cm_held(cm, epoch, now);
	CHECK(cm_next_tick(cm) == UINT64_MAX);
	now += 500000;
	cm_svm_runs(cm, now);
	CHECK(cm_next_tick(cm) == now + 20000);
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

static void test_wait_follows_lag(void)
{
	struct cm_stats st;

	begin();
	connect_both();
	for (uint32_t i = 0; i < 100; i++) {
		pvm(1001 + i, "a", 5001);
		now += 10000;
		svm(1001 + i, "a", 5001);
	}
	cm_get_stats(cm, &st);
	CHECK(st.lag_us > 9000 && st.lag_us <= 10000);
	pvm(1101, "a", 5001);
	CHECK(st.lag_dev_us < 1000);
	CHECK(cm_next_tick(cm) == now + 2 * st.lag_us + 8 * st.lag_dev_us);
	end();
}

static void test_peer_reset(void)
{
	begin();
	connect_both();
	pvm(1001, "abc", 5001);
	peer_spec((struct tcp_spec){ .gport = G, .pport = P, .seq = 5001, .flags = F_RST });
	pvm(1004, "def", 5001);
	CHECK(cm_next_tick(cm) == UINT64_MAX);
	now += 60000;
	pvm(1001, "abcdef", 5001); /* the RST was forged */
	svm(1001, "abcdef", 5001);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	end();
}

static void udp(bool from_pvm, const char *text, uint16_t ipid)
{
	size_t n = build_udp(frame, false, 53, 5353, text, strlen(text), ipid);

	from_pvm ? cm_from_pvm(cm, frame, n, now) : cm_from_svm(cm, epoch, frame, n, now);
}

static void test_udp(void)
{
	begin();
	udp(true, "one", 1);
	udp(true, "two", 2);
	CHECK(bed_new(&bed) == 0);
	udp(false, "one", 7);
	CHECK(bed_new(&bed) == 1);
	udp(false, "two", 8);
	udp(false, "three", 9);
	CHECK(bed_new(&bed) == 1);
	udp(true, "three", 3);
	CHECK(bed_new(&bed) == 1 && bed.wants == 0);
	udp(true, "four", 1);
	udp(false, "fOur", 1);
	CHECK(bed_new(&bed) == 0 && bed.wants == 1);
	cm_boundary(cm, ++epoch, now);
	cm_held(cm, epoch, now);
	CHECK(bed_new(&bed) == 1);
	udp(false, "five", 1);
	udp(true, "five", 1);
	CHECK(bed_new(&bed) == 1 && bed.wants == 1);
	end();
}

static void test_icmp_and_arp(void)
{
	size_t n;

	begin();
	n = build_icmp(frame, false, 0, 44, "ping", 4);
	cm_from_pvm(cm, frame, n, now);
	CHECK(bed_new(&bed) == 0);
	n = build_icmp(frame, false, 0, 45, "pong", 4);
	cm_from_svm(cm, epoch, frame, n, now);
	CHECK(bed_new(&bed) == 0 && bed.wants == 0);
	n = build_icmp(frame, false, 0, 44, "ping", 4);
	cm_from_svm(cm, epoch, frame, n, now);
	CHECK(bed_new(&bed) == 1);
	n = build_arp(frame);
	cm_from_svm(cm, epoch, frame, n, now);
	CHECK(bed_new(&bed) == 0);
	cm_set_mode(cm, CM_HOLD, now);
	cm_from_pvm(cm, frame, n, now);
	CHECK(bed_new(&bed) == 1);
	end();
}

static void test_ip6_and_vlan(void)
{
	struct tcp_spec s = spec(1001, "abc", 5020), t;

	begin();
	s.v6 = s.vlan = true;
	t = s;
	t.ack = 5010;
	pvm_spec(&s);
	svm_spec(&t);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5010);
	t.ack = 5030;
	t.seq = 1004;
	t.len = 0;
	svm_spec(&t);
	CHECK(bed_new(&bed) == 1 && bed_last(&bed, 0).ack == 5020 && bed_last(&bed, 0).len == 0);
	end();
}

static void test_hold_mode(void)
{
	begin();
	cm_set_mode(cm, CM_HOLD, now);
	pvm(1001, "abc", 5001);
	udp(true, "x", 1);
	svm(1001, "abc", 5001);
	CHECK(bed_new(&bed) == 0 && cm_next_tick(cm) == UINT64_MAX);
	cm_boundary(cm, 2, now);
	pvm(1004, "def", 5001);
	cm_held(cm, 2, now);
	CHECK(bed_new(&bed) == 2);
	cm_set_mode(cm, CM_PASS, now);
	CHECK(bed_new(&bed) == 1);
	pvm(1007, "ghi", 5001);
	CHECK(bed_new(&bed) == 1);
	end();
}

static void test_pass_releases_in_order(void)
{
	begin();
	connect_both();
	pvm(1001, "a", 5001);
	cm_boundary(cm, 2, now);
	pvm(1002, "b", 5001);
	pvm(1003, "", 6001);
	udp(true, "u", 1);
	cm_set_mode(cm, CM_PASS, now);
	CHECK(bed_new(&bed) == 4);
	CHECK(bed_last(&bed, 0).ack == 6001 && bed_last(&bed, 2).seq == 1002 &&
	      bed_last(&bed, 3).seq == 1001);
	cm_set_mode(cm, CM_COMPARE, now);
	cm_start_epoch(cm, 1, now); /* epochs of a new pair may count anew */
	epoch = 1;
	pvm(1003, "c", 5001);
	CHECK(bed_new(&bed) == 0);
	svm(1003, "c", 5001);
	CHECK(bed_new(&bed) == 1);
	end();
}

static void test_bounds(void)
{
	struct cm_config cfg = { .max_held_bytes = 64 << 10 };
	struct cm_stats st;
	char data[1001];

	memset(data, 'x', 1000);
	data[1000] = 0;
	begin_with(&cfg);
	connect_both();
	for (uint32_t i = 0; i < 1000; i++)
		pvm(1001 + 1000 * i, data, 5001);
	cm_get_stats(cm, &st);
	CHECK(bed.wants == 1 && bed.cause == CM_FULL);
	CHECK(st.dropped > 0 && st.held_bytes > 32 << 10 && st.held_bytes <= 128 << 10);
	cm_boundary(cm, ++epoch, now);
	cm_held(cm, epoch, now);
	CHECK(bed_new(&bed) == st.held_packets);
	cm_get_stats(cm, &st);
	CHECK(st.held_packets == 0 && st.held_bytes == 0);
	end();
	begin_with(&cfg);
	connect_both();
	for (uint32_t i = 0; i < 1000; i++)
		svm(1001 + 1000 * i, data, 5001);
	CHECK(bed.wants == 1 && bed.cause == CM_FULL);
	end();
}

static void test_flow_table_full(void)
{
	struct cm_config cfg = { .max_flows = 8 };
	struct tcp_spec s = spec(1, "x", 1);
	struct cm_stats st;

	begin_with(&cfg);
	for (uint16_t i = 0; i < 20; i++) {
		s.pport = i;
		pvm_spec(&s);
	}
	cm_get_stats(cm, &st);
	CHECK(st.flows == 8 && st.held_packets == 20 && bed.wants == 1 && bed.cause == CM_FULL);
	cm_boundary(cm, ++epoch, now);
	cm_held(cm, epoch, now);
	CHECK(bed_new(&bed) == 20);
	s.pport = 100;
	pvm_spec(&s); /* takes the place of an idle one */
	svm_spec(&s);
	CHECK(bed_new(&bed) == 1);
	end();
}

static void test_closed_flows_go(void)
{
	struct cm_stats st;
	struct tcp_spec s;

	begin();
	for (uint16_t i = 0; i < 1000; i++) {
		now += 50000;
		s = spec(1000, "", 5001);
		s.flags = F_ACK | F_FIN;
		s.pport = i;
		pvm_spec(&s);
		svm_spec(&s);
		peer_spec((struct tcp_spec){ .gport = G, .pport = i, .seq = 5001, .ack = 1001,
			.flags = F_ACK | F_FIN });
	}
	cm_get_stats(cm, &st);
	CHECK(bed_new(&bed) == 1000);
	CHECK(st.flows >= 100 && st.flows <= 250); /* those of the last 10 s */
	end();
}

int main(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	test_data_waits_for_svm();
	test_repetition_leaves_at_once();
	test_out_of_order();
	test_mismatch();
	test_mismatch_holds_one_flow_only();
	test_fin();
	test_rst();
	test_syn();
	test_syn_options_differ();
	test_guest_as_client();
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
	test_rst_after_both_fins();
	test_boundary_and_held();
	test_held_serves_repetitions();
	test_held_comes_first();
	test_old_svm_is_ignored();
	test_two_boundaries();
	test_ack_falls_back_at_boundary();
	test_unknown_connection();
	test_missing();
	test_owed_ack_is_missing_later();
	test_wait_follows_lag();
	test_peer_reset();
	test_udp();
	test_icmp_and_arp();
	test_ip6_and_vlan();
	test_hold_mode();
	test_pass_releases_in_order();
	test_bounds();
	test_flow_table_full();
	test_closed_flows_go();
	puts("ok");
	return 0;
}
