/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim_vm.c - the VM of a node, and what it writes to its disk
 */
#include "sim.h"

uint64_t disk_delay(struct world *w, const struct node *n)
{
	return some(w, 1, w->now < n->slow_disk_until ? 800000 : 3000);
}

/* runs: it boots, from what its disk has */
void vm_new(struct world *w, struct node *n, bool runs)
{
	n->vm.id++;
	n->vm.alive = true;
	n->vm.runs = runs;
	n->vm.half = n->vm.waits = false;
	n->vm.h.n = 0;
	if (runs)
		history_copy(&n->vm.h, &w->disk[n->index].h);
	w->boots += runs;
	n->agent_busy = false;
	sim_after(w, some(w, 1, w->gap_us), EV_OUTPUT, n->index, n->vm.id);
}

void vm_end(struct node *n)
{
	n->vm.alive = n->vm.runs = n->vm.waits = false;
}

void node_vm_dies(struct world *w, struct node *n)
{
	if (!n->vm.alive)
		return;
	vm_end(n);
	sim_after(w, some(w, 10, 3000), EV_VM_DIED, n->index, n->vm.id);
}

void node_disk_fails(struct world *w, struct node *n)
{
	if (n->core.role == CORE_PRIMARY && (!n->vm.alive || n->vm.waits))
		return;
	n->vm.waits = n->core.role == CORE_PRIMARY;
	node_event(w, n, (struct core_event){ .type = CORE_EV_DISK_FAILED });
}

/* the guest has flushed what it says: the primary's host has it on its disk; the secondary's in a cache */
static void write_through(struct world *w, struct node *n)
{
	struct history *d = &w->disk[n->index].h, *h = &n->vm.h;

	if (d->n == h->n - 1)
		d->v[d->n++] = h->v[h->n - 1];
	else
		sim_fail(w, "node %u: its disk has %u outputs, its VM %u", n->index, d->n, h->n);
}

/* What a guest says depends on what it was, and sometimes on what only this VM sees. */
void vm_output(struct world *w, struct node *n)
{
	struct history *h = &n->vm.h;
	uint64_t last = h->n ? h->v[h->n - 1] : 1, same = (last ^ h->n) * 0x9e3779b97f4a7c15ull;

	if (!n->vm.runs || h->n == SIM_OUTPUTS || w->silence)
		return;
	h->v[h->n++] = rnd_chance(&w->rnd, w->diverge) ? rnd_next(&w->rnd) : same;
	if (n->core.role == CORE_PRIMARY && !n->taking_over)
		write_through(w, n);
	if (n->core.role == CORE_PRIMARY)
		nic_vm_output(w, n);
	else if (n->linked)
		link_send(w, n, CONTROL, MSG_OUTPUT, n->nic.epoch, h->v[h->n - 1]);
}
