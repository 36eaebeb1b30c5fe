/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * track.c - harvest what the PVM wrote since the last checkpoint
 */
#include "track.h"

#include <errno.h>

#include "wp.h"

static struct {
	bool active;
	bool all_dirty; /* a harvest failed half way: what was written is no longer known */
	struct pagemap_iter it;
} track;

int track_start(const struct ram *ram, struct errtext *err)
{
	int ret = wp_arm(ram, err);

	track.all_dirty = ret < 0;
	track.active = track.active || ret == 0;
	return ret;
}

void track_stop(void)
{
	wp_disarm();
	track.active = false;
}

bool track_active(void)
{
	return track.active;
}

void track_forget(void)
{
	track.all_dirty = true;
}

static int harvest_block(const struct ram_block *b, uint32_t index, struct stage_writer *w,
			 struct track_times *times, struct errtext *err)
{
	struct pagemap_iter *it = &track.it;
	int64_t t = now_ns();
	int n;

	wp_begin(it, WP_WRITTEN, b);
	while ((n = wp_next(it, err)) > 0) {
		int64_t scanned = now_ns();

		for (int i = 0; i < n; i++) {
			const uint8_t *from = (const uint8_t *)(uintptr_t)it->region[i].start;

			if (stage_add(w, index, from - b->host, from,
				      (it->region[i].end - it->region[i].start) / PAGE) < 0)
				return agent_fail(err, -ENOSPC, "staging area full");
		}
		times->scan_ns += scanned - t;
		t = now_ns();
		times->copy_ns += t - scanned;
	}
	times->scan_ns += now_ns() - t;
	return n;
}

static int harvest_all(const struct ram *ram, struct stage_writer *w, struct track_times *times,
		       struct errtext *err)
{
	int64_t t = now_ns();
	int ret = wp_clean(ram, err);

	times->scan_ns = now_ns() - t;
	for (unsigned int i = 0; i < ram->n && ret == 0; i++) {
		const struct ram_block *b = &ram->block[i];

		if (stage_add(w, i, 0, b->host, b->size / PAGE) < 0)
			ret = agent_fail(err, -ENOSPC, "staging area full");
	}
	times->copy_ns = now_ns() - t - times->scan_ns;
	return ret;
}

int track_harvest(const struct ram *ram, struct stage_writer *w, struct track_times *times,
		  struct errtext *err)
{
	int ret = 0;

	*times = (struct track_times){ 0 };
	if (track.all_dirty)
		ret = harvest_all(ram, w, times, err);
	else
		for (unsigned int i = 0; i < ram->n && ret == 0; i++)
			ret = harvest_block(&ram->block[i], i, w, times, err);
	track.all_dirty = ret < 0;
	return ret;
}
