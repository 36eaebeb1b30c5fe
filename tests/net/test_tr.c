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
	tr_pvm_syn(tr, frame, len);
}

static void begin(void)
{
	tr = tr_new(0);
	CHECK(tr);
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
		CHECK(tr_flows(tr) == 1);
		tr_failover(tr, 50);
		CHECK(tr_flows(tr) == 1);
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
	CHECK(tr_flows(tr) == 0);
	tr_failover(tr, 50);
	CHECK(to_svm(spec(true, F_ACK, 1, 2, 3, 100)) && result(true).tsecr == 50);
	CHECK(to_svm(spec(true, F_SYN, 1, 0, 3, 0)) && result(true).tsecr == 0);
	CHECK(from_svm(spec(false, F_ACK, 1, 2, 3, 100)) && result(false).tsval == 53);
	tr_free(tr);
}

static void test_new_incarnation(void)
{
	begin();
	connect_server(false);
	CHECK(to_svm(spec(true, F_SYN, PEER_ISN + 999, 0, 9, 0)));
	CHECK(tr_flows(tr) == 0);
	CHECK(from_svm(spec(false, F_SYN | F_ACK, 42, PEER_ISN + 1000, 1000, 9)));
	CHECK(result(false).seq == 42);
	pvm_syn(spec(false, F_SYN | F_ACK, 142, PEER_ISN + 1000, 1000, 9));
	CHECK(from_svm(spec(false, F_ACK, 43, PEER_ISN + 1000, 1000, 9)));
	CHECK(result(false).seq == 143);
	tr_free(tr);
}

static void test_guest_as_client(void)
{
	begin();
	pvm_syn(spec(false, F_SYN, PVM_ISN, 0, 1300, 0));
	CHECK(from_svm(spec(false, F_SYN, SVM_ISN, 0, 1000, 0)));
	CHECK(result(false).seq == PVM_ISN);
	CHECK(to_svm(spec(true, F_SYN | F_ACK, PEER_ISN, PVM_ISN + 1, 9, 1300)));
	CHECK(result(true).ack == SVM_ISN + 1 && result(true).tsecr == 1000);
	check_established();
	tr_free(tr);
}

static void test_reset(void)
{
	begin();
	connect_server(false);
	tr_reset(tr);
	CHECK(tr_flows(tr) == 0);
	CHECK(from_svm(spec(false, F_ACK, 43, 1, 1000, 9)) && result(false).seq == 43);
	tr_free(tr);
}

static void test_failover_forgets_halves(void)
{
	begin();
	pvm_syn(spec(false, F_SYN | F_ACK, PVM_ISN, PEER_ISN + 1, 1300, 9));
	tr_failover(tr, 0);
	CHECK(tr_flows(tr) == 0);
	CHECK(from_svm(spec(false, F_SYN | F_ACK, 77, PEER_ISN + 1, 1000, 9)) && result(false).seq == 77);
	CHECK(tr_flows(tr) == 0);
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
	CHECK(result(false).seq == 77 && tr_flows(tr) == 0);
	CHECK(from_svm(spec(false, F_ACK, 78, PEER_ISN + 999, 1000, 9)) && result(false).seq == 78);
	tr_free(tr);
}

static void test_table_is_bounded(void)
{
	struct tcp_spec s = spec(false, F_SYN | F_ACK, 60, 1, 1300, 9);

	tr = tr_new(100);
	for (uint16_t i = 0; i < 5000; i++) {
		s.pport = i;
		pvm_syn(s);
	}
	CHECK(tr_flows(tr) == 100);
	tr_free(tr);
}

/* the header that an ICMP error quotes is in the PVM's numbers */
static void test_icmp_error(void)
{
	uint8_t quote[64];
	struct tcp_spec s = spec(false, F_ACK, PVM_ISN + 100, 1, 0, 0);
	size_t n;
	uint32_t sum = 0;

	begin();
	connect_server(false);
	build_tcp(frame, &s);
	memcpy(quote, frame + VNET_HLEN + 14, 28);
	n = build_icmp(frame, true, 3, 1500, quote, 28);
	CHECK(tr_to_svm(tr, frame, n, 1));
	CHECK(frame[VNET_HLEN + 14 + 20 + 8 + 20 + 6] == (SVM_ISN + 100) >> 8);
	CHECK(frame[VNET_HLEN + 14 + 20 + 8 + 20 + 7] == ((SVM_ISN + 100) & 255));
	for (size_t i = VNET_HLEN + 34; i < n; i += 2)
		sum += (uint32_t)frame[i] << 8 | frame[i + 1];
	CHECK((sum & 0xffff) + (sum >> 16) == 0xffff);
	tr_free(tr);
}

/* to the client and back again is where it started, whatever the numbers and the options */
static void test_round_trip(uint64_t seed)
{
	struct rnd r = { seed };

	for (int i = 0; i < 20000; i++) {
		uint32_t p = (uint32_t)rnd_next(&r), s = (uint32_t)rnd_next(&r), d = rnd_below(&r, 99999);
		struct tcp_spec x = spec(false, F_SYN | F_ACK, p, 1, 1 | (uint32_t)rnd_next(&r), 9);
		struct seg out;
		char data[64];

		for (size_t k = 0; k < sizeof(data); k++)
			data[k] = (char)rnd_next(&r);
		begin();
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
		tr_free(tr);
	}
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed_from(argc, argv);

	test_server();
	test_rst_is_translated();
	test_svm_not_ready();
	test_unknown_is_identity();
	test_new_incarnation();
	test_guest_as_client();
	test_reset();
	test_failover_forgets_halves();
	test_new_connection_after_failover();
	test_table_is_bounded();
	test_icmp_error();
	test_round_trip(seed);
	puts("ok");
	return 0;
}
