/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim.c - simulator of a pair: schedules from seeds; a wrong one is shrunk
 *
 * sim [--trace | --first] [SEED [COUNT]]: runs COUNT schedules from SEED on. Of the first wrong one faults are left
 * out as long as it still goes wrong; what is left is listed, and that run is traced. --trace: trace each schedule;
 * --first: only say which is the first wrong one.
 */
#include "sim.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_COUNT 10000
#define WATCH_US 100000
#define LIVENESS_US 90000000 /* a pair that does not get along by then never does */
#define TRACE_LINE 200

static struct world world;

uint64_t rnd_next(struct rnd *r)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15ull); /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t rnd_below(struct rnd *r, uint64_t n)
{
	return n ? rnd_next(r) % n : 0;
}

uint64_t rnd_in(struct rnd *r, uint64_t lo, uint64_t hi)
{
	return lo + rnd_below(r, hi - lo + 1);
}

bool rnd_chance(struct rnd *r, unsigned int percent)
{
	return rnd_below(r, 100) < percent;
}

/* --- reports --- */

static sigjmp_buf again;

void sim_fail(struct world *w, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	if (!w->quiet) {
		fprintf(stderr, "seed %llu, at %.6f s: ", (unsigned long long)w->seed, w->now / 1e6);
		va_start(ap, fmt);
		vfprintf(stderr, fmt, ap);
		va_end(ap);
		fprintf(stderr, "\n");
	}
	siglongjmp(again, 1);
}

/* an assertion in core.c */
static void on_abort(int signum)
{
	siglongjmp(again, 1);
}

void sim_trace(struct world *w, int node, const char *fmt, ...)
{
	va_list ap;

	if (!w->trace)
		return;
	fprintf(stderr, "%10.6f ", w->now / 1e6);
	fprintf(stderr, node < 0 ? "-       " : "node %d  ", node);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
}

/* --- what happens when: a binary heap --- */

static bool before(const struct ev *a, const struct ev *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void push(struct world *w, struct ev e)
{
	unsigned int i = w->nev++;

	if (i == SIM_EVENTS)
		sim_fail(w, "the simulator's heap is too small");
	while (i && before(&e, &w->heap[(i - 1) / 2])) {
		w->heap[i] = w->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	w->heap[i] = e;
}

static struct ev pop(struct world *w)
{
	struct ev first = w->heap[0], last = w->heap[--w->nev];
	unsigned int i = 0, c;

	while ((c = 2 * i + 1) < w->nev) {
		if (c + 1 < w->nev && before(&w->heap[c + 1], &w->heap[c]))
			c++;
		if (before(&last, &w->heap[c]))
			break;
		w->heap[i] = w->heap[c];
		i = c;
	}
	w->heap[i] = last;
	return first;
}

void sim_after_life(struct world *w, uint64_t delay, enum ev_type type, unsigned int node, unsigned int life,
		    uint64_t arg)
{
	push(w, (struct ev){ w->now + delay, w->seq++, type, node, life, arg });
}

void sim_after(struct world *w, uint64_t delay, enum ev_type type, unsigned int node, uint64_t arg)
{
	sim_after_life(w, delay, type, node, w->node[node].life, arg);
}

void history_copy(struct history *to, const struct history *from)
{
	to->n = from->n;
	memcpy(to->v, from->v, from->n * sizeof(*from->v));
}


/* --- a schedule --- */

/* Without an arbiter somebody has to look at both hosts. */
static void operator_looks(struct world *w)
{
	unsigned int i;

	for (i = 0; i < 2 && w->arbiter_none; i++) {
		struct node *n = &w->node[i], *o = &w->node[!i];

		if (n->alive && n->core.role == CORE_SECONDARY && n->core.state == CORE_CLAIMING && n->core.claiming &&
		    w->overtaken[i] != n->vm.id && !n->link && (!o->alive || o->undecided))
			arbiter_force(w, n);
	}
}

static void watch(struct world *w)
{
	bool frozen = w->node[0].stalled_until > w->now || w->node[1].stalled_until > w->now;

	operator_looks(w);
	if (frozen || !check_pair_protected(w)) {
		w->good_since = 0;
		w->silence = false;
	} else if (!w->good_since) {
		w->good_since = w->now;
	} else if (!w->silence && w->now - w->good_since > 200000) {
		w->silence = true;
		w->good_since = w->now;
	} else if (w->silence && w->now - w->good_since > 3 * w->periodic_us + 2 * w->wait_us + 300000) {
		w->done = true;
	}
	if (w->now > w->faults_end + LIVENESS_US)
		w->done = true;
	sim_after(w, WATCH_US, EV_WATCH, 0, 0);
}

static void of_the_world(struct world *w, const struct ev *e)
{
	switch (e->type) {
	case EV_FAULT: fault_due(w, e->arg); break;
	case EV_HEAL:
		fault_heal(w);
		watch(w);
		break;
	case EV_BOOT:
		if (e->arg)
			w->power[e->node] = true;
		fault_boot(w, e->node);
		break;
	case EV_WATCH: watch(w); break;
	default: arbiter_hears(w, e);
	}
}

static void step(struct world *w)
{
	struct ev e = pop(w);
	struct node *n = &w->node[e.node];

	w->now = e.at;
	w->steps++;
	fault_step(w);
	if (e.type >= EV_FAULT) {
		of_the_world(w, &e);
	} else if (n->alive && e.life == n->life) {
		if (n->stalled_until > w->now) {
			n->tick_at = e.type == EV_TICK ? n->stalled_until : n->tick_at;
			e.at = n->stalled_until;
			push(w, e);
			return;
		}
		node_happens(w, n, &e);
	}
	check_step(w);
}

static void choose(struct world *w, struct rnd *r)
{
	w->arbiter_none = rnd_chance(r, 15);
	w->checkpoint_mode = rnd_chance(r, 25);
	w->heartbeat_us = rnd_in(r, 20000, 100000);
	w->misses = rnd_in(r, 3, 6);
	w->periodic_us = w->checkpoint_mode ? rnd_in(r, 30000, 100000) : rnd_in(r, 100000, 1000000);
	w->delay_us = rnd_in(r, 50, 5000);
	w->jitter_us = rnd_below(r, 5000);
	w->wait_us = rnd_in(r, 1000, 300000);
	w->gap_us = rnd_in(r, 8000, 80000);
	w->diverge = rnd_below(r, 8);
	w->lag_us = rnd_chance(r, 50) ? rnd_in(r, 60000, 1000000) : 0;
	w->settle_us = rnd_below(r, 5000);
	w->supervisor_us = rnd_in(r, 60000, 500000);
	w->claim_again_us = rnd_in(r, 20000, 500000);
}

static void prepare(struct world *w, uint64_t seed)
{
	struct rnd r = { seed };
	unsigned int i;

	memset(w, 0, offsetof(struct world, link));
	memset(&w->link, 0, offsetof(struct link, q));
	w->seed = seed;
	w->rnd.s = ~seed;
	choose(w, &r);
	fault_plan(w, &r);
	w->expect = !w->arbiter_none;
	for (i = 0; i < 2; i++) {
		w->node[i].index = i;
		w->power[i] = true;
		w->disk[i].l = (struct lineage){ .current = 1000, .flags = LINEAGE_NEW | LINEAGE_CONSISTENT };
	}
}

/* false: a rule was broken, which is said unless quiet. drop: faults left out, a bit each */
static bool schedule(struct world *w, uint64_t seed, uint64_t drop, bool trace, bool quiet)
{
	unsigned int i;

	prepare(w, seed);
	w->trace = trace;
	w->quiet = quiet;
	if (sigsetjmp(again, 1))
		return false;
	for (i = 0; i < w->nfaults; i++)
		w->fault[i].dropped = drop >> i & 1;
	fault_begin(w);
	sim_after(w, w->faults_end, EV_HEAL, 0, 0);
	for (i = 0; i < 2; i++)
		node_start(w, i);
	while (!w->done)
		step(w);
	check_end(w);
	return true;
}

/* leaves out as many faults as possible, many at once first */
static uint64_t shrink(struct world *w, uint64_t seed)
{
	unsigned int size, i, n = w->nfaults;
	uint64_t drop = 0, chunk;
	bool less;

	for (size = n; size; size /= 2)
		do {
			less = false;
			for (i = 0; i < n; i += size) {
				chunk = (size < 64 ? (1ull << size) - 1 : ~0ull) << i;
				if ((drop | chunk) == drop || schedule(w, seed, drop | chunk, false, true))
					continue;
				drop |= chunk;
				less = true;
			}
		} while (less);
	return drop;
}

static int report(struct world *w, uint64_t seed)
{
	uint64_t drop = shrink(w, seed);

	prepare(w, seed);
	fprintf(stderr, "sim %llu 1 with as few faults as possible:\n", (unsigned long long)seed);
	schedule(w, seed, drop, true, false);
	fprintf(stderr, "the faults:\n");
	fault_print(w);
	fprintf(stderr, "%s, heartbeat %llu us x %u, periodic %llu us%s\n", w->arbiter_none ? "arbiter none" : "arbiter",
		(unsigned long long)w->heartbeat_us, w->misses, (unsigned long long)w->periodic_us,
		w->checkpoint_mode ? ", mode checkpoint" : "");
	return 1;
}

static struct { uint64_t faults, takeovers, checkpoints, lost, unknown, outputs, boots, pairs, switchovers, undecided; } sum;

static void add(const struct world *w)
{
	sum.faults += w->faults;
	sum.takeovers += w->takeovers;
	sum.checkpoints += w->checkpoints;
	sum.lost += w->claims_lost;
	sum.unknown += w->claims_unknown;
	sum.outputs += w->client.n;
	sum.boots += w->boots;
	sum.pairs += w->protections;
	sum.switchovers += w->switchovers;
	sum.undecided += w->undecided;
}

static unsigned long long number(uint64_t n)
{
	return n;
}

int main(int argc, char **argv)
{
	bool trace = argc > 1 && !strcmp(argv[1], "--trace"), only = argc > 1 && !strcmp(argv[1], "--first");
	uint64_t first, count, i;

	argv += trace || only;
	argc -= trace || only;
	first = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000000;
	count = argc > 2 ? strtoull(argv[2], NULL, 0) : DEFAULT_COUNT;
	printf("sim: %llu schedules from seed %llu\n", number(count), number(first));
	signal(SIGABRT, on_abort);
	for (i = 0; i < count; i++) {
		if (!schedule(&world, first + i, 0, trace, false))
			return only ? 1 : report(&world, first + i);
		add(&world);
	}
	printf("sim: %llu faults, %llu checkpoints, %llu takeovers, %llu switchovers asked for, %llu claims lost, %llu not "
	       "answered, %llu starts undecided, %llu boots, %llu times protected, %llu outputs: no rule broken\n",
	       number(sum.faults), number(sum.checkpoints), number(sum.takeovers), number(sum.switchovers),
	       number(sum.lost), number(sum.unknown), number(sum.undecided), number(sum.boots), number(sum.pairs),
	       number(sum.outputs));
	return 0;
}
