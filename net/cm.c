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
 * Bounds. Buffers of both VMs count together: beyond max_held_bytes a checkpoint is wanted and the
 * SVM's bytes are dropped, beyond twice that the PVM's frames too. Losing a frame is always safe. A flow
 * that finds no room in the table has its frames on `age` only: they leave with the next boundary.
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

static void want(struct cm *cm, enum cm_cause cause)
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
	want(cm, CM_FULL);
}

/* at the end of each entry point, when the state is consistent */
static void tell(struct cm *cm)
{
	cm->at = NULL;
	if (!cm->tell)
		return;
	cm->tell = false;
	cm->ops.want_checkpoint(cm->opaque, cm->cause);
}

void cm_mismatch(struct cm *cm, struct flow *fl, enum cm_kind kind)
{
	if (fl->bad)
		return;
	explain_mismatch(cm, fl, kind);
	fl->bad = true;
	if (fl->node.key.type == FRAME_TCP) /* other datagrams of a flow may still be alike */
		cm_drop_said(cm, fl);
	want(cm, CM_MISMATCH);
}

void cm_emit(struct cm *cm, const uint8_t *frame, uint32_t len)
{
	cm->stats.released++;
	cm->ops.release(cm->opaque, frame, len);
}

/* room for a frame of the PVM (hard) or bytes of the SVM? */
static bool have_room(struct cm *cm, size_t n, bool pvm)
{
	size_t after = cm->pool.used + n + sizeof(struct buf);

	if (after <= cm->cfg.max_held_bytes)
		return true;
	cm_full(cm, CM_KIND_HELD);
	if (pvm && after <= 2 * cm->cfg.max_held_bytes)
		return true;
	cm->stats.dropped++;
	return false;
}

static struct buf *get_buf(struct cm *cm, size_t n, bool pvm)
{
	struct buf *b = have_room(cm, n, pvm) ? pool_get(&cm->pool, n) : NULL;

	if (b)
		b->epoch = cm->epoch;
	return b;
}

struct buf *cm_hold(struct cm *cm, const struct frame *f, uint64_t now)
{
	struct buf *b = get_buf(cm, f->len, true);

	if (!b)
		return NULL;
	memcpy(b->data, f->data, f->len);
	b->len = f->len;
	b->off = f->body;
	b->body_len = f->body_len;
	b->ack = f->ack;
	b->flags = f->flags;
	b->time = now;
	buf_age_append(&cm->age, b);
	cm->stats.held_packets++;
	cm->stats.held_bytes += b->len;
	return b;
}

struct buf *cm_keep(struct cm *cm, struct flow *fl, uint32_t n)
{
	struct buf *b = get_buf(cm, n, false);

	if (b && fl)
		cm_busy(cm, fl);
	return b;
}

static void free_held(struct cm *cm, struct buf *b)
{
	cm->stats.held_packets--;
	cm->stats.held_bytes -= b->len;
	dgram_unindex(b);
	pool_put(&cm->pool, b);
}

void cm_drop(struct cm *cm, struct flow *fl, struct buf *b)
{
	buf_unlink(&fl->held, b);
	buf_age_unlink(&cm->age, b);
	free_held(cm, b);
}

void cm_let_go(struct cm *cm, struct buf *b)
{
	cm_emit(cm, b->data, b->len);
	buf_age_unlink(&cm->age, b);
	free_held(cm, b);
}

void cm_drop_held(struct cm *cm, struct flow *fl)
{
	struct buf *b;

	while ((b = fl->held.head))
		cm_drop(cm, fl, b);
}

void cm_drop_said(struct cm *cm, struct flow *fl)
{
	struct buf *b;

	while ((b = fl->said.head)) {
		buf_unlink(&fl->said, b);
		if (b->flow)
			dgram_forget(cm, b);
		else
			pool_put(&cm->pool, b);
	}
	fl->said_bytes = 0;
}

void cm_drop_owed(struct cm *cm, struct flow *fl)
{
	if (!fl->owed)
		return;
	buf_age_unlink(&cm->acks, fl->owed);
	free_held(cm, fl->owed);
	fl->owed = NULL;
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

/* when a frame's waiting began: not before the SVM could have answered */
static uint64_t since(const struct cm *cm, uint64_t time)
{
	return time > cm->run_time ? time : cm->run_time;
}

void cm_lag(struct cm *cm, uint64_t then, uint64_t now)
{
	uint64_t base = since(cm, then), lag = now > base ? now - base : 0;
	int64_t error;

	if (lag > cm->cfg.wait_max_us)
		lag = cm->cfg.wait_max_us;
	error = (int64_t)lag - cm->stats.lag_us;
	cm->stats.lag_us = (uint32_t)(cm->stats.lag_us + error / 8);
	error = (error < 0 ? -error : error) - cm->stats.lag_dev_us;
	cm->stats.lag_dev_us = (uint32_t)(cm->stats.lag_dev_us + error / 8);
}

/* Mean and mean deviation, as TCP finds its retransmission time (RFC 6298), but twice as patient: a
 * checkpoint keeps every connection waiting, a late answer only its own. */
uint64_t cm_patience(const struct cm *cm)
{
	uint64_t wait = 2ull * cm->stats.lag_us + 8ull * cm->stats.lag_dev_us;

	if (wait < cm->cfg.wait_min_us)
		return cm->cfg.wait_min_us;
	return wait < cm->cfg.wait_max_us ? wait : cm->cfg.wait_max_us;
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

static const struct flow_ops flow_ops = { .idle = flow_idle, .drop = flow_drop };

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
	if (k->type != FRAME_TCP) /* has no end that could be seen */
		flow_set_closed(&cm->flows, n, true);
	return fl;
}

static void free_list(struct cm *cm, struct buf_list *l, bool release)
{
	struct buf *b;

	while ((b = l->head)) {
		buf_age_unlink(l, b);
		if (release)
			cm_emit(cm, b->data, b->len);
		free_held(cm, b);
	}
}

/* The acknowledgement that a flow owes to its peer waits for the boundary like a frame. */
static void owed_to_before(struct cm *cm, struct flow *fl)
{
	struct buf *b = fl->owed;

	if (!b)
		return;
	if (!tcp_owed_counts(fl)) {
		cm_drop_owed(cm, fl);
		return;
	}
	fl->owed = NULL;
	buf_age_unlink(&cm->acks, b);
	buf_age_append(&cm->before, b);
}

static void age_to_before(struct cm *cm)
{
	struct buf_list *a = &cm->age, *b = &cm->before;

	if (!a->head)
		return;
	a->head->aprev = b->tail;
	*(b->tail ? &b->tail->anext : &b->head) = a->head;
	b->tail = a->tail;
	*a = (struct buf_list){ 0 };
}

static void draw_boundary(struct cm *cm, uint64_t epoch)
{
	struct flow *fl;

	age_to_before(cm);
	frag_forget(cm);
	cm->epoch = epoch;
	while ((fl = cm->busy)) {
		owed_to_before(cm, fl);
		cm_sync(cm, fl);
		not_busy(cm, fl);
	}
	cm->wanted = cm->tell = cm->svm_runs = false;
}

static void release_before(struct cm *cm)
{
	struct buf *b;

	while ((b = cm->before.head) && b->epoch < cm->held_epoch) {
		buf_age_unlink(&cm->before, b);
		cm->stats.released_by_checkpoint++;
		cm_emit(cm, b->data, b->len);
		free_held(cm, b);
	}
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

static void hold_alone(struct cm *cm, const struct frame *f, uint64_t now)
{
	cm_hold(cm, f, now);
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
	if (f->type == FRAME_FRAG) {
		frag_from_pvm(cm, f, now);
		return;
	}
	flow_key_from_guest(&k, f);
	fl = cm_flow(cm, &k, now);
	if (!fl) {
		cm_full(cm, CM_KIND_FLOWS);
		hold_alone(cm, f, now);
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
		hold_alone(cm, &f, now);
	else
		compare_pvm(cm, &f, now);
	tell(cm);
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
		cm_full(cm, CM_KIND_FLOWS);
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
	tell(cm);
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
	peers_tell(cm);
	(void)now;
	if (epoch <= cm->epoch)
		return;
	draw_boundary(cm, epoch);
	release_before(cm);
}

void cm_held(struct cm *cm, uint64_t epoch, uint64_t now)
{
	peers_tell(cm);
	if (cm->mode == CM_PASS || epoch <= cm->held_epoch)
		return;
	cm->held_epoch = epoch;
	release_before(cm);
	if (!cm_pending(cm))
		serve_all(cm, now);
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
	free_list(cm, &cm->before, true);
	cm->held_epoch = epoch;
	cm_svm_runs(cm, now);
}

void cm_set_mode(struct cm *cm, enum cm_mode mode, uint64_t now)
{
	peers_tell(cm);
	(void)now;
	if (mode == cm->mode)
		return;
	cm->mode = mode;
	for (struct flow *fl = cm->busy; mode == CM_PASS && fl; fl = fl->bnext)
		fl->owed = NULL; /* stays on `acks` */
	forget_flows(cm);
	if (mode != CM_PASS)
		return;
	free_list(cm, &cm->before, true);
	free_list(cm, &cm->age, true);
	free_list(cm, &cm->acks, true);
	cm->wanted = cm->tell = false;
	cm->epoch = cm->held_epoch = 0;
}

static uint64_t limit_at(const struct cm *cm, const struct buf *b, uint64_t wait)
{
	return b ? since(cm, b->time) + wait : UINT64_MAX;
}

uint64_t cm_next_tick(const struct cm *cm)
{
	uint64_t wait = cm_patience(cm), frames, acks;

	if (cm->mode != CM_COMPARE || cm->wanted || cm_pending(cm) || !cm->svm_runs)
		return UINT64_MAX;
	frames = limit_at(cm, cm->age.head, wait);
	if (wait < cm->cfg.wait_max_us / 2)
		wait = cm->cfg.wait_max_us / 2;
	acks = limit_at(cm, cm->acks.head, wait);
	return frames < acks ? frames : acks;
}

/* Something that is held has waited long enough: is it missing, or a datagram instead of which the SVM said
 * something else? */
static void give_up_waiting(struct cm *cm, uint64_t now)
{
	uint64_t wait = cm_patience(cm);

	cm->at_time = now;
	for (struct buf *b = cm->age.head; b && limit_at(cm, b, wait) <= now; b = b->anext) {
		if (b->flow && b->flow->said.head) {
			cm_mismatch(cm, b->flow, CM_KIND_DATAGRAM);
			return;
		}
	}
	explain_missing(cm, now);
	want(cm, CM_MISSING);
}

uint64_t cm_tick(struct cm *cm, uint64_t now)
{
	peers_tell(cm);
	if (cm_next_tick(cm) <= now) {
		give_up_waiting(cm, now);
		tell(cm);
	}
	return cm_next_tick(cm);
}

void cm_get_stats(const struct cm *cm, struct cm_stats *out)
{
	*out = cm->stats;
	out->flows = cm->flows.n;
}

static void set_defaults(struct cm_config *cfg)
{
	if (!cfg->max_flows)
		cfg->max_flows = 65536;
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
