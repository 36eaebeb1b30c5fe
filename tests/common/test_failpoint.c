/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_failpoint.c - armed steps fire once, at the passing that was asked for, and others never
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/failpoint.h"

static char path[] = "/tmp/colo-failpoint-XXXXXX";

static void arm(const char *line)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fprintf(f, "%s\n", line);
	fclose(f);
}

/* How a process ends that passes `one` four times, and `two` once before each; 3 is unhurt. */
static int pass(int *passed)
{
	int fds[2], status;
	char c;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		for (int i = 0; i < 4; i++) {
			FAILPOINT("two");
			FAILPOINT("one");
			if (write(fds[1], "x", 1) != 1)
				_exit(9);
		}
		_exit(3);
	}
	close(fds[1]);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	if (WIFSTOPPED(status)) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	for (*passed = 0; read(fds[0], &c, 1) == 1; ++*passed)
		;
	close(fds[0]);
	return status;
}

static void test_not_armed(void **state)
{
	int passed, status;

	unlink(path);
	status = pass(&passed);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3 && passed == 4);
	arm("three 1 kill");
	status = pass(&passed);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3 && passed == 4);
	assert_int_equal(access(path, F_OK), 0);
}

static void test_actions(void **state)
{
	int passed, status;

	arm("one 1 kill");
	status = pass(&passed);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && passed == 0);
	assert_int_equal(access(path, F_OK), -1);
	arm("one 3 kill");
	status = pass(&passed);
	assert_true(WIFSIGNALED(status) && passed == 2);
	arm("two 2 stop");
	status = pass(&passed);
	assert_true(WIFSTOPPED(status) && passed == 1);
	arm("one 4 exit");
	status = pass(&passed);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1 && passed == 3);
	arm("one 2 sleep 10");
	status = pass(&passed);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3 && passed == 4);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_nonsense(void **state)
{
	int passed, status;

	arm("one");
	status = pass(&passed);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
	arm("one 1 dance");
	status = pass(&passed);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_armed),
		cmocka_unit_test(test_actions),
		cmocka_unit_test(test_nonsense),
	};
	int fd = mkstemp(path), r;

	close(fd);
	setenv("COLO_FAILPOINT", path, 1);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return r;
}
