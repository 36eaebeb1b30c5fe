/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * lineage.h - which of two copies of a disk is the newer one, and what differs between them
 *
 * Pure. The model is DRBD's generation identifiers: a copy carries the random number of the generation
 * its content belongs to, that of the generation its bitmap of changes is relative to, and some older ones.
 * A generation begins whenever one host goes on without the other; so equal numbers mean a common past.
 */
#ifndef COLO_DISK_LINEAGE_H
#define COLO_DISK_LINEAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINEAGE_HISTORY 6

enum lineage_flag {
	LINEAGE_CONSISTENT = 1, /* the content is that of the guest's disk at some moment, not a mixture */
	LINEAGE_SERVED = 2,     /* was last written by a VM that served here, not received from a peer */
	LINEAGE_SHARED = 4,     /* it was mirrored to a peer then, which may have taken over since */
	LINEAGE_NEW = 8,        /* no metadata: `current` was computed from the content */
	LINEAGE_BLANK = 16,     /* with NEW: all zeroes */
	LINEAGE_OVERWRITE = 32, /* the operator allows that this copy is overwritten, whatever it holds */
};

/* host byte order; the daemons convert it for the wire */
struct lineage {
	uint64_t current;  /* never 0 */
	uint64_t base;     /* the changed-bitmap covers all changes since this one; 0: it covers nothing */
	uint64_t history[LINEAGE_HISTORY]; /* newest first, 0: none */
	uint32_t flags;
	uint32_t pad;
};
_Static_assert(sizeof(struct lineage) == 72, "lineage layout");

enum lineage_verdict {
	LINEAGE_CHANGED,     /* the target differs in what either bitmap says, at most */
	LINEAGE_ALL,         /* it may differ anywhere: compare all */
	/* refusals */
	LINEAGE_TARGET_NEWER,/* the target went on from the source's content: the source is stale */
	LINEAGE_SPLIT,       /* both went on from a common past */
	LINEAGE_UNRELATED,   /* nothing in common, and the target is not empty */
	LINEAGE_BAD_SOURCE,  /* the source is a mixture */
};

/* May `target` be overwritten so that it becomes a copy of `source`, which serves? */
enum lineage_verdict lineage_judge(const struct lineage *source, const struct lineage *target);
/* For a person: what a refusal means and what to do; names are those of the hosts. "" if it is none. */
void lineage_explain(enum lineage_verdict v, const char *source, const char *target, char *text,
		     size_t size);

/* This host serves without its peer from now on. `fresh` is a new random number. True: l has changed,
 * and the bitmap of changes is relative to l->base now (it must not be cleared: what it has stays). */
bool lineage_go_alone(struct lineage *l, uint64_t fresh);
/* This copy begins to receive that of `source`: it is no copy of anything until lineage_adopt(). */
void lineage_receive(struct lineage *l, const struct lineage *source);
/* It is now as `source` was when lineage_receive() was called. */
void lineage_adopt(struct lineage *l, const struct lineage *source);
/* The peer has adopted l->current: what is noted from now on is relative to it. */
void lineage_shared(struct lineage *l);
/* Somebody wrote to this copy of whom nothing is known. `fresh` is a new random number. */
void lineage_disown(struct lineage *l, uint64_t fresh);

#endif
