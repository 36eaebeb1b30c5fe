/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * cm.c - the comparing module: entry points, boundaries, time, bounds
 *
 * Theory of operation
 *
 * Frames of the guest for its peers are compared; frames of the peers only tell the state of
 * connections. Each flow (flow.h) holds what its PVM said and its SVM did not (`held`, whole frames),
 * and what its SVM said and its PVM did not (`said`, payload only). The rule that lets a frame leave is
 * tcp_cmp.c's and dgram_cmp.c's.
 *
 * Every held frame is besides on one list over all flows in order of arrival: `age`, or, after a
 * boundary, `before`. A boundary moves all of `age` to the end of `before` at once, and visits only the
 * flows that hold something ("busy"); the others notice when they are next used that their epoch is
 * over (cm_sync()). cm_held() releases from the head of `before` what arrived in an older epoch than
 * the one held; what comes after the boundary stays on `age`.
 *
 * Between cm_boundary() and cm_held() ("pending") the secondary would go on as the SVM of the old
 * epoch. Only what that SVM said may leave (tcp: safe, ack_safe), and no time counts, nor does it
 * until the new SVM runs.
 *
 * Time. The oldest frame of `age` waits at most W = 4 times the smoothed lag of the SVM, within
 * bounds; then a checkpoint is wanted. Owed acknowledgements have a list and a limit of their own
 * since a guest may delay them. After a checkpoint was asked for, no time counts till the boundary.
 *
 * Strangers. A flow of which the guest has not heard that its peer receives what it sends (TCP: a segment
 * of the peer acknowledges it; else: the guest has sent again) is not proven. Such flows are made by
 * whoever sends from random addresses, since the guest answers. They are the first to go when the table is
 * full, and what they hold is on a list of its own, `young`, for which a checkpoint is wanted at most
 * once in CM_YOUNG_US: two guests that are flooded drop different requests, or resort to SYN cookies at
 * different times. What finds no room in the table at all is held there, too.
 *
 * Bounds. Buffers of both VMs count together. Beyond max_held_bytes a checkpoint is wanted, and the owner
 * must stop reading what the PVM says (cm_is_full()), except for what comes before the boundary: for
 * that there is room for as much again, and only beyond it frames of the PVM are lost. The SVM cannot
 * be stopped, since its frames come between the peer's messages that say that a checkpoint is held. They
 * are dropped, always with a checkpoint wanted: they would only have let frames go that its boundary
 * lets go, and what the next SVM says is counted anew.
 */
#include <stdlib.h>
#include <string.h>

#include "cm_priv.h"

#define CLOSED_US 10000000u
#define POOL_MAX(held) (2 * (held) + (held) / 2) /* net.h states it */

static const char *const cause_names[CM_NCAUSES] = {
#define X(name, text) [CM_##name] = text,
	CM_CAUSES(X)
#undef X
};

const char *cm_cause_name(enum cm_cause c)
{
	return (unsigned)c < CM_NCAUSES ? cause_names[c] : "unknown";
}

void cm_want(struct cm *cm, enum cm_cause cause)
{
	uint64_t *const counts[CM_NCAUSES] = {
		[CM_MISMATCH] = &cm->stats.mismatches,
		[CM_MISSING] = &cm->stats.missing,
		[CM_FULL] = &cm->stats.full,
	};

	if (cause == CM_MISMATCH || !cm->wanted)
		++*counts[cause];
	if (cm->wanted)
		return;
	cm->wanted = cm->tell = true;
	cm->cause = cause;
}

void cm_full(struct cm *cm, enum cm_kind kind)
{
	if (!cm->wanted)
		explain_full(cm, kind);
	cm_want(cm, CM_FULL);
}

/* at the end of each entry point, when the state is consistent */
void cm_tell(struct cm *cm)
{
	cm->at = NULL;
	if (!cm->tell)
		return;
	cm->tell = false;
	cm->ops.want_checkpoint(cm->opaque, cm->cause);
}

static bool is_stranger(const struct flow *fl)
{
	return !fl->proven && fl->node.key.type == FRAME_TCP;
}

void cm_mismatch(struct cm *cm, struct flow *fl, enum cm_kind kind)
{
	if (fl->bad)
		return;
	explain_mismatch(cm, fl, kind);
	fl->bad = true;
	if (fl->node.key.type == FRAME_TCP) /* other datagrams of a flow may still be alike */
		cm_drop_said(cm, fl);
	if (is_stranger(fl) && cm->at_time < cm->young_limit) {
		cm->stats.mismatches++; /* what it holds is on `young` */
		return;
	}
	if (is_stranger(fl))
		cm->young_limit = cm->at_time + CM_YOUNG_US;
	cm_want(cm, CM_MISMATCH);
}

void cm_emit(struct cm *cm, const uint8_t *frame, uint32_t len)
{
	cm->stats.released++;
	cm->ops.release(cm->opaque, frame, len);
}

void cm_busy(struct cm *cm, struct flow *fl)
{
	if (fl->busy)
		return;
	fl->busy = true;
	fl->bprev = NULL;
	fl->bnext = cm->busy;
	if (cm->busy)
		cm->busy->bprev = fl;
	cm->busy = fl;
}

static void not_busy(struct cm *cm, struct flow *fl)
{
	if (!fl->busy)
		return;
	fl->busy = false;
	*(fl->bprev ? &fl->bprev->bnext : &cm->busy) = fl->bnext;
	if (fl->bnext)
		fl->bnext->bprev = fl->bprev;
}

static bool flow_idle(const struct flow_node *n)
{
	const struct flow *fl = (const struct flow *)n;

	return !fl->held.head && !fl->said.head && !fl->owed;
}

/* held frames stay on `age`: they leave with a boundary */
static void flow_drop(void *opaque, struct flow_node *n)
{
	struct cm *cm = opaque;
	struct flow *fl = (struct flow *)n;

	cm_drop_said(cm, fl);
	cm_drop_owed(cm, fl);
	not_busy(cm, fl);
	for (struct buf *b = fl->held.head; b; b = b->next)
		dgram_unindex(b);
	fl->held = (struct buf_list){ 0 };
}

/* what only the SVM said may be forgotten: the PVM's would wait for the boundary */
static bool may_go(const struct flow_node *n)
{
	const struct flow *fl = (const struct flow *)n;

	return flow_idle(n) || (n->closed && !fl->held.head && !fl->owed);
}

static const struct flow_ops flow_ops = { .idle = may_go, .drop = flow_drop };

/* what it held is on `before` already */
void cm_sync(struct cm *cm, struct flow *fl)
{
	if (fl->epoch == cm->epoch)
		return;
	if (fl->node.key.type == FRAME_TCP)
		tcp_new_epoch(fl, cm->held_epoch >= fl->epoch);
	fl->epoch = cm->epoch;
	fl->bad = false;
	fl->held = (struct buf_list){ 0 };
	cm_drop_said(cm, fl);
}

struct flow *cm_flow(struct cm *cm, const struct flow_key *k, uint64_t now)
{
	struct flow_node *n = flow_find(&cm->flows, k);
	struct flow *fl;

	if (n) {
		flow_touch(&cm->flows, n, now);
		cm_sync(cm, (struct flow *)n);
		return (struct flow *)n;
	}
	n = flow_add(&cm->flows, k, now);
	if (!n)
		return NULL;
	fl = (struct flow *)n;
	fl->epoch = cm->epoch;
	flow_set_closed(&cm->flows, n, true); /* it may go first until it is proven; datagrams have no end */
	return fl;
}

void cm_prove(struct cm *cm, struct flow *fl)
{
	fl->proven = true;
	if (fl->node.key.type == FRAME_TCP)
		flow_set_closed(&cm->flows, &fl->node, false);
}

static void draw_boundary(struct cm *cm, uint64_t epoch)
{
	struct flow *fl;

	held_to_before(cm);
	frag_forget(cm);
	cm->epoch = epoch;
	while ((fl = cm->busy)) {
		held_owed_to_before(cm, fl);
		cm_sync(cm, fl);
		not_busy(cm, fl);
	}
	cm->wanted = cm->tell = cm->svm_runs = false;
}

/* frames sent since the boundary repeat bytes, or acknowledgements, of before it: they may leave now */
static void serve_all(struct cm *cm, uint64_t now)
{
	struct flow *fl, *next;

	for (fl = cm->busy; fl; fl = next) {
		next = fl->bnext;
		if (fl->node.key.type == FRAME_TCP)
			tcp_serve(cm, fl, now);
		if (flow_idle(&fl->node))
			not_busy(cm, fl);
	}
}

static void forget_flows(struct cm *cm)
{
	frag_forget(cm);
	flow_clear(&cm->flows);
}

/* Datagrams have no acknowledgement: that the guest goes on to send must do. */
static void look_at_flow(struct cm *cm, struct flow *fl)
{
	if (fl && !fl->proven && fl->node.key.type != FRAME_TCP) {
		if (fl->spoke)
			cm_prove(cm, fl);
		fl->spoke = true;
	}
	cm->at_young = !fl || !fl->proven;
}

/* for a report, should there be one */
static void look_at(struct cm *cm, const struct frame *f, bool svm, uint64_t now)
{
	cm->at = f;
	cm->at_svm = svm;
	cm->at_time = now;
}

static void compare_pvm(struct cm *cm, const struct frame *f, uint64_t now)
{
	struct flow_key k;
	struct flow *fl;

	look_at(cm, f, false, now);
	cm->at_young = true;
	if (f->type == FRAME_FRAG) {
		frag_from_pvm(cm, f, now);
		return;
	}
	flow_key_from_guest(&k, f);
	fl = cm_flow(cm, &k, now);
	look_at_flow(cm, fl);
	if (!fl) {
		cm->alone++;
		cm_hold(cm, f, now);
	} else if (f->type == FRAME_TCP) {
		tcp_from_pvm(cm, fl, f, now);
	} else {
		dgram_from_pvm(cm, fl, f, now);
	}
}

/* What holds no word of an application, and acknowledges none, leaves at once: neighbours' talk, and
 * ICMP errors, which repeat to a peer what it sent. They are as unreliable as the network, and rate limits
 * make them a matter of timing. */
static bool passes(const struct frame *f)
{
	return f->type == FRAME_PASS || f->error;
}

void cm_from_pvm(struct cm *cm, const uint8_t *frame, size_t len, uint64_t now)
{
	struct frame f;

	peers_tell(cm);
	if (frame_parse(&f, frame, len) == FRAME_PASS)
		neigh_from_pvm(&cm->neigh, &f, now);
	if (f.type == FRAME_BAD)
		cm->stats.dropped++;
	else if (cm->mode == CM_PASS || passes(&f))
		cm_emit(cm, frame, f.len);
	else if (cm->mode == CM_HOLD)
		cm_hold(cm, &f, now);
	else
		compare_pvm(cm, &f, now);
	cm_tell(cm);
}

static void compare_svm(struct cm *cm, const struct frame *f, uint64_t now)
{
	struct flow_key k;
	struct flow *fl;

	if (f->type == FRAME_FRAG) {
		frag_from_svm(cm, f, now);
		return;
	}
	flow_key_from_guest(&k, f);
	fl = cm_flow(cm, &k, now);
	if (!fl)
		cm->stats.dropped++; /* the PVM's will find no room either, and wait for the boundary */
	else if (f->type == FRAME_TCP)
		tcp_from_svm(cm, fl, f, now);
	else
		dgram_from_svm(cm, fl, f, now);
}

void cm_from_svm(struct cm *cm, uint64_t epoch, const uint8_t *frame, size_t len, uint64_t now)
{
	struct frame f;

	peers_tell(cm);
	if (cm->mode != CM_COMPARE)
		return;
	if (epoch != cm->epoch) {
		cm->stats.stale_svm_frames++;
		return;
	}
	if (frame_parse(&f, frame, len) == FRAME_BAD)
		return;
	if (passes(&f)) {
		if (neigh_svm_may_ask(&cm->neigh, &f, now))
			cm_emit(cm, frame, f.len);
		return;
	}
	cm_held(cm, epoch, now);
	cm_svm_runs(cm, now);
	look_at(cm, &f, true, now);
	compare_svm(cm, &f, now);
	cm_tell(cm);
}

void cm_from_client(struct cm *cm, const uint8_t *frame, size_t len, uint64_t now)
{
	struct frame *f = &cm->peers[cm->npeers].frame;

	if (cm->mode != CM_COMPARE || frame_parse(f, frame, len) == FRAME_BAD)
		return;
	if (f->type == FRAME_TCP)
		peers_note(cm, now);
	else if (f->type == FRAME_PASS)
		neigh_from_peer(&cm->neigh, f, now);
	else if (f->type != FRAME_FRAG)
		dgram_from_peer(cm, f, now);
}

void cm_boundary(struct cm *cm, uint64_t epoch, uint64_t now)
{
	(void)now;
	peers_tell(cm);
	if (epoch <= cm->epoch)
		return;
	draw_boundary(cm, epoch);
	held_release_before(cm);
}

void cm_held(struct cm *cm, uint64_t epoch, uint64_t now)
{
	peers_tell(cm);
	if (cm->mode == CM_PASS || epoch <= cm->held_epoch)
		return;
	cm->held_epoch = epoch;
	held_release_before(cm);
	if (cm_pending(cm))
		return;
	serve_all(cm, now);
	if (cm_is_full(cm))
		cm_full(cm, CM_KIND_HELD);
	cm_tell(cm);
}

void cm_svm_runs(struct cm *cm, uint64_t now)
{
	if (cm->svm_runs)
		return;
	cm->svm_runs = true;
	cm->run_time = now;
}

void cm_start_epoch(struct cm *cm, uint64_t epoch, uint64_t now)
{
	peers_tell(cm);
	if (epoch <= cm->epoch) /* a new pair, counting anew */
		forget_flows(cm);
	draw_boundary(cm, epoch);
	cm->stats.released_by_checkpoint += cm->stats.held_packets;
	held_release_all(cm);
	cm->held_epoch = epoch;
	cm_svm_runs(cm, now);
}

void cm_set_mode(struct cm *cm, enum cm_mode mode, uint64_t now)
{
	(void)now;
	peers_tell(cm);
	if (mode == cm->mode)
		return;
	cm->mode = mode;
	for (struct flow *fl = cm->busy; mode == CM_PASS && fl; fl = fl->bnext)
		fl->owed = NULL; /* stays on `acks` */
	forget_flows(cm);
	if (mode != CM_PASS)
		return;
	held_release_all(cm);
	cm->wanted = cm->tell = false;
	cm->epoch = cm->held_epoch = cm->young_limit = 0;
}

void cm_get_stats(const struct cm *cm, struct cm_stats *out)
{
	*out = cm->stats;
	out->flows = cm->flows.n;
	out->flows_evicted = cm->flows.evicted;
	out->memory = sizeof(*cm) + cm->flows.memory + pool_memory(&cm->pool);
}

static void set_defaults(struct cm_config *cfg)
{
	if (!cfg->max_flows)
		cfg->max_flows = 131072;
	if (!cfg->max_held_bytes)
		cfg->max_held_bytes = 64u << 20;
	if (!cfg->wait_min_us)
		cfg->wait_min_us = 20000;
	if (!cfg->wait_max_us)
		cfg->wait_max_us = 200000;
	if (cfg->wait_max_us < cfg->wait_min_us)
		cfg->wait_max_us = cfg->wait_min_us;
}

struct cm *cm_new(const struct cm_config *cfg, const struct cm_ops *ops, void *opaque)
{
	struct cm *cm = calloc(1, sizeof(*cm));

	if (!cm)
		return NULL;
	if (cfg)
		cm->cfg = *cfg;
	set_defaults(&cm->cfg);
	cm->ops = *ops;
	cm->opaque = opaque;
	pool_init(&cm->pool, POOL_MAX(cm->cfg.max_held_bytes));
	if (flow_table_init(&cm->flows, cm->cfg.max_flows, sizeof(struct flow), cm->cfg.hash_seed,
		    CLOSED_US, &flow_ops, cm) < 0) {
		free(cm);
		return NULL;
	}
	return cm;
}

void cm_free(struct cm *cm)
{
	if (!cm)
		return;
	flow_table_free(&cm->flows);
	pool_fini(&cm->pool);
	free(cm->history);
	free(cm);
}
