/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * qmp.h - QMP client on a connected socket
 *
 * Commands are answered in order. All of QEMU's events are read, so that QEMU's queue never grows.
 */
#ifndef COLO_QMP_H
#define COLO_QMP_H

#include <jansson.h>
#include <uv.h>

struct qmp;
/* result: the "return" value (borrowed), or NULL and error text. Called once for each command,
 * with "connection closed" if QEMU ends before. */
typedef void qmp_reply_fn(void *arg, json_t *result, const char *error);
typedef void qmp_event_fn(void *arg, const char *event, json_t *data);

/* takes fd; negotiates capabilities by itself */
struct qmp *qmp_new(uv_loop_t *loop, int fd, qmp_event_fn *on_event, void *arg);
void qmp_free(struct qmp *q); /* also from a callback of its own */
/* args: stolen, may be NULL. pass_fd: >= 0 travels along (not closed). fn may be NULL. 0 or -errno. */
int qmp_command(struct qmp *q, const char *command, json_t *args, int pass_fd, qmp_reply_fn *fn,
		void *arg);

#endif
