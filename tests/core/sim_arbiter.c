/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim_arbiter.c - the arbiter, and the driver that asks it
 *
 * A request travels, is carried out, and its answer travels back. Each may be lost or very late, also later than
 * the end of the daemon that asked. The driver asks again and again until it knows.
 */
#include "sim.h"

#include <errno.h>

#define READS (1ull << 63)
#define LOST (1ull << 62)
#define MASK (LOST - 1)

static uint64_t trip(struct world *w, unsigned int i)
{
	uint64_t slow = w->now < w->arbiter_slow[i] ? rnd_below(&w->rnd, w->arbiter_slow_us) : 0;

	return some(w, 1, 10000) + slow;
}

static void send(struct world *w, struct node *n, uint64_t arg)
{
	if (w->now >= w->arbiter_out[n->index])
		sim_after(w, trip(w, n->index), EV_AT_ARBITER, n->index, arg);
}

/* compare-and-swap, as arbiter/ does it */
static bool wins(struct world *w, unsigned int i, uint64_t g)
{
	if (w->record.generation < g) {
		w->record.generation = g;
		w->record.owner = i;
	}
	return w->record.generation == g && w->record.owner == i;
}

void arbiter_hears(struct world *w, const struct ev *e)
{
	unsigned int i = e->node;
	uint64_t g = e->arg & MASK, answer;

	if (e->arg & READS)
		answer = w->record.generation | (w->record.owner ? LOST : 0);
	else
		answer = g | (wins(w, i, g) ? 0 : LOST);
	if (w->now >= w->arbiter_out[i] && w->now >= w->answer_lost[i])
		sim_after_life(w, trip(w, i), e->arg & READS ? EV_READ_DONE : EV_CLAIM_DONE, i, e->life, answer);
}

/* --- the driver --- */

static void answer(struct world *w, struct node *n, uint64_t g, int status)
{
	sim_trace(w, n->index, "claim of generation %llu: %s", (unsigned long long)g,
		  status < 0 ? "unknown" : status ? "lost" : "won");
	node_event(w, n, (struct core_event){ .type = CORE_EV_CLAIM, .epoch = g, .status = status });
}

/* none: a primary takes it for won, and so does who was told that the other one does not serve */
static void claim_of_none(struct world *w, struct node *n, uint64_t g)
{
	if (n->core.role != CORE_PRIMARY && !n->peer_gone)
		return;
	w->record.generation = g;
	w->record.owner = n->index;
	answer(w, n, g, 0);
}

void arbiter_force(struct world *w, struct node *n)
{
	uint64_t g = n->core.claiming;

	sim_trace(w, n->index, "the operator says that the other one is off");
	w->record.generation = g;
	w->record.owner = n->index;
	answer(w, n, g, 0);
}

void arbiter_claim(struct world *w, struct node *n, uint64_t generation)
{
	sim_after(w, w->arbiter_none ? some(w, 0, 1000) : 0, EV_CLAIM, n->index, generation);
}

void arbiter_read(struct world *w, struct node *n)
{
	sim_after(w, 0, EV_READ, n->index, 0);
}

static void claim(struct world *w, struct node *n, uint64_t g)
{
	if (n->core.claiming != g)
		return;
	if (w->arbiter_none) {
		claim_of_none(w, n, g);
		return;
	}
	send(w, n, g);
	sim_after(w, w->claim_again_us, EV_CLAIM, n->index, g);
	if (w->now < w->arbiter_out[n->index]) {
		w->claims_unknown++;
		answer(w, n, g, -EAGAIN);
	}
}

static void read_again(struct world *w, struct node *n)
{
	if (n->core.role != CORE_UNDECIDED)
		return;
	send(w, n, READS);
	sim_after(w, w->claim_again_us, EV_READ, n->index, 1);
	if (n->owner == START_UNKNOWN && !n->undecided)
		start_decides(w, n); /* it may do without */
}

static void read_done(struct world *w, struct node *n, uint64_t arg)
{
	if (n->core.role != CORE_UNDECIDED)
		return;
	n->owner_generation = arg & MASK;
	n->owner = !n->owner_generation ? START_NOBODY : !(arg & LOST) == !n->index ? START_ME : START_PEER;
	start_decides(w, n);
}

void arbiter_happens(struct world *w, struct node *n, const struct ev *e)
{
	switch (e->type) {
	case EV_CLAIM: claim(w, n, e->arg); break;
	case EV_CLAIM_DONE:
		w->claims_lost += (e->arg & LOST) != 0;
		answer(w, n, e->arg & MASK, (e->arg & LOST) != 0);
		break;
	case EV_READ: read_again(w, n); break;
	default: read_done(w, n, e->arg);
	}
}
