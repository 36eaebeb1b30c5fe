/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_lineage.c - which copy of a disk is newer: tables, and copies that live together at random
 *
 * In the simulation a copy is an array of blocks, each with the number of the write that made it. A copy also has the
 * set of all writes that led to it; those that count were made by a host that served alone, or were
 * committed by the peer. A write that counts may be lost only with the operator's word. SEED and STEPS come
 * from the command line or the environment variables COLO_SEED and COLO_STEPS.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "disk/lineage.h"

static unsigned long long seed, rng;
static unsigned long step;

#define CHECK(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s:%d: %s, seed %llu, step %lu\n", __FILE__, __LINE__, #cond, seed, step); \
			abort(); \
		} \
	} while (0)

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng * 0x2545f4914f6cdd1dull >> 11) % below;
}

/* ---- tables ---- */

#define C LINEAGE_CONSISTENT
#define S LINEAGE_SERVED
#define M LINEAGE_SHARED
#define N (LINEAGE_NEW | LINEAGE_CONSISTENT)
#define B (LINEAGE_BLANK | N)

static const struct verdict_case {
	const char *what;
	struct lineage source, target;
	enum lineage_verdict verdict, overwritten; /* the latter: the same with OVERWRITE */
} cases[] = {
	{ "one image, both new", { 7, 7, { 0 }, N, 0 }, { 7, 7, { 0 }, N, 0 }, LINEAGE_CHANGED, LINEAGE_CHANGED },
	{ "one image, one served", { 9, 7, { 0 }, C | S, 0 }, { 7, 7, { 0 }, N, 0 }, LINEAGE_CHANGED, LINEAGE_CHANGED },
	{ "one image, both served", { 9, 7, { 0 }, C | S, 0 }, { 8, 7, { 0 }, C | S, 0 }, LINEAGE_SPLIT, LINEAGE_ALL },
	{ "two images", { 9, 7, { 0 }, C | S, 0 }, { 6, 6, { 0 }, N, 0 }, LINEAGE_UNRELATED, LINEAGE_ALL },
	{ "a blank target", { 9, 7, { 0 }, C | S, 0 }, { 6, 6, { 0 }, B, 0 }, LINEAGE_ALL, LINEAGE_ALL },
	{ "blank once, not new", { 9, 7, { 0 }, C | S, 0 }, { 6, 6, { 0 }, C | S | LINEAGE_BLANK, 0 },
	  LINEAGE_UNRELATED, LINEAGE_ALL },
	{ "a blank source", { 6, 6, { 0 }, B, 0 }, { 9, 7, { 0 }, C | S, 0 }, LINEAGE_UNRELATED, LINEAGE_ALL },
	{ "secondary returns", { 9, 7, { 0 }, C | S, 0 }, { 7, 7, { 0 }, C, 0 }, LINEAGE_CHANGED, LINEAGE_CHANGED },
	{ "it returns late", { 9, 8, { 7 }, C | S, 0 }, { 7, 7, { 0 }, C, 0 }, LINEAGE_ALL, LINEAGE_ALL },
	{ "former primary returns", { 9, 7, { 0 }, C | S, 0 }, { 7, 7, { 0 }, C | S | M, 0 },
	  LINEAGE_CHANGED, LINEAGE_CHANGED },
	{ "it had not heard of the adoption", { 9, 7, { 5 }, C | S, 0 }, { 7, 5, { 0 }, C | S | M, 0 },
	  LINEAGE_CHANGED, LINEAGE_CHANGED },
	{ "it served alone", { 9, 7, { 0 }, C | S, 0 }, { 8, 7, { 0 }, C | S, 0 }, LINEAGE_SPLIT, LINEAGE_ALL },
	{ "it served alone, by a number no rule allows", { 9, 7, { 0 }, C | S, 0 }, { 7, 7, { 0 }, C | S, 0 },
	  LINEAGE_SPLIT, LINEAGE_ALL },
	{ "stale source", { 7, 7, { 0 }, C | S | M, 0 }, { 9, 7, { 0 }, C | S, 0 }, LINEAGE_TARGET_NEWER, LINEAGE_ALL },
	{ "stale source, long ago", { 5, 5, { 0 }, C, 0 }, { 9, 7, { 6, 5 }, C | S, 0 },
	  LINEAGE_TARGET_NEWER, LINEAGE_ALL },
	{ "equal, the target wrote last", { 7, 7, { 0 }, C, 0 }, { 7, 7, { 0 }, C | S | M, 0 },
	  LINEAGE_TARGET_NEWER, LINEAGE_ALL },
	{ "equal, the source wrote last", { 7, 7, { 0 }, C | S | M, 0 }, { 7, 7, { 0 }, C, 0 },
	  LINEAGE_CHANGED, LINEAGE_CHANGED },
	{ "split long ago", { 9, 8, { 5 }, C | S, 0 }, { 4, 3, { 5 }, C | S, 0 }, LINEAGE_SPLIT, LINEAGE_ALL },
	{ "source without a bitmap", { 9, 0, { 7 }, C | S, 0 }, { 7, 7, { 0 }, C, 0 }, LINEAGE_ALL, LINEAGE_ALL },
	{ "target without a bitmap", { 9, 7, { 0 }, C | S, 0 }, { 7, 0, { 0 }, 0, 0 }, LINEAGE_ALL, LINEAGE_ALL },
	{ "a mixture as source", { 9, 7, { 0 }, S, 0 }, { 7, 7, { 0 }, C, 0 }, LINEAGE_BAD_SOURCE, LINEAGE_BAD_SOURCE },
	{ "nothing at all as source", { 0, 0, { 0 }, C | S, 0 }, { 7, 7, { 0 }, C, 0 },
	  LINEAGE_BAD_SOURCE, LINEAGE_BAD_SOURCE },
	{ "nothing at all as target", { 9, 7, { 0 }, C | S, 0 }, { 0, 0, { 0 }, C, 0 }, LINEAGE_UNRELATED, LINEAGE_ALL },
};

static void test_table(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct verdict_case *c = &cases[i];
		struct lineage target = c->target;
		enum lineage_verdict v = lineage_judge(&c->source, &target), o;

		target.flags |= LINEAGE_OVERWRITE;
		o = lineage_judge(&c->source, &target);
		if (v == c->verdict && o == c->overwritten)
			continue;
		fprintf(stderr, "%s: verdict %d, with OVERWRITE %d\n", c->what, v, o);
		abort();
	}
}

static void test_texts(void)
{
	char text[200];

	for (int v = LINEAGE_CHANGED; v <= LINEAGE_BAD_SOURCE; v++) {
		lineage_explain((enum lineage_verdict)v, "ada", "bob", text, sizeof(text));
		CHECK((v <= LINEAGE_ALL) == !text[0]);
		CHECK(v <= LINEAGE_ALL || strstr(text, "ada"));
		CHECK(strlen(text) < sizeof(text) - 1);
	}
}

static void test_transitions(void)
{
	struct lineage a = { 7, 7, { 0 }, B, 0 }, b = { 7, 7, { 0 }, N, 0 }, was;

	CHECK(lineage_go_alone(&a, 1) && a.base == 7 && a.current && a.current != 7 && a.flags == (C | S));
	was = a;
	CHECK(!lineage_go_alone(&a, 2) && !memcmp(&a, &was, sizeof(a))); /* nobody can have this generation */
	lineage_receive(&b, &a);
	CHECK(b.flags == 0 && b.current == 7 && b.base == 7);
	lineage_adopt(&b, &a);
	CHECK(b.flags == C && b.current == a.current && b.base == b.current && b.history[0] == 7);
	a.flags |= M; /* and the peer's adoption was not heard of */
	CHECK(lineage_go_alone(&a, 3) && a.base == 7 && a.history[0] == was.current && a.flags == (C | S));
	CHECK(lineage_judge(&a, &b) == LINEAGE_ALL);
	lineage_shared(&a);
	CHECK(a.base == a.current && a.history[0] == 7 && a.history[1] == was.current);
	was = a;
	lineage_shared(&a);
	CHECK(!memcmp(&a, &was, sizeof(a)));
	lineage_disown(&a, 4);
	CHECK(a.base == 0 && a.current != was.current && a.history[0] == was.current);
	/* equal random numbers, different pasts */
	a = (struct lineage){ 7, 7, { 0 }, N, 0 };
	b = (struct lineage){ 8, 8, { 0 }, N, 0 };
	CHECK(lineage_go_alone(&a, 5) && lineage_go_alone(&b, 5) && a.current != b.current);
}

/* ---- simulation ---- */

#define COPIES 3
#define BLOCKS 16
#define WRITES 4096 /* before all begins anew */

struct set {
	uint64_t words[WRITES / 64];
};

struct copy {
	struct lineage l;
	unsigned block[BLOCKS];  /* number of the write; 0: as in the beginning */
	bool changed[BLOCKS], older[BLOCKS];
	struct set has, counts;  /* writes that led to it; those of them nobody may lose */
	bool mixture;
	int image;               /* which one it began as */
};

static struct copy copies[COPIES];
static unsigned nwrites;

/* the pair: at most one at a time. -1: none */
static int primary, secondary;
static bool synced, adopted, in_round; /* the secondary has all; has a checkpoint; a round is open */
static struct lineage offered; /* the primary's when the link was made */
static struct copy boundary;   /* the primary at the last boundary that was not committed yet */
static bool marked;
static bool candidate[BLOCKS];
static struct counts {
	unsigned long changed, all, newer, split, unrelated, bad, adopted, rounds, takeovers, cut, forced;
} seen;

static void add(struct set *s, unsigned w)
{
	s->words[w / 64] |= 1ull << (w % 64);
}

static bool subset(const struct set *a, const struct set *b)
{
	for (size_t i = 0; i < WRITES / 64; i++)
		if (a->words[i] & ~b->words[i])
			return false;
	return true;
}

static void begin_again(void)
{
	nwrites = 0;
	primary = secondary = -1;
	marked = in_round = false;
	memset(copies, 0, sizeof(copies));
	for (int i = 0; i < COPIES; i++) {
		struct copy *c = &copies[i];

		c->image = rnd(4) ? 0 : 1 + i;
		c->l = (struct lineage){ .current = 100 + (uint64_t)c->image, .flags = N };
		c->l.base = c->l.current;
		if (c->image > 1 && rnd(2))
			c->l.flags = B;
	}
}

/* alone: so that it counts at once. Otherwise the peer gets it: to its storage, as long as the sync goes on. */
static void write_block(struct copy *c, bool alone)
{
	unsigned b = (unsigned)rnd(BLOCKS), w = ++nwrites;

	if (!alone && !synced) {
		copies[secondary].block[b] = w;
		copies[secondary].changed[b] = true;
	}

	c->block[b] = w;
	c->changed[b] = true;
	add(&c->has, w);
	if (alone)
		add(&c->counts, w);
}

static void lose_link(void)
{
	if (secondary < 0)
		return;
	for (int b = 0; b < BLOCKS; b++) {
		copies[primary].changed[b] |= copies[primary].older[b];
		copies[primary].older[b] = false;
	}
	secondary = -1;
	marked = in_round = false;
}

static void stop_serving(void)
{
	lose_link();
	primary = -1;
}

/* What is on this copy now is what its guest's outside world may have seen. */
static void serve(int i)
{
	struct copy *c = &copies[i];

	if (!(c->l.flags & LINEAGE_CONSISTENT))
		return;
	CHECK(!c->mixture);
	if (i != primary)
		stop_serving();
	lose_link();
	if (lineage_go_alone(&c->l, rnd(UINT64_MAX >> 11) + 1))
		add(&c->has, ++nwrites); /* it may have written, whether it did or not */
	c->counts = c->has;
	primary = i;
}

static bool covers(const struct copy *s, const struct copy *t)
{
	for (int b = 0; b < BLOCKS; b++)
		if (s->block[b] != t->block[b] && !s->changed[b] && !s->older[b] && !t->changed[b])
			return false;
	return true;
}

/* The oracle: what a verdict promises must be so. */
static void judge_verdict(const struct copy *s, const struct copy *t, enum lineage_verdict v)
{
	bool loses = !subset(&t->counts, &s->has);
	bool strangers = s->image != t->image && subset(&t->counts, &(struct set){ 0 });

	switch (v) {
	case LINEAGE_CHANGED:
		seen.changed++;
		CHECK(s->image == t->image || !strangers);
		CHECK(covers(s, t));
		/* fall through */
	case LINEAGE_ALL:
		seen.all += v == LINEAGE_ALL;
		CHECK(!loses || (t->l.flags & LINEAGE_OVERWRITE) || t->mixture);
		break;
	case LINEAGE_TARGET_NEWER:
		seen.newer++;
		CHECK(loses);
		break;
	case LINEAGE_SPLIT:
		seen.split++;
		/* with a history that is full the target may have fallen out of it: refused, on the safe side */
		CHECK(loses || t->mixture || s->l.history[LINEAGE_HISTORY - 1]);
		break;
	case LINEAGE_UNRELATED:
		seen.unrelated++;
		break;
	case LINEAGE_BAD_SOURCE:
		seen.bad++;
		CHECK(s->mixture);
	}
}

static void link_to(int i)
{
	struct copy *s, *t = &copies[i];
	enum lineage_verdict v;

	if (primary < 0 || i == primary)
		return;
	s = &copies[primary];
	if (s->l.flags & LINEAGE_SHARED)
		serve(primary); /* the disk manager does not link before that */
	lose_link();
	if (rnd(10) == 0) {
		t->l.flags |= LINEAGE_OVERWRITE;
		seen.forced++;
	}
	v = lineage_judge(&s->l, &t->l);
	judge_verdict(s, t, v);
	if (v == LINEAGE_CHANGED || v == LINEAGE_ALL) {
		for (int b = 0; b < BLOCKS; b++)
			candidate[b] = v == LINEAGE_ALL || s->changed[b] || s->older[b] || t->changed[b];
		offered = s->l;
		lineage_receive(&t->l, &s->l);
		t->mixture = true;
		t->counts = (struct set){ 0 }; /* given up, with whatever right */
		secondary = i;
		synced = adopted = false;
	}
	t->l.flags &= ~(uint32_t)LINEAGE_OVERWRITE;
}

/* Some or all candidates arrive; the target notes what is written to it, and the source what differed. */
static void synchronise(bool all)
{
	struct copy *s = &copies[primary], *t = &copies[secondary];

	for (int b = 0; b < BLOCKS; b++) {
		if (!candidate[b] || (!all && rnd(2)) || s->block[b] == t->block[b])
			continue;
		t->block[b] = s->block[b];
		t->changed[b] = s->changed[b] = true;
	}
	if (!all)
		return;
	CHECK(!memcmp(s->block, t->block, sizeof(s->block)));
	s->l.flags |= LINEAGE_SHARED;
	synced = true;
}

static void begin_round(struct copy *s)
{
	if (in_round)
		return;
	in_round = true;
	memcpy(s->older, s->changed, sizeof(s->older));
	memset(s->changed, 0, sizeof(s->changed));
}

/* heard: the primary gets to know of it */
static void commit(bool heard)
{
	struct copy *s = &copies[primary], *t = &copies[secondary];

	memcpy(t->block, boundary.block, sizeof(t->block));
	t->has = t->counts = boundary.has;
	t->image = boundary.image;
	if (!adopted) {
		lineage_adopt(&t->l, &offered);
		memset(t->changed, 0, sizeof(t->changed));
		t->mixture = false;
		adopted = true;
		seen.adopted++;
	}
	marked = false;
	if (!heard)
		return;
	lineage_shared(&s->l);
	memset(s->older, 0, sizeof(s->older));
	in_round = false;
	seen.rounds++;
}

static void step_of_pair(void)
{
	struct copy *s = &copies[primary];

	switch (rnd(8)) {
	case 0: case 1: case 2:
		write_block(s, false);
		break;
	case 3: case 4:
		if (!synced) {
			bool all = rnd(3) != 0;

			synchronise(all);
			if (!all) {
				seen.cut++;
				lose_link();
				break;
			}
		}
		boundary = *s;
		marked = true;
		begin_round(s);
		break;
	case 5: case 6:
		if (marked)
			commit(rnd(5) != 0);
		break;
	case 7:
		if (rnd(3))
			break;
		if (marked && rnd(2))
			commit(false);
		if (rnd(2) && adopted) { /* the primary dies, or is fenced */
			seen.takeovers++;
			serve(secondary);
		} else { /* the secondary is lost, and the claim is won */
			serve(primary);
		}
	}
}

static void one_step(void)
{
	if (nwrites > WRITES - 2 || rnd(3000) == 0) {
		begin_again();
	} else if (secondary >= 0 && rnd(20)) {
		step_of_pair();
	} else if (primary >= 0 && rnd(12)) {
		if (rnd(3))
			write_block(&copies[primary], secondary < 0);
		else
			link_to((int)rnd(COPIES));
	} else if (rnd(3)) {
		serve((int)rnd(COPIES)); /* by the operator's word, or after a start */
	} else {
		stop_serving();
	}
}

static void simulate(unsigned long steps)
{
	begin_again();
	for (step = 1; step <= steps; step++)
		one_step();
	printf("%lu steps: %lu changed, %lu all, %lu newer, %lu split, %lu unrelated, %lu bad; %lu adopted, "
	       "%lu rounds, %lu taken over, %lu cut off, %lu forced\n", steps, seen.changed, seen.all, seen.newer,
	       seen.split, seen.unrelated, seen.bad, seen.adopted, seen.rounds, seen.takeovers, seen.cut, seen.forced);
	CHECK(seen.changed > steps / 1000 && seen.all > steps / 1000 && seen.split > steps / 1000);
	CHECK(seen.rounds > steps / 100 && seen.takeovers && seen.cut && seen.unrelated);
}

static unsigned long long number(int argc, char **argv, int i, const char *variable, unsigned long long otherwise)
{
	const char *s = argc > i ? argv[i] : getenv(variable);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	seed = number(argc, argv, 1, "COLO_SEED", (unsigned long long)time(NULL));
	rng = seed * 2 + 1;
	test_table();
	test_texts();
	test_transitions();
	printf("seed %llu\n", seed);
	simulate((unsigned long)number(argc, argv, 2, "COLO_STEPS", 3000000));
	return 0;
}
