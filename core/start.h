/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * start.h - which role a node begins in
 *
 * Pure. What the node's own disks say of their past decides, with what the arbiter says of who served last, and
 * the operator may decide otherwise; the configuration's `primary` only counts for disks that have no past.
 * Where neither can know it (the peer may have taken over since), the node asks the peer: start_hears().
 * That a node decides to be primary is not enough to serve: it claims the next generation first.
 */
#ifndef COLO_START_H
#define COLO_START_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/lineage.h"

enum start_role { START_BY_DISKS, START_PRIMARY, START_SECONDARY, START_UNDECIDED, START_REFUSED };

/* who the arbiter says won the last claim: whoever serves alone has claimed before */
enum start_owner {
	START_NOBODY,  /* nobody ever claimed, or there is no arbiter that could know */
	START_ME,
	START_PEER,
	START_UNKNOWN, /* the arbiter has not answered yet */
};

struct start_node {
	enum start_role asked;   /* --role: BY_DISKS, PRIMARY or SECONDARY */
	bool configured_primary;
	bool boots_without_disk; /* from a kernel or a CD: an empty disk is no mistake */
	const char *peer;        /* its name */
	enum start_owner owner;
	uint64_t generation;     /* of the owner's claim */
	bool waited;             /* since this node's start, start_patience_us() */
};

/* So long after its start a node may be sure that a peer which runs the SVM has noticed that the primary is gone, and
 * has asked the arbiter. */
uint64_t start_patience_us(uint64_t heartbeat_us, unsigned int misses);

/* Of the lineages of the writable disks. text: why, for a person; not empty for UNDECIDED and REFUSED, and for a
 * SECONDARY whose peer is believed to have newer disks. */
enum start_role start_decide(const struct start_node *n, const struct lineage *disks, unsigned int ndisks,
			     char *text, size_t size);

/* This node is undecided and the peer, which does not serve, says hello. PRIMARY: nothing newer than this
 * node's disks is there; UNDECIDED: go on waiting, text says why. */
enum start_role start_hears(const struct lineage *mine, const struct lineage *its, unsigned int ndisks,
			    bool peer_undecided, const char *me, const char *peer, char *text, size_t size);

#endif
