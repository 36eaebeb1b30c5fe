/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * prop_dgram.c - two VMs that say the same datagrams in other orders, cut otherwise, never mismatch, and
 * nothing leaves that the SVM did not say
 *
 * Each scenario has a few flows (UDP, echo, an unknown protocol; IPv4, IPv6, VLANs) and a list of
 * messages. A message has one of a few bodies of its flow, so that many are alike; bodies are up to 6000
 * bytes long, and every second one differs from its neighbour in one byte. Each VM sends all messages, in an
 * order of its own, whole or cut into fragments at places of its own, which mix with those of other
 * messages. Checkpoints come in the middle (the SVM goes on as the PVM does) and are held later. An
 * oracle that knows only what went into the cm judges each frame that leaves:
 *
 *	the PVM sent it, it did not leave before, and either it is from before a held boundary, or
 *	all of its datagram was sent in this epoch and the SVM has said a like one in this epoch that did not
 *	let another go already
 *
 * In the end everything must have left; without a checkpoint in the middle, without one. In half of the
 * scenarios one byte of one datagram of the SVM is flipped: that must be found, and one like it stay.
 *
 * prop_dgram [SEED [SCENARIOS]]: scenario i uses SEED + i.
 */
#include "dgram_frames.h"

enum { FLOWS = 4, BODIES = 6, BODY_MAX = 6000, MSGS = 60, PIECES = MSGS * 110, SVM_IDS = 30000 };

struct flow {
	struct ip_spec spec;
	uint8_t body[BODIES][BODY_MAX]; /* IP payloads, with their UDP or ICMP header */
	uint32_t len[BODIES];
	uint32_t said[BODIES];          /* by the SVM in this epoch, and not used up */
};

struct piece {
	uint16_t msg, id;
	uint32_t from, to;
	bool whole, sent, left, base, held;
};

struct msg {
	unsigned flow, body;
	uint32_t pieces, sent;   /* the PVM's, in this epoch */
	bool cut_by_boundary, vouched;
	uint32_t spieces, ssent; /* the SVM's */
};

static struct bed bed;
static struct rnd rnd;
static struct flow flows[FLOWS];
static struct msg msgs[MSGS];
static unsigned nflows, nmsgs;
static struct piece ppieces[PIECES], spieces[PIECES];
static unsigned np, ns, pnext, snext; /* pieces, and the first that was not sent */
static int flipped;                   /* message */
static uint32_t flip_at;
static uint64_t now, epoch;
static bool pending, requests;
static uint8_t frame[4 * BODY_MAX];
static uint64_t total_left, total_boundaries, total_found, total_msgs;

static bool chance(uint32_t percent)
{
	return rnd_below(&rnd, 100) < percent;
}

/* --- the oracle --- */

static uint32_t g16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/* which of the PVM's pieces is this frame? Its number, place and payload have to be right. */
static struct piece *piece_of(const uint8_t *f, size_t len)
{
	uint32_t id, from = 0, n;
	const uint8_t *ip = f + VNET_HLEN + 14;
	bool v6, frag;

	while (g16(ip - 2) == 0x8100 || g16(ip - 2) == 0x88a8)
		ip += 4;
	v6 = g16(ip - 2) == 0x86dd;
	frag = v6 ? ip[6] == 44 : g16(ip + 6) & 0x3fff;
	id = g16(v6 ? ip + 2 : ip + 4);
	if (frag)
		from = v6 ? g16(ip + 42) & 0xfff8 : (g16(ip + 6) & 0x1fff) * 8;
	n = v6 ? g16(ip + 4) - (frag ? 8 : 0) : g16(ip + 2) - 20;
	for (unsigned i = 0; i < np; i++) {
		struct piece *p = &ppieces[i];
		const struct flow *fl = &flows[msgs[p->msg].flow];

		if (p->id != id || p->from != from || p->to != from + n)
			continue;
		CHECK(memcmp(f + len - n, fl->body[msgs[p->msg].body] + from, n) == 0);
		return p;
	}
	return NULL;
}

static void judge(struct bed *b, const uint8_t *f, size_t len)
{
	struct piece *p = piece_of(f, len);
	struct msg *m;

	(void)b;
	CHECK(p && p->sent && !p->left);
	p->left = true;
	total_left++;
	m = &msgs[p->msg];
	if (p->held || m->vouched)
		return;
	CHECK(m->sent == m->pieces && !m->cut_by_boundary);
	CHECK(flows[m->flow].said[m->body] > 0);
	flows[m->flow].said[m->body]--;
	m->vouched = true;
}

static void oracle_boundary(void)
{
	for (unsigned i = 0; i < np; i++) {
		struct piece *p = &ppieces[i];

		p->base |= p->sent;
		msgs[p->msg].cut_by_boundary |= p->sent;
		msgs[p->msg].sent = 0;
	}
	for (unsigned i = 0; i < nflows; i++)
		memset(flows[i].said, 0, sizeof(flows[i].said));
}

static void oracle_held(void)
{
	pending = false;
	for (unsigned i = 0; i < np; i++)
		ppieces[i].held |= ppieces[i].base;
}

/* --- the models --- */

static void send_piece(const struct piece *p, bool pvm, bool flip)
{
	const struct msg *m = &msgs[p->msg];
	const struct flow *fl = &flows[m->flow];
	struct ip_spec s = fl->spec;
	size_t n;

	s.id = p->id;
	s.frag = !p->whole;
	s.more = p->to < fl->len[m->body];
	s.offset = p->from;
	s.payload = fl->body[m->body] + p->from;
	s.len = p->to - p->from;
	n = build_ip(frame, &s);
	if (s.v6) {
		frame[VNET_HLEN + 14 + 4 * s.tags + 2] = (uint8_t)(p->id >> 8);
		frame[VNET_HLEN + 14 + 4 * s.tags + 3] = (uint8_t)p->id;
	}
	if (flip && flip_at >= p->from && flip_at < p->to)
		frame[n - s.len + flip_at - p->from] ^= (uint8_t)(1u << rnd_below(&rnd, 8));
	if (pvm)
		cm_from_pvm(bed.cm, frame, n, now);
	else
		cm_from_svm(bed.cm, epoch, frame, n, now);
}

static void swap(struct piece *a, struct piece *b)
{
	struct piece t = *a;

	*a = *b;
	*b = t;
}

/* the next piece to send: mostly the oldest */
static struct piece *next_piece(struct piece *all, unsigned *next, unsigned n)
{
	unsigned left = n - *next, window = left < 6 ? left : 6;

	if (chance(30))
		swap(&all[*next], &all[*next + rnd_below(&rnd, window)]);
	return &all[(*next)++];
}

static void pvm_sends(void)
{
	struct piece *p = next_piece(ppieces, &pnext, np);

	p->sent = true;
	msgs[p->msg].sent++;
	send_piece(p, true, false);
}

/* oracle first: the PVM's frame leaves within the call */
static void svm_sends(void)
{
	struct piece *p = next_piece(spieces, &snext, ns);
	struct msg *m = &msgs[p->msg];
	bool flip = flipped == p->msg;

	if (pending)
		oracle_held(); /* this SVM runs, so its checkpoint is held */
	if (++m->ssent == m->spieces && !flip)
		flows[m->flow].said[m->body]++;
	send_piece(p, false, flip);
}

static void boundary(void)
{
	total_boundaries++;
	oracle_boundary();
	cm_boundary(bed.cm, ++epoch, now);
	pending = true;
	flipped = -1;
	for (unsigned i = 0; i < nmsgs; i++) {
		msgs[i].ssent = 0;
		msgs[i].spieces = msgs[i].pieces;
	}
	memcpy(spieces, ppieces, np * sizeof(*spieces));
	ns = np;
	snext = pnext;
	bed.wants = 0;
}

static void held(void)
{
	oracle_held();
	cm_held(bed.cm, epoch, now);
}

static void ask(void)
{
	struct ip_spec s = flows[rnd_below(&rnd, nflows)].spec;

	s.to_guest = true;
	s.payload = "\x10\0\0\x50\0\x08\0"; /* ports 4096 and 80 */
	s.len = 8;
	cm_from_client(bed.cm, frame, build_ip(frame, &s), now);
}

/* --- a scenario --- */

static uint32_t random_len(void)
{
	switch (rnd_below(&rnd, 4)) {
	case 0: return rnd_below(&rnd, 20);
	case 1: return rnd_below(&rnd, 300);
	case 2: return rnd_below(&rnd, 1460);
	default: return rnd_below(&rnd, BODY_MAX - 8);
	}
}

static void make_body(struct flow *fl, unsigned i)
{
	static uint8_t data[BODY_MAX];
	uint32_t n = random_len();

	if (i % 2 && fl->len[i - 1] > 8) { /* one byte is another */
		n = fl->len[i - 1] - 8;
		memcpy(data, fl->body[i - 1] + 8, n);
		data[rnd_below(&rnd, n)] ^= 0x55; /* more than the bit that is flipped */
	} else {
		for (uint32_t k = 0; k < n; k++)
			data[k] = (uint8_t)rnd_next(&rnd);
		n += n == 0 && i;
		data[0] = (uint8_t)((i & 1) * 3 + (i & 2) * 6 + (i & 4) * 12); /* differ in two bits at least */
	}
	if (fl->spec.proto == 17)
		fl->len[i] = (uint32_t)put_udp(fl->body[i], 80, 4096, data, n, 0);
	else
		fl->len[i] = (uint32_t)put_icmp(fl->body[i], fl->spec.proto == 1 ? 0 : 129, 0, 7, data, n);
}

static void make_flow(struct flow *fl, unsigned number)
{
	bool v6 = chance(40);
	uint8_t protos[] = { 17, v6 ? 58 : 1, 132 };

	memset(fl, 0, sizeof(*fl));
	fl->spec = (struct ip_spec){ .v6 = v6, .proto = protos[rnd_below(&rnd, 3)], .peer = number,
		.tags = chance(70) ? 0 : 1 + rnd_below(&rnd, 2), .vid = { 5, 6 } };
	for (unsigned i = 0; i < BODIES; i++)
		make_body(fl, i);
}

static unsigned cut(struct piece *out, unsigned n, unsigned msg, uint16_t id)
{
	uint32_t len = flows[msgs[msg].flow].len[msgs[msg].body], at = 0, most = 8 + rnd_below(&rnd, 177);

	if (len <= 1472 && chance(70)) {
		out[n] = (struct piece){ .msg = (uint16_t)msg, .id = id, .to = len, .whole = true };
		return n + 1;
	}
	do {
		uint32_t k = 8 * (most / 2 + 1 + rnd_below(&rnd, most / 2));

		if (k >= len - at)
			k = len - at;
		out[n++] = (struct piece){ .msg = (uint16_t)msg, .id = id, .from = at, .to = at + k };
		at += k;
	} while (at < len);
	/* a single piece in IPv4 is no fragment */
	if (n && out[n - 1].from == 0 && !flows[msgs[msg].flow].spec.v6)
		out[n - 1].whole = true;
	return n;
}

/* all messages in order but for neighbours that change places */
static unsigned make_pieces(struct piece *out, bool svm)
{
	unsigned order[MSGS], n = 0;

	for (unsigned i = 0; i < nmsgs; i++)
		order[i] = i;
	for (unsigned i = 0; svm && i < nmsgs; i++) {
		unsigned k = i + rnd_below(&rnd, nmsgs - i < 5 ? nmsgs - i : 5), t = order[i];

		order[i] = order[k];
		order[k] = t;
	}
	for (unsigned i = 0; i < nmsgs; i++) {
		unsigned m = order[i], from = n;

		n = cut(out, n, m, (uint16_t)(svm ? SVM_IDS + m : m));
		*(svm ? &msgs[m].spieces : &msgs[m].pieces) = n - from;
	}
	return n;
}

static void make_scenario(void)
{
	nflows = 1 + rnd_below(&rnd, FLOWS);
	nmsgs = 1 + rnd_below(&rnd, MSGS);
	for (unsigned i = 0; i < nflows; i++)
		make_flow(&flows[i], i);
	for (unsigned i = 0; i < nmsgs; i++)
		msgs[i] = (struct msg){ .flow = rnd_below(&rnd, nflows), .body = rnd_below(&rnd, BODIES) };
	np = make_pieces(ppieces, false);
	ns = make_pieces(spieces, true);
	pnext = snext = 0;
	requests = chance(30);
	flipped = -1;
	if (chance(50)) { /* not the header, which tells the flow */
		unsigned m = rnd_below(&rnd, nmsgs);
		uint32_t len = flows[msgs[m].flow].len[msgs[m].body];

		flip_at = len > 8 ? 8 + rnd_below(&rnd, len - 8) : 0;
		flipped = len > 8 ? (int)m : -1;
	}
}

static unsigned count_left(bool all)
{
	unsigned n = 0;

	for (unsigned i = 0; i < np; i++)
		n += all ? 1 : ppieces[i].left;
	return n;
}

/* everything was said: what did not leave is the flipped one, or one like it, and is found in time */
static void check_found(bool was_flipped)
{
	struct cm_stats st;

	if (was_flipped) {
		CHECK(count_left(false) < count_left(true));
		if (!bed.wants)
			cm_tick(bed.cm, now + 200000);
		CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH);
		total_found++;
	}
	cm_get_stats(bed.cm, &st);
	CHECK(st.dropped == 0 && st.full == 0);
}

static void run(uint32_t checkpoints)
{
	unsigned before = (unsigned)total_boundaries;

	while (pnext < np || snext < ns || pending) {
		now += rnd_below(&rnd, 20);
		if (requests && chance(20))
			ask();
		if (pnext < np && chance(50))
			pvm_sends();
		else if (snext < ns && (!pending || chance(3)))
			svm_sends();
		if (pnext < np && rnd_below(&rnd, 1000) < checkpoints)
			boundary();
		if (pending && chance(10))
			held();
		CHECK(!bed.wants || (bed.cause == CM_MISMATCH && requests));
	}
	if (total_boundaries == before && flipped < 0)
		CHECK(count_left(false) == np);
	check_found(flipped >= 0);
}

static void scenario(uint64_t seed)
{
	struct cm_stats st;

	test_seed = rnd.s = seed;
	bed_init(&bed, NULL);
	bed.on_release = judge;
	now = 5000000;
	epoch = 1;
	pending = false;
	make_scenario();
	run(chance(50) ? 0 : rnd_below(&rnd, 60));
	boundary();
	held();
	CHECK(count_left(false) == np);
	cm_get_stats(bed.cm, &st);
	CHECK(st.held_packets == 0 && st.held_bytes == 0 && st.released == np);
	total_msgs += nmsgs;
	bed_fini(&bed);
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed_from(argc, argv);
	int n = argc > 2 ? atoi(argv[2]) : 3000;

	for (int i = 0; i < n; i++)
		scenario(seed + (uint64_t)i);
	printf("%d scenarios, %llu datagrams in %llu frames left, %llu checkpoints, %llu flipped bytes found\n", n,
		(unsigned long long)total_msgs, (unsigned long long)total_left,
		(unsigned long long)total_boundaries, (unsigned long long)total_found);
	CHECK(n < 100 || (total_found && total_boundaries > (uint64_t)n));
	return 0;
}
