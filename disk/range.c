/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * range.c - locks on byte ranges
 *
 * The list is as long as there are requests at work (nbdkit's threads, plus two of ours), so walking it
 * costs less than anything cleverer would.
 */
#include "disk/range.h"

void range_lock_init(struct range_lock *rl)
{
	*rl = (struct range_lock){ .first = NULL };
	pthread_mutex_init(&rl->lock, NULL);
	pthread_cond_init(&rl->released, NULL);
}

void range_lock_destroy(struct range_lock *rl)
{
	pthread_cond_destroy(&rl->released);
	pthread_mutex_destroy(&rl->lock);
}

static bool blocked_by_older(const struct range *r)
{
	for (const struct range *o = r->prev; o; o = o->prev)
		if (o->start < r->end && r->start < o->end)
			return true;
	return false;
}

void range_lock(struct range_lock *rl, struct range *r, uint64_t offset, uint64_t length)
{
	r->start = offset & ~(uint64_t)(DISK_BLOCK - 1);
	r->end = (offset + length + DISK_BLOCK - 1) & ~(uint64_t)(DISK_BLOCK - 1);
	r->next = NULL;
	pthread_mutex_lock(&rl->lock);
	r->prev = rl->last;
	if (rl->last)
		rl->last->next = r;
	else
		rl->first = r;
	rl->last = r;
	while (blocked_by_older(r)) {
		rl->waiting++;
		pthread_cond_wait(&rl->released, &rl->lock);
		rl->waiting--;
	}
	pthread_mutex_unlock(&rl->lock);
}

void range_unlock(struct range_lock *rl, struct range *r)
{
	pthread_mutex_lock(&rl->lock);
	if (r->prev)
		r->prev->next = r->next;
	else
		rl->first = r->next;
	if (r->next)
		r->next->prev = r->prev;
	else
		rl->last = r->prev;
	if (rl->waiting)
		pthread_cond_broadcast(&rl->released);
	pthread_mutex_unlock(&rl->lock);
}
