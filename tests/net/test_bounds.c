/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_bounds.c - floods from random sources cost neither checkpoints, established connections nor memory;
 * what is held too much is a checkpoint and back-pressure, never a loss
 *
 * CONNS connections exchange data all the time, while packets of one kind flood the guest, one a
 * microsecond. Both VMs answer as Linux does, the SVM up to LAG packets later than the PVM, or earlier.
 *
 * test_bounds [SEED [PACKETS]]: packets of each flood.
 */
#include "net_test.h"

enum { CONNS = 1000, REQUEST = 100, ANSWER = 300, EACH = 100, LAG = 400, QUEUE = 1024, FRAME = 600 };
enum { IP_SRC = VNET_HLEN + 14 + 12, IP_DST = IP_SRC + 4, ECHO_REPLY = 0, UNREACHABLE = 3 };

enum kind { SYN, PORT_SCAN, GARBAGE, UDP_OPEN, UDP_CLOSED, PING, FRAGMENTS, KINDS };
static const char *const names[KINDS] = {
	"SYN to an open port", "SYN to closed ports", "ACK out of the blue", "UDP to an open port",
	"UDP to a closed port", "ping", "fragments",
};

/* what the SVM does with the flood */
enum svm { ALIKE, HALF, OTHER_OPTIONS };

struct queued {
	uint64_t due;
	size_t len;
	uint8_t frame[FRAME];
};

struct conn {
	uint32_t seq, ack; /* of the guest */
};

static struct cm *cm;
static struct rnd rnd;
static struct conn conns[CONNS];
static struct queued queue[QUEUE]; /* the VM that is behind, by time */
static unsigned head, tail;
static bool svm_first;
static uint64_t now, epoch, held_at, step = 1;
static uint64_t wants, released, answers, answers_left;
static enum cm_cause cause;

static void on_release(void *opaque, const uint8_t *frame, size_t len)
{
	struct seg s;

	(void)opaque;
	released++;
	if (parse_seg(frame, len, false, &s) && s.gport == 80 && s.len == ANSWER)
		answers_left++;
}

/* as the daemon and the secondary would, after a while */
static void on_want(void *opaque, enum cm_cause c)
{
	(void)opaque;
	wants++;
	cause = c;
	held_at = now + 5000;
}

static void on_syn(void *opaque, const uint8_t *frame, size_t len)
{
	(void)opaque;
	(void)frame;
	(void)len;
}

static void begin(const struct cm_config *cfg)
{
	static const struct cm_ops ops = { on_release, on_want, on_syn };

	cm = cm_new(cfg, &ops, NULL);
	CHECK(cm);
	now = 1;
	epoch = 1;
	wants = released = answers = answers_left = held_at = 0;
	head = tail = 0;
	cm_set_mode(cm, CM_COMPARE, now);
	cm_start_epoch(cm, epoch, now);
}

static struct cm_stats stats(void)
{
	struct cm_stats st;

	cm_get_stats(cm, &st);
	return st;
}

/* --- the VMs --- */

static void from(bool svm, const uint8_t *frame, size_t len)
{
	if (svm)
		cm_from_svm(cm, epoch, frame, len, now);
	else
		cm_from_pvm(cm, frame, len, now);
}

static void deliver(uint64_t until)
{
	for (; head != tail && queue[head % QUEUE].due <= until; head++)
		from(!svm_first, queue[head % QUEUE].frame, queue[head % QUEUE].len);
}

/* what the VM says that is behind */
static void later(const uint8_t *frame, size_t len)
{
	struct queued *q = &queue[tail % QUEUE];
	uint64_t due = now + rnd_below(&rnd, LAG), last = head != tail ? queue[(tail - 1) % QUEUE].due : 0;

	CHECK(len <= FRAME);
	if (tail - head == QUEUE)
		deliver(queue[head % QUEUE].due);
	q->due = due > last ? due : last;
	q->len = len;
	memcpy(q->frame, frame, len);
	tail++;
}

static void both(const uint8_t *frame, size_t len)
{
	from(svm_first, frame, len);
	later(frame, len);
}

static void pass_time(void)
{
	now += step;
	deliver(now);
	if (cm_next_tick(cm) <= now)
		cm_tick(cm, now);
	if (!held_at || now < held_at)
		return;
	held_at = 0;
	deliver(UINT64_MAX);
	cm_boundary(cm, ++epoch, now);
	cm_held(cm, epoch, now);
	cm_svm_runs(cm, now);
}

/* --- the connections --- */

static size_t segment(uint8_t *out, unsigned i, bool to_guest, uint8_t flags, uint32_t len)
{
	static const uint8_t data[ANSWER];
	const struct conn *c = &conns[i];
	struct tcp_spec s = { .to_guest = to_guest, .gport = 80, .pport = (uint16_t)(2000 + i), .flags = flags,
		.seq = to_guest ? c->ack : c->seq, .ack = to_guest ? c->seq : c->ack, .tsval = 1,
		.wscale = flags & F_SYN ? 8 : 0, .data = data, .len = len };

	return build_tcp(out, &s);
}

static void peer(unsigned i, uint8_t flags, uint32_t len)
{
	uint8_t frame[FRAME];

	cm_from_client(cm, frame, segment(frame, i, true, flags, len), now);
}

static void guest(unsigned i, uint8_t flags, uint32_t len)
{
	uint8_t frame[FRAME];

	both(frame, segment(frame, i, false, flags, len));
}

static void connect_all(void)
{
	for (unsigned i = 0; i < CONNS; i++) {
		conns[i] = (struct conn){ (uint32_t)rnd_next(&rnd), (uint32_t)rnd_next(&rnd) };
		peer(i, F_SYN, 0);
		conns[i].ack++;
		guest(i, F_SYN | F_ACK, 0);
		conns[i].seq++;
		pass_time();
		peer(i, F_ACK, 0);
	}
}

static void exchange(unsigned i)
{
	peer(i, F_ACK | F_PSH, REQUEST);
	conns[i].ack += REQUEST;
	guest(i, F_ACK | F_PSH, ANSWER);
	conns[i].seq += ANSWER;
	answers++;
}

/* --- the floods --- */

static size_t from_stranger(uint8_t *out, const struct tcp_spec *spec, uint32_t address)
{
	size_t len = build_tcp(out, spec);

	memcpy(out + (spec->to_guest ? IP_SRC : IP_DST), &address, 4);
	return len;
}

/* an answer of the guest to it, in what the SVM may differ */
static void answer(uint8_t *frame, size_t len, enum svm svm, enum kind kind)
{
	bool rate_limited = kind == UDP_CLOSED;

	if (svm == ALIKE && !rate_limited) {
		both(frame, len);
		return;
	}
	if (!rate_limited || rnd_below(&rnd, 2))
		from(svm_first, frame, len);
	if (svm == OTHER_OPTIONS)
		frame[VNET_HLEN + 14 + 20 + 20 + 3] ^= 1; /* of the MSS */
	if (svm == OTHER_OPTIONS || rnd_below(&rnd, 2))
		later(frame, len);
}

static void flood_tcp(enum kind kind, enum svm svm)
{
	uint32_t address = (uint32_t)rnd_next(&rnd), theirs = (uint32_t)rnd_next(&rnd);
	bool syn = kind != GARBAGE, open = kind == SYN;
	struct tcp_spec s = { .to_guest = true, .gport = open ? 80 : (uint16_t)rnd_next(&rnd),
		.pport = (uint16_t)rnd_next(&rnd), .seq = theirs, .ack = (uint32_t)rnd_next(&rnd),
		.flags = syn ? F_SYN : F_ACK, .mss = syn ? 1460 : 0 };
	uint8_t frame[FRAME];

	cm_from_client(cm, frame, from_stranger(frame, &s, address), now);
	s.to_guest = false;
	s.seq = syn ? (uint32_t)rnd_next(&rnd) : s.ack;
	s.ack = syn ? theirs + 1 : 0;
	s.flags = open ? F_SYN | F_ACK : syn ? F_RST | F_ACK : F_RST;
	s.mss = open ? 1460 : 0;
	answer(frame, from_stranger(frame, &s, address), svm, kind);
}

static void flood_other(enum kind kind, enum svm svm)
{
	static const uint8_t data[64];
	uint32_t address = (uint32_t)rnd_next(&rnd);
	uint16_t port = (uint16_t)rnd_next(&rnd);
	uint8_t frame[FRAME], quoted[28 + 30];
	size_t len;

	len = kind == PING ? build_icmp(frame, true, 8, port, data, 56) :
			     build_udp(frame, true, 53, port, data, 30, 1);
	if (kind == FRAGMENTS)
		frame[VNET_HLEN + 14 + 6] = 0x20; /* more to come, which never do */
	memcpy(frame + IP_SRC, &address, 4);
	cm_from_client(cm, frame, len, now);
	if (kind == FRAGMENTS)
		return;
	memcpy(quoted, frame + VNET_HLEN + 14, sizeof(quoted));
	if (kind == PING)
		len = build_icmp(frame, false, ECHO_REPLY, port, data, 56);
	else if (kind == UDP_OPEN)
		len = build_udp(frame, false, 53, port, data, 50, 1);
	else
		len = build_icmp(frame, false, UNREACHABLE, 0, quoted, sizeof(quoted));
	memcpy(frame + IP_DST, &address, 4);
	answer(frame, len, svm, kind);
}

static uint64_t memory_bound(const struct cm_config *cfg)
{
	return CM_MEMORY(cfg->max_flows, cfg->max_held_bytes);
}

static void flood(enum kind kind, enum svm svm, uint32_t packets)
{
	unsigned i = 0;

	for (uint32_t n = 0; n < packets; n++) {
		pass_time();
		if (n % EACH == 0) {
			exchange(i);
			i = (i + 1) % CONNS;
		}
		if (kind < UDP_OPEN)
			flood_tcp(kind, svm);
		else
			flood_other(kind, svm);
	}
	for (int n = 0; n < LAG; n++)
		pass_time();
}

static void check_bounds(const struct cm_config *cfg)
{
	struct cm_stats st = stats();

	CHECK(st.flows <= cfg->max_flows && st.memory <= memory_bound(cfg) && st.flows_evicted == 0);
}

/* The connections were not forgotten: a difference is found, and told by its place in the whole stream. */
static void check_known(void)
{
	uint8_t frame[FRAME];

	for (unsigned i = 0; i < CONNS; i += CONNS / 10) {
		size_t len = segment(frame, i, false, F_ACK, ANSWER);
		const struct cm_report *r;

		from(false, frame, len);
		frame[len - 1] ^= 1;
		from(true, frame, len);
		r = cm_get_report(cm, 0);
		CHECK(r && r->kind == CM_KIND_PAYLOAD && r->pport == 2000 + i && r->origin == CM_OF_STREAM);
	}
	CHECK(wants == 1 && cause == CM_MISMATCH);
}

static void test_flood(enum kind kind, bool first, uint32_t packets)
{
	struct cm_config cfg = { .max_flows = 131072, .max_held_bytes = 64 << 20, .hash_seed = test_seed };

	begin(&cfg);
	svm_first = first;
	connect_all();
	flood(kind, ALIKE, packets);
	check_bounds(&cfg);
	CHECK(wants == 0 && answers > 0 && answers_left == answers && stats().held_packets == 0);
	CHECK(stats().released_by_checkpoint == 0 && stats().dropped == 0);
	printf("%-20s %s first: %7llu frames left, %6llu flows, %5.1f MiB\n", names[kind], first ? "SVM" : "PVM",
	       (unsigned long long)released, (unsigned long long)stats().flows,
	       (double)stats().memory / (1 << 20));
	check_known();
	cm_free(cm);
}

/* The VMs answer different parts of the flood, or answer it differently: it waits, and costs a checkpoint
 * a second at most. */
static void test_flood_differs(enum kind kind, enum svm svm, uint32_t packets)
{
	struct cm_config cfg = { .max_flows = 131072, .max_held_bytes = 64 << 20, .hash_seed = test_seed };

	begin(&cfg);
	svm_first = false;
	connect_all();
	step = 10;
	flood(kind, svm, packets);
	step = 1;
	check_bounds(&cfg);
	printf("%-20s differs: %llu checkpoints in %.1f s\n", names[kind], (unsigned long long)wants,
	       (double)now / 1e6);
	CHECK(wants >= 1 && wants <= 2 + now / 1000000);
	while (held_at || wants == 0)
		pass_time();
	CHECK(answers_left == answers);
	cm_free(cm);
}

/* --- held too much --- */

enum { DATAGRAM = 400, HELD = 1 << 20 };

static void datagram(bool svm, uint32_t i)
{
	uint8_t frame[FRAME], data[DATAGRAM] = { (uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16) };
	size_t len = build_udp(frame, false, 53, 1000, data, DATAGRAM, 1);

	from(svm, frame, len);
}

/* The owner stops reading at cm_is_full(); what was under way comes on until the boundary. */
static void test_back_pressure(enum cm_mode mode)
{
	struct cm_config cfg = { .max_held_bytes = HELD };
	uint64_t n = 0, most;

	begin(&cfg);
	cm_set_mode(cm, mode, now);
	for (; !cm_is_full(cm); n++)
		datagram(false, (uint32_t)n);
	CHECK(wants == 1 && cause == CM_FULL && n > HELD / 2000 && stats().held_packets == n);
	for (most = 2 * n - n / 10; n < most; n++)
		datagram(false, (uint32_t)n);
	cm_boundary(cm, ++epoch, now);
	CHECK(cm_is_full(cm) && released == 0);
	cm_held(cm, epoch, now);
	CHECK(released == n && !cm_is_full(cm) && stats().dropped == 0 && stats().held_packets == 0);
	CHECK(wants == 1);
	cm_free(cm);
}

/* as much again came after the boundary: once that is held the next checkpoint is wanted */
static void test_full_again(void)
{
	struct cm_config cfg = { .max_held_bytes = HELD };
	uint32_t n = 0;

	begin(&cfg);
	for (; !cm_is_full(cm); n++)
		datagram(false, n);
	cm_boundary(cm, ++epoch, now);
	for (uint32_t k = 0; k < n - n / 20; k++)
		datagram(false, k);
	cm_held(cm, epoch, now);
	CHECK(released == n && !cm_is_full(cm));
	for (; !cm_is_full(cm); n++)
		datagram(false, n);
	CHECK(wants >= 2 && cause == CM_FULL && stats().dropped == 0);
	cm_free(cm);
}

/* What is lost of the SVM is worth nothing once the checkpoint is there that was asked for. */
static void test_svm_too_far_ahead(void)
{
	struct cm_config cfg = { .max_held_bytes = HELD };
	uint32_t n = 0, k;

	begin(&cfg);
	for (; stats().dropped < 10; n++)
		datagram(true, n);
	CHECK(wants == 1 && cause == CM_FULL);
	for (k = 0; k < n; k++)
		datagram(false, k);
	CHECK(released >= n - 10 && stats().dropped == 10);
	cm_boundary(cm, ++epoch, now);
	cm_held(cm, epoch, now);
	CHECK(released == n && stats().held_packets == 0);
	datagram(false, n);
	datagram(true, n);
	CHECK(released == n + 1 && wants == 1);
	cm_free(cm);
}

/* bursts of frames of one size after the other: chunks serve all sizes in turn */
static void test_memory_of_held(void)
{
	static uint8_t frame[70000], data[65000];
	static const size_t sizes[] = { 100, 1400, 9000, 65000 };
	struct cm_config cfg = { .max_flows = 1024, .max_held_bytes = 16 << 20 };

	begin(&cfg);
	for (int round = 0; round < 8; round++) {
		size_t len = build_udp(frame, false, 53, 1000, data, sizes[round % 4], 1);

		while (!cm_is_full(cm) && !stats().dropped)
			from(false, frame, len);
		for (int k = 0; k < 100; k++)
			from(false, frame, len);
		CHECK(stats().memory <= memory_bound(&cfg) && stats().dropped == 0);
		CHECK(stats().held_bytes > cfg.max_held_bytes / 4);
		cm_boundary(cm, ++epoch, now);
		cm_held(cm, epoch, now);
		CHECK(stats().held_packets == 0);
	}
	cm_free(cm);
}

/* The table is full of flows that hold something: others wait for the next boundary, which comes within
 * a second; not at once, and nothing is lost. */
static void test_table_full(void)
{
	struct cm_config cfg = { .max_flows = 64 };
	uint8_t frame[FRAME], data[DATAGRAM] = { 0 };

	begin(&cfg);
	for (uint16_t i = 0; i < 1000; i++, now++)
		from(false, frame, build_udp(frame, false, 53, i, data, 10, 1));
	CHECK(stats().flows == 64 && stats().held_packets == 1000 && stats().dropped == 0 && wants == 0);
	now = cm_next_tick(cm);
	CHECK(now < 1100000);
	cm_tick(cm, now);
	CHECK(wants == 1 && cause == CM_FULL);
	cm_boundary(cm, ++epoch, now);
	cm_held(cm, epoch, now);
	CHECK(released == 1000);
	cm_free(cm);
}

int main(int argc, char **argv)
{
	uint32_t packets = argc > 2 ? (uint32_t)atoi(argv[2]) : 1000000;

	rnd.s = test_seed_from(argc, argv);
	test_back_pressure(CM_COMPARE);
	test_back_pressure(CM_HOLD);
	test_full_again();
	test_svm_too_far_ahead();
	test_memory_of_held();
	test_table_full();
	for (int kind = 0; kind < KINDS; kind++)
		test_flood((enum kind)kind, false, packets);
	test_flood(SYN, true, packets);
	test_flood(UDP_OPEN, true, packets);
	test_flood_differs(SYN, HALF, packets / 4);
	test_flood_differs(SYN, OTHER_OPTIONS, packets / 4);
	test_flood_differs(PORT_SCAN, HALF, packets / 4);
	test_flood_differs(UDP_OPEN, HALF, packets / 4);
	puts("ok");
	return 0;
}
