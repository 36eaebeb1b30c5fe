/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * diskman.c - the disk managers: an nbdkit process with our plugin for each disk of the VM
 *
 * Theory of operation. What is asked is asked of all disks that it concerns, and they work at the same
 * time; when the last answer is there the caller gets one result (a round). Each disk manager answers in
 * order, so a round is known by its operation alone. The caller's function is called exactly once for
 * each round that was begun; a disk manager that dies answers all it owes with -EPIPE. What the disk managers
 * say by themselves is in diskevent.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

static const char *op_name(unsigned int op)
{
	static const char *const names[DISKMAN_OPS] = {
		[DISK_LINK] = "LINK", [DISK_UNLINK] = "UNLINK", [DISK_COMMIT] = "COMMIT", [DISK_FAILOVER] = "FAILOVER",
		[DISK_STATUS] = "STATUS", [DISK_OPEN] = "OPEN", [DISK_SERVE] = "SERVE", [DISK_VERIFY] = "VERIFY",
		[DISK_FAULT] = "FAULT", [DISK_RATE] = "RATE",
	};

	return op < DISKMAN_OPS && names[op] ? names[op] : "request";
}

/* --- rounds --- */

static bool owed(const struct diskman *all, unsigned int op)
{
	unsigned int i;

	for (i = 0; i < all->n; i++)
		if (all->disk[i].owes[op])
			return true;
	return false;
}

static void end_round(struct daemon *d, unsigned int op)
{
	struct diskman_round r = d->disk.round[op];

	if (owed(&d->disk, op))
		return;
	d->disk.round[op] = (struct diskman_round){ NULL };
	if (r.fn && !d->ending)
		r.fn(d, r.status);
}

static void note_status(struct daemon *d, unsigned int op, int status)
{
	if (status < 0 && !d->disk.round[op].status)
		d->disk.round[op].status = status;
}

/* what an answer says of the disk, whatever was asked */
static void take_state(struct dm *m, const struct disk_message *a)
{
	static const uint32_t with_state = 1u << DISK_OPEN | 1u << DISK_SERVE | 1u << DISK_LINK |
		1u << DISK_UNLINK | 1u << DISK_COMMIT | 1u << DISK_FAILOVER | 1u << DISK_STATUS;

	if (a->status < 0 || !(with_state & 1u << a->op))
		return;
	m->status = *a;
	if (a->status_reply.lineage.current)
		m->lineage = a->status_reply.lineage;
}

void diskman_answer(struct dm *m, const struct disk_message *a)
{
	struct daemon *d = m->d;

	if (a->op >= DISKMAN_OPS || !m->owes[a->op])
		return;
	m->owes[a->op]--;
	take_state(m, a);
	if (a->status < 0)
		log_error("%s (%s): %s: %s", m->name, m->file, op_name(a->op),
			  *a->text ? a->text : strerror(-a->status));
	note_status(d, a->op, a->status);
	if (a->op == DISK_LINK && a->status < 0)
		diskman_link_lost(m, "");
	if (a->op == DISK_VERIFY && a->status < 0)
		verify_done(d, m->index, a);
	end_round(d, a->op);
	if (a->op == DISK_STATUS && m->doubted) {
		m->doubted = false;
		checkpoint_disk_answers(d);
	}
}

static int ask_one(struct dm *m, const struct disk_request *r, int fd)
{
	int e = m->fd < 0 ? -EPIPE : wire_send_fds(m->fd, r, sizeof(*r), &fd, fd >= 0);

	if (e == 0)
		m->owes[r->op]++;
	else
		note_status(m->d, r->op, e);
	return e;
}

/* 0: fn will be called. Requests without fn may be repeated before they are answered. */
static int begin_round(struct daemon *d, unsigned int op, diskman_fn *fn)
{
	struct diskman_round *r = &d->disk.round[op];

	if (fn && (r->fn || owed(&d->disk, op)))
		return -EBUSY;
	r->fn = fn;
	r->status = 0;
	return 0;
}

static int all_asked(struct daemon *d, unsigned int op)
{
	struct diskman_round *r = &d->disk.round[op];
	int status = r->status;

	if (owed(&d->disk, op))
		return 0;
	*r = (struct diskman_round){ NULL };
	return status < 0 ? status : -ENODEV;
}

static int ask_writable(struct daemon *d, const struct disk_request *r, diskman_fn *fn)
{
	int e = begin_round(d, r->op, fn);
	unsigned int i;

	if (e < 0)
		return e;
	for (i = 0; i < d->disk.n; i++)
		if (d->disk.disk[i].writable)
			ask_one(&d->disk.disk[i], r, -1);
	return all_asked(d, r->op);
}

/* --- what is asked --- */

/* That all writable disks can come back to. A disk that was not a secondary's has none. */
static uint64_t common_epoch(const struct diskman *all)
{
	uint64_t epoch = UINT64_MAX;
	unsigned int i;

	for (i = 0; i < all->n; i++)
		if (all->disk[i].writable && all->disk[i].hello.epoch < epoch)
			epoch = all->disk[i].hello.epoch;
	return epoch;
}

/* A failover counts on all disks as soon as it does on one of them. */
static bool failed_over(const struct diskman *all, const struct dm *m)
{
	const struct disk_message *o, *h = &m->hello;
	unsigned int i;

	if (!(h->hello.flags & DISK_HELLO_PREPARED))
		return false;
	for (i = 0; i < all->n; i++) {
		o = &all->disk[i].hello;
		if (o->hello.flags & DISK_HELLO_FAILED_OVER && o->hello.failover == h->hello.failover)
			return true;
	}
	return false;
}

int diskman_open(struct daemon *d, diskman_fn *fn)
{
	struct disk_request r = { .op = DISK_OPEN, .epoch = common_epoch(&d->disk) };
	int e = begin_round(d, DISK_OPEN, fn);
	unsigned int i;

	if (e < 0)
		return e;
	for (i = 0; i < d->disk.n; i++) {
		r.flags = failed_over(&d->disk, &d->disk.disk[i]) ? DISK_OPEN_FAILOVER : 0;
		ask_one(&d->disk.disk[i], &r, -1);
	}
	if (d->cfg->sync_rate)
		diskman_rate(d, d->cfg->sync_rate);
	return all_asked(d, DISK_OPEN);
}

int diskman_serve(struct daemon *d, diskman_fn *fn)
{
	return ask_writable(d, &(struct disk_request){ .op = DISK_SERVE }, fn);
}

int diskman_failover(struct daemon *d, uint64_t generation, diskman_fn *fn)
{
	unsigned int i;

	for (i = 0; i < d->disk.n; i++)
		d->disk.disk[i].writing_back = d->disk.disk[i].writable;
	return ask_writable(d, &(struct disk_request){ .op = DISK_FAILOVER, .epoch = generation }, fn);
}

int diskman_commit(struct daemon *d, uint64_t epoch, diskman_fn *fn)
{
	return ask_writable(d, &(struct disk_request){ .op = DISK_COMMIT, .epoch = epoch }, fn);
}

int diskman_link(struct daemon *d, struct diskman_peer *peer, enum disk_role role)
{
	struct disk_request r = { .op = DISK_LINK, .role = role };
	int e = begin_round(d, DISK_LINK, NULL);
	unsigned int i;

	for (i = 0; i < d->disk.n; i++) {
		struct dm *m = &d->disk.disk[i];

		if (!m->writable)
			continue;
		m->synced = m->link_lost = false;
		m->boundary = 0;
		memset(&m->sync, 0, sizeof(m->sync));
		r.flags = role == DISK_PRIMARY && peer[i].all ? DISK_LINK_ALL : 0;
		r.peer = peer[i].lineage;
		wire_set_nonblock(peer[i].fd, 0);
		if (e == 0)
			e = ask_one(m, &r, peer[i].fd);
		close(peer[i].fd);
		peer[i].fd = -1;
	}
	return e;
}

int diskman_unlink(struct daemon *d)
{
	return ask_writable(d, &(struct disk_request){ .op = DISK_UNLINK }, NULL);
}

int diskman_fault(struct daemon *d)
{
	struct disk_request r = { .op = DISK_FAULT };
	unsigned int i;

	begin_round(d, DISK_FAULT, NULL);
	for (i = 0; i < d->disk.n; i++)
		if (d->disk.disk[i].fault) {
			d->disk.disk[i].fault = false;
			ask_one(&d->disk.disk[i], &r, -1);
		}
	return all_asked(d, DISK_FAULT);
}

int diskman_verify(struct daemon *d, bool repair)
{
	struct disk_request r = { .op = DISK_VERIFY, .flags = repair ? DISK_VERIFY_REPAIR : 0 };

	return ask_writable(d, &r, NULL);
}

int diskman_rate(struct daemon *d, uint64_t bytes_s)
{
	return ask_writable(d, &(struct disk_request){ .op = DISK_RATE, .epoch = bytes_s }, NULL);
}

bool diskman_settled(const struct daemon *d)
{
	static const unsigned int ops[] = { DISK_OPEN, DISK_SERVE, DISK_LINK, DISK_UNLINK, DISK_COMMIT, DISK_FAILOVER };
	unsigned int i;

	for (i = 0; i < sizeof(ops) / sizeof(*ops); i++)
		if (owed(&d->disk, ops[i]))
			return false;
	return true;
}

bool diskman_writes_back(const struct daemon *d)
{
	unsigned int i;

	for (i = 0; i < d->disk.n; i++)
		if (d->disk.disk[i].writing_back)
			return true;
	return false;
}

int diskman_poll_status(struct daemon *d)
{
	struct disk_request r = { .op = DISK_STATUS };
	unsigned int i;

	begin_round(d, DISK_STATUS, NULL);
	for (i = 0; i < d->disk.n; i++)
		if (!d->disk.disk[i].owes[DISK_STATUS])
			ask_one(&d->disk.disk[i], &r, -1);
	return 0;
}

bool diskman_owes(const struct dm *m, bool but_status)
{
	unsigned int op;

	for (op = 0; op < DISKMAN_OPS; op++)
		if (m->owes[op] && !(but_status && op == DISK_STATUS))
			return true;
	return false;
}

/* --- processes --- */

static void log_name(const struct dm *m, char *out, size_t size)
{
	snprintf(out, size, "%s/%s.log", daemon_state_dir(m->d), m->name);
}

static void give_up_answers(struct dm *m)
{
	unsigned int op;

	for (op = 0; op < DISKMAN_OPS; op++)
		if (m->owes[op]) {
			m->owes[op] = 0;
			note_status(m->d, op, -EPIPE);
			end_round(m->d, op);
		}
}

static void on_exit_event(void *arg, int events)
{
	struct dm *m = arg;
	struct daemon *d = m->d;
	int status = 0;
	char log[200];

	if (spawn_reap(&m->child, &status) < 0)
		return;
	watch_free(m->exit_watch);
	m->exit_watch = NULL;
	if (d->ending)
		return;
	log_name(m, log, sizeof(log));
	log_error("the disk manager of %s has ended (%s %d); see %s", m->file,
		  WIFSIGNALED(status) ? "signal" : "exit status",
		  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), log);
	if (d->core.state == CORE_STARTING) {
		daemon_fail_start(d, "disk %s cannot be served; see %s", m->file, log);
		return;
	}
	/* a VM without its disk is as good as dead, and must not say anything more */
	vm_kill(d);
	daemon_event(d, (struct core_event){ .type = CORE_EV_VM_DIED });
	give_up_answers(m);
}

#define MAX_PARAMS 24

struct params {
	char *argv[MAX_PARAMS + 1];
	char text[MAX_PARAMS][320];
	unsigned int n;
};

__attribute__((format(printf, 2, 3))) static void param(struct params *p, const char *fmt, ...)
{
	va_list ap;

	p->argv[p->n] = p->text[p->n];
	va_start(ap, fmt);
	vsnprintf(p->text[p->n++], sizeof(p->text[0]), fmt, ap);
	va_end(ap);
}

static int spawn_nbdkit(struct dm *m, const char *plugin, int fds[2], int log_fd)
{
	static const char *const fixed[] = { "-f", "--exit-with-parent", "-t", "8", "-U" };
	const struct config *c = m->d->cfg;
	const struct config_disk *k = &c->disk[m->index];
	struct params p = { .n = 0 };
	unsigned int i;

	param(&p, "%s", c->nbdkit);
	for (i = 0; i < sizeof(fixed) / sizeof(*fixed); i++)
		param(&p, "%s", fixed[i]);
	param(&p, "%s", m->socket);
	param(&p, "%s", plugin);
	param(&p, "file=%s", m->file);
	param(&p, "control-fd=3");
	param(&p, "boundary-fd=4");
	if (!k->read_only) {
		param(&p, "data=%s", config_local(c)->data);
		param(&p, "name=%s", m->name);
		param(&p, "journal=%llu", (unsigned long long)c->journal);
	}
	param(&p, "cache-max=%llu", (unsigned long long)c->cache_max);
	param(&p, "link-stall-ms=%llu", (unsigned long long)c->lag_limit_us / 1000);
	param(&p, "format=%s", k->format == FORMAT_QCOW2 ? "qcow2" : "raw");
	if (k->read_only)
		param(&p, "read-only=1");
	return spawn_child(&m->child, p.argv, fds, 2, log_fd, 0);
}

/* A disk that was served as raw before may begin with anything: its guest wrote it. */
static bool is_qcow2_by_mistake(const struct dm *m)
{
	char meta[CONFIG_PATH_MAX + 16], magic[4] = "";
	int fd = open(m->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, magic, sizeof(magic));

	if (fd >= 0)
		close(fd);
	snprintf(meta, sizeof(meta), "%s/%s.meta", config_local(m->d->cfg)->data, m->name);
	return m->d->cfg->disk[m->index].format == FORMAT_RAW && n == sizeof(magic) &&
	       !memcmp(magic, "QFI\xfb", sizeof(magic)) && access(meta, F_OK) < 0;
}

static int start_one(struct dm *m)
{
	static const int types[2] = { SOCK_SEQPACKET, SOCK_SEQPACKET };
	struct daemon *d = m->d;
	int ours[2] = { -1, -1 }, theirs[2] = { -1, -1 }, log_fd, r;
	char plugin[300], log[20];

	if (is_qcow2_by_mistake(m)) {
		log_error("disk %s is a qcow2 image: [%s] needs format = qcow2", m->file,
			  config_disk_section(m->index));
		return -EINVAL;
	}
	r = daemon_find(d, "disk", "nbdkit-colo-plugin.so", plugin, sizeof(plugin));
	if (r < 0)
		return r;
	snprintf(m->socket, sizeof(m->socket), "%s/%s.sock", daemon_state_dir(d), m->name);
	unlink(m->socket);
	snprintf(log, sizeof(log), "%s.log", m->name);
	r = wire_pairs(types, 2, ours, theirs);
	log_fd = daemon_open_log(d, log);
	if (r == 0)
		r = spawn_nbdkit(m, plugin, theirs, log_fd);
	close(theirs[0]);
	close(theirs[1]);
	if (log_fd >= 0)
		close(log_fd);
	m->fd = ours[0];
	m->boundary_fd = ours[1];
	if (r < 0) {
		log_error("%s: %s", d->cfg->nbdkit, strerror(-r));
		return r;
	}
	m->watch = watch_new(&d->loop, m->fd, UV_READABLE, diskman_on_message, m);
	m->exit_watch = watch_new(&d->loop, m->child.pidfd, UV_READABLE, on_exit_event, m);
	return 0;
}

void diskman_init(struct daemon *d)
{
	unsigned int i;

	for (i = 0; i < CONFIG_DISKS_MAX; i++) {
		struct dm *m = &d->disk.disk[i];

		*m = (struct dm){ .d = d, .index = i, .child = { .pidfd = -1 }, .fd = -1, .boundary_fd = -1 };
		snprintf(m->name, sizeof(m->name), "disk%u", i);
	}
	d->disk.n = d->cfg->disks;
}

int diskman_start(struct daemon *d)
{
	unsigned int i;
	int r = 0;

	for (i = 0; r == 0 && i < d->disk.n; i++) {
		struct dm *m = &d->disk.disk[i];

		m->writable = config_disk_writable(d->cfg, i);
		m->file = config_disk(d->cfg, i);
		r = start_one(m);
	}
	return r;
}

/* It flushes and ends by itself when its control socket is closed. */
static void close_one(struct dm *m)
{
	watch_free(m->watch);
	watch_free(m->exit_watch);
	m->watch = m->exit_watch = NULL;
	if (m->fd >= 0)
		close(m->fd);
	if (m->boundary_fd >= 0)
		close(m->boundary_fd);
	m->fd = m->boundary_fd = -1;
}

void diskman_stop(struct daemon *d)
{
	unsigned int i;

	for (i = 0; i < d->disk.n; i++)
		close_one(&d->disk.disk[i]);
	for (i = 0; i < d->disk.n; i++) {
		struct dm *m = &d->disk.disk[i];

		if (m->wedged)
			spawn_kill(&m->child);
		if (m->child.pid)
			waitpid(m->child.pid, NULL, 0);
		m->child.pid = 0;
		if (*m->socket)
			unlink(m->socket);
	}
}

int diskman_connect(const struct dm *m)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	if (snprintf(a.sun_path, sizeof(a.sun_path), "%s", m->socket) >= (int)sizeof(a.sun_path))
		r = -ENAMETOOLONG;
	else
		r = connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 ? -errno : 0;
	if (r == 0)
		return fd;
	log_error("%s: %s", m->socket, strerror(-r));
	close(fd);
	return r;
}
