/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * spawn.h - start a child that gets a fixed set of descriptors and dies with its parent
 */
#ifndef COLO_SPAWN_H
#define COLO_SPAWN_H

#include <sys/types.h>

struct child {
	pid_t pid; /* 0: none */
	int pidfd; /* readable when the child has ended; -1: none */
};

/* Linux' SCHED_BATCH: a thread that wakes does not push the running one off its CPU */
#define SPAWN_BATCH 1u
/* the kernel may choose it when memory is short, as it would have without spawn_protect_from_oom() */
#define SPAWN_OOM 2u

/* Best effort, and inherited: when memory is short the kernel rather ends another process. */
void spawn_protect_from_oom(void);
/* Best effort: this process runs before others that want the CPU; its children do not inherit that. */
void spawn_raise_priority(void);

/* argv: NULL-terminated. fds[i] becomes descriptor 3+i in the child, all others but 0 to 2 are closed;
 * standard output and error go to out_fd (< 0: inherited). The child gets SIGKILL when the calling
 * thread ends. flags: SPAWN_*. 0 or -errno (also when exec failed). */
int spawn_child(struct child *c, char *const argv[], const int *fds, int nfds, int out_fd,
		unsigned int flags);
/* The same with an environment of its own, for a program with no descriptors but its standard ones. */
int spawn_child_env(struct child *c, char *const argv[], char *const envp[], int out_fd);
/* Collects the ended child: exit status as of wait(2) in *status. 0, or -EAGAIN: still running. */
int spawn_reap(struct child *c, int *status);
/* SIGKILL and collect */
void spawn_kill(struct child *c);

#endif
