/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tr_failover.c - the translator: names on the LAN when the SVM serves alone
 */
#include "tr_bed.h"

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

int main(int argc, char **argv)
{
	test_seed_from(argc, argv);
	test_failover_keeps_pairs();
	test_failover_lets_waiting_go();
	test_failover_follows_chain();
	test_failover_incoming();
	test_failover_full();
	puts("ok");
	return 0;
}
