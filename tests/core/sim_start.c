/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim_start.c - from the start of a daemon to its role, with the real start.c; who meets whom; the disks
 *
 * What happens to a disk and its lineage, and in which order, is disk_proto.h's: SERVE before the VM runs or is
 * heard, RECEIVE at LINK, SHARED before the secondary hears of the end of the sync, the boundary in the journal
 * before it counts as received, COMMIT before `applied`.
 */
#include "sim.h"

#include <stdio.h>

#define DIAL_US 50000

/* --- disks --- */

void disk_link(struct world *w, struct node *secondary)
{
	struct disk *s = &w->disk[secondary->index], *p = &w->disk[!secondary->index];

	s->source = p->l;
	s->has_boundary = false;
	lineage_receive(&s->l, &p->l);
}

void disk_commit(struct world *w, unsigned int i)
{
	struct disk *d = &w->disk[i];

	if (!d->has_boundary)
		return;
	history_copy(&d->h, &d->boundary);
	d->has_boundary = false;
	lineage_adopt(&d->l, &d->source);
}

void disk_go_alone(struct world *w, const struct node *n)
{
	lineage_go_alone(&w->disk[n->index].l, rnd_next(&w->rnd) | 1);
}

/* --- the role --- */

static void role(struct world *w, struct node *n, enum core_role r)
{
	n->undecided = false;
	node_event(w, n, (struct core_event){ .type = CORE_EV_DECIDED, .role = r, .epoch = n->owner_generation });
}

/* OPEN: the last boundary received is what the disk has */
void start_open(struct world *w, struct node *n)
{
	disk_commit(w, n->index);
	n->started_at = w->now;
	n->owner = w->arbiter_none ? START_NOBODY : START_UNKNOWN;
	if (w->arbiter_none)
		start_decides(w, n);
	else
		arbiter_read(w, n);
}

void start_decides(struct world *w, struct node *n)
{
	const struct start_node s = { .configured_primary = n->index == 0, .peer = "the other one", .owner = n->owner,
				      .generation = n->owner_generation, .waited = w->now - n->started_at >=
				      start_patience_us(w->heartbeat_us, w->misses) };
	char text[512];

	switch (start_decide(&s, &w->disk[n->index].l, 1, text, sizeof(text))) {
	case START_PRIMARY: role(w, n, CORE_PRIMARY); break;
	case START_SECONDARY: role(w, n, CORE_SECONDARY); break;
	case START_UNDECIDED:
		if (n->undecided)
			break;
		n->undecided = true;
		w->undecided++;
		sim_trace(w, n->index, "undecided: %s", text);
		start_dial(w, n);
		break;
	default: sim_fail(w, "node %u refuses to start: %s", n->index, text);
	}
}

void start_granted(struct world *w, struct node *n)
{
	if (n->core.role == CORE_PRIMARY) {
		check_serves(w, n);
		sim_after(w, disk_delay(w, n), EV_SERVED, n->index, 0);
	} else {
		sim_after(w, some(w, 1, 1000), EV_START, n->index, 0);
	}
}

void start_served(struct world *w, struct node *n)
{
	disk_go_alone(w, n);
	sim_after(w, some(w, 100, 5000), EV_START, n->index, 0);
}

/* --- hosts meet --- */

static bool reachable(const struct world *w, const struct node *o)
{
	return o->alive && o->stalled_until <= w->now && w->now >= w->blocked[0] && w->now >= w->blocked[1];
}

static bool may_receive(const struct world *w, const struct node *from, const struct node *to)
{
	enum lineage_verdict v = lineage_judge(&w->disk[from->index].l, &w->disk[to->index].l);

	return v == LINEAGE_CHANGED || v == LINEAGE_ALL;
}

static void undecided_hears(struct world *w, struct node *n, const struct node *its)
{
	char text[512];

	if (n->owner == START_UNKNOWN)
		return; /* a claim that is not based on the record may be won already, by an earlier life of this node */
	if (start_hears(&w->disk[n->index].l, &w->disk[its->index].l, 1, its->undecided, "this node", "that one", text,
			sizeof(text)) == START_PRIMARY)
		role(w, n, CORE_PRIMARY);
	else
		sim_trace(w, n->index, "undecided still: %s", text);
}

static void join(struct world *w, struct node *n, struct node *o)
{
	if (!may_receive(w, o, n))
		sim_fail(w, "node %u is turned away by the one that serves", n->index);
	if (n->undecided) {
		role(w, n, CORE_SECONDARY);
		return; /* the next attempt links */
	}
	link_open(w);
	sim_after(w, some(w, 1, 1000), EV_PEER_UP, o->index, w->link.id);
	sim_after(w, some(w, 1, 3000), EV_PEER_UP, n->index, w->link.id);
}

static void met(struct world *w, struct node *n, struct node *o)
{
	bool serves = o->core.role == CORE_PRIMARY && o->core.state == CORE_ALONE && check_node_serves(o);

	if (n->core.state == CORE_CLAIMING && o->core.role == CORE_PRIMARY && o->core.state == CORE_ALONE)
		node_event(w, n, (struct core_event){ .type = CORE_EV_DISMISSED, .epoch = o->core.generation });
	else if (n->core.state == CORE_CLAIMING)
		return;
	else if (o->undecided)
		undecided_hears(w, o, n);
	else if (serves && !o->link && core_may_pair(&o->core, node_now(w, o)))
		join(w, n, o);
}

void start_dial(struct world *w, struct node *n)
{
	struct node *o = node_other(w, n);

	if (!n->undecided && n->core.state != CORE_CONNECTING &&
	    (n->core.state != CORE_CLAIMING || n->core.role != CORE_SECONDARY))
		return;
	sim_after(w, DIAL_US, EV_DIAL, n->index, 0);
	if (!n->link && reachable(w, o))
		met(w, n, o);
}
