/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * prop_cm.c - two VMs that say the same in different ways never mismatch, and nothing leaves early
 *
 * Each scenario has a few connections with a random stream, sent by a model of the PVM and one of the
 * SVM: cut at random, repeated with other cuts, doubled, reordered, acknowledging at their own pace.
 * The SVM has ISNs and timestamps of its own; what it says comes through the translator. Checkpoints
 * come in the middle (the SVM's model becomes a copy of the PVM's) and are held later.
 * An oracle that knows only what went into the cm judges each frame that leaves:
 *
 *	R1  each byte, the SYN and the FIN were said by the SVM of this epoch, or lies before a held boundary
 *	R2  the ACK number is not beyond what the SVM acknowledged, or a held boundary had
 *	    a pure ACK that no VM said is new to the peer, or moves the window (else it were a loss report)
 *	    the frame's checksums are right
 *
 * In the end everything must have left, acknowledgements too. In half of the scenarios one byte of one
 * SVM's stream is wrong until the next checkpoint: that must be found, and must not leave.
 *
 * prop_cm [SEED [SCENARIOS]]: scenario i uses SEED + i.
 */
#include "net_test.h"

enum { STREAM = 6000, CONNS = 3, QUEUE = 16, NEVER = -1 };

struct piece {
	uint32_t from, to; /* offsets in the stream; STREAM is the FIN's */
};

struct sender {
	struct piece q[QUEUE]; /* not emitted yet */
	unsigned n;
	uint32_t next;         /* first offset that was not sent to q */
	uint32_t ack;          /* offset in the peer's stream */
	bool open;             /* it has sent its SYN */
	uint32_t isn, ts;      /* of offset 0; added to the time */
};

struct conn {
	uint8_t stream[STREAM];
	uint16_t port;
	uint32_t isn, peer_isn; /* of offset 0; isn: in the PVM's count */
	bool v6, syn;           /* seen from its SYN on; else older than protection */
	bool syn_left;
	struct sender pvm, svm;
	bool first_pvm;
	uint32_t peer_sent;
	int wrong;              /* offset of the SVM's wrong byte */
	/* the oracle's */
	bool syn_said, syn_base, syn_held;
	bool said[STREAM + 1];  /* by the SVM, and still counting */
	bool left[STREAM + 1];
	bool pure[STREAM * 4];  /* ACK numbers of pure ACKs */
	uint16_t window_out;
	uint32_t emitted;       /* PVM's highest offset + 1 */
	uint32_t pvm_acked;     /* PVM's highest ACK that went in */
	uint32_t base, ack_base; /* at the last boundary */
	uint32_t held;          /* all below is before a held boundary */
	uint32_t ack_ok, ack_out;
};

static struct bed bed;
static struct tr *tr;
static struct rnd rnd;
static struct conn conns[CONNS];
static unsigned nconns;
static uint64_t now, epoch;
static bool pending, ticks;
static uint8_t frame[4096];
static uint64_t seen_mismatches; /* in this scenario */
static uint64_t total_left, total_boundaries, total_found;

static bool chance(uint32_t percent)
{
	return rnd_below(&rnd, 100) < percent;
}

static struct conn *conn_of(const struct seg *s)
{
	CHECK(s->pport >= 4000 && s->pport < 4000 + nconns);
	return &conns[s->pport - 4000];
}

/* --- the oracle --- */

static void judge_bytes(struct conn *c, const struct seg *s)
{
	uint32_t off = s->seq - c->isn;

	for (uint32_t i = 0; i < s->len; i++, off++) {
		CHECK(off < STREAM && s->data[i] == c->stream[off]);
		CHECK(off < c->held || c->said[off]);
		c->left[off] = true;
	}
	if (!(s->flags & F_FIN))
		return;
	CHECK(off == STREAM && (off < c->held || c->said[off]));
	c->left[off] = true;
}

static void judge(struct bed *b, const uint8_t *f, size_t len)
{
	struct seg s;
	struct conn *c;
	uint32_t ack;

	(void)b;
	CHECK(checksums_ok(f, len) && parse_seg(f, len, false, &s));
	total_left++;
	c = conn_of(&s);
	if (s.flags & F_SYN) {
		CHECK(s.seq == c->isn - 1 && (c->syn_said || c->syn_held));
		c->syn_left = true;
		return;
	}
	ack = s.ack - c->peer_isn;
	CHECK(ack <= c->ack_ok);
	if (!s.len && !(s.flags & F_FIN))
		CHECK(c->pure[ack] || ack > c->ack_out || s.window != c->window_out);
	c->window_out = s.window;
	if (ack > c->ack_out)
		c->ack_out = ack;
	judge_bytes(c, &s);
}

/* the guest is the server */
static void on_waited(void *opaque, const uint8_t *f, size_t len)
{
	(void)opaque;
	(void)f;
	(void)len;
	CHECK(!"no SYN waits");
}

static const struct tr_ops tr_ops = { on_waited };

static void told_syn(const uint8_t *f, size_t len)
{
	tr_pvm_syn(tr, f, len, now);
}

static void oracle_boundary(void)
{
	for (unsigned i = 0; i < nconns; i++) {
		struct conn *c = &conns[i];

		for (uint32_t o = c->emitted; o <= STREAM; o++)
			c->said[o] = false;
		c->syn_base = c->pvm.open;
		c->syn_said &= c->pvm.open;
		c->base = c->emitted;
		c->ack_base = c->pvm_acked;
		if (c->ack_ok > c->ack_base)
			c->ack_ok = c->ack_base;
	}
}

static void oracle_held(void)
{
	pending = false;
	for (unsigned i = 0; i < nconns; i++) {
		conns[i].syn_held |= conns[i].syn_base;
		conns[i].held = conns[i].base;
		conns[i].ack_ok = conns[i].ack_base;
	}
}

/* --- the models --- */

static struct tcp_spec spec_of(struct conn *c, const struct sender *s)
{
	return (struct tcp_spec){ .v6 = c->v6, .gport = 80, .pport = c->port, .ack = c->peer_isn + s->ack,
		.flags = F_ACK, .tsval = s->ts + (uint32_t)(now / 1000), .tsecr = 1,
		.window = (uint16_t)(1 + rnd_below(&rnd, 60000)), .ipid = (uint16_t)rnd_next(&rnd) };
}

static void to_cm(struct conn *c, bool pvm, const struct tcp_spec *sp, uint64_t at)
{
	size_t n = build_tcp(frame, sp);

	if (pvm) {
		if (c->pvm.ack > c->pvm_acked)
			c->pvm_acked = c->pvm.ack;
		cm_from_pvm(bed.cm, frame, n, now);
		return;
	}
	if (at == epoch && pending)
		oracle_held(); /* this SVM runs, so its checkpoint is held */
	if (at == epoch && c->svm.ack > c->ack_ok)
		c->ack_ok = c->svm.ack;
	if (tr_from_svm(tr, frame, n, now))
		cm_from_svm(bed.cm, at, frame, n, now);
}

static void note_said(struct conn *c, struct piece p)
{
	for (uint32_t o = p.from; o < p.to; o++)
		if ((int)o != c->wrong)
			c->said[o] = true;
}

static void emit(struct conn *c, bool pvm, struct piece p, uint64_t at)
{
	struct sender *s = pvm ? &c->pvm : &c->svm;
	struct tcp_spec sp = spec_of(c, s);
	uint8_t data[STREAM];

	memcpy(data, c->stream + p.from, (p.to > STREAM ? STREAM : p.to) - p.from);
	if (!pvm && c->wrong >= (int)p.from && c->wrong < (int)p.to)
		data[c->wrong - (int)p.from] ^= 0x40;
	sp.seq = s->isn + p.from;
	sp.data = data;
	sp.len = (p.to > STREAM ? STREAM : p.to) - p.from;
	sp.flags |= p.to > STREAM ? F_FIN : chance(50) ? F_PSH : 0;
	if (pvm && p.to > c->emitted)
		c->emitted = p.to;
	if (!pvm && at == epoch)
		note_said(c, p);
	to_cm(c, pvm, &sp, at);
}

static void emit_ack(struct conn *c, bool pvm)
{
	struct sender *s = pvm ? &c->pvm : &c->svm;
	struct tcp_spec sp = spec_of(c, s);

	sp.seq = s->isn + s->next;
	if (chance(20) && s->ack) {
		sp.nsack = 1;
		sp.sack[0] = sp.ack + 10;
		sp.sack[1] = sp.ack + 20;
	}
	c->pure[s->ack] = true;
	to_cm(c, pvm, &sp, epoch);
}

static void emit_syn(struct conn *c, bool pvm)
{
	struct sender *s = pvm ? &c->pvm : &c->svm;
	struct tcp_spec sp;

	if (!s->open) {
		s->open = true;
		s->isn = pvm ? c->isn : (uint32_t)rnd_next(&rnd);
		s->ts = 1 + rnd_below(&rnd, 5000);
	}
	sp = spec_of(c, s);
	sp.flags = F_SYN | F_ACK;
	sp.ack = c->peer_isn;
	sp.seq = s->isn - 1;
	sp.mss = 1460;
	if (!pvm) {
		if (pending)
			oracle_held();
		c->syn_said = true;
	}
	to_cm(c, pvm, &sp, epoch);
}

/* what the peer would say to the last word of the PVM arrives at the SVM in its own numbers */
static void check_to_svm(struct conn *c)
{
	struct tcp_spec sp = { .to_guest = true, .v6 = c->v6, .gport = 80, .pport = c->port,
		.seq = c->peer_isn, .flags = F_ACK, .tsval = 1 };
	uint32_t off = rnd_below(&rnd, STREAM);
	struct seg s;
	size_t n;

	if (!c->svm.open || !c->pvm.open)
		return;
	sp.ack = c->isn + off;
	sp.tsecr = c->pvm.ts + 777;
	n = build_tcp(frame, &sp);
	CHECK(tr_to_svm(tr, frame, n, now) && checksums_ok(frame, n) && parse_seg(frame, n, true, &s));
	CHECK(s.ack == c->svm.isn + off && s.seq == sp.seq);
}

static struct piece cut_new(struct sender *s)
{
	uint32_t most = chance(50) ? 40 : 1000, n = 1 + rnd_below(&rnd, most);
	struct piece p = { s->next, s->next + n };

	if (p.to > STREAM + 1)
		p.to = STREAM + 1;
	s->next = p.to;
	return p;
}

static struct piece cut_again(const struct sender *s, struct piece p)
{
	uint32_t before = rnd_below(&rnd, 50), after = rnd_below(&rnd, 50);

	p.from = p.from > before ? p.from - before : 0;
	p.to = p.to + after < s->next ? p.to + after : s->next;
	return p;
}

static void enqueue(struct sender *s, struct piece p)
{
	if (p.from < p.to)
		s->q[s->n++] = p;
}

static struct piece dequeue(struct sender *s, unsigned i)
{
	struct piece p = s->q[i];

	memmove(s->q + i, s->q + i + 1, (--s->n - i) * sizeof(p));
	return p;
}

/* emit one piece: mostly the oldest; sometimes it stays to be said again, or with other cuts */
static void emit_one(struct conn *c, bool pvm)
{
	struct sender *s = pvm ? &c->pvm : &c->svm;
	unsigned i = chance(75) || (pvm && !c->first_pvm) ? 0 : rnd_below(&rnd, s->n);
	struct piece p = dequeue(s, i);

	if (chance(10) && !(pvm && !c->first_pvm)) {
		enqueue(s, cut_again(s, p));
		return;
	}
	if (pvm)
		c->first_pvm = true;
	emit(c, pvm, p, epoch);
	if (chance(10))
		enqueue(s, p);
}

/* data follows when the peer has got the SYN */
static void act_opening(struct conn *c, bool pvm)
{
	struct sender *s = pvm ? &c->pvm : &c->svm;

	if (!s->open || chance(5))
		emit_syn(c, pvm);
}

static void act(struct conn *c, bool pvm)
{
	struct sender *s = pvm ? &c->pvm : &c->svm;

	if (!s->open || !c->syn_left) {
		act_opening(c, pvm);
		return;
	}
	if (chance(5))
		check_to_svm(c);
	if (c->peer_sent < 3 * STREAM && chance(10))
		c->peer_sent += rnd_below(&rnd, 100);
	if (chance(30) && s->ack < c->peer_sent)
		s->ack += rnd_below(&rnd, c->peer_sent - s->ack + 1);
	if (chance(20)) {
		emit_ack(c, pvm);
	} else if (s->n < QUEUE - 1 && s->next <= STREAM && chance(50)) {
		enqueue(s, cut_new(s));
	} else if (s->n < QUEUE - 1 && s->next && chance(10)) {
		uint32_t from = rnd_below(&rnd, s->next);

		enqueue(s, cut_again(s, (struct piece){ from, from + 1 }));
	} else if (s->n) {
		emit_one(c, pvm);
	}
}

/* an SVM of an epoch that is over still speaks */
static void act_stale(struct conn *c)
{
	struct piece p = { 0, 1 + rnd_below(&rnd, STREAM) };

	if (p.to > 1400)
		p.from = p.to - 1400;
	emit(c, false, p, epoch - 1);
}

/* a mismatch is counted even when a checkpoint was wanted for another reason before */
static void note_mismatches(void)
{
	struct cm_stats st;
	bool expected = false;

	cm_get_stats(bed.cm, &st);
	for (unsigned i = 0; i < nconns; i++)
		expected |= conns[i].wrong != NEVER;
	CHECK(st.mismatches == seen_mismatches || (expected && st.mismatches == seen_mismatches + 1));
	total_found += st.mismatches - seen_mismatches;
	seen_mismatches = st.mismatches;
	CHECK(bed.wants <= 1 && st.full == 0 && (bed.wants || st.mismatches == 0 || epoch > 1));
}

static void boundary(void)
{
	note_mismatches();
	epoch++;
	total_boundaries++;
	oracle_boundary();
	cm_boundary(bed.cm, epoch, now);
	pending = true;
	for (unsigned i = 0; i < nconns; i++) {
		conns[i].svm = conns[i].pvm;
		conns[i].wrong = NEVER;
	}
	bed.wants = 0;
	tr_reset(tr, 1);
}

static void held(void)
{
	oracle_held();
	cm_held(bed.cm, epoch, now);
	if (chance(50))
		cm_svm_runs(bed.cm, now);
}

/* --- a scenario --- */

static void start_conn(struct conn *c, uint16_t port)
{
	memset(c, 0, sizeof(*c));
	for (uint32_t i = 0; i < STREAM; i++)
		c->stream[i] = (uint8_t)rnd_next(&rnd);
	c->port = port;
	c->isn = chance(50) ? (uint32_t)rnd_next(&rnd) : 0u - rnd_below(&rnd, 2 * STREAM);
	c->peer_isn = chance(50) ? (uint32_t)rnd_next(&rnd) : 0u - rnd_below(&rnd, 2 * STREAM);
	c->v6 = chance(20);
	c->syn = chance(70);
	c->wrong = NEVER;
	c->pure[0] = true;
	if (c->syn)
		return;
	c->syn_left = true;
	c->pvm = c->svm = (struct sender){ .open = true, .isn = c->isn, .ts = 1 };
}

static void want(void)
{
	note_mismatches();
	if (bed.wants && chance(5))
		boundary();
}

static bool finished(void)
{
	for (unsigned i = 0; i < nconns; i++) {
		struct conn *c = &conns[i];

		if (c->pvm.next <= STREAM || c->svm.next <= STREAM || c->pvm.n || c->svm.n)
			return false;
	}
	return !pending;
}

static void one_step(uint32_t checkpoints)
{
	struct conn *c = &conns[rnd_below(&rnd, nconns)];
	bool pvm = chance(50);

	now += rnd_below(&rnd, 2000);
	if (pvm || !pending)
		act(c, pvm);
	if (rnd_below(&rnd, 1000) < checkpoints)
		boundary();
	if (pending && chance(3))
		held();
	if (pending && chance(1))
		act(c, false); /* faster than the news that the checkpoint is held */
	if (epoch > 1 && chance(1))
		act_stale(c);
	if (ticks && chance(5))
		cm_tick(bed.cm, now);
	want();
}

/* what the PVM said before a mismatch was healed is gone with the boundary, so all has left by now */
static void check_end(void)
{
	struct cm_stats st;

	for (unsigned i = 0; i < nconns; i++) {
		struct conn *c = &conns[i];

		c->svm.ack = c->pvm.ack = c->peer_sent;
		emit_ack(c, true);
		emit_ack(c, false);
		CHECK(c->ack_out == c->peer_sent);
		for (uint32_t o = 0; o <= STREAM; o++)
			CHECK(c->left[o]);
	}
	cm_get_stats(bed.cm, &st);
	CHECK(st.held_packets == 0 && st.held_bytes == 0 && st.flows == nconns && st.dropped == 0);
}

static void scenario(uint64_t seed)
{
	uint32_t checkpoints;
	bool wrong;

	test_seed = rnd.s = seed;
	bed_init(&bed, NULL);
	bed.on_release = judge;
	bed.on_syn = told_syn;
	tr = tr_new(NULL, &tr_ops, NULL);
	CHECK(tr);
	now = 1000000;
	epoch = 1;
	pending = false;
	seen_mismatches = 0;
	nconns = 1 + rnd_below(&rnd, CONNS);
	for (unsigned i = 0; i < nconns; i++)
		start_conn(&conns[i], (uint16_t)(4000 + i));
	checkpoints = chance(50) ? 0 : rnd_below(&rnd, 40);
	wrong = chance(50);
	ticks = chance(30);
	if (wrong)
		conns[0].wrong = (int)rnd_below(&rnd, STREAM);
	for (int i = 0; !finished(); i++) {
		CHECK(i < 1000000);
		one_step(checkpoints);
	}
	if (conns[0].wrong != NEVER) {
		CHECK(seen_mismatches == 1); /* both said it all in one epoch */
		boundary();
		held();
	}
	check_end();
	bed_fini(&bed);
	tr_free(tr);
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed_from(argc, argv);
	int n = argc > 2 ? atoi(argv[2]) : 1500;

	for (int i = 0; i < n; i++)
		scenario(seed + (uint64_t)i);
	printf("%d scenarios, %llu frames left, %llu checkpoints, %llu wrong bytes found\n", n,
		(unsigned long long)total_left, (unsigned long long)total_boundaries,
		(unsigned long long)total_found);
	CHECK(n < 100 || (total_found && total_boundaries));
	return 0;
}
