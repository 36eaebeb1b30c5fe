/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * core.c - decisions of a node
 *
 * Theory of operation
 * -------------------
 * A node is primary or secondary, and in one state:
 *
 *  STARTING    local parts (disk manager, self-test, VM) come up. The role may not be decided yet. Once it is,
 *              a primary claims; its VM does not start before the claim is won.
 *  CONNECTING  secondary without a VM, looking for the primary. May be linked or stopped, nothing else.
 *  ALONE       primary; its VM serves, unprotected. A peer may come, unless the operator has paused that,
 *              or the last one was lost just now (core_may_pair()).
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
 *  FAILED      no VM can be served here. The daemon ends; started again it may be a secondary.
 *  STOPPED     asked to end.
 *
 * Generations. The arbiter keeps one record: a generation, and who has it. Each beginning of serving alone has
 * a generation of its own, won before: at a cold start, at the loss of the peer, when protection is left
 * with the peer still there, at a takeover. A pair lives in its primary's generation, and both nodes claim the
 * next one when they lose each other: one gets it. What a node once asked for may have been granted
 * although no answer came, so it goes on asking until it knows, and never assumes that it was not: a primary
 * that is to hand over waits for the answer first, and one that wins what it does not need any more
 * takes the pair into that generation (ACT_GENERATION).
 *
 * Leaving protection with the peer there (pause, a peer that is too slow, checkpoints that fail): the claim is
 * asked for while still PROTECTED, so that an arbiter that does not answer costs nothing. Won: the peer is
 * dismissed, this node is ALONE. Lost: the peer is the one that may serve, and is asked to.
 *
 * Switchover: the secondary claims first, `ahead`, while both run; only then it asks. The primary takes one more
 * checkpoint and hands over when it is applied. Should the link go before, the claim is the secondary's.
 *
 * Checkpoints are in checkpoint.c, all about the pair in pair.c.
 */
#include "core/core_priv.h"

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
	c->role = CORE_UNDECIDED;
	c->state = CORE_STARTING;
}

struct core_action *core_act(struct core *c, enum core_action_type type)
{
	struct core_action *a;

	assert(c->nact < CORE_MAX_ACTIONS);
	a = &c->act[c->nact++];
	*a = (struct core_action){ .type = type, .epoch = c->epoch };
	return a;
}

/* the only place where a state changes */
void core_enter(struct core *c, enum core_state to)
{
	static const uint32_t legal[CORE_NSTATES] = {
#define TO(s) (1u << CORE_##s)
#define END (TO(FAILED) | TO(STOPPED))
		[CORE_STARTING] = TO(CONNECTING) | TO(ALONE) | END,
		[CORE_CONNECTING] = TO(SYNCING) | END,
		[CORE_ALONE] = TO(SYNCING) | END,
		[CORE_SYNCING] = TO(SEEDING) | TO(ALONE) | END,
		[CORE_SEEDING] = TO(PROTECTED) | TO(ALONE) | TO(CLAIMING) | TO(GIVEN_UP) | END,
		[CORE_PROTECTED] = TO(ALONE) | TO(CLAIMING) | TO(GIVEN_UP) | END,
		[CORE_CLAIMING] = TO(ALONE) | TO(TAKEOVER) | END,
		[CORE_TAKEOVER] = TO(ALONE) | END,
		[CORE_GIVEN_UP] = END,
#undef END
#undef TO
	};

	assert(legal[c->state] & (1u << to));
	c->state = to;
}

void core_quit(struct core *c, enum core_state how, int status)
{
	core_enter(c, how);
	core_act(c, CORE_ACT_EXIT)->status = status;
}

/* --- start --- */

static void decided(struct core *c, const struct core_event *e)
{
	if (c->state != CORE_STARTING || c->role != CORE_UNDECIDED)
		return;
	c->role = e->role;
	c->generation = e->epoch;
	if (c->role == CORE_PRIMARY)
		pair_ask_arbiter(c, c->generation + 1, false);
	else
		core_act(c, CORE_ACT_START);
}

static void started(struct core *c)
{
	assert(c->role != CORE_UNDECIDED && !c->claiming);
	if (c->state == CORE_STARTING)
		core_enter(c, c->role == CORE_PRIMARY ? CORE_ALONE : CORE_CONNECTING);
}

/* A primary takes the whole pair down with it; a secondary only ends protection. */
static void stop(struct core *c)
{
	if (c->role == CORE_PRIMARY && c->peer_up && c->state != CORE_GIVEN_UP)
		core_act(c, CORE_ACT_GUEST_OFF);
	else if (c->role == CORE_SECONDARY && c->peer_up)
		core_act(c, CORE_ACT_GOODBYE)->loss = CORE_LOSS_MANUAL;
	core_quit(c, CORE_STOPPED, 0);
}

/* --- time --- */

/* When silence means that the peer is lost. If only the link fails, both notice: the primary first, so that its
 * claim is the first, too, and the roles do not change. */
static uint64_t silent_from(const struct core *c)
{
	unsigned int misses = c->cfg.misses;

	if (c->role == CORE_PRIMARY && misses > 1)
		misses--;
	return c->last_rx_us + c->cfg.heartbeat_us * misses + 1;
}

static bool silent(const struct core *c, uint64_t now_us)
{
	return c->peer_up && c->state != CORE_CLAIMING && now_us >= silent_from(c);
}

static void tick(struct core *c, const struct core_event *e)
{
	if (c->peer_up && e->now_us - c->last_tx_us >= c->cfg.heartbeat_us) {
		c->last_tx_us = e->now_us;
		core_act(c, CORE_ACT_HEARTBEAT);
	}
	pair_tick(c, e);
	if (silent(c, e->now_us))
		pair_lost(c, e, CORE_LOSS_SILENT);
	else
		ckpt_tick(c, e);
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t core_next_tick(const struct core *c)
{
	uint64_t t = ckpt_next_tick(c);

	if (!c->peer_up)
		return t;
	t = min_u64(t, c->last_tx_us + c->cfg.heartbeat_us);
	if (c->state != CORE_CLAIMING)
		t = min_u64(t, silent_from(c));
	return t;
}

bool core_may_pair(const struct core *c, uint64_t now_us)
{
	return c->role == CORE_PRIMARY && c->state == CORE_ALONE && !c->paused && now_us >= c->pair_from_us;
}

void core_event(struct core *c, const struct core_event *e)
{
	c->nact = 0;
	if (c->state == CORE_STOPPED || c->state == CORE_FAILED)
		return;
	switch (e->type) {
	case CORE_EV_DECIDED: decided(c, e); break;
	case CORE_EV_STARTED: started(c); break;
	case CORE_EV_START_FAILED: core_quit(c, CORE_FAILED, e->status); break;
	case CORE_EV_PEER_UP: pair_up(c, e); break;
	case CORE_EV_PEER_LOST: pair_lost(c, e, e->loss); break;
	case CORE_EV_RX: c->last_rx_us = e->now_us; break;
	case CORE_EV_TICK: tick(c, e); break;
	case CORE_EV_DISK_SYNCED: pair_disk_synced(c, e); break;
	case CORE_EV_SEEDED: ckpt_seeded(c, e); break;
	case CORE_EV_SEED_FAILED:
		if (c->state == CORE_SEEDING)
			pair_lost(c, e, CORE_LOSS_PROTOCOL);
		break;
	case CORE_EV_WANT_CHECKPOINT: ckpt_want(c, e->cause, e->now_us); break;
	case CORE_EV_HARVESTED: ckpt_harvested(c, e); break;
	case CORE_EV_HELD: ckpt_held(c, e); break;
	case CORE_EV_APPLIED: ckpt_applied(c, e); break;
	case CORE_EV_COMPLETE: ckpt_complete(c, e); break;
	case CORE_EV_APPLY_DONE: ckpt_apply_done(c, e); break;
	case CORE_EV_CLAIM: pair_claim_answer(c, e); break;
	case CORE_EV_VM_DIED: pair_vm_died(c); break;
	case CORE_EV_VM_WEDGED: pair_vm_wedged(c); break;
	case CORE_EV_DISK_FAILED: pair_disk_failed(c); break;
	case CORE_EV_HANDOVER: pair_handover(c, e); break;
	case CORE_EV_DISMISSED: pair_dismissed(c, e); break;
	case CORE_EV_TAKEN: pair_taken(c); break;
	case CORE_EV_FAILOVER:
	case CORE_EV_SWITCHOVER: pair_failover(c, e); break;
	case CORE_EV_ASKED: pair_asked(c, e); break;
	case CORE_EV_PAUSE: pair_pause(c, e); break;
	case CORE_EV_RESUME: pair_resume(c); break;
	case CORE_EV_GUEST_OFF:
		if (c->role == CORE_PRIMARY)
			stop(c);
		break;
	case CORE_EV_STOP: stop(c); break;
	}
}
