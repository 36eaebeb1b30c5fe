/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_spawn.c - children get what they are given, and neither outlive their parent nor fail unseen
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/spawn.h"

#define LIMIT_MS 10000

static char *const sleeper[] = { "sleep", "1000", NULL };

static void wait_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
}

static int shell(struct child *c, char *script, const int *fds, int nfds, int out_fd)
{
	char *argv[] = { "sh", "-c", script, NULL };

	return spawn_child(c, argv, fds, nfds, out_fd, 0);
}

/* all that comes out of fd until its end */
static void expect_output(int fd, const char *want)
{
	char text[256];
	size_t n = 0;
	ssize_t r;

	do {
		wait_readable(fd);
		r = read(fd, text + n, sizeof(text) - 1 - n);
		assert_true(r >= 0);
		n += r;
	} while (r > 0);
	text[n] = 0;
	assert_string_equal(text, want);
}

static void test_exec_failure_is_reported(void **state)
{
	char *const missing[] = { "/nonexistent/program", NULL }, *const directory[] = { "/", NULL };
	struct child c;

	assert_int_equal(spawn_child(&c, missing, NULL, 0, -1, 0), -ENOENT);
	assert_int_equal(c.pid, 0);
	assert_int_equal(c.pidfd, -1);
	assert_int_equal(spawn_child(&c, directory, NULL, 0, -1, 0), -EACCES);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing is left behind */
	assert_int_equal(errno, ECHILD);
}

static void test_exit_status(void **state)
{
	struct child c;
	int status = 0;

	assert_int_equal(shell(&c, "exit 3", NULL, 0, -1), 0);
	wait_readable(c.pidfd);
	assert_int_equal(spawn_reap(&c, &status), 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 3);
	assert_int_equal(c.pid, 0);
	assert_int_equal(spawn_reap(&c, &status), 0); /* again: nothing to do */
}

static void test_running_and_killed(void **state)
{
	struct child c;
	pid_t pid;
	int status;

	assert_int_equal(spawn_child(&c, sleeper, NULL, 0, -1, 0), 0);
	pid = c.pid;
	assert_int_equal(spawn_reap(&c, &status), -EAGAIN);
	spawn_kill(&c);
	assert_int_equal(c.pid, 0);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
	spawn_kill(&c); /* no child: no harm */
}

/* The descriptors become 3, 4, ... whatever their numbers were, and no other one is left. */
static void test_descriptors(void **state)
{
	int out[2], a[2], b[2], extra = open("/dev/null", O_RDONLY), status;
	char script[] = "read x <&3; read y <&4; echo $x $y; cd /proc/self/fd; for f in 5 6 7 8 9; do "
			"if [ -e $f ]; then echo $f is open; fi; done";
	struct child c;

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(a, 0), 0);
	assert_int_equal(pipe2(b, 0), 0);
	assert_true(extra >= 0);
	assert_int_equal(write(a[1], "first\n", 6), 6);
	assert_int_equal(write(b[1], "second\n", 7), 7);
	assert_int_equal(shell(&c, script, (int[]){ b[0], a[0] }, 2, out[1]), 0);
	close(out[1]);
	expect_output(out[0], "second first\n");
	wait_readable(c.pidfd);
	spawn_reap(&c, &status);
	close(out[0]);
	close(a[0]);
	close(a[1]);
	close(b[0]);
	close(b[1]);
	close(extra);
}

static void test_input_is_empty_and_errors_are_kept(void **state)
{
	struct child c;
	int out[2], status;

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(shell(&c, "cat; echo problem >&2", NULL, 0, out[1]), 0);
	close(out[1]);
	expect_output(out[0], "problem\n");
	wait_readable(c.pidfd);
	spawn_reap(&c, &status);
	close(out[0]);
}

static void test_too_many_descriptors(void **state)
{
	int fds[49] = { 0 };
	struct child c;

	assert_int_equal(spawn_child(&c, sleeper, fds, 49, -1, 0), -EINVAL);
}

/* The grandchild holds the pipe's other end: its end shows when it has died. */
static void test_child_dies_with_its_parent(void **state)
{
	struct child grandchild;
	char byte;
	pid_t pid;
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (spawn_child(&grandchild, sleeper, NULL, 0, p[1], 0) < 0 || write(p[1], "+", 1) != 1)
			_exit(1);
		pause();
	}
	close(p[1]);
	wait_readable(p[0]);
	assert_int_equal(read(p[0], &byte, 1), 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	wait_readable(p[0]);
	assert_int_equal(read(p[0], &byte, 1), 0);
	close(p[0]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exec_failure_is_reported),
		cmocka_unit_test(test_exit_status),
		cmocka_unit_test(test_running_and_killed),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_input_is_empty_and_errors_are_kept),
		cmocka_unit_test(test_too_many_descriptors),
		cmocka_unit_test(test_child_dies_with_its_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
