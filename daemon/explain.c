/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * explain.c - the differences that the NICs' comparing modules found, for the operator
 *
 * The modules keep the reports (net/explain.c), each NIC its own; here they become JSON, in order of time.
 * With [net] capture the frames that the reports are about go into a ring, each with a comment that says
 * what it has to do with which report, and leave it as pieces of a pcapng file (capture.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/hex.h"
#include "daemon/capture.h"
#include "daemon/daemon.h"

#define PIECE (64u << 10)

struct explain_nic {
	struct explain *e;
	unsigned int number;
	struct cm *cm;
	uint64_t captured; /* number of the last report with frames */
};

struct explain {
	struct explain_nic nic[AGENT_MAX_NICS];
	unsigned int nics;
	uint64_t capture_size; /* 0: off */
	struct capture capture;
};

/* --- the ring --- */

/* what to add to a time of ours to get microseconds since 1970 */
static uint64_t epoch_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000 - daemon_now_us();
}

static const char *const origins[] = {
	[CM_OF_STREAM] = "stream", [CM_OF_SEEN] = "first-seen", [CM_OF_PACKET] = "packet",
	[CM_OF_OPTIONS] = "options", [CM_OF_NOTHING] = "",
};

static void put_difference(char *text, size_t size, const struct cm_report *r)
{
	char pvm[2 * 16 + 1], svm[2 * 16 + 1];

	*text = 0;
	if (r->origin == CM_OF_NOTHING)
		return;
	hex_encode(pvm, r->pvm.data + r->pvm.before, r->pvm.after < 16 ? r->pvm.after : 16);
	hex_encode(svm, r->svm.data + r->svm.before, r->svm.after < 16 ? r->svm.after : 16);
	snprintf(text, size, " at byte %u of the %s, PVM %s, SVM %s", r->offset, origins[r->origin],
		 *pvm ? pvm : "nothing", *svm ? svm : "nothing");
}

static void on_capture(void *arg, const struct cm_report *r, bool svm, uint64_t time_us, const uint8_t *frame,
		       size_t len)
{
	struct explain_nic *n = arg;
	char comment[CAPTURE_COMMENT_MAX], difference[120];
	bool first = n->captured != r->number;

	n->captured = r->number;
	put_difference(difference, sizeof(difference), r);
	if (svm)
		snprintf(comment, sizeof(comment), "report %llu: what the SVM said",
			 (unsigned long long)r->number);
	else if (first)
		snprintf(comment, sizeof(comment), "report %llu: %s, %s%s; waited %.1f ms",
			 (unsigned long long)r->number, cm_cause_name(r->cause), cm_kind_name(r->kind),
			 difference, r->waited_us / 1e3);
	else
		snprintf(comment, sizeof(comment), "report %llu: held behind it",
			 (unsigned long long)r->number);
	capture_add(&n->e->capture, &(struct pcapng_packet){ .interface = 2 * n->number + svm,
		.time_us = time_us + epoch_us(), .comment = comment, .data = frame + VNET_HLEN,
		.len = len - VNET_HLEN });
}

/* --- set-up --- */

static struct explain *explain_new(uint64_t capture_size)
{
	struct explain *e = calloc(1, sizeof(*e));

	if (e && capture_size && capture_init(&e->capture, capture_size) < 0) {
		free(e);
		return NULL;
	}
	if (e)
		e->capture_size = capture_size;
	return e;
}

int explain_add(struct daemon *d, struct cm *cm)
{
	struct explain *e = d->explain;
	struct explain_nic *n;

	if (!e)
		e = d->explain = explain_new(d->cfg->capture);
	if (!e)
		return -ENOMEM;
	if (e->nics == AGENT_MAX_NICS)
		return -ENOSPC;
	n = &e->nic[e->nics];
	*n = (struct explain_nic){ .e = e, .number = e->nics++, .cm = cm };
	if (e->capture_size)
		cm_set_capture(cm, on_capture, n);
	return 0;
}

void explain_close(struct daemon *d)
{
	struct explain *e = d->explain;

	if (!e)
		return;
	if (e->capture_size)
		capture_free(&e->capture);
	free(e);
	d->explain = NULL;
}

/* --- reports --- */

struct entry {
	unsigned int nic;
	const struct cm_report *report;
};

static int by_time(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->report->time_us != y->report->time_us)
		return x->report->time_us < y->report->time_us ? -1 : 1;
	if (x->nic != y->nic)
		return x->nic < y->nic ? -1 : 1;
	return x->report->number < y->report->number ? -1 : 1;
}

/* all there are, oldest first */
static size_t collect(const struct explain *e, struct entry *out)
{
	const struct cm_report *r;
	size_t n = 0, k;
	unsigned int i;

	for (i = 0; e && i < e->nics; i++)
		for (k = 0; (r = cm_get_report(e->nic[i].cm, k)); k++)
			out[n++] = (struct entry){ i, r };
	qsort(out, n, sizeof(*out), by_time);
	return n;
}

static json_t *side(const struct cm_side *s)
{
	char before[2 * CM_EXCERPT + 1], after[2 * CM_EXCERPT + 1];

	if (!s->known)
		return json_null();
	hex_encode(before, s->data, s->before);
	hex_encode(after, s->data + s->before, s->after);
	return json_pack("{s:s s:s s:b s:b s:I}", "before", before, "after", after, "fin", s->fin, "rst",
			 s->rst, "value", (json_int_t)s->value);
}

static json_t *report(const struct entry *t, uint64_t epoch, uint64_t now)
{
	const struct cm_report *r = t->report;
	char flow[200];
	json_t *o;

	cm_report_flow(r, flow, sizeof(flow));
	o = json_pack("{s:I s:i s:I s:I s:I s:s s:s s:s}", "number", (json_int_t)r->number, "nic", (int)t->nic,
		      "at", (json_int_t)((r->time_us + epoch) / 1000), "age_ms",
		      (json_int_t)((now - r->time_us) / 1000), "epoch", (json_int_t)r->epoch, "cause",
		      cm_cause_name(r->cause), "kind", cm_kind_name(r->kind), "flow", flow);
	if (r->origin != CM_OF_NOTHING) {
		json_object_set_new(o, "offset", json_integer(r->offset));
		json_object_set_new(o, "offset_in", json_string(origins[r->origin]));
	}
	json_object_set_new(o, "pvm", side(&r->pvm));
	json_object_set_new(o, "svm", side(&r->svm));
	json_object_set_new(o, "waited_us", json_integer((json_int_t)r->waited_us));
	json_object_set_new(o, "lag_us", json_integer(r->lag_us));
	json_object_set_new(o, "lag_dev_us", json_integer(r->lag_dev_us));
	json_object_set_new(o, "patience_us", json_integer(r->patience_us));
	return o;
}

static json_t *reports(const struct explain *e, size_t max)
{
	struct entry all[AGENT_MAX_NICS * CM_REPORTS];
	size_t n = collect(e, all), i = n > max ? n - max : 0;
	uint64_t epoch = epoch_us(), now = daemon_now_us();
	json_t *list = json_array();

	for (; i < n; i++)
		json_array_append_new(list, report(&all[i], epoch, now));
	return list;
}

json_t *explain_counts(struct daemon *d)
{
	const struct explain *e = d->explain;
	uint64_t sum[CM_NKINDS] = { 0 };
	json_t *o = json_object();
	struct cm_stats s;
	unsigned int i, k;

	for (i = 0; e && i < e->nics; i++) {
		cm_get_stats(e->nic[i].cm, &s);
		for (k = 0; k < CM_NKINDS; k++)
			sum[k] += s.kinds[k];
	}
	for (k = 0; k < CM_NKINDS; k++)
		json_object_set_new(o, cm_kind_name(k), json_integer((json_int_t)sum[k]));
	return o;
}

static json_t *no(const char *why)
{
	return json_pack("{s:b s:s}", "ok", 0, "error", why);
}

json_t *explain_json(struct daemon *d, json_t *args)
{
	json_int_t last = json_integer_value(json_object_get(args, "last"));
	struct explain *e = d->explain;

	if (!daemon_is_primary(d))
		return no("this node is the secondary: the primary compares, ask there");
	return json_pack("{s:b s:s s:s s:s s:s s:I s:o s:o}", "ok", 1, "vm", d->cfg->name, "node",
			 config_local(d->cfg)->name, "state", core_state_name(d->core.state), "mode",
			 d->cfg->mode == MODE_CHECKPOINT ? "checkpoint" : "colo", "captured",
			 (json_int_t)(e && e->capture_size ? e->capture.packets : 0), "differences",
			 explain_counts(d), "reports", reports(e, last > 0 ? (size_t)last : SIZE_MAX));
}

/* --- the file --- */

static size_t put_interfaces(const struct explain *e, uint8_t *out, size_t size)
{
	static const char *const texts[2] = { "what the primary's VM said, held",
		"what the secondary's VM said" };
	size_t n = pcapng_section(out, size, "colo " COLO_VERSION);
	unsigned int i;
	char name[16];

	for (i = 0; i < 2 * e->nics; i++) {
		snprintf(name, sizeof(name), "%s%.0u", i % 2 ? "SVM" : "PVM", i / 2);
		n += pcapng_interface(out + n, size - n, name, texts[i % 2]);
	}
	return n;
}

json_t *explain_pcap(struct daemon *d, json_t *args)
{
	json_int_t after = json_integer_value(json_object_get(args, "after"));
	static uint8_t piece[PIECE + CAPTURE_PIECE];
	static char text[2 * sizeof(piece) + 1];
	struct explain *e = d->explain;
	uint64_t last;
	size_t n;

	if (!daemon_is_primary(d))
		return no("this node is the secondary: the primary compares, ask there");
	if (!e || !e->capture_size)
		return no("nothing is captured: set capture = SIZE in [net], see colo(5)");
	if (after > 0) {
		n = capture_read(&e->capture, (uint64_t)after, piece, sizeof(piece), &last);
	} else {
		n = put_interfaces(e, piece, sizeof(piece));
		n += capture_read(&e->capture, 0, piece + n, sizeof(piece) - n, &last);
	}
	hex_encode(text, piece, n);
	return json_pack("{s:b s:s s:I s:I}", "ok", 1, "pcapng", text, "last", (json_int_t)last, "newest",
			 (json_int_t)e->capture.packets);
}
