/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * held.c - buffers of the comparing module: what is held, kept and owed, in which order, and how much
 *
 * See cm.c for the lists and the bounds.
 */
#include <string.h>

#include "cm_priv.h"

/* room for a frame of the PVM, or bytes of the SVM? */
static bool have_room(struct cm *cm, size_t n, bool pvm)
{
	size_t after = cm->pool.used + n + sizeof(struct buf);

	if (after <= cm->cfg.max_held_bytes && !cm_is_full(cm))
		return true;
	cm_full(cm, CM_KIND_HELD);
	if (pvm && after <= 2 * cm->cfg.max_held_bytes)
		return true;
	cm->stats.dropped++;
	return false;
}

static struct buf *get_buf(struct cm *cm, size_t n, bool pvm)
{
	struct buf *b;

	if (!have_room(cm, n, pvm))
		return NULL;
	b = pool_get(&cm->pool, n);
	if (!b || cm_is_full(cm))
		cm_full(cm, CM_KIND_HELD);
	if (b)
		b->epoch = cm->epoch;
	else
		cm->stats.dropped++;
	return b;
}

static struct buf_list *age_of(struct cm *cm, const struct buf *b)
{
	return b->young ? &cm->young : &cm->age;
}

struct buf *cm_hold(struct cm *cm, const struct frame *f, uint64_t now)
{
	struct buf *b = get_buf(cm, f->len, true);

	if (!b)
		return NULL;
	memcpy(b->data, f->data, f->len);
	b->len = f->len;
	b->off = f->body;
	b->body_len = f->body_len;
	b->ack = f->ack;
	b->flags = f->flags;
	b->time = now;
	b->young = cm->at_young;
	buf_age_append(age_of(cm, b), b);
	cm->stats.held_packets++;
	cm->stats.held_bytes += b->len;
	return b;
}

struct buf *cm_keep(struct cm *cm, struct flow *fl, uint32_t n)
{
	struct buf *b = get_buf(cm, n, false);

	if (b && fl)
		cm_busy(cm, fl);
	return b;
}

static void free_held(struct cm *cm, struct buf *b)
{
	cm->stats.held_packets--;
	cm->stats.held_bytes -= b->len;
	dgram_unindex(b);
	pool_put(&cm->pool, b);
}

void cm_drop(struct cm *cm, struct flow *fl, struct buf *b)
{
	buf_unlink(&fl->held, b);
	buf_age_unlink(age_of(cm, b), b);
	free_held(cm, b);
}

void cm_let_go(struct cm *cm, struct buf *b)
{
	cm_emit(cm, b->data, b->len);
	buf_age_unlink(age_of(cm, b), b);
	free_held(cm, b);
}

void cm_drop_held(struct cm *cm, struct flow *fl)
{
	struct buf *b;

	while ((b = fl->held.head))
		cm_drop(cm, fl, b);
}

void cm_drop_said(struct cm *cm, struct flow *fl)
{
	struct buf *b;

	while ((b = fl->said.head)) {
		buf_unlink(&fl->said, b);
		if (b->flow)
			dgram_forget(cm, b);
		else
			pool_put(&cm->pool, b);
	}
	fl->said_bytes = 0;
}

void cm_drop_owed(struct cm *cm, struct flow *fl)
{
	if (!fl->owed)
		return;
	buf_age_unlink(&cm->acks, fl->owed);
	free_held(cm, fl->owed);
	fl->owed = NULL;
}

/* Chunks that are partly free count as well: there must be some left for as much again. */
bool cm_is_full(const struct cm *cm)
{
	size_t most = cm->cfg.max_held_bytes;

	return cm->mode != CM_PASS &&
	       (cm->pool.used > most || pool_in_use(&cm->pool) > most + most / 2 + POOL_RESERVE);
}

static void release_list(struct cm *cm, struct buf_list *l)
{
	struct buf *b;

	while ((b = l->head)) {
		buf_age_unlink(l, b);
		cm_emit(cm, b->data, b->len);
		free_held(cm, b);
	}
}

/* The acknowledgement that a flow owes to its peer waits for the boundary like a frame. */
void held_owed_to_before(struct cm *cm, struct flow *fl)
{
	struct buf *b = fl->owed;

	if (!b)
		return;
	if (!tcp_owed_counts(fl)) {
		cm_drop_owed(cm, fl);
		return;
	}
	fl->owed = NULL;
	buf_age_unlink(&cm->acks, b);
	buf_age_append(&cm->before, b);
}

/* in order of arrival */
static void young_to_age(struct cm *cm)
{
	struct buf *b, *after = cm->age.head;

	while ((b = cm->young.head)) {
		buf_age_unlink(&cm->young, b);
		b->young = false;
		while (after && after->time <= b->time)
			after = after->anext;
		buf_age_insert(&cm->age, b, after);
	}
	cm->alone = 0;
}

void held_to_before(struct cm *cm)
{
	struct buf_list *a = &cm->age, *b = &cm->before;

	young_to_age(cm);
	if (!a->head)
		return;
	a->head->aprev = b->tail;
	*(b->tail ? &b->tail->anext : &b->head) = a->head;
	b->tail = a->tail;
	*a = (struct buf_list){ 0 };
}

void held_release_before(struct cm *cm)
{
	struct buf *b;

	while ((b = cm->before.head) && b->epoch < cm->held_epoch) {
		buf_age_unlink(&cm->before, b);
		cm->stats.released_by_checkpoint++;
		cm_emit(cm, b->data, b->len);
		free_held(cm, b);
	}
}

void held_release_all(struct cm *cm)
{
	release_list(cm, &cm->before);
	young_to_age(cm);
	release_list(cm, &cm->age);
	release_list(cm, &cm->acks);
}
