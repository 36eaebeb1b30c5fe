/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim.c - simulator of a pair: schedules from seeds, faults
 *
 * sim [SEED [COUNT]]: runs COUNT schedules from SEED on. The first wrong one is run again with a trace,
 * and its seed is named; `sim SEED 1` repeats it.
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

#define DEFAULT_COUNT 20000
#define SETTLE_US 4500000

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

static jmp_buf again;

void sim_fail(struct world *w, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "seed %llu, at %.6f s: ", (unsigned long long)w->seed, w->now / 1e6);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	if (w->trace)
		_exit(1);
	longjmp(again, 1);
}

/* an assertion in core.c */
static void on_abort(int signum)
{
	if (world.trace)
		_exit(1);
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

void sim_after(struct world *w, uint64_t delay, enum ev_type type, unsigned int node, uint64_t arg)
{
	push(w, (struct ev){ w->now + delay, w->seq++, type, node, w->node[node].life, arg });
}

/* --- faults --- */

enum fault {
	F_BREAK, F_SILENCE, F_ONE_WAY, F_NONSENSE, F_VM, F_DAEMON, F_HOST, F_STALL, F_HARVEST, F_APPLY, F_SEED, F_ARBITER,
	F_FAILOVER, F_SWITCHOVER, F_PAUSE, F_RESUME, F_WEDGED, F_STOP, F_GUEST_OFF, F_MANUAL, F_DISK, NFAULTS
};
static const char *const fault_names[] = {
	"link closed", "link silent", "link silent one way", "nonsense", "VM dies", "daemon dies", "host dies",
	"daemon stalls", "next harvest fails", "next apply fails", "next seed fails", "arbiter silent",
	"operator: failover", "operator: switchover", "operator: pause", "operator: resume", "VM wedged", "operator: stop", "guest powers off", "operator: checkpoint", "disk fails",
};
_Static_assert(sizeof(fault_names) / sizeof(*fault_names) == NFAULTS, "fault names");

/* Is the pair in a state in which any one fault must be survived? */
static bool calm(const struct world *w)
{
	unsigned int i;

	if (!check_pair_protected(w) || w->cut || w->now < w->calm_from)
		return false;
	for (i = 0; i < 2; i++) {
		const struct node *n = &w->node[i];

		if (n->stalled_until > w->now || n->fail_harvest || n->fail_apply || n->fail_seed ||
		    w->arbiter_out[i] > w->now)
			return false;
	}
	return true;
}

static void silence(struct world *w, unsigned int ways)
{
	uint64_t until = w->now + rnd_below(&w->rnd, rnd_chance(&w->rnd, 30) ? 4 * w->heartbeat_us : 3000000);
	unsigned int i;

	w->cut = true;
	sim_after(w, until - w->now, EV_HEAL, 0, 0);
	for (i = 0; i < 2; i++)
		if (ways & (1u << i))
			link_block(w, i, until);
}

static void host_dies(struct world *w, struct node *n)
{
	link_vanish(w, n); /* no FIN: the other end hears nothing */
	node_end(w, n);
}

static void tell(struct world *w, struct node *n, enum core_event_type type)
{
	node_event(w, n, (struct core_event){ .type = type, .cause = CORE_CAUSE_MANUAL });
}

static void operator(struct world *w, struct node *n, enum fault f, bool was_calm)
{
	bool primary = n->core.role == CORE_PRIMARY;

	if (f == F_STOP || (f == F_GUEST_OFF && primary && n->vm.alive)) {
		w->stopped = w->stopped || primary;
		w->off = primary && was_calm;
		tell(w, n, f == F_STOP ? CORE_EV_STOP : CORE_EV_GUEST_OFF);
	} else if (f == F_MANUAL) {
		tell(w, n, CORE_EV_WANT_CHECKPOINT);
	} else if (f == F_FAILOVER) {
		tell(w, n, CORE_EV_FAILOVER);
	} else if (f == F_SWITCHOVER) {
		tell(w, n, CORE_EV_SWITCHOVER);
	} else if (f == F_PAUSE) {
		tell(w, n, CORE_EV_PAUSE);
	} else if (f == F_RESUME) {
		tell(w, n, CORE_EV_RESUME);
	} else if (f == F_WEDGED) {
		tell(w, n, CORE_EV_VM_WEDGED);
	}
}

static void inject(struct world *w, enum fault f, struct node *n, bool was_calm)
{
	switch (f) {
	case F_BREAK: link_break(w); break;
	case F_SILENCE: silence(w, 3); break;
	case F_ONE_WAY: silence(w, 1u << n->index); break;
	case F_NONSENSE: node_hears_nonsense(w, n); break;
	case F_VM: node_vm_dies(w, n); break;
	case F_DAEMON: node_end(w, n); break;
	case F_HOST: host_dies(w, n); break;
	case F_STALL: n->stalled_until = w->now + rnd_below(&w->rnd, 1500000); break;
	case F_HARVEST: n->fail_harvest = true; break;
	case F_APPLY: n->fail_apply = true; break;
	case F_SEED: n->fail_seed = true; break;
	case F_DISK: node_disk_fails(w, n); break;
	case F_ARBITER: w->arbiter_out[n->index] = w->now + rnd_below(&w->rnd, 1500000); break;
	default: operator(w, n, f, was_calm);
	}
}

static void fault(struct world *w)
{
	enum fault f = rnd_below(&w->rnd, NFAULTS);
	struct node *n = &w->node[rnd_below(&w->rnd, 2)];
	bool was_calm = calm(w);

	/* the ends of all things are not as interesting as they are frequent */
	if ((f == F_STOP || f == F_GUEST_OFF) && rnd_chance(&w->rnd, 80))
		f = F_VM;
	if (!n->alive || n->core.state == CORE_STARTING)
		return;
	sim_trace(w, n->index, "*** %s", fault_names[f]);
	w->faults++;
	if (f != F_MANUAL && f != F_ARBITER) {
		w->expect = w->expect && was_calm;
		w->off = false;
		w->harsh = w->harsh || (f != F_STALL && f != F_FAILOVER && f != F_SWITCHOVER && f != F_PAUSE && f != F_RESUME);
		w->calm_from = w->now + 1500000;
	}
	inject(w, f, n, was_calm);
}

static void restart(struct world *w, unsigned int i)
{
	const struct node *o = &w->node[!i];

	if (!w->node[i].alive && o->alive && !w->stopped && o->core.state != CORE_CONNECTING)
		node_start(w, i, CORE_SECONDARY);
}

/* --- a schedule --- */

static void heal(struct world *w)
{
	unsigned int i;

	w->cut = false;
	if (w->now < w->faults_end)
		return;
	for (i = 0; i < 2; i++)
		tell(w, &w->node[i], CORE_EV_RESUME);
	for (i = 0; i < 2; i++) {
		w->node[i].fail_harvest = w->node[i].fail_apply = w->node[i].fail_seed = false;
		w->arbiter_out[i] = 0;
	}
}

static void of_the_world(struct world *w, const struct ev *e)
{
	switch (e->type) {
	case EV_FAULT: fault(w); break;
	case EV_HEAL: heal(w); break;
	case EV_QUIET: w->silence = true; break;
	default: /* EV_RESTART */
		restart(w, e->node);
		if (w->now < w->end - SETTLE_US / 2)
			sim_after(w, 200000 + rnd_below(&w->rnd, 500000), EV_RESTART, e->node, 0);
	}
}

static void step(struct world *w)
{
	struct ev e = pop(w);
	struct node *n = &w->node[e.node];

	w->now = e.at;
	if (w->budget && w->mean && w->now < w->faults_end && rnd_below(&w->rnd, 128) == 0) {
		w->budget--;
		fault(w);
	}
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

static void choose(struct world *w)
{
	struct rnd *r = &w->rnd;

	w->arbiter_none = rnd_chance(r, 15);
	w->checkpoint_mode = rnd_chance(r, 25);
	w->mean = rnd_chance(r, 50);
	w->heartbeat_us = rnd_in(r, 20000, 100000);
	w->misses = rnd_in(r, 3, 6);
	w->periodic_us = w->checkpoint_mode ? rnd_in(r, 30000, 100000) : rnd_in(r, 100000, 1000000);
	w->delay_us = rnd_in(r, 50, 5000);
	w->jitter_us = rnd_below(r, 5000);
	w->wait_us = rnd_in(r, 1000, 300000);
	w->gap_us = rnd_in(r, 5000, 60000);
	w->diverge = rnd_below(r, 8);
	w->budget = rnd_below(r, 6);
	w->faults_end = rnd_in(r, 500000, 4000000);
	w->end = w->faults_end + SETTLE_US + 3 * w->periodic_us;
	w->expect = true;
}

static void schedule(struct world *w, uint64_t seed, bool trace)
{
	unsigned int i;

	memset(w, 0, offsetof(struct world, link));
	w->link.id = 0;
	w->link.open[0] = w->link.open[1] = false;
	w->seed = w->rnd.s = seed;
	w->trace = trace;
	choose(w);
	for (i = 0; i < w->budget && !w->mean; i++)
		sim_after(w, rnd_below(&w->rnd, w->faults_end), EV_FAULT, 0, 0);
	sim_after(w, w->faults_end, EV_HEAL, 0, 0);
	sim_after(w, w->end - 3 * w->periodic_us - 500000, EV_QUIET, 0, 0);
	for (i = 0; i < 2; i++) {
		node_start(w, i, i ? CORE_SECONDARY : CORE_PRIMARY);
		sim_after(w, rnd_chance(&w->rnd, 50) ? 1 : w->faults_end, EV_RESTART, i, 0);
	}
	while (w->nev && w->heap[0].at < w->end)
		step(w);
	w->now = w->end;
	check_end(w);
}

int main(int argc, char **argv)
{
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000000, i;
	uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : DEFAULT_COUNT;
	static uint64_t faults, takeovers, checkpoints, lost, outputs;
	static volatile uint64_t at;

	printf("sim: %llu schedules from seed %llu\n", (unsigned long long)count, (unsigned long long)first);
	signal(SIGABRT, on_abort);
	if (setjmp(again)) {
		fprintf(stderr, "again, with a trace (sim %llu 1):\n", (unsigned long long)at);
		schedule(&world, at, true);
		return 1;
	}
	for (i = 0; i < count; i++) {
		at = first + i;
		schedule(&world, at, false);
		faults += world.faults;
		takeovers += world.takeovers;
		checkpoints += world.checkpoints;
		lost += world.claims_lost;
		outputs += world.client.n;
	}
	printf("sim: %llu faults, %llu checkpoints, %llu takeovers, %llu claims lost, %llu outputs: "
	       "no rule broken\n", (unsigned long long)faults, (unsigned long long)checkpoints,
	       (unsigned long long)takeovers, (unsigned long long)lost, (unsigned long long)outputs);
	return 0;
}
