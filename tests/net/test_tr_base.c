/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tr_base.c - the table of a survivor as the base of its next secondary's translator
 *
 * fail_over() turns the bed's translator into the survivor's; pair_up() makes another one, of a secondary
 * whose VM is a copy of that survivor's; checkpoint() brings the base of now to it. `tr` is the one that the
 * bed's functions talk to: svm() and peer() then mean the survivor's VM or the secondary's.
 */
#include <errno.h>

#include "tr_bed.h"

enum { BUMP = 50, PIECES = 64 };

static struct tr *survivor, *secondary;
static uint8_t pieces[PIECES][TR_PIECE_MAX];
static size_t piece_len[PIECES];
static unsigned npieces, refuse_at;

static bool take_piece(void *opaque, const uint8_t *piece, size_t n)
{
	CHECK(opaque == &npieces && n <= TR_PIECE_MAX && npieces < PIECES);
	if (npieces == refuse_at)
		return false;
	memcpy(pieces[npieces], piece, n);
	piece_len[npieces++] = n;
	return true;
}

static bool save(bool anew)
{
	npieces = 0;
	return tr_save(survivor, anew, now, take_piece, &npieces);
}

static int add(unsigned i)
{
	uint8_t *exact = malloc(piece_len[i]); /* so that a sanitizer sees a read beyond it */
	int r;

	memcpy(exact, pieces[i], piece_len[i]);
	r = tr_base_add(secondary, exact, piece_len[i]);
	free(exact);
	return r;
}

static void give_base(bool anew)
{
	CHECK(save(anew));
	for (unsigned i = 0; i < npieces; i++) {
		CHECK(add(i) == 0);
		CHECK(tr_base_known(secondary) == (i == npieces - 1));
	}
}

static void checkpoint(bool anew)
{
	give_base(anew);
	tr_base_adopt(secondary);
	tr_reset(secondary, now);
}

static void fail_over(void)
{
	tr_failover(tr, BUMP);
	if (survivor && survivor != tr)
		tr_free(survivor);
	survivor = tr;
	secondary = NULL;
}

static void pair_up_with(size_t max_flows)
{
	struct tcp_spec d = dest;
	uint64_t t = now;

	begin_with(max_flows);
	dest = d;
	now = t;
	secondary = tr;
	checkpoint(true);
}

static void pair_up(void)
{
	pair_up_with(0);
}

static void done(void)
{
	CHECK(take_waited() == 0);
	if (secondary)
		tr_free(secondary);
	tr_free(survivor);
	survivor = secondary = NULL;
}

/* the SVM's 1000 is the LAN's `lan`, there and back */
static bool ts_is(uint16_t gport, uint32_t lan)
{
	struct tcp_spec s = spec(gport, F_ACK, 5, 5);

	s.tsval = 1000;
	if (!give_svm(s) || result(false).tsval != lan)
		return false;
	s.gport = result(false).gport;
	s.to_guest = true;
	s.tsval = 5;
	s.tsecr = lan;
	len = build_tcp(frame, &s);
	return tr_to_svm(tr, frame, len, now) && result(true).tsecr == 1000;
}

static void test_base_is_kept(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	dest.v6 = true;
	connect_pair(40002, 102, 50002, 702);
	dest.v6 = false;
	dest.vlan = true;
	connect_pair(40004, 104, 50004, 704);
	dest.vlan = false;
	fail_over();
	pair_up();
	CHECK(stats().entries == 3 && is_pair(40000, 100, 50000, 700) && ts_is(50000, 1300 + BUMP));
	dest.v6 = true;
	CHECK(is_pair(40002, 102, 50002, 702) && !is_pair(40000, 100, 50000, 700));
	dest.v6 = false;
	dest.vlan = true;
	CHECK(is_pair(40004, 104, 50004, 704));
	dest.vlan = false;
	CHECK(is_pair(40001, 101, 40001, 101) && ts_is(40001, 1000 + BUMP)); /* older than the checkpoint */
	checkpoint(false);
	CHECK(npieces == 1 && piece_len[0] == 12); /* as it was */
	CHECK(stats().entries == 3 && is_pair(40000, 100, 50000, 700));
	done();
}

/* connections that the primary, a survivor, opens now: on the LAN they have what its translator makes of them */
static void test_new_ones_pair(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	fail_over();
	pair_up();
	connect_pair(41000, 900, 51000, 950);
	CHECK(ts_is(51000, 1300) && is_pair(40000, 100, 50000, 700)); /* its SYN was bumped already: 1300 */
	connect_pair(50000, 901, 40000, 951); /* names that a base entry has on the other side */
	CHECK(is_pair(50000, 901, 40000, 951) && is_pair(40000, 100, 50000, 700) && stats().entries == 3);
	checkpoint(false);
	CHECK(stats().entries == 1 && is_pair(40000, 100, 50000, 700));
	CHECK(!svm(40000, F_ACK, 952)); /* it has another name in the SVM now: the primary's, which has 40000 for an entry */
	CHECK(is_pair(51000, 950, 51000, 950));
	done();
}

/* the survivor's own translator gives a new connection another port: that is in the next base */
static void test_moved_port_travels(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	fail_over();
	CHECK(svm_syn(40000, 555) && result(false).gport == 50000);
	CHECK(peer(50000, F_SYN | F_ACK, PEER_ISN, 556) && is_pair(50000, 555, 40000, 555));
	pair_up();
	CHECK(stats().entries == 2 && is_pair(40000, 100, 50000, 700) && is_pair(50000, 555, 40000, 555));
	tr = survivor;
	CHECK(svm(40000, F_RST, 556)); /* over */
	tr = secondary;
	checkpoint(false);
	CHECK(npieces == 1 && piece_len[0] == 12 + 2 * TR_BASE_ENTRY_BYTES);
	CHECK(!peer(50000, F_SYN, 1, 0)); /* that it is over came along: else it would be that connection's */
	tr = survivor;
	CHECK(svm_syn(40000, 666) && result(false).gport == 50000); /* it is used again */
	tr = secondary;
	checkpoint(false);
	CHECK(stats().entries == 2 && is_pair(50000, 666, 40000, 666));
	done();
}

static void test_failover_again(void)
{
	uint32_t bump = 0;

	begin();
	connect_pair(40000, 100, 50000, 700);
	for (uint16_t i = 1; i <= 5; i++) {
		fail_over();
		bump += BUMP;
		pair_up();
		CHECK(is_pair(40000, 100, 50000, 700) && ts_is(50000, 1300 + bump));
		for (uint16_t k = 1; k < i; k++)
			CHECK(is_pair(41000 + k, 200 + k, 51000 + k, 800 + k));
		CHECK(stats().entries == i);
		connect_pair(41000 + i, 200 + i, 51000 + i, 800 + i);
	}
	pvm_syn(42000, 1);
	CHECK(!svm_syn(52000, 2) == false);
	fail_over(); /* a pair without an answer is known outside as well */
	CHECK(stats().entries == 7 && is_pair(40000, 100, 50000, 700));
	CHECK(is_pair(41005, 205, 51005, 805) && is_pair(42000, 1, 52000, 2));
	CHECK(svm_syn(40000, 3) && result(false).gport == 50000); /* taken outside: the chain */
	CHECK(svm_syn(43000, 3) && result(false).gport == 43000 && result(false).tsval == 1000 + bump + BUMP);
	done();
}

static void test_repeated_syn(void)
{
	begin();
	pvm_syn(40000, 100);
	CHECK(svm_syn(50000, 700));
	fail_over();
	pair_up();
	CHECK(svm_syn(50000, 700) && result(false).gport == 40000 && result(false).seq == 100);
	pvm_syn(40000, 100); /* the primary repeats it, too */
	CHECK(stats().entries == 1 && take_waited() == 0 && is_pair(40000, 100, 50000, 700));
	done();
}

static void test_sack(void)
{
	struct tcp_spec s;
	struct seg g;

	begin();
	connect_pair(40000, 100, 50000, 700);
	fail_over();
	pair_up();
	s = spec(40000, F_ACK, 5, 101);
	s.to_guest = true;
	s.nsack = 2;
	for (uint32_t i = 0; i < 4; i++)
		s.sack[i] = 200 + i;
	len = build_tcp(frame, &s);
	CHECK(tr_to_svm(tr, frame, len, now));
	g = result(true);
	CHECK(g.nsack == 2);
	for (uint32_t i = 0; i < 4; i++)
		CHECK(g.sack[i] == 800 + i);
	done();
}

static void test_icmp(void)
{
	uint8_t inner[2048];
	size_t n;

	begin();
	connect_pair(40000, 100, 50000, 700);
	fail_over();
	pair_up();
	struct tcp_spec s = spec(40000, F_ACK, 100, 5);

	n = build_tcp(inner, &s);
	len = build_icmp(frame, true, 3, 0, inner + VNET_HLEN + 14, n - VNET_HLEN - 14);
	CHECK(tr_to_svm(tr, frame, len, now));
	/* Ethernet, IP, ICMP header, quoted IP header: source port, destination port, number */
	uint8_t *quote = frame + VNET_HLEN + 14 + 20 + 8 + 20;

	CHECK((quote[0] << 8 | quote[1]) == 50000);
	CHECK(quote[4] == 0 && quote[5] == 0 && (quote[6] << 8 | quote[7]) == 700);
	done();
}

/* servers: the port is the same, the numbers are not */
static void test_server(void)
{
	struct tcp_spec p = spec(80, F_SYN | F_ACK, 100, 55), s = spec(80, F_SYN | F_ACK, 700, 55);

	begin();
	dest.pport = 5000;
	p.pport = s.pport = 5000;
	p.tsval = 1300;
	s.tsval = 1000;
	give_pvm(p);
	CHECK(give_svm(s) && result(false).seq == 100);
	CHECK(peer(80, F_ACK, 55, 101) && result(true).ack == 701);
	fail_over();
	pair_up();
	CHECK(peer(80, F_ACK, 55, 101) && result(true).ack == 701);
	CHECK(svm(80, F_ACK, 701) && result(false).seq == 101 && ts_is(80, 1300 + BUMP));
	CHECK(peer(80, F_SYN, 99, 0)); /* the client uses its port again, the guest answers */
	s = spec(80, F_SYN | F_ACK, 711, 100);
	p = spec(80, F_SYN | F_ACK, 411, 100);
	give_pvm(p);
	CHECK(give_svm(s) && result(false).seq == 411);
	CHECK(peer(80, F_ACK, 100, 412) && result(true).ack == 712);
	checkpoint(false); /* the survivor still has the old one */
	CHECK(peer(80, F_ACK, 55, 101) && result(true).ack == 701);
	CHECK(give_svm(spec(80, F_SYN | F_ACK, 700, 55)) && result(false).seq == 100); /* repeated */
	CHECK(give_svm(spec(80, F_SYN | F_ACK, 700, 99)) && result(false).seq == 700); /* to another SYN */
	done();
}

/* what is over for long goes with the next base, and so does what never opened; open ones stay */
static void test_entries_end(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	connect_pair(40001, 101, 50001, 701);
	pvm_syn(40002, 102);
	CHECK(svm_syn(50002, 702));
	fail_over();
	CHECK(svm(50001, F_RST, 702));
	pair_up();
	CHECK(stats().entries == 3);
	now += 130 * SECOND;
	checkpoint(false);
	CHECK(stats().entries == 1 && is_pair(40000, 100, 50000, 700));
	tr = survivor;
	CHECK(stats().entries == 1);
	/* both FINs, seen in two epochs */
	CHECK(svm(50000, F_FIN | F_ACK, 701));
	tr = secondary;
	checkpoint(false);
	CHECK(piece_len[0] > 12);
	fail_over(); /* the secondary serves, with what the base says of the guest's FIN */
	CHECK(peer(40000, F_FIN | F_ACK, PEER_ISN + 1, 102));
	CHECK(svm(50000, F_ACK, 702) == true);
	CHECK(give_svm(spec(50000, F_ACK, 702, PEER_ISN + 2)));
	now += 130 * SECOND;
	pair_up();
	CHECK(stats().entries == 0 && npieces == 1 && piece_len[0] == 12);
	done();
}

/* also where no base is asked for */
static void test_survivor_forgets(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	connect_pair(40001, 101, 50001, 701);
	fail_over();
	CHECK(svm(50001, F_RST, 702) && stats().entries == 2);
	now += 130 * SECOND;
	CHECK(svm_syn(45000, 5) && stats().entries == 1 && is_pair(40000, 100, 50000, 700));
	done();
	begin(); /* before a failover a checkpoint does that */
	pvm_syn(40000, 100);
	CHECK(svm_syn(50000, 700));
	now += 130 * SECOND;
	pvm_syn(40001, 101);
	CHECK(stats().entries == 2);
	end();
}

static void test_a_guest_that_talks_stays(void)
{
	begin();
	pvm_syn(40000, 100);
	CHECK(svm_syn(50000, 700));
	fail_over();
	now += 100 * SECOND;
	CHECK(svm(50000, F_ACK, 701));
	now += 100 * SECOND;
	pair_up();
	CHECK(stats().entries == 1);
	now += 130 * SECOND;
	checkpoint(false);
	CHECK(stats().entries == 0);
	done();
}

static void test_same_only_if_same(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	fail_over();
	pair_up();
	CHECK(save(false) && npieces == 1 && piece_len[0] == 12);
	CHECK(save(true) && piece_len[0] == 12 + TR_BASE_ENTRY_BYTES);
	tr = survivor;
	CHECK(svm(50000, F_ACK, 701) && peer(40000, F_ACK, PEER_ISN + 1, 101)); /* nothing to tell */
	CHECK(save(false) && piece_len[0] == 12);
	CHECK(peer(40000, F_FIN | F_ACK, PEER_ISN + 1, 101));
	CHECK(save(false) && piece_len[0] > 12 && save(false) && piece_len[0] == 12);
	CHECK(svm(50000, F_RST, 701));
	refuse_at = 0;
	CHECK(!save(false));
	refuse_at = PIECES;
	CHECK(save(false) && piece_len[0] > 12); /* it was not sent before */
	tr = secondary;
	tr_base_forget(secondary);
	CHECK(save(false) && piece_len[0] == 12);
	CHECK(add(0) == -EINVAL && !tr_base_known(secondary)); /* as what? */
	give_base(true);
	done();
}

static void connect_many(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		dest.peer = 1 + i / 20000;
		connect_pair((uint16_t)(1 + i % 20000), 1000 + i, (uint16_t)(30001 + i % 20000), 500000 + i);
	}
}

static void check_many(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		dest.peer = 1 + i / 20000;
		CHECK(is_pair((uint16_t)(1 + i % 20000), 1000 + i, (uint16_t)(30001 + i % 20000), 500000 + i));
	}
}

static void test_many(void)
{
	begin();
	connect_many(50000);
	fail_over();
	pair_up();
	CHECK(npieces > 50 && stats().entries == 50000);
	check_many(50000);
	done();
}

/* a smaller secondary takes the open ones */
static void test_smaller_table(void)
{
	begin();
	connect_many(1000);
	dest.peer = 0;
	connect_pair(60000, 1, 61000, 2);
	fail_over();
	dest.peer = 1;
	for (unsigned i = 0; i < 600; i++)
		CHECK(svm((uint16_t)(30001 + i), F_RST, 500001 + i));
	pair_up_with(401);
	CHECK(stats().entries == 401 && stats().full == 600);
	dest.peer = 1;
	for (unsigned i = 600; i < 1000; i++)
		CHECK(is_pair((uint16_t)(1 + i), 1000 + i, (uint16_t)(30001 + i), 500000 + i));
	dest.peer = 0;
	CHECK(is_pair(60000, 1, 61000, 2));
	done();
}

static int altered(size_t at, uint8_t value)
{
	uint8_t keep = pieces[0][at];
	int r;

	pieces[0][at] = value;
	r = add(0);
	pieces[0][at] = keep;
	return r;
}

/* a primary that sends more than it may: it is not kept until it can be judged */
static void test_more_than_fits(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	connect_pair(40001, 101, 50001, 701);
	fail_over();
	pair_up_with(1);
	CHECK(save(true));
	pieces[0][12 + 73] = 2; /* over: would make room for the next */
	CHECK(add(0) == 0);
	tr_base_adopt(secondary);
	tr_reset(secondary, now);
	CHECK(stats().entries == 1 && is_pair(40000, 100, 50000, 700));
	done();
}

static void test_nonsense(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	connect_pair(40001, 101, 50001, 701);
	fail_over();
	pair_up();
	CHECK(save(true) && add(0) == 0);
	for (piece_len[0] = 1; piece_len[0] < 12 + 2 * TR_BASE_ENTRY_BYTES; piece_len[0]++)
		CHECK(add(0) == -EINVAL);
	CHECK(tr_base_add(secondary, pieces[0], 0) == -EINVAL);
	CHECK(add(0) == 0);
	CHECK(altered(0, 2) == -EINVAL && altered(0, 0) == -EINVAL); /* not begun */
	CHECK(altered(0, 4) == -EINVAL && altered(0, 6) == -EINVAL && altered(0, 8 | 3) == -EINVAL);
	for (size_t i = 1; i < 4; i++)
		CHECK(altered(i, 1) == -EINVAL);
	CHECK(altered(11, 1) == -EINVAL && altered(11, 3) == -EINVAL && altered(8, 0x80) == -EINVAL);
	CHECK(altered(12 + 4, 1) == -EINVAL && altered(12 + 20, 1) == -EINVAL); /* IPv4 has four bytes */
	CHECK(altered(12 + 34, 0x09) == -EINVAL && altered(12 + 36, 0x20) == -EINVAL);
	CHECK(altered(12 + 72, 64) == -EINVAL && altered(12 + 73, 3) == -EINVAL && altered(12 + 75, 1) == -EINVAL);
	CHECK(altered(0, 1) == 0 && !tr_base_known(secondary)); /* the rest is to come */
	CHECK(altered(0, 2) == 0 && tr_base_known(secondary));
	/* names twice: it went on behind the first piece, so all are */
	tr_base_adopt(secondary);
	tr_reset(secondary, now);
	CHECK(stats().entries == 2 && is_pair(40000, 100, 50000, 700) && is_pair(40001, 101, 50001, 701));
	done();
}

/* until it is adopted a base changes nothing, nor does half of one ever */
static void test_adopted_when_told(void)
{
	begin();
	connect_pair(40000, 100, 50000, 700);
	fail_over();
	pair_up();
	tr = survivor;
	CHECK(svm_syn(50000, 666) && result(false).gport == 50000);
	tr = secondary;
	give_base(false);
	tr_reset(secondary, now);
	CHECK(is_pair(40000, 100, 50000, 700));
	tr_base_adopt(secondary);
	CHECK(is_pair(40000, 100, 50000, 700));
	tr_reset(secondary, now);
	CHECK(stats().entries == 0 && is_pair(50000, 666, 50000, 666));
	tr_base_adopt(secondary); /* nothing new */
	CHECK(save(true) && altered(0, 1) == 0);
	tr_base_adopt(secondary);
	tr_reset(secondary, now);
	CHECK(stats().entries == 0);
	done();
}

int main(int argc, char **argv)
{
	test_seed_from(argc, argv);
	refuse_at = PIECES;
	test_base_is_kept();
	test_new_ones_pair();
	test_moved_port_travels();
	test_failover_again();
	test_repeated_syn();
	test_sack();
	test_icmp();
	test_server();
	test_entries_end();
	test_survivor_forgets();
	test_a_guest_that_talks_stays();
	test_same_only_if_same();
	test_many();
	test_smaller_table();
	test_more_than_fits();
	test_nonsense();
	test_adopted_when_told();
	puts("ok");
	return 0;
}
