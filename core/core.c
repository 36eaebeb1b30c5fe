/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * core.c - decisions of a node
 *
 * Theory of operation
 * -------------------
 * A node is primary or secondary, and in one state:
 *
 *  STARTING    local parts (disk manager, self-test, VM) come up. The role may not be decided yet.
 *  CONNECTING  secondary without a VM, looking for the primary. May be linked or stopped, nothing else.
 *  ALONE       primary; its VM serves, unprotected. A peer may come.
 *  SYNCING     linked; the secondary's disk is brought to the primary's content.
 *  SEEDING     the secondary gets RAM by live migration, then the first checkpoint. The primary still
 *              serves unprotected; a loss of the peer costs nothing but the attempt. That ends when
 *              the first checkpoint is on its way: the secondary may hold it, and so take over,
 *              before this side knows. From then on a loss of the peer leads to a claim.
 *  PROTECTED   both VMs run. The primary releases nothing the secondary did not agree to.
 *  CLAIMING    the peer is lost; the arbiter is asked. Nothing leaves before it says yes (R4).
 *  TAKEOVER    secondary: the claim is won, a checkpoint being applied is finished first (R3).
 *  GIVEN_UP    primary whose VM or disk failed, or that handed over: its data plane still forwards clients'
 *              frames to the new primary as long as the link lasts; it serves nothing.
 *  FAILED      no VM can be served here. The daemon ends with an error.
 *  STOPPED     asked to end.
 *
 * Checkpoint, seen by the primary:  IDLE -harvest-> HARVESTING -harvested-> SENDING -held->
 * APPLYING -applied-> IDLE. The PVM is stopped only within HARVESTING. Output from before the boundary
 * leaves at `held`: from then on the secondary completes the switch by itself, whatever happens here.
 *
 * Checkpoint, seen by the secondary: IDLE -complete-> APPLYING -done-> IDLE. A failover that comes in
 * APPLYING waits for `done`: the old SVM does not exist any more. A checkpoint that is incomplete
 * when the peer is lost is never looked at again.
 */
#include "core/core.h"

#include <assert.h>
#include <string.h>

const char *core_state_name(enum core_state s)
{
	static const char *const names[] = {
#define X(name, text) text,
		CORE_STATES(X)
#undef X
	};
	_Static_assert(sizeof(names) / sizeof(*names) == CORE_NSTATES, "state names");
	return names[s];
}

const char *core_cause_name(enum core_cause c)
{
	static const char *const names[] = {
#define X(name, text) text,
		CORE_CAUSES(X)
#undef X
	};
	_Static_assert(sizeof(names) / sizeof(*names) == CORE_NCAUSES, "cause names");
	return names[c];
}

const char *core_loss_name(enum core_loss l)
{
	static const char *const names[] = {
#define X(name, text) text,
		CORE_LOSSES(X)
#undef X
	};
	_Static_assert(sizeof(names) / sizeof(*names) == CORE_NLOSSES, "loss names");
	return names[l];
}

void core_init(struct core *c, const struct core_config *cfg)
{
	memset(c, 0, sizeof(*c));
	c->cfg = *cfg;
	c->role = cfg->role;
	c->state = CORE_STARTING;
	c->generation = 1;
}

static struct core_action *act(struct core *c, enum core_action_type type)
{
	struct core_action *a;

	assert(c->nact < CORE_MAX_ACTIONS);
	a = &c->act[c->nact++];
	*a = (struct core_action){ .type = type, .epoch = c->epoch };
	return a;
}

/* the only place where a state changes */
static void enter(struct core *c, enum core_state to)
{
	static const uint32_t legal[CORE_NSTATES] = {
#define TO(s) (1u << CORE_##s)
#define END (TO(FAILED) | TO(STOPPED))
		[CORE_STARTING] = TO(CONNECTING) | TO(ALONE) | END,
		[CORE_CONNECTING] = TO(SYNCING) | END,
		[CORE_ALONE] = TO(SYNCING) | END,
		[CORE_SYNCING] = TO(SEEDING) | TO(ALONE) | END,
		[CORE_SEEDING] = TO(PROTECTED) | TO(ALONE) | TO(CLAIMING) | END,
		[CORE_PROTECTED] = TO(CLAIMING) | TO(GIVEN_UP) | END,
		[CORE_CLAIMING] = TO(ALONE) | TO(TAKEOVER) | TO(GIVEN_UP) | END,
		[CORE_TAKEOVER] = TO(ALONE) | END,
		[CORE_GIVEN_UP] = END,
#undef END
#undef TO
	};

	assert(legal[c->state] & (1u << to));
	c->state = to;
}

static void quit(struct core *c, enum core_state how, int status)
{
	enter(c, how);
	act(c, CORE_ACT_EXIT)->status = status;
}

static void claim(struct core *c)
{
	enter(c, CORE_CLAIMING);
	act(c, CORE_ACT_CLAIM)->epoch = ++c->generation;
}

/* --- losing the peer --- */

/* primary: has any of the checkpoint under way left for the secondary? */
static bool may_be_held(const struct core *c)
{
	return c->phase == CORE_SENDING || c->phase == CORE_APPLYING;
}

static void drop_peer(struct core *c)
{
	c->peer_up = false;
	act(c, CORE_ACT_DROP_PEER);
}

/* The pair is broken. A link that is not closed stays until the arbiter has answered: the winner uses
 * it to tell the other, which may only have been asleep. */
static void protected_peer_lost(struct core *c)
{
	if (c->role == CORE_PRIMARY)
		c->phase = CORE_IDLE;
	if (c->loss == CORE_LOSS_CLOSED)
		drop_peer(c);
	if (c->role == CORE_SECONDARY && c->loss == CORE_LOSS_PROTOCOL) {
		/* a primary that talks nonsense lives, and may serve: this is no case for a takeover */
		drop_peer(c);
		act(c, CORE_ACT_KILL_VM);
		quit(c, CORE_FAILED, -1);
		return;
	}
	claim(c);
}

static void seeding_peer_lost(struct core *c)
{
	drop_peer(c);
	if (c->role == CORE_SECONDARY) {
		/* half a seed is of no use, and its disk content is undefined */
		act(c, CORE_ACT_KILL_VM);
		quit(c, CORE_FAILED, -1);
		return;
	}
	c->phase = CORE_IDLE;
	enter(c, CORE_ALONE);
	act(c, CORE_ACT_SERVE);
}

static void peer_lost(struct core *c, const struct core_event *e, enum core_loss loss)
{
	if (!c->peer_up)
		return;
	if (c->state == CORE_CLAIMING) {
		if (loss == CORE_LOSS_CLOSED)
			drop_peer(c);
		return;
	}
	c->loss = loss;
	c->lost_at_us = c->last_rx_us;
	c->detected_us = e->now_us;
	switch (c->state) {
	case CORE_PROTECTED:
		protected_peer_lost(c);
		break;
	case CORE_SYNCING:
	case CORE_SEEDING:
		if (c->role == CORE_PRIMARY && may_be_held(c))
			protected_peer_lost(c);
		else
			seeding_peer_lost(c);
		break;
	case CORE_GIVEN_UP:
		drop_peer(c);
		quit(c, CORE_STOPPED, 0);
		break;
	default:
		drop_peer(c);
		break;
	}
}

/* --- checkpoints, primary --- */

static bool may_checkpoint(const struct core *c)
{
	return c->role == CORE_PRIMARY && c->state == CORE_PROTECTED && c->phase == CORE_IDLE;
}

static void harvest(struct core *c, enum core_cause cause, uint64_t now_us)
{
	c->phase = CORE_HARVESTING;
	c->cause = cause;
	c->wanted = false;
	c->last_checkpoint_us = now_us;
	act(c, CORE_ACT_HARVEST)->epoch = c->epoch + 1;
	c->act[c->nact - 1].cause = cause;
}

static void want_checkpoint(struct core *c, const struct core_event *e)
{
	/* output is held from the first boundary on, before the state is PROTECTED */
	bool under_way = c->phase != CORE_IDLE && c->state == CORE_SEEDING;

	if (c->role != CORE_PRIMARY || (c->state != CORE_PROTECTED && !under_way))
		return;
	if (may_checkpoint(c)) {
		harvest(c, e->cause, e->now_us);
	} else if (!c->wanted) {
		c->wanted = true;
		c->wanted_cause = e->cause;
	}
}

static void harvested(struct core *c, const struct core_event *e)
{
	if (c->phase != CORE_HARVESTING)
		return; /* the peer was lost meanwhile */
	if (e->status < 0) {
		/* The VM runs on and no dirty page is forgotten, but protection that cannot take
		 * checkpoints is none. */
		c->phase = CORE_IDLE;
		if (c->state == CORE_SEEDING)
			peer_lost(c, e, CORE_LOSS_PROTOCOL);
		else
			claim(c);
		return;
	}
	c->phase = CORE_SENDING;
	c->epoch = e->epoch;
	c->checkpoints[c->cause]++;
	c->wanted = false; /* what was wanted before the boundary is solved by it */
}

static void held(struct core *c, const struct core_event *e)
{
	if (c->phase != CORE_SENDING || e->epoch != c->epoch)
		return;
	c->phase = CORE_APPLYING;
	act(c, CORE_ACT_RELEASE);
}

static void give_up(struct core *c, enum core_loss why)
{
	c->phase = CORE_IDLE;
	enter(c, CORE_GIVEN_UP);
	act(c, CORE_ACT_HAND_OVER)->loss = why;
}

static void applied(struct core *c, const struct core_event *e)
{
	if (c->phase != CORE_APPLYING || e->epoch != c->epoch)
		return;
	c->phase = CORE_IDLE;
	if (c->state == CORE_SEEDING)
		enter(c, CORE_PROTECTED);
	if (c->disk_failed) {
		act(c, CORE_ACT_KILL_VM);
		give_up(c, CORE_LOSS_DISK);
		return;
	}
	act(c, CORE_ACT_COMPARE);
	if (c->wanted)
		harvest(c, c->wanted_cause, e->now_us);
}

/* --- checkpoints, secondary --- */

static void complete(struct core *c, const struct core_event *e)
{
	if (c->role != CORE_SECONDARY || c->phase != CORE_IDLE ||
	    (c->state != CORE_SEEDING && c->state != CORE_PROTECTED))
		return;
	c->complete = e->epoch;
	c->phase = CORE_APPLYING;
	act(c, CORE_ACT_HELD)->epoch = e->epoch;
	act(c, CORE_ACT_APPLY)->epoch = e->epoch;
	/* from here on this node can serve */
	if (c->state == CORE_SEEDING)
		enter(c, CORE_PROTECTED);
}

/* it cannot be one any more: the primary goes on alone */
static void leave(struct core *c, enum core_loss why, int status)
{
	if (c->peer_up) {
		act(c, CORE_ACT_GOODBYE)->loss = why;
		drop_peer(c);
	}
	act(c, CORE_ACT_KILL_VM);
	quit(c, CORE_FAILED, status);
}

static void take_over(struct core *c)
{
	enter(c, CORE_ALONE);
	c->role = CORE_PRIMARY;
	act(c, CORE_ACT_TAKE_OVER)->loss = c->loss;
}

static void apply_done(struct core *c, const struct core_event *e)
{
	if (c->role != CORE_SECONDARY || c->phase != CORE_APPLYING)
		return;
	c->phase = CORE_IDLE;
	if (e->status < 0) {
		/* neither the old SVM nor the new one exists */
		leave(c, CORE_LOSS_NONE, e->status);
		return;
	}
	c->epoch = c->complete;
	c->complete = 0;
	if (c->state == CORE_TAKEOVER)
		take_over(c);
	else if (c->peer_up)
		act(c, CORE_ACT_APPLIED);
}

/* --- failover --- */

static void claim_answer(struct core *c, const struct core_event *e)
{
	if (c->state != CORE_CLAIMING || e->status < 0)
		return; /* unknown is not won: wait for the next answer */
	if (e->status > 0) {
		act(c, CORE_ACT_KILL_VM);
		quit(c, CORE_FAILED, -1);
	} else if (c->role == CORE_PRIMARY) {
		enter(c, CORE_ALONE);
		if (c->peer_up) {
			act(c, CORE_ACT_DISMISS);
			drop_peer(c);
		}
		act(c, CORE_ACT_SERVE);
		if (c->disk_failed)
			act(c, CORE_ACT_DISK_ERROR);
		c->disk_failed = false;
	} else {
		enter(c, CORE_TAKEOVER);
		if (c->peer_up && c->loss == CORE_LOSS_SILENT) {
			act(c, CORE_ACT_TAKEN);
			drop_peer(c);
		}
		if (c->phase == CORE_IDLE)
			take_over(c);
	}
}

static void vm_died(struct core *c)
{
	if (c->role == CORE_PRIMARY && c->state == CORE_PROTECTED && c->peer_up) {
		give_up(c, CORE_LOSS_PVM_DIED);
		return;
	}
	if (c->state == CORE_FAILED || c->state == CORE_STOPPED || c->state == CORE_GIVEN_UP)
		return;
	if (c->peer_up)
		act(c, CORE_ACT_DROP_PEER);
	c->peer_up = false;
	quit(c, CORE_FAILED, -1);
}

/* The local storage failed. The VM that serves shall not see it as long as the other one can go on. */
static void primary_disk_failed(struct core *c)
{
	switch (c->state) {
	case CORE_PROTECTED:
		act(c, CORE_ACT_KILL_VM);
		give_up(c, CORE_LOSS_DISK);
		break;
	case CORE_SEEDING:
		if (!may_be_held(c)) {
			act(c, CORE_ACT_DISK_ERROR);
			break;
		}
		/* the secondary may be able to go on, or soon be */
		c->disk_failed = true;
		break;
	case CORE_CLAIMING:
		c->disk_failed = true;
		break;
	case CORE_GIVEN_UP:
		break;
	default:
		act(c, CORE_ACT_DISK_ERROR);
	}
}

static void disk_failed(struct core *c)
{
	if (c->role == CORE_PRIMARY)
		primary_disk_failed(c);
	else if (c->state == CORE_STARTING)
		quit(c, CORE_FAILED, -1);
	else if (c->state != CORE_CLAIMING && c->state != CORE_TAKEOVER) /* a bad disk is better than none */
		leave(c, CORE_LOSS_DISK, -1);
}

/* the primary says it does not serve any more; its word comes in order behind all it sent */
static void handover(struct core *c, const struct core_event *e)
{
	if (c->role != CORE_SECONDARY || c->state != CORE_PROTECTED)
		return;
	c->loss = e->loss;
	c->lost_at_us = c->detected_us = e->now_us;
	claim(c);
}

/* The primary gives up its role before the secondary takes it: never both. */
static void operator_failover(struct core *c)
{
	if (c->role == CORE_SECONDARY && c->state == CORE_PROTECTED && c->peer_up)
		act(c, CORE_ACT_ASK);
}

static void asked(struct core *c)
{
	if (c->role != CORE_PRIMARY || c->state != CORE_PROTECTED || !c->peer_up)
		return;
	act(c, CORE_ACT_KILL_VM);
	give_up(c, CORE_LOSS_MANUAL);
}

static void taken(struct core *c)
{
	if (c->role != CORE_PRIMARY || (c->state != CORE_PROTECTED && c->state != CORE_CLAIMING))
		return;
	drop_peer(c);
	act(c, CORE_ACT_KILL_VM);
	quit(c, CORE_FAILED, -1);
}

/* --- time --- */

static bool silent(const struct core *c, uint64_t now_us)
{
	return c->peer_up && c->state != CORE_CLAIMING &&
	       now_us > c->last_rx_us + c->cfg.heartbeat_us * c->cfg.misses;
}

static void tick(struct core *c, const struct core_event *e)
{
	if (c->peer_up && e->now_us - c->last_tx_us >= c->cfg.heartbeat_us) {
		c->last_tx_us = e->now_us;
		act(c, CORE_ACT_HEARTBEAT);
	}
	if (silent(c, e->now_us)) {
		peer_lost(c, e, CORE_LOSS_SILENT);
		return;
	}
	if (may_checkpoint(c) && c->cfg.periodic_us &&
	    e->now_us - c->last_checkpoint_us >= c->cfg.periodic_us)
		harvest(c, CORE_CAUSE_PERIODIC, e->now_us);
}

uint64_t core_next_tick(const struct core *c)
{
	uint64_t t = UINT64_MAX, d;

	if (c->peer_up) {
		t = c->last_tx_us + c->cfg.heartbeat_us;
		d = c->last_rx_us + c->cfg.heartbeat_us * c->cfg.misses + 1;
		t = d < t && c->state != CORE_CLAIMING ? d : t;
	}
	if (may_checkpoint(c) && c->cfg.periodic_us) {
		d = c->last_checkpoint_us + c->cfg.periodic_us;
		t = d < t ? d : t;
	}
	return t;
}

/* --- bringing a pair up --- */

static void peer_up(struct core *c, const struct core_event *e)
{
	if (c->state != CORE_ALONE && c->state != CORE_CONNECTING) {
		act(c, CORE_ACT_DROP_PEER);
		return;
	}
	c->peer_up = true;
	c->last_rx_us = c->last_tx_us = e->now_us;
	enter(c, CORE_SYNCING);
	act(c, CORE_ACT_SYNC_DISK);
}

static void disk_synced(struct core *c, const struct core_event *e)
{
	if (c->state != CORE_SYNCING)
		return;
	/* both must ask the arbiter for the same one when they lose each other */
	if (c->role == CORE_SECONDARY && e->epoch > c->generation)
		c->generation = e->epoch;
	enter(c, CORE_SEEDING);
	if (c->role == CORE_PRIMARY)
		act(c, CORE_ACT_SEED);
}

static void seeded(struct core *c, const struct core_event *e)
{
	if (c->role == CORE_PRIMARY && c->state == CORE_SEEDING && c->phase == CORE_IDLE)
		harvest(c, CORE_CAUSE_START, e->now_us);
}

static void seed_failed(struct core *c, const struct core_event *e)
{
	if (c->state == CORE_SEEDING)
		peer_lost(c, e, CORE_LOSS_PROTOCOL);
}

/* A primary takes the whole pair down with it; a secondary only ends protection. */
static void stop(struct core *c)
{
	if (c->role == CORE_PRIMARY && c->peer_up && c->state != CORE_GIVEN_UP)
		act(c, CORE_ACT_GUEST_OFF);
	else if (c->role == CORE_SECONDARY && c->peer_up)
		act(c, CORE_ACT_GOODBYE)->loss = CORE_LOSS_MANUAL;
	quit(c, CORE_STOPPED, 0);
}

void core_event(struct core *c, const struct core_event *e)
{
	c->nact = 0;
	if (c->state == CORE_STOPPED || c->state == CORE_FAILED)
		return;
	switch (e->type) {
	case CORE_EV_DECIDED:
		if (c->state == CORE_STARTING && c->role == CORE_UNDECIDED)
			c->role = e->role;
		break;
	case CORE_EV_STARTED:
		assert(c->role != CORE_UNDECIDED);
		if (c->state == CORE_STARTING)
			enter(c, c->role == CORE_PRIMARY ? CORE_ALONE : CORE_CONNECTING);
		break;
	case CORE_EV_START_FAILED: quit(c, CORE_FAILED, e->status); break;
	case CORE_EV_PEER_UP: peer_up(c, e); break;
	case CORE_EV_PEER_LOST: peer_lost(c, e, e->loss); break;
	case CORE_EV_RX: c->last_rx_us = e->now_us; break;
	case CORE_EV_TICK: tick(c, e); break;
	case CORE_EV_DISK_SYNCED: disk_synced(c, e); break;
	case CORE_EV_SEEDED: seeded(c, e); break;
	case CORE_EV_SEED_FAILED: seed_failed(c, e); break;
	case CORE_EV_WANT_CHECKPOINT: want_checkpoint(c, e); break;
	case CORE_EV_HARVESTED: harvested(c, e); break;
	case CORE_EV_HELD: held(c, e); break;
	case CORE_EV_APPLIED: applied(c, e); break;
	case CORE_EV_COMPLETE: complete(c, e); break;
	case CORE_EV_APPLY_DONE: apply_done(c, e); break;
	case CORE_EV_CLAIM: claim_answer(c, e); break;
	case CORE_EV_VM_DIED: vm_died(c); break;
	case CORE_EV_DISK_FAILED: disk_failed(c); break;
	case CORE_EV_HANDOVER: handover(c, e); break;
	case CORE_EV_DISMISSED:
		if (c->role == CORE_SECONDARY && c->state == CORE_PROTECTED) {
			act(c, CORE_ACT_DROP_PEER);
			act(c, CORE_ACT_KILL_VM);
			quit(c, CORE_FAILED, -1);
		}
		break;
	case CORE_EV_FAILOVER: operator_failover(c); break;
	case CORE_EV_ASKED: asked(c); break;
	case CORE_EV_TAKEN: taken(c); break;
	case CORE_EV_GUEST_OFF:
		if (c->role == CORE_PRIMARY)
			stop(c);
		break;
	case CORE_EV_STOP: stop(c); break;
	}
}
