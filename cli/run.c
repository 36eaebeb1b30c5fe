/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * run.c - `colo run`: a supervisor, and its only child, the daemon
 *
 * Theory of operation
 * -------------------
 * The daemon does the work; QEMU and the disk managers die with it. The supervisor decides nothing about the VM. It
 * sees to it that there is a daemon: a host whose daemon, QEMU or disk failed comes back by itself, as
 * whatever its disks and its peer say.
 *
 *  the daemon ends with 0: the operator asked for it, or the guest is off       end with 0
 *  it ends with an error on the first start, before it was up                   end with that; the operator
 *                                                                               reads the daemon's last line
 *  any other end: a signal, exit status 75 ("again"), an error later on         start it again
 *  told to stop (SIGTERM, SIGINT): passed on                                    end as the daemon does
 *
 * Started again means: without --role and --overwrite, which were about the first start, after 0.5 s. That doubles up
 * to 30 s while daemons live shorter than a minute.
 *
 * Watchdog: a pipe from the daemon, which writes WATCHDOG_ALIVE twice a second. One that writes nothing for [host]
 * watchdog is stopped, or hangs: SIGKILL. Only time in which this process ran, too, counts, so that a host that
 * stood still as a whole kills nobody. A daemon that ends (WATCHDOG_ENDING) has six times as long: its disk managers
 * flush.
 *
 * The daemon dies with its supervisor (PR_SET_PDEATHSIG): who kills the one means both. What the daemon started dies
 * with it in the same way, but takes its time. So the supervisor adopts it (PR_SET_CHILD_SUBREAPER), and starts the next
 * daemon only when all is gone: two disk managers on one disk would destroy it.
 */
#include "cli/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/spawn.h"
#include "common/wire.h"

#define FIRST_DELAY_MS 500
#define LONGEST_DELAY_MS 30000
#define LIVED_MS 60000      /* longer than that: the next start is a first one */
#define TURN_MS 1000        /* a turn of the loop; what it takes longer counts as if it had not */
#define ENDING_FACTOR 6
#define LEFT_TURN_MS 10

struct supervisor {
	const struct config *c;
	int signals; /* signalfd */
	int pipe;    /* from the daemon */
	pid_t pid;
	bool was_up; /* a daemon was, once: what fails now is not the configuration */
	bool ending; /* the daemon says so */
	bool asked;  /* to stop */
	unsigned int silent_ms, delay_ms;
};

static unsigned long long now_ms(void)
{
	return clock_now_ns() / 1000000;
}

/* --- the child --- */

static int be_daemon(struct supervisor *s, struct run_options o, int fd, pid_t parent)
{
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		return 1;
	close(s->signals);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	o.watchdog_fd = fd;
	o.supervised = true;
	return daemon_run(s->c, &o);
}

/* In the child: returns its exit status in *status, and 1. In the supervisor: 0 or -errno. */
static int start_daemon(struct supervisor *s, const struct run_options *o, int *status)
{
	pid_t self = getpid();
	int p[2];

	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	s->pid = fork();
	if (s->pid == 0) {
		close(p[0]);
		*status = be_daemon(s, *o, p[1], self);
		return 1;
	}
	close(p[1]);
	s->pipe = p[0];
	s->silent_ms = 0;
	s->ending = false;
	if (s->pid > 0)
		return 0;
	close(p[0]);
	return -errno;
}

/* --- while it lives --- */

static void read_pipe(struct supervisor *s)
{
	char text[64];
	ssize_t n;

	while ((n = read(s->pipe, text, sizeof(text))) > 0) {
		s->silent_ms = 0;
		s->was_up |= memchr(text, WATCHDOG_UP, n) != NULL;
		s->ending |= memchr(text, WATCHDOG_ENDING, n) != NULL;
	}
}

/* true: told to stop */
static bool read_signals(struct supervisor *s)
{
	struct signalfd_siginfo i;
	bool stop = false;

	while (read(s->signals, &i, sizeof(i)) == sizeof(i))
		if (i.ssi_signo != SIGCHLD)
			stop = true;
	return stop;
}

static void judge_silence(struct supervisor *s)
{
	unsigned long long limit = config_local(s->c)->watchdog_us / 1000;

	if (s->ending)
		limit *= ENDING_FACTOR;
	if (s->silent_ms <= limit)
		return;
	log_error("the daemon (process %d) has done nothing for %u s: killed", (int)s->pid, s->silent_ms / 1000);
	kill(s->pid, SIGKILL);
	s->silent_ms = 0;
}

/* Waits for its end. Returns its status as of wait(2). */
static int attend(struct supervisor *s)
{
	unsigned long long before, took;
	struct pollfd p[2];
	int status;

	for (;;) {
		p[0] = (struct pollfd){ .fd = s->signals, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = s->pipe, .events = POLLIN };
		before = now_ms();
		/* a pipe without writer is readable for good: then the end is near */
		poll(p, p[1].fd < 0 ? 1 : 2, TURN_MS);
		took = now_ms() - before;
		s->silent_ms += took < TURN_MS ? took : TURN_MS;
		if (s->pipe >= 0)
			read_pipe(s);
		if (p[1].revents & POLLHUP) {
			close(s->pipe);
			s->pipe = -1;
		}
		if (read_signals(s)) {
			s->asked = true;
			kill(s->pid, SIGTERM);
		}
		if (waitpid(s->pid, &status, WNOHANG) == s->pid)
			return status;
		judge_silence(s);
	}
}

/* --- afterwards --- */

/* Kills what it left behind, all that is this process' child now. */
static void kill_left(void)
{
	char path[64];
	FILE *f;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "re");
	if (!f)
		return; /* PR_SET_PDEATHSIG must do */
	while (fscanf(f, "%d", &pid) == 1)
		kill(pid, SIGKILL);
	fclose(f);
}

/* false: told to stop meanwhile */
static bool collect_left(struct supervisor *s)
{
	unsigned int turns = 0;

	for (;;) {
		kill_left();
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (waitpid(-1, NULL, WNOHANG) < 0)
			return true; /* there is none */
		if (++turns % (10000 / LEFT_TURN_MS) == 0)
			log_error("a process that the daemon left behind cannot be killed: waiting for its end");
		poll(NULL, 0, LEFT_TURN_MS);
		if (read_signals(s))
			return false;
	}
}

static int exit_status(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Is that the end of it all? */
static bool is_over(const struct supervisor *s, int status)
{
	if (s->asked)
		return true;
	return WIFEXITED(status) && (WEXITSTATUS(status) == 0 ||
				     (!s->was_up && WEXITSTATUS(status) != CORE_EXIT_AGAIN));
}

static void say_end(const struct supervisor *s, int status)
{
	char how[64];

	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(how, sizeof(how), "has ended with status %d", exit_status(status));
	log_warn("the daemon %s: it is started again in %u.%u s", how, s->delay_ms / 1000, s->delay_ms % 1000 / 100);
}

/* false: told to stop meanwhile */
static bool wait_before_start(struct supervisor *s)
{
	struct pollfd p = { .fd = s->signals, .events = POLLIN };
	unsigned long long end = now_ms() + s->delay_ms, now;

	while ((now = now_ms()) < end) {
		if (poll(&p, 1, (int)(end - now)) > 0 && read_signals(s))
			return false;
	}
	s->delay_ms = s->delay_ms * 2 < LONGEST_DELAY_MS ? s->delay_ms * 2 : LONGEST_DELAY_MS;
	return true;
}

/* A start that failed counts as a daemon that ended by a signal: the reason (no memory, say) may go. */
static int supervise(struct supervisor *s, struct run_options o)
{
	unsigned long long began;
	int status, r;

	for (;;) {
		began = now_ms();
		r = start_daemon(s, &o, &status);
		if (r > 0)
			return status;
		if (r < 0)
			log_error("the daemon cannot be started: %s", strerror(-r));
		status = r < 0 ? SIGKILL : attend(s);
		if (s->pipe >= 0)
			close(s->pipe);
		s->pipe = -1;
		if (!collect_left(s) || is_over(s, status))
			return exit_status(status);
		if (now_ms() - began >= LIVED_MS)
			s->delay_ms = FIRST_DELAY_MS;
		say_end(s, status);
		if (!wait_before_start(s))
			return 0;
		o.role = START_BY_DISKS;
		o.overwrite = false;
	}
}

int run_node(const struct config *c, const struct run_options *o, bool once)
{
	struct supervisor s = { .c = c, .pipe = -1, .delay_ms = FIRST_DELAY_MS };
	sigset_t set;

	spawn_protect_from_oom();
	spawn_raise_priority(); /* a busy host is not a dead one: heartbeats go out in time */
	if (once)
		return daemon_run(c, o);
	log_set_context(c->name, "supervisor", 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s.signals < 0) {
		log_error("signalfd: %s", strerror(errno));
		return 1;
	}
	return supervise(&s, *o);
}
