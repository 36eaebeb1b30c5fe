/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_wp.c - which way of noticing writes is taken, and what is said where there is none
 *
 * A system call filter (seccomp) plays an older kernel, or one that does not permit it. Each case has a process of its
 * own, as there is no way back from a filter.
 */
#include "uffd.h"
#include "wp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cmocka.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, skip)
#define END(what) BPF_STMT(BPF_RET | BPF_K, what)

/* From now on system call @nr, if its second argument is @arg or that is 0, fails with @error. */
static void forbid(int nr, uint32_t arg, int error)
{
	struct sock_filter any[] = {
		LOAD(nr), UNLESS(nr, 1), END(SECCOMP_RET_ERRNO | error), END(SECCOMP_RET_ALLOW),
	};
	struct sock_filter one[] = {
		LOAD(nr), UNLESS(nr, 3), LOAD(args[1]), UNLESS(arg, 1), END(SECCOMP_RET_ERRNO | error),
		END(SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {
		arg ? sizeof(one) / sizeof(*one) : sizeof(any) / sizeof(*any), arg ? one : any,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(77);
}

struct outcome {
	int ret;
	char way[8];
	struct errtext err;
};

/* wp_probe() with @choice in a process for which @prepare did its worst. */
static struct outcome probe(const char *choice, void (*prepare)(void))
{
	struct outcome o = { 0 };
	int p[2], status;
	pid_t pid;

	assert_int_equal(pipe(p), 0);
	pid = fork();
	if (pid == 0) {
		prepare();
		wp_choose(choice);
		o.ret = wp_probe(&o.err);
		snprintf(o.way, sizeof(o.way), "%s", wp_way());
		_exit(write(p[1], &o, sizeof(o)) != sizeof(o));
	}
	close(p[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(read(p[0], &o, sizeof(o)), sizeof(o));
	close(p[0]);
	return o;
}

static void refused(const struct outcome *o, int error, const char *words)
{
	assert_int_equal(o->ret, -error);
	if (!strstr(o->err.text, words))
		fail_msg("'%s' is not in '%s'", words, o->err.text);
}

static void no_userfaultfd(void)
{
	forbid(SYS_userfaultfd, 0, ENOSYS);
}

static void no_features(void)
{
	forbid(SYS_ioctl, UFFD_API_IOCTL, EINVAL);
}

static void not_permitted(void)
{
	forbid(SYS_userfaultfd, 0, EPERM);
	forbid(SYS_ioctl, UFFD_NEW_IOCTL, EPERM);
}

static void by_device_only(void)
{
	forbid(SYS_userfaultfd, 0, EPERM);
}

static void nothing(void)
{
}

static void too_old(void **state)
{
	struct outcome o = probe("auto", no_userfaultfd);

	(void)state;
	refused(&o, EOPNOTSUPP, "Linux 5.19 or later is needed, this is Linux ");
	o = probe("auto", no_features);
	refused(&o, EOPNOTSUPP, "no userfaultfd write protection of shared memory: Linux 5.19 or later");
	o = probe("async", no_features);
	refused(&o, EOPNOTSUPP, "no asynchronous userfaultfd write protection: Linux 6.7 or later");
}

static void forbidden(void **state)
{
	struct outcome o = probe("auto", not_permitted);

	(void)state;
	refused(&o, EPERM, "vm.unprivileged_userfaultfd");
}

static void chosen(void **state)
{
	struct outcome o = probe("sync", nothing);

	(void)state;
	assert_int_equal(wp_choose("often"), -EINVAL);
	assert_int_equal(o.ret, 0);
	assert_string_equal(o.way, "sync");
	o = probe("auto", nothing);
	assert_int_equal(o.ret, 0);
	assert_string_equal(o.way, "async");
	if (access("/dev/userfaultfd", R_OK | W_OK) == 0) {
		o = probe("sync", by_device_only);
		assert_int_equal(o.ret, 0);
		assert_string_equal(o.way, "sync");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(too_old), cmocka_unit_test(forbidden), cmocka_unit_test(chosen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
