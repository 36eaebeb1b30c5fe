/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_explain.c - each kind of difference is reported once, with its place, both sides' bytes, and frames
 */
#include "dgram_frames.h"

static struct bed bed;
static struct cm *cm;
static uint64_t now;
static uint8_t frame[NET_FRAME_MAX];

enum { G = 80, P = 4000 };

/* what cm_capture_fn was given for the last report */
static struct {
	unsigned pvm, svm;
	uint64_t number, time[2];
	struct seg first_pvm, svm_seg;
	uint8_t copy[2][4096];
} got;

static void on_capture(void *opaque, const struct cm_report *r, bool svm, uint64_t time, const uint8_t *f,
	size_t len)
{
	CHECK(opaque == &got && len <= sizeof(got.copy[0]));
	if (r->number != got.number)
		memset(&got, 0, sizeof(got));
	got.number = r->number;
	got.time[svm] = time;
	if (svm ? got.svm++ : got.pvm++)
		return;
	memcpy(got.copy[svm], f, len);
	parse_seg(got.copy[svm], len, false, svm ? &got.svm_seg : &got.first_pvm);
}

static void begin_with(const struct cm_config *cfg)
{
	bed_init(&bed, cfg);
	cm = bed.cm;
	cm_set_capture(cm, on_capture, &got);
	memset(&got, 0, sizeof(got));
	now = 1000000;
}

/* counts agree with what was wanted; each cause and kind of this test appeared in a report */
static void end(void)
{
	const struct cm_report *r;
	uint64_t sum = 0;
	struct cm_stats st;

	cm_get_stats(cm, &st);
	for (int i = 0; i < CM_NKINDS; i++)
		sum += st.kinds[i];
	CHECK(sum == st.mismatches + st.missing + st.full);
	for (size_t i = 0; (r = cm_get_report(cm, i)); i++)
		CHECK(st.kinds[r->kind] > 0);
	bed_fini(&bed);
}

static void say(bool svm, const struct tcp_spec *s)
{
	size_t n = build_tcp(frame, s);

	svm ? cm_from_svm(cm, 1, frame, n, now) : cm_from_pvm(cm, frame, n, now);
}

static void tcp(bool svm, uint32_t seq, const char *data, uint32_t ack, uint8_t flags)
{
	struct tcp_spec s = { .gport = G, .pport = P, .seq = seq, .ack = ack, .flags = flags, .tsval = 1000,
		.tsecr = 1, .data = data, .len = strlen(data) };

	if (flags & F_SYN) {
		s.mss = 1460;
		s.tsval += svm ? 77 : 0;
	}
	say(svm, &s);
}

static void pvm(uint32_t seq, const char *data)
{
	tcp(false, seq, data, 5001, F_ACK);
}

static void svm(uint32_t seq, const char *data)
{
	tcp(true, seq, data, 5001, F_ACK);
}

/* guest's stream at 1001 */
static void begin(void)
{
	begin_with(NULL);
	tcp(false, 1000, "", 5001, F_SYN | F_ACK);
	tcp(true, 77000, "", 5001, F_SYN | F_ACK);
	CHECK(bed.n == 1 && !cm_get_report(cm, 0));
}

static const struct cm_report *last(enum cm_cause cause, enum cm_kind kind)
{
	const struct cm_report *r = cm_get_report(cm, 0);

	CHECK(r && r->cause == cause && r->kind == kind && r->time_us == now);
	return r;
}

static void side(const struct cm_side *s, const char *before, const char *after)
{
	CHECK(s->known);
	CHECK(s->before == strlen(before) && s->after == strlen(after));
	CHECK(!memcmp(s->data, before, s->before) && !memcmp(s->data + s->before, after, s->after));
}

static void flow_is(const struct cm_report *r, const char *want)
{
	char text[200];

	cm_report_flow(r, text, sizeof(text));
	if (strcmp(text, want))
		fprintf(stderr, "flow '%s', wanted '%s'\n", text, want);
	CHECK(!strcmp(text, want));
}

/* the PVM's frame waits, the SVM's differs */
static void test_payload(void)
{
	const struct cm_report *r;

	begin();
	pvm(1001, "Set-Cookie: sid=4711; Path=/");
	now += 2500;
	svm(1001, "Set-Cookie: sid=9911; Path=/");
	r = last(CM_MISMATCH, CM_KIND_PAYLOAD);
	CHECK(r->number == 1 && r->epoch == 1 && r->origin == CM_OF_STREAM && r->offset == 16);
	CHECK(r->waited_us == 2500 && r->patience_us >= 20000);
	flow_is(r, "tcp 10.0.0.2:80 to 10.1.0.0:4000");
	side(&r->pvm, "Set-Cookie: sid=", "4711; Path=/");
	side(&r->svm, "Set-Cookie: sid=", "9911; Path=/");
	CHECK(!r->pvm.fin && !r->svm.fin && !r->svm.rst);
	CHECK(got.pvm == 1 && got.svm == 1 && got.number == 1);
	CHECK(got.time[0] == now - 2500 && got.time[1] == now);
	CHECK(got.first_pvm.seq == 1001 && got.svm_seg.seq == 1001);
	CHECK(!memcmp(got.svm_seg.data + 16, "9911", 4));
	CHECK(!cm_get_report(cm, 1));
	end();
}

/* the SVM was ahead, and its bytes are in several pieces; excerpts are cut at CM_EXCERPT */
static void test_payload_svm_first(void)
{
	const struct cm_report *r;

	begin();
	svm(1001, "0123456789abcdefghij");
	svm(1021, "klmnopqrstuvwxyzABCDXXXXXX");
	svm(1047, "GHIJKLMNOPQRSTUVWXYZ0123456789yyyyyyyyy");
	pvm(1001, "0123456789abcdefghijklmnopqrst");
	CHECK(!cm_get_report(cm, 0));
	now += 700;
	pvm(1031, "uvwxyzABCDxEFGHIJKLMNOPQRSTUVWXYZ0123456789zzz");
	r = last(CM_MISMATCH, CM_KIND_PAYLOAD);
	CHECK(r->offset == 40 && r->waited_us == 0);
	side(&r->pvm, "uvwxyzABCD", "xEFGHIJKLMNOPQRSTUVWXYZ012345678");
	side(&r->svm, "89abcdefghijklmnopqrstuvwxyzABCD", "XXXXXXGHIJKLMNOPQRSTUVWXYZ012345");
	CHECK(got.pvm == 1 && got.svm == 0 && got.first_pvm.seq == 1031);
	end();
}

/* the first difference is found across segments that were cut in other ways, and what waits behind is
 * handed over too */
static void test_payload_across_segments(void)
{
	const struct cm_report *r;

	begin();
	pvm(1001, "aaaa");
	now += 10;
	pvm(1005, "bbbb");
	now += 10;
	pvm(1009, "cccc");
	svm(1001, "aa");
	svm(1003, "aabbbbc!cc");
	r = last(CM_MISMATCH, CM_KIND_PAYLOAD);
	CHECK(r->offset == 9 && r->waited_us == 0);
	CHECK(r->pvm.after == 3 && !memcmp(r->pvm.data + r->pvm.before, "ccc", 3));
	CHECK(r->pvm.before >= 1 && r->pvm.data[r->pvm.before - 1] == 'c');
	CHECK(r->svm.after == 3 && !memcmp(r->svm.data + r->svm.before, "!cc", 3));
	CHECK(got.pvm == 1 && got.svm == 1 && got.first_pvm.seq == 1009);
	end();
}

/* sequence numbers wrap inside the excerpt */
static void test_wrap(void)
{
	const struct cm_report *r;

	begin_with(NULL);
	tcp(false, 0xfffffff0, "", 5001, F_SYN | F_ACK);
	tcp(true, 7, "", 5001, F_SYN | F_ACK);
	pvm(0xfffffff1, "0123456789012345678901234567890123456789P");
	svm(0xfffffff1, "0123456789012345678901234567890123456789S");
	r = last(CM_MISMATCH, CM_KIND_PAYLOAD);
	CHECK(r->offset == 40);
	side(&r->pvm, "89012345678901234567890123456789", "P");
	side(&r->svm, "89012345678901234567890123456789", "S");
	end();
}

/* a connection older than protection: offsets from what was seen first */
static void test_unknown_start(void)
{
	const struct cm_report *r;

	begin_with(NULL);
	pvm(90000, "abcdef");
	svm(90000, "abcxef");
	r = last(CM_MISMATCH, CM_KIND_PAYLOAD);
	CHECK(r->origin == CM_OF_SEEN && r->offset == 3);
	end();
}

static void test_fin(void)
{
	const struct cm_report *r;

	begin();
	pvm(1001, "abcdef");
	tcp(true, 1001, "abc", 5001, F_ACK | F_FIN);
	r = last(CM_MISMATCH, CM_KIND_FIN);
	CHECK(r->offset == 3 && !r->pvm.fin && r->svm.fin);
	side(&r->pvm, "abc", "def");
	side(&r->svm, "abc", "");
	end();

	begin();
	svm(1001, "abcdef");
	tcp(false, 1001, "abc", 5001, F_ACK | F_FIN);
	r = last(CM_MISMATCH, CM_KIND_FIN);
	CHECK(r->offset == 3 && r->pvm.fin && !r->svm.fin);
	side(&r->svm, "abc", "def");
	side(&r->pvm, "abc", "");
	end();
}

/* the PVM against itself */
static void test_repeat(void)
{
	const struct cm_report *r;

	begin();
	pvm(1001, "abcdef");
	pvm(1004, "dexf");
	r = last(CM_MISMATCH, CM_KIND_REPEAT);
	CHECK(r->offset == 5 && !r->pvm.fin);
	side(&r->pvm, "de", "xf");
	side(&r->svm, "abcde", "f");
	end();

	begin();
	tcp(false, 1001, "abcdef", 5001, F_ACK | F_FIN);
	tcp(false, 1007, "gh", 5001, F_ACK | F_FIN);
	r = last(CM_MISMATCH, CM_KIND_REPEAT);
	CHECK(r->offset == 8 && r->pvm.fin && !r->svm.fin);
	end();
}

static void syn(bool svm_side, uint8_t wscale)
{
	struct tcp_spec s = { .v6 = true, .vlan = true, .gport = G, .pport = P, .seq = 1000, .ack = 5001,
		.flags = F_SYN | F_ACK, .mss = 1460, .wscale = wscale, .tsval = svm_side ? 5 : 9 };

	say(svm_side, &s);
}

static void test_syn_options(void)
{
	const struct cm_report *r;

	begin_with(NULL);
	syn(false, 8);
	now += 100;
	syn(true, 3);
	r = last(CM_MISMATCH, CM_KIND_SYN);
	CHECK(r->origin == CM_OF_OPTIONS && r->offset == 6 && r->waited_us == 100); /* behind 4 of MSS */
	flow_is(r, "tcp [fd00::1]:80 to [fd00::2]:4000, vlan 7");
	CHECK(r->vlan == (0x1000 | 7) && r->family == 6);
	CHECK(r->pvm.known && r->pvm.before == 6 && r->pvm.data[6] == 7);
	CHECK(r->svm.known && r->svm.before == 6 && r->svm.data[6] == 2);
	CHECK(got.pvm == 1 && got.svm == 1);
	end();

	begin_with(NULL);
	syn(true, 3); /* only its hash is kept */
	syn(false, 8);
	r = last(CM_MISMATCH, CM_KIND_SYN);
	CHECK(r->pvm.known && r->pvm.after > 10 && !r->svm.known);
	end();
}

static void udp(bool from_svm, const char *data)
{
	size_t n = build_udp(frame, false, 53, 900, data, strlen(data), from_svm);

	from_svm ? cm_from_svm(cm, 1, frame, n, now) : cm_from_pvm(cm, frame, n, now);
}

/* one request: the answers to it are compared at once */
static void ask(void)
{
	cm_from_client(cm, frame, build_udp(frame, true, 53, 900, "?", 1, 1), now);
}

/* until the PVM's frame has waited too long */
static void wait_long(void)
{
	uint64_t at = cm_next_tick(cm);

	CHECK(at != UINT64_MAX && at > now);
	cm_tick(cm, at - 1);
	CHECK(bed.wants == 0);
	now = at;
	cm_tick(cm, now);
	CHECK(bed.wants == 1);
}

static void test_datagram(void)
{
	const struct cm_report *r;

	begin_with(NULL);
	ask();
	udp(false, "answer 1");
	udp(false, "behind");
	now += 50;
	udp(true, "answer 23");
	r = last(CM_MISMATCH, CM_KIND_DATAGRAM);
	CHECK(r->origin == CM_OF_PACKET && r->offset == 7 && r->waited_us == 50);
	flow_is(r, "udp 10.0.0.2:53 to 10.1.0.1:900");
	side(&r->pvm, "answer ", "1");
	side(&r->svm, "answer ", "23");
	CHECK(r->pvm.value == 8 && r->svm.value == 9);
	CHECK(got.pvm == 2 && got.svm == 1);
	end();

	begin_with(NULL); /* the SVM first, and only longer */
	ask();
	udp(true, "answer 12");
	udp(false, "answer 1");
	r = last(CM_MISMATCH, CM_KIND_DATAGRAM);
	CHECK(r->offset == 8 && r->waited_us == 0 && r->svm.after == 1 && r->pvm.after == 0);
	CHECK(got.pvm == 1 && got.svm == 0);
	end();
}

static void test_icmp(void)
{
	const struct cm_report *r;
	size_t n;

	begin_with(NULL);
	n = build_icmp(frame, false, 0, 77, "ping", 4);
	cm_from_pvm(cm, frame, n, now);
	n = build_icmp(frame, false, 0, 77, "pong", 4);
	cm_from_svm(cm, 1, frame, n, now);
	wait_long();
	r = last(CM_MISMATCH, CM_KIND_DATAGRAM);
	flow_is(r, "icmp type 0 code 0 10.0.0.2 to 10.1.0.1");
	CHECK(r->pvm.data[r->pvm.before] == 'i' && r->svm.data[r->svm.before] == 'o');
	end();
}

/* two fragments */
static void fragments(bool from_svm, const char *data)
{
	uint8_t udp[64];
	struct ip_spec s = { .proto = 17, .peer = 1, .frag = true, .more = true, .payload = udp, .len = 16 };
	size_t n = put_udp(udp, 53, 900, data, strlen(data), from_svm), m;

	m = build_ip(frame, &s);
	from_svm ? cm_from_svm(cm, 1, frame, m, now) : cm_from_pvm(cm, frame, m, now);
	s.more = false;
	s.offset = 16;
	s.payload = udp + 16;
	s.len = n - 16;
	m = build_ip(frame, &s);
	from_svm ? cm_from_svm(cm, 1, frame, m, now) : cm_from_pvm(cm, frame, m, now);
}

static void test_fragment(void)
{
	const struct cm_report *r;

	begin_with(NULL);
	fragments(false, "the pieces A");
	fragments(true, "the pieces B!");
	wait_long();
	r = last(CM_MISMATCH, CM_KIND_FRAGMENT);
	CHECK(r->fragment && r->offset == 11 && r->pvm.value == 12 && r->svm.value == 13);
	flow_is(r, "udp 10.0.0.2:53 to 10.1.0.1:900, fragment");
	side(&r->pvm, "the pieces ", "A");
	side(&r->svm, "the pieces ", "B!");
	CHECK(got.pvm == 2);
	end();
}

static void test_no_answer(void)
{
	const struct cm_report *r;
	uint64_t from;

	begin();
	pvm(1001, "hello world");
	pvm(1012, "more");
	svm(1001, "hello ");
	from = now;
	wait_long();
	r = last(CM_MISSING, CM_KIND_NO_ANSWER);
	CHECK(r->offset == 6 && r->waited_us == now - from && r->waited_us == r->patience_us);
	CHECK(r->pvm.after == 9 && !memcmp(r->pvm.data + r->pvm.before, "worldmore", 9));
	CHECK(r->pvm.before == 6 && r->svm.after == 0);
	CHECK(got.pvm == 2 && got.svm == 0 && got.time[0] == from);
	end();

	begin_with(NULL);
	udp(false, "answer");
	wait_long();
	r = last(CM_MISSING, CM_KIND_NO_ANSWER);
	CHECK(r->origin == CM_OF_PACKET && !r->svm.known && r->pvm.value == 6);
	side(&r->pvm, "", "answer");
	CHECK(got.pvm == 1);
	end();
}

/* frames of an older incarnation of the connection are on no list of their flow any more */
static void test_no_answer_to_an_old_connection(void)
{
	const struct cm_report *r;

	begin();
	pvm(1001, "left behind");
	pvm(1012, "and more");
	now += 5;
	tcp(false, 90000, "", 6001, F_SYN | F_ACK);
	wait_long();
	r = last(CM_MISSING, CM_KIND_NO_ANSWER);
	CHECK(r->origin == CM_OF_PACKET);
	side(&r->pvm, "", "left behind");
	CHECK(got.pvm == 1);
	end();
}

static void test_no_syn(void)
{
	const struct cm_report *r;

	begin_with(NULL);
	tcp(false, 1000, "", 5001, F_SYN | F_ACK);
	wait_long();
	r = last(CM_MISSING, CM_KIND_NO_SYN);
	flow_is(r, "tcp 10.0.0.2:80 to 10.1.0.0:4000");
	CHECK(got.pvm == 1 && (got.first_pvm.flags & F_SYN));
	CHECK(r->origin == CM_OF_NOTHING);
	end();
}

static void test_no_fin(void)
{
	const struct cm_report *r;

	begin();
	tcp(false, 1001, "bye", 5001, F_ACK | F_FIN);
	svm(1001, "bye");
	wait_long();
	r = last(CM_MISSING, CM_KIND_NO_FIN);
	CHECK(r->offset == 3 && r->pvm.fin && !r->svm.fin);
	end();
}

static void test_reset(void)
{
	const struct cm_report *r;

	begin();
	tcp(false, 1001, "", 5001, F_RST | F_ACK);
	wait_long();
	r = last(CM_MISSING, CM_KIND_RESET);
	CHECK(r->pvm.rst && !r->svm.rst);
	end();

	begin();
	pvm(1001, "data");
	tcp(true, 1001, "", 5001, F_RST | F_ACK);
	wait_long();
	r = last(CM_MISSING, CM_KIND_RESET);
	CHECK(!r->pvm.rst && r->svm.rst && r->svm.known);
	CHECK(r->pvm.after == 4 && !memcmp(r->pvm.data, "data", 4));
	end();
}

static void test_urgent(void)
{
	struct tcp_spec s = { .gport = G, .pport = P, .seq = 1001, .ack = 5001, .flags = F_ACK | 0x20,
		.tsval = 1000, .data = "!", .len = 1 };
	size_t n;

	begin();
	n = build_tcp(frame, &s);
	frame[VNET_HLEN + 14 + 20 + 19] = 1; /* the mark; the parser does not look at checksums */
	cm_from_pvm(cm, frame, n, now);
	svm(1001, "!");
	wait_long();
	last(CM_MISSING, CM_KIND_URGENT);
	end();
}

static void test_no_ack(void)
{
	const struct cm_report *r;

	begin();
	tcp(false, 1001, "", 5101, F_ACK);
	tcp(true, 1001, "", 5041, F_ACK);
	wait_long();
	r = last(CM_MISSING, CM_KIND_NO_ACK);
	CHECK(r->pvm.known && r->svm.known && r->pvm.value == 100 && r->svm.value == 40);
	CHECK(r->origin == CM_OF_NOTHING && r->patience_us >= 100000); /* a guest may delay its ACKs */
	CHECK(got.pvm == 1 && got.first_pvm.ack == 5101);
	end();

	begin_with(NULL); /* nothing is known of the peer's stream, nor of the SVM's ACKs */
	tcp(false, 1001, "", 5101, F_ACK);
	wait_long();
	r = last(CM_MISSING, CM_KIND_NO_ACK);
	CHECK(!r->pvm.known && !r->svm.known);
	end();
}

static void window(bool svm_side, uint32_t ack, uint16_t size)
{
	struct tcp_spec s = { .gport = G, .pport = P, .seq = 1001, .ack = ack, .flags = F_ACK, .tsval = 1000,
		.window = size, .shut = !size };

	say(svm_side, &s);
}

static void test_window(void)
{
	const struct cm_report *r;

	begin();
	window(true, 5101, 0);
	window(false, 5101, 300);
	wait_long();
	r = last(CM_MISSING, CM_KIND_WINDOW);
	CHECK(r->pvm.known && r->svm.known && r->pvm.value == 300 && r->svm.value == 0);
	end();
}

static void test_full(void)
{
	struct cm_config few = { .max_flows = 64 }, small = { .max_held_bytes = 1 << 20 };
	const struct cm_report *r;
	static char big[1401];

	memset(big, 'x', 1400);
	begin_with(&small);
	for (uint32_t i = 0; !bed.wants && i < 2000; i++)
		pvm(1001 + i * 1400, big);
	r = last(CM_FULL, CM_KIND_HELD);
	CHECK(r->svm.value == 1 << 20 && r->pvm.value > (1 << 20) - 4000 && r->pvm.value <= 1 << 20);
	end();

	begin();
	for (uint32_t i = 0; !bed.wants && i < 10000; i++)
		svm(1001 + i * 1400, big);
	r = last(CM_FULL, CM_KIND_AHEAD);
	CHECK(r->svm.value == 8 << 20 && r->pvm.value > 7 << 20);
	flow_is(r, "tcp 10.0.0.2:80 to 10.1.0.0:4000");
	end();

	begin_with(&few);
	for (uint16_t i = 0; !bed.wants && i < 1000; i++) {
		struct tcp_spec s = { .gport = G, .pport = i, .seq = 1, .flags = F_ACK, .data = "x", .len = 1 };

		say(false, &s);
	}
	CHECK(!bed.wants);
	now = cm_next_tick(cm);
	cm_tick(cm, now);
	r = last(CM_FULL, CM_KIND_FLOWS);
	CHECK(r->pvm.value == 64 && r->svm.value == 64);
	end();
}

/* flow i of the guest differs at offset 1 */
static void differ(uint64_t epoch, uint16_t i)
{
	struct tcp_spec s = { .gport = G, .pport = i, .seq = 1, .flags = F_ACK, .data = "ab", .len = 2 };

	cm_from_pvm(cm, frame, build_tcp(frame, &s), now);
	s.data = "aB";
	cm_from_svm(cm, epoch, frame, build_tcp(frame, &s), now);
}

/* more than the first of an epoch, but not all; the ring keeps the newest */
static void test_bounds(void)
{
	const struct cm_report *r;
	struct cm_stats st;
	uint64_t epoch = 1, n = 0;
	size_t i;

	begin_with(NULL);
	for (i = 0; i < 100; i++)
		differ(epoch, (uint16_t)i);
	cm_get_stats(cm, &st);
	CHECK(st.mismatches == 100 && st.kinds[CM_KIND_PAYLOAD] == 100 && bed.wants == 1);
	for (i = 0; (r = cm_get_report(cm, i)); i++)
		CHECK(r->number == CM_REPORTS_EPOCH - i && r->pport == CM_REPORTS_EPOCH - i - 1);
	CHECK(i == CM_REPORTS_EPOCH);
	for (n = i; n < 1000; n++) {
		now += 10;
		cm_boundary(cm, ++epoch, now);
		cm_held(cm, epoch, now);
		differ(epoch, (uint16_t)(1000 + n));
	}
	for (i = 0; (r = cm_get_report(cm, i)); i++) {
		CHECK(r->number == n - i && r->pport == 1000 + n - 1 - i && r->epoch == epoch - i);
		CHECK(r->time_us == now - 10 * i && r->offset == 1);
	}
	CHECK(i == CM_REPORTS && !cm_get_report(cm, SIZE_MAX));
	end();
}

/* a random stream, a random place, cut at random: the report says where, and shows the right bytes */
static void test_random_places(uint64_t seed)
{
	static char data[3000], wrong[3000];
	struct rnd rnd = { seed };

	for (int round = 0; round < 3000; round++) {
		uint32_t at = rnd_below(&rnd, 2000), n = at + 1 + rnd_below(&rnd, 900), from[2] = { 0, 0 };
		const struct cm_report *r;

		begin();
		for (uint32_t i = 0; i < n; i++)
			wrong[i] = data[i] = (char)('a' + rnd_below(&rnd, 26));
		wrong[at] ^= 32;
		while (!cm_get_report(cm, 0)) {
			bool s = from[0] == n || (from[1] < n && rnd_below(&rnd, 2));
			uint32_t len = 1 + rnd_below(&rnd, n - from[s]);
			struct tcp_spec spec = { .gport = G, .pport = P, .seq = 1001 + from[s], .ack = 5001,
				.flags = F_ACK, .tsval = 1, .data = (s ? wrong : data) + from[s], .len = len };

			CHECK(from[s] < n);
			say(s, &spec);
			from[s] += len;
		}
		r = last(CM_MISMATCH, CM_KIND_PAYLOAD);
		CHECK(r->offset == at && r->pvm.after && r->svm.after);
		CHECK(!memcmp(r->pvm.data, data + at - r->pvm.before, r->pvm.before + r->pvm.after));
		CHECK(!memcmp(r->svm.data, wrong + at - r->svm.before, r->svm.before + r->svm.after));
		CHECK(r->pvm.before <= CM_EXCERPT && r->pvm.after <= CM_EXCERPT);
		end();
	}
}

int main(int argc, char **argv)
{
	test_seed_from(argc, argv);
	test_payload();
	test_payload_svm_first();
	test_payload_across_segments();
	test_wrap();
	test_unknown_start();
	test_fin();
	test_repeat();
	test_syn_options();
	test_datagram();
	test_icmp();
	test_fragment();
	test_no_answer();
	test_no_answer_to_an_old_connection();
	test_no_syn();
	test_no_fin();
	test_reset();
	test_urgent();
	test_no_ack();
	test_window();
	test_full();
	test_bounds();
	test_random_places(test_seed);
	puts("ok");
	return 0;
}
