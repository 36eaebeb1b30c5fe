/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * notify.c - tell others what happens: [notify] command, and one line of the log
 *
 * Theory of operation. Each change of the core's state, each alarm, and the end of each alarm is an event. It is
 * logged at once, and put into a queue for the command, which is run once for each: in order, one at a time, with what
 * it has to know in its environment. The command is a person's script and may do what it likes: one that runs longer
 * than [notify] limit gets SIGKILL, one that cannot be started is logged, and nothing else waits for it. The queue has a
 * bound; beyond it the oldest event that has not begun is left out, for what is true now matters more.
 *
 * It is started a moment after the event: a takeover has better things to do than to fork. What is still in the
 * queue when the daemon ends has 10 s in all, after VM, peer and disks are done with.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define QUEUE 64
#define VARIABLES 10
#define START_MS 50
#define END_LIMIT_MS 10000

struct notice {
	char text[VARIABLES][320]; /* NAME=value */
};

struct notify {
	struct daemon *d;
	struct notice queue[QUEUE];
	unsigned int first, n, lost;
	struct child child;
	struct watch *watch;
	uv_timer_t timer; /* nothing runs: to start; otherwise its time limit */
};

/* --- the command --- */

/* Descriptor 2 of the daemon, for what the command says; the environment is the daemon's and ours. */
static int spawn(struct notify *n, const struct notice *e)
{
	char *argv[] = { (char *)n->d->cfg->notify, NULL };
	unsigned int i, count = 0;
	char **envp;
	int r;

	while (environ[count])
		count++;
	envp = calloc(count + VARIABLES + 1, sizeof(*envp));
	if (!envp)
		return -ENOMEM;
	for (i = 0; i < VARIABLES; i++)
		envp[i] = (char *)e->text[i];
	memcpy(envp + VARIABLES, environ, count * sizeof(*envp));
	r = spawn_child_env(&n->child, argv, envp, STDERR_FILENO);
	free(envp);
	return r;
}

static const char *event_of(const struct notice *e)
{
	return strchr(e->text[0], '=') + 1;
}

static void take_first(struct notify *n)
{
	n->first = (n->first + 1) % QUEUE;
	n->n--;
}

static void start_next(struct notify *n);

static void on_start(uv_timer_t *t)
{
	start_next(t->data);
}

static void judge(const struct notify *n, int status)
{
	if (WIFSIGNALED(status))
		log_error("[notify] command: %s was ended by signal %d", n->d->cfg->notify, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		log_warn("[notify] command: %s ended with status %d", n->d->cfg->notify, WEXITSTATUS(status));
}

static void on_exit_event(void *arg, int events)
{
	struct notify *n = arg;
	int status = 0;

	if (spawn_reap(&n->child, &status) < 0)
		return;
	watch_free(n->watch);
	n->watch = NULL;
	uv_timer_stop(&n->timer);
	judge(n, status);
	if (n->n)
		uv_timer_start(&n->timer, on_start, 0, 0);
}

static void on_limit(uv_timer_t *t)
{
	struct notify *n = t->data;

	log_error("[notify] command: %s has run for %llu s: killed", n->d->cfg->notify,
		  (unsigned long long)n->d->cfg->notify_limit_us / 1000000);
	kill(-n->child.pid, SIGKILL); /* it leads a process group, see spawn.c */
}

static void start_next(struct notify *n)
{
	struct notice *e = &n->queue[n->first];
	int r;

	if (n->child.pid || !n->n)
		return;
	take_first(n);
	r = spawn(n, e);
	if (r < 0) {
		log_error("[notify] command: %s: %s", n->d->cfg->notify, strerror(-r));
		if (n->n)
			uv_timer_start(&n->timer, on_start, START_MS, 0);
		return;
	}
	log_debug("[notify] command runs for %s", event_of(e));
	n->watch = watch_new(&n->d->loop, n->child.pidfd, UV_READABLE, on_exit_event, n);
	uv_timer_start(&n->timer, on_limit, n->d->cfg->notify_limit_us / 1000, 0);
}

/* --- events --- */

__attribute__((format(printf, 3, 4))) static void set(struct notice *e, unsigned int *i, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e->text[*i], sizeof(e->text[*i]), fmt, ap);
	va_end(ap);
	++*i;
}

static void fill(const struct daemon *d, struct notice *e, const char *event, enum core_state former, const char *reason)
{
	unsigned int i = 0;

	set(e, &i, "COLO_EVENT=%s", event);
	set(e, &i, "COLO_VM=%s", d->cfg->name);
	set(e, &i, "COLO_NODE=%s", config_local(d->cfg)->name);
	set(e, &i, "COLO_PEER=%s", config_peer(d->cfg)->name);
	set(e, &i, "COLO_ROLE=%s", daemon_role_name(d));
	set(e, &i, "COLO_STATE=%s", core_state_name(d->core.state));
	set(e, &i, "COLO_FORMER_STATE=%s", core_state_name(former));
	set(e, &i, "COLO_REASON=%s", reason);
	set(e, &i, "COLO_GENERATION=%llu", (unsigned long long)d->core.generation);
	set(e, &i, "COLO_EPOCH=%llu", (unsigned long long)d->core.epoch);
	_Static_assert(VARIABLES == 10, "as many as are set here");
}

static void put(struct daemon *d, const char *event, enum core_state former, const char *reason)
{
	struct notify *n = d->notify;

	if (!n)
		return;
	if (n->n == QUEUE) {
		take_first(n);
		if (!n->lost++)
			log_error("[notify] command: more than %d events wait for it: the oldest are left out", QUEUE);
	}
	fill(d, &n->queue[(n->first + n->n++) % QUEUE], event, former, reason);
	if (!n->child.pid && !uv_is_active((uv_handle_t *)&n->timer))
		uv_timer_start(&n->timer, on_start, START_MS, 0);
}

/* What led to a state, where losing the peer or the VM did. */
static const char *reason_of(const struct daemon *d, enum core_state now)
{
	static const uint32_t lost = 1u << CORE_ALONE | 1u << CORE_CLAIMING | 1u << CORE_TAKEOVER | 1u << CORE_GIVEN_UP |
				     1u << CORE_FAILED | 1u << CORE_STOPPED;

	return lost & 1u << now ? core_loss_name(d->core.loss) : core_loss_name(CORE_LOSS_NONE);
}

void notify_state(struct daemon *d, enum core_state before)
{
	enum core_state now = d->core.state;
	const char *reason = reason_of(d, now);

	/* why a start fails has been said, and is the last thing to be read */
	if (before != CORE_STARTING || now != CORE_FAILED)
		log_info("state %s -> %s: event=state vm=%s node=%s peer=%s role=%s state=%s former_state=%s reason=%s "
			 "generation=%llu epoch=%llu", core_state_name(before), core_state_name(now), d->cfg->name,
			 config_local(d->cfg)->name, config_peer(d->cfg)->name, daemon_role_name(d),
			 core_state_name(now), core_state_name(before), reason,
			 (unsigned long long)d->core.generation, (unsigned long long)d->core.epoch);
	put(d, "state", before, reason);
}

void notify_alarm(struct daemon *d, const char *event, const char *text)
{
	put(d, event, d->core.state, text);
}

/* --- start and end --- */

int notify_check(const struct config *c, char *error, size_t size)
{
	if (!*c->notify)
		return 0;
	if (*c->notify != '/')
		snprintf(error, size, "[notify] command: '%s' is no absolute path", c->notify);
	else if (access(c->notify, X_OK) < 0)
		snprintf(error, size, "[notify] command: %s: %s", c->notify, strerror(errno));
	else
		return 0;
	return -EINVAL;
}

int notify_start(struct daemon *d)
{
	struct notify *n;
	char error[400];

	if (!*d->cfg->notify)
		return 0;
	if (notify_check(d->cfg, error, sizeof(error)) < 0) {
		log_error("%s", error);
		return -EINVAL;
	}
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->d = d;
	n->child.pidfd = -1;
	uv_timer_init(&d->loop, &n->timer);
	n->timer.data = n;
	d->notify = n;
	return 0;
}

/* until it ends, at most so long; false: it did not */
static bool wait_child(struct notify *n, uint64_t until_ns)
{
	struct pollfd p = { .fd = n->child.pidfd, .events = POLLIN };
	uint64_t now = clock_now_ns();
	int status = 0;

	if (now < until_ns)
		poll(&p, 1, (int)((until_ns - now) / 1000000 + 1));
	if (spawn_reap(&n->child, &status) < 0)
		return false;
	judge(n, status);
	return true;
}

void notify_stop(struct daemon *d)
{
	uint64_t until = clock_now_ns() + END_LIMIT_MS * 1000000ull;
	struct notify *n = d->notify;

	if (!n)
		return;
	uv_timer_stop(&n->timer);
	watch_free(n->watch);
	n->watch = NULL;
	while (n->child.pid || n->n) {
		if (!n->child.pid) {
			struct notice *e = &n->queue[n->first];

			take_first(n);
			if (spawn(n, e) < 0)
				continue;
		}
		if (!wait_child(n, until)) {
			log_error("[notify] command: %s has not ended: killed, %u events left out", n->d->cfg->notify, n->n);
			break;
		}
	}
	spawn_kill(&n->child);
	d->notify = NULL;
	uv_close((uv_handle_t *)&n->timer, NULL);
}

void notify_free(struct notify *n)
{
	free(n);
}
