/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * model_pair.c - two hosts of disk managers, and what their daemons ask of them (pair.h)
 */
#include "pair.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRACE 90

static char lines[TRACE][200];
static unsigned nlines;

uint64_t pick_random(uint64_t below)
{
	model.rng ^= model.rng << 13;
	model.rng ^= model.rng >> 7;
	model.rng ^= model.rng << 17;
	return (model.rng >> 11) % below;
}

static void vtrace(const char *fmt, va_list ap)
{
	char *line = lines[nlines++ % TRACE];

	vsnprintf(line, sizeof(lines[0]), fmt, ap);
	if (getenv("MODEL_TRACE"))
		fprintf(stderr, "%s\n", line);
}

void trace(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vtrace(fmt, ap);
	va_end(ap);
}

void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vtrace(fmt, ap);
	va_end(ap);
	printf("the last steps:\n");
	for (unsigned i = nlines > TRACE ? nlines - TRACE : 0; i < nlines; i++)
		printf("  %s\n", lines[i % TRACE]);
	printf("FAILED in case %u, COLO_SEED=%llu repeats it; files in %s\n", model.cases,
	       (unsigned long long)model.seed, model.dir);
	fflush(stdout);
	for (unsigned i = 0; i < HOSTS; i++)
		for (unsigned d = 0; d < DISKS; d++)
			if (model.h[i].p[d].pid)
				kill(model.h[i].p[d].pid, SIGKILL);
	_exit(1);
}

/* ---- processes ---- */

static void start_proc(struct host *h, unsigned disk, uint64_t cut)
{
	struct proc *p = &h->p[disk];
	static char dir[96], file[128], name[16];
	int control[2], guest[2];
	struct host_config c = { .host = h->index, .disk = disk, .dir = dir, .file = file, .name = name,
				 .journal = model.journal, .cut = cut, .sh = model.sh };

	c.seed = pick_random(UINT64_C(1) << 40);
	c.slow_us = one_in(6) ? 1500 : 0;
	snprintf(dir, sizeof(dir), "%s/%c%u", model.dir, "ab"[h->index], disk);
	snprintf(file, sizeof(file), "%s/disk.raw", dir);
	snprintf(name, sizeof(name), "disk%u", disk);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, control) || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, guest))
		fail("socketpair: %s", strerror(errno));
	fflush(NULL);
	*p = (struct proc){ .control = control[0], .guest = guest[0], .cut_fd = -1 };
	p->pid = fork();
	if (p->pid < 0)
		fail("fork: %s", strerror(errno));
	if (p->pid == 0) {
		c.control = dup2(control[1], 200);
		c.guest = dup2(guest[1], 201);
		close_range(3, 199, 0);
		close_range(202, ~0u, 0);
		host_run(&c);
	}
	close(control[1]);
	close(guest[1]);
}

static void take_message(struct proc *p, const struct disk_message *m)
{
	switch (m->op) {
	case DISK_EV_HELLO:
		p->hello = *m;
		p->lineage = m->hello.lineage;
		p->said_hello = true;
		break;
	case DISK_EV_BOUNDARY:
		p->boundary = m->epoch;
		break;
	case DISK_EV_SYNCED:
		p->synced = true;
		break;
	case DISK_EV_LINK_LOST:
		trace("    link lost: %s", m->text);
		p->lost = true;
		break;
	case DISK_EV_WANT_CHECKPOINT:
		p->want = true;
		break;
	case DISK_EV_VERIFIED:
		p->verified = *m;
		p->is_verified = true;
		break;
	case DISK_EV_ERROR:
		fail("disk manager says: %s", m->text);
	default:
		if (m->op >= 100)
			break;
		p->answer = *m;
		p->answered = true;
		if (!m->status && m->op != DISK_BOUNDARY && m->op != DISK_VERIFY && m->op != DISK_RATE)
			p->lineage = m->status_reply.lineage;
	}
}

/* One message of the daemon's socket; false at its end. */
static bool take_control(struct proc *p)
{
	struct disk_message m;
	ssize_t n = recv(p->control, &m, sizeof(m), MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	if (n != sizeof(m))
		fail("a message of %zd bytes", n);
	take_message(p, &m);
	return true;
}

static void check_guest_faults(struct host *h, unsigned disk)
{
	for (unsigned t = 0; t < THREADS; t++)
		if (model.sh->fault[h->index][disk][t][0])
			fail("%s", model.sh->fault[h->index][disk][t]);
}

static void take_guest(struct host *h, unsigned disk)
{
	struct proc *p = &h->p[disk];
	struct host_answer a;

	if (recv(p->guest, &a, sizeof(a), MSG_DONTWAIT) != sizeof(a))
		return; /* its end shows on the other socket */
	p->running = false;
	p->run_status = a.status;
	check_guest_faults(h, disk);
}

/* What it had sent before it ended counts. How it ended must be one of two. */
static void reap(struct host *h, unsigned disk)
{
	struct proc *p = &h->p[disk];
	int status;

	if (!p->pid)
		return;
	while (take_control(p))
		if (poll(&(struct pollfd){ .fd = p->control, .events = POLLIN }, 1, PATIENCE_MS) == 0)
			fail("host %u disk %u does not end", h->index, disk);
	waitpid(p->pid, &status, 0);
	p->pid = 0;
	check_guest_faults(h, disk);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		h->clean = true;
	else if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail("host %u disk %u ended with %s %d", h->index, disk, WIFSIGNALED(status) ? "signal" : "status",
		     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	close(p->control);
	close(p->guest);
	if (p->cut_fd >= 0)
		close(p->cut_fd);
	p->cut_fd = -1;
	if (h->kind == COPY && !h->dropping && p->boundary > h->lower[disk])
		h->lower[disk] = p->boundary;
}

void host_kill(struct host *h)
{
	for (unsigned d = 0; d < model.ndisks; d++)
		if (h->p[d].pid)
			kill(h->p[d].pid, SIGKILL);
	h->clean = false;
	for (unsigned d = 0; d < model.ndisks; d++)
		reap(h, d);
	h->clean = false;
	h->activity = OFF;
	model.power_losses++;
	trace("  host %u is without power", h->index);
}

bool host_alive(struct host *h)
{
	return h->activity != OFF;
}

bool host_end(struct host *h)
{
	bool clean = true;

	trace("  host %u ends", h->index);
	for (unsigned d = 0; d < model.ndisks; d++)
		shutdown(h->p[d].control, SHUT_WR);
	for (unsigned d = 0; d < model.ndisks; d++) {
		h->clean = false;
		reap(h, d);
		clean &= h->clean;
	}
	h->clean = clean;
	h->activity = OFF;
	model.clean_ends++;
	for (unsigned d = 0; clean && h->kind == OWN && d < model.ndisks; d++)
		ref_all_stable(&model.sh->ref[h->index][d]);
	return clean;
}

/* ---- messages ---- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts); /* the other one runs fast in this program */
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* False: somebody lost power. */
static bool take_all(int ms)
{
	struct pollfd p[2 * HOSTS * DISKS];
	unsigned n = 0;
	bool alive = true;

	for (unsigned i = 0; i < HOSTS; i++)
		for (unsigned d = 0; d < model.ndisks; d++) {
			bool there = model.h[i].p[d].pid != 0;

			p[n++] = (struct pollfd){ .fd = there ? model.h[i].p[d].control : -1, .events = POLLIN };
			p[n++] = (struct pollfd){ .fd = there ? model.h[i].p[d].guest : -1, .events = POLLIN };
		}
	if (poll(p, n, ms) <= 0)
		return true;
	n = 0;
	for (unsigned i = 0; i < HOSTS; i++)
		for (unsigned d = 0; d < model.ndisks; d++, n += 2) {
			struct host *h = &model.h[i];

			if (h->activity == OFF)
				continue;
			if (p[n + 1].revents & POLLIN)
				take_guest(h, d);
			if (p[n].revents && !take_control(&h->p[d])) {
				host_kill(h);
				alive = false;
			}
		}
	return alive;
}

bool pump(bool (*done)(void), int ms)
{
	int64_t until = now_ms() + ms;

	while (!done()) {
		int64_t left = until - now_ms();

		if (left < 0 || !take_all((int)left))
			return done();
	}
	return true;
}

static struct proc *waited;
static struct host *waited_host;

static bool has_answer(void)
{
	return waited->answered || waited_host->activity == OFF;
}

static bool has_hello(void)
{
	return waited->said_hello || waited_host->activity == OFF;
}

static bool has_run(void)
{
	return !waited->running || waited_host->activity == OFF;
}

/* Until it has said what it was asked for; false: it lost power. Others may, meanwhile. */
static bool await(struct host *h, unsigned disk, bool (*said)(void), const char *what)
{
	int64_t until = now_ms() + PATIENCE_MS;

	waited = &h->p[disk];
	waited_host = h;
	while (!pump(said, PATIENCE_MS))
		if (now_ms() >= until)
			fail("host %u disk %u hangs: %s", h->index, disk, what);
	return h->activity != OFF;
}

static void send_request(struct proc *p, const struct disk_request *req, int fd)
{
	struct iovec iov = { (void *)req, sizeof(*req) };
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u = { .space = { 0 } };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = &u;
		msg.msg_controllen = sizeof(u.space);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	sendmsg(p->control, &msg, MSG_NOSIGNAL); /* its death shows soon enough */
}

bool ask(struct host *h, unsigned disk, struct disk_request req, int fd)
{
	static const char *const names[] = { "?", "LINK", "UNLINK", "BOUNDARY", "COMMIT", "FAILOVER", "STATUS",
					     "OPEN", "SERVE", "VERIFY", "FAULT", "RATE" };
	struct proc *p = &h->p[disk];

	if (h->activity == OFF)
		return false;
	p->answered = false;
	send_request(p, &req, fd);
	if (!await(h, disk, has_answer, names[req.op])) {
		trace("  host %u disk %u: no answer to %s %llu", h->index, disk, names[req.op],
		      (unsigned long long)req.epoch);
		return false;
	}
	trace("  host %u disk %u: %s %llu: %d %s", h->index, disk, names[req.op], (unsigned long long)req.epoch,
	      p->answer.status, p->answer.text);
	return true;
}

bool ask_all(struct host *h, struct disk_request req)
{
	for (unsigned d = 0; d < model.ndisks; d++) {
		if (!ask(h, d, req, -1))
			return false;
		if (h->p[d].answer.status)
			fail("host %u disk %u refused: %s", h->index, d, h->p[d].answer.text);
	}
	return true;
}

bool host_start(struct host *h, uint64_t cut)
{
	trace("host %u starts%s", h->index, cut ? ", to lose power soon" : "");
	h->activity = IDLE;
	h->dropping = false;
	for (unsigned d = 0; d < model.ndisks; d++)
		start_proc(h, d, d == cut % model.ndisks ? cut : 0);
	for (unsigned d = 0; d < model.ndisks; d++) {
		if (!await(h, d, has_hello, "HELLO"))
			return false;
		trace("  host %u disk %u: epoch %llu flags %x lineage %llx base %llx flags %x", h->index, d,
		      (unsigned long long)h->p[d].hello.epoch, h->p[d].hello.hello.flags,
		      (unsigned long long)h->p[d].lineage.current, (unsigned long long)h->p[d].lineage.base,
		      h->p[d].lineage.flags);
	}
	return true;
}

/* ---- guests ---- */

void guest_start(struct host *h, struct host_request req)
{
	for (unsigned d = 0; d < model.ndisks; d++) {
		req.op = HOST_RUN;
		req.seed = pick_random(UINT64_C(1) << 40);
		h->p[d].running = true;
		send(h->p[d].guest, &req, sizeof(req), MSG_NOSIGNAL);
	}
}

bool guest_wait(struct host *h)
{
	for (unsigned d = 0; d < model.ndisks; d++) {
		if (h->activity == OFF || !await(h, d, has_run, "the guest"))
			return false;
		if (h->p[d].run_status)
			fail("host %u disk %u: a request of the guest failed: %s", h->index, d,
			     strerror(-h->p[d].run_status));
	}
	return true;
}

bool guest_ask(struct host *h, unsigned disk, struct host_request req)
{
	if (h->activity == OFF)
		return false;
	h->p[disk].running = true;
	send(h->p[disk].guest, &req, sizeof(req), MSG_NOSIGNAL);
	if (!await(h, disk, has_run, "a request of the test's"))
		return false;
	if (h->p[disk].run_status)
		fail("host %u disk %u: request %u: %s", h->index, disk, req.op, strerror(-h->p[disk].run_status));
	return true;
}

/* ---- the pair ---- */

static bool link_disk(struct host *p, struct host *s, unsigned d)
{
	struct proc *pp = &p->p[d], *sp = &s->p[d];
	struct lineage theirs = sp->lineage;
	enum lineage_verdict v = lineage_judge(&pp->lineage, &theirs);
	struct disk_request req = { .op = DISK_LINK, .role = DISK_SECONDARY, .peer = pp->lineage };
	int fds[2];
	bool ok;

	if (v != LINEAGE_CHANGED && v != LINEAGE_ALL) {
		char why[256];

		lineage_explain(v, p->index ? "b" : "a", s->index ? "b" : "a", why, sizeof(why));
		fail("disk %u: host %u may not be overwritten by host %u, says the lineage: %s", d, s->index, p->index,
		     why);
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		fail("socketpair: %s", strerror(errno));
	pp->synced = pp->lost = sp->lost = false;
	sp->boundary = 0;
	ok = ask(s, d, req, fds[0]);
	close(fds[0]);
	req.role = DISK_PRIMARY;
	req.peer = theirs;
	if (s->spoilt || p->spoilt)
		v = LINEAGE_ALL;
	req.flags = v == LINEAGE_ALL ? DISK_LINK_ALL : 0;
	ok = ok && ask(p, d, req, fds[1]);
	if (pp->cut_fd >= 0)
		close(pp->cut_fd);
	pp->cut_fd = fds[1];
	if (ok && (pp->answer.status || sp->answer.status))
		fail("LINK refused: %s%s", pp->answer.text, sp->answer.text);
	if (ok)
		trace("  disk %u: linked, %s", d, v == LINEAGE_ALL ? "compare all" : "what changed");
	return ok;
}

/* What a host that only came back holds. */
static void keep_before(struct host *s)
{
	s->known = s->activity == IDLE && s->kind != MIXTURE;
	for (unsigned d = 0; s->known && d < model.ndisks; d++)
		for (unsigned i = 0; i < SECTORS; i++)
			s->before[d][i] = ref_content(model.sh->ref[s->index][d].s[i].floor);
}

bool pair_link(struct host *p, struct host *s)
{
	trace("link host %u to host %u", p->index, s->index);
	keep_before(s);
	s->activity = SECONDARY;
	s->kind = MIXTURE;
	model.based = model.synced = model.pair = false;
	model.truth = p->index;
	model.links++;
	for (unsigned d = 0; d < model.ndisks; d++) {
		if (!link_disk(p, s, d))
			return false;
		model.linked = true;
	}
	return true;
}

void pair_cut(void)
{
	trace("the link is cut");
	for (unsigned i = 0; i < HOSTS; i++)
		for (unsigned d = 0; d < model.ndisks; d++)
			if (model.h[i].p[d].pid && model.h[i].p[d].cut_fd >= 0)
				shutdown(model.h[i].p[d].cut_fd, SHUT_RDWR);
}

struct image *image_of(unsigned disk, uint64_t epoch)
{
	struct image *i = &model.image[disk][epoch % IMAGES];

	if (i->epoch != epoch)
		fail("disk %u: nothing is known of epoch %llu", disk, (unsigned long long)epoch);
	return i;
}

static void snapshot(struct host *p, uint64_t epoch)
{
	for (unsigned d = 0; d < model.ndisks; d++) {
		struct image *image = &model.image[d][epoch % IMAGES];

		image->epoch = epoch;
		for (unsigned i = 0; i < SECTORS; i++)
			image->v[i] = model.sh->ref[p->index][d].s[i].last;
	}
}

static struct host *secondary;

static bool is_held(void)
{
	bool held = true;

	for (unsigned d = 0; d < model.ndisks; d++) {
		held &= secondary->p[d].boundary >= model.epoch;
		if (secondary->p[d].lost || model.h[!secondary->index].p[d].lost)
			return true;
	}
	return held || secondary->activity == OFF || model.h[!secondary->index].activity == OFF;
}

bool pair_mark(struct host *p)
{
	model.epoch++;
	snapshot(p, model.epoch);
	for (unsigned d = 0; d < model.ndisks; d++) {
		if (!ask(p, d, (struct disk_request){ .op = DISK_BOUNDARY, .epoch = model.epoch }, -1))
			return false;
		if (p->p[d].answer.status && p->p[d].answer.status != -ENOTCONN && !p->p[d].lost)
			fail("BOUNDARY refused: %s", p->p[d].answer.text);
		if (p->p[d].answer.status)
			p->p[d].lost = true;
	}
	return true;
}

bool pair_wait(struct host *p, struct host *s)
{
	int64_t until = now_ms() + PATIENCE_MS;
	bool held = true;

	secondary = s;
	while (!pump(is_held, 500)) {
		if (now_ms() > until)
			fail("boundary %llu does not arrive", (unsigned long long)model.epoch);
		/* the journal may be full of what could be committed, as a daemon would have done by now */
		if (model.received > model.committed && !pair_commit(s, model.received))
			return false;
	}
	for (unsigned d = 0; d < model.ndisks; d++)
		held &= s->p[d].boundary >= model.epoch;
	if (held) {
		model.received = model.epoch;
		trace("  boundary %llu is held", (unsigned long long)model.epoch);
	}
	return host_alive(p) && host_alive(s);
}

bool pair_boundary(struct host *p, struct host *s)
{
	return pair_mark(p) && pair_wait(p, s);
}

bool pair_commit(struct host *s, uint64_t epoch)
{
	if (!ask_all(s, (struct disk_request){ .op = DISK_COMMIT, .epoch = epoch }))
		return false;
	s->kind = COPY;
	s->spoilt = false;
	model.based = model.pair = true;
	model.committed = epoch;
	model.checkpoints++;
	for (unsigned d = 0; d < model.ndisks; d++) {
		s->lower[d] = epoch;
		ref_set(&model.sh->ref[s->index][d], model.sh, image_of(d, epoch)->v);
	}
	return true;
}
