/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fault.h - requests of the guest that storage failed while another host could serve them
 */
#ifndef COLO_DISK_FAULT_H
#define COLO_DISK_FAULT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct disk;

struct disk_fault {
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t released;
	uint64_t round;  /* how often all were released */
	unsigned parked; /* since the last time */
	bool closed;     /* nobody is left to decide: nothing is parked any more */
};

void fault_init(struct disk *d);
void fault_destroy(struct disk *d);
/* A request failed with r (-errno) in `doing`. As primary: does not return before it is decided that the guest
 * is to see the error; else at once. To be called without io and without a range. */
void fault_park(struct disk *d, int r, const char *doing);
/* The guest gets the errors: this host serves, with a disk that fails. */
void fault_release(struct disk *d);
/* As that, for good. */
void fault_close(struct disk *d);
unsigned fault_parked(struct disk *d);

#endif
