/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tr_bed.c - see tr_bed.h
 */
#include "tr_bed.h"

struct tr *tr;
uint8_t frame[NET_FRAME_MAX];
size_t len;
uint64_t now;

struct tcp_spec dest;
struct seg waited[WAITED_MAX];
static unsigned nwaited;

static void on_waited(void *opaque, const uint8_t *f, size_t n)
{
	CHECK(opaque == &now && checksums_ok(f, n) && nwaited < WAITED_MAX);
	CHECK(parse_seg(f, n, false, &waited[nwaited++]));
}

unsigned take_waited(void)
{
	unsigned n = nwaited;

	nwaited = 0;
	return n;
}

void begin_with(size_t max_flows)
{
	static const struct tr_ops ops = { on_waited };
	struct tr_config cfg = { .max_flows = max_flows, .hash_seed = test_seed };

	tr = tr_new(&cfg, &ops, &now);
	CHECK(tr);
	dest = (struct tcp_spec){ .pport = DEST };
	now = 1;
	nwaited = 0;
}

void begin(void)
{
	begin_with(0);
}

void end(void)
{
	CHECK(nwaited == 0);
	tr_free(tr);
}

struct tr_stats stats(void)
{
	struct tr_stats st;

	tr_get_stats(tr, &st);
	return st;
}

struct seg result(bool to_guest)
{
	struct seg s;

	CHECK(checksums_ok(frame, len) && parse_seg(frame, len, to_guest, &s));
	return s;
}

struct tcp_spec spec(uint16_t gport, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct tcp_spec s = dest;

	s.gport = gport;
	s.flags = flags;
	s.seq = seq;
	s.ack = ack;
	s.mss = flags & F_SYN ? 1460 : 0;
	return s;
}

void give_pvm(struct tcp_spec s)
{
	len = build_tcp(frame, &s);
	tr_pvm_syn(tr, frame, len, now);
}

void pvm_syn(uint16_t gport, uint32_t isn)
{
	struct tcp_spec s = spec(gport, F_SYN, isn, 0);

	s.tsval = 1300;
	give_pvm(s);
}

bool give_svm(struct tcp_spec s)
{
	len = build_tcp(frame, &s);
	return tr_from_svm(tr, frame, len, now);
}

bool svm_syn(uint16_t gport, uint32_t isn)
{
	struct tcp_spec s = spec(gport, F_SYN, isn, 0);

	s.tsval = 1000;
	return give_svm(s);
}

bool svm(uint16_t gport, uint8_t flags, uint32_t seq)
{
	return give_svm(spec(gport, flags, seq, PEER_ISN + 1));
}

bool peer(uint16_t gport, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct tcp_spec s = spec(gport, flags, seq, ack);

	s.to_guest = true;
	len = build_tcp(frame, &s);
	return tr_to_svm(tr, frame, len, now);
}

bool is_pair(uint16_t pport, uint32_t pisn, uint16_t sport, uint32_t sisn)
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

void connect_pair(uint16_t pport, uint32_t pisn, uint16_t sport, uint32_t sisn)
{
	pvm_syn(pport, pisn);
	CHECK(svm_syn(sport, sisn));
	CHECK(result(false).gport == pport && result(false).seq == pisn && result(false).tsval == 1300);
	CHECK(peer(pport, F_SYN | F_ACK, PEER_ISN, pisn + 1) && result(true).gport == sport);
	CHECK(is_pair(pport, pisn, sport, sisn));
}
