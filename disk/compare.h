/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * compare.h - compare blocks with the peer's, for sync and for verify
 *
 * For the link's worker thread on the primary only.
 */
#ifndef COLO_DISK_COMPARE_H
#define COLO_DISK_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "disk/bitmap.h"
#include "disk/disk_proto.h"

#define COMPARE_PLACES 4 /* of the differences that are named */

struct disk;

struct compare {
	struct disk *d;
	bool mend;        /* send what differs */
	bool tolerant;    /* what cannot be read here is left out; otherwise it ends the link */
	int error;        /* of the first block that could not be read */
	uint64_t unread;  /* where that was */
	uint64_t least_rate; /* holds if no rate is set; 0: none */
	struct bitmap todo;  /* blocks of this pass */
	struct bitmap again; /* for the next one: busy, or in what is a hole here only */
	bool busy;           /* some of `again` are busy */
	bool one_by_one;     /* holes are not asked about as one */
	uint64_t total, done; /* bytes of the disk that were to be compared, and are */
	uint64_t differing, mended; /* bytes, in parts */
	uint64_t places[COMPARE_PLACES];
	unsigned nplaces;
	/* pace and progress */
	uint64_t handled; /* questions: of those that were ever asked */
	uint64_t told_ns, paced_ns;
	double credit;    /* bytes that may be read now; negative: to be waited for */
	struct { uint64_t ns, done; } sample[2]; /* of `done` some seconds ago, for the ETA */
	char *buf;        /* one block */
};

/* Compares everything in `blocks`, which it takes over even if it fails. -ENOMEM. */
int compare_init(struct compare *c, struct disk *d, struct bitmap *blocks, bool mend, uint64_t least_rate);
void compare_free(struct compare *c);
/* One pass over todo; what is left is in todo then, busy or not. False: the link is gone. */
bool compare_pass(struct compare *c);
bool compare_finished(const struct compare *c);
/* Figures for an event. */
void compare_progress(struct compare *c, struct disk_message *m);

#endif
