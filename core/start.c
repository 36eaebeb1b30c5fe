/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * start.c - see start.h
 *
 * Theory of operation: let a copy of the guest's disks be the newest if no other one was written by a VM
 * that served later. Only the newest may serve. By its own disks a node knows
 *   a mixture            half received or half synced: nothing that ever was a disk. Never serves.
 *   served, not shared   its VM served alone when it ended, and nobody could take over: the newest.
 *   served and shared    it was mirrored to a peer, which may have taken over after: UNDECIDED. A peer that
 *                        serves is the newest. A peer that is no newer, and says so, cannot have.
 *   received             a copy of what the peer had, as of the last checkpoint. The peer is the newest,
 *                        unless it is lost; which only a person can know.
 *   new                  no past: as configured. All zeroes are probably the wrong file, or the lost disk.
 * Disks of one VM share one past. Where one of them has none it was added, or lost and replaced.
 *
 * Whoever begins to serve alone claims a generation of the arbiter before. So, beyond what the disks know,
 *   this host won last   nobody served after it: what it served, shared or not, is the newest. Disks that were
 *                        received: it won, but ended before it served. What was shared may have a VM yet, on the peer,
 *                        which has not noticed, when this host was away for less than that takes: UNDECIDED as long
 *                        as this may be, for that VM lives, and what begins here is a boot.
 *   the peer won last    nothing here is newer than what the peer has, unless that ended before it served:
 *                        UNDECIDED for what was served here, and new disks are there to be written to.
 *   unknown              the arbiter does not answer. Who is secondary anyhow need not wait for it; others are
 *                        UNDECIDED until it does: a peer that serves may take them meanwhile.
 */
#include "core/start.h"

#include <stdio.h>

#define CLAIM_US 500000 /* enough for a claim of the peer */

struct kinds {
	unsigned int fresh, blank, mixture, shared, received;
	unsigned int first_fresh, first_mixture;
};

static struct kinds count(const struct lineage *disks, unsigned int n)
{
	struct kinds k = { 0 };
	unsigned int i;

	for (i = n; i-- > 0;) {
		uint32_t f = disks[i].flags;

		if (f & LINEAGE_NEW) {
			k.fresh++;
			k.blank += (f & LINEAGE_BLANK) != 0;
			k.first_fresh = i;
		} else if (!(f & LINEAGE_CONSISTENT)) {
			k.mixture++;
			k.first_mixture = i;
		} else if (!(f & LINEAGE_SERVED)) {
			k.received++;
		} else {
			k.shared += (f & LINEAGE_SHARED) != 0;
		}
	}
	return k;
}

static enum start_role decide_new(const struct start_node *n, const struct kinds *k, unsigned int ndisks,
				  char *text, size_t size)
{
	if (!n->configured_primary || n->owner == START_PEER)
		return START_SECONDARY;
	if (!ndisks || k->blank < ndisks || n->boots_without_disk)
		return START_PRIMARY;
	snprintf(text, size, "this host is to be primary, but there is nothing on its %s. If %s has the VM's, start "
		 "this host with --role secondary and that one with --role primary; to boot from %s, "
		 "start with --role primary", ndisks > 1 ? "disks" : "disk", n->peer,
		 ndisks > 1 ? "the empty disks" : "the empty disk");
	return START_REFUSED;
}

static enum start_role received(const struct start_node *n, char *text, size_t size)
{
	snprintf(text, size, "%s served last as far as this host's disks know: waiting for %s. If %s is lost for good, end "
		 "this daemon and start it with --role primary: that serves what this host last received", n->peer,
		 n->peer, n->peer);
	return START_SECONDARY;
}

static enum start_role mixture(const struct start_node *n, char *text, size_t size)
{
	snprintf(text, size, "copying from %s to this host did not end, so that its disks cannot be served: waiting for %s",
		 n->peer, n->peer);
	return START_SECONDARY;
}

static enum start_role odd_one(const struct start_node *n, const struct kinds *k, char *text, size_t size)
{
	snprintf(text, size, "disk%u has no past on this host, but other disks of the VM have: if it was added, "
		 "start with --role primary; if it was lost and replaced, with --role secondary, so that it "
		 "is copied from %s", k->first_fresh, n->peer);
	return START_REFUSED;
}

/* It was served here, but the peer has, or may have, served since. */
static enum start_role wait_for_peer(const struct start_node *n, char *text, size_t size)
{
	if (n->owner == START_PEER)
		snprintf(text, size, "%s served last, in generation %llu, says the arbiter; this host served before that: "
			 "waiting for %s. If %s is lost for good, end this daemon and start it with --role primary: "
			 "what %s wrote since is lost then", n->peer, (unsigned long long)n->generation, n->peer,
			 n->peer, n->peer);
	else
		snprintf(text, size, "this host served last as far as it knows, but %s had a copy and may have taken over "
			 "since: waiting for %s. If %s is lost, or did not serve after this host, end this daemon and "
			 "start it with --role primary", n->peer, n->peer, n->peer);
	return START_UNDECIDED;
}

uint64_t start_patience_us(uint64_t heartbeat_us, unsigned int misses)
{
	return 2 * heartbeat_us * misses + CLAIM_US;
}

/* Nobody served after this host yet, but the peer may be about to. */
static enum start_role let_take_over(const struct start_node *n, char *text, size_t size)
{
	snprintf(text, size, "this host served last, and %s may still run a copy of the VM: it is given the time to take "
		 "over", n->peer);
	return START_UNDECIDED;
}

static enum start_role decide_known(const struct start_node *n, const struct kinds *k, char *text, size_t size)
{
	if (k->mixture)
		return mixture(n, text, size);
	if (k->received)
		return received(n, text, size);
	if (n->owner == START_PEER)
		return wait_for_peer(n, text, size);
	if (k->fresh)
		return odd_one(n, k, text, size);
	if (k->shared && n->owner == START_NOBODY)
		return wait_for_peer(n, text, size);
	return k->shared && !n->waited ? let_take_over(n, text, size) : START_PRIMARY;
}

/* the same whatever the arbiter would say, or UNDECIDED */
static enum start_role decide_without(const struct start_node *n, const struct kinds *k, unsigned int ndisks,
				      char *text, size_t size)
{
	if (k->mixture || k->received)
		return decide_known(n, k, text, size);
	if (k->fresh == ndisks && !n->configured_primary)
		return START_SECONDARY;
	snprintf(text, size, "waiting for the arbiter, to know who served last, and for %s, which may serve", n->peer);
	return START_UNDECIDED;
}

static enum start_role as_primary(const struct start_node *n, const struct kinds *k, char *text, size_t size)
{
	if (!k->mixture)
		return START_PRIMARY;
	snprintf(text, size, "--role primary: disk%u is a mixture of old and new content, because copying from "
		 "%s to it did not end. It cannot be served; start %s, or restore the disk", k->first_mixture,
		 n->peer, n->peer);
	return START_REFUSED;
}

enum start_role start_decide(const struct start_node *n, const struct lineage *disks, unsigned int ndisks,
			     char *text, size_t size)
{
	struct kinds k = count(disks, ndisks);

	text[0] = 0;
	if (n->asked == START_SECONDARY)
		return START_SECONDARY;
	if (n->asked == START_PRIMARY)
		return as_primary(n, &k, text, size);
	if (n->owner == START_UNKNOWN)
		return decide_without(n, &k, ndisks, text, size);
	return k.fresh == ndisks ? decide_new(n, &k, ndisks, text, size) : decide_known(n, &k, text, size);
}

/* the worst of all disks decides; false: this disk cannot be received by the peer */
static bool may_give(const struct lineage *mine, const struct lineage *its, unsigned int n, unsigned int *disk,
		     enum lineage_verdict *v)
{
	for (*disk = 0; *disk < n; ++*disk) {
		*v = lineage_judge(&mine[*disk], &its[*disk]);
		if (*v != LINEAGE_CHANGED && *v != LINEAGE_ALL)
			return false;
	}
	return true;
}

enum start_role start_hears(const struct lineage *mine, const struct lineage *its, unsigned int ndisks,
			    bool peer_undecided, const char *me, const char *peer, char *text, size_t size)
{
	enum lineage_verdict v = LINEAGE_CHANGED;
	char why[300] = "";
	unsigned int i;

	text[0] = 0;
	if (!may_give(mine, its, ndisks, &i, &v)) {
		lineage_explain(v, me, peer, why, sizeof(why));
		snprintf(text, size, "disk%u: %s", i, why);
		return START_UNDECIDED;
	}
	if (!peer_undecided)
		return START_PRIMARY;
	/* both wait: only the one whose copy the other's cannot replace is the newer one */
	for (i = 0; i < ndisks; i++)
		if (lineage_judge(&its[i], &mine[i]) == LINEAGE_TARGET_NEWER)
			return START_PRIMARY;
	snprintf(text, size, "%s and %s have equal right to serve: start one of them with --role primary", me, peer);
	return START_UNDECIDED;
}
