/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hostile.c - see hostile.h
 */
#include "hostile.h"
#include "net/nudge.h"
#include "net_test.h"

struct state {
	struct cm *cm;
	struct tr *tr;
	struct nudge *nudge;
	uint64_t nudges;
	uint64_t now, epoch;
	uint64_t in, out, syns, wants, captured;
	uint8_t waited[2048];
	size_t waited_len;
	bool worn; /* the translator has gone through a failover */
};

enum { FLOWS = 16, HELD = 64 << 10 };

static void on_release(void *opaque, const uint8_t *frame, size_t len)
{
	struct state *s = opaque;

	CHECK(len >= VNET_HLEN + 14 && len <= NET_FRAME_MAX);
	s->out += frame[len - 1] + 1u > 0; /* read to the end */
}

static void on_want(void *opaque, enum cm_cause cause)
{
	struct state *s = opaque;

	CHECK(cause < CM_NCAUSES);
	s->wants++;
}

/* may come during a callback of the cm, so it cannot be given to it here */
static void on_waited(void *opaque, const uint8_t *frame, size_t len)
{
	struct state *s = opaque;

	CHECK(len >= VNET_HLEN + 14 && len <= sizeof(s->waited));
	memcpy(s->waited, frame, len);
	s->waited_len = len;
}

static void on_syn(void *opaque, const uint8_t *frame, size_t len)
{
	struct state *s = opaque;

	s->syns++;
	tr_pvm_syn(s->tr, frame, len, s->now);
}

static void check_bounds(struct state *s)
{
	struct cm_stats st;
	struct tr_stats ts;

	cm_get_stats(s->cm, &st);
	tr_get_stats(s->tr, &ts);
	CHECK(st.flows <= FLOWS && ts.entries <= FLOWS && ts.waiting_syns <= ts.entries);
	CHECK(st.held_bytes <= 2 * HELD);
}

/* exactly as large as the frame, so that a sanitizer sees what is read beyond */
static void translate(struct state *s, bool to_svm, const uint8_t *frame, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (len)
		memcpy(copy, frame, len);
	if (to_svm) {
		tr_to_svm(s->tr, copy, len, s->now);
	} else if (tr_from_svm(s->tr, copy, len, s->now)) {
		nudge_saw(s->nudge, copy, len, s->now);
		cm_from_svm(s->cm, s->epoch, copy, len, s->now);
	}
	free(copy);
}

static void control(struct state *s, uint8_t what)
{
	switch (what % 8) {
	case 0: cm_boundary(s->cm, ++s->epoch, s->now); break;
	case 1: cm_held(s->cm, s->epoch, s->now); break;
	case 2: cm_svm_runs(s->cm, s->now); break;
	case 3: tr_reset(s->tr, s->now); break;
	case 4: cm_set_mode(s->cm, (enum cm_mode)(what / 8 % 3), s->now); break;
	case 5: cm_start_epoch(s->cm, s->epoch = what / 8, s->now); break;
	case 6: cm_held(s->cm, s->epoch + 1, s->now); break;
	default:
		if (what != 255)
			break;
		tr_failover(s->tr, 10);
		s->worn = true;
	}
}

static void deliver_waited(struct state *s)
{
	size_t len = s->waited_len;

	s->waited_len = 0;
	if (len)
		cm_from_svm(s->cm, s->epoch, s->waited, len, s->now);
}

static void command(struct state *s, uint8_t cmd, const uint8_t *frame, size_t len)
{
	s->now += cmd * 10u;
	switch (cmd & 7) {
	case 0:
	case 1: cm_from_pvm(s->cm, frame, len, s->now); break;
	case 2:
	case 3: cm_from_svm(s->cm, s->epoch, frame, len, s->now); break;
	case 4: cm_from_client(s->cm, frame, len, s->now); break;
	case 5: translate(s, true, frame, len); break;
	case 6: translate(s, false, frame, len); break;
	default:
		control(s, len ? frame[0] : cmd);
		cm_tick(s->cm, s->now);
	}
	deliver_waited(s);
	check_bounds(s);
}

static void on_capture(void *opaque, const struct cm_report *r, bool svm, uint64_t time, const uint8_t *frame,
	size_t len)
{
	struct state *s = opaque;

	CHECK(len >= VNET_HLEN + 14 && len <= NET_FRAME_MAX && time <= s->now && r->number);
	s->captured += svm + frame[len - 1] + 1u > 0; /* read to the end */
}

static void read_side(const struct cm_side *side)
{
	CHECK(side->before <= CM_EXCERPT && side->after <= CM_EXCERPT);
}

static void read_reports(struct state *s)
{
	const struct cm_report *r;
	struct cm_stats st;
	uint64_t sum = 0;
	char text[200];
	size_t n = 0;

	while ((r = cm_get_report(s->cm, n))) {
		CHECK(r->cause < CM_NCAUSES && r->kind < CM_NKINDS && r->time_us <= s->now);
		read_side(&r->pvm);
		read_side(&r->svm);
		cm_report_flow(r, text, sizeof(text));
		CHECK(*text && strlen(text) < sizeof(text) - 1);
		n++;
	}
	CHECK(n <= CM_REPORTS);
	cm_explain(s->cm, s->now, text, sizeof(text));
	cm_get_stats(s->cm, &st);
	for (int i = 0; i < CM_NKINDS; i++)
		sum += st.kinds[i];
	CHECK(sum == st.mismatches + st.missing + st.full);
}

static void on_nudge(void *arg, const uint8_t *frame, size_t len)
{
	struct state *s = arg;

	CHECK(len > VNET_HLEN + 14 + 20 && len < 200);
	s->nudges += frame[len - 1] + 1u > 0;
}

static void all_leaves(struct state *s)
{
	struct cm_stats st;

	cm_set_mode(s->cm, CM_PASS, s->now);
	cm_get_stats(s->cm, &st);
	CHECK(st.held_packets == 0 && st.held_bytes == 0 && st.released == s->out);
}

/* A segment on a few ports in a small range of numbers, described by the record's first bytes. Then come its
 * options, or pairs of offset and value that damage it. Returns its length. */
static size_t build_described(uint8_t *out, size_t room, const uint8_t *p, size_t n)
{
	static const uint8_t data[1400];
	bool options = p[5] & 2;
	struct tcp_spec t = {
		.to_guest = p[0] & 1, .v6 = p[0] & 2, .vlan = p[0] & 4, .odd_ts = p[0] & 8, .partial = p[0] & 16,
		.odd_opt = !options && p[0] & 32 ? 19 : 0, .wscale = p[0] >> 6, .gport = 80, .pport = p[1] % 4,
		.flags = p[2], .seq = p[3] * 7u + (p[1] & 128 ? 0u - 900 : 0), .ack = p[4] * 5u,
		.tsval = p[5] & 1 ? p[5] : 0, .nsack = options ? 0 : p[5] >> 6, .window = p[6], .urg = p[6] & 7,
		.data = data, .len = p[7] < 200 ? p[7] : (p[7] - 199u) * 24,
	};
	size_t len;

	if (options) {
		t.raw_opt = p + 8;
		t.raw_len = (n - 8 < 24 ? n - 8 : 24) & ~(size_t)3;
	}
	len = build_tcp(out, &t);
	CHECK(len <= room);
	for (size_t i = 8; !options && i + 1 < n; i += 2)
		out[p[i] % len] ^= p[i + 1];
	return len;
}

static void record(struct state *s, uint8_t cmd, const uint8_t *p, size_t n)
{
	uint8_t frame[2048], *exact;
	size_t len;

	if (!(cmd & 128) || n < 8) {
		command(s, cmd, p, n);
		return;
	}
	len = build_described(frame, sizeof(frame), p, n);
	exact = malloc(len);
	memcpy(exact, frame, len);
	command(s, cmd & 127, exact, len);
	free(exact);
}

/* a translator is used again, unless it served alone: to make one costs more than to use it */
static struct tr *fresh_translator(void *opaque)
{
	static const struct tr_ops ops = { on_waited };
	struct tr_config cfg = { .max_flows = FLOWS };

	return tr_new(&cfg, &ops, opaque);
}

void hostile_run(const uint8_t *in, size_t len)
{
	static const struct cm_ops ops = { on_release, on_want, on_syn };
	static struct state s;
	struct cm_config cfg = { .max_flows = FLOWS, .max_held_bytes = HELD };
	struct tr *tr = s.worn ? NULL : s.tr;
	size_t n;

	s = (struct state){ .now = 1, .epoch = 1, .tr = tr ? tr : fresh_translator(&s) };
	s.cm = cm_new(&cfg, &ops, &s);
	s.nudge = nudge_new(FLOWS);
	CHECK(s.cm && s.tr && s.nudge);
	cm_set_capture(s.cm, on_capture, &s);
	cm_set_mode(s.cm, CM_COMPARE, 0);
	cm_start_epoch(s.cm, 1, 0);
	while (len >= 3) {
		n = (size_t)in[1] << 8 | in[2];
		if (n > len - 3)
			n = len - 3;
		record(&s, in[0], in + 3, n);
		in += 3 + n;
		len -= 3 + n;
	}
	read_reports(&s);
	nudge_send(s.nudge, 0, on_nudge, &s);
	CHECK(s.nudges <= FLOWS);
	all_leaves(&s);
	nudge_free(s.nudge);
	cm_free(s.cm);
	tr_reset(s.tr, s.now);
	if (s.worn)
		tr_free(s.tr);
}
