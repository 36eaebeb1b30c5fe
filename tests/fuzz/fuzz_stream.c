/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_stream.c - one TCP connection, op by op, judged by the rules R1 and R2
 *
 * The first byte chooses what kind of connection it is; then four bytes an op (enum op). Segments are well
 * formed and lie in one small stream whose byte at a position is always the same, or, marked by the op,
 * one of another value, from either VM. So the fuzzer need not find checksums and sequence numbers,
 * and every order of events is a few bytes away.
 *
 * Judged: a byte leaves if the SVM said it at its place in this epoch, if it had left already, or if the
 * frame was sent before a held boundary; an ACK number never leaves beyond the SVM's. Bounds hold, and in
 * the end all leaves.
 */
#include "tests/net/net_test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SPAN = 600, FRAMES = 4096, GOOD = 1, BAD = 2 };
enum op { PVM_DATA, PVM_RUN, SVM_DATA, SVM_RUN, PVM_ACK, SVM_ACK, PEER, BOUNDARY, HELD, RUNS, SYN_PVM,
	SYN_SVM, RST_PVM, RST_SVM, TIME, FAR, NOPS };

static struct {
	struct bed bed;
	bool syn, client, v6, ts, pos, syn_here, pending, releasing, rst_said, rst_base, rst_held;
	uint32_t isn, peer_isn, top, base, held, ack_ok, ack_base, pvm_ack, nsent, nsent_base, nsent_held;
	uint64_t now, epoch;
	uint8_t said[SPAN + 2], left[SPAN + 2]; /* values; the FIN is at the position after the last byte */
	bool fin_said[SPAN + 2], fin_pvm[SPAN + 2], fin_left[SPAN + 2];
	bool both_ended; /* at the same place */
	uint32_t ack_left;
} s;

static uint8_t frame[4096];

static uint8_t good(uint32_t pos)
{
	return (uint8_t)(pos * 167 + 13);
}

static void judge_bytes(const struct seg *g, uint32_t pos)
{
	bool before = g->ipid && g->ipid <= s.nsent_held;

	for (uint32_t i = 0; i < g->len; i++, pos++) {
		uint8_t v = pos < SPAN && g->data[i] == good(pos) ? GOOD : BAD;

		/* where the FIN is no byte is ever delivered: a keep-alive may have one there */
		CHECK(before || pos < s.held || (pos <= SPAN && s.fin_left[pos]) ||
		      (pos < SPAN && (s.left[pos] || s.said[pos] & v)));
		if (pos < SPAN)
			s.left[pos] |= v;
	}
	if (!(g->flags & F_FIN))
		return;
	CHECK(before || pos < s.held || (pos <= SPAN && (s.fin_said[pos] || s.fin_left[pos])));
	if (pos <= SPAN)
		s.fin_left[pos] = true;
}

static void judge(struct bed *b, const uint8_t *f, size_t n)
{
	struct seg g;

	(void)b;
	CHECK(checksums_ok(f, n) && parse_seg(f, n, false, &g));
	if (g.flags & F_RST) {
		CHECK(s.rst_said || s.rst_held || (g.ipid && g.ipid <= s.nsent_held) || s.v6 || s.both_ended);
		return;
	}
	if (g.flags & F_ACK && !(g.flags & F_SYN))
		CHECK(g.ack - s.peer_isn <= s.ack_ok || (g.ipid && g.ipid <= s.nsent_held));
	if (!s.v6 && (g.len || g.flags & F_FIN))
		judge_bytes(&g, g.seq + (g.flags & F_SYN ? 1 : 0) - s.isn);
}

static struct tcp_spec spec(uint8_t flags, uint32_t pos, uint32_t ack, uint8_t window)
{
	return (struct tcp_spec){ .v6 = s.v6, .gport = 80, .pport = 4000, .seq = s.isn + pos,
		.ack = s.peer_isn + ack, .flags = flags, .tsval = s.ts ? 1 + (uint32_t)(s.now >> 10) : 0,
		.window = (uint16_t)(window << 4), .shut = !window };
}

static void held(void)
{
	if (!s.pending)
		return;
	s.pending = false;
	s.held = s.base;
	s.nsent_held = s.nsent_base;
	s.rst_held |= s.rst_base;
	s.ack_ok = s.ack_base;
	for (uint32_t pos = 0; pos < s.held && pos < SPAN + 2; pos++)
		s.both_ended |= s.fin_pvm[pos]; /* the SVM is a copy */
}

static void say(bool pvm, struct tcp_spec *sp)
{
	uint32_t ack = sp->ack - s.peer_isn;
	size_t n;

	if (pvm) {
		if (s.nsent >= FRAMES)
			return;
		sp->ipid = (uint16_t)++s.nsent;
		if (sp->flags & F_ACK && !(sp->flags & F_RST) && ack > s.pvm_ack)
			s.pvm_ack = ack;
		n = build_tcp(frame, sp);
		cm_from_pvm(s.bed.cm, frame, n, s.now);
		return;
	}
	held();
	if (sp->flags & F_ACK && !(sp->flags & F_RST) && ack > s.ack_ok)
		s.ack_ok = ack;
	n = build_tcp(frame, sp);
	cm_from_svm(s.bed.cm, s.epoch, frame, n, s.now);
}

/* a: from (with two bits of c), b: length; c & 4: FIN; c & 8: one byte is another; c & 16: urgent; rest: ACK */
static void segment(bool pvm, uint8_t a, uint8_t b, uint8_t c)
{
	uint32_t from = a | (c & 3u) << 8, n = b % 64u;
	struct tcp_spec sp = spec(F_ACK, from, c >> 5, 60);
	uint8_t bytes[64];

	if (from + n > SPAN)
		return;
	for (uint32_t i = 0; i < n; i++)
		bytes[i] = good(from + i);
	if (c & 8 && n)
		bytes[n / 2] ^= 0x55;
	sp.data = bytes;
	sp.len = n;
	sp.flags |= (c & 4 ? F_FIN : 0) | (c & 16 ? F_URG : 0);
	sp.urg = (uint16_t)(b >> 4);
	if (pvm) {
		if (!s.pos)
			s.base = s.held = s.top = from;
		s.pos |= n || c & 4 || c & 16;
		s.fin_pvm[from + n] |= c & 4;
		s.top = s.top > from + n + !!(c & 4) ? s.top : from + n + !!(c & 4);
	} else {
		for (uint32_t i = 0; i < n; i++)
			s.said[from + i] |= bytes[i] == good(from + i) ? GOOD : BAD;
		s.fin_said[from + n] |= c & 4;
	}
	s.both_ended |= (s.fin_pvm[from + n] && s.fin_said[from + n]);
	say(pvm, &sp);
}

/* some segments in a row */
static void series(bool pvm, uint8_t a, uint8_t b, uint8_t c)
{
	uint32_t from = a | (c & 3u) << 8;

	for (int i = 0; i < 8 && from < SPAN; i++, from += b % 64u)
		segment(pvm, (uint8_t)from, b, (uint8_t)((c & 0xe8) | from >> 8));
}

static void syn(bool pvm)
{
	struct tcp_spec sp = spec(s.client ? F_SYN : F_SYN | F_ACK, 0u - 1, 0, 60);

	if (!s.syn || (!pvm && s.client && !s.syn_here))
		return;
	sp.mss = 1460;
	sp.wscale = 3;
	if (pvm)
		s.syn_here = s.pos = true;
	say(pvm, &sp);
}

static void rst(bool pvm)
{
	struct tcp_spec sp = spec(F_RST | F_ACK, s.top, 0, 0);

	*(pvm ? &s.rst_base : &s.rst_said) = true;
	say(pvm, &sp);
}

static void peer(uint8_t a, uint8_t b, uint8_t c)
{
	struct tcp_spec sp = spec(F_ACK, 0, 0, 50);
	uint8_t bytes[256] = { 0 };

	sp.to_guest = true;
	sp.seq = s.peer_isn + a - (c & 16 ? 1 : 0);
	sp.ack = s.isn + b;
	sp.flags |= (c & 1 ? F_FIN : 0) | (c & 2 ? F_RST : 0) | (c & 4 ? F_SYN : 0);
	sp.len = c & 8 ? b : 0;
	sp.data = bytes;
	cm_from_client(s.bed.cm, frame, build_tcp(frame, &sp), s.now);
}

static void boundary(void)
{
	memset(s.said + s.top, 0, sizeof(s.said) - s.top);
	memset(s.fin_said, 0, sizeof(s.fin_said));
	s.rst_said = false;
	s.base = s.top;
	s.nsent_base = s.nsent;
	s.ack_base = s.pvm_ack;
	s.ack_ok = s.ack_ok < s.pvm_ack ? s.ack_ok : s.pvm_ack;
	s.pending = true;
	cm_boundary(s.bed.cm, ++s.epoch, s.now);
}

static void far(uint8_t a, uint8_t b)
{
	struct tcp_spec sp = spec(F_ACK, (uint32_t)a << 24 | 1u << 27 | b, 0, 60);

	sp.data = "far";
	sp.len = 3;
	if (s.pos && a < 240 && a > 16) /* else it were the stream's position */
		say(true, &sp);
}

static void pure(bool pvm, uint8_t a, uint8_t b, uint8_t c)
{
	struct tcp_spec sp = spec(F_ACK, b, a, c);

	if (pvm && !s.pos && !s.syn)
		return;
	say(pvm, &sp);
}

static void run(uint8_t op, uint8_t a, uint8_t b, uint8_t c)
{
	switch ((enum op)(op % NOPS)) {
	case PVM_DATA: segment(true, a, b, c); break;
	case SVM_DATA: segment(false, a, b, c); break;
	case PVM_RUN:
	case SVM_RUN: series(op % NOPS == PVM_RUN, a, b, c); break;
	case PVM_ACK: pure(true, a, b, c); break;
	case SVM_ACK: pure(false, a, b, c); break;
	case PEER: peer(a, b, c); break;
	case BOUNDARY: boundary(); break;
	case HELD: held(); cm_held(s.bed.cm, s.epoch, s.now); break;
	case RUNS: cm_svm_runs(s.bed.cm, s.now); break;
	case SYN_PVM: syn(true); break;
	case SYN_SVM: syn(false); break;
	case RST_PVM: rst(true); break;
	case RST_SVM: rst(false); break;
	case TIME: s.now += (uint64_t)a << (b % 16); cm_tick(s.bed.cm, s.now); break;
	default: far(a, b);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cm_config cfg = { .max_flows = 16, .max_held_bytes = 1 << 20 };
	struct cm_stats st;

	if (!size)
		return 0;
	memset(&s, 0, sizeof(s));
	bed_init(&s.bed, &cfg);
	s.bed.on_release = judge;
	s.now = 1000000;
	s.epoch = 1;
	s.syn = data[0] & 1;
	s.client = data[0] & 2;
	s.v6 = (data[0] & 12) == 12;
	s.ts = data[0] & 16;
	s.isn = data[0] & 32 ? 0u - 100 : 12345;
	s.peer_isn = data[0] & 64 ? 0u - 50 : 54321;
	for (size_t i = 1; i + 4 <= size && i < 4000; i += 4)
		run(data[i], data[i + 1], data[i + 2], data[i + 3]);
	boundary();
	held();
	cm_held(s.bed.cm, s.epoch, s.now);
	cm_get_stats(s.bed.cm, &st);
	CHECK(st.held_packets == 0 && st.held_bytes == 0);
	bed_fini(&s.bed);
	return 0;
}
