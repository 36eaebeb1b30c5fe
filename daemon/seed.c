/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * seed.c - first copy of the guest, by QEMU's ordinary live migration
 *
 * Primary                                   Secondary
 *   dirty tracking on
 *   SYNCED, SEED_START          ------>       starts QEMU with -incoming defer
 *   accepts SEED, gives it to   <------       dials SEED, gives it to QEMU (migrate-incoming fd:)
 *   QEMU (migrate fd:)
 *   ... QEMU to QEMU ...
 *   completed: PVM runs on                    no longer `inmigrate`: RAM becomes a private view
 *                               <------       of the image; SEED_READY with the RAM block list
 *   both done: the first checkpoint brings the SVM to where the PVM is by then.
 *
 * Tracking begins before the copy does, so that the first checkpoint has all that was written since. QEMU keeps account
 * of that, too, and sends pages again; but on a busy machine, under TCG, pages were seen that it had missed: written
 * to after it had sent them, and not noted. The kernel misses none.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define POLL_MS 50
#define SETTLE_MS 10
#define MIGRATION_BANDWIDTH (4ll << 30)
#define MIGRATION_DOWNTIME_MS 300

static void failed(struct daemon *d, const char *what, const char *why)
{
	if (d->seed_phase != SEED_SETTLING) /* that goes on by the same timer */
		uv_timer_stop(&d->seed_poll);
	log_error("seeding: %s: %s", what, why ? why : "failed");
	daemon_event(d, (struct core_event){ .type = CORE_EV_SEED_FAILED });
}

static bool active(const struct daemon *d)
{
	return d->core.state == CORE_SEEDING && d->vm.qmp;
}

/* --- a migration that is given up ---
 *
 * It may have been over a moment before: then it has stopped the VM, and nobody else lets it run on. And
 * if it is cancelled in its last step, QEMU (7.2) may let the VM run with disks that are handed over
 * already, and fails an assertion at the next write. So the VM is stopped first, and runs on by `cont`,
 * which takes the disks back, when the migration has settled. No other begins before. QMP answers in
 * order: what was asked before the cancellation is answered, and ignored, before this is over.
 */

static void poll_settling(uv_timer_t *t);

static void settle_later(struct daemon *d)
{
	uv_timer_start(&d->seed_poll, poll_settling, SETTLE_MS, 0);
}

static void begin_if_waiting(struct daemon *d)
{
	if (d->seed_waiting && active(d))
		seed_begin(d);
}

static void on_settled(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	if (error) { /* the migration's last step is not done yet */
		settle_later(d);
		return;
	}
	d->seed_phase = SEED_IDLE;
	log_info("seeding: given up, the guest runs on");
	begin_if_waiting(d);
}

static void on_settling(void *arg, json_t *result, const char *error)
{
	static const char *const last[] = { "none", "completed", "failed", "cancelled" };
	const char *s = json_string_value(json_object_get(result, "status"));
	struct daemon *d = arg;
	bool over = !s && !error; /* no status: there was none yet */
	size_t i;

	for (i = 0; s && i < sizeof(last) / sizeof(*last); i++)
		over = over || !strcmp(s, last[i]);
	if (!over || qmp_command(d->vm.qmp, "cont", NULL, -1, on_settled, d) < 0)
		settle_later(d);
}

static void poll_settling(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->vm.qmp && qmp_command(d->vm.qmp, "query-migrate", NULL, -1, on_settling, d) < 0)
		settle_later(d);
}

void seed_cancel(struct daemon *d)
{
	d->seed_local = d->seed_remote = d->seed_waiting = false;
	if (d->seed_phase == SEED_SETTLING)
		return;
	uv_timer_stop(&d->seed_poll);
	if (d->seed_phase < SEED_MIGRATING || !d->vm.qmp) {
		d->seed_phase = SEED_IDLE;
		return;
	}
	d->seed_phase = SEED_SETTLING;
	qmp_command(d->vm.qmp, "stop", NULL, -1, NULL, NULL);
	qmp_command(d->vm.qmp, "migrate_cancel", NULL, -1, NULL, NULL);
	settle_later(d);
}

/* --- primary --- */

static void both_done(struct daemon *d)
{
	if (d->seed_local && d->seed_remote)
		daemon_event(d, (struct core_event){ .type = CORE_EV_SEEDED });
}

static void on_running(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	if (d->seed_phase != SEED_RUNNING)
		return;
	if (error) {
		failed(d, "cont", error);
		return;
	}
	d->seed_phase = SEED_IDLE;
	log_info("seeding: RAM is copied, the guest runs on");
	d->seed_local = true;
	both_done(d);
}

static void migrated(struct daemon *d)
{
	FAILPOINT("seed-copied");
	d->seed_phase = SEED_RUNNING;
	qmp_command(d->vm.qmp, "cont", NULL, -1, on_running, d);
}

/* QEMU says that the migration is completed a moment before it is over, and refuses `cont` until then. */
static void on_over(void *arg, json_t *result, const char *error)
{
	const char *s = json_string_value(json_object_get(result, "status"));
	struct daemon *d = arg;

	if (!active(d) || d->seed_phase != SEED_MIGRATING)
		return;
	if (error || !s)
		failed(d, "query-status", error);
	else if (strcmp(s, "finish-migrate"))
		migrated(d);
	else
		qmp_command(d->vm.qmp, "query-status", NULL, -1, on_over, d);
}

static void completed(struct daemon *d)
{
	uv_timer_stop(&d->seed_poll);
	if (qmp_command(d->vm.qmp, "query-status", NULL, -1, on_over, d) < 0)
		failed(d, "query-status", NULL);
}

static void report_progress(struct daemon *d, json_t *ram)
{
	double total = json_number_value(json_object_get(ram, "total"));
	double left = json_number_value(json_object_get(ram, "remaining"));
	double percent = total > 0 ? 100 * (1 - left / total) : 0;

	FAILPOINT_IF(percent >= 30, "seed-half");
	if (percent >= d->seed_percent + 10)
		log_info("seeding: %.0f%%", percent);
	if (percent >= d->seed_percent + 10 || percent >= 100)
		d->seed_percent = percent;
}

static void on_progress(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;
	const char *s = json_string_value(json_object_get(result, "status"));

	if (!active(d) || d->seed_phase != SEED_MIGRATING)
		return;
	if (error || !s || !strcmp(s, "failed") || !strcmp(s, "cancelled"))
		failed(d, "migration", error ? error : s);
	else if (!strcmp(s, "completed"))
		completed(d);
	else
		report_progress(d, json_object_get(result, "ram"));
}

static void poll_migration(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (active(d))
		qmp_command(d->vm.qmp, "query-migrate", NULL, -1, on_progress, d);
}

static void on_migrate(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	if (!active(d) || d->seed_phase != SEED_MIGRATING)
		return;
	if (error)
		failed(d, "migrate", error);
	else
		uv_timer_start(&d->seed_poll, poll_migration, POLL_MS, POLL_MS);
}

static void primary_channel(struct daemon *d, int fd)
{
	struct qmp *q = d->vm.qmp;

	d->seed_phase = SEED_MIGRATING;
	qmp_command(q, "migrate-set-parameters",
		    json_pack("{s:I s:I}", "max-bandwidth", (json_int_t)MIGRATION_BANDWIDTH,
			      "downtime-limit", (json_int_t)MIGRATION_DOWNTIME_MS), -1, NULL, NULL);
	if (standby_on(d)) /* checkpoints leave RAM out, the seed does not */
		qmp_command(q, "migrate-set-capabilities", standby_capabilities(false), -1, NULL, NULL);
	qmp_command(q, "getfd", json_pack("{s:s}", "fdname", "seed"), fd, NULL, NULL);
	qmp_command(q, "migrate", json_pack("{s:s}", "uri", "fd:seed"), -1, on_migrate, d);
}

static void on_tracking(struct daemon *d, const struct agent_reply *r)
{
	d->seed_agent = false;
	if (d->seed_phase != SEED_TRACKING) {
		begin_if_waiting(d);
		return;
	}
	if (r->status) {
		failed(d, "dirty tracking", r->error);
		return;
	}
	d->seed_phase = SEED_OFFERED;
	peer_send(d, PEER_SYNCED, d->core.generation, NULL, 0, NULL, 0);
	FAILPOINT("seed-start");
	peer_send(d, PEER_SEED_START, 0, NULL, 0, NULL, 0);
}

/* What the VM writes while it is copied is in the first checkpoint, whatever the migration makes of it. */
void seed_begin(struct daemon *d)
{
	struct agent_request r = { .op = AGENT_TRACK };
	int e;

	/* the last one may not be over yet */
	d->seed_waiting = d->seed_phase != SEED_IDLE || d->seed_agent;
	if (d->seed_waiting)
		return;
	d->seed_phase = SEED_TRACKING;
	d->seed_percent = 0;
	d->seed_local = d->seed_remote = false;
	log_info("seeding: live migration to %s", config_peer(d->cfg)->name);
	e = agentlink_request(d, &r, on_tracking);
	d->seed_agent = e == 0;
	if (e < 0)
		failed(d, "dirty tracking", strerror(-e));
}

void seed_peer_ready(struct daemon *d, const uint8_t *p, size_t n)
{
	const struct agent_reply *mine = &d->stage.blocks;

	if (d->core.state != CORE_SEEDING)
		return;
	if (n != mine->blocks.n * sizeof(struct agent_block) || memcmp(p, mine->blocks.block, n)) {
		failed(d, "RAM blocks", "the two QEMUs do not have the same ones");
		return;
	}
	d->seed_remote = true;
	both_done(d);
}

/* --- secondary --- */

void seed_stands_ready(struct daemon *d)
{
	const struct agent_reply *b = &d->stage.blocks;

	log_info("seeding: the SVM stands ready");
	FAILPOINT("seed-ready");
	peer_send(d, PEER_SEED_READY, 0, b->blocks.block, b->blocks.n * sizeof(struct agent_block), NULL, 0);
}

static void on_view(struct daemon *d, const struct agent_reply *r)
{
	if (r->status)
		failed(d, "private view of RAM", r->error);
	else
		seed_stands_ready(d);
}

static void on_setup(struct daemon *d, const struct agent_reply *r)
{
	struct agent_request view = { .op = AGENT_VIEW };

	if (r->status || agentlink_request(d, &view, on_view) < 0)
		failed(d, "agent", r->error);
}

static void on_status(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;
	const char *s = json_string_value(json_object_get(result, "status"));

	if (!active(d) || !uv_is_active((uv_handle_t *)&d->seed_poll))
		return;
	if (error || !s) {
		failed(d, "query-status", error);
	} else if (strcmp(s, "inmigrate")) {
		uv_timer_stop(&d->seed_poll);
		if (standby_on(d))
			standby_seeded(d);
		else if (agentlink_setup(d, on_setup) < 0)
			failed(d, "agent", "no set-up");
	}
}

static void poll_status(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (active(d))
		qmp_command(d->vm.qmp, "query-status", NULL, -1, on_status, d);
}

static void on_incoming(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	if (error)
		failed(d, "migrate-incoming", error);
	else if (active(d))
		uv_timer_start(&d->seed_poll, poll_status, POLL_MS, POLL_MS);
}

static void secondary_channel(struct daemon *d, int fd)
{
	qmp_command(d->vm.qmp, "getfd", json_pack("{s:s}", "fdname", "seed"), fd, NULL, NULL);
	qmp_command(d->vm.qmp, "migrate-incoming", json_pack("{s:s}", "uri", "fd:seed"), -1, on_incoming, d);
}

static void on_hello(struct daemon *d, const struct agent_reply *r)
{
	if (r->status)
		failed(d, "agent", r->error);
	else if (peer_dial(d, PEER_SEED) < 0)
		failed(d, "seed channel", "cannot dial");
}

void seed_receive(struct daemon *d)
{
	if (d->core.state != CORE_SEEDING || d->vm.child.pid)
		return;
	if (vm_start(d, VM_INCOMING) < 0 || agentlink_open(d, d->vm.agent_fd, on_hello) < 0)
		failed(d, "QEMU", "does not start");
}

void seed_channel(struct daemon *d, int fd)
{
	wire_set_nonblock(fd, 0);
	if (!active(d) || (daemon_is_primary(d) && d->seed_phase != SEED_OFFERED))
		log_warn("seeding: a channel that nobody waits for");
	else if (daemon_is_primary(d))
		primary_channel(d, fd);
	else
		secondary_channel(d, fd);
	close(fd);
}
