/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pair.c - how a pair comes about, and all the ways in which it ends; core.c has the theory
 */
#include "core/core_priv.h"

#define SETTLE_MAX 20       /* longest wait for a new pair after a loss, as a multiple of the shortest one, */
#define SETTLE_SLOW_MAX 200 /* and after one that was too slow */
#define CALM_US 600000000ull            /* a pair that lasted so long was a good one */
#define DOUBLED_MAX 20

/* --- claims --- */

void pair_ask_arbiter(struct core *c, uint64_t generation, bool peer_gone)
{
	struct core_action *a = core_act(c, CORE_ACT_CLAIM);

	c->claiming = generation;
	a->epoch = generation;
	a->loss = c->loss;
	a->peer_gone = peer_gone;
}

/* A pair that breaks again and again costs the VM more than it gives. */
static void settle(struct core *c, uint64_t now_us)
{
	uint64_t max = c->cfg.settle_us * (c->loss == CORE_LOSS_SLOW ? SETTLE_SLOW_MAX : SETTLE_MAX), wait;

	if (c->protected_us && now_us - c->protected_us >= CALM_US)
		c->losses = 0;
	c->protected_us = 0;
	if (c->loss == CORE_LOSS_PAUSED)
		return;
	wait = c->cfg.settle_us << (c->losses < DOUBLED_MAX ? c->losses : DOUBLED_MAX);
	c->losses++;
	c->pair_from_us = now_us + (wait < max ? wait : max);
}

static void drop_peer(struct core *c)
{
	c->peer_up = false;
	core_act(c, CORE_ACT_DROP_PEER);
}

/* This node has no part in the pair any more. Started again, it asks what is to become of it. */
static void end(struct core *c)
{
	core_act(c, CORE_ACT_KILL_VM);
	core_quit(c, CORE_FAILED, CORE_EXIT_AGAIN);
}

/* primary: the claim is won */
static void serve_alone(struct core *c, const struct core_event *e)
{
	c->phase = CORE_IDLE;
	c->wanted = c->leaving = c->handing_over = false;
	core_enter(c, CORE_ALONE);
	if (c->peer_up) {
		core_act(c, CORE_ACT_DISMISS);
		drop_peer(c);
	}
	core_act(c, CORE_ACT_SERVE);
	if (c->disk_failed)
		core_act(c, CORE_ACT_DISK_ERROR);
	c->disk_failed = false;
	settle(c, e->now_us);
}

void pair_take_over(struct core *c, const struct core_event *e)
{
	core_enter(c, CORE_ALONE);
	c->role = CORE_PRIMARY;
	core_act(c, CORE_ACT_TAKE_OVER)->loss = c->loss;
	settle(c, e->now_us);
}

static void won(struct core *c, const struct core_event *e, uint64_t generation)
{
	c->generation = generation;
	if (c->role == CORE_PRIMARY) {
		serve_alone(c, e);
		return;
	}
	core_enter(c, CORE_TAKEOVER);
	if (c->peer_up && c->loss == CORE_LOSS_SILENT) {
		core_act(c, CORE_ACT_TAKEN);
		drop_peer(c);
	}
	if (c->phase == CORE_IDLE)
		pair_take_over(c, e);
}

static void claim(struct core *c, const struct core_event *e, uint64_t generation, bool peer_gone)
{
	core_enter(c, CORE_CLAIMING);
	c->asking = false;
	if (c->ahead == generation)
		won(c, e, generation);
	else
		pair_ask_arbiter(c, generation, peer_gone);
}

static void ask_peer(struct core *c)
{
	c->asking = false;
	core_act(c, CORE_ACT_ASK)->cause = c->ask;
}

/* an answer while the peer is there */
static void answered_in_pair(struct core *c, const struct core_event *e)
{
	if (c->role == CORE_SECONDARY) {
		if (e->status) {
			pair_resign(c, CORE_LOSS_NONE); /* the primary has it, and goes on alone */
			return;
		}
		c->ahead = e->epoch;
		if (c->asking)
			ask_peer(c);
	} else if (e->status) {
		pair_give_up(c, c->loss); /* the secondary has it */
	} else if (c->leaving) {
		c->generation = e->epoch;
		serve_alone(c, e);
	} else { /* it is not needed any more */
		c->generation = e->epoch;
		core_act(c, CORE_ACT_GENERATION)->epoch = c->generation;
	}
}

/* mine: the newest generation that this node has */
static void hand_over(struct core *c, uint64_t mine)
{
	struct core_action *a = core_act(c, CORE_ACT_HAND_OVER);

	a->epoch = mine + 1;
	a->loss = c->loss;
}

static void answered_at_start(struct core *c, const struct core_event *e)
{
	if (e->status) {
		c->role = CORE_UNDECIDED;
		core_act(c, CORE_ACT_DECIDE);
		return;
	}
	c->generation = e->epoch;
	core_act(c, CORE_ACT_START);
}

void pair_claim_answer(struct core *c, const struct core_event *e)
{
	if (!c->claiming || e->epoch != c->claiming || e->status < 0)
		return; /* unknown is not won: wait for the next answer */
	c->claiming = 0;
	if (c->state == CORE_STARTING)
		answered_at_start(c, e);
	else if (c->state == CORE_SEEDING || c->state == CORE_PROTECTED)
		answered_in_pair(c, e);
	else if (c->state == CORE_GIVEN_UP)
		hand_over(c, e->status ? c->generation : e->epoch);
	else if (c->state == CORE_CLAIMING && e->status)
		end(c);
	else if (c->state == CORE_CLAIMING)
		won(c, e, e->epoch);
}

/* --- losing the peer --- */

/* The pair is broken. A link that is not closed stays until the arbiter has answered: the winner uses
 * it to tell the other, which may only have been asleep. */
static void protected_peer_lost(struct core *c, const struct core_event *e)
{
	if (c->role == CORE_PRIMARY)
		c->phase = CORE_IDLE;
	if (c->loss == CORE_LOSS_CLOSED)
		drop_peer(c);
	if (c->role == CORE_SECONDARY && c->loss == CORE_LOSS_PROTOCOL) {
		/* a primary that talks nonsense lives, and may serve: this is no case for a takeover */
		drop_peer(c);
		end(c);
		return;
	}
	claim(c, e, c->generation + 1, false);
}

static void seeding_peer_lost(struct core *c, const struct core_event *e)
{
	drop_peer(c);
	if (c->role == CORE_SECONDARY) {
		/* half a seed is of no use, and its disk content is undefined */
		end(c);
		return;
	}
	c->phase = CORE_IDLE;
	c->wanted = false;
	core_enter(c, CORE_ALONE);
	core_act(c, CORE_ACT_SERVE);
	settle(c, e->now_us);
}

static void note_loss(struct core *c, enum core_loss loss, uint64_t last_heard_us, uint64_t now_us)
{
	c->loss = loss;
	c->lost_at_us = last_heard_us;
	c->detected_us = now_us;
}

void pair_lost(struct core *c, const struct core_event *e, enum core_loss loss)
{
	if (!c->peer_up)
		return;
	if (c->state == CORE_CLAIMING) {
		if (loss == CORE_LOSS_CLOSED || c->role == CORE_SECONDARY)
			drop_peer(c);
		return;
	}
	note_loss(c, loss, c->last_rx_us, e->now_us);
	switch (c->state) {
	case CORE_PROTECTED:
		protected_peer_lost(c, e);
		break;
	case CORE_SYNCING:
	case CORE_SEEDING:
		if (ckpt_may_be_held(c))
			protected_peer_lost(c, e);
		else
			seeding_peer_lost(c, e);
		break;
	case CORE_GIVEN_UP:
		drop_peer(c);
		core_quit(c, CORE_STOPPED, CORE_EXIT_AGAIN);
		break;
	default:
		drop_peer(c);
		break;
	}
}

/* Secondary, which claims, and has no answer. Should the primary be there again, it was only asleep, and may not
 * have noticed that the pair is broken: it is to claim as well. Should it be gone, the link is not kept
 * for long: who serves says so to whoever dials. */
void pair_tick(struct core *c, const struct core_event *e)
{
	bool again = c->last_rx_us > c->detected_us;

	if (c->role != CORE_SECONDARY || c->state != CORE_CLAIMING || !c->peer_up || c->loss != CORE_LOSS_SILENT)
		return;
	if (again || e->now_us > c->detected_us + c->cfg.heartbeat_us * c->cfg.misses)
		drop_peer(c);
}

void pair_leave(struct core *c, const struct core_event *e, enum core_loss why)
{
	if (c->leaving) {
		c->loss = why == CORE_LOSS_PAUSED ? why : c->loss;
		return;
	}
	note_loss(c, why, e->now_us, e->now_us);
	if (c->state != CORE_PROTECTED && !ckpt_may_be_held(c)) {
		seeding_peer_lost(c, e);
		return;
	}
	c->leaving = true;
	pair_ask_arbiter(c, c->generation + 1, false);
}

/* What was asked for may be granted yet, and then the secondary has to claim the one after that. It must not
 * be told before this is known: if this node ended meanwhile, its next life could win the one in between. */
void pair_give_up(struct core *c, enum core_loss why)
{
	c->phase = CORE_IDLE;
	c->loss = why;
	core_enter(c, CORE_GIVEN_UP);
	if (!c->claiming)
		hand_over(c, c->generation);
	if (why != CORE_LOSS_PVM_DIED)
		core_act(c, CORE_ACT_KILL_VM);
}

void pair_resign(struct core *c, enum core_loss why)
{
	if (c->peer_up) {
		core_act(c, CORE_ACT_GOODBYE)->loss = why;
		drop_peer(c);
	}
	end(c);
}

/* the primary says it does not serve any more; its word comes in order behind all it sent */
void pair_handover(struct core *c, const struct core_event *e)
{
	uint64_t generation = e->epoch > c->generation ? e->epoch : c->generation + 1;

	if (c->role != CORE_SECONDARY)
		return;
	if (c->state == CORE_CLAIMING) {
		c->loss = e->loss;
		pair_ask_arbiter(c, generation, true);
	} else if (c->state == CORE_PROTECTED) {
		note_loss(c, e->loss, e->now_us, e->now_us);
		claim(c, e, generation, true);
	}
}

void pair_dismissed(struct core *c, const struct core_event *e)
{
	if (c->role != CORE_SECONDARY || (c->state != CORE_PROTECTED && c->state != CORE_CLAIMING))
		return;
	/* What says so in an older generation does not know yet that it has lost it. Without an arbiter nobody keeps
	 * the number over a restart. */
	if (e->epoch && e->epoch <= c->generation && !c->cfg.arbiter_none)
		return;
	if (c->peer_up)
		drop_peer(c);
	end(c);
}

void pair_taken(struct core *c)
{
	if (c->role != CORE_PRIMARY || (c->state != CORE_PROTECTED && c->state != CORE_CLAIMING))
		return;
	drop_peer(c);
	end(c);
}

/* --- local failures --- */

void pair_vm_died(struct core *c)
{
	if (c->role == CORE_PRIMARY && c->state == CORE_PROTECTED && c->peer_up) {
		pair_give_up(c, CORE_LOSS_PVM_DIED);
		return;
	}
	if (c->state == CORE_GIVEN_UP)
		return;
	if (c->peer_up)
		drop_peer(c);
	core_quit(c, CORE_FAILED, c->role == CORE_SECONDARY ? CORE_EXIT_AGAIN : -1);
}

/* Only where the other node is better off alone; elsewhere it may yet recover. */
void pair_vm_wedged(struct core *c)
{
	if (c->role == CORE_PRIMARY && c->state == CORE_PROTECTED && c->peer_up)
		pair_give_up(c, CORE_LOSS_WEDGED);
	else if (c->role == CORE_SECONDARY && (c->state == CORE_SEEDING || c->state == CORE_PROTECTED))
		pair_resign(c, CORE_LOSS_WEDGED);
}

/* The local storage failed. The VM that serves shall not see it as long as the other one can go on. */
static void primary_disk_failed(struct core *c)
{
	switch (c->state) {
	case CORE_PROTECTED:
		pair_give_up(c, CORE_LOSS_DISK);
		break;
	case CORE_SEEDING:
		if (!ckpt_may_be_held(c)) {
			core_act(c, CORE_ACT_DISK_ERROR);
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
		core_act(c, CORE_ACT_DISK_ERROR);
	}
}

void pair_disk_failed(struct core *c)
{
	if (c->role == CORE_PRIMARY)
		primary_disk_failed(c);
	else if (c->state == CORE_STARTING)
		core_quit(c, CORE_FAILED, -1);
	else if (c->state != CORE_CLAIMING && c->state != CORE_TAKEOVER) /* a bad disk is better than none */
		pair_resign(c, CORE_LOSS_DISK);
}

/* --- the operator --- */

/* The primary gives up its role before the secondary takes it: never both. And the secondary has its claim
 * before that, where there is an arbiter: never none. */
void pair_failover(struct core *c, const struct core_event *e)
{
	if (c->state != CORE_PROTECTED || !c->peer_up)
		return;
	if (c->role == CORE_PRIMARY) {
		if (e->type == CORE_EV_SWITCHOVER && !c->leaving)
			core_act(c, CORE_ACT_SWITCHOVER);
		return;
	}
	c->ask = e->type == CORE_EV_SWITCHOVER ? CORE_CAUSE_SWITCHOVER : CORE_CAUSE_MANUAL;
	if (c->cfg.arbiter_none || c->ahead) {
		ask_peer(c);
		return;
	}
	c->asking = true;
	if (!c->claiming)
		pair_ask_arbiter(c, c->generation + 1, false);
}

/* From now on the claim may be the peer's, so there is no way back. */
void pair_asked(struct core *c, const struct core_event *e)
{
	if (c->role != CORE_PRIMARY || !c->peer_up)
		return;
	if (c->state == CORE_SEEDING && ckpt_may_be_held(c)) {
		c->handing_over = true;
	} else if (c->state != CORE_PROTECTED) {
		return;
	} else if (e->cause == CORE_CAUSE_SWITCHOVER) {
		c->handing_over = true;
		ckpt_want(c, CORE_CAUSE_SWITCHOVER, e->now_us);
	} else {
		pair_give_up(c, CORE_LOSS_MANUAL);
	}
}

void pair_pause(struct core *c, const struct core_event *e)
{
	if (c->role != CORE_PRIMARY || c->state == CORE_STARTING || c->state == CORE_GIVEN_UP)
		return;
	c->paused = true;
	if (c->state == CORE_SYNCING || c->state == CORE_SEEDING || c->state == CORE_PROTECTED)
		pair_leave(c, e, CORE_LOSS_PAUSED);
}

void pair_resume(struct core *c)
{
	c->paused = false;
	if (c->loss == CORE_LOSS_PAUSED)
		c->leaving = false;
}

/* --- bringing a pair up --- */

void pair_up(struct core *c, const struct core_event *e)
{
	if ((c->state != CORE_ALONE && c->state != CORE_CONNECTING) || c->paused) {
		core_act(c, CORE_ACT_DROP_PEER);
		return;
	}
	c->peer_up = true;
	c->last_rx_us = c->last_tx_us = e->now_us;
	core_enter(c, CORE_SYNCING);
	core_act(c, CORE_ACT_SYNC_DISK);
}

void pair_disk_synced(struct core *c, const struct core_event *e)
{
	/* both must ask the arbiter for the same one when they lose each other */
	if (c->role == CORE_SECONDARY && e->epoch > c->generation)
		c->generation = e->epoch;
	if (c->state != CORE_SYNCING)
		return;
	core_enter(c, CORE_SEEDING);
	if (c->role == CORE_PRIMARY)
		core_act(c, CORE_ACT_SEED);
}
