/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * role.c - the daemon's requests: who we are, and which content counts
 *
 *   ALONE ----LINK primary----> PRIMARY     UNLINK, or the link's loss, lead back
 *   ALONE ----LINK secondary--> SECONDARY   UNLINK, or the link's loss, change nothing: what was
 *                                           received up to a boundary can still be committed
 *   SECONDARY --LINK secondary> SECONDARY   starts over: both caches are dropped, the next boundary
 *                                           gives storage its meaning again
 *   SECONDARY --FAILOVER------> ALONE       with the SVM's writes on top
 *
 * A secondary's storage means nothing before its first COMMIT (`based`) and while a commit has failed
 * half-way (`torn`): no failover then.
 */
#include "disk/disk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void role_refuse(struct disk_message *answer, int status, const char *fmt, ...)
{
	va_list ap;

	answer->status = status;
	va_start(ap, fmt);
	vsnprintf(answer->text, sizeof(answer->text), fmt, ap);
	va_end(ap);
}

static void become_primary(struct disk *d, int fd, const struct disk_request *req, struct disk_message *answer)
{
	struct meta_state s;
	int r;

	if (d->role != DISK_ALONE || !d->serving) {
		role_refuse(answer, -EINVAL, "only a disk that serves alone can become primary");
		return;
	}
	meta_get(&d->meta, &s);
	if (s.lineage.flags & LINEAGE_SHARED) {
		/* two peers must never have one generation as of different checkpoints */
		role_refuse(answer, -EINVAL, "SERVE has to come first: the last peer may have this generation");
		return;
	}
	r = link_open(d, fd, DISK_PRIMARY, req->flags & DISK_LINK_ALL);
	if (r)
		role_refuse(answer, r, "cannot set up the link: %s", disk_strerror(-r));
	else
		d->role = DISK_PRIMARY;
}

/* The daemon has judged the lineages: the peer's content is what counts now. What this disk has goes on to
 * count until the first of it arrives: see commit_receive(). */
static void become_secondary(struct disk *d, int fd, const struct disk_request *req,
			     struct disk_message *answer)
{
	int r = link_open(d, fd, DISK_SECONDARY, false);

	if (r) {
		role_refuse(answer, r, "cannot set up the link: %s", disk_strerror(-r));
		return;
	}
	settle_abandon(d);
	d->source = req->peer;
	pthread_rwlock_wrlock(&d->io);
	commit_reset(d);
	d->role = DISK_SECONDARY;
	d->serving = false;
	pthread_rwlock_unlock(&d->io);
}

/* What stands in the way of any link; 0 if nothing does. */
static int link_fault(struct disk *d, int fd, struct disk_message *answer)
{
	if (fd < 0)
		role_refuse(answer, -EBADF, "LINK without a descriptor");
	else if (link_usable(fd))
		role_refuse(answer, link_usable(fd), "the descriptor is not a stream socket");
	else if (d->link.fd >= 0)
		role_refuse(answer, -EBUSY, "there is a link already");
	else if (d->config.read_only)
		role_refuse(answer, -EROFS, "a read-only disk is not mirrored");
	else if (!d->opened)
		role_refuse(answer, -EINVAL, "OPEN comes before LINK");
	return answer->status;
}

void role_link(struct disk *d, int fd, const struct disk_request *req, struct disk_message *answer)
{
	if (link_fault(d, fd, answer))
		return;
	if (req->role == DISK_PRIMARY)
		become_primary(d, fd, req, answer);
	else if (req->role == DISK_SECONDARY)
		become_secondary(d, fd, req, answer);
	else
		role_refuse(answer, -EINVAL, "role %u is neither primary nor secondary", req->role);
}

/* Without the link: the primary goes on alone, the secondary stays what it is. */
static void drop_link(struct disk *d)
{
	link_close(d);
	dirty_unlinked(d);
	if (d->role == DISK_PRIMARY)
		d->role = DISK_ALONE;
}

void role_unlink(struct disk *d, struct disk_message *answer)
{
	drop_link(d);
	if (d->role == DISK_SECONDARY && !d->based)
		snprintf(answer->text, sizeof(answer->text), ROLE_UNDEFINED);
}

void role_link_lost(struct disk *d)
{
	char why[sizeof(d->link.reason)];

	pthread_mutex_lock(&d->link.lock);
	memcpy(why, d->link.reason, sizeof(why));
	pthread_mutex_unlock(&d->link.lock);
	drop_link(d);
	control_event(d, DISK_EV_LINK_LOST, 0, true, why);
}

static const char *describe(const struct disk *d)
{
	bool linked = d->link.fd >= 0;

	switch (d->role) {
	case DISK_PRIMARY:
		return "primary";
	case DISK_SECONDARY:
		if (d->torn)
			return "secondary, a commit failed half-way: content undefined until it is repeated";
		if (!d->based)
			return linked ? "secondary, first sync under way: content undefined until a commit"
				      : "secondary without link: " ROLE_UNDEFINED;
		return linked ? "secondary" : "secondary without link";
	default:
		return d->settle.writing_back ? "alone, writing the SVM's blocks back" : "alone";
	}
}

void role_status(struct disk *d, struct disk_message *answer)
{
	struct meta_state s;

	if (!d->config.read_only) {
		meta_get(&d->meta, &s);
		answer->status_reply.lineage = s.lineage;
	}
	answer->status_reply.pvm_cache_bytes = pvm_cache_bytes(&d->pvm);
	answer->status_reply.svm_cache_bytes = svm_cache_bytes(&d->svm);
	answer->status_reply.memory_bytes = pvm_cache_memory_bytes(&d->pvm) + svm_cache_memory_bytes(&d->svm) +
					    (d->link.fd >= 0 ? d->link.ring_size : 0);
	answer->status_reply.journal_bytes = pvm_cache_journal_bytes(&d->pvm);
	answer->status_reply.mirrored_bytes = d->link.moved;
	answer->status_reply.changed_bytes = dirty_bytes(d);
	answer->status_reply.reads = d->reads;
	answer->status_reply.writes = d->writes;
	answer->status_reply.flushes = d->flushes;
	snprintf(answer->text, sizeof(answer->text), "%s", describe(d));
}
