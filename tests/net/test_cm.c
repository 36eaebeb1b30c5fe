/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_cm.c - the comparing module: boundaries, time, bounds, and what is not TCP
 */
#include "cm_bed.h"

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

static void udp(bool from_pvm, const char *text, uint16_t ipid)
{
	size_t n = build_udp(frame, false, 53, 5353, text, strlen(text), ipid);

	from_pvm ? cm_from_pvm(cm, frame, n, now) : cm_from_svm(cm, epoch, frame, n, now);
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
	CHECK(st.flows == 8 && st.held_packets == 20 && bed.wants == 0);
	now = cm_next_tick(cm);
	cm_tick(cm, now);
	CHECK(bed.wants == 1 && bed.cause == CM_FULL);
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

int main(void)
{
	test_boundary_and_held();
	test_held_serves_repetitions();
	test_held_comes_first();
	test_old_svm_is_ignored();
	test_two_boundaries();
	test_missing();
	test_wait_follows_lag();
	test_ip6_and_vlan();
	test_hold_mode();
	test_pass_releases_in_order();
	test_bounds();
	test_flow_table_full();
	test_closed_flows_go();
	puts("ok");
	return 0;
}
