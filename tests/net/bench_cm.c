/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * bench_cm.c - what comparing costs: a client's request, the PVM's and the SVM's answer to it
 *
 * bench_cm [ROUNDS]: per load the best of so many rounds (the machine may be shared), with `way` answers
 * under way: as many requests come, then as many answers of one VM, then of the other. Flows are used in
 * random order. A packet is any of the three that an answer takes; frames of 64 KiB are what segmentation
 * offload makes. Cycles are the time stamp counter's. Bits are those of the answers' payload.
 */
#include <time.h>
#ifdef __x86_64__
#include <x86intrin.h>
#endif

#include "net_test.h"

enum { IP = VNET_HLEN + 14, SEQ = IP + 20 + 4, ACK = SEQ + 4, SMALL = 64, GSO = 65160, WAY_MAX = 64 };

struct load {
	uint32_t flows;
	size_t size;
	bool svm_first;
	unsigned way;
};

struct bench {
	struct cm *cm;
	struct load load;
	uint32_t *order;  /* flows, shuffled */
	uint32_t at, seq; /* place in `order`, of its first; sequence number of all flows in this pass */
	uint8_t *answer[WAY_MAX], request[200];
	size_t alen, rlen;
	uint64_t now, answers;
};

struct cost {
	double ns, cycles; /* per answer */
};

static uint64_t left;

static void on_release(void *opaque, const uint8_t *frame, size_t len)
{
	(void)opaque;
	(void)frame;
	(void)len;
	left++;
}

static void on_want(void *opaque, enum cm_cause cause)
{
	(void)opaque;
	fprintf(stderr, "unexpected %s\n", cm_cause_name(cause));
	exit(1);
}

static void on_syn(void *opaque, const uint8_t *frame, size_t len)
{
	(void)opaque;
	(void)frame;
	(void)len;
}

static double nanoseconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return 1e9 * (double)ts.tv_sec + (double)ts.tv_nsec;
}

static double cycles(void)
{
#ifdef __x86_64__
	return (double)__rdtsc();
#else
	return 0;
#endif
}

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

/* flow i: peer's address and port; the cm does not look at checksums */
static void address(uint8_t *frame, uint32_t i, bool to_guest)
{
	put32(frame + IP + (to_guest ? 12 : 16), 0x0a020000 + i / 1000);
	frame[IP + 20 + (to_guest ? 0 : 2)] = (uint8_t)((1000 + i % 1000) >> 8);
	frame[IP + 20 + (to_guest ? 1 : 3)] = (uint8_t)(1000 + i % 1000);
}

static void answers_of(struct bench *b, bool svm, unsigned n)
{
	for (unsigned k = 0; k < n; k++, b->now++) {
		if (svm)
			cm_from_svm(b->cm, 1, b->answer[k], b->alen, b->now);
		else
			cm_from_pvm(b->cm, b->answer[k], b->alen, b->now);
	}
}

/* n requests, which are answered */
static void burst(struct bench *b, unsigned n)
{
	for (unsigned k = 0; k < n; k++, b->now++) {
		uint32_t flow = b->order[b->at + k];

		address(b->request, flow, true);
		cm_from_client(b->cm, b->request, b->rlen, b->now);
		address(b->answer[k], flow, false);
		put32(b->answer[k] + SEQ, b->seq);
		put32(b->answer[k] + ACK, b->seq);
	}
	answers_of(b, b->load.svm_first, n);
	answers_of(b, !b->load.svm_first, n);
	b->answers += n;
}

/* each flow once */
static void pass(struct bench *b)
{
	for (b->at = 0; b->at < b->load.flows; b->at += b->load.way) {
		uint32_t rest = b->load.flows - b->at;

		burst(b, rest < b->load.way ? rest : b->load.way);
	}
	b->seq += (uint32_t)b->load.size;
}

static void shuffle(struct bench *b)
{
	struct rnd rnd = { 1 };

	for (uint32_t i = 0; i < b->load.flows; i++) {
		uint32_t j = rnd_below(&rnd, i + 1);

		b->order[i] = b->order[j];
		b->order[j] = i;
	}
}

static void begin(struct bench *b, const struct load *load)
{
	static const struct cm_ops ops = { on_release, on_want, on_syn };
	static const uint8_t data[GSO];
	struct cm_config cfg = { .max_flows = 131072 };
	struct tcp_spec s = { .gport = 80, .flags = F_ACK | F_PSH, .tsval = 1, .data = data, .len = load->size };
	struct tcp_spec r = { .to_guest = true, .gport = 80, .flags = F_ACK, .tsval = 1, .data = data, .len = 64 };

	*b = (struct bench){ .load = *load, .cm = cm_new(&cfg, &ops, NULL), .now = 1 };
	b->order = calloc(load->flows, sizeof(*b->order));
	CHECK(b->cm && b->order);
	b->rlen = build_tcp(b->request, &r);
	for (unsigned i = 0; i < load->way; i++) {
		b->answer[i] = malloc(load->size + 200);
		b->alen = build_tcp(b->answer[i], &s);
	}
	shuffle(b);
	cm_set_mode(b->cm, CM_COMPARE, 0);
	cm_start_epoch(b->cm, 1, 0);
	left = 0;
	pass(b); /* makes the flows */
}

static void end(struct bench *b)
{
	CHECK(left == b->answers);
	cm_free(b->cm);
	for (unsigned i = 0; i < b->load.way; i++)
		free(b->answer[i]);
	free(b->order);
}

/* some 30 ms */
static struct cost round_of(struct bench *b)
{
	uint64_t from = b->answers, n = b->load.size > 2000 ? 2000 : 150000;
	struct cost c = { nanoseconds(), cycles() };

	while (b->answers - from < n)
		pass(b);
	n = b->answers - from;
	return (struct cost){ (nanoseconds() - c.ns) / (double)n, (cycles() - c.cycles) / (double)n };
}

static void measure(const struct load *load, struct cost *best)
{
	struct bench b;
	struct cost c;

	begin(&b, load);
	c = round_of(&b);
	end(&b);
	if (!best->ns || c.ns < best->ns)
		*best = c;
}

static void print(const struct load *load, const struct cost *c)
{
	printf("| %6u | %5zu | %s | %2u | %5.0f | %6.0f | %5.0f | %6.0f | %5.2f | %5.1f |\n", load->flows,
	       load->size, load->svm_first ? "SVM" : "PVM", load->way, c->ns / 3, c->cycles / 3, c->ns,
	       c->cycles, 1e3 / c->ns, 8 * (double)load->size / c->ns);
}

static void summary(const struct load *loads, const struct cost *best, size_t n)
{
	double least = 1e18, most = 0, bits = 1e18;

	for (size_t i = 0; i < n; i++) {
		if (loads[i].size == SMALL) {
			least = best[i].ns < least ? best[i].ns : least;
			most = best[i].ns > most ? best[i].ns : most;
		} else if (8 * (double)loads[i].size / best[i].ns < bits) {
			bits = 8 * (double)loads[i].size / best[i].ns;
		}
	}
	printf("\nsmall answers: %.2f to %.2f million per second, a factor of %.2f; large ones: %.1f Gbit/s or more\n",
	       1e3 / most, 1e3 / least, most / least, bits);
}

int main(int argc, char **argv)
{
	static const struct load loads[] = {
		{ 10, SMALL, false, 1 }, { 1000, SMALL, false, 1 }, { 100000, SMALL, false, 1 },
		{ 10, SMALL, true, 1 }, { 1000, SMALL, true, 1 }, { 100000, SMALL, true, 1 },
		{ 10, SMALL, false, 64 }, { 1000, SMALL, false, 64 }, { 100000, SMALL, false, 64 },
		{ 10, SMALL, true, 64 }, { 1000, SMALL, true, 64 }, { 100000, SMALL, true, 64 },
		{ 10, 1448, false, 1 }, { 10, 1448, false, 8 }, { 1000, 1448, false, 64 },
		{ 10, GSO, false, 1 }, { 10, GSO, false, 8 },
	};
	enum { N = sizeof(loads) / sizeof(*loads) };
	struct cost best[N] = { 0 };
	int rounds = argc > 1 ? atoi(argv[1]) : 10;

	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < N; i++)
			measure(&loads[i], &best[i]);
	puts("| flows | bytes | first | way | ns/packet | cycles/packet | ns/answer | cycles/answer | M answers/s |"
	     " Gbit/s |\n|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|");
	for (int i = 0; i < N; i++)
		print(&loads[i], &best[i]);
	summary(loads, best, N);
	return 0;
}
