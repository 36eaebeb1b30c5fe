/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * standby_save.c - the driver standby on the primary: CHECKPOINT (standby.c has the theory)
 *
 * QMP `stop`, then `migrate` into a socketpair, with RAM left out; what comes is device state. When QEMU has closed its
 * end the migration is over, and the VM stands still for good: the agent marks the boundary and harvests, then `cont`.
 * Before that, `cont` would come in the middle of a migration.
 *
 * QEMU 11.1 was seen to leave the migration's last step undone until something else woke its main loop: it is asked for its
 * state as long as the end has not come.
 *
 * Should anything fail after `stop` the migration is cancelled, and the VM is told to run on until it does. One that
 * does not is as good as one that hangs.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define SETTLE_MS 10
#define WAKE_MS 20 /* longer than a migration takes, so that QEMU is seldom asked */
#define SETTLE_LIMIT_NS 10000000000ull
#define PIECE (256u << 10)

void standby_save_drop(struct daemon *d)
{
	struct standby *s = &d->standby;

	if (s->save != SAVE_IDLE)
		uv_timer_stop(&s->step);
	s->save = SAVE_IDLE;
	standby_close(&s->save_watch, &s->save_fd);
}

/* --- it failed --- */

static void settle_later(struct daemon *d);

static void on_settled(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;
	struct standby *s = &d->standby;

	if (s->save != SAVE_SETTLING)
		return;
	if (!error) {
		s->save = SAVE_IDLE;
		standby_finish(d, s->reply.status, s->reply.error);
	} else if (clock_now_ns() - s->cont_ns < SETTLE_LIMIT_NS) {
		settle_later(d); /* the migration's last step is not done yet */
	} else {
		log_error("QEMU does not let the VM run on: %s", error);
		s->save = SAVE_IDLE;
		daemon_event(d, (struct core_event){ .type = CORE_EV_VM_WEDGED });
		standby_finish(d, s->reply.status, s->reply.error);
	}
}

static void on_settling(void *arg, json_t *result, const char *error)
{
	const char *status = json_string_value(json_object_get(result, "status"));
	struct daemon *d = arg;

	if (d->standby.save != SAVE_SETTLING)
		return;
	if (!error && (!status || !strcmp(status, "none") || !strcmp(status, "completed") || !strcmp(status, "failed") ||
		       !strcmp(status, "cancelled")))
		qmp_command(d->vm.qmp, "cont", NULL, -1, on_settled, d);
	else
		settle_later(d);
}

static void on_settle(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->vm.qmp && d->standby.save == SAVE_SETTLING)
		qmp_command(d->vm.qmp, "query-migrate", NULL, -1, on_settling, d);
}

static void settle_later(struct daemon *d)
{
	uv_timer_start(&d->standby.step, on_settle, SETTLE_MS, 0);
}

void standby_save_failed(struct daemon *d, int status, const char *why)
{
	struct standby *s = &d->standby;

	if (s->save == SAVE_IDLE || s->save == SAVE_SETTLING)
		return;
	s->save = SAVE_SETTLING;
	uv_timer_stop(&s->step);
	standby_close(&s->save_watch, &s->save_fd);
	s->reply.status = status;
	snprintf(s->reply.error, sizeof(s->reply.error), "%s", why ? why : "QEMU cannot save its device state");
	s->cont_ns = clock_now_ns();
	qmp_command(d->vm.qmp, "migrate_cancel", NULL, -1, NULL, NULL);
	on_settle(&s->step);
}

/* --- its steps, the last one first --- */

static void on_running(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;
	struct standby *s = &d->standby;
	uint64_t now = clock_now_ns();

	if (s->save != SAVE_RUN)
		return;
	if (error) {
		standby_save_failed(d, -EIO, error);
		return;
	}
	s->save = SAVE_IDLE;
	s->reply.checkpoint.device_bytes = s->saved;
	s->reply.checkpoint.save_ns = (int64_t)(s->saved_ns - s->began_ns);
	s->reply.checkpoint.cont_ns = (int64_t)(now - s->cont_ns);
	s->reply.checkpoint.pause_ns = (int64_t)(now - s->began_ns);
	s->reply.checkpoint.ran_at_ns = (int64_t)now;
	standby_finish(d, 0, NULL);
}

static void on_harvested(struct daemon *d, const struct agent_reply *r)
{
	struct standby *s = &d->standby;

	if (s->save != SAVE_HARVEST)
		return;
	FAILPOINT("standby-harvested");
	s->reply = *r;
	if (r->status) {
		standby_save_failed(d, r->status, r->error);
		return;
	}
	s->save = SAVE_RUN;
	s->cont_ns = clock_now_ns();
	if (qmp_command(d->vm.qmp, "cont", NULL, -1, on_running, d) < 0)
		standby_save_failed(d, -EIO, "QEMU cannot be told to run on");
}

static void on_status(void *arg, json_t *result, const char *error)
{
	const char *status = json_string_value(json_object_get(result, "status"));
	struct daemon *d = arg;
	struct standby *s = &d->standby;
	struct agent_request r = s->request;
	int e;

	if (s->save != SAVE_STATUS)
		return;
	if (error || !status || strcmp(status, "completed")) {
		standby_save_failed(d, -EIO, error ? error : json_string_value(json_object_get(result, "error-desc")));
		return;
	}
	s->save = SAVE_HARVEST;
	s->saved_ns = clock_now_ns();
	r.flags &= ~AGENT_F_RUN;
	e = agentlink_request(d, &r, on_harvested);
	if (e < 0)
		standby_save_failed(d, e, "no agent");
}

/* QEMU closes its end when the migration is over in every respect. */
static void stream_ended(struct daemon *d)
{
	struct standby *s = &d->standby;

	uv_timer_stop(&s->step);
	standby_close(&s->save_watch, &s->save_fd);
	s->save = SAVE_STATUS;
	if (qmp_command(d->vm.qmp, "query-migrate", NULL, -1, on_status, d) < 0)
		standby_save_failed(d, -EIO, "no QMP");
}

static void on_stream(void *arg, int events)
{
	static uint8_t piece[PIECE];
	struct daemon *d = arg;
	struct standby *s = &d->standby;
	ssize_t n;

	while ((n = recv(s->save_fd, piece, sizeof(piece), MSG_DONTWAIT)) > 0) {
		if (s->saved + (uint64_t)n > DEVICE_STATE_MAX) {
			standby_save_failed(d, -EFBIG, "QEMU's device state is larger than can be");
			return;
		}
		if (pwrite(d->stage.device_fd, piece, (size_t)n, (off_t)s->saved) != n) {
			standby_save_failed(d, -ENOSPC, "device state cannot be kept");
			return;
		}
		s->saved += (uint64_t)n;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		stream_ended(d);
}

static void on_command(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	if (error && d->standby.save == SAVE_STREAM)
		standby_save_failed(d, -EIO, error);
}

static void wake_later(struct daemon *d);

static void on_awake(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	if (d->standby.save == SAVE_STREAM)
		wake_later(d);
}

static void on_wake(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->vm.qmp && d->standby.save == SAVE_STREAM)
		qmp_command(d->vm.qmp, "query-status", NULL, -1, on_awake, d);
}

static void wake_later(struct daemon *d)
{
	uv_timer_start(&d->standby.step, on_wake, WAKE_MS, 0);
}

/* QMP answers in order: all is sent at once. */
int standby_save(struct daemon *d)
{
	struct standby *s = &d->standby;
	struct qmp *q = d->vm.qmp;
	int theirs, r;

	if (!q)
		return -EPIPE;
	r = standby_channel(&s->save_fd, &theirs);
	if (r < 0)
		return r;
	s->saved = 0;
	s->save_watch = watch_new(&d->loop, s->save_fd, UV_READABLE, on_stream, d);
	r = qmp_command(q, "migrate-set-capabilities", standby_capabilities(true), -1, on_command, d);
	r = r < 0 ? r : qmp_command(q, "getfd", json_pack("{s:s}", "fdname", "save"), theirs, NULL, NULL);
	close(theirs);
	if (r < 0) {
		standby_close(&s->save_watch, &s->save_fd);
		return r;
	}
	s->save = SAVE_STREAM;
	s->began_ns = clock_now_ns();
	wake_later(d);
	if (qmp_command(q, "stop", NULL, -1, on_command, d) < 0 ||
	    qmp_command(q, "migrate", json_pack("{s:s}", "uri", "fd:save"), -1, on_command, d) < 0)
		standby_save_failed(d, -EIO, "no QMP");
	return 0;
}
