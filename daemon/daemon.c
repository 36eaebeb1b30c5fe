/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * daemon.c - start, event loop, and the core's actions carried out
 *
 * How a node starts is in start.c. Whatever
 * happens is told to the core by daemon_event(); its actions are carried out at once, in order. An
 * action may lead to another event: those are queued, so that the core never sees one event inside
 * another.
 */
#include "daemon/daemon.h"
#include "daemon/selftest.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/wire.h"

#define ANNOUNCE_MS 50
#define ANNOUNCE_TIMES 5
#define LINGER_MS 3000
#define EVENT_QUEUE 64

static struct core_event queue[EVENT_QUEUE];
static unsigned int queued, taken;
static bool in_core;

uint64_t daemon_now_us(void)
{
	return clock_now_ns() / 1000;
}

bool daemon_is_primary(const struct daemon *d)
{
	return d->core.role == CORE_PRIMARY;
}

const char *daemon_state_dir(const struct daemon *d)
{
	return config_local(d->cfg)->state;
}

int daemon_open_log(const struct daemon *d, const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", daemon_state_dir(d), name);
	return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

int daemon_find(struct daemon *d, const char *sub, const char *file, char *out, size_t size)
{
	/* a build tree has each part in its directory, an installation all in one */
	snprintf(out, size, "%s/%s/%s", d->exe_dir, sub, file);
	if (access(out, R_OK) == 0)
		return 0;
	snprintf(out, size, "%s/%s", COLO_LIBDIR, file);
	if (access(out, R_OK) == 0)
		return 0;
	log_error("%s is neither beside this program nor in %s", file, COLO_LIBDIR);
	return -ENOENT;
}

/* --- end --- */

static void finish(struct daemon *d, int status)
{
	if (d->ending)
		return;
	d->ending = true;
	d->exit_status = status == CORE_EXIT_AGAIN ? status : status ? 1 : 0;
	watchdog_ending(d);
	peer_flush_blocking(d);
	uv_stop(&d->loop);
}

void daemon_fail_start(struct daemon *d, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("%s", text);
	daemon_event(d, (struct core_event){ .type = CORE_EV_START_FAILED, .status = -1 });
}

/* --- actions --- */

static void on_announce(uv_timer_t *t)
{
	struct daemon *d = t->data;

	nic_announce(d);
	if (++d->announcements >= ANNOUNCE_TIMES)
		uv_timer_stop(t);
}

static void on_linger(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->peer.former) /* and not the next peer's */
		daemon_event(d, (struct core_event){ .type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED });
}

uint64_t daemon_unix_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

static void on_agent_serves(struct daemon *d, const struct agent_reply *r)
{
	if (r->status)
		log_warn("agent: %s: the guest's RAM may come to take up twice its size", r->error);
}

/* Since when clients may have waited. A PVM that hung was silent before the primary was. */
static uint64_t silent_since(const struct daemon *d)
{
	uint64_t hung = d->cfg->watchdog_us + 1000000;

	if (d->core.loss != CORE_LOSS_WEDGED && d->core.loss != CORE_LOSS_DISK)
		hung = 0;
	return d->core.lost_at_us > hung ? d->core.lost_at_us - hung : 0;
}

/* The VM runs here, on disks that say so after a crash, too: let it be heard. */
static void serve_as_survivor(struct daemon *d)
{
	const struct agent_request serves = { .op = AGENT_SERVE };
	struct failover_record *f = &d->failover;

	FAILPOINT("take-over");
	d->taking_over = false;
	nic_take_over(d, silent_since(d));
	f->valid = true;
	f->cause = d->core.loss;
	f->at_unix_ms = daemon_unix_ms();
	f->detect_us = d->core.detected_us - d->core.lost_at_us;
	f->total_us = daemon_now_us() - d->core.lost_at_us;
	log_warn("this node serves now (%s; noticed after %llu ms, serving after %llu ms)",
		 core_loss_name(f->cause), (unsigned long long)f->detect_us / 1000,
		 (unsigned long long)f->total_us / 1000);
	standby_leave(d);
	if (agentlink_request(d, &serves, on_agent_serves) < 0)
		log_warn("agent: it cannot be told that this VM serves");
	d->announcements = 0;
	uv_timer_start(&d->announce, on_announce, ANNOUNCE_MS, ANNOUNCE_MS);
	/* a former primary that still lives forwards for a while what clients send to it */
	if (d->peer.former)
		uv_timer_start(&d->linger, on_linger, LINGER_MS, 0);
}

void daemon_loaded(struct daemon *d, int status)
{
	if (status < 0)
		daemon_event(d, (struct core_event){ .type = CORE_EV_VM_DIED });
	else
		serve_as_survivor(d);
}

static void on_serving(struct daemon *d, int status)
{
	if (status < 0)
		faults_alarm(d, ALARM_DISK, "it could not be noted on stable storage that this host serves: if it fails "
			     "before %s is back, start it with --role primary", config_peer(d->cfg)->name);
	if (d->ckpt.staged_only)
		checkpoint_load(d);
	else
		serve_as_survivor(d);
}

/* What the SVM said and wrote has to be on stable storage before it says more (R5). Storage that fails is
 * no reason not to serve: nobody else does. */
static void on_failed_over(struct daemon *d, int status)
{
	if (status < 0)
		faults_alarm(d, ALARM_FAILOVER, "what the guest wrote last is in memory only: its disks are not "
			     "safe against a power failure until they are written");
	FAILPOINT("failed-over");
	if (diskman_serve(d, on_serving) < 0)
		on_serving(d, -EPIPE);
}

static void take_over(struct daemon *d)
{
	uint64_t generation = 0;

	FAILPOINT("claim-won");
	d->taking_over = true;
	peer_stop_dialling(d);
	peer_keep_former(d);
	checkpoint_new_role(d);
	if (getrandom(&generation, sizeof(generation), 0) != sizeof(generation))
		log_error("no random numbers");
	if (diskman_failover(d, generation | 1, on_failed_over) < 0)
		on_failed_over(d, -EPIPE);
}

/* the peer is gone, and cannot serve */
static void serve_alone(struct daemon *d)
{
	FAILPOINT("serve-alone");
	nic_serve(d);
	diskman_serve(d, NULL);
}

static void sync_disk(struct daemon *d)
{
	if (diskman_link(d, d->peer.disk, daemon_is_primary(d) ? DISK_PRIMARY : DISK_SECONDARY) < 0)
		log_error("the disk managers do not take the link");
}

static void drop_peer(struct daemon *d)
{
	seed_cancel(d);
	peer_flush(d); /* a last word, if the link takes it at once */
	peer_drop(d);
	diskman_unlink(d);
	checkpoint_reset(d);
	peer_redial(d); /* if this node has lost it and claims: does it serve? */
}

static void hand_over(struct daemon *d, const struct core_action *a)
{
	uint64_t generation = htobe64(a->epoch);

	FAILPOINT("hand-over");
	nic_give_up(d);
	peer_send(d, PEER_HANDOVER, a->loss, &generation, sizeof(generation), NULL, 0);
	peer_flush(d); /* what follows takes time */
	FAILPOINT("handed-over");
}

static void ask(struct daemon *d, enum core_cause cause)
{
	peer_send(d, PEER_ASK, cause == CORE_CAUSE_SWITCHOVER, NULL, 0, NULL, 0);
}

static void carry_out(struct daemon *d, const struct core_action *a)
{
	switch (a->type) {
	case CORE_ACT_START: start_role(d); break;
	case CORE_ACT_DECIDE: start_decide_again(d); break;
	case CORE_ACT_SYNC_DISK: sync_disk(d); break;
	case CORE_ACT_SEED: seed_begin(d); break;
	case CORE_ACT_HARVEST: checkpoint_harvest(d, a->epoch, a->cause); break;
	case CORE_ACT_RELEASE: nic_held(d, a->epoch); break;
	case CORE_ACT_COMPARE: nic_compare(d, a->epoch); break;
	case CORE_ACT_HELD:
		FAILPOINT("complete");
		peer_send(d, PEER_HELD, a->epoch, NULL, 0, NULL, 0);
		break;
	case CORE_ACT_APPLY: checkpoint_apply(d, a->epoch); break;
	case CORE_ACT_APPLIED: checkpoint_send_applied(d, a->epoch); break;
	case CORE_ACT_CLAIM:
		FAILPOINT("claim");
		arbiter_claim(d, a->epoch, a->peer_gone);
		break;
	case CORE_ACT_SERVE: serve_alone(d); break;
	case CORE_ACT_TAKE_OVER: take_over(d); break;
	case CORE_ACT_HEARTBEAT: peer_heartbeat(d); break;
	case CORE_ACT_DROP_PEER: drop_peer(d); break;
	case CORE_ACT_HAND_OVER: hand_over(d, a); break;
	case CORE_ACT_SWITCHOVER: peer_send(d, PEER_SWITCHOVER, 0, NULL, 0, NULL, 0); break;
	case CORE_ACT_GENERATION: peer_send(d, PEER_SYNCED, a->epoch, NULL, 0, NULL, 0); break;
	case CORE_ACT_ASK: ask(d, a->cause); break;
	case CORE_ACT_TAKEN: peer_send(d, PEER_TAKEN, 0, NULL, 0, NULL, 0); break;
	case CORE_ACT_DISMISS: peer_send(d, PEER_DISMISS, 0, NULL, 0, NULL, 0); break;
	case CORE_ACT_KILL_VM:
		nic_detach(d);
		vm_kill(d);
		break;
	case CORE_ACT_GUEST_OFF:
		peer_send(d, PEER_GUEST_OFF, 0, NULL, 0, NULL, 0);
		d->told_off = true;
		break;
	case CORE_ACT_DISK_ERROR: diskman_fault(d); break;
	case CORE_ACT_GOODBYE: faults_goodbye(d, a->loss); break;
	case CORE_ACT_EXIT: finish(d, a->status); break;
	}
}

const char *daemon_role_name(const struct daemon *d)
{
	static const char *const names[] = { "primary", "secondary", "undecided" };

	return names[d->core.role];
}

static void arm_tick(struct daemon *d);

static void one_event(struct daemon *d, const struct core_event *e)
{
	struct core_action actions[CORE_MAX_ACTIONS];
	enum core_state before = d->core.state;
	size_t n, i;

	core_event(&d->core, e);
	n = d->core.nact;
	memcpy(actions, d->core.act, n * sizeof(*actions));
	log_set_context(d->cfg->name, daemon_role_name(d), d->core.epoch);
	if (d->core.state != before)
		notify_state(d, before);
	faults_state(d, before);
	watchdog_state(d);
	for (i = 0; i < n; i++)
		carry_out(d, &actions[i]);
}

void daemon_event(struct daemon *d, struct core_event e)
{
	e.now_us = daemon_now_us();
	if (e.type == CORE_EV_RX) { /* by far the most frequent, and never acted upon */
		d->core.last_rx_us = e.now_us;
		return;
	}
	if (queued - taken == EVENT_QUEUE) {
		log_error("too many events at once");
		return;
	}
	queue[queued++ % EVENT_QUEUE] = e;
	if (in_core)
		return;
	in_core = true;
	while (taken != queued)
		one_event(d, &queue[taken++ % EVENT_QUEUE]);
	in_core = false;
	if (!d->ending)
		arm_tick(d);
}

/* --- time --- */

static void on_tick(uv_timer_t *t)
{
	struct daemon *d = t->data;

	/* what has come is read before silence is judged */
	if (d->peer.up)
		peer_read(d);
	nic_tick(d, daemon_now_us());
	daemon_event(d, (struct core_event){ .type = CORE_EV_TICK });
}

static void arm_tick(struct daemon *d)
{
	uint64_t now = daemon_now_us(), next = core_next_tick(&d->core), nic = nic_tick(d, now);

	next = nic < next ? nic : next;
	if (next == UINT64_MAX) {
		uv_timer_stop(&d->tick);
		return;
	}
	uv_update_time(&d->loop);
	uv_timer_start(&d->tick, on_tick, next <= now ? 1 : (next - now + 999) / 1000, 0);
}

static void flush_all(struct daemon *d)
{
	nic_flush(d);
	peer_flush(d);
}

static void on_prepare(uv_prepare_t *h)
{
	flush_all(h->data);
}

static void on_check(uv_check_t *h)
{
	struct daemon *d = h->data;
	uint64_t due = nic_tick(d, daemon_now_us());

	flush_all(d);
	/* frames may have brought a deadline that is nearer than the timer's */
	if (due != UINT64_MAX && !d->ending &&
	    due / 1000 + 1 < uv_now(&d->loop) + uv_timer_get_due_in(&d->tick))
		arm_tick(d);
}

static void on_signal(uv_signal_t *h, int signum)
{
	struct daemon *d = h->data;

	log_info("signal %d: stopping", signum);
	daemon_event(d, (struct core_event){ .type = CORE_EV_STOP });
}

/* --- start --- */

int daemon_make_dir(const char *path, const char *key)
{
	char p[CONFIG_PATH_MAX];
	struct stat st;
	char *s;

	snprintf(p, sizeof(p), "%s", path);
	for (s = p + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = 0;
		mkdir(p, 0755);
		*s = '/';
	}
	if ((mkdir(p, 0700) < 0 && errno != EEXIST) || stat(p, &st) < 0) {
		log_error("[host] %s: %s: %s", key, p, strerror(errno));
		return -errno;
	}
	if ((st.st_mode & 022) || (st.st_uid && st.st_uid != geteuid())) {
		log_error("[host] %s: %s: others than root may write to it (mode %03o): whoever does owns the guest", key, p,
			  (unsigned int)st.st_mode & 0777);
		return -EPERM;
	}
	return 0;
}

static void init_loop(struct daemon *d)
{
	uv_timer_t *timers[] = { &d->tick, &d->announce, &d->linger, &d->seed_poll, &d->start_limit,
				 &d->follow, &d->say, &d->patience, &d->pet, &d->vm_look, &d->standby.limit,
				 &d->standby.step, &d->standby.start };
	size_t i;

	uv_loop_init(&d->loop);
	for (i = 0; i < sizeof(timers) / sizeof(*timers); i++) {
		uv_timer_init(&d->loop, timers[i]);
		timers[i]->data = d;
	}
	uv_prepare_init(&d->loop, &d->prepare);
	uv_check_init(&d->loop, &d->check);
	uv_signal_init(&d->loop, &d->sigint);
	uv_signal_init(&d->loop, &d->sigterm);
	d->prepare.data = d->check.data = d->sigint.data = d->sigterm.data = d;
	uv_prepare_start(&d->prepare, on_prepare);
	uv_check_start(&d->check, on_check);
	uv_signal_start(&d->sigint, on_signal, SIGINT);
	uv_signal_start(&d->sigterm, on_signal, SIGTERM);
}

static int start(struct daemon *d)
{
	int r = daemon_make_dir(daemon_state_dir(d), "state");

	r = r < 0 ? r : daemon_make_dir(config_local(d->cfg)->data, "data");
	r = r < 0 ? r : notify_start(d);
	r = r < 0 ? r : control_start(d);
	r = r < 0 ? r : arbiter_start(d);
	r = r < 0 ? r : transfer_init(d);
	r = r < 0 ? r : nic_open(d);
	/* a busy port is noticed before anything big starts */
	r = r < 0 ? r : peer_start(d);
	r = r < 0 ? r : diskman_start(d);
	if (r < 0)
		return r;
	start_begin(d);
	return 0;
}

static void on_walk(uv_handle_t *h, void *arg)
{
	if (!uv_is_closing(h))
		uv_close(h, NULL);
}

/* The VM is off, and the secondary says that it ends: so nobody can take over from what this host has, and
 * next time it need not ask. */
static void note_last(struct daemon *d)
{
	if (!d->told_off || !peer_hear_goodbye(d))
		return;
	diskman_unlink(d);
	diskman_serve(d, NULL);
}

static void stop(struct daemon *d)
{
	struct notify *notify = d->notify;

	selftest_stop(d);
	vm_kill(d);
	note_last(d);
	nic_close(d);
	peer_stop(d);
	diskman_stop(d);
	channel_stop(d); /* the disk managers' links end when they do, not before */
	arbiter_stop(d);
	control_stop(d);
	transfer_free(d);
	notify_stop(d);
	uv_walk(&d->loop, on_walk, NULL);
	while (uv_run(&d->loop, UV_RUN_NOWAIT))
		;
	uv_loop_close(&d->loop);
	notify_free(notify);
}

static void find_exe_dir(struct daemon *d)
{
	ssize_t n = readlink("/proc/self/exe", d->exe_dir, sizeof(d->exe_dir) - 1);
	char *slash;

	d->exe_dir[n > 0 ? n : 0] = 0;
	slash = strrchr(d->exe_dir, '/');
	if (slash)
		*slash = 0;
}

int daemon_run(const struct config *cfg, const struct run_options *options)
{
	struct core_config core = {
		.arbiter_none = !strcmp(cfg->arbiter, "none"),
		.heartbeat_us = cfg->heartbeat_us,
		.misses = cfg->misses,
		.periodic_us = cfg->mode == MODE_CHECKPOINT ? cfg->interval_us : cfg->periodic_us,
		.lag_limit_us = cfg->lag_limit_us,
		.settle_us = cfg->settle_us,
	};
	static struct daemon daemon;
	struct daemon *d = &daemon;
	unsigned int c;

	d->cfg = cfg;
	d->options = *options;
	d->agent.fd = d->stage.fd = d->stage.device_fd = -1;
	standby_init(d);
	d->vm.child.pidfd = d->peer.listen_fd = d->arbiter.fd = d->arbiter.child.pidfd = -1;
	diskman_init(d);
	for (c = 0; c < PEER_NCHANNELS; c++)
		d->peer.fd[c] = -1;
	for (c = 0; c < CONFIG_DISKS_MAX; c++)
		d->peer.disk[c].fd = -1;
	core_init(&d->core, &core);
	log_set_context(cfg->name, daemon_role_name(d), 0);
	find_exe_dir(d);
	signal(SIGPIPE, SIG_IGN);
	init_loop(d);
	watchdog_start(d);
	if (start(d) < 0)
		d->exit_status = 1;
	else
		uv_run(&d->loop, UV_RUN_DEFAULT);
	watchdog_ending(d);
	stop(d);
	if (!d->exit_status || d->was_up)
		log_info("ended");
	return d->exit_status;
}
