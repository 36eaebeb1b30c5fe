/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim_link.c - the link of the simulator: three channels, each in order, none in step with another
 */
#include "sim.h"

struct link *link_of(struct world *w, const struct node *n)
{
	return n->link && n->link == w->link.id && w->link.open[n->index] ? &w->link : NULL;
}

static void put(struct world *w, unsigned int to, enum channel c, struct msg m, uint64_t extra)
{
	struct queue *q = &w->link.q[to][c];
	uint64_t at = w->now + w->delay_us + rnd_below(&w->rnd, w->jitter_us + 1) + extra +
		      (w->now < w->slow_until ? w->slow_us : 0);

	if (at < q->last)
		at = q->last;
	if (at < w->blocked[to])
		at = w->blocked[to];
	if (q->tail - q->head == SIM_QUEUE)
		sim_fail(w, "the simulator's queue is too short");
	m.arrives = q->last = at;
	q->m[q->tail++ % SIM_QUEUE] = m;
	sim_after(w, at - w->now, EV_CHANNEL, to, w->link.id * NCHANNELS + c);
}

void link_send(struct world *w, struct node *n, enum channel c, enum msg_type type, uint64_t epoch,
	       uint64_t value)
{
	uint64_t extra = type == MSG_PAGES ? rnd_below(&w->rnd, 4 * w->delay_us + 2000) : 0;

	if (link_of(w, n) && w->link.open[!n->index])
		put(w, !n->index, c, (struct msg){ .type = type, .epoch = epoch, .value = value }, extra);
}

void link_open(struct world *w)
{
	struct link *l = &w->link;
	unsigned int i, c;

	l->id++;
	for (i = 0; i < 2; i++) {
		for (c = 0; c < NCHANNELS; c++)
			l->q[i][c].head = l->q[i][c].tail = l->q[i][c].last = 0;
		l->open[i] = true;
		w->node[i].link = l->id;
	}
}

static void say_closed(struct world *w, unsigned int to)
{
	enum channel c;

	if (w->link.open[to])
		for (c = 0; c < NCHANNELS; c++)
			put(w, to, c, (struct msg){ .type = MSG_CLOSE }, 0);
}

void link_vanish(struct world *w, struct node *n)
{
	if (link_of(w, n))
		w->link.open[n->index] = false;
	n->link = 0;
	n->linked = n->mute = false;
}

void link_close(struct world *w, struct node *n)
{
	bool had = link_of(w, n);

	link_vanish(w, n);
	if (had)
		say_closed(w, !n->index);
}

/* as a reset does: what is on its way may be lost, and each end hears of it */
void link_break(struct world *w)
{
	unsigned int i, c;

	for (i = 0; i < 2; i++) {
		for (c = 0; c < NCHANNELS; c++) {
			struct queue *q = &w->link.q[i][c];

			q->tail -= rnd_below(&w->rnd, q->tail - q->head + 1);
		}
		say_closed(w, i);
	}
}

void link_block(struct world *w, unsigned int to, uint64_t until)
{
	unsigned int c, i;

	w->blocked[to] = until;
	for (c = 0; c < NCHANNELS; c++) {
		struct queue *q = &w->link.q[to][c];

		for (i = q->head; i != q->tail; i++)
			if (q->m[i % SIM_QUEUE].arrives < until)
				q->m[i % SIM_QUEUE].arrives = until;
		if (q->head != q->tail) {
			q->last = q->last < until ? until : q->last;
			sim_after(w, until - w->now, EV_CHANNEL, to, w->link.id * NCHANNELS + c);
		}
	}
}

void link_heal(struct world *w)
{
	uint64_t at = w->now + w->delay_us;
	unsigned int to, c, i;

	for (to = 0; to < 2; to++) {
		w->blocked[to] = w->now;
		for (c = 0; c < NCHANNELS; c++) {
			struct queue *q = &w->link.q[to][c];

			for (i = q->head; i != q->tail; i++)
				if (q->m[i % SIM_QUEUE].arrives > at)
					q->m[i % SIM_QUEUE].arrives = at;
			q->last = q->last < at ? q->last : at;
			sim_after(w, w->delay_us, EV_CHANNEL, to, w->link.id * NCHANNELS + c);
		}
	}
}

bool link_receive(struct world *w, struct node *n, enum channel c, struct msg *m)
{
	struct queue *q = &w->link.q[n->index][c];

	if (!n->linked || n->mute || !link_of(w, n) || q->head == q->tail ||
	    q->m[q->head % SIM_QUEUE].arrives > w->now)
		return false;
	*m = q->m[q->head++ % SIM_QUEUE];
	return true;
}
