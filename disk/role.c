/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * role.c - the daemon's requests: who we are, and which content counts
 *
 *   ALONE ----LINK primary----> PRIMARY     UNLINK, or the link's loss, lead back
 *   ALONE ----LINK secondary--> SECONDARY   UNLINK, or the link's loss, change nothing: what was
 *                                           received up to a boundary can still be committed
 *   SECONDARY --LINK secondary> SECONDARY   starts over: both caches are dropped, the next boundary
 *                                           gives storage its meaning again. Right only with the same
 *                                           primary process as before, whose bitmap covers all
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

#define YET_UNDEFINED "no checkpoint was committed yet: the content of this disk is undefined"

__attribute__((format(printf, 3, 4)))
static void refuse(struct disk_message *answer, int status, const char *fmt, ...)
{
	va_list ap;

	answer->status = status;
	va_start(ap, fmt);
	vsnprintf(answer->text, sizeof(answer->text), fmt, ap);
	va_end(ap);
}

static void become_primary(struct disk *d, int fd, struct disk_message *answer)
{
	int r;

	if (d->role != DISK_ALONE) {
		refuse(answer, -EINVAL, "only a disk that is alone can become primary");
		return;
	}
	r = link_open(d, fd, DISK_PRIMARY);
	if (r)
		refuse(answer, r, "the descriptor is not a stream socket");
	else
		d->role = DISK_PRIMARY;
}

/* What stands in the way of receiving a peer's content, or NULL. */
static const char *cannot_receive(struct disk *d)
{
	if (d->role == DISK_SECONDARY)
		return NULL;
	if (!svm_cache_empty(&d->svm))
		return "the SVM's writes are still being written back";
	if (d->changed.set)
		return "this disk was written to since it was opened: start its disk manager anew, so that its "
		       "identity is that of its content";
	return NULL;
}

static void become_secondary(struct disk *d, int fd, struct disk_message *answer)
{
	const char *why = cannot_receive(d);
	int r;

	if (why) {
		refuse(answer, -EBUSY, "%s", why);
		return;
	}
	r = link_open(d, fd, DISK_SECONDARY);
	if (r) {
		refuse(answer, r, "the descriptor is not a stream socket");
		return;
	}
	pthread_rwlock_wrlock(&d->io);
	pvm_cache_drop(&d->pvm);
	svm_cache_drop(&d->svm);
	d->based = d->torn = false;
	d->role = DISK_SECONDARY;
	pthread_rwlock_unlock(&d->io);
}

void role_link(struct disk *d, int fd, uint32_t role, struct disk_message *answer)
{
	if (fd < 0)
		refuse(answer, -EBADF, "LINK without a descriptor");
	else if (d->link.fd >= 0)
		refuse(answer, -EBUSY, "there is a link already");
	else if (role == DISK_PRIMARY)
		become_primary(d, fd, answer);
	else if (role == DISK_SECONDARY)
		become_secondary(d, fd, answer);
	else
		refuse(answer, -EINVAL, "role %u is neither primary nor secondary", role);
}

/* Without the link: the primary goes on alone, the secondary stays what it is. */
static void drop_link(struct disk *d)
{
	link_close(d);
	if (d->role == DISK_PRIMARY)
		d->role = DISK_ALONE;
}

void role_unlink(struct disk *d, struct disk_message *answer)
{
	drop_link(d);
	if (d->role == DISK_SECONDARY && !d->based)
		snprintf(answer->text, sizeof(answer->text), YET_UNDEFINED);
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

void role_boundary(struct disk *d, uint64_t epoch, struct disk_message *answer)
{
	int r;

	if (d->role != DISK_PRIMARY) {
		refuse(answer, -EINVAL, "only a primary marks boundaries");
		return;
	}
	r = link_mark(d, epoch);
	if (r == -EINVAL)
		refuse(answer, r, "epoch %llu is not above the one before", (unsigned long long)epoch);
	else if (r)
		refuse(answer, r, "%s", r == -ENOTCONN ? "the link is lost" : "the link's ring is full of marks");
}

static int apply_record(void *opaque, uint64_t off, const void *data, uint32_t len)
{
	struct disk *d = opaque;

	bitmap_note(&d->changed, off, len);
	return data ? storage_write(&d->storage, data, len, off)
		    : storage_zero(&d->storage, len, off, true);
}

void role_commit(struct disk *d, uint64_t epoch, struct disk_message *answer)
{
	int r = -EINVAL;

	pthread_rwlock_wrlock(&d->io);
	if (d->role == DISK_SECONDARY) {
		r = pvm_cache_commit(&d->pvm, epoch, apply_record, d);
		if (!r) {
			svm_cache_drop(&d->svm);
			d->based = true;
			d->torn = false;
		} else if (r != -ENOENT) {
			d->torn = true;
		}
	}
	pthread_rwlock_unlock(&d->io);
	if (!r)
		settle_kick(d);
	else if (r == -EINVAL && d->role != DISK_SECONDARY)
		refuse(answer, r, "only a secondary commits");
	else if (r == -ENOENT)
		refuse(answer, r, "the boundary of epoch %llu is not here", (unsigned long long)epoch);
	else
		refuse(answer, r, "writing the checkpoint to storage failed: %s", disk_strerror(-r));
}

/* What the SVM wrote differs from what the pair agreed on. */
static void note_cached_blocks(struct disk *d)
{
	uint64_t off = 0, len;

	while (svm_cache_next(&d->svm, off, d->storage.size, UINT64_MAX, &off, &len)) {
		bitmap_note(&d->changed, off, len);
		off += len;
		if (off >= d->storage.size)
			break;
	}
}

void role_failover(struct disk *d, struct disk_message *answer)
{
	if (d->role != DISK_SECONDARY) {
		refuse(answer, -EINVAL, "only a secondary can fail over");
		return;
	}
	if (!d->based || d->torn) {
		refuse(answer, -ENODATA, "%s",
		       d->torn ? "a commit failed half-way: repeat it first" : YET_UNDEFINED);
		return;
	}
	link_close(d);
	pthread_rwlock_wrlock(&d->io);
	pvm_cache_drop(&d->pvm);
	note_cached_blocks(d);
	settle_write_back(d); /* before any guest's flush can be seen as ours to keep */
	d->role = DISK_ALONE;
	pthread_rwlock_unlock(&d->io);
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
				      : "secondary without link: " YET_UNDEFINED;
		return linked ? "secondary" : "secondary without link";
	default:
		return d->settle.writing_back ? "alone, writing the SVM's blocks back" : "alone";
	}
}

void role_status(struct disk *d, struct disk_message *answer)
{
	answer->status_reply.pvm_cache_bytes = pvm_cache_bytes(&d->pvm);
	answer->status_reply.svm_cache_bytes = svm_cache_bytes(&d->svm);
	answer->status_reply.mirrored_bytes = d->link.moved;
	answer->status_reply.changed_bytes = bitmap_bytes(&d->changed);
	answer->status_reply.reads = d->reads;
	answer->status_reply.writes = d->writes;
	answer->status_reply.flushes = d->flushes;
	snprintf(answer->text, sizeof(answer->text), "%s", describe(d));
}
