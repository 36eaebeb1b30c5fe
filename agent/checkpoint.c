/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * checkpoint.c - the primary's part
 *
 * CHECKPOINT: stop, save devices, mark the boundary on disk and network, harvest, [hash], run. What
 * is likely to fail comes before the harvest, which forgets what was dirty; whatever fails after it
 * makes the next harvest take all of RAM. Saving may write guest RAM, so it must come first anyway.
 */
#include <errno.h>
#include <unistd.h>

#include "boundary.h"
#include "common/failpoint.h"
#include "hash.h"
#include "job.h"
#include "kvm.h"
#include "track.h"

static int harvest(struct job *job)
{
	struct agent_reply *reply = job->reply;
	struct track_times times;
	struct stage_writer w;
	int ret;

	ret = stage_begin(&w, ops.stage, ops.stage_size, ram_pages(&ops.ram));
	if (ret < 0)
		return agent_fail(&job->err, ret, "staging area too small");
	job->harvested = true;
	if (ops.kvm_to_write) /* as the load at the end of seeding did; only now do the vCPUs stand still */
		kvm_write_ram();
	ops.kvm_to_write = false;
	ret = track_harvest(&ops.ram, &w, &times, &job->err);
	if (ret < 0)
		return ret;
	stage_finish(&w);
	reply->checkpoint.pages = w.harvested;
	reply->checkpoint.scan_ns = times.scan_ns;
	reply->checkpoint.copy_ns = times.copy_ns;
	return 0;
}

/* Behind the device state, for the SVM's agent: QEMU's own record of KVM's clocks is of the last stop. */
static int save_clocks(struct job *job)
{
	uint64_t *len = &job->reply->checkpoint.device_bytes;
	struct kvm_clocks clocks;

	if (!*len || !kvm_clocks_read(&clocks)) /* driver standby: QEMU gave the state to the daemon */
		return 0;
	if (pwrite(ops.dev_fd, &clocks, sizeof(clocks), *len) != sizeof(clocks))
		return agent_fail(&job->err, -EIO, "device state: cannot write");
	*len += sizeof(clocks);
	job->kvm_clocks = true;
	job->clocks_at_ns = clocks.at_ns;
	return 0;
}

/* Save device state and mark the boundary in the disks' and the NICs' streams. */
static int save_and_mark(struct job *job)
{
	struct agent_reply *reply = job->reply;
	int64_t t = now_ns();
	int ret;

	ret = boundary_send(ops.disk_fd, ops.disks, job->req->epoch, &job->err);
	if (ret == 0)
		ret = ops.drv->save(ops.dev_fd, &reply->checkpoint.device_bytes, &job->err);
	if (ret == 0)
		ret = save_clocks(job);
	reply->checkpoint.save_ns = now_ns() - t;
	if (ret == 0)
		ret = boundary_wait(ops.disk_fd, ops.disks, job->req->epoch, &job->err);
	for (unsigned int i = 0; ret == 0 && i < ops.nics; i++)
		ret = nic_taken(&ops.nic[i], &reply->checkpoint.net_taken[i], &job->err);
	return ret < 0 ? ret : ops_mark_nics(job);
}

static int checkpoint_stopped(struct job *job)
{
	int ret = ops_check_ram(&job->err);

	if (ret == 0)
		ret = save_and_mark(job);
	FAILPOINT("agent-marked");
	if (ret == 0)
		ret = harvest(job);
	FAILPOINT("agent-harvested");
	if (ret == 0 && (job->req->flags & AGENT_F_HASH))
		ret = hash_ram(&ops.ram, &job->reply->checkpoint.hash, &job->err);
	return ret;
}

/* The daemon throws a failed checkpoint away, and with it the pages: they must come again. */
static void fail(struct job *job, int ret)
{
	job->ret = ret;
	if (job->harvested)
		track_forget();
}

/*
 * When the guest's clock, which stood at @stopped, began to go: what the SVM's is set by. Now would
 * be too late, for this thread often loses the CPU to the vCPUs it has just started.
 */
static int64_t ran_at(int64_t stopped)
{
	return now_ns() - (ops.drv->clock() - stopped);
}

static int run_on(struct job *job, bool held)
{
	int64_t t = now_ns();

	if (!held)
		return ops_run(job, &job->reply->checkpoint.cont_ns);
	ops.drv->release();
	job->reply->checkpoint.cont_ns = now_ns() - t;
	return 0;
}

/* Under KVM the guest's clocks did not stand still: what counts is when they showed what was saved. */
static void note_run(struct job *job, int64_t stop, int64_t ran)
{
	struct agent_reply *reply = job->reply;

	reply->checkpoint.pause_ns = ran - stop;
	reply->checkpoint.ran_at_ns = job->kvm_clocks ? job->clocks_at_ns : ran;
}

void checkpoint_job(void *opaque)
{
	struct job *job = opaque;
	bool ran = ops.drv->running(), held;
	int64_t stop = now_ns(), clock;
	int ret;

	held = ops.drv->hold();
	if (!held)
		ops.drv->stop(false);
	job->reply->checkpoint.stop_ns = now_ns() - stop;
	FAILPOINT("agent-stopped");
	ret = checkpoint_stopped(job);
	if (ret < 0)
		fail(job, ret);
	if (ret < 0 ? !ran : !(job->req->flags & AGENT_F_RUN)) {
		if (held)
			ops.drv->stop(false);
		return;
	}
	clock = ops.drv->clock();
	ret = run_on(job, held);
	if (ret < 0)
		fail(job, ret);
	else
		note_run(job, stop, ran_at(clock));
}
