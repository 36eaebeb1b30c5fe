/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * arbiter.c - asks the arbiter, through the helper process colo-arbiter
 *
 * Theory of operation: whatever asks an arbiter may hang, so a child does (arbiter/helper.c). It has one request at a
 * time. What the daemon wants to know is kept here until it is known: a claim, above all; a read, at the start;
 * else now and then a read, so that an arbiter that cannot be reached is an alarm before it is
 * needed. An answer `unknown` is followed by the same request after REPEAT_MS.
 *
 *   claim     until won or lost, or another claim takes its place, or the core does not want it any more. What
 *             comes to an earlier one is nothing. A late "won" is as good as an early one.
 *   read      each answer is told once, also an unknown one: who asked decides whether to ask again.
 *   helper    no pulse for SILENT_MS, or dead: killed, started again, what it was asked is asked anew.
 *
 * Arbiter `none`: there is nobody to ask. A primary's claim is won, and that of a secondary to whom the primary itself
 * said that it does not serve any more. Other claims are the operator's to grant: colo failover --force.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define TICK_MS 250
#define REPEAT_MS 500
#define PROBE_MS 10000
#define SILENT_MS 3000
#define SAY_MS 10000
#define PROBE_AGAIN_MS 1000 /* after one that had no answer */
#define ALARM_MS 13000     /* without an answer: more than one probe */
#define CLAIM_LIMIT_MS 15000
#define READ_LIMIT_MS 5000
#define PROBE_LIMIT_MS 2000

static void step(struct daemon *d);

static uint64_t now_ms(void)
{
	return clock_now_ns() / 1000000;
}

static bool is_none(const struct daemon *d)
{
	return d->arbiter.cfg.type == ARBITER_NONE;
}

/* --- the operator, where there is none --- */

static void claim_answer(struct daemon *d, uint64_t generation, int status)
{
	daemon_event(d, (struct core_event){ .type = CORE_EV_CLAIM, .epoch = generation, .status = status });
}

static void own(struct daemon *d, uint64_t generation)
{
	d->arbiter.record.generation = generation;
	snprintf(d->arbiter.record.owner, sizeof(d->arbiter.record.owner), "%s", config_local(d->cfg)->name);
}

static void claim_of_none(struct daemon *d, uint64_t generation, bool peer_gone)
{
	const char *peer = config_peer(d->cfg)->name;

	if (daemon_is_primary(d) || peer_gone) {
		log_info("arbiter none: generation %llu is taken for won", (unsigned long long)generation);
		own(d, generation);
		claim_answer(d, generation, 0);
		return;
	}
	d->arbiter.claim = generation;
	snprintf(d->arbiter.error, sizeof(d->arbiter.error), "%s is lost, and there is no arbiter to say who serves. Make "
		 "sure that %s is off, then say colo failover --force here", peer, peer);
	log_warn("%s", d->arbiter.error);
}

int arbiter_force(struct daemon *d, const char **why)
{
	uint64_t generation = d->arbiter.claim;

	if (generation != d->core.claiming)
		generation = 0;
	*why = is_none(d) ? "no claim waits for the operator" : "the arbiter decides, not the operator";
	if (!generation || !is_none(d))
		return -EINVAL;
	log_warn("the operator says that %s is off: generation %llu", config_peer(d->cfg)->name,
		 (unsigned long long)generation);
	d->arbiter.claim = 0;
	*d->arbiter.error = 0;
	own(d, generation);
	claim_answer(d, generation, 0);
	return 0;
}

/* --- answers --- */

static void known(struct daemon *d, const struct arbiter_record *r)
{
	struct arbiterlink *l = &d->arbiter;

	if (!l->known && r->generation)
		log_info("the arbiter %s: %s has generation %llu", d->cfg->arbiter, r->owner,
			 (unsigned long long)r->generation);
	l->record = *r;
	l->known = true;
	l->known_at = l->asked_at = now_ms();
	*l->error = 0;
	faults_mended(d, ALARM_ARBITER);
}

/* Said at once, when it changes, and now and then; an alarm when it lasts. */
static void unknown(struct daemon *d, const char *why)
{
	struct arbiterlink *l = &d->arbiter;
	uint64_t now = now_ms();

	if (strcmp(l->error, why) || now - l->said_at >= SAY_MS) {
		if (l->claim)
			log_warn("claim of generation %llu unanswered: %s", (unsigned long long)l->claim, why);
		else
			log_warn("arbiter: %s", why);
		l->said_at = now;
	}
	snprintf(l->error, sizeof(l->error), "%s", why);
	if (now - l->known_at >= ALARM_MS)
		faults_alarm(d, ALARM_ARBITER, "the arbiter does not answer: should %s be lost, nobody serves until it does",
			     config_peer(d->cfg)->name);
}

static void claimed(struct daemon *d, const struct arbiter_answer *a)
{
	struct arbiterlink *l = &d->arbiter;

	if (!l->claim || a->generation != l->claim)
		return; /* of an earlier one */
	if (a->status < 0)
		return;
	l->claim = 0;
	if (a->status == 0)
		log_info("generation %llu is won", (unsigned long long)a->generation);
	else
		log_warn("generation %llu is lost: %s has %llu", (unsigned long long)a->generation, a->record.owner,
			 (unsigned long long)a->record.generation);
	claim_answer(d, a->generation, a->status);
}

static void was_read(struct daemon *d, const struct arbiter_answer *a)
{
	arbiter_fn *fn = d->arbiter.fn;

	if (!d->arbiter.wanted)
		return; /* a probe */
	d->arbiter.fn = NULL;
	d->arbiter.wanted = false;
	if (fn)
		fn(d, a->status, &a->record);
}

static void on_answer(struct daemon *d, struct arbiter_answer *a)
{
	struct arbiterlink *l = &d->arbiter;

	l->heard_at = now_ms();
	if (a->op == ARBITER_PULSE || !l->busy)
		return;
	l->busy = false;
	l->next_at = l->heard_at + (a->status < 0 ? REPEAT_MS : 0);
	a->error[sizeof(a->error) - 1] = a->record.owner[sizeof(a->record.owner) - 1] = 0;
	if (a->status < 0)
		unknown(d, a->error);
	else
		known(d, &a->record);
	if (a->op == ARBITER_CLAIM)
		claimed(d, a);
	else
		was_read(d, a);
}

static void on_readable(void *arg, int events)
{
	struct daemon *d = arg;
	struct arbiter_answer a;
	ssize_t n;

	while (d->arbiter.fd >= 0 && (n = recv(d->arbiter.fd, &a, sizeof(a), MSG_DONTWAIT)) == sizeof(a))
		on_answer(d, &a);
	if (d->arbiter.fd >= 0 && n == 0)
		watch_events(d->arbiter.watch, 0); /* it ends; its pidfd says so */
	step(d);
}

/* --- the helper --- */

static void close_link(struct arbiterlink *l)
{
	watch_free(l->watch);
	watch_free(l->exit_watch);
	l->watch = l->exit_watch = NULL;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	l->busy = false;
}

static void on_end(void *arg, int events)
{
	struct daemon *d = arg;
	int status = 0;

	if (spawn_reap(&d->arbiter.child, &status) < 0)
		return;
	close_link(&d->arbiter);
	log_warn("colo-arbiter ended (status %d); see %s/arbiter.log", status, daemon_state_dir(d));
	d->arbiter.next_at = now_ms() + REPEAT_MS;
}

static int spawn(struct daemon *d, int theirs)
{
	char path[CONFIG_PATH_MAX + 64];
	char *argv[] = { path, NULL };
	int log, r = daemon_find(d, "arbiter", "colo-arbiter", path, sizeof(path));

	if (r < 0)
		return r;
	log = daemon_open_log(d, "arbiter.log");
	r = spawn_child(&d->arbiter.child, argv, &theirs, 1, log, 0);
	if (log >= 0)
		close(log);
	return r;
}

static int start_helper(struct daemon *d)
{
	struct arbiterlink *l = &d->arbiter;
	int type = SOCK_SEQPACKET, theirs, r = wire_pairs(&type, 1, &l->fd, &theirs);

	if (r < 0)
		return r;
	r = spawn(d, theirs);
	close(theirs);
	if (!r) {
		l->heard_at = now_ms();
		l->watch = watch_new(&d->loop, l->fd, UV_READABLE, on_readable, d);
		l->exit_watch = watch_new(&d->loop, l->child.pidfd, UV_READABLE, on_end, d);
		r = send(l->fd, &l->cfg, sizeof(l->cfg), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
	} else {
		close_link(l);
	}
	return r;
}

/* --- requests --- */

/* The core may have found another way: the peer said who serves. */
static void forget_claim(struct daemon *d)
{
	if (d->arbiter.claim && d->core.claiming != d->arbiter.claim)
		d->arbiter.claim = 0;
}

static bool choose(struct daemon *d, struct arbiter_request *q)
{
	const struct arbiterlink *l = &d->arbiter;
	uint64_t now = now_ms();

	if (now < l->next_at)
		return false;
	*q = (struct arbiter_request){ .op = ARBITER_READ, .limit_ms = READ_LIMIT_MS };
	if (l->claim)
		*q = (struct arbiter_request){ ARBITER_CLAIM, CLAIM_LIMIT_MS, l->claim };
	else if (!l->wanted)
		q->limit_ms = PROBE_LIMIT_MS;
	return l->claim || l->wanted || now - l->asked_at >= (*l->error ? PROBE_AGAIN_MS : PROBE_MS);
}

static void step(struct daemon *d)
{
	struct arbiterlink *l = &d->arbiter;
	struct arbiter_request q;

	if (d->ending || is_none(d))
		return;
	forget_claim(d);
	if (l->busy || !choose(d, &q))
		return;
	l->asked_at = now_ms();
	if (!l->child.pid && start_helper(d) < 0) {
		l->next_at = l->asked_at + REPEAT_MS;
		unknown(d, "colo-arbiter does not start");
		return;
	}
	if (l->fd >= 0 && send(l->fd, &q, sizeof(q), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(q))
		l->busy = true;
	else
		l->next_at = l->asked_at + REPEAT_MS;
}

static void on_tick(uv_timer_t *t)
{
	struct daemon *d = t->data;
	struct arbiterlink *l = &d->arbiter;

	if (l->fd >= 0)
		on_readable(d, UV_READABLE); /* before silence is judged */
	if (l->child.pid && now_ms() - l->heard_at > SILENT_MS) {
		unknown(d, "colo-arbiter does not answer and is started again");
		kill(l->child.pid, SIGKILL); /* on_end() goes on */
		l->heard_at = now_ms();
	}
	step(d);
}

void arbiter_claim(struct daemon *d, uint64_t generation, bool peer_gone)
{
	if (is_none(d)) {
		claim_of_none(d, generation, peer_gone);
		return;
	}
	d->arbiter.claim = generation;
	d->arbiter.next_at = 0;
	step(d);
}

void arbiter_read(struct daemon *d, arbiter_fn *fn)
{
	static const struct arbiter_record nobody;

	if (is_none(d)) {
		fn(d, 0, &nobody);
		return;
	}
	d->arbiter.wanted = true;
	d->arbiter.fn = fn;
	step(d);
}

int arbiter_start(struct daemon *d)
{
	struct arbiterlink *l = &d->arbiter;
	char error[300];

	l->child.pidfd = l->fd = -1;
	if (config_arbiter(d->cfg, &l->cfg, error, sizeof(error)) < 0) {
		log_error("%s", error);
		return -EINVAL;
	}
	uv_timer_init(&d->loop, &l->timer);
	l->timer.data = d;
	l->known_at = now_ms();
	if (is_none(d))
		return 0;
	uv_timer_start(&l->timer, on_tick, TICK_MS, TICK_MS);
	return start_helper(d);
}

/* It may hang in NFS: it is not waited for. */
void arbiter_stop(struct daemon *d)
{
	struct arbiterlink *l = &d->arbiter;

	if (l->child.pid)
		kill(l->child.pid, SIGKILL);
	close_link(l);
}

json_t *arbiter_json(const struct daemon *d)
{
	const struct arbiterlink *l = &d->arbiter;
	const char *state = l->claim ? "claiming" : *l->error ? "unknown" : l->known ? "answers" : "asked";
	const struct arbiter_record *r = &l->record;

	return json_pack("{s:s s:s s:o s:o s:o}", "type", d->cfg->arbiter, "state", is_none(d) && !l->claim ? "none" : state,
			 "generation", r->generation ? json_integer((json_int_t)r->generation) : json_null(), "owner",
			 r->generation ? json_string(r->owner) : json_null(), "error",
			 *l->error ? json_string(l->error) : json_null());
}
