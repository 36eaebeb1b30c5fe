/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim_nic.c - the release rule of net/ for one stream of outputs, and the client that gets them
 */
#include "sim.h"

static void want(struct world *w, struct node *n, enum core_cause cause)
{
	if (n->nic.wanted)
		return;
	n->nic.wanted = true; /* once for each boundary, as cm_ops.want_checkpoint */
	node_event(w, n, (struct core_event){ .type = CORE_EV_WANT_CHECKPOINT, .cause = cause });
}

/* The client has a stream without holes, and never gets two different answers. */
static void leave(struct world *w, struct node *n, unsigned int i)
{
	struct history *c = &w->client;

	if (i > c->n)
		sim_fail(w, "node %u: output %u leaves, but the client has only %u", n->index, i, c->n);
	if (i < c->n && c->v[i] != n->vm.h.v[i])
		sim_fail(w, "node %u: output %u leaves, but the client had another one", n->index, i);
	if (i == c->n)
		c->v[c->n++] = n->vm.h.v[i];
}

static void release_to(struct world *w, struct node *n, unsigned int end)
{
	while (n->nic.released < end)
		leave(w, n, n->nic.released++);
}

static void release(struct world *w, struct node *n)
{
	const struct history *mine = &n->vm.h, *svm = &n->nic.svm;
	struct nic *nic = &n->nic;

	if (nic->mode == NIC_OFF)
		return;
	if (nic->mode == NIC_PASS || nic->mode == NIC_SURVIVOR) {
		release_to(w, n, mine->n);
		return;
	}
	release_to(w, n, nic->held);
	while (nic->mode == NIC_COMPARE && nic->released >= nic->boundary && !nic->mismatch &&
	       nic->released < mine->n && nic->released < svm->n) {
		if (svm->v[nic->released] == mine->v[nic->released]) {
			release_to(w, n, nic->released + 1);
		} else {
			nic->mismatch = true;
			want(w, n, CORE_CAUSE_MISMATCH);
		}
	}
}

void nic_pass(struct world *w, struct node *n, enum nic_mode mode)
{
	n->nic.mode = mode;
	n->marker_due = false;
	release(w, n);
}

void nic_boundary(struct world *w, struct node *n, uint64_t epoch)
{
	struct nic *nic = &n->nic;

	nic->mode = w->checkpoint_mode ? NIC_HOLD : NIC_COMPARE;
	nic->epoch = epoch;
	nic->boundary = n->vm.h.n;
	history_copy(&nic->svm, &n->vm.h);
	nic->svm_runs = nic->wanted = nic->mismatch = false;
}

void nic_held(struct world *w, struct node *n, uint64_t epoch)
{
	if (epoch != n->nic.epoch)
		return;
	n->nic.held = n->nic.boundary;
	release(w, n);
}

void nic_svm_runs(struct world *w, struct node *n)
{
	n->nic.svm_runs = true;
	if (n->vm.h.n)
		sim_after(w, w->wait_us, EV_WAIT, n->index, n->vm.h.n - 1);
}

void nic_from_svm(struct world *w, struct node *n, uint64_t epoch, uint64_t value)
{
	struct history *svm = &n->nic.svm;

	if (n->nic.mode != NIC_COMPARE || epoch != n->nic.epoch || svm->n == SIM_OUTPUTS)
		return;
	svm->v[svm->n++] = value;
	release(w, n);
}

void nic_vm_output(struct world *w, struct node *n)
{
	sim_after(w, w->wait_us, EV_WAIT, n->index, n->vm.h.n - 1);
	release(w, n);
}

void nic_missing(struct world *w, struct node *n, uint64_t index)
{
	if (n->nic.mode == NIC_COMPARE && n->nic.svm_runs && n->nic.released <= index)
		want(w, n, CORE_CAUSE_MISSING);
}
