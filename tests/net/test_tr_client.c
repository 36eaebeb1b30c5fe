/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tr_client.c - the translator: connections that the guest opens
 */
#include "tr_bed.h"

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
	tr_reset(tr, now);
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
	tr_reset(tr, now);
	pvm_syn(40000, 100);
	now += 3 * SECOND;
	pvm_syn(40001, 101);
	CHECK(svm_syn(50001, 701) && is_pair(40001, 101, 50001, 701));
	end();
}

/* one VM is behind by more than these two seconds: the repetitions of the other belong to what it then says */
static void test_late(void)
{
	begin();
	CHECK(!svm_syn(50000, 700));
	now += 3 * SECOND;
	CHECK(!svm_syn(50000, 700));
	pvm_syn(40000, 100);
	CHECK(take_waited() == 0);
	CHECK(svm_syn(50000, 700) && is_pair(40000, 100, 50000, 700) && stats().entries == 1);
	CHECK(svm_syn(50000, 700) && stats().paired_clients == 1);
	tr_reset(tr, now);
	pvm_syn(40001, 101);
	now += 3 * SECOND;
	CHECK(!svm_syn(50001, 701) && stats().waiting_syns == 1);
	pvm_syn(40001, 101);
	CHECK(take_waited() == 1 && is_pair(40001, 101, 50001, 701) && stats().entries == 1);
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
	tr_reset(tr, now);
	CHECK(!svm_syn(50001, 701) && !svm_syn(40000, 100));
	pvm_syn(40000, 100); /* not in order, but the same */
	CHECK(take_waited() == 1 && waited[0].gport == 40000 && waited[0].seq == 100);
	CHECK(is_pair(40000, 100, 40000, 100));
	tr_reset(tr, now);
	pvm_syn(50001, 701);
	pvm_syn(40000, 100);
	CHECK(svm_syn(40000, 100) && result(false).gport == 40000);
	tr_reset(tr, now);
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
			tr_reset(tr, now);
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
	test_late();
	test_names_of_old_connections();
	test_old_syn();
	test_simultaneous_open();
	test_waiting_is_bounded();
	test_table_is_bounded();
	puts("ok");
	return 0;
}
