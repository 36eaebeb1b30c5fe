/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tr_client.c - the translator: connections that the guest opens, and those it opens after a failover
 */
#include "net_test.h"

static struct tr *tr;
static uint8_t frame[NET_FRAME_MAX];
static size_t len;
static uint64_t now;

/* SYNs that came through the callback since last asked */
static struct seg waited[2000];
static unsigned nwaited;

enum { DEST = 443, PEER_ISN = 700, SECOND = 1000000 };

/* what distinguishes a destination */
static struct tcp_spec dest = { .pport = DEST };

static void on_waited(void *opaque, const uint8_t *f, size_t n)
{
	CHECK(opaque == &now && checksums_ok(f, n) && nwaited < 2000);
	CHECK(parse_seg(f, n, false, &waited[nwaited++]));
}

static unsigned take_waited(void)
{
	unsigned n = nwaited;

	nwaited = 0;
	return n;
}

static void begin_with(size_t max_flows)
{
	static const struct tr_ops ops = { on_waited };
	struct tr_config cfg = { .max_flows = max_flows, .hash_seed = test_seed };

	tr = tr_new(&cfg, &ops, &now);
	CHECK(tr);
	dest = (struct tcp_spec){ .pport = DEST };
	now = 1;
	nwaited = 0;
}

static void begin(void)
{
	begin_with(0);
}

static void end(void)
{
	CHECK(nwaited == 0);
	tr_free(tr);
}

static struct tr_stats stats(void)
{
	struct tr_stats st;

	tr_get_stats(tr, &st);
	return st;
}

static struct seg result(bool to_guest)
{
	struct seg s;

	CHECK(checksums_ok(frame, len) && parse_seg(frame, len, to_guest, &s));
	return s;
}

static struct tcp_spec spec(uint16_t gport, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct tcp_spec s = dest;

	s.gport = gport;
	s.flags = flags;
	s.seq = seq;
	s.ack = ack;
	s.mss = flags & F_SYN ? 1460 : 0;
	return s;
}

static void give_pvm(struct tcp_spec s)
{
	len = build_tcp(frame, &s);
	tr_pvm_syn(tr, frame, len, now);
}

/* the PVM's timestamps are 300 ahead of the SVM's */
static void pvm_syn(uint16_t gport, uint32_t isn)
{
	struct tcp_spec s = spec(gport, F_SYN, isn, 0);

	s.tsval = 1300;
	give_pvm(s);
}

static bool give_svm(struct tcp_spec s)
{
	len = build_tcp(frame, &s);
	return tr_from_svm(tr, frame, len, now);
}

static bool svm_syn(uint16_t gport, uint32_t isn)
{
	struct tcp_spec s = spec(gport, F_SYN, isn, 0);

	s.tsval = 1000;
	return give_svm(s);
}

static bool svm(uint16_t gport, uint8_t flags, uint32_t seq)
{
	return give_svm(spec(gport, flags, seq, PEER_ISN + 1));
}

static bool peer(uint16_t gport, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct tcp_spec s = spec(gport, flags, seq, ack);

	s.to_guest = true;
	len = build_tcp(frame, &s);
	return tr_to_svm(tr, frame, len, now);
}

/* is pport/pisn on the LAN sport/sisn inside, in both directions? */
static bool is_pair(uint16_t pport, uint32_t pisn, uint16_t sport, uint32_t sisn)
{
	struct seg s;

	if (!peer(pport, F_ACK, PEER_ISN + 1, pisn + 1))
		return false;
	s = result(true);
	if (s.gport != sport || s.ack != sisn + 1 || s.pport != dest.pport || s.seq != PEER_ISN + 1)
		return false;
	if (!svm(sport, F_ACK, sisn + 1))
		return false;
	s = result(false);
	return s.gport == pport && s.seq == pisn + 1 && s.pport == dest.pport && s.ack == PEER_ISN + 1;
}

/* one connection, the PVM's SYN first */
static void connect_pair(uint16_t pport, uint32_t pisn, uint16_t sport, uint32_t sisn)
{
	pvm_syn(pport, pisn);
	CHECK(svm_syn(sport, sisn));
	CHECK(result(false).gport == pport && result(false).seq == pisn && result(false).tsval == 1300);
	CHECK(peer(pport, F_SYN | F_ACK, PEER_ISN, pisn + 1) && result(true).gport == sport);
	CHECK(is_pair(pport, pisn, sport, sisn));
}

static void test_either_first(void)
{
	for (int i = 0; i < 8; i++) {
		begin();
		dest.v6 = i & 2;
		dest.vlan = i & 4;
		if (i & 1) {
			connect_pair(40000, 0xfffffff0, 50000, 77);
		} else {
			CHECK(!svm_syn(50000, 77) && stats().waiting_syns == 1);
			pvm_syn(40000, 0xfffffff0);
			CHECK(take_waited() == 1 && stats().waiting_syns == 0);
			CHECK(waited[0].gport == 40000 && waited[0].pport == DEST && waited[0].seq == 0xfffffff0 &&
			      waited[0].flags == F_SYN && waited[0].tsval == 1300);
			CHECK(is_pair(40000, 0xfffffff0, 50000, 77));
		}
		CHECK(stats().entries == 1 && stats().paired_clients == 1 && stats().full == 0);
		end();
	}
}

static void test_sack_and_timestamps(void)
{
	struct tcp_spec s;
	struct seg r;

	begin();
	connect_pair(40000, 5000, 50000, 77);
	s = spec(40000, F_ACK, PEER_ISN + 1, 5001);
	s.to_guest = true;
	s.tsval = 9;
	s.tsecr = 1310;
	s.nsack = 1;
	s.sack[0] = 5010;
	s.sack[1] = 5020;
	len = build_tcp(frame, &s);
	CHECK(tr_to_svm(tr, frame, len, now));
	r = result(true);
	CHECK(r.tsval == 9 && r.tsecr == 1010 && r.nsack == 1 && r.sack[0] == 87 && r.sack[1] == 97);
	s = spec(50000, F_ACK, 78, PEER_ISN + 1);
	s.tsval = 1020;
	s.tsecr = 9;
	CHECK(give_svm(s));
	r = result(false);
	CHECK(r.tsval == 1320 && r.tsecr == 9 && r.seq == 5001);
	end();
}

/* oldest with oldest, though the VMs use each other's ports */
static void test_order(void)
{
	static const uint16_t pports[] = { 1, 2, 3, 4 }, sports[] = { 2, 3, 4, 1 };

	for (unsigned ahead = 0; ahead <= 4; ahead++) {
		begin();
		for (unsigned i = 0; i < ahead; i++)
			CHECK(!svm_syn(sports[i], 700 + i));
		for (unsigned i = 0; i < 4; i++)
			pvm_syn(pports[i], 100 + i);
		CHECK(take_waited() == ahead);
		for (unsigned i = 0; i < ahead; i++)
			CHECK(waited[i].gport == pports[i] && waited[i].seq == 100 + i);
		for (unsigned i = ahead; i < 4; i++)
			CHECK(svm_syn(sports[i], 700 + i) && result(false).gport == pports[i]);
		for (unsigned i = 0; i < 4; i++)
			CHECK(is_pair(pports[i], 100 + i, sports[i], 700 + i));
		end();
	}
}

static void test_repetitions(void)
{
	begin();
	CHECK(!svm_syn(50000, 77) && !svm_syn(50000, 77) && stats().waiting_syns == 1);
	pvm_syn(40000, 5000);
	pvm_syn(40000, 5000);
	CHECK(take_waited() == 1 && stats().paired_clients == 1);
	CHECK(svm_syn(50000, 77) && result(false).gport == 40000 && result(false).seq == 5000);
	pvm_syn(40001, 6000);
	pvm_syn(40001, 6000);
	CHECK(stats().entries == 2);
	CHECK(svm_syn(50001, 88) && result(false).gport == 40001);
	CHECK(svm_syn(50001, 88) && result(false).gport == 40001);
	CHECK(!svm_syn(50002, 99) && stats().paired_clients == 2);
	end();
}

/* other destinations, and SYNs that ask for something else, are not paired */
static void test_groups(void)
{
	const struct tcp_spec others[] = {
		{ .pport = DEST + 1 }, { .pport = DEST, .peer = 1 }, { .pport = DEST, .vlan = true },
		{ .pport = DEST, .v6 = true }, { .pport = DEST, .wscale = 8 },
	};
	const struct tcp_spec one = { .pport = DEST };

	begin();
	for (unsigned i = 0; i < 5; i++) {
		dest = others[i];
		pvm_syn(40000, 100 + i);
	}
	dest = one;
	CHECK(!svm_syn(50000, 77));
	for (unsigned i = 5; i-- > 0;) {
		dest = others[i];
		CHECK(svm_syn(50001, 700 + i) && result(false).seq == 100 + i);
	}
	dest = one;
	CHECK(stats().waiting_syns == 1);
	pvm_syn(40000, 99);
	CHECK(take_waited() == 1 && waited[0].seq == 99);
	end();
}

/* in a table so small that they share its buckets */
static void test_many_groups(void)
{
	begin_with(64);
	for (uint16_t i = 0; i < 64; i++) {
		dest.pport = i;
		pvm_syn(40000, 100 + i);
	}
	for (uint16_t i = 64; i-- > 0;) {
		dest.pport = i;
		CHECK(svm_syn(50000, 700) && result(false).seq == 100u + i);
	}
	end();
}

/* refused, and tried again from the same port, by one VM or the other first */
static void test_refused_and_again(void)
{
	for (int svm_first = 0; svm_first < 2; svm_first++) {
		begin();
		connect_pair(40000, 100, 50000, 700);
		CHECK(peer(40000, F_RST | F_ACK, 0, 101) && result(true).gport == 50000 && result(true).ack == 701);
		if (svm_first) {
			CHECK(!svm_syn(50000, 900));
			CHECK(!peer(40000, F_ACK, PEER_ISN + 1, 101)); /* the old one's, for nobody */
			pvm_syn(40000, 300);
			CHECK(take_waited() == 1 && waited[0].seq == 300);
		} else {
			pvm_syn(40000, 300);
			CHECK(!svm(50000, F_ACK, 701)); /* the old one's must not mix with the new */
			CHECK(svm_syn(50000, 900) && result(false).seq == 300);
		}
		CHECK(is_pair(40000, 300, 50000, 900) && stats().entries == 1);
		end();
	}
}

/* a SYN that its VM gives up keeps its turn: the other VM will have one for it */
static void test_given_up_keeps_order(void)
{
	begin();
	pvm_syn(40000, 100);
	pvm_syn(40000, 200);
	CHECK(!svm_syn(50000, 700)); /* the first: nothing can come of it */
	CHECK(svm_syn(50000, 800) && result(false).seq == 200);
	CHECK(is_pair(40000, 200, 50000, 800) && stats().entries == 1);
	tr_reset(tr);
	CHECK(!svm_syn(50000, 700) && !svm_syn(50000, 800));
	pvm_syn(40000, 100);
	CHECK(take_waited() == 1 && waited[0].seq == 100); /* the PVM's may leave */
	pvm_syn(40000, 200);
	CHECK(take_waited() == 1 && waited[0].seq == 200);
	CHECK(is_pair(40000, 200, 50000, 800) && stats().entries == 1);
	end();
}

/* one that only one VM opens spoils the order for two seconds at most */
static void test_left_over(void)
{
	begin();
	CHECK(!svm_syn(50000, 700));
	now += 3 * SECOND;
	CHECK(!svm_syn(50000, 700)); /* repeated: still not a new one */
	CHECK(!svm_syn(50001, 701) && stats().waiting_syns == 1);
	pvm_syn(40001, 101);
	CHECK(take_waited() == 1 && is_pair(40001, 101, 50001, 701));
	CHECK(!svm_syn(50000, 700) && stats().waiting_syns == 0);
	tr_reset(tr);
	pvm_syn(40000, 100);
	now += 3 * SECOND;
	pvm_syn(40001, 101);
	CHECK(svm_syn(50001, 701) && is_pair(40001, 101, 50001, 701));
	end();
}

/* A port given to a new connection in one VM while the other still has an old one there. */
static void test_names_of_old_connections(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	CHECK(!svm(40000, F_ACK, 5) && !svm(40000, F_RST, 5)); /* would mix with 40000 on the LAN */
	CHECK(!peer(50000, F_ACK, 5, 5) && !peer(50000, F_SYN, 5, 0)); /* would reach 50000 inside */
	CHECK(svm(60000, F_ACK, 5) && result(false).gport == 60000 && result(false).seq == 5);
	CHECK(peer(60000, F_ACK, 6, 5) && result(true).gport == 60000 && result(true).ack == 5);
	pvm_syn(40001, 101); /* half an entry protects its name just as well */
	CHECK(!svm(40001, F_ACK, 5) && !peer(40001, F_ACK, 5, 5));
	CHECK(svm_syn(50001, 701) && !svm_syn(50002, 702));
	CHECK(!peer(50002, F_ACK, 5, 5) && !svm(50002, F_ACK, 703));
	end();
}

/* opened before the checkpoint, unanswered, repeated by both: named and counted alike */
static void test_old_syn(void)
{
	begin();
	CHECK(!svm_syn(40000, 100) && !svm_syn(50001, 701));
	pvm_syn(40001, 101); /* a new one of the PVM's may take it for its own */
	CHECK(take_waited() == 1);
	tr_reset(tr);
	CHECK(!svm_syn(50001, 701) && !svm_syn(40000, 100));
	pvm_syn(40000, 100); /* not in order, but the same */
	CHECK(take_waited() == 1 && waited[0].gport == 40000 && waited[0].seq == 100);
	CHECK(is_pair(40000, 100, 40000, 100));
	tr_reset(tr);
	pvm_syn(50001, 701);
	pvm_syn(40000, 100);
	CHECK(svm_syn(40000, 100) && result(false).gport == 40000);
	tr_reset(tr);
	for (int svms = 0; svms < 2; svms++) { /* answered before the other has repeated it */
		if (svms)
			CHECK(!svm_syn(40000, 100));
		else
			pvm_syn(40000, 100);
		CHECK(!peer(40000, F_SYN | F_ACK, PEER_ISN, 102));
		CHECK(peer(40000, F_SYN | F_ACK, PEER_ISN, 101) && result(true).ack == 101);
		CHECK(stats().entries == 0 && stats().waiting_syns == 0);
	}
	end();
}

/* both SYNs cross: each side repeats its own with an ACK */
static void test_simultaneous_open(void)
{
	begin();
	pvm_syn(40000, 100);
	CHECK(svm_syn(50000, 700));
	CHECK(peer(40000, F_SYN, PEER_ISN, 0) && result(true).gport == 50000 && result(true).seq == PEER_ISN);
	give_pvm(spec(40000, F_SYN | F_ACK, 100, PEER_ISN + 1));
	CHECK(give_svm(spec(50000, F_SYN | F_ACK, 700, PEER_ISN + 1)));
	CHECK(result(false).gport == 40000 && result(false).seq == 100 && result(false).ack == PEER_ISN + 1);
	CHECK(peer(40000, F_SYN | F_ACK, PEER_ISN, 101) && result(true).ack == 701);
	CHECK(is_pair(40000, 100, 50000, 700) && stats().entries == 1);
	end();
}

static void test_waiting_is_bounded(void)
{
	static const uint8_t data[2000];
	struct tcp_spec s;

	for (int round = 0; round < 2; round++) {
		begin();
		for (uint16_t i = 0; i < 1500; i++)
			CHECK(!svm_syn((uint16_t)(1 + i), i));
		CHECK(stats().waiting_syns == 1024 && stats().entries == 1024 && stats().full == 1500 - 1024);
		if (round)
			tr_reset(tr);
		CHECK(stats().waiting_syns == (round ? 0 : 1024));
		for (uint16_t i = 0; i < 1100; i++)
			pvm_syn((uint16_t)(2000 + i), i);
		CHECK(take_waited() == (round ? 0 : 1024));
		CHECK(svm_syn(7000, 7)); /* for one of those that the PVM waits for */
		end();
	}
	begin();
	s = spec(50000, F_SYN, 700, 0);
	s.data = data;
	s.len = 2000;
	CHECK(!give_svm(s) && stats().entries == 0 && stats().full == 1);
	end();
}

/* a full table loses SYNs that wait, and their copies, before it loses a connection */
static void test_table_is_bounded(void)
{
	begin_with(50);
	for (uint16_t i = 0; i < 40; i++)
		connect_pair(1000 + i, 100 + i, 3000 + i, 700 + i);
	for (uint16_t i = 0; i < 500; i++)
		CHECK(!svm_syn(5000 + i, i));
	CHECK(stats().entries == 50 && stats().waiting_syns == 10 && stats().full == 0);
	for (uint16_t i = 0; i < 40; i++)
		CHECK(is_pair(1000 + i, 100 + i, 3000 + i, 700 + i));
	for (uint16_t i = 0; i < 10; i++)
		pvm_syn(7000 + i, i);
	CHECK(take_waited() == 10);
	for (uint16_t i = 0; i < 10; i++)
		CHECK(is_pair(7000 + i, i, 5490 + i, 490 + i));
	pvm_syn(8000, 5);
	CHECK(!svm_syn(8001, 6));
	CHECK(stats().full == 2 && stats().entries == 50 && stats().waiting_syns == 0);
	pvm_syn(1000, 999); /* used again: its old connection makes room */
	CHECK(stats().full == 2 && svm_syn(8001, 6) && is_pair(1000, 999, 8001, 6));
	end();
}

/* --- failover --- */

static void test_failover_keeps_pairs(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	pvm_syn(40001, 101);
	tr_failover(tr, 50);
	CHECK(stats().entries == 1 && is_pair(40000, 100, 50000, 700));
	CHECK(svm_syn(40001, 999) && result(false).gport == 40001 && result(false).seq == 999);
	CHECK(result(false).tsval == 1050);
	pvm_syn(40002, 5); /* a voice from the past */
	CHECK(stats().entries == 1);
	end();
}

static void test_failover_lets_waiting_go(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	CHECK(!svm_syn(50001, 701) && !svm_syn(40000, 702) && !svm_syn(50003, 703));
	tr_failover(tr, 50);
	CHECK(take_waited() == 3 && stats().waiting_syns == 0);
	CHECK(waited[0].gport == 50001 && waited[0].seq == 701 && waited[0].tsval == 1050);
	CHECK(waited[1].gport == 50000 && waited[1].seq == 702); /* the LAN's 40000 is taken */
	CHECK(waited[2].gport == 50003);
	CHECK(is_pair(50000, 702, 40000, 702) && is_pair(50001, 701, 50001, 701));
	CHECK(is_pair(40000, 100, 50000, 700));
	CHECK(svm_syn(40000, 702) && result(false).gport == 50000); /* repeated */
	end();
}

/* LAN 1, 2, 3 are 2, 3, 4 inside; a new 1 inside has to become 4 outside */
static void test_failover_follows_chain(void)
{
	begin();
	for (uint16_t i = 1; i <= 3; i++)
		connect_pair(i, 100 + i, i + 1, 700 + i);
	tr_failover(tr, 0);
	CHECK(svm_syn(1, 900) && result(false).gport == 4 && result(false).seq == 900);
	CHECK(is_pair(4, 900, 1, 900) && stats().entries == 4);
	for (uint16_t i = 1; i <= 3; i++)
		CHECK(is_pair(i, 100 + i, i + 1, 700 + i));
	CHECK(svm_syn(5, 901) && result(false).gport == 5 && stats().entries == 4);
	dest.pport++; /* another destination has ports of its own */
	CHECK(svm_syn(1, 902) && result(false).gport == 1);
	dest.pport--;
	CHECK(svm_syn(3, 903)); /* used again inside: its old connection, 2 outside, is over */
	CHECK(result(false).gport == 2 && is_pair(2, 903, 3, 903) && stats().entries == 4);
	end();
}

/* a SYN of the LAN's to such a port, and the guest's answer */
static void test_failover_incoming(void)
{
	begin();
	connect_pair(100, 500, 200, 799);
	for (uint16_t i = 1; i <= 3; i++)
		connect_pair(i, 100 + i, i + 1, 700 + i);
	tr_failover(tr, 0);
	CHECK(peer(4, F_SYN, 55, 0) && result(true).gport == 1);
	CHECK(give_svm(spec(1, F_RST | F_ACK, 0, 56)) && result(false).gport == 4);
	CHECK(stats().entries == 4);
	CHECK(!peer(4, F_ACK, 56, 1) && !svm(1, F_ACK, 5)); /* nobody's */
	CHECK(peer(4, F_SYN, 55, 0));
	CHECK(give_svm(spec(1, F_SYN | F_ACK, 800, 56)) && result(false).gport == 4); /* 1 listens */
	CHECK(is_pair(4, 800, 1, 800));
	CHECK(peer(2, F_SYN, 55, 0) && result(true).gport == 3); /* to a connection: it will object */
	CHECK(is_pair(2, 102, 3, 702));
	CHECK(peer(100, F_SYN, 55, 0) && result(true).gport == 200);
	CHECK(svm(200, F_RST, 800) && peer(100, F_SYN, 55, 0) && result(true).gport == 100); /* it is over */
	end();
}

static void test_failover_full(void)
{
	begin_with(2);
	connect_pair(1, 100, 2, 700);
	connect_pair(2, 101, 3, 701);
	tr_failover(tr, 0);
	CHECK(!svm_syn(1, 900) && stats().full == 1);
	CHECK(svm_syn(9, 900) && result(false).gport == 9);
	CHECK(is_pair(1, 100, 2, 700) && is_pair(2, 101, 3, 701));
	CHECK(svm(3, F_RST, 702));
	CHECK(svm_syn(1, 900) && result(false).gport == 3);
	end();
}

/* --- ICMP errors --- */

struct error {
	bool v6, to_guest;
	uint8_t type;
	size_t quoted; /* bytes of the TCP header */
	uint8_t ext;   /* IPv6: an extension header of this kind before it */
	uint16_t frag;
};

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t sum16(uint32_t s, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

static size_t l4_at(const struct error *e)
{
	return VNET_HLEN + 14 + (e->v6 ? 40 : 20);
}

static uint32_t icmp_sum(const struct error *e, size_t n)
{
	size_t l4 = l4_at(e);
	uint32_t s = e->v6 ? sum16(58 + (uint32_t)(n - l4), frame + l4 - 32, 32) : 0;

	return sum16(s, frame + l4, n - l4);
}

/* An error that quotes segment s: the addresses of s's packet are those of the error too, but swapped. Returns
 * the offset of the quoted ports. */
static size_t build_error(const struct error *e, struct tcp_spec s)
{
	static uint8_t seg[NET_FRAME_MAX], *ip;
	size_t ihl = e->v6 ? 40 : 20, l4 = l4_at(e), at = l4 + 8;

	s.v6 = e->v6;
	s.to_guest = !e->to_guest;
	build_tcp(seg, &s);
	s.to_guest = e->to_guest;
	build_tcp(frame, &s);
	ip = frame + VNET_HLEN + 14;
	memset(frame + l4, 0, 8);
	frame[l4] = e->type;
	memcpy(frame + at, seg + VNET_HLEN + 14, ihl);
	at += ihl;
	if (e->ext) {
		frame[at - 34] = e->ext;
		memset(frame + at, 0, 8);
		frame[at] = 6;
		put16(frame + at + 2, e->frag);
		at += 8;
	} else if (e->frag) {
		put16(frame + at - 14, e->frag);
	}
	memcpy(frame + at, seg + VNET_HLEN + 14 + ihl, e->quoted);
	len = at + e->quoted;
	ip[e->v6 ? 6 : 9] = e->v6 ? 58 : 1;
	put16(ip + (e->v6 ? 4 : 2), (uint32_t)(len - (e->v6 ? l4 : l4 - ihl)));
	put16(frame + l4 + 2, ~icmp_sum(e, len));
	return at;
}

static uint32_t get(size_t off, int n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | frame[off++];
	return v;
}

static void check_error_to_svm(struct error e)
{
	size_t at = build_error(&e, spec(40000, F_ACK, 5005, 9));

	CHECK(tr_to_svm(tr, frame, len, now) && icmp_sum(&e, len) == 0xffff);
	CHECK(get(at, 2) == 50000 && get(at + 2, 2) == DEST && get(at + 4, 4) == 82);
	if (e.quoted >= 12)
		CHECK(get(at + 8, 4) == 9);
}

static void check_error_from_svm(struct error e)
{
	size_t at;

	e.to_guest = false;
	at = build_error(&e, spec(50000, F_ACK, 9, 82));
	CHECK(tr_from_svm(tr, frame, len, now) && icmp_sum(&e, len) == 0xffff);
	CHECK(get(at, 2) == DEST && get(at + 2, 2) == 40000 && get(at + 4, 4) == 9);
	if (e.quoted >= 12)
		CHECK(get(at + 8, 4) == 5005);
}

static void test_icmp_errors(void)
{
	static const struct error errors[] = {
		{ false, true, 3, 8, 0, 0 }, { false, true, 3, 20, 0, 0 }, { false, true, 5, 12, 0, 0 },
		{ false, true, 11, 8, 0, 0x2000 }, { false, true, 12, 11, 0, 0x4000 }, { true, true, 1, 8, 0, 0 },
		{ true, true, 2, 20, 0, 0 }, { true, true, 3, 8, 60, 0 }, { true, true, 4, 12, 44, 1 },
	};

	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		begin();
		dest.v6 = errors[i].v6;
		connect_pair(40000, 5000, 50000, 77);
		check_error_to_svm(errors[i]);
		check_error_from_svm(errors[i]);
		end();
	}
}

static bool error_passes_unchanged(struct error e, uint16_t gport)
{
	static uint8_t copy[NET_FRAME_MAX];

	build_error(&e, spec(gport, F_ACK, 5005, 9));
	memcpy(copy, frame, len);
	if (!(e.to_guest ? tr_to_svm : tr_from_svm)(tr, frame, len, now))
		return false;
	CHECK(memcmp(copy, frame, len) == 0);
	return true;
}

static void test_icmp_others(void)
{
	const struct error four = { false, true, 3, 8, 0, 0 }, cut = { false, true, 3, 7, 0, 0 };
	const struct error later = { false, true, 3, 8, 0, 0x0001 }, later6 = { true, true, 1, 8, 44, 0x0008 };
	const struct error echo = { false, true, 8, 8, 0, 0 }, esp = { true, true, 1, 8, 50, 0 };
	const struct error out = { false, false, 3, 8, 0, 0 };

	begin();
	connect_pair(40000, 5000, 50000, 77);
	CHECK(error_passes_unchanged(four, 60000)); /* older than the checkpoint */
	CHECK(error_passes_unchanged(cut, 40000) && error_passes_unchanged(later, 40000));
	CHECK(error_passes_unchanged(echo, 40000));
	CHECK(!error_passes_unchanged(four, 50000)); /* another's name inside */
	CHECK(!error_passes_unchanged(out, 40000));
	pvm_syn(40001, 5);
	CHECK(!error_passes_unchanged(four, 40001));
	dest.v6 = true;
	pvm_syn(40002, 5);
	CHECK(error_passes_unchanged(later6, 40002) && error_passes_unchanged(esp, 40002));
	end();
}

int main(int argc, char **argv)
{
	test_seed_from(argc, argv);
	test_either_first();
	test_sack_and_timestamps();
	test_order();
	test_repetitions();
	test_groups();
	test_many_groups();
	test_refused_and_again();
	test_given_up_keeps_order();
	test_left_over();
	test_names_of_old_connections();
	test_old_syn();
	test_simultaneous_open();
	test_waiting_is_bounded();
	test_table_is_bounded();
	test_failover_keeps_pairs();
	test_failover_lets_waiting_go();
	test_failover_follows_chain();
	test_failover_incoming();
	test_failover_full();
	test_icmp_errors();
	test_icmp_others();
	puts("ok");
	return 0;
}
