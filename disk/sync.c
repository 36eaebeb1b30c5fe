/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sync.c - the primary sends what changed before the link was there
 *
 * Mirroring is on before the bitmap is copied. So each change is in the copy or in the stream or in both.
 * A block is read and queued with its range locked, and so is a guest's write: whichever comes
 * second on storage comes second in the stream, and the peer ends with the newest content.
 */
#include "disk/disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_NS 200000000u

static bool all_zero(const char *p, size_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

static bool send_block(struct disk *d, char *buf, uint64_t block)
{
	uint64_t off = block * BITMAP_BLOCK, rest = d->storage.size - off;
	uint32_t len = rest < BITMAP_BLOCK ? (uint32_t)rest : BITMAP_BLOCK;
	struct range held;
	bool ok = false;
	int r;

	range_lock(&d->ranges, &held, off, len);
	r = svm_cache_read(&d->svm, buf, len, off); /* still an overlay soon after a failover */
	if (!r && all_zero(buf, len))
		ok = link_sync_zero(d, len, off);
	else if (!r)
		ok = link_sync_write(d, buf, len, off);
	range_unlock(&d->ranges, &held);
	if (r) {
		disk_storage_error(d, r, "reading for the peer");
		link_fail(d, "cannot read what the peer needs: %s", disk_strerror(-r));
	}
	return ok;
}

static void report(struct disk *d, uint64_t done, uint64_t total, bool last)
{
	struct disk_message m = {
		.op = last ? DISK_EV_SYNCED : DISK_EV_SYNC,
		.sync = { .done = done, .total = total },
	};

	control_send(d, &m, last);
}

static bool send_changed(struct disk *d, const struct bitmap *changed, char *buf)
{
	uint64_t total = bitmap_bytes(changed), done = 0, told = 0;

	for (uint64_t b = 0; (b = bitmap_next(changed, b)) < changed->blocks; b++) {
		uint64_t now = disk_now_ns();

		if (now - told >= PROGRESS_NS) {
			report(d, done, total, false);
			told = now;
		}
		if (!send_block(d, buf, b))
			return false;
		done += BITMAP_BLOCK;
	}
	report(d, done, total, true);
	return true;
}

void *sync_thread(void *disk)
{
	struct disk *d = disk;
	struct bitmap changed;
	char *buf = malloc(BITMAP_BLOCK);

	if (!buf || bitmap_copy(&changed, &d->changed)) {
		link_fail(d, "out of memory");
	} else {
		send_changed(d, &changed, buf);
		bitmap_free(&changed);
	}
	free(buf);
	return NULL;
}
