/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * standby.c - the driver standby: a fresh QEMU for each checkpoint
 *
 * Theory of operation. The driver `direct` calls functions of QEMU's own by way of the agent. This one uses what QEMU
 * documents: QMP, and migration with the capability x-ignore-shared, which leaves out RAM that is in a shared file.
 * The guest's RAM is in such a file, a memfd of the daemon's; other memory (firmware, video) is small, and goes with
 * the device state. What the agent is needed for is what QEMU does not offer: tracking of pages, the private view,
 * marks in the streams. The daemon sees to it that the VM stands still meanwhile.
 *
 * checkpoint.c asks for the same steps as of the agent (standby_request()):
 *
 *  CHECKPOINT  primary, standby_save.c.
 *  STOP        QMP `stop` of the SVM, once its successor stands ready.
 *  APPLY       the successor's agent puts the pages into the file, which is the image of the last checkpoint, and of
 *              which every SVM has a private view. (The old SVM sees it change below pages that it has not written,
 *              and must never run again.) Device state is fed to the successor by `migrate-incoming`, the agent drops
 *              what that wrote, and the successor becomes d->vm. The old SVM is killed. Then `cont`.
 *
 * A QEMU loads device state once in its life, so for each switch a new one is needed, the *next*: d->standby.vm. It
 * is started as soon as the last one has become the SVM, with NICs and disk connections of its own, and waits.
 * One that fails is replaced, and what it was doing is done again by another one: pages can be applied again. Three
 * in a row that fail end this secondary.
 *
 * Seeding: the file is filled by an ordinary live migration into a QEMU that is killed afterwards.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define CHANNEL_BYTES (4 << 20)
#define START_LIMIT_MS 20000
#define LIMIT_MS 15000
#define HASH_LIMIT_MS 90000 /* one that hashes all RAM */
#define FAILURES_MAX 3
#define AGAIN_MS 100
#define NEXT_MS 10 /* what the new SVM has to do at once comes first */

static void next_begin(struct daemon *d);
static void carry_on(struct daemon *d);

void standby_init(struct daemon *d)
{
	struct standby *s = &d->standby;

	s->rest_ns = 8000000;
	s->ram_fd = s->feed_fd = s->save_fd = s->agent.fd = s->vm.agent_fd = s->vm.child.pidfd = -1;
}

int standby_new_ram(struct daemon *d)
{
	struct standby *s = &d->standby;

	if (s->ram_fd >= 0)
		close(s->ram_fd);
	s->ram_fd = memfd_create("colo-ram", MFD_CLOEXEC);
	return s->ram_fd < 0 || ftruncate(s->ram_fd, (off_t)d->cfg->memory) < 0 ? -errno : 0;
}

json_t *standby_capabilities(bool ignore_shared)
{
	return json_pack("{s:[{s:s s:b} {s:s s:b}]}", "capabilities", "capability", "x-ignore-shared", "state",
			 ignore_shared, "capability", "events", "state", 1);
}

int standby_channel(int *ours, int *theirs)
{
	static const int types[1] = { SOCK_STREAM };
	static const int bytes = CHANNEL_BYTES;
	int r = wire_pairs(types, 1, ours, theirs);

	if (r < 0)
		return r;
	/* with less it works as well, in more pieces */
	setsockopt(*ours, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	setsockopt(*theirs, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	wire_set_nonblock(*ours, 1);
	return 0;
}

/* --- requests --- */

void standby_finish(struct daemon *d, int status, const char *why)
{
	struct standby *s = &d->standby;
	struct agent_reply reply = s->reply;
	agent_fn *fn = s->fn;

	if (!fn)
		return;
	s->fn = NULL;
	uv_timer_stop(&s->limit);
	reply.op = s->request.op;
	reply.status = status;
	snprintf(reply.error, sizeof(reply.error), "%s", status < 0 && why ? why : "");
	fn(d, &reply);
}

void standby_close(struct watch **watch, int *fd)
{
	watch_free(*watch);
	*watch = NULL;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void discard_next(struct daemon *d)
{
	struct standby *s = &d->standby;

	s->phase = STANDBY_NONE;
	standby_close(&s->feed_watch, &s->feed_fd);
	uv_timer_stop(&s->step);
	uv_timer_stop(&s->start);
	if (s->vm.home)
		vm_discard(d, &s->vm);
}

static void on_limit(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->standby.request.op == AGENT_CHECKPOINT) {
		standby_save_failed(d, -EIO, "QEMU does not save its device state in time");
		return;
	}
	discard_next(d);
	standby_finish(d, -EIO, "it takes QEMU too long");
}

int standby_request(struct daemon *d, const struct agent_request *r, agent_fn *fn)
{
	struct standby *s = &d->standby;
	int e = 0;

	if (s->fn)
		return -EBUSY;
	s->request = *r;
	s->reply = (struct agent_reply){ .op = r->op };
	s->advanced = false;
	s->began_ns = clock_now_ns();
	s->fn = fn;
	uv_timer_start(&s->limit, on_limit, r->flags & AGENT_F_HASH ? HASH_LIMIT_MS : LIMIT_MS, 0);
	if (r->op == AGENT_CHECKPOINT)
		e = standby_save(d);
	else
		carry_on(d);
	if (e < 0) {
		s->fn = NULL;
		uv_timer_stop(&s->limit);
	}
	return e;
}

/* --- the next SVM --- */

static void on_start(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->standby.phase == STANDBY_NONE)
		next_begin(d);
}

static void next_failed(struct daemon *d, const char *why)
{
	struct standby *s = &d->standby;

	log_error("the QEMU that stands by cannot be used: %s", why && *why ? why : "see qemu.log");
	discard_next(d);
	if (++s->failures < FAILURES_MAX) {
		uv_timer_start(&s->start, on_start, AGAIN_MS, 0);
		return;
	}
	log_error("driver standby: %u QEMUs in a row could not be used: this host cannot protect the guest", s->failures);
	if (s->fn)
		standby_finish(d, -EIO, "no QEMU stands by");
	else
		daemon_event(d, (struct core_event){ .type = CORE_EV_VM_DIED });
}

void standby_died(struct daemon *d)
{
	next_failed(d, "it has ended");
}

static void on_start_limit(uv_timer_t *t)
{
	next_failed(t->data, "it does not start in time");
}

static void on_view(struct daemon *d, const struct agent_reply *r)
{
	struct standby *s = &d->standby;

	if (r->status) {
		next_failed(d, r->error);
		return;
	}
	uv_timer_stop(&s->step);
	s->phase = STANDBY_READY;
	log_debug("a QEMU stands by");
	if (s->seeded) {
		s->seeded = false;
		seed_stands_ready(d);
	}
	carry_on(d);
}

static void on_setup(struct daemon *d, const struct agent_reply *r)
{
	struct agent_request view = { .op = AGENT_VIEW };

	if (r->status || agentlink_request_next(d, &view, on_view) < 0)
		next_failed(d, r->error);
}

/* QEMU has its RAM when it answers, not before. */
static void on_capabilities(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	if (d->standby.phase != STANDBY_STARTING)
		return;
	if (error || agentlink_setup_next(d, on_setup) < 0)
		next_failed(d, error);
}

/* QEMU takes the load for a migration, and announces the guest's address to its network, that is to us: once is
 * enough. (Never crashes QEMU 7.2 when the guest resets its virtio-net.) */
static void on_hello(struct daemon *d, const struct agent_reply *r)
{
	struct qmp *q = d->standby.vm.qmp;

	if (r->status) {
		next_failed(d, r->error);
		return;
	}
	qmp_command(q, "migrate-set-parameters", json_pack("{s:i}", "announce-rounds", 1), -1, NULL, NULL);
	if (qmp_command(q, "migrate-set-capabilities", standby_capabilities(true), -1, on_capabilities, d) < 0)
		next_failed(d, "no QMP");
}

static void next_begin(struct daemon *d)
{
	struct standby *s = &d->standby;

	s->phase = STANDBY_STARTING;
	uv_timer_start(&s->step, on_start_limit, START_LIMIT_MS, 0);
	if (vm_start(d, VM_STANDBY) < 0 || agentlink_open_next(d, on_hello) < 0)
		next_failed(d, "it does not start");
}

void standby_seeded(struct daemon *d)
{
	d->standby.seeded = true;
	vm_discard(d, &d->vm);
	next_begin(d);
}

void standby_leave(struct daemon *d)
{
	if (standby_on(d))
		discard_next(d);
}

void standby_drop(struct daemon *d)
{
	struct standby *s = &d->standby;

	if (!standby_on(d))
		return;
	s->fn = NULL;
	s->seeded = false;
	uv_timer_stop(&s->limit);
	standby_save_drop(d);
	discard_next(d);
	if (s->ram_fd >= 0)
		close(s->ram_fd);
	s->ram_fd = -1;
}

/* --- STOP --- */

static void on_stopped(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	if (d->standby.fn && d->standby.request.op == AGENT_STOP)
		standby_finish(d, error ? -EIO : 0, error);
}

/* The SVM there is, if there is one */
static void stop_old(struct daemon *d)
{
	int e;

	if (!d->vm.qmp) {
		standby_finish(d, 0, NULL);
		return;
	}
	e = qmp_command(d->vm.qmp, "stop", NULL, -1, on_stopped, d);
	if (e < 0)
		standby_finish(d, e, "QEMU cannot be asked to stop");
}

/* --- APPLY --- */

/* Slowly up, fast down: what usually happens counts, not the times another process had the CPU. */
static void learn(uint64_t *estimate, uint64_t measured)
{
	if (measured > *estimate)
		*estimate += (measured - *estimate) / 16;
	else
		*estimate -= (*estimate - measured) / 4;
}

/* When the PVM ran on, for the agent to set the SVM's clocks forward by the time since; 0: as they are. Once for each
 * checkpoint, as that changes the device state that is kept, and not under KVM. What is loaded to be hashed only
 * (mode checkpoint) is loaded again when it is to run. */
static int64_t ran_at(struct daemon *d)
{
	struct standby *s = &d->standby;

	if (!(s->request.flags & AGENT_F_LOAD) || d->ckpt.staged_only || s->advanced || !strcmp(d->accel, "kvm") ||
	    s->request.ran_at_ns <= (int64_t)s->rest_ns)
		return 0;
	s->advanced = true;
	return s->request.ran_at_ns - (int64_t)s->rest_ns;
}

static void on_running(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;
	struct standby *s = &d->standby;
	uint64_t now = clock_now_ns();

	if (!s->fn || s->request.op != AGENT_APPLY)
		return;
	s->reply.apply.cont_ns = (int64_t)(now - s->cont_ns);
	s->reply.apply.total_ns = (int64_t)(now - s->began_ns);
	learn(&s->rest_ns, now - s->fed_at_ns);
	standby_finish(d, error ? -EIO : 0, error);
}

/* The switch */
static void replace(struct daemon *d)
{
	struct standby *s = &d->standby;

	standby_close(&s->feed_watch, &s->feed_fd);
	if (d->vm.home)
		vm_discard(d, &d->vm);
	vm_promote(d);
	s->phase = STANDBY_NONE;
	s->failures = 0;
	if (!d->taking_over)
		uv_timer_start(&s->start, on_start, NEXT_MS, 0);
	s->cont_ns = clock_now_ns();
	s->reply.apply.total_ns = (int64_t)(s->cont_ns - s->began_ns);
	FAILPOINT("standby-switched");
	if (!(s->request.flags & AGENT_F_RUN))
		standby_finish(d, 0, NULL);
	else if (qmp_command(d->vm.qmp, "cont", NULL, -1, on_running, d) < 0)
		standby_finish(d, -EPIPE, "QEMU cannot be told to run");
}

static void on_marked(struct daemon *d, const struct agent_reply *r)
{
	struct standby *s = &d->standby;

	if (r->status) {
		next_failed(d, r->error);
		return;
	}
	s->reply.apply.dropped += r->apply.dropped;
	s->reply.apply.drop_ns += r->apply.drop_ns;
	s->reply.apply.hash = r->apply.hash;
	replace(d);
}

static void ask_status(struct daemon *d);

static void on_status(void *arg, json_t *result, const char *error)
{
	const char *status = json_string_value(json_object_get(result, "status"));
	struct daemon *d = arg;
	struct standby *s = &d->standby;
	struct agent_request r = { .op = AGENT_LOADED, .flags = s->request.flags & AGENT_F_HASH, .epoch = s->request.epoch };

	if (s->phase != STANDBY_LOADING)
		return;
	if (error || !status) {
		next_failed(d, error);
		return;
	}
	if (!strcmp(status, "inmigrate")) {
		ask_status(d);
		return;
	}
	s->reply.apply.load_ns = (int64_t)(clock_now_ns() - s->fed_at_ns);
	memcpy(r.nonce, s->request.nonce, sizeof(r.nonce));
	if (agentlink_request_next(d, &r, on_marked) < 0)
		next_failed(d, "no agent");
}

static void ask_status(struct daemon *d)
{
	if (qmp_command(d->standby.vm.qmp, "query-status", NULL, -1, on_status, d) < 0)
		next_failed(d, "no QMP");
}

void standby_migration(struct daemon *d, const char *status)
{
	if (d->standby.phase != STANDBY_LOADING || !status)
		return;
	if (!strcmp(status, "completed"))
		ask_status(d);
	else if (!strcmp(status, "failed"))
		next_failed(d, "it does not take the device state");
}

static void on_feed(void *arg, int events)
{
	struct daemon *d = arg;
	struct standby *s = &d->standby;
	off_t at = (off_t)s->fed;
	struct stat st;
	ssize_t n;

	if (fstat(d->stage.device_fd, &st) < 0)
		return;
	n = at < st.st_size ? sendfile(s->feed_fd, d->stage.device_fd, &at, (size_t)(st.st_size - at)) : 0;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		s->fed += (uint64_t)n;
	if (n > 0 && (off_t)s->fed < st.st_size)
		return;
	/* all of it; or QEMU has closed its end, and says why by itself */
	shutdown(s->feed_fd, SHUT_WR);
	watch_free(s->feed_watch);
	s->feed_watch = NULL;
}

static void feed(struct daemon *d)
{
	struct standby *s = &d->standby;

	s->phase = STANDBY_LOADING;
	s->fed = 0;
	s->fed_at_ns = clock_now_ns();
	s->feed_watch = watch_new(&d->loop, s->feed_fd, UV_WRITABLE, on_feed, d);
	on_feed(d, UV_WRITABLE);
}

static void on_pages(struct daemon *d, const struct agent_reply *r)
{
	struct standby *s = &d->standby;

	if (r->status) {
		next_failed(d, r->error);
		return;
	}
	FAILPOINT("standby-applied");
	s->reply.apply = r->apply;
	if (s->request.flags & AGENT_F_LOAD) {
		feed(d);
		return;
	}
	s->phase = STANDBY_READY;
	s->reply.apply.total_ns = (int64_t)(clock_now_ns() - s->began_ns);
	standby_finish(d, 0, NULL);
}

static void on_incoming(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	if (error && (d->standby.phase == STANDBY_APPLYING || d->standby.phase == STANDBY_LOADING))
		next_failed(d, error);
}

/* QEMU waits for device state while the agent applies pages. */
static int open_feed(struct daemon *d)
{
	struct standby *s = &d->standby;
	int theirs, r = standby_channel(&s->feed_fd, &theirs);

	if (r < 0)
		return r;
	r = qmp_command(s->vm.qmp, "getfd", json_pack("{s:s}", "fdname", "load"), theirs, NULL, NULL);
	close(theirs);
	return r < 0 ? r : qmp_command(s->vm.qmp, "migrate-incoming", json_pack("{s:s}", "uri", "fd:load"), -1,
				       on_incoming, d);
}

static void apply(struct daemon *d)
{
	struct standby *s = &d->standby;
	struct agent_request r = { .op = AGENT_APPLY, .flags = s->request.flags & AGENT_F_STAGED,
				   .epoch = s->request.epoch, .ran_at_ns = ran_at(d) };
	int e = s->request.flags & AGENT_F_LOAD ? open_feed(d) : 0;

	s->phase = STANDBY_APPLYING;
	e = e < 0 ? e : agentlink_request_next(d, &r, on_pages);
	if (e < 0)
		next_failed(d, strerror(-e));
}

/* What is asked for, as soon as there is a QEMU to do it with */
static void carry_on(struct daemon *d)
{
	struct standby *s = &d->standby;

	if (!s->fn)
		return;
	if (s->phase == STANDBY_NONE && !uv_is_active((uv_handle_t *)&s->start))
		next_begin(d);
	else if (s->phase == STANDBY_NONE && !s->failures)
		uv_timer_start(&s->start, on_start, 0, 0);
	else if (s->phase == STANDBY_READY && s->request.op == AGENT_STOP)
		stop_old(d);
	else if (s->phase == STANDBY_READY)
		apply(d);
}
