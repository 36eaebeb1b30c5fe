/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fault.c - requests of the guest that storage failed while another host could serve them
 *
 * Theory of operation. A guest that sees an I/O error remounts its file system read-only, or worse; its
 * twin on the other host has a disk that works. So a primary does not answer a request that failed: the
 * request is parked, the daemon is told once (DISK_EV_FAULT), and decides.
 *
 *   protected      the VM here is killed and the peer takes over: nobody ever sees the answer
 *   otherwise      DISK_FAULT, or SERVE, or UNLINK: the guest gets the errors, as from any disk
 *   daemon's end   likewise; there is nobody left to decide
 *
 * The link's loss alone releases nothing, since the peer may be taking over just then. A parked request
 * holds one of nbdkit's threads, no lock, and was neither mirrored nor acknowledged.
 */
#include "disk/fault.h"

#include <errno.h>
#include <stdio.h>

#include "disk/disk.h"

void fault_init(struct disk *d)
{
	d->fault = (struct disk_fault){ .parked = 0 };
	pthread_mutex_init(&d->fault.lock, NULL);
	pthread_cond_init(&d->fault.released, NULL);
}

void fault_destroy(struct disk *d)
{
	pthread_cond_destroy(&d->fault.released);
	pthread_mutex_destroy(&d->fault.lock);
}

static void tell_daemon(struct disk *d, int r, const char *doing)
{
	struct disk_message m = { .op = DISK_EV_FAULT, .status = r };

	snprintf(m.text, sizeof(m.text), "%s: %s failed: %s", d->config.file, doing, disk_strerror(-r));
	control_send(d, &m, true);
}

static bool may_park(struct disk *d, int r)
{
	return r != -ESHUTDOWN && atomic_load(&d->role) == DISK_PRIMARY && !d->fault.closed;
}

void fault_park(struct disk *d, int r, const char *doing)
{
	struct disk_fault *f = &d->fault;
	uint64_t round;

	pthread_mutex_lock(&f->lock);
	/* asked under the lock: the role ends before those are released who were parked for it */
	if (!may_park(d, r)) {
		pthread_mutex_unlock(&f->lock);
		return;
	}
	round = f->round;
	if (f->parked++ == 0) {
		pthread_mutex_unlock(&f->lock);
		tell_daemon(d, r, doing);
		pthread_mutex_lock(&f->lock);
	}
	while (f->round == round)
		pthread_cond_wait(&f->released, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

static void release(struct disk *d, bool for_good)
{
	struct disk_fault *f = &d->fault;

	pthread_mutex_lock(&f->lock);
	f->closed |= for_good;
	f->parked = 0;
	f->round++;
	pthread_cond_broadcast(&f->released);
	pthread_mutex_unlock(&f->lock);
}

void fault_release(struct disk *d)
{
	release(d, false);
}

void fault_close(struct disk *d)
{
	release(d, true);
}

unsigned fault_parked(struct disk *d)
{
	unsigned n;

	pthread_mutex_lock(&d->fault.lock);
	n = d->fault.parked;
	pthread_mutex_unlock(&d->fault.lock);
	return n;
}
