/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * watch.c - see watch.h
 */
#include "daemon/watch.h"

#include <stdlib.h>

struct watch {
	uv_poll_t poll;
	watch_fn *fn;
	void *arg;
	int events;
};

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct watch *w = poll->data;

	if (!w->fn)
		return;
	if (status < 0)
		events = UV_READABLE | UV_WRITABLE;
	w->fn(w->arg, events);
}

struct watch *watch_new(uv_loop_t *loop, int fd, int events, watch_fn *fn, void *arg)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w || uv_poll_init(loop, &w->poll, fd) < 0) {
		free(w);
		return NULL;
	}
	w->poll.data = w;
	w->fn = fn;
	w->arg = arg;
	watch_events(w, events);
	return w;
}

void watch_events(struct watch *w, int events)
{
	if (!w || w->events == events)
		return;
	w->events = events;
	if (events)
		uv_poll_start(&w->poll, events, on_poll);
	else
		uv_poll_stop(&w->poll);
}

static void on_closed(uv_handle_t *h)
{
	free(h->data);
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	w->fn = NULL;
	uv_close((uv_handle_t *)&w->poll, on_closed);
}
