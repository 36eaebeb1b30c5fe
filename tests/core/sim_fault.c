/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim_fault.c - what goes wrong in a schedule
 *
 * The list is drawn before the schedule begins, and has all that a fault needs, so that leaving one out changes no
 * other. Some come at a time, some at a step, which hits more often between two things that follow each other.
 */
#include "sim.h"

#include <stdio.h>

#define FLAP_SHIFT 8

enum what {
	F_BREAK, F_FLAP, F_SILENCE, F_ONE_WAY, F_SLOW_LINK, F_NONSENSE, F_VM, F_WEDGED, F_DAEMON, F_HOST, F_BOTH_HOSTS,
	F_STALL, F_CLOCK, F_HARVEST, F_APPLY, F_SEED, F_DISK, F_SLOW_DISK, F_ARBITER, F_ARBITER_BOTH, F_ANSWER_LOST,
	F_ARBITER_SLOW, F_FAILOVER, F_SWITCHOVER, F_PAUSE, F_RESUME, F_STOP, F_GUEST_OFF, F_MANUAL, NFAULTS
};
static const char *const names[] = {
	"link closed", "link flaps", "link silent", "link silent one way", "link slow", "nonsense", "VM dies", "VM wedged",
	"daemon dies", "host loses power", "both hosts lose power", "frozen", "clock leaps", "next harvest fails",
	"next apply fails", "next seed fails", "disk fails", "disk slow", "arbiter out of reach",
	"arbiter out of reach of both", "arbiter's answers lost", "arbiter slow", "operator: failover",
	"operator: switchover", "operator: pause", "operator: resume", "operator: stop", "guest powers off",
	"operator: checkpoint",
};
_Static_assert(sizeof(names) / sizeof(*names) == NFAULTS, "fault names");

void fault_plan(struct world *w, struct rnd *r)
{
	bool mean = rnd_chance(r, 50);
	unsigned int i;

	w->nfaults = rnd_chance(r, 10) ? 0 : rnd_below(r, rnd_chance(r, 20) ? SIM_FAULTS : 6);
	w->faults_end = rnd_in(r, 500000, 1000000 + 600000 * (uint64_t)w->nfaults);
	for (i = 0; i < w->nfaults; i++) {
		struct fault *f = &w->fault[i];

		f->what = rnd_below(r, NFAULTS);
		/* the ends of all things are not as interesting as they are frequent */
		if ((f->what == F_STOP || f->what == F_GUEST_OFF) && rnd_chance(r, 60))
			f->what = F_HOST;
		f->node = rnd_below(r, 2);
		f->by_step = mean;
		f->when = mean ? rnd_below(r, rnd_chance(r, 50) ? 60 : 400) : rnd_below(r, w->faults_end);
		f->length = rnd_below(r, rnd_chance(r, 30) ? 4 * w->heartbeat_us : rnd_chance(r, 80) ? 1500000 : 10000000);
		f->salt = rnd_next(r);
	}
}

void fault_print(const struct world *w)
{
	unsigned int i;

	for (i = 0; i < w->nfaults; i++) {
		const struct fault *f = &w->fault[i];

		if (!f->dropped)
			fprintf(stderr, "  %s %llu%s: %s, node %u, for %.3f s\n", f->by_step ? "step +" : "at",
				(unsigned long long)f->when, f->by_step ? "" : " us", names[f->what], f->node,
				f->length / 1e6);
	}
}

void fault_begin(struct world *w)
{
	unsigned int i;

	for (i = 0; i < w->nfaults; i++)
		if (!w->fault[i].by_step && !w->fault[i].dropped)
			sim_after(w, w->fault[i].when, EV_FAULT, 0, i);
}

void fault_step(struct world *w)
{
	struct fault *f = &w->fault[w->next_fault];

	if (w->healed || w->next_fault == w->nfaults || !f->by_step || w->steps - w->last_fault_step < f->when)
		return;
	w->next_fault++;
	w->last_fault_step = w->steps;
	if (!f->dropped)
		fault_inject(w, f);
}

/* Is the pair in a state in which any one fault must be survived? */
static bool calm(const struct world *w)
{
	unsigned int i;

	if (!check_pair_protected(w) || w->now < w->calm_from || w->now < w->slow_until)
		return false;
	for (i = 0; i < 2; i++) {
		const struct node *n = &w->node[i];

		if (n->stalled_until > w->now || n->fail_harvest || n->fail_apply || n->fail_seed ||
		    n->slow_disk_until > w->now || w->blocked[i] > w->now || w->arbiter_out[i] > w->now ||
		    w->answer_lost[i] > w->now || w->arbiter_slow[i] > w->now || n->core.paused || n->core.claiming ||
		    n->core.ahead)
			return false;
	}
	return true;
}

static void power_loss(struct world *w, struct node *n, uint64_t length)
{
	link_vanish(w, n); /* no FIN: the other end hears nothing */
	node_end(w, n);
	w->power[n->index] = false;
	/* it may be back before its peer has noticed */
	sim_after(w, length + 1000, EV_BOOT, n->index, 1);
}

static void tell(struct world *w, struct node *n, enum core_event_type type)
{
	node_event(w, n, (struct core_event){ .type = type, .cause = CORE_CAUSE_MANUAL });
}

/* as control.c lets it through */
static void operator(struct world *w, struct node *n, enum what f)
{
	bool ends_vm = (f == F_STOP || f == F_GUEST_OFF) && n->core.role == CORE_PRIMARY;

	w->expect = w->expect && !ends_vm;
	switch (f) {
	case F_FAILOVER: tell(w, n, CORE_EV_FAILOVER); break;
	case F_SWITCHOVER: w->switchovers++; tell(w, n, CORE_EV_SWITCHOVER); break;
	case F_PAUSE: tell(w, n, CORE_EV_PAUSE); break;
	case F_RESUME: tell(w, n, CORE_EV_RESUME); break;
	case F_STOP: tell(w, n, CORE_EV_STOP); break;
	case F_GUEST_OFF:
		if (ends_vm && n->vm.alive)
			tell(w, n, CORE_EV_GUEST_OFF);
		break;
	default: tell(w, n, CORE_EV_WANT_CHECKPOINT);
	}
}

static void of_arbiter(struct world *w, const struct fault *f)
{
	uint64_t until = w->now + f->length;

	switch (f->what) {
	case F_ARBITER_BOTH: w->arbiter_out[0] = w->arbiter_out[1] = until; break;
	case F_ANSWER_LOST: w->answer_lost[f->node] = until; break;
	case F_ARBITER_SLOW:
		w->arbiter_slow[f->node] = until;
		w->arbiter_slow_us = f->salt % 2 ? 10000000 : 500000;
		break;
	default: w->arbiter_out[f->node] = until;
	}
}

static void of_link(struct world *w, struct node *n, const struct fault *f)
{
	unsigned int i;

	switch (f->what) {
	case F_FLAP: sim_after(w, f->length / 8, EV_FAULT, 0, (f - w->fault) | (1 + f->salt % 6) << FLAP_SHIFT); /* fall through */
	case F_BREAK: link_break(w); break;
	case F_SLOW_LINK:
		w->slow_until = w->now + f->length;
		w->slow_us = f->salt % (20 * w->heartbeat_us);
		break;
	default:
		for (i = 0; i < 2; i++)
			if (f->what == F_SILENCE || i == n->index)
				link_block(w, i, w->now + f->length);
	}
}

static void of_node(struct world *w, struct node *n, const struct fault *f)
{
	switch (f->what) {
	case F_NONSENSE: node_hears_nonsense(w, n); break;
	case F_VM: node_vm_dies(w, n); break;
	case F_WEDGED: tell(w, n, CORE_EV_VM_WEDGED); break;
	case F_DAEMON:
		node_end(w, n);
		sim_after(w, some(w, 50000, w->supervisor_us), EV_BOOT, n->index, 0);
		break;
	case F_BOTH_HOSTS: power_loss(w, node_other(w, n), f->salt % (f->length + 1)); /* fall through */
	case F_HOST: power_loss(w, n, f->length); break;
	case F_STALL:
		if (n->stalled_until < w->now + f->length)
			n->stalled_until = w->now + f->length;
		break;
	case F_CLOCK: w->clock_us[n->index] += f->length; break;
	case F_HARVEST: n->fail_harvest = true; break;
	case F_APPLY: n->fail_apply = true; break;
	case F_SEED: n->fail_seed = true; break;
	case F_DISK: node_disk_fails(w, n); break;
	case F_SLOW_DISK: n->slow_disk_until = w->now + f->length; break;
	default: operator(w, n, f->what);
	}
}

void fault_inject(struct world *w, struct fault *f)
{
	struct node *n = &w->node[f->node];
	bool was_calm = calm(w);

	if (w->healed)
		return;
	sim_trace(w, n->index, "*** %s", names[f->what]);
	w->faults++;
	if (f->what >= F_ARBITER && f->what <= F_ARBITER_SLOW) {
		w->expect = w->expect && was_calm; /* a claim may be under way */
		of_arbiter(w, f);
		return;
	}
	if (f->what <= F_SLOW_LINK) {
		w->expect = w->expect && was_calm;
		w->calm_from = w->now + 2000000;
		of_link(w, n, f);
	} else if (n->alive) {
		w->expect = w->expect && (was_calm || f->what == F_MANUAL) && f->what != F_BOTH_HOSTS;
		w->calm_from = w->now + 2000000;
		of_node(w, n, f);
	}
}

/* a flapping link closes again and again */
static void flap(struct world *w, uint64_t arg)
{
	const struct fault *f = &w->fault[arg & ((1 << FLAP_SHIFT) - 1)];

	link_break(w);
	if (arg >> FLAP_SHIFT > 1 && !w->healed)
		sim_after(w, f->length / 8, EV_FAULT, 0, arg - (1 << FLAP_SHIFT));
}

void fault_due(struct world *w, uint64_t arg)
{
	if (arg >> FLAP_SHIFT)
		flap(w, arg);
	else
		fault_inject(w, &w->fault[arg]);
}

void fault_boot(struct world *w, unsigned int i)
{
	if (w->power[i] && !w->node[i].alive)
		node_start(w, i);
}

void fault_heal(struct world *w)
{
	unsigned int i;

	sim_trace(w, -1, "*** all is healed");
	w->healed = true;
	w->slow_until = 0;
	link_heal(w);
	for (i = 0; i < 2; i++) {
		struct node *n = &w->node[i];

		n->fail_harvest = n->fail_apply = n->fail_seed = false;
		w->arbiter_out[i] = w->answer_lost[i] = w->arbiter_slow[i] = n->slow_disk_until = 0;
		if (n->core.paused)
			tell(w, n, CORE_EV_RESUME); /* hosts without power get it when their time has come */
	}
}
