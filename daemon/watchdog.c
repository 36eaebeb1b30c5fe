/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * watchdog.c - signs of life for the supervisor (cli/run.c)
 */
#include <unistd.h>

#include "daemon/daemon.h"

#define PET_MS 1000

static void sign(struct daemon *d, enum watchdog_sign s)
{
	char c = (char)s;

	/* a pipe that is full has enough of them */
	if (d->options.supervised && write(d->options.watchdog_fd, &c, 1) < 0)
		return;
}

static bool is_up(const struct daemon *d)
{
	return (d->core.state != CORE_STARTING && d->core.state != CORE_FAILED) || start_is_undecided(d);
}

void watchdog_state(struct daemon *d)
{
	if (d->was_up || !is_up(d))
		return;
	d->was_up = true;
	sign(d, WATCHDOG_UP);
}

static void on_pet(uv_timer_t *t)
{
	watchdog_state(t->data);
	sign(t->data, WATCHDOG_ALIVE);
}

void watchdog_start(struct daemon *d)
{
	uv_timer_start(&d->pet, on_pet, PET_MS, PET_MS);
}

void watchdog_ending(struct daemon *d)
{
	sign(d, WATCHDOG_ENDING);
}
