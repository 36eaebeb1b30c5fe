/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim_disks.c - two hosts that lose power and come back in any order: who serves?
 *
 * sim_disks [SEED [COUNT]]. The real start.c and lineage.c on a model of the rest: a disk is one number, that
 * of its last write; what a protected pair does happens in the order of disk_proto.h, and power may go
 * after each step. What must hold: never two serve; whoever begins to serve has the disk that the last one
 * had; unless that disk is down for good, the VM is served again when both hosts are up.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/start.h"

#define DEFAULT_COUNT 20000
#define STEPS 120
#define DISKS 2

enum state { DOWN, UNDECIDED, WAITS /* secondary */, SERVES, COPIES /* secondary, linked */, PROTECTS };

struct host {
	enum state state;
	struct lineage l[DISKS];
	uint64_t content[DISKS]; /* 0: a mixture */
	unsigned int served;     /* disks whose SERVE is done, of a takeover or start under way */
};

static struct {
	struct host h[2];
	struct lineage source[DISKS]; /* as of LINK */
	uint64_t boundary[DISKS];     /* what the checkpoint that is held has */
	uint64_t newest, next, seed, rnd;
	bool shared, held;            /* of the link: SYNCED was said; a checkpoint is held */
	unsigned int committed;       /* disks */
	bool trace;
	unsigned int starts, takeovers, waits;
} w;

static uint64_t rnd(uint64_t n)
{
	uint64_t z = (w.rnd += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % n;
}

__attribute__((format(printf, 1, 2))) static void trace(const char *fmt, ...)
{
	va_list ap;

	if (!w.trace)
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "  [newest %llu; %llu %llu state %d | %llu %llu state %d]\n", (unsigned long long)w.newest,
		(unsigned long long)w.h[0].content[0], (unsigned long long)w.h[0].content[1], w.h[0].state,
		(unsigned long long)w.h[1].content[0], (unsigned long long)w.h[1].content[1], w.h[1].state);
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "seed %llu: ", (unsigned long long)w.seed);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (sim_disks %llu 1 -t)\n", (unsigned long long)w.seed);
	exit(1);
}

static struct host *other(const struct host *h)
{
	return &w.h[h == w.h];
}

static bool linked(const struct host *h)
{
	return h->state == COPIES || h->state == PROTECTS;
}

static void unlink_pair(void)
{
	w.shared = w.held = false;
	w.committed = 0;
}

/* one disk's SERVE; true: the last one, and the VM is heard from now on */
static bool serve_one(struct host *h, uint64_t fresh)
{
	lineage_go_alone(&h->l[h->served++], fresh);
	return h->served == DISKS;
}

static void begin_to_serve(struct host *h)
{
	unsigned int i;

	for (i = 0; i < DISKS; i++)
		if (h->content[i] != w.newest)
			fail("host %d serves with disk%u of %llu, the newest is %llu", (int)(h - w.h), i,
			     (unsigned long long)h->content[i], (unsigned long long)w.newest);
	if (other(h)->state == SERVES)
		fail("both serve");
	h->state = SERVES;
}

/* SERVE of all disks, one after the other; the host may lose power between */
static void serve(struct host *h)
{
	uint64_t fresh = rnd(UINT64_MAX) | 1;

	h->served = 0;
	while (rnd(40)) {
		if (!serve_one(h, fresh))
			continue;
		begin_to_serve(h);
		return;
	}
	trace("host %d loses power in SERVE, after %u", (int)(h - w.h), h->served);
	h->state = DOWN;
}

static void start(struct host *h, enum start_role asked)
{
	const struct start_node n = { .asked = asked, .configured_primary = h == w.h, .peer = "peer" };
	char text[512];

	w.starts++;
	switch (start_decide(&n, h->l, DISKS, text, sizeof(text))) {
	case START_PRIMARY: serve(h); break;
	case START_SECONDARY: h->state = WAITS; break;
	case START_UNDECIDED: h->state = UNDECIDED; w.waits++; break;
	default:
		/* the very first start was cut off: a person must say that it goes on */
		if ((h->l[0].flags | h->l[1].flags) & LINEAGE_NEW)
			serve(h);
		else
			fail("host %d refuses: %s", (int)(h - w.h), text);
	}
	trace("host %d has started: %s", (int)(h - w.h), text);
}

/* --- hosts meet --- */

static bool may_receive(const struct host *from, const struct host *to)
{
	enum lineage_verdict v;
	unsigned int i;

	for (i = 0; i < DISKS; i++) {
		v = lineage_judge(&from->l[i], &to->l[i]);
		if (v != LINEAGE_CHANGED && v != LINEAGE_ALL)
			return false;
	}
	return true;
}

static void link_pair(struct host *p, struct host *s)
{
	unsigned int i;

	if (!may_receive(p, s))
		fail("host %d is turned away by the one that serves", (int)(s - w.h));
	unlink_pair();
	memcpy(w.source, p->l, sizeof(w.source));
	for (i = 0; i < DISKS; i++) {
		lineage_receive(&s->l[i], &p->l[i]);
		s->content[i] = 0;
	}
	s->state = COPIES;
	trace("linked");
}

static void meet(struct host *h)
{
	struct host *o = other(h);
	char text[512];

	if (h->state == UNDECIDED && (o->state == WAITS || o->state == UNDECIDED)) {
		if (start_hears(h->l, o->l, DISKS, o->state == UNDECIDED, "me", "peer", text, sizeof(text)) ==
		    START_PRIMARY)
			serve(h);
		trace("host %d hears the other one: %s", (int)(h - w.h), text);
	} else if ((h->state == UNDECIDED || h->state == WAITS) && o->state == SERVES) {
		link_pair(o, h);
	}
}

/* --- a pair --- */

static void checkpoint(struct host *p, struct host *s)
{
	unsigned int i;

	if (!w.shared) { /* the sync is over: before the secondary hears it, SHARED is stable */
		for (i = 0; i < DISKS; i++)
			p->l[i].flags |= LINEAGE_SHARED;
		w.shared = true;
	} else if (!w.held) {
		memcpy(w.boundary, p->content, sizeof(w.boundary));
		w.held = true;
		s->state = PROTECTS;
	} else if (w.committed < DISKS) {
		i = w.committed++;
		s->content[i] = w.boundary[i];
		lineage_adopt(&s->l[i], &w.source[i]);
	} else {
		for (i = 0; i < DISKS; i++)
			lineage_shared(&p->l[i]);
		w.held = false; /* the next one may begin; journal and redo bring a crash back to this one */
		w.committed = 0;
	}
	trace("checkpoint: shared %d held %d committed %u", w.shared, w.held, w.committed);
}

static void commit_all(struct host *s)
{
	while (w.committed < DISKS) {
		s->content[w.committed] = w.boundary[w.committed];
		lineage_adopt(&s->l[w.committed], &w.source[w.committed]);
		w.committed++;
	}
}

/* FAILOVER is stable on all disks when the first SERVE is done: a crash between is repaired at OPEN */
static void take_over(struct host *s)
{
	uint64_t fresh = rnd(UINT64_MAX) | 1;
	unsigned int i;

	if (w.held)
		commit_all(s);
	unlink_pair();
	w.takeovers++;
	s->served = 0;
	if (!rnd(10)) {
		trace("takeover: power is lost before SERVE");
		s->state = DOWN;
		return;
	}
	while (!serve_one(s, fresh))
		;
	for (i = 0; i < DISKS; i++) /* the SVM's: what clients saw */
		s->content[i] = w.newest;
	if (!rnd(10))
		s->state = DOWN;
	else
		begin_to_serve(s);
	trace("takeover");
}

static void power_loss(struct host *h)
{
	struct host *o = other(h);
	enum state was = h->state;

	h->state = DOWN;
	trace("host %d loses power", (int)(h - w.h));
	if (was == SERVES && o->state == PROTECTS) {
		take_over(o);
	} else if (was == SERVES && o->state == COPIES) {
		o->state = DOWN; /* its daemon ends: half a copy */
	} else if (was == COPIES || was == PROTECTS) {
		if (was == PROTECTS && w.held)
			commit_all(h); /* from the journal, when it comes back */
		unlink_pair();
		serve(o);
	}
}

static void step(void)
{
	struct host *h = &w.h[rnd(2)], *o = other(h);
	unsigned int i;

	switch (rnd(8)) {
	case 0:
		if (h->state != DOWN && rnd(3) == 0)
			power_loss(h);
		break;
	case 1: case 2:
		if (h->state == DOWN)
			start(h, rnd(8) ? START_BY_DISKS : START_SECONDARY);
		break;
	case 3: case 4: meet(h); break;
	case 5: case 6:
		if (h->state == SERVES && linked(o))
			checkpoint(h, o);
		break;
	default:
		if (h->state == SERVES) {
			w.newest = ++w.next;
			for (i = 0; i < DISKS; i++)
				h->content[i] = w.newest;
		}
	}
}

/* with both hosts up, one comes to serve */
static void check_end(void)
{
	unsigned int i, n;

	for (i = 0; i < 2; i++) /* without --role */
		if (w.h[i].state == WAITS)
			w.h[i].state = DOWN;
	for (n = 0; n < 200 && w.h[0].state != SERVES && w.h[1].state != SERVES; n++)
		for (i = 0; i < 2; i++) {
			if (w.h[i].state == DOWN)
				start(&w.h[i], START_BY_DISKS);
			meet(&w.h[i]);
		}
	if (w.h[0].state != SERVES && w.h[1].state != SERVES)
		fail("both hosts are up in states %d and %d, and nobody serves", w.h[0].state, w.h[1].state);
}

static void schedule(uint64_t seed)
{
	unsigned int i, j;

	memset(w.h, 0, sizeof(w.h));
	unlink_pair();
	w.seed = w.rnd = seed;
	w.newest = w.next = 1;
	for (i = 0; i < 2; i++)
		for (j = 0; j < DISKS; j++) {
			w.h[i].l[j] = (struct lineage){ .current = 1000 + j, .flags = LINEAGE_NEW | LINEAGE_CONSISTENT };
			w.h[i].content[j] = 1;
		}
	for (i = 0; i < STEPS; i++)
		step();
	check_end();
}

int main(int argc, char **argv)
{
	uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL) * 1000000, i;
	uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : DEFAULT_COUNT;

	w.trace = argc > 3;
	printf("sim_disks: %llu schedules from seed %llu\n", (unsigned long long)count, (unsigned long long)first);
	for (i = 0; i < count; i++)
		schedule(first + i);
	printf("sim_disks: %u starts, %u of them undecided, %u takeovers: no stale disk was served\n", w.starts,
	       w.waits, w.takeovers);
	return 0;
}
