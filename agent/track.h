/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * track.h - which pages of guest RAM were written since the last checkpoint
 */
#ifndef COLO_AGENT_TRACK_H
#define COLO_AGENT_TRACK_H

#include <stdbool.h>

#include "ram.h"
#include "stage.h"

/* Arm tracking of all blocks if it is not yet, and call everything clean. */
int track_start(const struct ram *ram, struct errtext *err);
void track_stop(void);
bool track_active(void);

struct track_times {
	int64_t scan_ns, copy_ns;
};

/*
 * Copy everything written since the last harvest (or track_start) into the staging area. Only
 * while the VM stands still. A harvest that fails loses nothing: the next one takes all of RAM.
 */
int track_harvest(const struct ram *ram, struct stage_writer *w, struct track_times *times,
		  struct errtext *err);

/* What was harvested last is lost: let the next harvest take all of RAM. */
void track_forget(void);

#endif
