/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * qmp.c - see qmp.h
 */
#include "daemon/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/watch.h"

#define QMP_PENDING 32
#define QMP_LINE_MAX (1u << 20)

struct pending {
	qmp_reply_fn *fn;
	void *arg;
};

struct qmp {
	int fd;
	struct watch *watch;
	struct buffer in;
	qmp_event_fn *on_event;
	void *arg;
	struct pending pending[QMP_PENDING]; /* ring of commands without answer */
	unsigned int first, n;
	bool closed;
	bool reading, freed; /* by whom an answer was given to: on_readable() frees it */
};

static void answer(struct qmp *q, json_t *result, const char *error)
{
	struct pending p;

	if (!q->n)
		return;
	p = q->pending[q->first];
	q->first = (q->first + 1) % QMP_PENDING;
	q->n--;
	if (p.fn)
		p.fn(p.arg, result, error);
}

static void on_line(struct qmp *q, const char *line, size_t len)
{
	json_error_t err;
	json_t *msg = json_loadb(line, len, 0, &err), *part;

	if (!msg) {
		log_warn("QMP: unreadable line from QEMU: %s", err.text);
		return;
	}
	if ((part = json_object_get(msg, "event")))
		q->on_event(q->arg, json_string_value(part), json_object_get(msg, "data"));
	else if ((part = json_object_get(msg, "return")))
		answer(q, part, NULL);
	else if ((part = json_object_get(msg, "error")))
		answer(q, NULL, json_string_value(json_object_get(part, "desc")));
	json_decref(msg);
}

static void shut(struct qmp *q)
{
	q->closed = true;
	watch_events(q->watch, 0);
	while (q->n)
		answer(q, NULL, "connection closed");
}

static void destroy(struct qmp *q)
{
	buffer_free(&q->in);
	free(q);
}

static void on_readable(void *arg, int events)
{
	struct qmp *q = arg;
	ssize_t r = buffer_read_from(&q->in, q->fd, QMP_LINE_MAX);
	const uint8_t *p, *end;

	q->reading = true;
	if (r < 0 || !buffer_room(&q->in))
		shut(q);
	while (!q->closed && (p = buffer_peek(&q->in)) &&
	       (end = memchr(p, '\n', buffer_len(&q->in)))) {
		on_line(q, (const char *)p, end - p);
		buffer_skip(&q->in, end - p + 1);
	}
	q->reading = false;
	if (q->freed)
		destroy(q);
}

struct qmp *qmp_new(uv_loop_t *loop, int fd, qmp_event_fn *on_event, void *arg)
{
	struct qmp *q = calloc(1, sizeof(*q));

	if (!q || buffer_init(&q->in, QMP_LINE_MAX) < 0) {
		free(q);
		close(fd);
		return NULL;
	}
	q->fd = fd;
	q->on_event = on_event;
	q->arg = arg;
	wire_set_nonblock(fd, 1);
	q->watch = watch_new(loop, fd, UV_READABLE, on_readable, q);
	qmp_command(q, "qmp_capabilities", NULL, -1, NULL, NULL);
	return q;
}

void qmp_free(struct qmp *q)
{
	if (!q)
		return;
	shut(q);
	watch_free(q->watch);
	close(q->fd);
	q->freed = true;
	if (!q->reading)
		destroy(q);
}

int qmp_command(struct qmp *q, const char *command, json_t *args, int pass_fd, qmp_reply_fn *fn,
		void *arg)
{
	json_t *msg = args ? json_pack("{s:s, s:o}", "execute", command, "arguments", args) :
			     json_pack("{s:s}", "execute", command);
	char *text = msg ? json_dumps(msg, JSON_COMPACT) : NULL;
	int r = -ENOMEM;

	json_decref(msg);
	if (q->closed)
		r = -EPIPE;
	else if (q->n == QMP_PENDING)
		r = -EBUSY;
	else if (text)
		r = wire_send_fds(q->fd, text, strlen(text), &pass_fd, pass_fd >= 0 ? 1 : 0);
	free(text);
	if (r < 0)
		return r;
	q->pending[(q->first + q->n++) % QMP_PENDING] = (struct pending){ fn, arg };
	return 0;
}
