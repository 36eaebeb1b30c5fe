/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * commit.c - the daemon's requests that end an epoch or a pair: BOUNDARY, COMMIT, FAILOVER
 */
#include "disk/disk.h"

#include <errno.h>

void role_boundary(struct disk *d, uint64_t epoch, struct disk_message *answer)
{
	int r;

	if (d->role != DISK_PRIMARY) {
		role_refuse(answer, -EINVAL, "only a primary marks boundaries");
		return;
	}
	r = link_mark(d, epoch);
	if (!r)
		dirty_boundary(d, epoch);
	if (r == -EBUSY)
		role_refuse(answer, r, "the peer does not have the whole disk yet");
	else if (r == -EINVAL)
		role_refuse(answer, r, "epoch %llu is not above the one before", (unsigned long long)epoch);
	else if (r)
		role_refuse(answer, r, "%s", r == -ENOTCONN ? "the link is lost" : "the link's ring is full of marks");
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
	if (!r) {
		settle_kick(d);
		link_send_committed(d, epoch); /* without a link it counts all the same */
	}
	else if (r == -EINVAL && d->role != DISK_SECONDARY)
		role_refuse(answer, r, "only a secondary commits");
	else if (r == -ENOENT)
		role_refuse(answer, r, "the boundary of epoch %llu is not here", (unsigned long long)epoch);
	else
		role_refuse(answer, r, "writing the checkpoint to storage failed: %s", disk_strerror(-r));
}

/* What the SVM wrote differs from what the pair agreed on. */
static void note_cached_blocks(struct disk *d)
{
	uint64_t off = 0, len;

	while (svm_cache_next(&d->svm, off, d->storage.size, UINT64_MAX, &off, &len)) {
		(void)dirty_note(d, off, len); /* a failure is remembered, and fails the writes that follow */
		off += len;
		if (off >= d->storage.size)
			break;
	}
}

void role_failover(struct disk *d, uint64_t generation, struct disk_message *answer)
{
	if (d->role != DISK_SECONDARY) {
		role_refuse(answer, -EINVAL, "only a secondary can fail over");
		return;
	}
	if (!d->based || d->torn) {
		role_refuse(answer, -ENODATA, "%s",
		       d->torn ? "a commit failed half-way: repeat it first" : ROLE_UNDEFINED);
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

void role_serve(struct disk *d, struct disk_message *answer)
{
	int r;

	if (d->role == DISK_SECONDARY)
		role_refuse(answer, -EINVAL, "a secondary serves after FAILOVER");
	else if (d->role == DISK_PRIMARY)
		role_refuse(answer, -EBUSY, "the link to the peer stands");
	else if (!d->opened)
		role_refuse(answer, -EINVAL, "OPEN comes before SERVE");
	else if ((r = disk_go_alone(d, disk_random())))
		role_refuse(answer, r, "noting that this host serves: %s", disk_strerror(-r));
}
