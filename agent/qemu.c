/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * qemu.c - the direct driver: QEMU's own functions, found by name in its dynamic symbol table
 *
 * Distributions build QEMU with modules, and modules need the program's symbols, so all functions
 * used here are exported. Between 7.2 and 11.1 three things differ, each settled at run time:
 * - qemu_save_device_state() and qemu_load_device_state() took on an Error ** (it is always passed;
 *   a function that does not know it does not look at it);
 * - saved state began with an 8-byte file header, which loading does not expect;
 * - a load threw away translated code by itself. Newer versions do so when the VM is stopped as
 *   "restore-vm", or when told (flush_jit()). Without that the VM would run stale code.
 * Enumerators are looked up by name.
 *
 * Work runs as the handler of an eventfd and not as a bottom half: bottom halves are run by nested
 * event loops as well (draining a disk, even from a vCPU thread), in the midst of other work.
 */
#include "qemu.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "kvm.h"

/* QAPI's enumeration tables and VersionInfo: generated, unchanged since 4.0 and 2.4 */
struct enum_lookup {
	const char *const *array;
	const unsigned char *special;
	int size;
};

struct version_info {
	struct {
		int64_t major, minor, micro;
	} *qemu;
	char *package;
};

struct readable_text {
	char *text;
};

static struct {
	void *(*get_aio_context)(void);
	void (*bh_schedule)(void *ctx, void (*cb)(void *), void *opaque, const char *name);
	void (*set_fd_handler)(int fd, void (*rd)(void *), void (*wr)(void *), void *opaque);
	int (*ram_foreach)(int (*fn)(void *rb, void *opaque), void *opaque);
	const char *(*ram_idstr)(void *rb);
	void *(*ram_host)(void *rb);
	uint64_t (*ram_used)(void *rb);
	uint64_t (*ram_offset)(void *rb);
	int (*ram_fd)(void *rb);
	int (*discard_disable)(bool state);
	bool (*is_running)(void);
	bool (*runstate_check)(int state);
	void (*runstate_set)(int state);
	void (*disable_ticks)(void);
	void (*enable_ticks)(void);
	void (*resume_vcpus)(void);
	void *(*add_state_handler)(void (*cb)(void *opaque, bool running, int state), void *opaque);
	void (*pause_vcpus)(void);
	int (*state_notify)(bool running, int state);
	void (*drain_all)(void);
	void (*start)(void);
	void *(*file_channel)(int fd);
	void *(*file_output)(void *channel);
	void *(*file_input)(void *channel);
	int (*file_close)(void *file);
	void (*unref)(void *object);
	void (*store_running)(void);
	int (*save)(void *file, void **errp);
	void (*pre_load)(void);
	int (*load)(void *file, void **errp);
	void (*reset)(int reason);
	const char *(*error_text)(void *error);
	void (*error_free)(void *error);
	int64_t (*clock)(void);
	int64_t (*ticks)(void);
	const struct enum_lookup *runstates;
	/* from here on optional */
	struct version_info *(*version)(void **errp);
	void (*version_free)(struct version_info *v);
	int64_t *timers_state;
	const bool *kvm_allowed;
	const bool *tcg_allowed;
	void (*flush_jit)(void);
	struct readable_text *(*info_jit)(void **errp);
	void (*readable_free)(struct readable_text *t);
} q;

static bool may_hold; /* KVM's clocks are followed, vCPUs can be held */

struct symbol {
	const char *name;
	void *slot;
	bool optional;
};

static const struct symbol symbols[] = {
	{ "qemu_get_aio_context", &q.get_aio_context, false },
	{ "aio_bh_schedule_oneshot_full", &q.bh_schedule, false },
	{ "qemu_set_fd_handler", &q.set_fd_handler, false },
	{ "qemu_ram_foreach_block", &q.ram_foreach, false },
	{ "qemu_ram_get_idstr", &q.ram_idstr, false },
	{ "qemu_ram_get_host_addr", &q.ram_host, false },
	{ "qemu_ram_get_used_length", &q.ram_used, false },
	{ "qemu_ram_get_offset", &q.ram_offset, false },
	{ "qemu_ram_get_fd", &q.ram_fd, false },
	{ "ram_block_discard_disable", &q.discard_disable, false },
	{ "runstate_is_running", &q.is_running, false },
	{ "runstate_check", &q.runstate_check, false },
	{ "runstate_set", &q.runstate_set, false },
	{ "cpu_disable_ticks", &q.disable_ticks, false },
	{ "pause_all_vcpus", &q.pause_vcpus, false },
	{ "vm_state_notify", &q.state_notify, false },
	{ "bdrv_drain_all", &q.drain_all, false },
	{ "vm_start", &q.start, false },
	{ "qio_channel_file_new_fd", &q.file_channel, false },
	{ "qemu_file_new_output", &q.file_output, false },
	{ "qemu_file_new_input", &q.file_input, false },
	{ "qemu_fclose", &q.file_close, false },
	{ "object_unref", &q.unref, false },
	{ "global_state_store_running", &q.store_running, false },
	{ "qemu_save_device_state", &q.save, false },
	{ "cpu_synchronize_all_pre_loadvm", &q.pre_load, false },
	{ "qemu_load_device_state", &q.load, false },
	{ "qemu_system_reset", &q.reset, false },
	{ "error_get_pretty", &q.error_text, false },
	{ "error_free", &q.error_free, false },
	{ "cpu_get_clock", &q.clock, false },
	{ "cpu_get_ticks", &q.ticks, false },
	{ "RunState_lookup", &q.runstates, false },
	{ "qmp_query_version", &q.version, true },
	{ "qapi_free_VersionInfo", &q.version_free, true },
	{ "timers_state", &q.timers_state, true },
	{ "kvm_allowed", &q.kvm_allowed, true },
	{ "cpu_enable_ticks", &q.enable_ticks, true },
	{ "resume_all_vcpus", &q.resume_vcpus, true },
	{ "qemu_add_vm_change_state_handler", &q.add_state_handler, true },
	{ "tcg_allowed", &q.tcg_allowed, true },
	{ "tb_flush__exclusive_or_serial", &q.flush_jit, true },
	{ "qmp_x_query_jit", &q.info_jit, true },
	{ "qapi_free_HumanReadableText", &q.readable_free, true },
};

/* returns the first missing symbol that is needed, or NULL */
static const char *resolve(void)
{
	const char *missing = NULL;

	for (unsigned int i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
		void *p = dlsym(RTLD_DEFAULT, symbols[i].name);

		if (!p && !symbols[i].optional && !missing)
			missing = symbols[i].name;
		memcpy(symbols[i].slot, &p, sizeof(p));
	}
	return missing;
}

struct qemu_version qemu_version(void)
{
	struct qemu_version v = { -1, -1, -1 };
	struct version_info *info;
	void *error = NULL;

	resolve();
	if (!q.version)
		return v;
	info = q.version(&error);
	if (!info)
		return v;
	v = (struct qemu_version){ info->qemu->major, info->qemu->minor, info->qemu->micro };
	if (q.version_free)
		q.version_free(info);
	return v;
}

static int runstate(const char *name)
{
	for (int i = 0; i < q.runstates->size; i++)
		if (q.runstates->array[i] && !strcmp(q.runstates->array[i], name))
			return i;
	return -1;
}

static int direct_probe(struct errtext *err)
{
	const char *missing = resolve();
	struct qemu_version v = qemu_version();

	if (missing)
		return agent_fail(err, -ENOSYS, "QEMU %d.%d.%d does not export %s", v.major,
				  v.minor, v.micro, missing);
	if (runstate("paused") < 0 || runstate("restore-vm") < 0)
		return agent_fail(err, -ENOSYS, "QEMU %d.%d.%d: run states not found", v.major,
				  v.minor, v.micro);
	return 0;
}

/* --- the main loop --- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t done_cond;
	int event;
	bool done;
	void (*fn)(void *);
	void *opaque;
} loop = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, -1, false, NULL, NULL };

static void loop_work(void *unused)
{
	uint64_t n;

	(void)unused;
	if (read(loop.event, &n, sizeof(n)) != sizeof(n))
		return;
	loop.fn(loop.opaque);
	pthread_mutex_lock(&loop.lock);
	loop.done = true;
	pthread_cond_signal(&loop.done_cond);
	pthread_mutex_unlock(&loop.lock);
}

static void loop_listen(void *unused)
{
	(void)unused;
	q.set_fd_handler(loop.event, loop_work, NULL, NULL);
}

static void direct_call(void (*fn)(void *), void *opaque)
{
	const uint64_t one = 1;

	loop.fn = fn;
	loop.opaque = opaque;
	loop.done = false;
	if (write(loop.event, &one, sizeof(one)) != sizeof(one))
		abort(); /* an eventfd at 0 takes a 1 */
	pthread_mutex_lock(&loop.lock);
	while (!loop.done)
		pthread_cond_wait(&loop.done_cond, &loop.lock);
	pthread_mutex_unlock(&loop.lock);
}

/*
 * When all devices are there. QEMU calls handlers in the order they were registered in, and in reverse
 * when the VM stops: so ours comes after kvmclock's before the VM runs, and before it when the VM has stopped.
 */
static void follow_kvm(void *unused)
{
	(void)unused;
	if (!q.kvm_allowed || !*q.kvm_allowed || !q.add_state_handler)
		return;
	q.add_state_handler(kvm_state_changed, NULL);
	may_hold = q.enable_ticks && q.resume_vcpus;
}

static int direct_attach(struct errtext *err)
{
	const struct timespec tick = { .tv_nsec = 5000000 };

	loop.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop.event < 0)
		return agent_fail(err, -errno, "eventfd: %s", strerror(errno));
	while (!q.get_aio_context()) /* plugins are loaded before there is one */
		nanosleep(&tick, NULL);
	q.bh_schedule(q.get_aio_context(), loop_listen, NULL, "colo-agent");
	direct_call(follow_kvm, NULL);
	return 0;
}

/* --- RAM --- */

struct find {
	struct ram *ram;
	struct errtext *err;
	int ret;
};

static int add_block(void *rb, void *opaque)
{
	struct find *find = opaque;
	struct ram *ram = find->ram;
	struct ram_block *b;

	if (!q.ram_host(rb) || !q.ram_used(rb))
		return 0;
	if (ram->n == AGENT_MAX_BLOCKS || strlen(q.ram_idstr(rb)) >= AGENT_BLOCK_NAME) {
		find->ret = agent_fail(find->err, -E2BIG, "too many RAM blocks at %.100s",
				       q.ram_idstr(rb));
		return find->ret;
	}
	b = &ram->block[ram->n++];
	strcpy(b->name, q.ram_idstr(rb));
	b->host = q.ram_host(rb);
	b->size = (q.ram_used(rb) + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	b->ram_addr = q.ram_offset(rb);
	b->anon = q.ram_fd(rb) < 0;
	b->image_fd = -1;
	b->image = NULL;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct ram_block *)a)->name, ((const struct ram_block *)b)->name);
}

static int direct_find_ram(struct ram *ram, struct errtext *err)
{
	struct find find = { ram, err, 0 };

	ram->n = 0;
	q.ram_foreach(add_block, &find);
	qsort(ram->block, ram->n, sizeof(ram->block[0]), by_name);
	return find.ret;
}

static int direct_pin_ram(bool pin, struct errtext *err)
{
	int ret = q.discard_disable(pin);

	if (ret < 0)
		return agent_fail(err, ret, "a device gives guest RAM back (virtio-mem?): %s",
				  strerror(-ret));
	return 0;
}

/* --- run state --- */

static bool tcg(void)
{
	if (q.tcg_allowed)
		return *q.tcg_allowed;
	return !(q.kvm_allowed && *q.kvm_allowed);
}

static bool direct_running(void)
{
	return q.is_running();
}

static void direct_stop(bool replace)
{
	int state;

	if (replace && FAILPOINT_SKIP("skip-flush"))
		replace = false;
	state = runstate(replace ? "restore-vm" : "paused");
	if (q.is_running()) {
		q.runstate_set(state);
		q.disable_ticks();
		q.pause_vcpus();
		q.state_notify(false, state);
		q.drain_all();
	}
	/* The SVM's guest may have powered itself off, where the PVM's has not. What it is now is replaced. */
	if (replace && runstate("shutdown") >= 0 && q.runstate_check(runstate("shutdown")))
		q.runstate_set(runstate("paused"));
	if (replace && tcg() && q.flush_jit)
		q.flush_jit();
}

static bool direct_hold(void)
{
	if (!may_hold || !q.is_running())
		return false;
	q.disable_ticks();
	q.pause_vcpus();
	if (!kvm_usable())
		return false; /* stop() does this, too, and the rest */
	q.drain_all();
	return true;
}

static void direct_release(void)
{
	q.enable_ticks();
	q.resume_vcpus();
}

/* From any other state (shutdown, internal-error, ...) QEMU would abort. */
static const char *const may_run[] = { "paused", "restore-vm", "prelaunch", "postmigrate" };

static int direct_cont(struct errtext *err)
{
	if (q.is_running())
		return 0;
	for (unsigned int i = 0; i < sizeof(may_run) / sizeof(may_run[0]); i++) {
		int state = runstate(may_run[i]);

		if (state >= 0 && q.runstate_check(state)) {
			q.start();
			return 0;
		}
	}
	for (int i = 0; i < q.runstates->size; i++)
		if (q.runstate_check(i))
			return agent_fail(err, -EINVAL, "the VM cannot run: its state is %s",
					  q.runstates->array[i]);
	return agent_fail(err, -EINVAL, "the VM cannot run");
}

/* --- device state --- */

static int qemu_failed(struct errtext *err, const char *what, int ret, void *error)
{
	ret = agent_fail(err, ret < 0 ? ret : -EIO, "%s failed: %s", what,
			 error ? q.error_text(error) : strerror(ret < 0 ? -ret : EIO));
	if (error)
		q.error_free(error);
	return ret;
}

/* a QEMUFile at the given offset; the caller's descriptor stays open */
static void *open_file(int fd, off_t at, void *(*make)(void *channel), struct errtext *err)
{
	void *channel, *file;

	fd = dup(fd);
	if (fd < 0 || lseek(fd, at, SEEK_SET) < 0) {
		agent_fail(err, -errno, "device state file: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	channel = q.file_channel(fd);
	file = make(channel);
	q.unref(channel);
	return file;
}

static int direct_save(int fd, uint64_t *len, struct errtext *err)
{
	void *file = open_file(fd, 0, q.file_output, err);
	void *error = NULL;
	int ret, closed;
	off_t end;

	if (!file)
		return -EIO;
	q.store_running();
	ret = q.save(file, &error);
	closed = q.file_close(file);
	if (ret >= 0 && closed < 0)
		ret = closed;
	if (ret < 0 || error)
		return qemu_failed(err, "saving device state", ret, error);
	end = lseek(fd, 0, SEEK_CUR); /* shared with the copy QEMU wrote to */
	if (end <= 0)
		return agent_fail(err, -EIO, "saving device state wrote nothing");
	*len = end;
	return 0;
}

static off_t header_length(int fd)
{
	char magic[4];

	return pread(fd, magic, 4, 0) == 4 && !memcmp(magic, "QEVM", 4) ? 8 : 0;
}

static int direct_load(int fd, struct errtext *err)
{
	void *file = open_file(fd, header_length(fd), q.file_input, err);
	void *error = NULL;
	int ret;

	if (!file)
		return -EIO;
	q.pre_load();
	ret = q.load(file, &error);
	q.file_close(file);
	if (ret < 0 || error)
		return qemu_failed(err, "loading device state", ret, error);
	return 0;
}

/* As QEMU's own reset does: a VM in these states runs again only after one. */
static const char *const ended[] = { "shutdown", "internal-error", "guest-panicked" };

static void direct_reset(void)
{
	q.reset(0); /* SHUTDOWN_CAUSE_NONE: no event */
	for (unsigned int i = 0; i < sizeof(ended) / sizeof(ended[0]); i++) {
		int state = runstate(ended[i]);

		if (state >= 0 && q.runstate_check(state))
			q.runstate_set(runstate("paused"));
	}
}

/* --- clocks --- */

static bool direct_emulates_tsc(void)
{
#ifdef __x86_64__
	return tcg();
#else
	return false;
#endif
}

static int64_t direct_clock(void)
{
	return q.clock();
}

/*
 * QEMU never lets its tick counter go back: it remembers the last value read, and lifts the offset
 * instead. A load on the SVM may set the counter back by the PVM's last pause, so the memory of the
 * last value must go. It has no setter. That the first two words of timers_state are what they are
 * in all versions known is checked here by their effect: with the clock stopped, reading it makes
 * both equal to what was read.
 */
static void direct_allow_tsc_back(void)
{
	int64_t now;

	if (!q.timers_state)
		return;
	now = q.ticks();
	if (q.timers_state[0] == now && q.timers_state[1] == now)
		q.timers_state[0] = INT64_MIN;
}

static int64_t direct_jit_flushes(void)
{
	struct readable_text *t;
	int64_t n = -1;
	void *error = NULL;
	const char *p;

	if (!tcg() || !q.info_jit)
		return -1;
	t = q.info_jit(&error);
	if (!t) {
		if (error)
			q.error_free(error);
		return -1;
	}
	p = strstr(t->text, "TB flush count");
	if (p)
		n = strtoll(p + strlen("TB flush count"), NULL, 10);
	if (q.readable_free)
		q.readable_free(t);
	return n;
}

static const struct driver direct = {
	.name = "direct",
	.probe = direct_probe,
	.attach = direct_attach,
	.call = direct_call,
	.find_ram = direct_find_ram,
	.pin_ram = direct_pin_ram,
	.running = direct_running,
	.stop = direct_stop,
	.hold = direct_hold,
	.release = direct_release,
	.cont = direct_cont,
	.save = direct_save,
	.load = direct_load,
	.reset = direct_reset,
	.emulates_tsc = direct_emulates_tsc,
	.clock = direct_clock,
	.allow_tsc_back = direct_allow_tsc_back,
	.jit_flushes = direct_jit_flushes,
};

/* In order of preference. A driver for documented interfaces only ("standby") would follow. */
static const struct driver *const drivers[] = { &direct };

const struct driver *driver_find(struct errtext *err)
{
	for (unsigned int i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++)
		if (drivers[i]->probe(err) == 0)
			return drivers[i];
	return NULL;
}
