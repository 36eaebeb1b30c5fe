/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * lineage.c - which of two copies of a disk is the newer one, and what differs between them
 *
 * Theory of operation. A generation is shared by the copies that the pair keeps equal, so its number stands
 * for "as far as the last checkpoint that both have". Whoever goes on without the other takes a new number
 * and remembers the old one as its base, to which its bitmap is relative. Three rules make the
 * comparison of numbers enough:
 *
 *   1. No copy writes alone under a number that another one may carry: go_alone() takes a new one if the
 *      current one is the base (the peer has adopted it), or if the flag SHARED says that it may have.
 *   2. The base moves only to a generation that the peer has adopted (shared()); until then what the bitmap
 *      holds is kept, so it covers more than it must, never less.
 *   3. A copy adopts a number only with the whole content (adopt()). While it is being overwritten it is a
 *      mixture: its number still says what the bitmap is relative to, if the bitmap covers what is written.
 *
 * Hence: the target's current number in the source's past means that the target has nothing the source has
 * not, and if it is the source's base the two bitmaps cover the difference. The other way round the
 * source is stale. A common number elsewhere means that both went on: no number in common, strangers.
 */
#include "disk/lineage.h"

#include <stdio.h>

static bool in_history(const struct lineage *l, uint64_t id)
{
	for (int i = 0; id && i < LINEAGE_HISTORY; i++)
		if (l->history[i] == id)
			return true;
	return false;
}

static bool knows(const struct lineage *l, uint64_t id)
{
	return id && (l->current == id || l->base == id || in_history(l, id));
}

static bool in_past(const struct lineage *l, uint64_t id)
{
	return id && id != l->current && (l->base == id || in_history(l, id));
}

static bool have_common(const struct lineage *a, const struct lineage *b)
{
	if (knows(a, b->current) || knows(a, b->base))
		return true;
	for (int i = 0; i < LINEAGE_HISTORY; i++)
		if (knows(a, b->history[i]))
			return true;
	return false;
}

static void push(struct lineage *l, uint64_t id)
{
	if (!id || in_history(l, id))
		return;
	for (int i = LINEAGE_HISTORY - 1; i > 0; i--)
		l->history[i] = l->history[i - 1];
	l->history[0] = id;
}

/* It writes under its number alone. By rule 1 nobody else has this number; this is for what no rule foresaw. */
static bool writes_alone(const struct lineage *l)
{
	return (l->flags & LINEAGE_SERVED) && !(l->flags & LINEAGE_SHARED);
}

static enum lineage_verdict compare_equal(const struct lineage *source, const struct lineage *target)
{
	if (source->flags & target->flags & LINEAGE_SERVED)
		return LINEAGE_SPLIT;
	if (target->flags & LINEAGE_SERVED) /* and the source received: it may lack the end */
		return LINEAGE_TARGET_NEWER;
	return source->base && target->base ? LINEAGE_CHANGED : LINEAGE_ALL;
}

/* without regard to OVERWRITE and BLANK */
static enum lineage_verdict compare(const struct lineage *source, const struct lineage *target)
{
	if (source->current == target->current)
		return compare_equal(source, target);
	if (in_past(source, target->current)) {
		if (writes_alone(target))
			return LINEAGE_SPLIT;
		return target->base && source->base == target->current ? LINEAGE_CHANGED : LINEAGE_ALL;
	}
	if (in_past(target, source->current))
		return LINEAGE_TARGET_NEWER;
	return have_common(source, target) ? LINEAGE_SPLIT : LINEAGE_UNRELATED;
}

enum lineage_verdict lineage_judge(const struct lineage *source, const struct lineage *target)
{
	const uint32_t empty = LINEAGE_NEW | LINEAGE_BLANK;
	enum lineage_verdict v;

	if (!(source->flags & LINEAGE_CONSISTENT) || !source->current)
		return LINEAGE_BAD_SOURCE;
	v = target->current ? compare(source, target) : LINEAGE_UNRELATED;
	if (v == LINEAGE_CHANGED || v == LINEAGE_ALL)
		return v;
	if ((target->flags & LINEAGE_OVERWRITE) || (target->flags & empty) == empty)
		return LINEAGE_ALL;
	return v;
}

void lineage_explain(enum lineage_verdict v, const char *source, const char *target, char *text, size_t size)
{
	text[0] = 0;
	switch (v) {
	case LINEAGE_CHANGED:
	case LINEAGE_ALL:
		break;
	case LINEAGE_TARGET_NEWER:
		snprintf(text, size, "the copy on %s is newer than that on %s: start the VM on %s", target,
			 source, target);
		break;
	case LINEAGE_SPLIT:
		snprintf(text, size, "%s and %s were both written to since they last were equal: to lose what "
			 "is on %s only, start it with --role secondary --overwrite", source, target, target);
		break;
	case LINEAGE_UNRELATED:
		snprintf(text, size, "the copy on %s has nothing in common with that on %s: if it may be "
			 "overwritten, start %s with --role secondary --overwrite", target, source, target);
		break;
	case LINEAGE_BAD_SOURCE:
		snprintf(text, size, "the copy on %s is incomplete: it was being overwritten when that was "
			 "cut off", source);
		break;
	}
}

/* A bijection for each `id`, so that equal `fresh` on disks with different pasts gives different numbers. */
static uint64_t mix(uint64_t fresh, uint64_t id)
{
	uint64_t x = fresh ^ (id * 0x9e3779b97f4a7c15ull);

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	return x && x != id ? x : ~id | 1;
}

bool lineage_go_alone(struct lineage *l, uint64_t fresh)
{
	uint64_t old = l->current;
	bool begin = l->base == old || (l->flags & LINEAGE_SHARED);

	if (begin) {
		if (l->base != old)
			push(l, old);
		l->current = mix(fresh, old);
	}
	l->flags &= ~(uint32_t)(LINEAGE_SHARED | LINEAGE_NEW | LINEAGE_BLANK | LINEAGE_OVERWRITE);
	l->flags |= LINEAGE_SERVED;
	return begin;
}

void lineage_receive(struct lineage *l, const struct lineage *source)
{
	if (lineage_judge(source, l) != LINEAGE_CHANGED) {
		/* whatever comes of it, it is worth nothing but as a copy of this source */
		lineage_adopt(l, source);
		l->base = 0;
	}
	l->flags = 0;
}

void lineage_adopt(struct lineage *l, const struct lineage *source)
{
	/* its own past is not kept if it is not the source's: another copy of a branch that was given up
	 * must be seen as one */
	*l = *source;
	if (l->base != l->current)
		push(l, l->base);
	l->base = l->current;
	l->flags = LINEAGE_CONSISTENT;
}

void lineage_shared(struct lineage *l)
{
	if (l->base != l->current)
		push(l, l->base);
	l->base = l->current;
}

void lineage_disown(struct lineage *l, uint64_t fresh)
{
	push(l, l->base);
	push(l, l->current);
	l->current = mix(fresh, l->current);
	l->base = 0;
}
