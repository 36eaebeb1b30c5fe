/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hostile.c - see hostile.h
 */
#include "hostile.h"
#include "net_test.h"

struct state {
	struct cm *cm;
	struct tr *tr;
	uint64_t now, epoch;
	uint64_t in, out, syns, wants, captured;
	uint8_t waited[2048];
	size_t waited_len;
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
	if (to_svm)
		tr_to_svm(s->tr, copy, len, s->now);
	else if (tr_from_svm(s->tr, copy, len, s->now))
		cm_from_svm(s->cm, s->epoch, copy, len, s->now);
	free(copy);
}

static void control(struct state *s, uint8_t what)
{
	switch (what % 8) {
	case 0: cm_boundary(s->cm, ++s->epoch, s->now); break;
	case 1: cm_held(s->cm, s->epoch, s->now); break;
	case 2: cm_svm_runs(s->cm, s->now); break;
	case 3: tr_reset(s->tr); break;
	case 4: cm_set_mode(s->cm, (enum cm_mode)(what / 8 % 3), s->now); break;
	case 5: cm_start_epoch(s->cm, s->epoch = what / 8, s->now); break;
	case 6: cm_held(s->cm, s->epoch + 1, s->now); break;
	default:
		if (what == 255)
			tr_failover(s->tr, 10);
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

static void all_leaves(struct state *s)
{
	struct cm_stats st;

	cm_set_mode(s->cm, CM_PASS, s->now);
	cm_get_stats(s->cm, &st);
	CHECK(st.held_packets == 0 && st.held_bytes == 0 && st.released == s->out);
}

void hostile_run(const uint8_t *in, size_t len)
{
	static const struct cm_ops ops = { on_release, on_want, on_syn };
	struct cm_config cfg = { .max_flows = FLOWS, .max_held_bytes = HELD };
	static const struct tr_ops tr_ops = { on_waited };
	struct tr_config tr_cfg = { .max_flows = FLOWS };
	struct state s = { .now = 1, .epoch = 1 };
	size_t n;

	s.cm = cm_new(&cfg, &ops, &s);
	s.tr = tr_new(&tr_cfg, &tr_ops, &s);
	CHECK(s.cm && s.tr);
	cm_set_capture(s.cm, on_capture, &s);
	cm_set_mode(s.cm, CM_COMPARE, 0);
	cm_start_epoch(s.cm, 1, 0);
	while (len >= 3) {
		n = (size_t)in[1] << 8 | in[2];
		if (n > len - 3)
			n = len - 3;
		command(&s, in[0], in + 3, n);
		in += 3 + n;
		len -= 3 + n;
	}
	read_reports(&s);
	all_leaves(&s);
	cm_free(s.cm);
	tr_free(s.tr);
}
