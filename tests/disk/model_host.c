/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * model_host.c - the real plugin with this program in nbdkit's place, and a guest that works (model.h)
 *
 * Time runs SPEED times as fast for the plugin, so that what it does once a second is done often.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "model.h"
#include "power.h"

#define SPEED 40
#define PUBLIC __attribute__((visibility("default")))

static struct nbdkit_plugin *plugin;
static int shutdown_fd = -1;

/* ---- what the plugin wants of nbdkit ---- */

PUBLIC void nbdkit_error(const char *fmt, ...)
{
	va_list ap;

	if (!getenv("MODEL_VERBOSE"))
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

PUBLIC void nbdkit_debug(const char *fmt, ...)
{
}

PUBLIC void nbdkit_set_error(int err)
{
	errno = err;
}

PUBLIC void nbdkit_shutdown(void)
{
	uint64_t one = 1;

	if (write(shutdown_fd, &one, sizeof(one)) < 0)
		abort();
}

PUBLIC char *nbdkit_absolute_path(const char *path)
{
	return strdup(path);
}

PUBLIC int64_t nbdkit_parse_size(const char *text)
{
	char *end;
	int64_t n = strtoll(text, &end, 10);

	return *end == 'M' ? n << 20 : *end == 'G' ? n << 30 : n;
}

PUBLIC int nbdkit_parse_int(const char *what, const char *text, int *out)
{
	*out = atoi(text);
	return 0;
}

PUBLIC int nbdkit_parse_unsigned(const char *what, const char *text, unsigned *out)
{
	*out = (unsigned)atoi(text);
	return 0;
}

PUBLIC int nbdkit_parse_bool(const char *text)
{
	return !strcmp(text, "1") || !strcmp(text, "true");
}

PUBLIC int64_t nbdkit_peer_pid(void)
{
	return getppid();
}

/* ---- fast time ---- */

PUBLIC int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int r = (int)syscall(SYS_clock_gettime, clock, ts);

	if (!r && clock == CLOCK_MONOTONIC) {
		uint64_t ns = ((uint64_t)ts->tv_sec * 1000000000u + (uint64_t)ts->tv_nsec) * SPEED;

		*ts = (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
	}
	return r;
}

static struct timespec real_time(const struct timespec *fast)
{
	uint64_t ns = ((uint64_t)fast->tv_sec * 1000000000u + (uint64_t)fast->tv_nsec) / SPEED;

	return (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
}

/* All of the plugin's condition variables are of CLOCK_MONOTONIC. */
PUBLIC int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until)
{
	struct timespec ts = real_time(until);

	return pthread_cond_clockwait(c, m, CLOCK_MONOTONIC, &ts);
}

PUBLIC int nanosleep(const struct timespec *how, struct timespec *left)
{
	struct timespec ts = real_time(how);

	return (int)syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ts, left);
}

/* ---- the guest ---- */

struct guest {
	const struct host_config *c;
	struct host_request run;
	unsigned thread;
	uint64_t rng;
	pthread_t id;
	void *handle;
	char *buf;
	unsigned ndirty, dirty[SECTORS];
	uint64_t covered[SECTORS]; /* of dirty[]: what the flush under way covers */
	bool listed[SECTORS];
	int status;
};

static uint64_t draw(struct guest *g, uint64_t below)
{
	g->rng ^= g->rng << 13;
	g->rng ^= g->rng >> 7;
	g->rng ^= g->rng << 17;
	return (g->rng >> 11) % below;
}

static struct ref *ref_of(struct guest *g)
{
	return &g->c->sh->ref[g->c->host][g->c->disk];
}

static int complain(struct guest *g, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(g->c->sh->fault[g->c->host][g->c->disk][g->thread], 256, fmt, ap);
	va_end(ap);
	g->status = -EILSEQ;
	return -EILSEQ;
}

/* Two threads never touch the same sector, but neighbours within a block. */
static bool owns(struct guest *g, unsigned sector)
{
	unsigned spot = sector / SPOT_SECTORS;

	if (g->run.threads == 1)
		return true;
	return (spot & 1 ? spot >> 1 & 1 : (sector / 5) & 1) == g->thread;
}

/* A run of sectors of ours within one spot. */
static unsigned pick(struct guest *g, unsigned *first)
{
	unsigned n = draw(g, 4) ? 1 + (unsigned)draw(g, 16) : 1 + (unsigned)draw(g, SPOT_SECTORS), i;

	if (g->run.flags & RUN_BURST)
		n = SPOT_SECTORS;
	do {
		*first = (unsigned)draw(g, SECTORS);
		if (draw(g, 8)) /* a batch is about two spots, mostly: the others' regions may cool down */
			*first = *first % SPOT_SECTORS + (unsigned)(g->run.seed / 64 + draw(g, 2) * 3) % SPOTS * SPOT_SECTORS;
		if (g->run.flags & RUN_BURST)
			*first -= *first % SPOT_SECTORS;
	} while (!owns(g, *first));
	for (i = 1; i < n && (*first + i) % SPOT_SECTORS && owns(g, *first + i); i++)
		;
	return i;
}

static void begun(struct guest *g, unsigned sector, uint64_t value)
{
	struct sector *s = &ref_of(g)->s[sector];

	s->last = value;
	if (value & ZERO_BIT)
		s->zeroed = value & ~ZERO_BIT;
}

static void completed(struct guest *g, unsigned sector, bool stable)
{
	struct sector *s = &ref_of(g)->s[sector];

	atomic_thread_fence(memory_order_seq_cst);
	s->done = s->last;
	if (stable)
		s->floor = s->done;
	if (g->listed[sector])
		return;
	g->listed[sector] = true;
	g->dirty[g->ndirty++] = sector;
}

static int op_write(struct guest *g, bool fua)
{
	uint64_t number = ref_number(g->c->sh, g->c->host);
	unsigned first, n = pick(g, &first);
	int r;

	for (unsigned i = 0; i < n; i++) {
		ref_fill(g->buf + (size_t)i * SECTOR, g->c->disk, first + i, number);
		begun(g, first + i, number);
	}
	r = plugin->pwrite(g->handle, g->buf, n * SECTOR, ref_offset(first), fua ? NBDKIT_FLAG_FUA : 0);
	for (unsigned i = 0; !r && i < n; i++)
		completed(g, first + i, fua);
	return r;
}

/* Zeroes over a run of ours, or, when no other thread runs, over much of the disk. */
static int op_zero(struct guest *g, bool trim, bool fua)
{
	uint64_t number = ref_number(g->c->sh, g->c->host) | ZERO_BIT, off, len;
	uint32_t flags = (fua ? NBDKIT_FLAG_FUA : 0) | (draw(g, 2) && !trim ? NBDKIT_FLAG_MAY_TRIM : 0);
	unsigned first, n = pick(g, &first);
	int r;

	off = ref_offset(first);
	len = (uint64_t)n * SECTOR;
	if (g->run.flags & RUN_LARGE && g->run.threads == 1 && !draw(g, 4))
		len = draw(g, (DISK_BYTES - off) / SECTOR) * SECTOR + SECTOR;
	for (unsigned s = first; (s = ref_within(s, off, len)) < SECTORS; s++)
		begun(g, s, number);
	r = trim ? plugin->trim(g->handle, (uint32_t)len, off, flags)
		 : plugin->zero(g->handle, (uint32_t)len, off, flags);
	for (unsigned s = first; !r && (s = ref_within(s, off, len)) < SECTORS; s++)
		completed(g, s, fua);
	return r;
}

static int op_read(struct guest *g)
{
	unsigned first, n = pick(g, &first);
	int r = plugin->pread(g->handle, g->buf, n * SECTOR, ref_offset(first), 0);

	atomic_fetch_add(&g->c->sh->reads, 1);
	for (unsigned i = 0; !r && i < n; i++) {
		uint64_t want = ref_content(ref_of(g)->s[first + i].done);
		uint64_t got = ref_value(g->buf + (size_t)i * SECTOR, g->c->disk, first + i);

		if (got != want)
			return complain(g, "read: host %u disk %u sector %u holds %llx, not %llx", g->c->host,
					g->c->disk, first + i, (unsigned long long)got, (unsigned long long)want);
	}
	return r;
}

static int op_flush(struct guest *g)
{
	int r;

	for (unsigned i = 0; i < g->ndirty; i++) /* the other thread may write there by now */
		g->covered[i] = ref_of(g)->s[g->dirty[i]].done;
	r = plugin->flush(g->handle, 0);
	atomic_fetch_add(&g->c->sh->flushes, 1);
	while (!r && g->ndirty) {
		struct sector *s = &ref_of(g)->s[g->dirty[--g->ndirty]];
		uint64_t covered = g->covered[g->ndirty];

		g->listed[g->dirty[g->ndirty]] = false;
		if ((s->floor & ~ZERO_BIT) < (covered & ~ZERO_BIT))
			s->floor = covered;
	}
	return r;
}

static int one_op(struct guest *g)
{
	uint64_t what = draw(g, 100);

	atomic_fetch_add(&g->c->sh->ops, 1);
	if (g->run.flags & RUN_BURST)
		return op_write(g, false);
	if (what < 62)
		return op_write(g, false);
	if (what < 65)
		return op_write(g, true);
	if (what < 71)
		return op_zero(g, false, what == 65);
	if (what < 77)
		return op_zero(g, true, what == 72);
	if (what < (g->run.flags & RUN_FLUSHY ? 92 : 80))
		return op_flush(g);
	return op_read(g);
}

static void *guest_thread(void *arg)
{
	struct guest *g = arg;

	for (unsigned i = 0; i < g->run.count && !g->status; i++)
		if (one_op(g) < 0 && !g->status)
			g->status = errno ? -errno : -EIO;
	return NULL;
}

static int run_guest(struct guest *guests, const struct host_request *req)
{
	int r = 0;

	for (unsigned i = 0; i < req->threads; i++) {
		struct guest *g = &guests[i];

		g->run = *req;
		g->status = 0;
		g->rng = (req->seed + i) * 0x9e3779b97f4a7c15u | 1;
		if (req->threads > 1 && pthread_create(&g->id, NULL, guest_thread, g))
			abort();
		if (req->threads == 1)
			guest_thread(g);
	}
	for (unsigned i = 0; i < req->threads; i++) {
		if (req->threads > 1)
			pthread_join(guests[i].id, NULL);
		r = r ? r : guests[i].status;
	}
	return r;
}

static int look(struct guest *g)
{
	uint64_t *seen = g->c->sh->seen[g->c->host][g->c->disk];

	for (unsigned s = 0; s < SECTORS; s += SPOT_SECTORS) {
		if (plugin->pread(g->handle, g->buf, SPOT_SECTORS * SECTOR, ref_offset(s), 0) < 0)
			return errno ? -errno : -EIO;
		for (unsigned i = 0; i < SPOT_SECTORS; i++)
			seen[s + i] = ref_value(g->buf + (size_t)i * SECTOR, g->c->disk, s + i);
	}
	return 0;
}

/* What a bad disk or a careless operator does. */
static int inject(struct guest *g, const struct host_request *req)
{
	int fd = open(g->c->file, O_RDWR | O_CLOEXEC), r = 0;
	char data[SECTOR];

	memset(data, 0x5a, sizeof(data));
	for (unsigned i = 0; i < req->count && !r; i++)
		if (pwrite(fd, data, SECTOR, (off_t)ref_offset((unsigned)req->from + i)) != SECTOR)
			r = -errno;
	close(fd);
	return r;
}

static int serve_request(struct guest *guests, const struct host_request *req)
{
	switch (req->op) {
	case HOST_RUN:
		return run_guest(guests, req);
	case HOST_LOOK:
		return look(guests);
	case HOST_INJECT:
		return inject(guests, req);
	case HOST_CUT:
		power_cut_after(req->count);
		return 0;
	case HOST_WAIT_FLUSH:
		return plugin->flush(guests[0].handle, 0) < 0 ? -errno : 0;
	default:
		return -EINVAL;
	}
}

static void set(const char *key, const char *fmt, ...)
{
	char value[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	if (plugin->config(key, value) < 0)
		_exit(3);
}

static void start_plugin(const struct host_config *c)
{
	set("file", "%s", c->file);
	set("data", "%s", c->dir);
	set("name", "%s", c->name);
	set("journal", "%s", c->journal);
	set("cache-max", "16M");
	set("link-stall-ms", "%u", 800 * SPEED);
	set("control-fd", "%d", c->control);
	if (plugin->config_complete() < 0 || plugin->get_ready() < 0 || plugin->after_fork() < 0)
		_exit(4);
}

/* The daemon is gone: as nbdkit does. */
static void end_plugin(void)
{
	if (plugin->cleanup)
		plugin->cleanup();
	if (plugin->unload)
		plugin->unload();
	_exit(0);
}

void host_load(const char *path)
{
	struct nbdkit_plugin *(*init)(void);
	void *so = dlopen(path, RTLD_LAZY | RTLD_LOCAL);

	if (!so) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	init = (struct nbdkit_plugin *(*)(void))dlsym(so, "plugin_init");
	plugin = init ? init() : NULL;
	if (!plugin)
		exit(2);
}

void host_run(const struct host_config *c)
{
	static struct guest guests[THREADS];
	struct host_request req;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	shutdown_fd = eventfd(0, EFD_CLOEXEC);
	power_start(c->dir, c->seed);
	power_cut_after(c->cut);
	power_slow(c->slow_us);
	for (unsigned i = 0; i < THREADS; i++) {
		guests[i].c = c;
		guests[i].thread = i;
		guests[i].buf = malloc(SPOT_SECTORS * SECTOR);
	}
	start_plugin(c);
	for (unsigned i = 0; i < THREADS; i++)
		guests[i].handle = plugin->open(0);
	for (;;) {
		struct pollfd p[] = { { .fd = c->guest, .events = POLLIN }, { .fd = shutdown_fd, .events = POLLIN } };
		struct host_answer answer;

		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents)
			end_plugin();
		if (recv(c->guest, &req, sizeof(req), 0) != sizeof(req))
			end_plugin();
		answer = (struct host_answer){ req.op, serve_request(guests, &req) };
		if (send(c->guest, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			end_plugin();
	}
}
