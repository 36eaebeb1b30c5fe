/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ops.c - the requests: set-up, tracking, stop and cont; checkpoint.c and apply.c have the rest
 *
 * Theory of operation
 *
 * Whatever touches the VM happens in one piece in QEMU's main loop, so that nothing else of QEMU's
 * runs between stopping the VM and running it on. A request is either carried out or leaves the VM
 * as it was, with one exception: once an APPLY has begun to replace the VM's state it cannot go
 * back, and on failure the VM stays stopped: what it holds is neither the old state nor the new.
 */
#include "ops.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fold.h"
#include "jit.h"
#include "job.h"
#include "selftest.h"
#include "stage.h"
#include "standby.h"
#include "track.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PREFAULT_PAGES 4096 /* of staging, so that usual checkpoints meet no page faults */

struct ops ops = { .dev_fd = -1, .load_fd = -1, .rest_ns = 1000000,
	.clock_ns = 50000 };

void ops_init(const struct driver *drv, const struct nic *nic, unsigned int nics,
	      const int *disk_fd, unsigned int disks)
{
	ops.drv = drv;
	memcpy(ops.nic, nic, nics * sizeof(*nic));
	ops.nics = nics;
	memcpy(ops.disk_fd, disk_fd, disks * sizeof(*disk_fd));
	ops.disks = disks;
}

static bool set_up(void)
{
	return ops.stage != NULL;
}

/* --- RAM blocks --- */

int ops_check_ram(struct errtext *err)
{
	static struct ram now;
	int ret = ops.drv->find_ram(&now, err);

	if (ret < 0)
		return ret;
	if (now.n != ops.ram.n)
		return agent_fail(err, -ESTALE, "guest RAM changed: %u blocks, %u at set-up",
				  now.n, ops.ram.n);
	for (unsigned int i = 0; i < now.n; i++) {
		const struct ram_block *a = &now.block[i], *b = &ops.ram.block[i];

		if (a->host != b->host || a->size != b->size || strcmp(a->name, b->name))
			return agent_fail(err, -ESTALE, "guest RAM block %s changed since set-up",
					  b->name);
	}
	return 0;
}

int ops_pin_ram(bool pin, struct errtext *err)
{
	int ret;

	if (pin == ops.pinned)
		return 0;
	ret = ops.drv->pin_ram(pin, err);
	if (ret == 0)
		ops.pinned = pin;
	return ret;
}

int ops_mark_nics(struct job *job)
{
	int ret = 0;

	for (unsigned int i = 0; ret == 0 && i < ops.nics; i++)
		ret = nic_mark(&ops.nic[i], job->req->nonce, &job->err);
	return ret;
}

/* --- SETUP --- */

static void find_ram(void *opaque)
{
	struct job *job = opaque;

	job->ret = track_active() || ops.viewed ? ops_check_ram(&job->err)
						: ops.drv->find_ram(&ops.ram, &job->err);
}

/* Best effort: a checkpoint that meets untouched pages is slower, not wrong. */
static void prefault(uint8_t *stage, uint64_t size)
{
	uint64_t pages = ram_pages(&ops.ram);
	uint64_t warm = pages < PREFAULT_PAGES ? pages : PREFAULT_PAGES;

	madvise(stage, stage_size(warm) - warm * PAGE, MADV_POPULATE_WRITE);
	madvise(stage + size - pages * PAGE, warm * PAGE, MADV_POPULATE_WRITE);
}

static int map_stage(int fd, struct errtext *err)
{
	uint64_t size = stage_size(ram_pages(&ops.ram));
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0)
		return agent_fail(err, -errno, "staging area: %s", strerror(errno));
	if ((uint64_t)st.st_size < size && ftruncate(fd, size) < 0)
		return agent_fail(err, -errno, "staging area: %s", strerror(errno));
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (p == MAP_FAILED)
		return agent_fail(err, -errno, "staging area: %s", strerror(errno));
	if (ops.stage)
		munmap(ops.stage, ops.stage_size);
	ops.stage = p;
	ops.stage_size = size;
	prefault(p, size);
	return 0;
}

static void setup(struct job *job, int fds[2])
{
	struct agent_reply *reply = job->reply;

	if (fds[0] < 0 || fds[1] < 0) {
		job->ret = agent_fail(&job->err, -EBADF, "SETUP needs two descriptors");
		return;
	}
	ops.drv->call(find_ram, job);
	if (job->ret == 0)
		job->ret = map_stage(fds[0], &job->err);
	if (job->ret < 0)
		return;
	if (ops.dev_fd >= 0)
		close(ops.dev_fd);
	ops.dev_fd = fds[1];
	fds[1] = -1; /* taken over; the staging area stays mapped without its descriptor */
	reply->blocks.n = ops.ram.n;
	reply->blocks.stage_size = ops.stage_size;
	for (unsigned int i = 0; i < ops.ram.n; i++) {
		memcpy(reply->blocks.block[i].name, ops.ram.block[i].name, AGENT_BLOCK_NAME);
		reply->blocks.block[i].size = ops.ram.block[i].size;
	}
}

/* --- TRACK, UNTRACK, SERVE --- */

static void track(void *opaque)
{
	struct job *job = opaque;

	job->ret = ops_check_ram(&job->err);
	if (job->ret == 0)
		job->ret = ops_pin_ram(true, &job->err);
	if (job->ret < 0)
		return;
	ops.serves = true;
	job->ret = track_start(&ops.ram, &job->err);
	ops.kvm_to_write = job->ret == 0;
}

/* In the main loop, so that no APPLY is under way. */
static void serve(void *opaque)
{
	struct job *job = opaque;

	ops.serves = true;
	job->ret = fold_start(&ops.ram, &job->err);
}

static void untrack(void *opaque)
{
	struct job *job = opaque;

	track_stop();
	job->ret = ops.viewed ? 0 : ops_pin_ram(false, &job->err);
}

/* --- STOP, CONT --- */

int ops_run(struct job *job, int64_t *cont_ns)
{
	struct errtext err;
	int64_t t = now_ns();
	int ret = ops.drv->cont(&err);

	*cont_ns = now_ns() - t;
	if (ret < 0)
		job->err = err;
	return ret;
}


static void stop(void *opaque)
{
	(void)opaque;
	ops.drv->stop(false);
}

static void cont(void *opaque)
{
	struct job *job = opaque;

	job->ret = ops.drv->cont(&job->err);
}

/* --- PING --- */

static void pong(void *opaque)
{
	(void)opaque;
}

/* --- dispatch --- */

/* What the daemon does over QMP with one driver, and the agent with the other, is refused to whom it is not. */
static int refuse_foreign(struct job *job)
{
	uint32_t op = job->req->op, flags = job->req->flags;

	if (ops.drv->by_qmp && (op == AGENT_STOP || op == AGENT_CONT || flags & (AGENT_F_RUN | AGENT_F_LOAD)))
		return agent_fail(&job->err, -ENOSYS, "driver %s: the daemon stops, loads and runs the VM over QMP",
				  ops.drv->name);
	if (!ops.drv->by_qmp && op == AGENT_LOADED)
		return agent_fail(&job->err, -ENOSYS, "driver %s: APPLY loads by itself", ops.drv->name);
	return 0;
}

static void in_main_loop(struct job *job, void (*fn)(void *))
{
	if (!set_up())
		job->ret = agent_fail(&job->err, -EINVAL, "SETUP first");
	else
		ops.drv->call(fn, job);
}

static void apply_checked(struct job *job)
{
	job->ret = set_up() ? apply_check(job)
			    : agent_fail(&job->err, -EINVAL, "SETUP first");
	if (job->ret == 0)
		ops.drv->call(apply_job, job);
}

static void loaded_checked(struct job *job)
{
	job->ret = view_may_change(job, "LOADED");
	if (job->ret == 0)
		ops.drv->call(loaded_job, job);
}

static void checkpoint_checked(struct job *job)
{
	if (set_up() && !track_active())
		job->ret = agent_fail(&job->err, -EINVAL, "CHECKPOINT before TRACK");
	else
		in_main_loop(job, checkpoint_job);
}

static void dispatch(struct job *job, int fds[2])
{
	switch (job->req->op) {
	case AGENT_SETUP:
		setup(job, fds);
		break;
	case AGENT_SELFTEST:
		job->ret = ops.drv->by_qmp ? standby_selftest(&job->err) : selftest_run(ops.drv, &job->err);
		break;
	case AGENT_TRACK:
		in_main_loop(job, track);
		break;
	case AGENT_UNTRACK:
		in_main_loop(job, untrack);
		break;
	case AGENT_SERVE:
		in_main_loop(job, serve);
		break;
	case AGENT_CHECKPOINT:
		checkpoint_checked(job);
		break;
	case AGENT_VIEW:
		in_main_loop(job, view_job);
		if (job->ret == 0 && !ops.drv->by_qmp)
			jit_calibrate(ops.drv);
		break;
	case AGENT_APPLY:
		apply_checked(job);
		break;
	case AGENT_LOADED:
		loaded_checked(job);
		break;
	case AGENT_STOP:
		in_main_loop(job, stop);
		break;
	case AGENT_PING:
		ops.drv->call(pong, job);
		break;
	case AGENT_CONT:
		in_main_loop(job, cont);
		break;
	default:
		job->ret = agent_fail(&job->err, -EBADRQC, "unknown request %u", job->req->op);
	}
}

void ops_handle(const struct agent_request *req, int fds[2], struct agent_reply *reply)
{
	struct job job = { .req = req, .reply = reply };

	job.ret = refuse_foreign(&job);
	if (job.ret == 0)
		dispatch(&job, fds);
	reply->status = job.ret;
	if (job.ret < 0)
		memcpy(reply->error, job.err.text, sizeof(reply->error));
}
