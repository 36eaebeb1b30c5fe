/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * spawn.c - see spawn.h
 */
#include "common/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPAWN_MAX_FDS 48 /* 3 and on, and below 64, where they are moved first */

#define OOM_FILE "/proc/self/oom_score_adj"
#define OOM_PROTECTED -500
#define AUTOGROUP_FILE "/proc/self/autogroup"
#define RAISED_NICE -10

static bool raised; /* spawn_raise_priority() */
static int oom_score_before; /* spawn_protect_from_oom() */

static void write_number(const char *path, int value)
{
	char text[16];
	int fd = open(path, O_WRONLY | O_CLOEXEC), n = snprintf(text, sizeof(text), "%d", value);

	if (fd < 0)
		return;
	if (write(fd, text, n) < 0) {
		/* not allowed to: then it stays as it was */
	}
	close(fd);
}

void spawn_protect_from_oom(void)
{
	FILE *f = fopen(OOM_FILE, "re");

	if (!f)
		return;
	if (fscanf(f, "%d", &oom_score_before) == 1 && oom_score_before > OOM_PROTECTED)
		write_number(OOM_FILE, OOM_PROTECTED);
	fclose(f);
}

void spawn_raise_priority(void)
{
	if (setpriority(PRIO_PROCESS, 0, RAISED_NICE) < 0)
		return;
	raised = true;
	/* where the kernel groups by session, nice counts within a session only, and this is the session's own */
	write_number(AUTOGROUP_FILE, RAISED_NICE);
}

/* In the child. Descriptors are first moved out of the way, so that none overwrites another. */
static int place_fds(const int *fds, int nfds, int out_fd, int error_fd)
{
	int high[SPAWN_MAX_FDS], i, error_high;

	for (i = 0; i < nfds; i++)
		if ((high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 64)) < 0)
			return -errno;
	if ((error_high = fcntl(error_fd, F_DUPFD_CLOEXEC, 64)) < 0)
		return -errno;
	if (out_fd >= 0 && (dup2(out_fd, 1) < 0 || dup2(out_fd, 2) < 0))
		return -errno;
	for (i = 0; i < nfds; i++)
		if (dup2(high[i], 3 + i) < 0)
			return -errno;
	/* what is left open between the last placed one and the error pipe ends with exec */
	syscall(SYS_close_range, 3 + nfds, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
	return error_high;
}

struct program {
	char *const *argv, *const *envp;
	const int *fds;
	int nfds, out_fd;
	unsigned int flags;
};

static void run_child(const struct program *p, int error_fd, pid_t parent)
{
	int null = open("/dev/null", O_RDONLY), r;
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (p->flags & SPAWN_BATCH)
		sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 });
	if (p->flags & SPAWN_OOM)
		write_number(OOM_FILE, oom_score_before);
	if (raised)
		setpriority(PRIO_PROCESS, 0, 0);
	setsid(); /* a terminal's Ctrl-C is for the daemon, which ends its children in order */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	if (null >= 0)
		dup2(null, 0);
	r = place_fds(p->fds, p->nfds, p->out_fd, error_fd);
	if (r >= 0) {
		error_fd = r;
		execvpe(p->argv[0], p->argv, p->envp);
		r = -errno;
	}
	if (write(error_fd, &r, sizeof(r)) < 0)
		_exit(126);
	_exit(127);
}

static int start(struct child *c, const struct program *program)
{
	pid_t parent = getpid();
	int p[2], r = 0;
	ssize_t n;

	*c = (struct child){ .pidfd = -1 };
	if (program->nfds > SPAWN_MAX_FDS)
		return -EINVAL;
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	c->pid = fork();
	if (c->pid == 0)
		run_child(program, p[1], parent);
	close(p[1]);
	if (c->pid < 0) {
		r = -errno;
		c->pid = 0;
		close(p[0]);
		return r;
	}
	n = read(p[0], &r, sizeof(r));
	close(p[0]);
	if (n == sizeof(r)) {
		waitpid(c->pid, NULL, 0);
		c->pid = 0;
		return r;
	}
	c->pidfd = syscall(SYS_pidfd_open, c->pid, 0);
	if (c->pidfd < 0) {
		r = -errno;
		spawn_kill(c);
		return r;
	}
	fcntl(c->pidfd, F_SETFD, FD_CLOEXEC);
	return 0;
}

int spawn_child(struct child *c, char *const argv[], const int *fds, int nfds, int out_fd,
		unsigned int flags)
{
	return start(c, &(struct program){ argv, environ, fds, nfds, out_fd, flags });
}

int spawn_child_env(struct child *c, char *const argv[], char *const envp[], int out_fd)
{
	return start(c, &(struct program){ argv, envp, NULL, 0, out_fd, SPAWN_OOM });
}

int spawn_reap(struct child *c, int *status)
{
	pid_t r;

	if (!c->pid)
		return 0;
	r = waitpid(c->pid, status, WNOHANG);
	if (r == 0)
		return -EAGAIN;
	if (c->pidfd >= 0)
		close(c->pidfd);
	*c = (struct child){ .pidfd = -1 };
	return 0;
}

void spawn_kill(struct child *c)
{
	if (c->pid) {
		kill(c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
	}
	if (c->pidfd >= 0)
		close(c->pidfd);
	*c = (struct child){ .pidfd = -1 };
}
