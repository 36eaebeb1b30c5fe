/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim_node.c - a node's driver: does what the daemon does, in the same order, on models
 */
#include "sim.h"

#include <errno.h>
#include <string.h>

#define LINGER_US 300000
#define HARVEST_FAILED (1ull << 63)

/* --- link --- */

static void forget_peer(struct node *n)
{
	n->seed_local = n->seed_remote = false;
	n->got_pages = n->got_boundary = n->got_disk = 0;
}

static void drop_peer(struct world *w, struct node *n)
{
	link_close(w, n);
	forget_peer(n);
}

static void peer_lost(struct world *w, struct node *n, enum core_loss loss)
{
	bool was = n->linked;

	link_close(w, n);
	if (was)
		node_event(w, n, (struct core_event){ .type = CORE_EV_PEER_LOST, .loss = loss });
}

void node_hears_nonsense(struct world *w, struct node *n)
{
	if (!n->linked || n->mute)
		return;
	n->mute = true;
	node_event(w, n, (struct core_event){ .type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_PROTOCOL });
}

static void check_complete(struct world *w, struct node *n)
{
	if (n->got_pages && n->got_pages == n->got_boundary && n->got_pages == n->got_disk)
		node_event(w, n, (struct core_event){ .type = CORE_EV_COMPLETE, .epoch = n->got_pages });
}

static void seed_receive(struct world *w, struct node *n)
{
	if (n->core.state != CORE_SEEDING || n->vm.alive)
		return;
	vm_new(w, n, false);
	sim_after(w, some(w, 1000, 40000), EV_SVM_READY, n->index, n->vm.id);
}

static void seeded(struct world *w, struct node *n)
{
	if (n->seed_local && n->seed_remote)
		node_event(w, n, (struct core_event){ .type = CORE_EV_SEEDED });
}

static void to_secondary(struct world *w, struct node *n, const struct msg *m)
{
	struct core_event e = { .epoch = m->epoch };

	switch (m->type) {
	case MSG_SYNCED: e.type = CORE_EV_DISK_SYNCED; node_event(w, n, e); break;
	case MSG_SEED_START: seed_receive(w, n); break;
	case MSG_BOUNDARY: n->got_boundary = m->epoch; check_complete(w, n); break;
	case MSG_DISK_BOUNDARY:
		n->got_disk = m->epoch;
		w->disk[n->index].has_boundary = true;
		history_copy(&w->disk[n->index].boundary, &w->snapshot[m->value]);
		check_complete(w, n);
		break;
	case MSG_PAGES:
		n->got_pages = m->epoch;
		n->staged = m->value;
		check_complete(w, n);
		break;
	case MSG_HANDOVER:
		e.type = CORE_EV_HANDOVER;
		e.loss = m->value;
		node_event(w, n, e);
		break;
	case MSG_SWITCHOVER: e.type = CORE_EV_SWITCHOVER; node_event(w, n, e); break;
	case MSG_DISMISS: e.type = CORE_EV_DISMISSED; node_event(w, n, e); break;
	case MSG_GUEST_OFF: e.type = CORE_EV_STOP; node_event(w, n, e); break;
	default: sim_fail(w, "node %u, secondary, got message %d", n->index, m->type);
	}
}

static void to_primary(struct world *w, struct node *n, const struct msg *m)
{
	struct core_event e = { .epoch = m->epoch };

	switch (m->type) {
	case MSG_OUTPUT: nic_from_svm(w, n, m->epoch, m->value); break;
	case MSG_HELD: e.type = CORE_EV_HELD; node_event(w, n, e); break;
	case MSG_APPLIED:
		lineage_shared(&w->disk[n->index].l);
		e.type = CORE_EV_APPLIED;
		node_event(w, n, e);
		break;
	case MSG_ASK: e.type = CORE_EV_ASKED; e.cause = m->value; node_event(w, n, e); break;
	case MSG_TAKEN: e.type = CORE_EV_TAKEN; node_event(w, n, e); break;
	case MSG_GOODBYE: break; /* its link is closed behind it */
	case MSG_SEED_READY:
		n->seed_remote = n->core.state == CORE_SEEDING;
		seeded(w, n);
		break;
	case MSG_GUEST_OFF: /* a survivor ends while it is still linked with its former primary */
		if (n->core.state == CORE_GIVEN_UP) {
			node_hears_nonsense(w, n);
			break;
		}
		/* fall through */
	default: sim_fail(w, "node %u, primary, got message %d", n->index, m->type);
	}
}

static void receive(struct world *w, struct node *n, enum channel c)
{
	struct msg m;

	while (link_receive(w, n, c, &m)) {
		if (m.type == MSG_CLOSE) {
			/* the other channels end as well, but the last words stand on this one */
			if (c == CONTROL)
				peer_lost(w, n, CORE_LOSS_CLOSED);
			return;
		}
		if (c != DISK)
			node_event(w, n, (struct core_event){ .type = CORE_EV_RX });
		if (m.type == MSG_HEARTBEAT || n->link == n->former_link)
			continue;
		if (n->core.role == CORE_PRIMARY)
			to_primary(w, n, &m);
		else
			to_secondary(w, n, &m);
	}
}

static void peer_up(struct world *w, struct node *n, uint64_t id)
{
	enum channel c;

	if (n->link != id || n->linked)
		return;
	n->linked = true;
	if (n->core.role == CORE_SECONDARY)
		disk_link(w, n);
	node_event(w, n, (struct core_event){ .type = CORE_EV_PEER_UP });
	for (c = 0; c < NCHANNELS; c++)
		receive(w, n, c);
}

/* --- checkpoints --- */

static void harvested(struct world *w, struct node *n, uint64_t epoch, int status)
{
	node_event(w, n, (struct core_event){ .type = CORE_EV_HARVESTED, .epoch = epoch,
					      .status = status });
}

static void harvest(struct world *w, struct node *n, uint64_t epoch)
{
	if (n->agent_busy) {
		harvested(w, n, epoch, -EBUSY);
		return;
	}
	n->agent_busy = n->marker_due = true;
	n->marker_epoch = epoch;
	sim_after(w, some(w, 50, 3000), EV_SNAPSHOT, n->index, n->vm.id);
}

static void snapshot(struct world *w, struct node *n)
{
	uint64_t failed = n->fail_harvest ? HARVEST_FAILED : 0;

	if (n->vm.waits) { /* the VM cannot be stopped while a request is under way */
		sim_after(w, 1000, EV_SNAPSHOT, n->index, n->vm.id);
		return;
	}
	n->fail_harvest = false;
	if (!failed) {
		n->snapshot = w->nsnapshots++ % SIM_SNAPSHOTS;
		history_copy(&w->snapshot[n->snapshot], &n->vm.h);
		link_send(w, n, DISK, MSG_DISK_BOUNDARY, n->marker_epoch, n->snapshot);
		if (n->marker_due)
			nic_boundary(w, n, n->marker_epoch);
	}
	n->marker_due = false;
	sim_after(w, some(w, 1, 3000), EV_HARVESTED, n->index, n->vm.id | failed);
}

static void on_harvested(struct world *w, struct node *n, bool failed)
{
	uint64_t epoch = n->marker_epoch;

	n->agent_busy = false;
	/* the link it was for may be gone, and another one there */
	if (failed || !n->linked || n->core.phase != CORE_HARVESTING) {
		harvested(w, n, epoch, failed ? -EIO : -EPIPE);
		return;
	}
	w->checkpoints++;
	link_send(w, n, CONTROL, MSG_BOUNDARY, epoch, 0);
	harvested(w, n, epoch, 0);
	link_send(w, n, BULK, MSG_PAGES, epoch, n->snapshot);
}

static void apply(struct world *w, struct node *n, uint64_t epoch)
{
	n->applying = n->staged;
	n->marker_epoch = epoch;
	n->vm.runs = false;
	n->vm.half = true;
	sim_after(w, some(w, 100, 20000) + disk_delay(w, n), EV_APPLIED, n->index, n->vm.id);
}

static void on_applied(struct world *w, struct node *n)
{
	int status = n->fail_apply ? -EIO : 0;

	n->fail_apply = false;
	if (!status) {
		disk_commit(w, n->index);
		history_copy(&n->vm.h, &w->snapshot[n->applying]);
		n->vm.half = false;
		n->vm.runs = !w->checkpoint_mode;
		n->nic.epoch = n->marker_epoch;
		/* a VM that runs may speak before its driver hears that it does */
		if (rnd_chance(&w->rnd, 30))
			vm_output(w, n);
	}
	node_event(w, n, (struct core_event){ .type = CORE_EV_APPLY_DONE, .epoch = n->marker_epoch,
					      .status = status });
}

/* --- failover --- */

static void survive(struct world *w, struct node *n)
{
	n->taking_over = false;
	n->vm.runs = true;
	n->nic.released = n->vm.h.n < w->client.n ? n->vm.h.n : w->client.n;
	nic_pass(w, n, NIC_SURVIVOR);
	if (n->linked)
		sim_after(w, LINGER_US, EV_LINGER, n->index, n->link);
}

static void take_over(struct world *w, struct node *n)
{
	check_takeover(w, n);
	w->takeovers++;
	n->former_link = n->link;
	n->taking_over = true;
	n->vm.runs = false; /* what it writes from now on has to be stable at once */
	if (n->vm.alive) /* else the core has yet to hear it */
		sim_after(w, disk_delay(w, n), EV_FAILED_OVER, n->index, n->vm.id);
}

/* what the SVM wrote is on stable storage, and that this host serves */
static void failed_over(struct world *w, struct node *n)
{
	history_copy(&w->disk[n->index].h, &n->vm.h);
	w->disk[n->index].has_boundary = false;
	disk_go_alone(w, n);
	check_stable(w, n);
	if (w->checkpoint_mode)
		sim_after(w, some(w, 100, 20000), EV_LOADED, n->index, n->vm.id);
	else
		survive(w, n);
}

void node_end(struct world *w, struct node *n)
{
	sim_trace(w, n->index, "ends");
	drop_peer(w, n);
	vm_end(n);
	n->nic.mode = NIC_OFF;
	n->alive = n->undecided = n->taking_over = false;
	n->life++;
}

/* It ends by itself. The supervisor starts it again; an operator does who ended the VM, too, a while later. */
static void node_exits(struct world *w, struct node *n, int status)
{
	node_end(w, n);
	sim_after(w, status ? some(w, 1, w->supervisor_us) : some(w, 500000, 2000000), EV_BOOT, n->index, 0);
}

/* --- core --- */

static void carry_out(struct world *w, struct node *n, const struct core_action *a, enum core_state before)
{
	if (!n->alive)
		sim_fail(w, "node %u: action %d after its end", n->index, a->type);
	switch (a->type) {
	case CORE_ACT_START: start_granted(w, n); break;
	case CORE_ACT_DECIDE:
		n->owner = START_UNKNOWN;
		arbiter_read(w, n);
		break;
	case CORE_ACT_SWITCHOVER: link_send(w, n, CONTROL, MSG_SWITCHOVER, 0, 0); break;
	case CORE_ACT_GENERATION: link_send(w, n, CONTROL, MSG_SYNCED, a->epoch, 0); break;
	case CORE_ACT_SYNC_DISK:
		if (n->core.role == CORE_PRIMARY)
			sim_after(w, some(w, 100, 50000) + disk_delay(w, n), EV_DISK_SYNCED, n->index, n->link);
		break;
	case CORE_ACT_SEED:
		w->disk[n->index].l.flags |= LINEAGE_SHARED;
		link_send(w, n, CONTROL, MSG_SYNCED, n->core.generation, 0);
		link_send(w, n, CONTROL, MSG_SEED_START, 0, 0);
		sim_after(w, some(w, 1000, 60000), EV_SEED_LOCAL, n->index, n->link);
		break;
	case CORE_ACT_HARVEST: harvest(w, n, a->epoch); break;
	case CORE_ACT_RELEASE: nic_held(w, n, a->epoch); break;
	case CORE_ACT_COMPARE: nic_svm_runs(w, n); break;
	case CORE_ACT_HELD: link_send(w, n, CONTROL, MSG_HELD, a->epoch, 0); break;
	case CORE_ACT_APPLY: apply(w, n, a->epoch); break;
	case CORE_ACT_APPLIED: link_send(w, n, CONTROL, MSG_APPLIED, a->epoch, 0); break;
	case CORE_ACT_CLAIM:
		n->peer_gone = a->peer_gone;
		arbiter_claim(w, n, a->epoch);
		break;
	case CORE_ACT_SERVE:
		check_serves(w, n);
		disk_go_alone(w, n);
		nic_pass(w, n, NIC_PASS);
		break;
	case CORE_ACT_TAKE_OVER: take_over(w, n); break;
	case CORE_ACT_HEARTBEAT: link_send(w, n, CONTROL, MSG_HEARTBEAT, 0, 0); break;
	case CORE_ACT_DROP_PEER: drop_peer(w, n); break;
	case CORE_ACT_HAND_OVER:
		link_send(w, n, CONTROL, MSG_HANDOVER, a->epoch, a->loss);
		n->nic.mode = NIC_OFF;
		break;
	case CORE_ACT_ASK: link_send(w, n, CONTROL, MSG_ASK, 0, a->cause); break;
	case CORE_ACT_TAKEN: link_send(w, n, CONTROL, MSG_TAKEN, 0, 0); break;
	case CORE_ACT_DISMISS: link_send(w, n, CONTROL, MSG_DISMISS, 0, 0); break;
	case CORE_ACT_KILL_VM:
		vm_end(n);
		n->nic.mode = NIC_OFF;
		break;
	case CORE_ACT_GUEST_OFF: link_send(w, n, CONTROL, MSG_GUEST_OFF, 0, 0); break;
	case CORE_ACT_GOODBYE: link_send(w, n, CONTROL, MSG_GOODBYE, 0, 0); break;
	case CORE_ACT_DISK_ERROR:
		check_disk_error(w, n);
		n->vm.waits = false;
		break;
	case CORE_ACT_EXIT: node_exits(w, n, a->status); break;
	}
}

static void trace_event(struct world *w, const struct node *n, const struct core_event *e)
{
	static const char *const names[] = {
		"decided", "started", "start failed", "peer up", "peer lost", "rx", "tick", "disk synced", "seeded",
		"seed failed", "want checkpoint", "harvested", "held", "applied", "complete", "apply done", "claim",
		"VM died", "VM wedged", "disk failed", "handover", "dismissed", "taken", "failover", "switchover", "asked",
		"pause", "resume", "guest off", "stop",
	};
	_Static_assert(sizeof(names) / sizeof(*names) == CORE_EV_STOP + 1, "event names");

	if (e->type != CORE_EV_CLAIM)
		sim_trace(w, n->index, "%s, epoch %llu, status %d", names[e->type], (unsigned long long)e->epoch,
			  e->status);
}

static void one_event(struct world *w, struct node *n, const struct core_event *e)
{
	struct core_action actions[CORE_MAX_ACTIONS];
	enum core_state before = n->core.state;
	uint64_t epoch = n->core.epoch;
	size_t count, i;

	core_event(&n->core, e);
	count = n->core.nact;
	memcpy(actions, n->core.act, count * sizeof(*actions));
	if (e->type != CORE_EV_RX && e->type != CORE_EV_TICK)
		trace_event(w, n, e);
	if (n->core.state != before)
		sim_trace(w, n->index, "%s -> %s", core_state_name(before), core_state_name(n->core.state));
	if (n->core.state != before && n->core.state == CORE_CLAIMING && n->core.role == CORE_SECONDARY)
		sim_after(w, some(w, 1, 50000), EV_DIAL, n->index, 0);
	if (n->core.state != before && n->core.state == CORE_PROTECTED)
		w->protections++;
	if (n->core.epoch < epoch)
		sim_fail(w, "node %u: epoch goes back", n->index);
	for (i = 0; i < count; i++)
		carry_out(w, n, &actions[i], before);
}

static void arm_tick(struct world *w, struct node *n)
{
	uint64_t next = core_next_tick(&n->core);

	if (!n->alive || next == UINT64_MAX)
		return;
	next = next <= node_now(w, n) ? w->now + 1 : next - w->clock_us[n->index];
	if (n->tick_at > w->now && n->tick_at <= next)
		return;
	n->tick_at = next + rnd_below(&w->rnd, 1000);
	sim_after(w, n->tick_at - w->now, EV_TICK, n->index, 0);
}

void node_event(struct world *w, struct node *n, struct core_event e)
{
	const unsigned int size = sizeof(n->queue) / sizeof(*n->queue);

	e.now_us = node_now(w, n);
	if (!n->alive)
		return;
	if (n->queued - n->taken == size)
		sim_fail(w, "node %u: too many events at once", n->index);
	n->queue[n->queued++ % size] = e;
	if (n->in_core)
		return;
	n->in_core = true;
	while (n->taken != n->queued) {
		e = n->queue[n->taken++ % size];
		if (n->alive)
			one_event(w, n, &e);
	}
	n->in_core = false;
	if (e.type != CORE_EV_RX)
		arm_tick(w, n);
}

static void tick(struct world *w, struct node *n)
{
	enum channel c;

	if (w->now < n->tick_at)
		return; /* another one is due later */
	n->tick_at = 0;
	for (c = 0; c < NCHANNELS; c++)
		receive(w, n, c);
	node_event(w, n, (struct core_event){ .type = CORE_EV_TICK });
	if (n->alive && core_next_tick(&n->core) <= node_now(w, n))
		sim_fail(w, "node %u: a tick leaves another one due", n->index);
}

void node_start(struct world *w, unsigned int i)
{
	struct node *n = &w->node[i];
	struct core_config c = {
		.arbiter_none = w->arbiter_none, .heartbeat_us = w->heartbeat_us, .misses = w->misses,
		.periodic_us = w->periodic_us, .lag_limit_us = w->lag_us, .settle_us = w->settle_us,
	};
	unsigned int life = n->life + 1, vm = n->vm.id;
	uint64_t stalled = n->stalled_until;

	memset(n, 0, sizeof(*n));
	n->index = i;
	n->life = life;
	n->vm.id = vm;
	n->stalled_until = stalled;
	n->alive = true;
	n->former_link = ~0u;
	core_init(&n->core, &c);
	sim_trace(w, i, "starts");
	sim_after(w, some(w, 100, 5000) + disk_delay(w, n), EV_OPEN, i, 0);
}

static void start(struct world *w, struct node *n)
{
	if (n->core.role == CORE_PRIMARY) {
		check_stable(w, n);
		vm_new(w, n, true);
		n->nic.released = w->client.n;
		nic_pass(w, n, NIC_PASS);
	}
	node_event(w, n, (struct core_event){ .type = CORE_EV_STARTED });
	start_dial(w, n);
}

/* what belongs to a VM is forgotten when that VM has ended */
static void vm_happens(struct world *w, struct node *n, const struct ev *e)
{
	if ((unsigned int)e->arg != n->vm.id)
		return;
	if (e->type == EV_VM_DIED) {
		node_event(w, n, (struct core_event){ .type = CORE_EV_VM_DIED });
		return;
	}
	if (!n->vm.alive)
		return;
	switch (e->type) {
	case EV_OUTPUT:
		sim_after(w, some(w, 1, 2 * w->gap_us), EV_OUTPUT, n->index, n->vm.id);
		vm_output(w, n);
		break;
	case EV_SNAPSHOT: snapshot(w, n); break;
	case EV_HARVESTED: on_harvested(w, n, e->arg & HARVEST_FAILED); break;
	case EV_APPLIED: on_applied(w, n); break;
	case EV_FAILED_OVER: failed_over(w, n); break;
	case EV_LOADED: survive(w, n); break;
	default: /* EV_SVM_READY */
		if (n->fail_seed) {
			n->fail_seed = false;
			node_event(w, n, (struct core_event){ .type = CORE_EV_SEED_FAILED });
		} else {
			link_send(w, n, CONTROL, MSG_SEED_READY, 0, 0);
		}
	}
}

static void seed_local(struct world *w, struct node *n)
{
	if (n->fail_seed) {
		n->fail_seed = false;
		node_event(w, n, (struct core_event){ .type = CORE_EV_SEED_FAILED });
		return;
	}
	n->seed_local = true;
	seeded(w, n);
}

void node_happens(struct world *w, struct node *n, const struct ev *e)
{
	bool same_link = n->linked && n->link == e->arg;

	switch (e->type) {
	case EV_OPEN: start_open(w, n); break;
	case EV_SERVED: start_served(w, n); break;
	case EV_START: start(w, n); break;
	case EV_CHANNEL:
		if (n->link == e->arg / NCHANNELS)
			receive(w, n, e->arg % NCHANNELS);
		break;
	case EV_TICK: tick(w, n); break;
	case EV_DISK_SYNCED:
		if (same_link)
			node_event(w, n, (struct core_event){ .type = CORE_EV_DISK_SYNCED });
		break;
	case EV_SEED_LOCAL:
		if (same_link)
			seed_local(w, n);
		break;
	case EV_CLAIM: case EV_CLAIM_DONE: case EV_READ: case EV_READ_DONE: arbiter_happens(w, n, e); break;
	case EV_LINGER:
		if (same_link)
			peer_lost(w, n, CORE_LOSS_CLOSED);
		break;
	case EV_WAIT: nic_missing(w, n, e->arg); break;
	case EV_DIAL: start_dial(w, n); break;
	case EV_PEER_UP: peer_up(w, n, e->arg); break;
	default: vm_happens(w, n, e);
	}
}
