/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * prop_many.c - very many small scenarios: one connection, one stream, cut in two random ways
 *
 * A case is one connection of a guest: a stream of some hundred bytes (in one of GSO_ONE_IN cases, of some
 * hundred thousand, in frames up to 64 KiB), cut at random by the PVM and otherwise by the SVM, with
 * segments lost, said twice, in another order and overlapping, acknowledgements of the peer's data at each
 * VM's own pace, random checkpoints, numbers that wrap, beginnings unseen, with a SYN or data on it, and
 * ends with FIN, RST or none. prop_cm.c has several connections at once and the translator; here each
 * case is short, so that there are millions. The oracle knows only what went in:
 *
 *	R1  a byte, SYN, FIN, RST or urgent mark that leaves was said by the SVM of this epoch at the same place,
 *	    or lies before a held boundary; payload is that of a frame which the PVM sent
 *	R2  an ACK number that leaves is not beyond the SVM's, or a held boundary's, nor the PVM's; and the
 *	    peer has been told all that both VMs have said in pure ACKs (exactness)
 *	    a pure ACK that no VM said is new to the peer, or moves the window
 *	    timestamps do not run back, checksums are right, nothing is left behind in the end
 *	    what both have said has left
 *
 * In half of the cases one thing is wrong (enum wrong) until the next checkpoint: it must be found, unless
 * that checkpoint comes first, and must not leave.
 *
 * prop_many [SEED [CASES]]: case i uses SEED + i, so a case that fails is run alone by its seed.
 */
#include "net_test.h"

enum { SMALL = 160, LARGE = 160000, PIECES = 96, FRAMES = 512, PEER_MOST = 300, GSO_ONE_IN = 2000,
	PORT = 4000 };

enum wrong {
	NONE,
	SVM_BYTE,      /* one byte is another */
	SVM_FIN_EARLY,
	SVM_FIN_LATE,  /* there is more where the PVM ends */
	SVM_SYN,       /* options differ */
	SVM_NO_URGENT,
	SVM_URGENT,    /* the PVM has none */
	PVM_CONTRADICTS, /* says it again with one byte changed */
	NWRONG
};

struct piece {
	uint32_t from, to; /* offsets; `len` is the FIN's */
};

struct vm {
	struct piece list[PIECES]; /* to be sent */
	unsigned n, i;
	uint32_t top;  /* after the highest sent */
	uint32_t ack;  /* offset in the peer's stream */
	uint32_t isn;  /* of offset 0 */
	uint32_t len;  /* where its FIN is */
	bool syn, rst;
};

static struct bed bed;
static struct rnd rnd;
static uint64_t now, epoch, cases_done, counts[NWRONG], found[NWRONG], gso_cases, checkpoints, frames_left;
static uint8_t frame[NET_FRAME_MAX], scratch[LARGE + SMALL];

/* the case */
static struct vm pvm, svm;
static uint8_t stream[LARGE + SMALL];
static uint32_t len, most_cut, peer_isn, syn_data;
static uint32_t urgent; /* offset after the urgent byte; 0: none */
static uint64_t mismatches_before;
static bool fin, reset, v6, seen_syn, client, partial, first_done, has_ts;
static enum wrong wrong;
static uint32_t wrong_at;
static uint32_t ts;

/* the oracle */
static bool pending, releasing, syn_said, syn_base, syn_held, syn_left, rst_said, rst_base, rst_held, rst_left;
static bool urgent_said, urgent_pvm, urgent_base, urgent_held; /* of the PVM: ever, at the boundary */
static bool said[LARGE + SMALL + 1], pvm_said[LARGE + SMALL + 1], left[LARGE + SMALL + 1], pure[PEER_MOST + 1];
static struct piece sent[FRAMES]; /* by the PVM; index: IP id or, IPv6, none */
static uint8_t sent_flags[FRAMES];
static unsigned nsent, nsent_base, nsent_held; /* now, before the last boundary, and the last held */
static uint32_t base, held, ack_base, ack_ok, ack_out, pvm_acked, pvm_pure, peer_sent, peer_acked, ts_out;
static uint16_t window_out;
static unsigned contradiction;

static uint32_t below(uint32_t n)
{
	return rnd_below(&rnd, n);
}

static bool chance(uint32_t percent)
{
	return below(100) < percent;
}

/* --- the oracle --- */

static uint32_t min32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static void judge_payload(const struct seg *s, uint32_t off)
{
	bool is_fin = s->flags & F_FIN;

	if (!v6) {
		CHECK(s->ipid && s->ipid <= nsent && sent[s->ipid - 1].from == off);
		CHECK(sent[s->ipid - 1].to == off + s->len + is_fin && !((sent_flags[s->ipid - 1] ^ s->flags) & 0xef));
	}
	if (contradiction && s->ipid == contradiction) {
		CHECK(off + s->len <= held);
		return;
	}
	CHECK(off + s->len <= len && memcmp(s->data, stream + off, s->len) == 0);
	for (uint32_t i = 0; i < s->len + is_fin; i++, off++) {
		CHECK(off < held || said[off]);
		left[off] = true;
	}
	CHECK(!is_fin || (fin && off == len + 1));
}

static void judge_urgent(const struct seg *s, uint32_t off)
{
	if (s->flags & F_URG)
		CHECK(urgent && off + s->urg == urgent && (v6 || urgent_said || urgent_held || s->ipid <= nsent_held));
	else if (urgent_said && urgent > off && urgent <= off + s->len)
		CHECK(urgent <= held);
}

static void judge_ack(const struct seg *s)
{
	uint32_t ack = s->ack - peer_isn;

	CHECK(ack <= ack_ok && ack <= pvm_acked);
	CHECK(s->seq - pvm.isn <= pvm.top || s->seq + 1 == pvm.isn);
	if (!s->len && !(s->flags & (F_FIN | F_RST)))
		CHECK(pure[ack] || ack > ack_out || s->window != window_out ||
		      s->seq - pvm.isn < peer_acked); /* asks for an ACK */
	window_out = s->window;
	if (ack > ack_out)
		ack_out = ack;
	if (has_ts && !releasing) {
		CHECK((int32_t)(s->tsval - ts_out) >= 0);
		ts_out = s->tsval;
	}
}

static void judge(struct bed *b, const uint8_t *f, size_t n)
{
	struct seg s;
	uint32_t off;

	(void)b;
	CHECK(parse_seg(f, n, false, &s) && s.pport == PORT);
	CHECK((n > 4000 && below(8)) || checksums_ok(f, n));
	frames_left++;
	off = s.seq - pvm.isn;
	if (s.flags & F_SYN) {
		CHECK(off + 1 == 0 && (syn_said || syn_held));
		syn_left = true;
		if (s.len)
			judge_payload(&s, 0);
		return;
	}
	if (s.flags & F_RST) {
		CHECK(rst_said || rst_held);
		for (uint32_t o = 0; o < pvm.top; o++)
			CHECK(left[o]);
		rst_left = true;
		return;
	}
	judge_ack(&s);
	judge_urgent(&s, off);
	if (s.len || s.flags & F_FIN)
		judge_payload(&s, off);
}

static void oracle_boundary(void)
{
	memset(said + pvm.top, 0, len + 1 - pvm.top);
	syn_base = pvm.syn;
	syn_said &= pvm.syn;
	rst_base = pvm.rst;
	rst_said = false;
	urgent_said = false;
	urgent_base = urgent_pvm;
	base = pvm.top;
	nsent_base = nsent;
	ack_base = pvm_acked;
	ack_ok = min32(ack_ok, ack_base);
	pending = true;
}

static void oracle_held(void)
{
	if (!pending)
		return;
	pending = false;
	syn_held |= syn_base;
	rst_held |= rst_base;
	held = base;
	urgent_held |= urgent_base || (urgent && urgent <= held);
	nsent_held = nsent_base;
	ack_ok = ack_base;
}

/* what both have said in one piece from the beginning has left, as has what both have acknowledged */
static void check_prompt(void)
{
	struct cm_stats st;
	uint32_t both = held;

	if (pending)
		return;
	if (!pvm.rst)
		CHECK(ack_out >= min32(ack_ok, pvm_pure));
	cm_get_stats(bed.cm, &st);
	if (wrong != NONE || len > SMALL)
		return;
	while (both <= len && said[both] && pvm_said[both])
		both++;
	for (unsigned i = 0; i < nsent; i++)
		if (sent[i].to <= both && sent[i].from < sent[i].to)
			CHECK(left[sent[i].to - 1]);
}

/* --- the VMs --- */

static struct tcp_spec spec_of(const struct vm *vm, uint8_t flags)
{
	uint32_t clock = ts + (uint32_t)(now / 1000);

	return (struct tcp_spec){ .v6 = v6, .gport = 80, .pport = PORT, .ack = peer_isn + vm->ack,
		.seq = vm->isn, .flags = flags, .tsval = !has_ts ? 0 : clock ? clock : 1 /* 0: no option */, .tsecr = 1,
		.window = (uint16_t)(1 + below(60000)), .partial = partial };
}

static void to_cm(bool is_pvm, const struct tcp_spec *sp)
{
	size_t n = build_tcp(frame, sp);

	if (is_pvm) {
		pvm_acked = pvm.ack > pvm_acked ? pvm.ack : pvm_acked;
		cm_from_pvm(bed.cm, frame, n, now);
	} else {
		releasing = pending;
		oracle_held();
		if (!(sp->flags & (F_SYN | F_RST)) && svm.ack > ack_ok)
			ack_ok = svm.ack;
		cm_from_svm(bed.cm, epoch, frame, n, now);
		releasing = false;
	}
}

static void note_sent(struct tcp_spec *sp, struct piece p)
{
	CHECK(nsent < FRAMES);
	sent[nsent] = p;
	sent_flags[nsent++] = sp->flags;
	sp->ipid = (uint16_t)nsent;
	memset(pvm_said + p.from, 1, p.to - p.from);
	if (p.to > pvm.top)
		pvm.top = p.to;
}

static void note_said(struct piece p)
{
	if (p.to > svm.top)
		svm.top = p.to;
	for (uint32_t o = p.from; o < p.to; o++)
		if (!(wrong == SVM_BYTE && o == wrong_at) && o <= len && (o == svm.len) == (fin && o == len))
			said[o] = true;
}

static const uint8_t *bytes_of(bool is_pvm, struct piece p, uint32_t n)
{
	if (is_pvm || wrong == NONE)
		return stream + p.from;
	memcpy(scratch, stream + p.from, n);
	if (wrong == SVM_BYTE && wrong_at >= p.from && wrong_at < p.from + n)
		scratch[wrong_at - p.from] ^= (uint8_t)(1 + below(255));
	return scratch;
}

static void set_urgent(struct tcp_spec *sp, bool is_pvm, struct piece p)
{
	if (!urgent || p.from >= urgent || (wrong == SVM_NO_URGENT && !is_pvm) ||
	    (wrong == SVM_URGENT && is_pvm))
		return;
	sp->flags |= F_URG;
	sp->urg = (uint16_t)(urgent - p.from);
	*(is_pvm ? &urgent_pvm : &urgent_said) = true;
}

/* the PVM, whose frame is held, says it again otherwise */
static void contradict(const struct tcp_spec *of, struct piece p)
{
	struct tcp_spec sp = *of;
	uint32_t at = p.from + below((uint32_t)sp.len);

	if (left[at] || contradiction || !sp.len || v6)
		return;
	memcpy(scratch, sp.data, sp.len);
	scratch[at - p.from] ^= 1;
	sp.data = scratch;
	sp.flags &= (uint8_t)~F_FIN;
	p.to = p.from + (uint32_t)sp.len;
	note_sent(&sp, p);
	contradiction = sp.ipid;
	to_cm(true, &sp);
}

static void send_piece(struct vm *vm, struct piece p)
{
	bool is_pvm = vm == &pvm;
	struct tcp_spec sp = spec_of(vm, F_ACK);
	uint32_t n = min32(p.to, vm->len) - p.from;

	sp.seq += p.from;
	sp.len = n;
	sp.data = bytes_of(is_pvm, p, n);
	sp.flags |= p.to > vm->len ? F_FIN : chance(30) ? F_PSH : 0;
	sp.flags |= chance(3) ? F_ECE : chance(3) ? F_CWR : 0;
	set_urgent(&sp, is_pvm, p);
	if (is_pvm)
		note_sent(&sp, p);
	else
		note_said(p);
	to_cm(is_pvm, &sp);
	if (is_pvm && wrong == PVM_CONTRADICTS && p.to > p.from && chance(50))
		contradict(&sp, p);
}

static void send_ack(struct vm *vm)
{
	struct tcp_spec sp = spec_of(vm, F_ACK);

	sp.seq += vm->top - (vm->top && chance(5)); /* or a keep-alive */
	sp.ipid = 0;
	if (chance(10)) {
		sp.nsack = 1;
		sp.sack[0] = sp.ack + 10;
		sp.sack[1] = sp.ack + 20;
	}
	pure[vm->ack] = true;
	if (vm == &pvm && vm->ack > pvm_pure)
		pvm_pure = vm->ack;
	to_cm(vm == &pvm, &sp);
}

/* before the PVM's SYN-ACK is known the translator lets the SVM's number pass */
static void send_syn(struct vm *vm)
{
	bool is_pvm = vm == &pvm;
	struct tcp_spec sp = spec_of(vm, client ? F_SYN : F_SYN | F_ACK);

	vm->syn = true;
	sp.seq = (is_pvm || pvm.syn ? pvm.isn : svm.isn) - 1;
	sp.ack = client ? 0 : peer_isn;
	sp.mss = !is_pvm && wrong == SVM_SYN ? 1400 : 1460;
	sp.len = syn_data;
	sp.data = bytes_of(is_pvm, (struct piece){ 0, syn_data }, syn_data);
	if (is_pvm) {
		note_sent(&sp, (struct piece){ 0, syn_data });
	} else {
		syn_said = wrong != SVM_SYN;
		note_said((struct piece){ 0, syn_data });
	}
	to_cm(is_pvm, &sp);
}

static void send_rst(struct vm *vm)
{
	struct tcp_spec sp = spec_of(vm, F_RST | F_ACK);

	vm->rst = true;
	sp.seq += vm->top;
	if (vm == &svm)
		rst_said = true;
	to_cm(vm == &pvm, &sp);
}

static void peer_says(void)
{
	struct tcp_spec sp = { .to_guest = true, .v6 = v6, .gport = 80, .pport = PORT, .flags = F_ACK,
		.seq = peer_isn + peer_sent, .ack = pvm.isn, .data = stream, .len = below(40), .tsval = has_ts };

	if (!syn_left || peer_sent + sp.len > PEER_MOST)
		return;
	for (uint32_t o = 0; o < len && left[o]; o++)
		sp.ack++;
	peer_sent += (uint32_t)sp.len;
	peer_acked = sp.ack - pvm.isn;
	cm_from_client(bed.cm, frame, build_tcp(frame, &sp), now);
}

/* --- what is sent in which order --- */

static void add(struct vm *vm, uint32_t from, uint32_t to)
{
	if (vm->n < PIECES && from < to)
		vm->list[vm->n++] = (struct piece){ from, to };
}

/* all of [from, to), in pieces; now and then one is lost, said twice, or changes places */
static void cut(struct vm *vm, uint32_t from, uint32_t to, bool lossy, bool ordered)
{
	unsigned first = vm->n;

	while (from < to) {
		uint32_t n = 1 + below(min32(most_cut, to - from)), back = lossy && chance(20) ? below(10) : 0;

		if (vm->n >= (lossy ? PIECES / 2 : PIECES) - 4)
			n = min32(to - from, 65000);
		if (back > from || ordered)
			back = 0;
		if (!lossy || !chance(12))
			add(vm, from - back, from + n);
		if (lossy && chance(10))
			add(vm, from, from + n);
		from += n;
	}
	for (unsigned i = first + ordered; lossy && i + 1 < vm->n; i++) {
		struct piece p = vm->list[i];

		if (!chance(15))
			continue;
		vm->list[i] = vm->list[i + 1];
		vm->list[i + 1] = p;
	}
}

/* in a way of its own, and once more so that nothing is missing */
static void plan(struct vm *vm, uint32_t from)
{
	uint32_t end = vm->len + (fin ? 1 : 0);
	bool ordered = vm == &pvm && !seen_syn && !first_done;

	vm->n = vm->i = 0;
	if (len > SMALL) {
		cut(vm, from, end, false, true);
		return;
	}
	if (ordered && from < end) {
		uint32_t n = 1 + below(end - from);

		add(vm, from, from + n);
		from += n;
	}
	cut(vm, from, end, true, ordered);
	cut(vm, from, end, false, ordered);
}

static bool done(const struct vm *vm)
{
	return vm->i == vm->n && (!reset || vm->rst);
}

static void step_vm(struct vm *vm)
{
	if (!vm->syn || !syn_left) {
		if (client && !pvm.syn)
			vm = &pvm; /* the SVM's SYN waits in the translator */
		if (!vm->syn || chance(20))
			send_syn(vm);
		return;
	}
	if (vm->rst)
		return;
	if (chance(40) && vm->ack < peer_sent)
		vm->ack += 1 + below(peer_sent - vm->ack);
	if (chance(15) && (first_done || vm == &svm)) {
		send_ack(vm);
	} else if (vm->i < vm->n) {
		if (vm == &pvm)
			first_done = true;
		send_piece(vm, vm->list[vm->i++]);
	} else if (reset) {
		send_rst(vm);
	}
}

static void note_mismatches(void)
{
	struct cm_stats st;
	bool counted = wrong != NONE && wrong != SVM_NO_URGENT && wrong != SVM_URGENT;

	cm_get_stats(bed.cm, &st);
	CHECK(st.full == 0 && st.missing == 0);
	CHECK(st.mismatches == mismatches_before || (counted && st.mismatches == mismatches_before + 1));
	found[wrong] += st.mismatches - mismatches_before;
	mismatches_before = st.mismatches;
}

static void boundary(void)
{
	note_mismatches();
	if (wrong == SVM_URGENT)
		urgent = 0;
	oracle_boundary();
	epoch++;
	checkpoints++;
	cm_boundary(bed.cm, epoch, now);
	svm = pvm;
	wrong = NONE;
	if (!pvm.rst)
		plan(&svm, pvm.top - (pvm.top ? below(pvm.top > 10 ? 10 : pvm.top) : 0));
	bed.wants = 0;
}

static void hold(void)
{
	releasing = true;
	oracle_held();
	cm_held(bed.cm, epoch, now);
	releasing = false;
}

/* --- a case --- */

static void choose_wrong(void)
{
	wrong_at = len ? below(len) : 0;
	wrong = len > SMALL ? SVM_BYTE : (enum wrong)(1 + below(NWRONG - 1));
	if (chance(50))
		wrong = SVM_BYTE;
	if (chance(50) || !len || (wrong == SVM_SYN && !seen_syn) ||
	    ((wrong == SVM_FIN_EARLY || wrong == SVM_FIN_LATE) && (!fin || wrong_at < syn_data)) ||
	    ((wrong == SVM_URGENT || wrong == SVM_NO_URGENT) && !urgent))
		wrong = NONE;
	if (wrong == SVM_FIN_EARLY)
		svm.len = wrong_at;
	if (wrong == SVM_FIN_LATE)
		svm.len = len + 1 + below(20);
}

static void reset_oracle(void)
{
	memset(said, 0, len + SMALL / 2);
	memset(pvm_said, 0, len + SMALL / 2);
	memset(left, 0, len + SMALL / 2);
	memset(pure, 0, sizeof(pure));
	pending = releasing = syn_base = syn_held = rst_said = rst_base = rst_held = rst_left = false;
	urgent_said = urgent_pvm = urgent_base = urgent_held = false;
	syn_said = syn_left = !seen_syn;
	nsent = nsent_base = nsent_held = contradiction = 0;
	base = held = ack_base = ack_ok = ack_out = pvm_acked = pvm_pure = peer_sent = peer_acked = window_out = 0;
	ts_out = ts;
	pure[0] = true;
}

static void choose_stream(void)
{
	bool large = below(GSO_ONE_IN) == 0;

	len = large ? 20000 + below(LARGE - 20000) : below(chance(50) ? 12 : SMALL - 60);
	most_cut = large ? 4000 + below(61000) : len / 16 + 1 + below(len + 1);
	partial = large || chance(10);
	gso_cases += large;
	for (uint32_t i = 0; i < len + 40; i += 8) {
		uint64_t r = rnd_next(&rnd);

		memcpy(stream + i, &r, 8);
	}
	fin = chance(60);
	reset = !fin && chance(30) && !large;
	v6 = chance(10);
	has_ts = chance(80);
	seen_syn = chance(60);
	client = seen_syn && chance(40);
	syn_data = seen_syn && !large && chance(8) ? below(min32(len, 20) + 1) : 0;
	urgent = len && !large && chance(8) ? 1 + below(len) : 0;
	if (syn_data && urgent)
		urgent = 0;
}

static void begin_case(uint64_t seed)
{
	test_seed = rnd.s = seed;
	choose_stream();
	now = 1000000;
	epoch = 1;
	pvm = svm = (struct vm){ .syn = !seen_syn, .len = len };
	first_done = false;
	pvm.isn = chance(50) ? (uint32_t)rnd_next(&rnd) : 0u - below(2 * len + 4);
	svm.isn = seen_syn ? (uint32_t)rnd_next(&rnd) : pvm.isn;
	peer_isn = chance(50) ? (uint32_t)rnd_next(&rnd) : 0u - below(2 * PEER_MOST);
	ts = chance(50) ? 1 + (uint32_t)rnd_next(&rnd) : 0u - 1000;
	choose_wrong();
	counts[wrong]++;
	reset_oracle();
	plan(&pvm, syn_data);
	plan(&svm, syn_data);
	cm_set_mode(bed.cm, CM_PASS, now);
	cm_set_mode(bed.cm, CM_COMPARE, now);
	cm_start_epoch(bed.cm, epoch, now);
	bed.wants = 0;
}

/* the SVM's numbers are the PVM's once the translator knows both */
static void translator(void)
{
	if (pvm.syn)
		svm.isn = pvm.isn;
}

static bool all_done(void)
{
	return done(&pvm) && done(&svm) && pvm.syn && svm.syn && !pending;
}

static void end_case(enum wrong was)
{
	struct cm_stats st;

	if (wrong != NONE) { /* both said it all in one epoch */
		note_mismatches();
		if (wrong == SVM_URGENT || wrong == SVM_NO_URGENT)
			CHECK(!left[urgent - 1]);
		else if (wrong != PVM_CONTRADICTS || contradiction)
			CHECK(bed.wants == 1 && bed.cause == CM_MISMATCH);
		boundary();
		hold();
	}
	note_mismatches();
	if (!pvm.rst) {
		pvm.ack = svm.ack = peer_sent;
		send_ack(&pvm);
		send_ack(&svm);
		CHECK(ack_out == peer_sent || (!first_done && !seen_syn && !len));
	}
	for (uint32_t o = 0; o < len + fin; o++)
		CHECK(left[o]);
	CHECK(!reset || rst_left);
	cm_get_stats(bed.cm, &st);
	CHECK(st.held_packets == 0 && st.held_bytes == 0 && st.dropped == 0 && st.flows <= 1);
	(void)was;
}

static void one_case(uint64_t seed)
{
	enum wrong was;
	uint32_t boundaries;

	begin_case(seed);
	was = wrong;
	boundaries = chance(30) ? 1 + below(60) : 0; /* per mille and step */
	for (int i = 0; !all_done(); i++) {
		CHECK(i < 20000);
		now += below(2000);
		translator();
		if (chance(15))
			peer_says();
		else if (pending && chance(30))
			hold();
		else if (below(1000) < boundaries || (bed.wants && chance(syn_left ? 3 : 20)))
			boundary();
		else
			step_vm(chance(50) && (!pending || pvm.syn) ? &svm : &pvm);
		if (chance(20))
			check_prompt();
	}
	end_case(was);
	cases_done++;
}

static void report(void)
{
	uint64_t n = 0, f = 0;

	for (int i = 1; i < NWRONG; i++) {
		n += counts[i];
		f += found[i];
	}
	printf("%llu cases (%llu with frames of up to 64 KiB, %llu with something wrong, %llu mismatches found), "
	       "%llu frames left, %llu checkpoints\n", (unsigned long long)cases_done,
		(unsigned long long)gso_cases, (unsigned long long)n, (unsigned long long)f,
		(unsigned long long)frames_left, (unsigned long long)checkpoints);
	for (int i = 1; i < NWRONG; i++)
		CHECK(cases_done < 10000 || (counts[i] && (found[i] || i == SVM_NO_URGENT || i == SVM_URGENT)));
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed_from(argc, argv);
	long n = argc > 2 ? atol(argv[2]) : 100000;
	struct cm_config cfg = { .max_flows = 64 };

	bed_init(&bed, &cfg);
	bed.on_release = judge;
	for (long i = 0; i < n; i++) {
		if (i % 1000 == 999) { /* a fresh one, in case something stays behind */
			bed_fini(&bed);
			bed_init(&bed, &cfg);
			bed.on_release = judge;
			mismatches_before = 0;
		}
		one_case(seed + (uint64_t)i);
	}
	report();
	bed_fini(&bed);
	return 0;
}
