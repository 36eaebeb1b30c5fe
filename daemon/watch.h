/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * watch.h - a descriptor in the event loop (libuv's uv_poll with its life cycle hidden)
 */
#ifndef COLO_WATCH_H
#define COLO_WATCH_H

#include <uv.h>

struct watch;
/* events: UV_READABLE, UV_WRITABLE; both for an error, so that the next call on the fd reports it */
typedef void watch_fn(void *arg, int events);

struct watch *watch_new(uv_loop_t *loop, int fd, int events, watch_fn *fn, void *arg);
void watch_events(struct watch *w, int events); /* 0: pause */
void watch_free(struct watch *w); /* NULL is fine; the descriptor may be closed afterwards */

#endif
