/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ops.c - the requests: set-up, tracking, checkpoint, view, apply
 *
 * Theory of operation
 *
 * Whatever touches the VM happens in one piece in QEMU's main loop, so that nothing else of QEMU's
 * runs between stopping the VM and running it on. A request is either carried out or leaves the VM as it was,
 * with one exception: once an APPLY has begun to replace the VM's state it cannot go back, and on
 * failure the VM stays stopped, for what it holds is neither the old state nor the new.
 *
 * CHECKPOINT: stop, save devices, mark the boundary on disk and network, harvest, [hash], run. All that can fail comes
 * before the harvest, which forgets what was dirty; if the harvest itself fails the next one
 * takes all of RAM. Saving may write guest RAM, so it comes before the harvest for that reason, too.
 *
 * APPLY: stop, reset, drop private pages, apply staged ones, load devices, drop once more, marker,
 * [hash], run. Reset comes first because it writes RAM (firmware); load comes after the pages
 * because it reads RAM (virtio rings), and what it writes is dropped again: the image alone says
 * what RAM is.
 */
#include "ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boundary.h"
#include "clock.h"
#include "hash.h"
#include "marker.h"
#include "selftest.h"
#include "stage.h"
#include "track.h"
#include "view.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define STATE_MAX (64u << 20)
#define PREFAULT_PAGES 4096 /* of staging, so that usual checkpoints meet no page faults */

static struct {
	const struct driver *drv;
	int net_fd, disk_fd;
	struct ram ram;
	bool viewed;
	bool tracked; /* since the view was made: what is private is no longer known */
	bool pinned;
	void *stage;
	uint64_t stage_size;
	int dev_fd;
	int load_fd; /* device state with clocks advanced, what is loaded */
	int64_t rest_ns; /* how long APPLY takes from loading devices until the VM runs */
	int64_t cont_ns; /* how long running on takes, clocks included */
} ops = { .net_fd = -1, .disk_fd = -1, .dev_fd = -1, .load_fd = -1, .rest_ns = 1000000,
	.cont_ns = 100000 };

/* a request under way */
struct job {
	const struct agent_request *req;
	struct agent_reply *reply;
	struct errtext err;
	struct stage_reader staged;
	uint8_t clock[CLOCK_SECTION_MAX]; /* APPLY: the clocks as the PVM saved them */
	int clock_len;
	int ret;
};

void ops_init(const struct driver *drv, int net_fd, int disk_fd)
{
	ops.drv = drv;
	ops.net_fd = net_fd;
	ops.disk_fd = disk_fd;
}

static bool set_up(void)
{
	return ops.stage != NULL;
}

/* --- RAM blocks --- */

/* RAM must stay laid out as it was at set-up: everything refers to it by index and offset. */
static int check_ram(struct errtext *err)
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

static int pin_ram(bool pin, struct errtext *err)
{
	int ret;

	if (pin == ops.pinned)
		return 0;
	ret = ops.drv->pin_ram(pin, err);
	if (ret == 0)
		ops.pinned = pin;
	return ret;
}

/* --- SETUP --- */

static void find_ram(void *opaque)
{
	struct job *job = opaque;

	job->ret = track_active() || ops.viewed ? check_ram(&job->err)
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

/* --- TRACK, UNTRACK --- */

static void track(void *opaque)
{
	struct job *job = opaque;

	job->ret = check_ram(&job->err);
	if (job->ret == 0)
		job->ret = pin_ram(true, &job->err);
	if (job->ret < 0)
		return;
	ops.tracked = true;
	job->ret = track_start(&ops.ram, &job->err);
}

static void untrack(void *opaque)
{
	struct job *job = opaque;

	track_stop();
	job->ret = ops.viewed ? 0 : pin_ram(false, &job->err);
}

/* --- CHECKPOINT --- */

static int harvest(struct job *job)
{
	struct agent_reply *reply = job->reply;
	struct track_times times;
	struct stage_writer w;
	int ret;

	ret = stage_begin(&w, ops.stage, ops.stage_size, ram_pages(&ops.ram));
	if (ret < 0)
		return agent_fail(&job->err, ret, "staging area too small");
	ret = track_harvest(&ops.ram, &w, &times, &job->err);
	if (ret < 0)
		return ret;
	stage_finish(&w);
	reply->checkpoint.pages = w.harvested;
	reply->checkpoint.scan_ns = times.scan_ns;
	reply->checkpoint.copy_ns = times.copy_ns;
	return 0;
}

/* Save device state and mark the boundary in the disk's and the NIC's stream. */
static int save_and_mark(struct job *job)
{
	struct agent_reply *reply = job->reply;
	int64_t t = now_ns();
	int ret = 0;

	if (ops.disk_fd >= 0)
		ret = boundary_send(ops.disk_fd, job->req->epoch, &job->err);
	if (ret == 0)
		ret = ops.drv->save(ops.dev_fd, &reply->checkpoint.device_bytes, &job->err);
	reply->checkpoint.save_ns = now_ns() - t;
	if (ret == 0 && ops.disk_fd >= 0)
		ret = boundary_wait(ops.disk_fd, job->req->epoch, &job->err);
	reply->checkpoint.net_unread = marker_unread(ops.net_fd);
	if (ret == 0 && ops.net_fd >= 0)
		ret = marker_write(ops.net_fd, job->req->nonce, &job->err);
	return ret;
}

static int checkpoint_stopped(struct job *job)
{
	int ret = check_ram(&job->err);

	if (ret == 0)
		ret = save_and_mark(job);
	if (ret == 0)
		ret = harvest(job);
	if (ret == 0 && (job->req->flags & AGENT_F_HASH))
		ret = hash_ram(&ops.ram, &job->reply->checkpoint.hash, &job->err);
	return ret;
}

static int run_on(struct job *job, int64_t *cont_ns)
{
	struct errtext err;
	int64_t t = now_ns();
	int ret = ops.drv->cont(&err);

	*cont_ns = now_ns() - t;
	if (ret < 0)
		job->err = err;
	return ret;
}

static void checkpoint(void *opaque)
{
	struct job *job = opaque;
	struct agent_reply *reply = job->reply;
	bool ran = ops.drv->running();
	int64_t stop = now_ns();
	int ret;

	ops.drv->stop(false);
	reply->checkpoint.stop_ns = now_ns() - stop;
	job->ret = checkpoint_stopped(job);
	if (job->ret < 0 ? !ran : !(job->req->flags & AGENT_F_RUN))
		return;
	ret = run_on(job, &reply->checkpoint.cont_ns);
	if (ret < 0) {
		job->ret = ret;
		return;
	}
	reply->checkpoint.ran_at_ns = now_ns();
	reply->checkpoint.pause_ns = reply->checkpoint.ran_at_ns - stop;
}

/* --- VIEW --- */

static void view(void *opaque)
{
	struct job *job = opaque;

	if (ops.drv->running())
		job->ret = agent_fail(&job->err, -EBUSY, "VIEW: the VM is running");
	else if (track_active())
		job->ret = agent_fail(&job->err, -EBUSY, "VIEW: RAM is being tracked");
	else if (ops.viewed)
		job->ret = agent_fail(&job->err, -EALREADY, "VIEW: made already");
	else
		job->ret = check_ram(&job->err);
	if (job->ret == 0)
		job->ret = pin_ram(true, &job->err);
	if (job->ret == 0)
		job->ret = view_create(&ops.ram, &job->err);
	if (job->ret < 0)
		return;
	ops.viewed = true;
	ops.tracked = false;
}

/* --- APPLY --- */

static int open_staged(struct job *job)
{
	uint64_t size[AGENT_MAX_BLOCKS];

	for (unsigned int i = 0; i < ops.ram.n; i++)
		size[i] = ops.ram.block[i].size;
	return stage_open(&job->staged, ops.stage, ops.stage_size, size, ops.ram.n, &job->err);
}

static int read_state(uint8_t **state, size_t *len, struct errtext *err)
{
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
	*len = st.st_size;
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
	/* Under KVM the guest's counter and kvmclock are saved elsewhere. Moving QEMU's own clock
	 * alone would make the guest's clocks disagree with each other. */
	if (job->req->ran_at_ns <= 0 || !ops.drv->emulates_tsc())
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

static int load(struct job *job)
{
	uint8_t *state = NULL;
	size_t len = 0;
	int ret = read_state(&state, &len, &job->err);

	if (ret < 0)
		return ret;
	job->clock_len = clock_section(state, len, job->clock);
	return load_advanced(job, state, len, clock_advance(job, ops.rest_ns));
}

/*
 * Just before the VM runs: set the clocks once more, now that the time is known that all the rest
 * took. Devices were loaded with clocks nearly right; a clock that moves on a little is nothing to them.
 */
static int set_clocks(struct job *job)
{
	int64_t add = clock_advance(job, ops.cont_ns);

	if (!add || job->clock_len < 0)
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
		view_apply(&ops.ram, &job->staged, &reply->apply.applied);
	reply->apply.apply_ns = now_ns() - t;
	return 0;
}

/* RAM and devices; no way back from here */
static int replace_state(struct job *job)
{
	struct agent_reply *reply = job->reply;
	int64_t t = now_ns();
	int ret;

	ops.drv->reset();
	reply->apply.reset_ns = now_ns() - t;
	ret = apply_pages(job);
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
	if (ret == 0 && ops.net_fd >= 0)
		ret = marker_write(ops.net_fd, job->req->nonce, &job->err);
	return ret;
}

static int check_apply(struct job *job)
{
	uint32_t flags = job->req->flags;

	if (!ops.viewed)
		return agent_fail(&job->err, -EINVAL, "APPLY before VIEW");
	if (ops.tracked)
		return agent_fail(&job->err, -EBUSY, "APPLY: this VM was a primary since VIEW");
	if (job->req->ran_at_ns < 0 || job->req->ran_at_ns > now_ns())
		return agent_fail(&job->err, -EINVAL, "APPLY: the PVM ran on in the future");
	if (!(flags & AGENT_F_LOAD) && (flags & AGENT_F_RUN))
		return agent_fail(&job->err, -EINVAL, "APPLY: cannot run without a load");
	return flags & AGENT_F_STAGED ? open_staged(job) : 0;
}

static void learn(int64_t *estimate, int64_t measured)
{
	*estimate += (measured - *estimate) / 4;
}

static int run_replaced(struct job *job)
{
	int64_t t = now_ns();
	int ret = set_clocks(job);

	if (ret == 0)
		ret = run_on(job, &job->reply->apply.cont_ns);
	if (ret == 0)
		learn(&ops.cont_ns, now_ns() - t);
	return ret;
}

/* In the main loop; the staging area was checked already. */
static void apply(void *opaque)
{
	struct job *job = opaque;
	struct agent_reply *reply = job->reply;
	bool with_load = job->req->flags & AGENT_F_LOAD;
	int64_t start = now_ns();

	if (!with_load && ops.drv->running()) {
		job->ret = agent_fail(&job->err, -EBUSY, "APPLY without load: the VM is running");
		return;
	}
	job->ret = check_ram(&job->err);
	if (job->ret < 0)
		return;
	if (with_load)
		ops.drv->stop(true);
	reply->apply.stop_ns = now_ns() - start;
	job->ret = with_load ? replace_state(job) : apply_pages(job);
	if (job->ret == 0 && (job->req->flags & AGENT_F_HASH))
		job->ret = view_check(&ops.ram, &job->err);
	if (job->ret == 0 && (job->req->flags & AGENT_F_HASH))
		job->ret = hash_ram(&ops.ram, &reply->apply.hash, &job->err);
	if (job->ret == 0 && (job->req->flags & AGENT_F_RUN))
		job->ret = run_replaced(job);
	reply->apply.total_ns = now_ns() - start;
}

/* --- STOP, CONT --- */

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

/* --- dispatch --- */

static void in_main_loop(struct job *job, void (*fn)(void *))
{
	if (!set_up())
		job->ret = agent_fail(&job->err, -EINVAL, "SETUP first");
	else
		ops.drv->call(fn, job);
}

static void apply_checked(struct job *job)
{
	job->ret = set_up() ? check_apply(job)
			    : agent_fail(&job->err, -EINVAL, "SETUP first");
	if (job->ret == 0)
		ops.drv->call(apply, job);
}

static void checkpoint_checked(struct job *job)
{
	if (set_up() && !track_active())
		job->ret = agent_fail(&job->err, -EINVAL, "CHECKPOINT before TRACK");
	else
		in_main_loop(job, checkpoint);
}

static void dispatch(struct job *job, int fds[2])
{
	switch (job->req->op) {
	case AGENT_SETUP:
		setup(job, fds);
		break;
	case AGENT_SELFTEST:
		job->ret = selftest_run(ops.drv, &job->err);
		break;
	case AGENT_TRACK:
		in_main_loop(job, track);
		break;
	case AGENT_UNTRACK:
		in_main_loop(job, untrack);
		break;
	case AGENT_CHECKPOINT:
		checkpoint_checked(job);
		break;
	case AGENT_VIEW:
		in_main_loop(job, view);
		break;
	case AGENT_APPLY:
		apply_checked(job);
		break;
	case AGENT_STOP:
		in_main_loop(job, stop);
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

	dispatch(&job, fds);
	reply->status = job.ret;
	if (job.ret < 0)
		memcpy(reply->error, job.err.text, sizeof(reply->error));
}
