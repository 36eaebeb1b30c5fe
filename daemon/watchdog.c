/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * watchdog.c - signs of life: of the daemon for its supervisor, of QEMU and the disk managers for the daemon
 *
 * Theory of operation. What ends is noticed at once, by pidfd or socket (vm.c, diskman.c). This is about what hangs.
 * Twice a second each part is asked something that costs nothing, if it owes no answer: QEMU's main loop by a ping to the
 * agent, its monitor by QMP query-status, each disk manager's control thread by DISK_STATUS. One that owes an answer
 * for longer than [vm] watchdog hangs: the core hears CORE_EV_VM_WEDGED or CORE_EV_DISK_FAILED and hands the VM over,
 * where there is somebody to take it; else there is an alarm, until an answer comes. (With driver standby a ping shows
 * the agent's thread only; QMP is answered in the main loop, and so shows that.)
 *
 * What is slow must not be taken for what hangs:
 *  - only time in which this process ran counts, so a host that stood still as a whole starts anew;
 *  - a checkpoint waits for the disk, and that may wait 5 s for the peer: such a request has 10 s; one that touches all
 *    RAM has a minute and more. While one is under way QMP is not judged, and while RAM is being moved by a
 *    migration nothing of QEMU is;
 *  - a disk manager that commits, syncs or recovers has half a minute, and OPEN all the time it needs;
 *  - but a process that is stopped (SIGSTOP, a debugger) has [vm] watchdog, whatever it was doing.
 *
 * Also looked at here, as nothing else would notice before it is too late: full directories.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/log.h"
#include "daemon/daemon.h"

#define TURN_MS 500
#define SOON_MS 100
#define LONGEST_TURN_US 750000
#define CHECKPOINT_LIMIT_US 10000000
#define RAM_LIMIT_US 60000000
#define DISK_LIMIT_US 30000000
#define GIB (1ull << 30)
#define SPACE_TURNS 20
#define STATE_SPACE (1ull << 20) /* sockets and logs */
#define DATA_SPACE (16ull << 20) /* what is known of the disks */

/* --- for the supervisor --- */

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

void watchdog_ending(struct daemon *d)
{
	sign(d, WATCHDOG_ENDING);
}

/* A turn has passed. What was asked within it does not owe an answer for all of it: the next turn is the first to
 * count. Whoever takes an answer sets *silent to false. */
static void count(uint64_t *silent_us, bool *silent, bool owes, uint64_t us)
{
	*silent_us = owes && *silent ? *silent_us + us : 0;
	*silent = owes;
}

/* --- QEMU --- */

static bool is_stopped(pid_t pid)
{
	char path[64], text[512], state = 0;
	const char *end;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	end = strrchr(text, ')'); /* of the name, which may have anything in it */
	return end && sscanf(end + 1, " %c", &state) == 1 && (state == 'T' || state == 't');
}

static void on_qmp_answer(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	d->vm.qmp_asked = false;
}

static void ask_vm(struct daemon *d)
{
	struct vm *vm = &d->vm;

	agentlink_ping(d);
	if (!vm->qmp || vm->qmp_asked)
		return;
	vm->qmp_silent_us = 0;
	/* where it takes no question, as it is closed, there is no answer either */
	vm->qmp_asked = qmp_command(vm->qmp, "query-status", NULL, -1, on_qmp_answer, d) != -ENOMEM;
}

static uint64_t agent_limit(const struct daemon *d)
{
	const struct agent_request *r = &d->agent.request;
	uint64_t limit = d->cfg->watchdog_us, gib = (d->cfg->memory + GIB - 1) / GIB;

	if (!d->agent.fn || is_stopped(d->vm.child.pid))
		return limit;
	switch (r->op) {
	case AGENT_PING:
	case AGENT_STOP:
	case AGENT_CONT:
		return limit;
	case AGENT_CHECKPOINT:
	case AGENT_APPLY:
		if (r->flags & AGENT_F_HASH)
			break;
		return (limit > CHECKPOINT_LIMIT_US ? limit : CHECKPOINT_LIMIT_US) + gib * 1000000;
	default:
		break;
	}
	return limit + RAM_LIMIT_US + gib * 4000000;
}

/* NULL: nothing is wrong. */
static const char *vm_fault(const struct daemon *d)
{
	const struct agentlink *a = &d->agent;

	if (a->gone)
		return "the agent in it has ended";
	if (a->silent_us > agent_limit(d))
		return "its main loop does not answer";
	if (!a->fn && !a->silent_us && d->vm.qmp_asked && d->vm.qmp_silent_us > d->cfg->watchdog_us)
		return "its monitor (QMP) does not answer";
	return NULL;
}

/* What it says of itself is worth little while it starts, and while all its RAM is moved. */
static bool judges_vm(const struct daemon *d)
{
	enum core_state s = d->core.state;

	return d->vm.child.pid && !d->vm.dying && s != CORE_STARTING && s != CORE_SEEDING && s != CORE_GIVEN_UP;
}

/* Returns what is wrong, or NULL. */
static const char *watch_vm(struct daemon *d, uint64_t us)
{
	if (!d->vm.child.pid || d->vm.dying)
		return NULL;
	if (d->agent.gone)
		return vm_fault(d);
	if (!judges_vm(d)) {
		d->agent.silent_us = d->vm.qmp_silent_us = 0;
		d->agent.silent = false;
		return NULL;
	}
	count(&d->agent.silent_us, &d->agent.silent, agentlink_busy(&d->agent) || d->agent.pinged, us);
	d->vm.qmp_silent_us += us;
	ask_vm(d);
	return vm_fault(d);
}

/* --- disk managers --- */

static uint64_t disk_limit(const struct daemon *d, const struct dm *m)
{
	if (!diskman_owes(m, true) || is_stopped(m->child.pid))
		return d->cfg->watchdog_us;
	if (m->owes[DISK_OPEN])
		return UINT64_MAX;
	return DISK_LIMIT_US > d->cfg->watchdog_us ? DISK_LIMIT_US : d->cfg->watchdog_us;
}

/* The first one that hangs, or NULL. */
static struct dm *watch_disks(struct daemon *d, uint64_t us)
{
	struct dm *wedged = NULL;
	unsigned int i;

	for (i = 0; i < d->disk.n; i++) {
		struct dm *m = &d->disk.disk[i];

		if (!m->child.pid || !m->hello.op)
			continue;
		count(&m->silent_us, &m->silent, diskman_owes(m, false) || m->doubted, us);
		m->wedged = m->silent_us > disk_limit(d, m);
		if (m->wedged && !wedged)
			wedged = m;
	}
	if (d->disk.ready)
		diskman_poll_status(d);
	return wedged;
}

/* --- verdict --- */

static void verdict(struct daemon *d, const char *vm, const struct dm *disk)
{
	const char *here = config_local(d->cfg)->name;

	if (disk)
		faults_alarm(d, ALARM_SILENT, "%s of %s: its disk manager (process %d) does not answer", disk->name, here,
			     (int)disk->child.pid);
	else if (vm)
		faults_alarm(d, ALARM_SILENT, "QEMU of %s (process %d): %s", here, (int)d->vm.child.pid, vm);
	else
		faults_mended(d, ALARM_SILENT);
	/* a disk first: a QEMU that waits for one may look as if it hung */
	if (disk && disk->writable)
		daemon_event(d, (struct core_event){ .type = CORE_EV_DISK_FAILED });
	else if (vm)
		daemon_event(d, (struct core_event){ .type = CORE_EV_VM_WEDGED });
}

/* --- directories and descriptors --- */

static bool is_full(const char *path, uint64_t need, uint64_t *left)
{
	struct statvfs v;

	if (statvfs(path, &v) < 0)
		return false;
	*left = (uint64_t)v.f_bavail * v.f_frsize;
	return *left < need || (v.f_files && !v.f_favail);
}

static void look_at_space(struct daemon *d)
{
	const struct config_host *h = config_local(d->cfg);
	const char *what = NULL, *path = NULL;
	uint64_t left = 0;

	if (is_full(h->data, DATA_SPACE, &left)) {
		what = "data";
		path = h->data;
	} else if (is_full(h->state, STATE_SPACE, &left)) {
		what = "state";
		path = h->state;
	}
	if (what)
		faults_alarm(d, ALARM_SPACE, "[host %s] %s: %s is full or nearly so", h->name, what, path);
	else
		faults_mended(d, ALARM_SPACE);
}

void watchdog_rest(struct daemon *d, struct watch *listener, int error)
{
	unsigned int i = d->watchdog.resting[0] && d->watchdog.resting[0] != listener;

	if (error != EMFILE && error != ENFILE && error != ENOMEM && error != ENOBUFS)
		return;
	/* it would be ready again at once, for ever */
	watch_events(listener, 0);
	d->watchdog.resting[i] = listener;
	faults_alarm(d, ALARM_DESCRIPTORS, "connections cannot be accepted: %s", strerror(error));
}

static void look_at_listeners(struct daemon *d)
{
	unsigned int i;
	bool rested = false;

	for (i = 0; i < 2; i++) {
		if (!d->watchdog.resting[i])
			continue;
		rested = true;
		watch_events(d->watchdog.resting[i], UV_READABLE);
		d->watchdog.resting[i] = NULL;
	}
	if (!rested) /* for a whole turn, and nothing failed */
		faults_mended(d, ALARM_DESCRIPTORS);
}

/* --- turns --- */

static void on_turn(uv_timer_t *t)
{
	struct daemon *d = t->data;
	uint64_t now = daemon_now_us(), us = now - d->watchdog.turn_us;
	const struct dm *disk;
	const char *vm;

	d->watchdog.turn_us = now;
	us = us < LONGEST_TURN_US ? us : LONGEST_TURN_US;
	watchdog_state(d);
	sign(d, WATCHDOG_ALIVE);
	disk = watch_disks(d, us);
	vm = watch_vm(d, us);
	look_at_listeners(d);
	if (d->watchdog.turns++ % SPACE_TURNS == 0)
		look_at_space(d);
	verdict(d, vm, disk); /* last: the daemon may be ending afterwards */
}

void watchdog_soon(struct daemon *d)
{
	uv_timer_start(&d->pet, on_turn, SOON_MS, TURN_MS);
}

void watchdog_start(struct daemon *d)
{
	d->watchdog.turn_us = daemon_now_us();
	uv_timer_start(&d->pet, on_turn, TURN_MS, TURN_MS);
}
