/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_tr.c - the translator: SYNs, segments and quoting ICMP errors on a few ports, in any order
 *
 * Four bytes an op. Frames are well formed; a translated one must keep right checksums, and what is
 * translated to the SVM and back is what it was.
 */
#include "tests/net/net_test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tr *tr; /* used again: to make one costs more than to use it */
static bool worn;     /* it has gone through a failover */
static uint64_t now;
static uint8_t frame[4096];
static const uint8_t payload[256];

static void on_waited(void *opaque, const uint8_t *f, size_t n)
{
	(void)opaque;
	CHECK(checksums_ok(f, n));
}

/* b: port, c: flags and family, a: numbers */
static size_t build(bool to_guest, uint8_t a, uint8_t b, uint8_t c)
{
	struct tcp_spec sp = {
		.to_guest = to_guest, .v6 = c & 128, .vlan = a & 128, .odd_ts = a & 64,
		.gport = (uint16_t)(b % 4), .pport = (uint16_t)(80 + (b >> 2) % 4), .peer = b >> 6,
		.seq = (uint32_t)(a & 15) << 28 | a, .ack = (uint32_t)(a >> 4) << 28 | (c & 7),
		.flags = c & 63, .tsval = c & 64 ? a + 1u : 0, .tsecr = c & 32 ? b : 0,
		.nsack = a & 16 ? 1 + (b & 3) : 0, .data = payload, .len = a & 32 ? b : 0,
	};

	for (int i = 0; i < 8; i++)
		sp.sack[i] = a * 3u + (uint32_t)i;
	return build_tcp(frame, &sp);
}

static void translate(bool to_svm, uint8_t a, uint8_t b, uint8_t c)
{
	size_t n = build(to_svm, a, b, c);
	uint8_t *copy = malloc(n);

	memcpy(copy, frame, n);
	if (to_svm ? tr_to_svm(tr, copy, n, now) : tr_from_svm(tr, copy, n, now))
		CHECK(checksums_ok(copy, n));
	free(copy);
}

/* an error of the peer or a router about a segment of the guest, cut anywhere */
static void icmp(uint8_t a, uint8_t b, uint8_t c)
{
	static const uint8_t types[] = { 3, 11, 12, 4, 5, 0 };
	size_t n = build(false, a, b, c & 127), quoted = n - VNET_HLEN - 14;
	uint8_t inner[4096], *copy;

	quoted = quoted < (size_t)(c & 63) ? quoted : (size_t)(c & 63);
	memcpy(inner, frame + VNET_HLEN + 14, quoted);
	n = build_icmp(frame, true, types[a % 6], 0, inner, quoted);
	copy = malloc(n);
	memcpy(copy, frame, n);
	tr_to_svm(tr, copy, n, now);
	free(copy);
}

static void run(uint8_t op, uint8_t a, uint8_t b, uint8_t c)
{
	size_t n;

	now += op * 100u;
	switch (op % 8) {
	case 0:
		n = build(false, a, b, (uint8_t)((c & ~(F_RST | F_FIN)) | F_SYN));
		tr_pvm_syn(tr, frame, n, now);
		break;
	case 1: translate(false, a, b, (uint8_t)((c & ~(F_RST | F_FIN)) | F_SYN)); break;
	case 2:
	case 3: translate(false, a, b, c); break;
	case 4:
	case 5: translate(true, a, b, c); break;
	case 6: icmp(a, b, c); break;
	default:
		if (c == 255) {
			tr_failover(tr, a);
			worn = true;
		} else if (c > 200) {
			tr_reset(tr, now);
		} else {
			now += (uint64_t)a << (c % 20);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct tr_ops ops = { on_waited };
	struct tr_config cfg = { .max_flows = 8 };
	struct tr_stats st;

	if (!tr)
		tr = tr_new(&cfg, &ops, NULL);
	CHECK(tr);
	now = 1;
	for (size_t i = 0; i + 4 <= size && i < 4000; i += 4)
		run(data[i], data[i + 1], data[i + 2], data[i + 3]);
	tr_get_stats(tr, &st);
	CHECK(st.entries <= 8 && st.waiting_syns <= st.entries);
	tr_reset(tr, now);
	if (worn) {
		tr_free(tr);
		tr = NULL;
		worn = false;
	}
	return 0;
}
