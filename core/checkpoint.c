/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * checkpoint.c - when checkpoints are taken, and what follows at each of their steps
 *
 * Theory of operation. Seen by the primary:  IDLE -harvest-> HARVESTING -harvested-> SENDING -held->
 * APPLYING -applied-> IDLE. The PVM is stopped only within HARVESTING. Output from before the boundary
 * leaves at `held`: from then on the secondary completes the switch by itself, whatever happens here.
 *
 * Seen by the secondary: IDLE -complete-> APPLYING -done-> IDLE. A failover that comes in APPLYING waits for
 * `done`: the old SVM does not exist any more. A checkpoint that is incomplete when the peer is lost is
 * never looked at again.
 */
#include "core/core_priv.h"

bool ckpt_may_be_held(const struct core *c)
{
	return c->role == CORE_PRIMARY && (c->phase == CORE_SENDING || c->phase == CORE_APPLYING);
}

/* --- primary --- */

static bool may_begin(const struct core *c)
{
	return c->role == CORE_PRIMARY && c->state == CORE_PROTECTED && c->phase == CORE_IDLE;
}

static void harvest(struct core *c, enum core_cause cause, uint64_t now_us)
{
	struct core_action *a = core_act(c, CORE_ACT_HARVEST);

	c->phase = CORE_HARVESTING;
	c->cause = cause;
	c->wanted = false;
	c->last_checkpoint_us = now_us;
	a->epoch = c->epoch + 1;
	a->cause = cause;
}

void ckpt_want(struct core *c, enum core_cause cause, uint64_t now_us)
{
	/* output is held from the first boundary on, before the state is PROTECTED */
	bool under_way = c->phase != CORE_IDLE && c->state == CORE_SEEDING;

	if (c->role != CORE_PRIMARY || (c->state != CORE_PROTECTED && !under_way))
		return;
	if (may_begin(c)) {
		harvest(c, cause, now_us);
	} else if (!c->wanted) {
		c->wanted = true;
		c->wanted_cause = cause;
	}
}

void ckpt_seeded(struct core *c, const struct core_event *e)
{
	if (c->role == CORE_PRIMARY && c->state == CORE_SEEDING && c->phase == CORE_IDLE)
		harvest(c, CORE_CAUSE_START, e->now_us);
}

/* The VM runs on and no dirty page is forgotten, but protection that cannot take checkpoints is none. */
static void not_harvested(struct core *c, const struct core_event *e)
{
	c->phase = CORE_IDLE;
	if (c->state == CORE_PROTECTED) { /* tried again until the arbiter has answered */
		c->wanted = true;
		c->wanted_cause = c->cause;
	}
	pair_leave(c, e, CORE_LOSS_CHECKPOINT);
}

void ckpt_harvested(struct core *c, const struct core_event *e)
{
	if (c->phase != CORE_HARVESTING || e->epoch != c->epoch + 1)
		return; /* the peer was lost meanwhile */
	if (e->status < 0) {
		not_harvested(c, e);
		return;
	}
	c->phase = CORE_SENDING;
	c->phase_us = e->now_us;
	c->epoch = e->epoch;
	c->checkpoints[c->cause]++;
	c->wanted = false; /* what was wanted before the boundary is solved by it */
}

void ckpt_held(struct core *c, const struct core_event *e)
{
	if (c->phase != CORE_SENDING || e->epoch != c->epoch)
		return;
	c->phase = CORE_APPLYING;
	core_act(c, CORE_ACT_RELEASE);
}

void ckpt_applied(struct core *c, const struct core_event *e)
{
	if (c->role != CORE_PRIMARY || c->phase != CORE_APPLYING || e->epoch != c->epoch)
		return;
	c->phase = CORE_IDLE;
	if (c->state == CORE_SEEDING) {
		core_enter(c, CORE_PROTECTED);
		c->protected_us = e->now_us;
	}
	if (c->disk_failed || c->handing_over) {
		pair_give_up(c, c->disk_failed ? CORE_LOSS_DISK : CORE_LOSS_MANUAL);
		return;
	}
	if (c->loss == CORE_LOSS_SLOW)
		c->leaving = false; /* it has caught up */
	core_act(c, CORE_ACT_COMPARE);
	if (c->wanted)
		harvest(c, c->wanted_cause, e->now_us);
}

/* --- time, primary --- */

static bool too_slow(const struct core *c, uint64_t now_us)
{
	return c->cfg.lag_limit_us && ckpt_may_be_held(c) && !c->leaving &&
	       (c->state == CORE_PROTECTED || c->state == CORE_SEEDING) &&
	       now_us - c->phase_us > c->cfg.lag_limit_us;
}

void ckpt_tick(struct core *c, const struct core_event *e)
{
	if (too_slow(c, e->now_us))
		pair_leave(c, e, CORE_LOSS_SLOW);
	else if (!may_begin(c))
		return;
	else if (c->wanted && e->now_us - c->last_checkpoint_us >= c->cfg.heartbeat_us)
		harvest(c, c->wanted_cause, e->now_us); /* after one that failed */
	else if (c->cfg.periodic_us && e->now_us - c->last_checkpoint_us >= c->cfg.periodic_us)
		harvest(c, CORE_CAUSE_PERIODIC, e->now_us);
}

uint64_t ckpt_next_tick(const struct core *c)
{
	uint64_t t = UINT64_MAX, d;

	if (too_slow(c, UINT64_MAX))
		return c->phase_us + c->cfg.lag_limit_us + 1;
	if (!may_begin(c))
		return t;
	if (c->cfg.periodic_us)
		t = c->last_checkpoint_us + c->cfg.periodic_us;
	if (c->wanted) {
		d = c->last_checkpoint_us + c->cfg.heartbeat_us;
		t = d < t ? d : t;
	}
	return t;
}

/* --- secondary --- */

void ckpt_complete(struct core *c, const struct core_event *e)
{
	if (c->role != CORE_SECONDARY || c->phase != CORE_IDLE ||
	    (c->state != CORE_SEEDING && c->state != CORE_PROTECTED))
		return;
	c->complete = e->epoch;
	c->phase = CORE_APPLYING;
	core_act(c, CORE_ACT_HELD)->epoch = e->epoch;
	core_act(c, CORE_ACT_APPLY)->epoch = e->epoch;
	/* from here on this node can serve */
	if (c->state == CORE_SEEDING)
		core_enter(c, CORE_PROTECTED);
}

void ckpt_apply_done(struct core *c, const struct core_event *e)
{
	if (c->role != CORE_SECONDARY || c->phase != CORE_APPLYING)
		return;
	c->phase = CORE_IDLE;
	if (e->status < 0) {
		/* neither the old SVM nor the new one exists */
		pair_resign(c, CORE_LOSS_CHECKPOINT);
		return;
	}
	c->epoch = c->complete;
	c->complete = 0;
	if (c->state == CORE_TAKEOVER)
		pair_take_over(c, e);
	else if (c->peer_up)
		core_act(c, CORE_ACT_APPLIED);
}
