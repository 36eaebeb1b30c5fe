/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tr_pair.c - which SYN of the SVM is the same connection as which SYN of the PVM
 *
 * Both guests run the same programs, so they open their connections to one destination in the same order,
 * though not at the same moment nor from the same ports. SYNs that ask for the same (addresses, VLAN, the
 * peer's port, SYN options) are a group; its oldest unpaired SYN of one VM belongs to the oldest of the
 * other. Hence at any time only one of the VMs has unpaired SYNs in a group. A SYN whose port and ISN
 * the other VM has just as well is no new one: both repeat one of before the checkpoint; this goes before
 * the order.
 *
 * If the order differs after all, or a VM opens a connection which the other does not, SYNs are paired
 * wrongly. That does no harm beyond a checkpoint: the comparing module compares what is said on the two
 * connections, and misses an answer to the PVM's SYN that is left over. The SVM's left-over one is noticed
 * by nobody: it is given up after PAIR_US and not mistaken for a new one when it is repeated, unless the PVM has
 * an unpaired one by then: then that VM was only late.
 *
 * The SVM's SYN waits here as a copy, TR_WAITING at most: beyond that it is dropped, and the guest
 * repeats it. A SYN longer than TR_SYN_MAX (it carries data) is dropped too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tr_priv.h"

#define PAIR_US 2000000u

int tr_pair_init(struct tr *tr)
{
	tr->unpaired = calloc(tr->mask + 1u, sizeof(*tr->unpaired));
	tr->syns = calloc(TR_WAITING, sizeof(*tr->syns));
	if (!tr->unpaired || !tr->syns)
		return -ENOMEM;
	return 0;
}

void tr_pair_free(struct tr *tr)
{
	free(tr->unpaired);
	free(tr->syns);
}

static struct tr_list *group_bucket(const struct tr *tr, uint64_t hash, uint64_t opts)
{
	uint64_t h = (hash ^ opts) * 0xd6e8feb86659fd93u;

	return &tr->unpaired[(h ^ h >> 32) & tr->mask];
}

/* --- copies that wait --- */

static void free_syn(struct tr *tr, struct tr_entry *e)
{
	struct tr_syn *s = e->syn;

	if (!s)
		return;
	e->syn = NULL;
	*(s->prev ? &s->prev->next : &tr->first_syn) = s->next;
	*(s->next ? &s->next->prev : &tr->last_syn) = s->prev;
	s->next = tr->free_syn;
	tr->free_syn = s;
	tr->waiting--;
}

static struct tr_syn *get_syn(struct tr *tr)
{
	struct tr_syn *s = tr->free_syn;

	if (s)
		tr->free_syn = s->next;
	else if (tr->syns_used < TR_WAITING)
		s = &tr->syns[tr->syns_used++];
	return s;
}

static bool keep_syn(struct tr *tr, struct tr_entry *e, const struct frame *f)
{
	struct tr_syn *s = f->len <= TR_SYN_MAX ? get_syn(tr) : NULL;

	if (!s) {
		tr->full++;
		return false;
	}
	s->next = NULL;
	s->prev = tr->last_syn;
	*(tr->last_syn ? &tr->last_syn->next : &tr->first_syn) = s;
	tr->last_syn = s;
	s->e = e;
	s->len = f->len;
	memcpy(s->data, f->data, f->len);
	e->syn = s;
	tr->waiting++;
	return true;
}

uint32_t tr_take_syn(struct tr *tr, struct tr_entry *e)
{
	uint32_t len = e->syn ? e->syn->len : 0;

	if (len)
		memcpy(tr->scratch, e->syn->data, len);
	free_syn(tr, e);
	return len;
}

/* --- the queues --- */

static void leave_queue(struct tr *tr, struct tr_entry *e)
{
	struct tr_list *l = group_bucket(tr, e->hash, e->opts);

	if (!e->queued)
		return;
	*(e->qprev ? &e->qprev->qnext : &l->head) = e->qnext;
	*(e->qnext ? &e->qnext->qprev : &l->tail) = e->qprev;
	e->queued = false;
}

void tr_unqueue(struct tr *tr, struct tr_entry *e)
{
	leave_queue(tr, e);
	free_syn(tr, e);
}

/* It keeps its name, if it has one: what comes under this name must not be taken for something else. */
static void give_up(struct tr *tr, struct tr_entry *e)
{
	tr_unqueue(tr, e);
	if (!e->linked[TR_PVM] && !e->linked[TR_SVM])
		tr_del(tr, e);
}

static bool too_old(const struct tr *tr, const struct tr_entry *e)
{
	return tr->now - e->used > PAIR_US;
}

bool tr_queue(struct tr *tr, struct tr_entry *e, const struct frame *f)
{
	struct tr_list *l;

	while (tr->first_syn && too_old(tr, tr->first_syn->e))
		give_up(tr, tr->first_syn->e);
	if (e->known[TR_SVM] && !keep_syn(tr, e, f))
		return false;
	e->opts = frame_syn_options(f);
	l = group_bucket(tr, e->hash, e->opts);
	e->queued = true;
	e->qnext = NULL;
	e->qprev = l->tail;
	*(l->tail ? &l->tail->qnext : &l->head) = e;
	l->tail = e;
	return true;
}

static bool same_group(const struct tr_entry *e, const struct tr_key *key, uint64_t opts)
{
	return e->hash == key->hash && e->opts == opts && memcmp(&e->key, &key->k, sizeof(key->k)) == 0;
}

static struct tr_entry *oldest(struct tr *tr, const struct tr_key *key, enum tr_side side, uint64_t opts)
{
	struct tr_entry *e, *next;

	for (e = group_bucket(tr, key->hash, opts)->head; e; e = next) {
		next = e->qnext;
		if (!same_group(e, key, opts) || e->known[side])
			continue;
		if (!too_old(tr, e))
			return e;
		give_up(tr, e);
	}
	return NULL;
}

struct tr_entry *tr_partner(struct tr *tr, const struct tr_key *key, enum tr_side side, const struct frame *f)
{
	enum tr_side other = tr_other(side);
	struct tr_entry *e = tr_find(tr, key, other, key->port);
	uint64_t opts = frame_syn_options(f);

	if (!e || !e->queued || e->opts != opts || e->isn[other] != f->seq)
		e = oldest(tr, key, side, opts);
	if (!e)
		return NULL;
	leave_queue(tr, e);
	tr->paired++;
	return e;
}
