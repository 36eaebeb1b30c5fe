/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * waiting.c - how long the comparing module waits for what is missing; see cm.c, time
 */
#include "cm_priv.h"

/* when a frame's waiting began: not before the SVM could have answered */
static uint64_t since(const struct cm *cm, uint64_t time)
{
	return time > cm->run_time ? time : cm->run_time;
}

void cm_lag(struct cm *cm, uint64_t then, uint64_t now)
{
	uint64_t base = since(cm, then), lag = now > base ? now - base : 0;
	int64_t error;

	if (lag > cm->cfg.wait_max_us)
		lag = cm->cfg.wait_max_us;
	error = (int64_t)lag - cm->stats.lag_us;
	cm->stats.lag_us = (uint32_t)(cm->stats.lag_us + error / 8);
	error = (error < 0 ? -error : error) - cm->stats.lag_dev_us;
	cm->stats.lag_dev_us = (uint32_t)(cm->stats.lag_dev_us + error / 8);
}

/* Mean and mean deviation, as TCP finds its retransmission time (RFC 6298), but twice as patient: a
 * checkpoint keeps every connection waiting, a late answer only its own. */
uint64_t cm_patience(const struct cm *cm)
{
	uint64_t wait = 2ull * cm->stats.lag_us + 8ull * cm->stats.lag_dev_us;

	if (wait < cm->cfg.wait_min_us)
		return cm->cfg.wait_min_us;
	return wait < cm->cfg.wait_max_us ? wait : cm->cfg.wait_max_us;
}

static void wait_for(struct cm_waiting *w, const struct buf *b, uint64_t until)
{
	if (b && until < w->until)
		*w = (struct cm_waiting){ b, until };
}

struct cm_waiting cm_waiting(const struct cm *cm)
{
	const struct buf *frame = cm->age.head, *young = cm->young.head, *ack = cm->acks.head;
	uint64_t wait = cm_patience(cm), half = cm->cfg.wait_max_us / 2, until;
	struct cm_waiting w = { NULL, UINT64_MAX };

	wait_for(&w, frame, frame ? since(cm, frame->time) + wait : 0);
	until = young ? since(cm, young->time) + wait : 0;
	wait_for(&w, young, until > cm->young_limit ? until : cm->young_limit);
	wait_for(&w, ack, ack ? since(cm, ack->time) + (wait > half ? wait : half) : 0);
	return w;
}

uint64_t cm_next_tick(const struct cm *cm)
{
	if (cm->mode != CM_COMPARE || cm->wanted || cm_pending(cm) || !cm->svm_runs)
		return UINT64_MAX;
	return cm_waiting(cm).until;
}

/* Something that is held has waited long enough. Is it, or what follows and has as well, a datagram instead
 * of which the SVM said something else? */
static struct flow *other_said(const struct cm *cm, const struct buf *b, uint64_t now)
{
	uint64_t wait = cm_patience(cm);

	for (; b && since(cm, b->time) + wait <= now; b = b->anext)
		if (b->flow && b->flow->said.head)
			return b->flow;
	return NULL;
}

static void give_up_waiting(struct cm *cm, uint64_t now)
{
	const struct buf *b = cm_waiting(cm).b;
	struct flow *fl = b == cm->acks.head ? NULL : other_said(cm, b, now);

	cm->at_time = now;
	if (b->young)
		cm->young_limit = now + CM_YOUNG_US;
	if (fl) {
		cm_mismatch(cm, fl, CM_KIND_DATAGRAM);
	} else if (b->young && cm->alone) {
		cm_full(cm, CM_KIND_FLOWS);
	} else {
		explain_missing(cm, now);
		cm_want(cm, CM_MISSING);
	}
	cm_tell(cm);
}

uint64_t cm_tick(struct cm *cm, uint64_t now)
{
	peers_tell(cm);
	if (cm_next_tick(cm) <= now)
		give_up_waiting(cm, now);
	return cm_next_tick(cm);
}
