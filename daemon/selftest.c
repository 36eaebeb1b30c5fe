/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * selftest.c - see selftest.h
 *
 * Theory of operation. What is relied on in QEMU is not all documented, and whether KVM works is seen only when a guest
 * runs in it. So before anything else throw-away QEMUs show it, with the VM's own devices:
 *
 *   kvm      (accel = auto) the firmware gets through its start within KVM_MS. Else: tcg
 *   direct   (driver = auto, direct) the agent saves device state, resets, loads it, saves again, compares; under TCG
 *            it sees that translated code was thrown away (agent/selftest.c)
 *   standby  (driver = standby, or auto where direct fails) the agent finds RAM in its file and can track it; device
 *            state without RAM goes by migration into a second QEMU, which stands there paused
 *
 * This asks and waits, one step after the other, so a child of the daemon does it: a fork, not a program, since all
 * it needs is what the daemon knows. It writes one struct selftest_result to a pipe, and ends. Its QEMUs die
 * with it, it dies with the daemon.
 *
 * A pass, and a QEMU that says no, are kept for the next start (selftest_cache.c); not what was too slow to answer.
 */
#include "daemon/selftest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/throwaway.h"

#define KVM_MS 5000
#define DIRECT_MS 20000
#define STANDBY_MS 25000
#define PASSED "passed"

struct selftest {
	struct daemon *d;
	char *identity;
	struct selftest_found found;
	struct selftest_result *result;
	bool asked; /* not all was known */
};

/* A way to see what comes then: 1: direct fails, 2: both. */
static int fails_on_purpose(int which)
{
#ifdef COLO_FAILPOINTS
	const char *set = getenv("COLO_FAIL_SELFTEST");

	return set && atoi(set) >= which;
#else
	return 0;
#endif
}

/* --- direct --- */

static int direct(struct throwaway *t, struct daemon *d)
{
	int r = throwaway_start(t, d, &(struct throwaway_ram){ .fd = -1 }, DIRECT_MS);

	r = r < 0 ? r : throwaway_agent(t, AGENT_SETUP);
	r = r < 0 ? r : throwaway_agent(t, AGENT_SELFTEST);
	if (r == 0 && fails_on_purpose(1)) {
		snprintf(t->error, sizeof(t->error), "COLO_FAIL_SELFTEST is set");
		r = -EILSEQ;
	}
	return r;
}

/* --- standby --- */

static json_t *capabilities(void)
{
	return json_pack("{s:[{s:s s:b}]}", "capabilities", "capability", "x-ignore-shared", "state", 1);
}

/* Gives QEMU its end of the stream, and tells it what to do with it. Takes fd. */
static int stream(struct throwaway *t, const char *command, int fd)
{
	int r = throwaway_qmp(t, "migrate-set-capabilities", capabilities(), -1, NULL);

	r = r < 0 ? r : throwaway_qmp(t, "getfd", json_pack("{s:s}", "fdname", "state"), fd, NULL);
	close(fd);
	return r < 0 ? r : throwaway_qmp(t, command, json_pack("{s:s}", "uri", "fd:state"), -1, NULL);
}

static int migrate(struct throwaway *from, struct throwaway *to)
{
	int fds[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	r = stream(to, "migrate-incoming", fds[0]);
	if (r < 0) {
		close(fds[1]);
		return r;
	}
	r = stream(from, "migrate", fds[1]);
	r = r < 0 ? r : throwaway_await(from, "query-migrate", "completed", "failed cancelled");
	r = r < 0 ? r : throwaway_await(to, "query-migrate", "completed", "failed");
	return r < 0 ? r : throwaway_await(to, "query-status", "paused prelaunch", "internal-error shutdown");
}

static int with_ram(struct throwaway t[2], struct daemon *d, int fd)
{
	int r = throwaway_start(&t[0], d, &(struct throwaway_ram){ .fd = fd }, STANDBY_MS);

	r = r < 0 ? r : throwaway_agent(&t[0], AGENT_SETUP);
	r = r < 0 ? r : throwaway_agent(&t[0], AGENT_SELFTEST);
	r = r < 0 ? r : throwaway_start(&t[1], d, &(struct throwaway_ram){ .fd = fd, .incoming = true }, STANDBY_MS);
	return r < 0 ? r : migrate(&t[0], &t[1]);
}

/* Of two QEMUs; what is wrong with either is said by the first. */
static int standby(struct throwaway *t, struct daemon *d)
{
	struct throwaway both[2] = { { .child = { .pidfd = -1 }, .qmp_fd = -1, .agent_fd = -1 },
				     { .child = { .pidfd = -1 }, .qmp_fd = -1, .agent_fd = -1 } };
	int fd = memfd_create("ram", MFD_CLOEXEC), r;

	r = fd < 0 || ftruncate(fd, d->cfg->memory) < 0 ? -errno : with_ram(both, d, fd);
	if (r == 0 && fails_on_purpose(2)) {
		snprintf(both[0].error, sizeof(both[0].error), "COLO_FAIL_SELFTEST is set");
		r = -EILSEQ;
	}
	throwaway_end(&both[0]);
	throwaway_end(&both[1]);
	if (fd >= 0)
		close(fd);
	*t = both[!*both[0].error && *both[1].error];
	if (r < 0 && !*t->error)
		snprintf(t->error, sizeof(t->error), "%s", strerror(-r));
	return r;
}

/* --- one after the other --- */

static int choose_accel(struct selftest *s)
{
	char *found = s->found.test[TEST_KVM], why[THROWAWAY_TEXT] = "";
	struct daemon *d = s->d;
	bool kvm = d->cfg->accel == ACCEL_KVM;

	if (kvm && throwaway_has_kvm(why, sizeof(why)) < 0) {
		snprintf(s->result->text, SELFTEST_TEXT, "[vm] accel = kvm: %s", why);
		return -ENODEV;
	}
	if (d->cfg->accel == ACCEL_AUTO) {
		if (!*found) {
			s->asked = true;
			kvm = throwaway_kvm(d, KVM_MS, why, sizeof(why)) == 0;
			snprintf(found, SELFTEST_FOUND, "%s", kvm ? PASSED : why);
		}
		kvm = !strcmp(found, PASSED);
		if (!kvm)
			log_info("accelerator tcg: kvm does not work here: %s", found);
	}
	snprintf(d->accel, sizeof(d->accel), "%s", kvm ? "kvm" : "tcg");
	return 0;
}

/* Does this one pass? If not text says why. 0 or -errno */
static int try_driver(struct selftest *s, enum selftest_test which, char *text, size_t size)
{
	char *found = s->found.test[which];
	struct throwaway t;
	int r;

	if (*found) {
		snprintf(text, size, "%.*s", (int)size - 1, found);
		return strcmp(found, PASSED) ? -EILSEQ : 0;
	}
	s->asked = true;
	r = which == TEST_DIRECT ? direct(&t, s->d) : standby(&t, s->d);
	if (*t.version)
		snprintf(s->found.version, sizeof(s->found.version), "%s", t.version);
	snprintf(text, size, "%.*s", (int)size - 1, r < 0 ? t.error : PASSED);
	if (r != -ETIMEDOUT)
		snprintf(found, SELFTEST_FOUND, "%s", text);
	throwaway_end(&t);
	return r;
}

static int refuse(struct selftest *s, int status, const char *direct_text, const char *standby_text)
{
	int n = 0;

	if (!*s->found.version) { /* no QEMU at all */
		snprintf(s->result->text, SELFTEST_TEXT, "%s", *direct_text ? direct_text : standby_text);
		return status;
	}
	n = snprintf(s->result->text, SELFTEST_TEXT, "QEMU %s (%s) fails the self-test: ", s->found.version,
		     s->d->cfg->qemu);
	if (n < SELFTEST_TEXT)
		snprintf(s->result->text + n, SELFTEST_TEXT - n, "%s%s%s%s%s", *direct_text ? "driver direct: " : "",
			 direct_text, *direct_text && *standby_text ? "; " : "", *standby_text ? "driver standby: " : "",
			 standby_text);
	return status;
}

static int choose_driver(struct selftest *s)
{
	char direct_text[180] = "", standby_text[180] = "";
	uint64_t wanted = s->d->cfg->driver;
	const char *driver = "direct";
	int r = 0;

	if (wanted != DRIVER_STANDBY)
		r = try_driver(s, TEST_DIRECT, direct_text, sizeof(direct_text));
	if (r < 0 && wanted == DRIVER_AUTO && *s->found.version)
		log_warn("driver direct fails the self-test: %s; trying standby", direct_text);
	if (wanted == DRIVER_STANDBY || (r < 0 && wanted == DRIVER_AUTO && *s->found.version)) {
		driver = "standby";
		r = try_driver(s, TEST_STANDBY, standby_text, sizeof(standby_text));
	}
	if (r < 0)
		return refuse(s, r, direct_text, standby_text);
	snprintf(s->result->driver, sizeof(s->result->driver), "%s", driver);
	return 0;
}

static void run(struct daemon *d, struct selftest_result *result)
{
	struct selftest s = { .d = d, .result = result, .identity = selftest_identity(d) };

	selftest_recall(d, s.identity, &s.found);
	result->status = choose_accel(&s);
	if (result->status == 0)
		result->status = choose_driver(&s);
	result->known = !s.asked;
	snprintf(result->version, sizeof(result->version), "%s", s.found.version);
	snprintf(result->accel, sizeof(result->accel), "%s", d->accel);
	/* what ends in a refusal is for the operator to change, maybe in ways that are not seen here */
	if (result->status == 0 && s.asked)
		selftest_keep(d, s.identity, &s.found);
	free(s.identity);
}

/* --- the child --- */

struct selftest_child {
	struct watch *watch;
	int fd;
	pid_t pid;
	selftest_fn *fn;
};

static void on_result(void *opaque, int events)
{
	struct daemon *d = opaque;
	struct selftest_child *w = d->selftest;
	struct selftest_result r;
	selftest_fn *fn = w->fn;

	if (read(w->fd, &r, sizeof(r)) != sizeof(r))
		r = (struct selftest_result){ .status = -EPIPE, .text = "the self-test has ended without a result" };
	selftest_stop(d);
	fn(d, &r);
}

void selftest_stop(struct daemon *d)
{
	struct selftest_child *w = d->selftest;

	if (!w)
		return;
	d->selftest = NULL;
	watch_free(w->watch);
	close(w->fd);
	kill(w->pid, SIGKILL);
	waitpid(w->pid, NULL, 0);
	free(w);
}

static void child(struct daemon *d, int fd, pid_t parent)
{
	struct selftest_result r = { .status = -EIO };

	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	run(d, &r);
	_exit(write(fd, &r, sizeof(r)) == sizeof(r) ? 0 : 1); /* the pipe takes it in one piece */
}

int selftest_start(struct daemon *d, selftest_fn *fn)
{
	struct selftest_child *w = calloc(1, sizeof(*w));
	pid_t parent = getpid();
	int p[2];

	if (!w || pipe2(p, O_CLOEXEC) < 0) {
		free(w);
		return -ENOMEM;
	}
	*w = (struct selftest_child){ .fd = p[0], .fn = fn, .pid = fork() };
	if (w->pid == 0)
		child(d, p[1], parent);
	close(p[1]);
	if (w->pid < 0) {
		close(p[0]);
		free(w);
		return -EAGAIN;
	}
	w->watch = watch_new(&d->loop, p[0], UV_READABLE, on_result, d);
	d->selftest = w;
	return 0;
}
