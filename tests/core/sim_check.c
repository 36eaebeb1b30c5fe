/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim_check.c - what must hold after each step of the simulator, and at its end
 */
#include "sim.h"

bool check_node_serves(const struct node *n)
{
	return n->alive && n->vm.alive && n->vm.runs &&
	       (n->nic.mode == NIC_PASS || n->nic.mode == NIC_SURVIVOR);
}

bool check_pair_protected(const struct world *w)
{
	const struct node *a = &w->node[0], *b = &w->node[1];

	return a->alive && b->alive && a->vm.alive && b->vm.alive && a->linked && b->linked &&
	       a->core.state == CORE_PROTECTED && b->core.state == CORE_PROTECTED;
}

/* Can the arbiter still let this secondary take over? */
static bool may_take_over(const struct world *w, const struct node *n)
{
	enum core_state s = n->core.state;
	uint64_t g = s == CORE_CLAIMING ? n->core.claiming : n->core.generation + (s == CORE_PROTECTED);

	if (!n->alive || !n->vm.alive || n->core.role != CORE_SECONDARY ||
	    (s != CORE_PROTECTED && s != CORE_CLAIMING && s != CORE_TAKEOVER))
		return false;
	return w->record.generation < g ||
	       (w->record.generation == g && w->record.owner == n->index);
}

/* An output depends on those before it, so that equal ones have equal histories. */
static bool continues(const struct world *w, const struct history *h)
{
	const struct history *c = &w->client;

	return h->n >= c->n && (!c->n || h->v[c->n - 1] == c->v[c->n - 1]);
}

/* R1: whoever may take over can carry on from all that the client has got */
static void check_output(struct world *w, const struct node *n)
{
	const struct history *h = n->core.phase == CORE_APPLYING ? &w->snapshot[n->applying] : &n->vm.h;

	if (!w->split && may_take_over(w, n) && !continues(w, h))
		sim_fail(w, "R1: the client has %u outputs that node %u, which may take over, "
			 "cannot carry on from (it has %u)", w->client.n, n->index, h->n);
}

static void check_core(struct world *w, const struct node *n)
{
	const struct core *c = &n->core;
	bool idle = c->state != CORE_SEEDING && c->state != CORE_PROTECTED &&
		    (c->role == CORE_PRIMARY || (c->state != CORE_CLAIMING && c->state != CORE_TAKEOVER));

	if (!n->alive)
		return;
	if (idle && c->phase != CORE_IDLE)
		sim_fail(w, "node %u: a checkpoint under way in state %s", n->index,
			 core_state_name(c->state));
	if (c->role == CORE_SECONDARY && (c->phase == CORE_HARVESTING || c->phase == CORE_SENDING))
		sim_fail(w, "node %u: a secondary harvests", n->index);
	if (c->state == CORE_GIVEN_UP && n->vm.alive)
		sim_fail(w, "node %u has given up, and keeps its VM", n->index);
	if (c->state == CORE_PROTECTED && !c->peer_up)
		sim_fail(w, "node %u: protected by nobody", n->index);
	if (c->state == CORE_PROTECTED && c->phase == CORE_IDLE && n->nic.wanted && !c->wanted &&
	    n->nic.mode != NIC_OFF)
		sim_fail(w, "node %u: a checkpoint was wanted, and nobody takes it", n->index);
}

/* A request that failed is not forgotten: as soon as there is something to decide, it is decided. */
static void check_waiting(struct world *w, const struct node *n)
{
	enum core_state s = n->core.state;

	if (n->alive && n->vm.alive && n->vm.waits && !n->core.disk_failed)
		sim_fail(w, "node %u, %s: a request of the VM has failed, and nobody answers it", n->index,
			 core_state_name(s));
	if (n->alive && n->vm.waits && (s == CORE_PROTECTED || s == CORE_ALONE))
		sim_fail(w, "node %u, %s: a request of the VM waits without need", n->index, core_state_name(s));
}

void check_step(struct world *w)
{
	unsigned int i;

	if (check_node_serves(&w->node[0]) && check_node_serves(&w->node[1]) && !w->split)
		sim_fail(w, "R4: two nodes serve");
	for (i = 0; i < 2; i++) {
		check_core(w, &w->node[i]);
		check_waiting(w, &w->node[i]);
		check_output(w, &w->node[i]);
	}
}

void check_serves(struct world *w, const struct node *n)
{
	if (w->record.generation != n->core.generation || w->record.owner != n->index)
		sim_fail(w, "R4: node %u serves in generation %llu, which it has not won", n->index,
			 (unsigned long long)n->core.generation);
}

void check_takeover(struct world *w, const struct node *n)
{
	check_serves(w, n);
	if (n->vm.half)
		sim_fail(w, "R3: node %u takes over in the middle of an apply", n->index);
	if (!w->split && !continues(w, &n->vm.h))
		sim_fail(w, "R1: node %u takes over, but the client has had more or other", n->index);
}

void check_disk_error(struct world *w, const struct node *n)
{
	if (!w->split && may_take_over(w, &w->node[!n->index]))
		sim_fail(w, "node %u, %s: its VM gets an I/O error, and the other node could serve instead", n->index,
			 core_state_name(n->core.state));
	if (!n->vm.waits)
		sim_fail(w, "node %u: an I/O error for nothing", n->index);
}

/* --- the end: there has been time for all that had to happen --- */

static void check_settled(struct world *w, const struct node *n)
{
	const struct node *o = &w->node[!n->index];
	bool others_turn = n->core.state == CORE_CONNECTING && (!o->alive || w->split);

	if (w->arbiter_none && n->core.state == CORE_CLAIMING)
		return; /* the operator has to decide */
	others_turn = others_turn || (w->arbiter_none && n->core.state == CORE_CONNECTING);
	if (!n->alive || n->core.state == CORE_PROTECTED || others_turn)
		return;
	if (n->core.state == CORE_ALONE && (!o->alive || w->split))
		return;
	sim_fail(w, "node %u is left in state %s", n->index, core_state_name(n->core.state));
}

static void check_progress(struct world *w, const struct node *n)
{
	if (!n->alive || n->core.role != CORE_PRIMARY || !n->vm.alive)
		return;
	if (n->nic.released != n->vm.h.n)
		sim_fail(w, "node %u, %s, holds outputs from %u to %u for ever", n->index,
			 core_state_name(n->core.state), n->nic.released, n->vm.h.n);
	if (n->core.state == CORE_PROTECTED &&
	    w->now - n->core.last_checkpoint_us > 3 * w->periodic_us + 200000)
		sim_fail(w, "node %u takes no checkpoints any more", n->index);
}

void check_end(struct world *w)
{
	bool serves = check_node_serves(&w->node[0]) || check_node_serves(&w->node[1]);
	unsigned int i;

	for (i = 0; i < 2; i++) {
		check_settled(w, &w->node[i]);
		check_progress(w, &w->node[i]);
	}
	if (w->expect && !w->arbiter_none && !w->stopped && !serves && !check_pair_protected(w))
		sim_fail(w, "service is lost, though no fault hit a pair that was not protected");
	if (serves && !w->split && !w->stopped)
		sim_fail(w, "a node serves alone, though the other one was there again");
	if (!w->harsh && check_node_serves(&w->node[0]) && check_node_serves(&w->node[1]))
		sim_fail(w, "nothing but sleep and failover, and two nodes serve");
	if (w->off && (w->node[0].alive || w->node[1].alive))
		sim_fail(w, "the operator ended the VM, but a node goes on");
	if (!w->faults && (!check_pair_protected(w) || !w->client.n))
		sim_fail(w, "no fault, but the pair does not get along");
}
