/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * selftest.c - save, reset, load into itself, save again, compare
 *
 * What is relied on in QEMU is not all documented. A QEMU in which it does not hold must be refused
 * before it protects anything. Under TCG loading must also throw translated code away, otherwise
 * the VM would run stale code while all of its RAM is right.
 */
#include "selftest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kvm.h"
#include "wp.h"

#define STATE_MAX (64u << 20)

struct state {
	int fd;
	uint64_t len;
	uint8_t *bytes;
};

struct selftest {
	const struct driver *drv;
	struct errtext *err;
	struct state before, after;
	int64_t flushes, flushes_after;
	int ret;
};

static int save(const struct driver *drv, struct state *s, struct errtext *err)
{
	int ret = drv->save(s->fd, &s->len, err);

	if (ret < 0)
		return ret;
	if (s->len > STATE_MAX)
		return agent_fail(err, -E2BIG, "device state of %llu bytes",
				  (unsigned long long)s->len);
	s->bytes = malloc(s->len);
	if (!s->bytes || pread(s->fd, s->bytes, s->len, 0) != (ssize_t)s->len)
		return agent_fail(err, -EIO, "cannot read saved state");
	kvm_blank_clocks(s->bytes, s->len); /* the copy that is compared, not the one that is loaded */
	return 0;
}

static int compare(const struct state *a, const struct state *b, struct errtext *err)
{
	struct qemu_version v = qemu_version();
	uint64_t at = 0;

	while (at < a->len && at < b->len && a->bytes[at] == b->bytes[at])
		at++;
	if (at == a->len && at == b->len)
		return 0;
	return agent_fail(err, -EILSEQ,
			  "QEMU %d.%d.%d does not reload its own device state: "
			  "%llu and %llu bytes, first difference at %llu",
			  v.major, v.minor, v.micro, (unsigned long long)a->len,
			  (unsigned long long)b->len, (unsigned long long)at);
}

static void round_trip(void *opaque)
{
	struct selftest *t = opaque;
	const struct driver *drv = t->drv;

	t->ret = -EBUSY;
	if (drv->running()) {
		agent_fail(t->err, -EBUSY, "self-test: the VM is running");
		return;
	}
	drv->stop(true);
	t->ret = save(drv, &t->before, t->err);
	if (t->ret < 0)
		return;
	t->flushes = drv->jit_flushes();
	drv->reset();
	t->ret = drv->load(t->before.fd, t->err);
	if (t->ret == 0)
		t->ret = save(drv, &t->after, t->err);
	if (t->ret == 0)
		t->ret = compare(&t->before, &t->after, t->err);
}

static void count_flushes(void *opaque)
{
	struct selftest *t = opaque;

	t->flushes_after = t->drv->jit_flushes();
}

/* the flush may be queued to a vCPU's thread, so it may take a moment */
static int check_flush(struct selftest *t)
{
	const struct timespec tick = { .tv_nsec = 5000000 };
	int64_t deadline = now_ns() + INT64_C(2000000000);
	struct qemu_version v = qemu_version();

	if (t->flushes < 0)
		return 0; /* nothing is translated, or QEMU does not tell */
	do {
		t->drv->call(count_flushes, t);
		if (t->flushes_after > t->flushes)
			return 0;
		nanosleep(&tick, NULL);
	} while (now_ns() < deadline);
	return agent_fail(t->err, -EILSEQ,
			  "QEMU %d.%d.%d keeps translated code across a load of device state",
			  v.major, v.minor, v.micro);
}

static void state_free(struct state *s)
{
	free(s->bytes);
	if (s->fd >= 0)
		close(s->fd);
}

int selftest_run(const struct driver *drv, struct errtext *err)
{
	struct selftest t = {
		.drv = drv, .err = err,
		.before = { .fd = memfd_create("colo-selftest-a", MFD_CLOEXEC) },
		.after = { .fd = memfd_create("colo-selftest-b", MFD_CLOEXEC) },
	};

	if (t.before.fd < 0 || t.after.fd < 0) {
		t.ret = agent_fail(err, -errno, "memfd: %s", strerror(errno));
	} else {
		t.ret = wp_probe(err);
		if (t.ret == 0)
			drv->call(round_trip, &t);
		if (t.ret == 0)
			t.ret = check_flush(&t);
	}
	state_free(&t.before);
	state_free(&t.after);
	return t.ret;
}
