/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * link_reply.c - the primary's end of the link: what the secondary answers
 *
 * This thread waits for nothing but the socket and, at a COMMITTED, for stable storage; so a secondary that
 * answers never waits for one that sends. Nothing is believed: an answer must be to the oldest question
 * without one, which stands in disk_sync.questions, and its hashes must be as many as the question has
 * parts.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "disk/disk.h"
#include "disk/hash.h"
#include "disk/link_recv.h"

struct replies {
	struct receiver rx;
	struct disk_link_run runs[DISK_LINK_MAX_RUNS];
};

static void count(struct replies *p, uint64_t more)
{
	atomic_fetch_add(&p->rx.d->sync.moved, sizeof(struct disk_link_header) + more);
}

/* ---- what the peer changed ---- */

/* Ascending and without overlap, so that no peer can go on for ever. NULL if it is right. */
static const char *take_run(struct disk_sync *s, uint64_t size, uint64_t off, uint64_t len)
{
	if (!len || !range_ok(off, len, size) || off % DISK_HASH_BLOCK)
		return "a run that is not blocks of the disk";
	if (len % DISK_HASH_BLOCK && off + len != size)
		return "a run that is not whole blocks";
	if (off < s->target_end)
		return "runs out of order";
	s->target_end = off + len;
	bitmap_note(&s->target, off, len);
	return NULL;
}

static const char *target_fault(struct disk *d, const struct disk_link_header *h)
{
	if (sync_phase(d) != SYNC_TARGET)
		return "what it changed, said twice";
	if (h->offset > 1 || h->length % sizeof(struct disk_link_run) ||
	    h->length > DISK_LINK_MAX_RUNS * sizeof(struct disk_link_run))
		return "runs that are not understood";
	return h->offset && !h->length ? "no runs, but more to come" : NULL;
}

static bool on_target(struct replies *p, const struct disk_link_header *h)
{
	struct disk *d = p->rx.d;
	const char *fault = target_fault(d, h);
	size_t n = h->length / sizeof(p->runs[0]);

	if (fault)
		return receive_refuse(&p->rx, h, fault);
	if (!receive_bytes(&p->rx, p->runs, h->length))
		return false;
	for (size_t i = 0; i < n && !fault; i++)
		fault = take_run(&d->sync, d->storage.size, be64toh(p->runs[i].offset),
				 be64toh(p->runs[i].length));
	if (fault)
		return receive_refuse(&p->rx, h, fault);
	count(p, h->length);
	if (!h->offset)
		sync_set_phase(d, SYNC_COMPARING);
	return true;
}

/* ---- answers ---- */

static const char *answer_fault(const struct sync_question *q, const struct disk_link_header *h)
{
	if (q->offset != h->offset)
		return "an answer to another question than was asked";
	if (h->op != DISK_LINK_DIFFERS || q->hole)
		return h->length ? "an answer with a length" : NULL;
	return h->length == q->parts * sizeof(uint64_t) ? NULL : "hashes that are too many or too few";
}

static bool same_parts(const struct sync_question *q)
{
	return !memcmp(q->mine, q->theirs, q->parts * sizeof(q->mine[0]));
}

static bool on_answer(struct replies *p, const struct disk_link_header *h)
{
	struct disk_sync *s = &p->rx.d->sync;
	struct sync_question *q = NULL;
	const char *fault = "an answer without a question";
	bool syncing;

	pthread_mutex_lock(&s->lock);
	if (s->answered < s->asked) /* then the oldest one is this thread's */
		q = &s->questions[s->answered % DISK_LINK_WINDOW];
	syncing = s->phase < SYNC_DONE;
	pthread_mutex_unlock(&s->lock);
	if (q)
		fault = answer_fault(q, h);
	if (!fault && syncing && h->op == DISK_LINK_BUSY)
		fault = "busy before the first boundary";
	if (fault)
		return receive_refuse(&p->rx, h, fault);
	if (!receive_bytes(&p->rx, q->theirs, h->length))
		return false;
	for (size_t i = 0; i < h->length / sizeof(q->theirs[0]); i++)
		q->theirs[i] = be64toh(q->theirs[i]);
	if (h->length && same_parts(q))
		return receive_refuse(&p->rx, h, "a difference without a difference");
	q->answer = h->op;
	count(p, h->length);
	pthread_mutex_lock(&s->lock);
	s->answered++;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return true;
}

/* ---- the rest ---- */

static bool on_stable(struct replies *p, const struct disk_link_header *h)
{
	if (sync_phase(p->rx.d) != SYNC_FLUSHING || h->length || h->offset)
		return receive_refuse(&p->rx, h, "stable without a sync");
	count(p, 0);
	sync_set_phase(p->rx.d, SYNC_DONE);
	return true;
}

static bool on_committed(struct replies *p, const struct disk_link_header *h)
{
	int r;

	if (h->length || !sync_committed(p->rx.d, h->offset))
		return receive_refuse(&p->rx, h, "a commit of what was not sent");
	r = dirty_committed(p->rx.d, h->offset);
	if (r)
		link_fail(p->rx.d, "noting what the peer has: %s", disk_strerror(-r));
	return r == 0;
}

static bool one_reply(struct replies *p)
{
	struct disk_link_header h;

	if (!receive_header(&p->rx, &h))
		return false;
	switch (h.op) {
	case DISK_LINK_TARGET:
		return on_target(p, &h);
	case DISK_LINK_SAME:
	case DISK_LINK_DIFFERS:
	case DISK_LINK_BUSY:
		return on_answer(p, &h);
	case DISK_LINK_SYNC_STABLE:
		return on_stable(p, &h);
	case DISK_LINK_COMMITTED:
		return on_committed(p, &h);
	default:
		return receive_refuse(&p->rx, &h, "not an answer");
	}
}

void *link_replies(void *disk)
{
	struct disk *d = disk;
	struct replies *p = malloc(sizeof(*p));

	if (p) {
		p->rx.d = d;
		p->rx.pos = p->rx.len = 0;
		p->rx.large = false;
		while (one_reply(p))
			;
	}
	link_fail(d, "out of memory"); /* unless there was a better reason */
	free(p);
	return NULL;
}
