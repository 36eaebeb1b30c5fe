/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tr.c - the translator: what a client says reaches the SVM in its own numbers, and back
 */
#include "net_test.h"

static struct tr *tr;
static uint8_t frame[NET_FRAME_MAX];
static size_t len;

enum { G = 80, P = 4000, PVM_ISN = 0xfffffff0, SVM_ISN = 5000, PEER_ISN = 700 };

static struct tcp_spec spec(bool to_guest, uint8_t flags, uint32_t seq, uint32_t ack, uint32_t tsval,
	uint32_t tsecr)
{
	return (struct tcp_spec){ .to_guest = to_guest, .gport = G, .pport = P, .seq = seq, .ack = ack,
		.flags = flags, .tsval = tsval, .tsecr = tsecr, .data = "data!", .len = 5 };
}

static struct seg result(bool to_guest)
{
	struct seg s;

	CHECK(checksums_ok(frame, len));
	CHECK(parse_seg(frame, len, to_guest, &s));
	return s;
}

static bool to_svm(struct tcp_spec s)
{
	len = build_tcp(frame, &s);
	return tr_to_svm(tr, frame, len, 1);
}

static bool from_svm(struct tcp_spec s)
{
	len = build_tcp(frame, &s);
	return tr_from_svm(tr, frame, len, 1);
}

static void pvm_syn(struct tcp_spec s)
{
	len = build_tcp(frame, &s);
	tr_pvm_syn(tr, frame, len, 1);
}

static void on_waited(void *opaque, const uint8_t *f, size_t n)
{
	(void)opaque;
	(void)f;
	(void)n;
	CHECK(!"no SYN waits");
}

static const struct tr_ops ops = { on_waited };

static void begin_with(size_t max_flows)
{
	struct tr_config cfg = { .max_flows = max_flows, .hash_seed = test_seed };

	tr = tr_new(&cfg, &ops, NULL);
	CHECK(tr);
}

static void begin(void)
{
	begin_with(0);
}

static struct tr_stats stats(void)
{
	struct tr_stats st;

	tr_get_stats(tr, &st);
	return st;
}

/* the guest is the server; PVM's timestamps are 300 ahead of the SVM's */
static void connect_server(bool svm_first)
{
	struct tcp_spec p = spec(false, F_SYN | F_ACK, PVM_ISN, PEER_ISN + 1, 1300, 9);
	struct tcp_spec s = spec(false, F_SYN | F_ACK, SVM_ISN, PEER_ISN + 1, 1000, 9);

	CHECK(to_svm(spec(true, F_SYN, PEER_ISN, 0, 9, 0)));
	if (!svm_first)
		pvm_syn(p);
	CHECK(from_svm(s));
	CHECK(result(false).seq == (svm_first ? SVM_ISN : PVM_ISN));
	if (svm_first)
		pvm_syn(p);
}

static void check_established(void)
{
	struct tcp_spec s = spec(true, F_ACK, PEER_ISN + 1, PVM_ISN + 20, 10, 1310);
	struct seg r;

	s.nsack = 2;
	for (unsigned i = 0; i < 4; i++)
		s.sack[i] = PVM_ISN + 30 + 10 * i;
	for (int odd = 0; odd < 2; odd++) {
		s.odd_ts = odd;
		CHECK(to_svm(s));
		r = result(true);
		CHECK(r.ack == SVM_ISN + 20 && r.tsecr == 1010 && r.tsval == 10 && r.seq == s.seq);
		for (unsigned i = 0; i < 4; i++)
			CHECK(r.sack[i] == SVM_ISN + 30 + 10 * i);
	}
	CHECK(from_svm(spec(false, F_ACK, SVM_ISN + 20, PEER_ISN + 6, 1020, 10)));
	r = result(false);
	CHECK(r.seq == (uint32_t)PVM_ISN + 20 && r.tsval == 1320 && r.tsecr == 10 && r.ack == PEER_ISN + 6);
}

static void test_server(void)
{
	for (int svm_first = 0; svm_first < 2; svm_first++) {
		begin();
		connect_server(svm_first);
		check_established();
		CHECK(stats().entries == 1);
		tr_failover(tr, 50);
		CHECK(stats().entries == 1);
		CHECK(from_svm(spec(false, F_ACK, SVM_ISN + 20, 1, 1020, 10)));
		CHECK(result(false).tsval == 1370 && result(false).seq == (uint32_t)PVM_ISN + 20);
		CHECK(to_svm(spec(true, F_ACK, 1, PVM_ISN + 20, 11, 1370)));
		CHECK(result(true).tsecr == 1020 && result(true).ack == SVM_ISN + 20);
		tr_free(tr);
	}
}

static void test_rst_is_translated(void)
{
	begin();
	connect_server(false);
	CHECK(from_svm(spec(false, F_RST, SVM_ISN + 7, 0, 0, 0)));
	CHECK(result(false).seq == (uint32_t)PVM_ISN + 7);
	tr_free(tr);
}

static void test_svm_not_ready(void)
{
	begin();
	CHECK(to_svm(spec(true, F_SYN, PEER_ISN, 0, 9, 0)));
	pvm_syn(spec(false, F_SYN | F_ACK, PVM_ISN, PEER_ISN + 1, 1300, 9));
	CHECK(!to_svm(spec(true, F_ACK, PEER_ISN + 1, PVM_ISN + 1, 10, 1300)));
	CHECK(to_svm(spec(true, F_SYN, PEER_ISN, 0, 12, 0)));
	CHECK(from_svm(spec(false, F_SYN | F_ACK, SVM_ISN, PEER_ISN + 1, 1000, 12)));
	check_established();
	tr_free(tr);
}

static void test_unknown_is_identity(void)
{
	struct tcp_spec s = spec(true, F_ACK, 1, 2, 3, 4);
	uint8_t copy[2000];

	begin();
	CHECK(to_svm(s));
	memcpy(copy, frame, len);
	CHECK(build_tcp(frame, &s) == len && memcmp(copy, frame, len) == 0);
	CHECK(stats().entries == 0);
	tr_failover(tr, 50);
	CHECK(to_svm(spec(true, F_ACK, 1, 2, 3, 100)) && result(true).tsecr == 50);
	CHECK(to_svm(spec(true, F_SYN, 1, 0, 3, 0)) && result(true).tsecr == 0);
	CHECK(from_svm(spec(false, F_ACK, 1, 2, 3, 100)) && result(false).tsval == 53);
	tr_free(tr);
}

/* a client's SYN alone, which anybody can forge, leaves the old connection as it is */
static void test_new_incarnation(void)
{
	begin();
	connect_server(false);
	CHECK(to_svm(spec(true, F_SYN, PEER_ISN + 999, 0, 9, 0)));
	check_established();
	CHECK(from_svm(spec(false, F_SYN | F_ACK, 42, PEER_ISN + 1000, 1000, 9)));
	CHECK(result(false).seq == 42);
	pvm_syn(spec(false, F_SYN | F_ACK, 142, PEER_ISN + 1000, 1000, 9));
	CHECK(from_svm(spec(false, F_ACK, 43, PEER_ISN + 1000, 1000, 9)));
	CHECK(result(false).seq == 143);
	tr_free(tr);
}

static void test_reset(void)
{
	begin();
	connect_server(false);
	tr_reset(tr, 1);
	CHECK(stats().entries == 0);
	CHECK(from_svm(spec(false, F_ACK, 43, 1, 1000, 9)) && result(false).seq == 43);
	tr_free(tr);
}

static void test_failover_forgets_halves(void)
{
	begin();
	pvm_syn(spec(false, F_SYN | F_ACK, PVM_ISN, PEER_ISN + 1, 1300, 9));
	tr_failover(tr, 0);
	CHECK(stats().entries == 0);
	CHECK(from_svm(spec(false, F_SYN | F_ACK, 77, PEER_ISN + 1, 1000, 9)) && result(false).seq == 77);
	CHECK(stats().entries == 0);
	CHECK(to_svm(spec(true, F_ACK, 1, 78, 3, 4)) && result(true).ack == 78);
	tr_free(tr);
}

/* an old connection's ports are used again after failover */
static void test_new_connection_after_failover(void)
{
	begin();
	connect_server(false);
	tr_failover(tr, 0);
	CHECK(from_svm(spec(false, F_SYN | F_ACK, 77, PEER_ISN + 999, 1000, 9)));
	CHECK(result(false).seq == 77 && stats().entries == 0);
	CHECK(from_svm(spec(false, F_ACK, 78, PEER_ISN + 999, 1000, 9)) && result(false).seq == 78);
	tr_free(tr);
}

static void syn_ack(uint16_t port, uint32_t pvm, uint32_t svm)
{
	struct tcp_spec s = spec(false, F_SYN | F_ACK, pvm, PEER_ISN + 1, 1300, 9);

	s.pport = port;
	pvm_syn(s);
	s.seq = svm;
	from_svm(s);
}

static struct tcp_spec at_port(uint16_t port, struct tcp_spec s)
{
	s.pport = port;
	return s;
}

static void open_port(uint16_t port)
{
	syn_ack(port, 60 + port, 7000 + port);
	CHECK(to_svm(at_port(port, spec(true, F_ACK, PEER_ISN + 1, 61 + port, 10, 1300))));
	CHECK(result(true).ack == 7001u + port);
}

static bool is_translated(uint16_t port)
{
	CHECK(to_svm(at_port(port, spec(true, F_ACK, PEER_ISN + 1, 61 + port, 10, 1300))));
	return result(true).ack == 7001u + port;
}

/* A flood costs open connections nothing, whoever answers half of it by guessing. */
static void test_syn_flood(void)
{
	begin_with(100);
	for (uint16_t i = 0; i < 90; i++)
		open_port(i);
	for (uint32_t i = 0; i < 5000; i++) {
		syn_ack((uint16_t)(1000 + i), 60, 7000);
		if (i % 2)
			to_svm(at_port((uint16_t)(1000 + i),
				spec(true, F_ACK, PEER_ISN + 1, 61 + 65536 + i * 7919, 10, 1300)));
	}
	CHECK(stats().entries == 100 && stats().full == 0);
	for (uint16_t i = 0; i < 90; i++)
		CHECK(is_translated(i));
	tr_free(tr);
}

/* full of open connections: a new one is not translated, which is counted, and it does not come about */
static void test_full(void)
{
	begin_with(100);
	for (uint16_t i = 0; i < 100; i++)
		open_port(i);
	CHECK(stats().full == 0);
	pvm_syn(at_port(500, spec(false, F_SYN | F_ACK, 60, PEER_ISN + 1, 1300, 9)));
	CHECK(!from_svm(at_port(500, spec(false, F_SYN | F_ACK, 7000, PEER_ISN + 1, 1000, 9))));
	CHECK(stats().full == 2 && stats().entries == 100);
	for (uint16_t i = 0; i < 100; i++)
		CHECK(is_translated(i));
	tr_reset(tr, 1);
	open_port(500);
	tr_free(tr);
}

/* what is over makes room: each way to end a connection */
static void end_connection(uint16_t port, int how)
{
	uint32_t p = 61u + port, s = 7001u + port;
	struct tcp_spec f;

	CHECK(from_svm(at_port(port, spec(false, F_ACK, s, PEER_ISN + 6, 1000, 10))));
	switch (how) {
	case 0:
		CHECK(from_svm(at_port(port, spec(false, F_RST, s, 0, 0, 0))));
		break;
	case 1:
		CHECK(to_svm(at_port(port, spec(true, F_RST, PEER_ISN + 6, 0, 0, 0))));
		break;
	default:
		f = at_port(port, spec(false, F_FIN | F_ACK, s, PEER_ISN + 6, 1000, 10));
		CHECK(from_svm(f));
		f = at_port(port, spec(true, F_FIN | F_ACK, PEER_ISN + 6, p + 6, 10, 1300));
		CHECK(to_svm(f));
		CHECK(from_svm(at_port(port, spec(false, F_ACK, s + 6, PEER_ISN + 12, 1000, 10))));
	}
}

static void test_over_makes_room(void)
{
	for (int how = 0; how < 3; how++) {
		begin_with(10);
		for (uint16_t i = 0; i < 10; i++)
			open_port(i);
		end_connection(4, how);
		CHECK(is_translated(4)); /* repetitions still are */
		open_port(20);
		CHECK(stats().full == 0 && !is_translated(4) && is_translated(3) && is_translated(5));
		tr_free(tr);
	}
}

/* a RST that the guest does not take ends nothing */
static void test_forged_rst(void)
{
	begin_with(1);
	open_port(4);
	CHECK(from_svm(at_port(4, spec(false, F_ACK, 7005, PEER_ISN + 6, 1000, 10))));
	CHECK(to_svm(at_port(4, spec(true, F_RST, PEER_ISN + 7, 0, 0, 0))));
	syn_ack(5, 60, 7000);
	CHECK(stats().full && is_translated(4));
	CHECK(to_svm(at_port(4, spec(true, F_RST, PEER_ISN + 6, 0, 0, 0))));
	CHECK(from_svm(at_port(4, spec(false, F_ACK, 7005, PEER_ISN + 6, 1000, 10))));
	syn_ack(5, 60, 7000);
	CHECK(is_translated(4));
	tr_free(tr);
}

/* to the client and back again is where it started, whatever the numbers and the options */
static void test_round_trip(uint64_t seed)
{
	struct rnd r = { seed };

	begin();
	for (int i = 0; i < 20000; i++) {
		uint32_t p = (uint32_t)rnd_next(&r), s = (uint32_t)rnd_next(&r), d = rnd_below(&r, 99999);
		struct tcp_spec x = spec(false, F_SYN | F_ACK, p, 1, 1 | (uint32_t)rnd_next(&r), 9);
		struct seg out;
		char data[64];

		for (size_t k = 0; k < sizeof(data); k++)
			data[k] = (char)rnd_next(&r);
		x.v6 = rnd_below(&r, 2);
		x.vlan = rnd_below(&r, 2);
		x.odd_ts = rnd_below(&r, 2);
		x.data = data;
		x.len = rnd_below(&r, 64);
		pvm_syn(x);
		x.seq = s;
		x.tsval = 1 | (uint32_t)rnd_next(&r);
		CHECK(from_svm(x) && result(false).seq == p);
		x.flags = F_ACK;
		x.seq = s + d;
		CHECK(from_svm(x));
		out = result(false);
		CHECK(out.seq == p + d);
		x.to_guest = true;
		x.ack = out.seq;
		x.tsecr = out.tsval;
		x.nsack = rnd_below(&r, 3);
		x.sack[0] = x.sack[1] = x.sack[2] = x.sack[3] = p + d;
		CHECK(to_svm(x));
		out = result(true);
		CHECK(out.ack == s + d && (x.tsecr == 0 || out.tsecr == x.tsval));
		CHECK(out.nsack == x.nsack && (!x.nsack || out.sack[1] == s + d));
		CHECK(out.len == x.len && memcmp(out.data, data, x.len) == 0);
		tr_reset(tr, 1);
	}
	tr_free(tr);
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed_from(argc, argv);

	test_server();
	test_rst_is_translated();
	test_svm_not_ready();
	test_unknown_is_identity();
	test_new_incarnation();
	test_reset();
	test_failover_forgets_halves();
	test_new_connection_after_failover();
	test_syn_flood();
	test_full();
	test_over_makes_room();
	test_forged_rst();
	test_round_trip(seed);
	puts("ok");
	return 0;
}
