/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tcp_state.c - how TCP connections begin and end
 */
#include "cm_bed.h"

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

int main(void)
{
	test_rst();
	test_syn();
	test_syn_options_differ();
	test_guest_as_client();
	test_rst_after_both_fins();
	test_peer_reset();
	puts("ok");
	return 0;
}
