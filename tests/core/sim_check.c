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

/* Can this secondary still be told to take over? */
static bool may_take_over(const struct world *w, const struct node *n)
{
	const struct node *o = &w->node[!n->index];
	enum core_state s = n->core.state;
	uint64_t g = s == CORE_CLAIMING ? n->core.claiming : n->core.generation + (s == CORE_PROTECTED);

	if (!n->alive || !n->vm.alive || n->core.role != CORE_SECONDARY ||
	    (s != CORE_PROTECTED && s != CORE_CLAIMING && s != CORE_TAKEOVER))
		return false;
	if (w->arbiter_none && w->overtaken[n->index] == n->vm.id)
		return false; /* the generations of `none` begin anew with each daemon, so they do not tell */
	if (w->arbiter_none && s == CORE_CLAIMING && !n->peer_gone) /* the operator looks at the other one first */
		return !o->vm.alive;
	return w->record.generation < g || (w->record.generation == g && w->record.owner == n->index);
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

	if ((may_take_over(w, n) || n->taking_over) && n->vm.alive && !continues(w, h))
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

/* R4: whoever serves alone has the newest claim; so one with an older generation never serves */
static void check_generation(struct world *w, const struct node *n)
{
	const struct core *c = &n->core;

	if (!check_node_serves(n) || (w->record.generation == c->generation && w->record.owner == n->index))
		return;
	sim_fail(w, "R4: node %u, %s, serves in generation %llu, but node %u has %llu", n->index,
		 core_state_name(c->state), (unsigned long long)c->generation, w->record.owner,
		 (unsigned long long)w->record.generation);
}

void check_step(struct world *w)
{
	unsigned int i;

	if (check_node_serves(&w->node[0]) && check_node_serves(&w->node[1]))
		sim_fail(w, "R4: two nodes serve");
	for (i = 0; i < 2; i++) {
		check_core(w, &w->node[i]);
		check_waiting(w, &w->node[i]);
		check_output(w, &w->node[i]);
		check_generation(w, &w->node[i]);
	}
}

void check_serves(struct world *w, const struct node *n)
{
	w->overtaken[!n->index] = w->node[!n->index].vm.id;
	if (w->record.generation != n->core.generation || w->record.owner != n->index)
		sim_fail(w, "R4: node %u serves in generation %llu, which it has not won", n->index,
			 (unsigned long long)n->core.generation);
}

void check_takeover(struct world *w, const struct node *n)
{
	check_serves(w, n);
	if (n->vm.half)
		sim_fail(w, "R3: node %u takes over in the middle of an apply", n->index);
	if (!continues(w, &n->vm.h))
		sim_fail(w, "R1: node %u takes over, but the client has had more or other", n->index);
}

/* R5, and that no stale disk is served: a client had nothing that this disk does not have */
void check_stable(struct world *w, const struct node *n)
{
	const struct disk *d = &w->disk[n->index];

	if (!(d->l.flags & LINEAGE_CONSISTENT) || !continues(w, &d->h))
		sim_fail(w, "R5: node %u serves from a disk with %u outputs, the client has had %u, or others", n->index,
			 d->h.n, w->client.n);
}

void check_disk_error(struct world *w, const struct node *n)
{
	if (may_take_over(w, &w->node[!n->index]))
		sim_fail(w, "node %u, %s: its VM gets an I/O error, and the other node could serve instead", n->index,
			 core_state_name(n->core.state));
	if (!n->vm.waits)
		sim_fail(w, "node %u: an I/O error for nothing", n->index);
}

/* --- the end: all faults are healed, both hosts are up, and there has been time --- */

static void check_progress(struct world *w, const struct node *n)
{
	if (n->core.role != CORE_PRIMARY)
		return;
	if (n->nic.released != n->vm.h.n)
		sim_fail(w, "node %u, %s, holds outputs from %u to %u for ever", n->index,
			 core_state_name(n->core.state), n->nic.released, n->vm.h.n);
	if (node_now(w, n) - n->core.last_checkpoint_us > 3 * w->periodic_us + 200000)
		sim_fail(w, "node %u takes no checkpoints any more", n->index);
}

void check_end(struct world *w)
{
	unsigned int i;

	if (!check_pair_protected(w))
		sim_fail(w, "all is healed, but nobody protects the VM: node 0 is %s, node 1 %s",
			 w->node[0].alive ? core_state_name(w->node[0].core.state) : "not there",
			 w->node[1].alive ? core_state_name(w->node[1].core.state) : "not there");
	for (i = 0; i < 2; i++)
		check_progress(w, &w->node[i]);
	for (i = 0; i < 2; i++)
		if (w->node[i].core.role == CORE_PRIMARY && w->record.owner != i)
			sim_fail(w, "node %u is primary, but the last claim is the other one's", i);
	if (w->expect && w->boots > 1)
		sim_fail(w, "the VM was booted again, though no fault hit a pair that was not protected");
	if (!w->client.n)
		sim_fail(w, "the client has nothing");
}
