/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * bench_cm.c - what comparing costs: a client's request, the PVM's and the SVM's small answers to it
 *
 * bench_cm [SECONDS]: per number of flows and size of the answer, answers per second and ns per answer.
 */
#include <time.h>

#include "net_test.h"

enum { IP = VNET_HLEN + 14, SEQ = IP + 20 + 4, ACK = SEQ + 4 };

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

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
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

static void run(uint32_t nflows, size_t size, bool svm_first, double secs)
{
	static const struct cm_ops ops = { on_release, on_want, on_syn };
	struct cm_config cfg = { .max_flows = 131072 };
	struct cm *cm = cm_new(&cfg, &ops, NULL);
	uint8_t answer[2000], request[2000], data[1500] = { 0 };
	struct tcp_spec s = { .gport = 80, .flags = F_ACK | F_PSH, .tsval = 1, .data = data, .len = size };
	struct tcp_spec r = { .to_guest = true, .gport = 80, .flags = F_ACK, .tsval = 1 };
	uint32_t *seq = calloc(nflows, sizeof(*seq)), i = 0;
	size_t alen = build_tcp(answer, &s), rlen = build_tcp(request, &r);
	uint64_t n = 0, now = 1;
	double start, t;

	cm_set_mode(cm, CM_COMPARE, 0);
	cm_start_epoch(cm, 1, 0);
	left = 0;
	start = seconds();
	do {
		for (int k = 0; k < 1000; k++, n++, now += 2) {
			i = i + 1 < nflows ? i + 1 : 0;
			address(request, i, true);
			cm_from_client(cm, request, rlen, now);
			address(answer, i, false);
			put32(answer + SEQ, seq[i]);
			put32(answer + ACK, seq[i]);
			if (svm_first)
				cm_from_svm(cm, 1, answer, alen, now);
			cm_from_pvm(cm, answer, alen, now);
			if (!svm_first)
				cm_from_svm(cm, 1, answer, alen, now);
			seq[i] += (uint32_t)size;
		}
		t = seconds() - start;
	} while (t < secs);
	CHECK(left == n);
	printf("%6u flows, %4zu bytes, %s first: %7.0f ns per answer, %5.2f M/s\n", nflows, size,
		svm_first ? "SVM" : "PVM", t * 1e9 / (double)n, (double)n / t / 1e6);
	free(seq);
	cm_free(cm);
}

int main(int argc, char **argv)
{
	double secs = argc > 1 ? atof(argv[1]) : 0.5;

	for (int svm_first = 0; svm_first < 2; svm_first++) {
		run(10, 64, svm_first, secs);
		run(10, 1448, svm_first, secs);
		run(1000, 64, svm_first, secs);
		run(100000, 64, svm_first, secs);
	}
	return 0;
}
