/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * apply.c - the secondary's part: the view, and bringing a checkpoint into it
 *
 * APPLY: stop, reset, drop private pages, apply staged ones, load devices, drop once more, marker,
 * [hash], run. Reset comes first because it writes RAM (firmware); load comes after the pages
 * because it reads RAM (virtio rings), and what it writes is dropped again: the image alone says
 * what RAM is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "hash.h"
#include "jit.h"
#include "job.h"
#include "kvm.h"
#include "track.h"
#include "view.h"

#define STATE_MAX (64u << 20)

void view_job(void *opaque)
{
	struct job *job = opaque;

	if (ops.drv->running())
		job->ret = agent_fail(&job->err, -EBUSY, "VIEW: the VM is running");
	else if (track_active())
		job->ret = agent_fail(&job->err, -EBUSY, "VIEW: RAM is being tracked");
	else if (ops.viewed)
		job->ret = agent_fail(&job->err, -EALREADY, "VIEW: made already");
	else
		job->ret = ops_check_ram(&job->err);
	if (job->ret == 0)
		job->ret = ops_pin_ram(true, &job->err);
	if (job->ret == 0)
		job->ret = view_create(&ops.ram, &job->err);
	if (job->ret < 0)
		return;
	ops.viewed = true;
	ops.serves = false;
}

static int open_staged(struct job *job)
{
	uint64_t size[AGENT_MAX_BLOCKS];

	for (unsigned int i = 0; i < ops.ram.n; i++)
		size[i] = ops.ram.block[i].size;
	return stage_open(&job->staged, ops.stage, ops.stage_size, size, ops.ram.n, &job->err);
}

/* The state as QEMU saved it; what clocks under KVM came with it is noted for when the VM runs. */
static int read_state(struct job *job, uint8_t **state, size_t *len)
{
	struct errtext *err = &job->err;
	struct kvm_clocks clocks;
	static uint8_t *buffer;
	static size_t room;
	struct stat st;

	if (fstat(ops.dev_fd, &st) < 0 || st.st_size <= 0 || st.st_size > STATE_MAX)
		return agent_fail(err, -EBADMSG, "device state: bad size");
	if ((size_t)st.st_size > room) {
		void *p = realloc(buffer, st.st_size);

		if (!p)
			return agent_fail(err, -ENOMEM, "device state: out of memory");
		buffer = p;
		room = st.st_size;
	}
	if (pread(ops.dev_fd, buffer, st.st_size, 0) != st.st_size)
		return agent_fail(err, -EIO, "device state: cannot read");
	*state = buffer;
	*len = kvm_clocks_cut(buffer, st.st_size, &clocks, &job->kvm_clocks);
	kvm_clocks_expect(job->kvm_clocks ? &clocks : NULL, job->req->ran_at_ns);
	return 0;
}

static int write_state(const uint8_t *state, size_t len, struct errtext *err)
{
	if (ops.load_fd < 0)
		ops.load_fd = memfd_create("colo-load", MFD_CLOEXEC);
	if (ops.load_fd < 0 || pwrite(ops.load_fd, state, len, 0) != (ssize_t)len)
		return agent_fail(err, -EIO, "device state: cannot copy");
	return 0;
}

/* How far the guest's clocks must go forward to be right @rest_ns from now; 0: leave them alone. */
static int64_t clock_advance(const struct job *job, int64_t rest_ns)
{
	/* Under KVM moving QEMU's own clock alone would make the guest's clocks disagree with each other. */
	if (job->req->ran_at_ns <= 0 || !(ops.drv->emulates_tsc() || job->kvm_clocks))
		return 0;
	return now_ns() + rest_ns - job->req->ran_at_ns;
}

/* Load @state (of devices, or of the clocks only) with its clocks set forward. */
static int load_advanced(struct job *job, uint8_t *state, size_t len, int64_t add)
{
	int64_t ticks = add ? clock_ticks(add) : 0;
	int64_t clock;
	int ret = clock_patch(state, len, add, ticks, &clock);

	if (ret < 0)
		return agent_fail(&job->err, -EBADMSG, "device state: no usable timer section");
	ret = write_state(state, len, &job->err);
	if (ret < 0)
		return ret;
	ops.drv->allow_tsc_back();
	ret = ops.drv->load(ops.load_fd, &job->err);
	if (ret < 0)
		return ret;
	if (ops.drv->clock() != clock)
		return agent_fail(&job->err, -EBADMSG,
				  "device state: the clock was not loaded as written");
	return 0;
}

/* Driver standby: set the clocks forward in what the daemon is about to have loaded. */
static int advance_stream(struct job *job)
{
	int64_t add = clock_advance(job, 0), clock;
	struct stat st;
	void *state;
	int ret;

	if (!add)
		return 0;
	if (fstat(ops.dev_fd, &st) < 0 || st.st_size <= 0 || st.st_size > STATE_MAX)
		return agent_fail(&job->err, -EBADMSG, "device state: bad size");
	state = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, ops.dev_fd, 0);
	if (state == MAP_FAILED)
		return agent_fail(&job->err, -errno, "device state: %s", strerror(errno));
	ret = clock_patch(state, st.st_size, add, clock_ticks(add), &clock);
	munmap(state, st.st_size);
	return ret < 0 ? agent_fail(&job->err, -EBADMSG, "device state: no usable timer section") : 0;
}

static int load(struct job *job)
{
	uint8_t *state = NULL;
	size_t len = 0;
	int ret = read_state(job, &state, &len);

	if (ret < 0)
		return ret;
	job->clock_len = clock_section(state, len, job->clock);
	return load_advanced(job, state, len, clock_advance(job, ops.rest_ns));
}

/*
 * Just before the VM runs: set the clocks once more, now that the time is known that all the rest
 * took. Devices were loaded with clocks nearly right; a clock that moves on a little is nothing to
 * them. (KVM's clocks are set when QEMU runs the VM; to load once more would write RAM once more.)
 */
static int set_clocks(struct job *job)
{
	int64_t add = clock_advance(job, ops.clock_ns);

	if (!add || job->clock_len < 0 || job->kvm_clocks)
		return 0;
	return load_advanced(job, job->clock, job->clock_len, add);
}

static int apply_pages(struct job *job)
{
	struct agent_reply *reply = job->reply;
	int64_t t = now_ns();
	int ret;

	ret = view_drop(&ops.ram, &reply->apply.dropped, &job->err);
	reply->apply.drop_ns = now_ns() - t;
	if (ret < 0)
		return ret;
	t = now_ns();
	if (job->req->flags & AGENT_F_STAGED)
		ret = view_apply(&ops.ram, &job->staged, &reply->apply.applied, &job->err);
	reply->apply.apply_ns = now_ns() - t;
	return ret;
}

/* Slowly up, fast down: what usually happens counts, not the times another process had the CPU. */
static void learn(int64_t *estimate, int64_t measured)
{
	int64_t diff = measured - *estimate;

	*estimate += diff > 0 ? diff / 16 : diff / 4;
}

/* RAM and devices; no way back from here */
static int replace_state(struct job *job)
{
	struct agent_reply *reply = job->reply;
	int64_t t = now_ns();
	int ret;

	if (!FAILPOINT_SKIP("skip-reset"))
		ops.drv->reset();
	reply->apply.reset_ns = now_ns() - t;
	ret = apply_pages(job);
	FAILPOINT("agent-applied");
	if (ret < 0)
		return ret;
	t = now_ns();
	ret = load(job);
	reply->apply.load_ns = now_ns() - t;
	if (ret < 0)
		return ret;
	learn(&ops.rest_ns, reply->apply.load_ns + reply->apply.drop_ns / 2);
	t = now_ns();
	ret = view_drop(&ops.ram, &reply->apply.dropped, &job->err);
	reply->apply.drop_ns += now_ns() - t;
	if (ret == 0)
		jit_keep();
	/* what the old state would have read is given again where the new one needs it */
	for (unsigned int i = 0; i < ops.nics; i++)
		nic_drain(&ops.nic[i]);
	return ret < 0 ? ret : ops_mark_nics(job);
}

int view_may_change(struct job *job, const char *request)
{
	if (!ops.viewed)
		return agent_fail(&job->err, -EINVAL, "%s before VIEW", request);
	if (ops.serves)
		return agent_fail(&job->err, -EBUSY, "%s: this VM serves since VIEW", request);
	return 0;
}

int apply_check(struct job *job)
{
	uint32_t flags = job->req->flags;
	int ret = view_may_change(job, "APPLY");

	if (ret < 0)
		return ret;
	if (job->req->ran_at_ns < 0 || job->req->ran_at_ns > now_ns())
		return agent_fail(&job->err, -EINVAL, "APPLY: the PVM ran on in the future");
	if (!(flags & AGENT_F_LOAD) && (flags & AGENT_F_RUN))
		return agent_fail(&job->err, -EINVAL, "APPLY: cannot run without a load");
	return flags & AGENT_F_STAGED ? open_staged(job) : 0;
}

/*
 * Driver standby: the daemon had QEMU load the devices. What that wrote to RAM is dropped, and what the NICs
 * hold for the VM is what the old SVM would have read.
 */
void loaded_job(void *opaque)
{
	struct job *job = opaque;
	struct agent_reply *reply = job->reply;
	int64_t t = now_ns();

	job->ret = view_drop(&ops.ram, &reply->apply.dropped, &job->err);
	reply->apply.drop_ns = now_ns() - t;
	FAILPOINT("agent-run");
	for (unsigned int i = 0; i < ops.nics; i++)
		nic_drain(&ops.nic[i]);
	if (job->ret == 0)
		job->ret = ops_mark_nics(job);
	if (job->ret == 0 && (job->req->flags & AGENT_F_HASH))
		job->ret = view_check(&ops.ram, &job->err);
	if (job->ret == 0 && (job->req->flags & AGENT_F_HASH))
		job->ret = hash_ram(&ops.ram, &reply->apply.hash, &job->err);
	reply->apply.total_ns = now_ns() - t;
}

static int run_replaced(struct job *job)
{
	int64_t t = now_ns();
	int ret = set_clocks(job);

	FAILPOINT("agent-run");
	if (ret < 0)
		return ret;
	learn(&ops.clock_ns, now_ns() - t);
	return ops_run(job, &job->reply->apply.cont_ns);
}

/* In the main loop; the staging area was checked already. */
void apply_job(void *opaque)
{
	struct job *job = opaque;
	struct agent_reply *reply = job->reply;
	bool with_load = job->req->flags & AGENT_F_LOAD;
	int64_t start = now_ns();

	if (!with_load && ops.drv->running()) {
		job->ret = agent_fail(&job->err, -EBUSY, "APPLY without load: the VM is running");
		return;
	}
	job->ret = ops_check_ram(&job->err);
	if (job->ret < 0)
		return;
	if (with_load)
		ops.drv->stop(true);
	reply->apply.stop_ns = now_ns() - start;
	job->ret = with_load ? replace_state(job) : apply_pages(job);
	if (job->ret == 0 && ops.drv->by_qmp)
		job->ret = advance_stream(job);
	if (job->ret == 0 && (job->req->flags & AGENT_F_HASH))
		job->ret = view_check(&ops.ram, &job->err);
	if (job->ret == 0 && (job->req->flags & AGENT_F_HASH))
		job->ret = hash_ram(&ops.ram, &reply->apply.hash, &job->err);
	if (job->ret == 0 && (job->req->flags & AGENT_F_RUN))
		job->ret = run_replaced(job);
	reply->apply.total_ns = now_ns() - start;
}
