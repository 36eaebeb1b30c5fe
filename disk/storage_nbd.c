/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * storage_nbd.c - storage in a qcow2 image, which QEMU's qemu-nbd reads and writes for us
 *
 * Theory of operation. qemu-nbd is our child and gets its listening socket from us (systemd's socket
 * activation), in a directory that only we can enter. Once our connections are up the socket's name is
 * removed, so nobody else ever gets in; --shared is their number anyway. libnbd's calls are synchronous
 * and lock their connection, so there are several, and each request borrows one. qemu-nbd's connections share
 * one block device: a flush on any covers what was completed on all.
 *
 * Its end is ours: should we die, the connections close and it writes out what it has and ends; the signal of
 * our death is for one that does not. Should it die, every request fails, for good.
 */
#include "disk/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 8
#define ZERO_MAX (1u << 30)
#define LOCKED_TRIES 60 /* 50 ms each: the qemu-nbd of a disk manager that was killed is just ending */

struct storage_nbd {
	pid_t pid;     /* 0: none */
	int errors_fd; /* what qemu-nbd says */
	bool extents;  /* it tells about holes */
	atomic_bool told;
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t free;
	struct nbd_handle *idle[CONNECTIONS];
	unsigned nidle, count;
	char dir[32]; /* of the socket, "" once it is gone */
	struct sockaddr_un addr;
};

/* ---- requests ---- */

static struct nbd_handle *borrow(struct storage_nbd *s)
{
	struct nbd_handle *h;

	pthread_mutex_lock(&s->lock);
	while (!s->nidle)
		pthread_cond_wait(&s->free, &s->lock);
	h = s->idle[--s->nidle];
	pthread_mutex_unlock(&s->lock);
	return h;
}

/* The first line of what qemu-nbd said, without its name; hints follow. */
static void first_words(struct storage_nbd *s, char *text, size_t size)
{
	char buf[280];
	ssize_t n = pread(s->errors_fd, buf, sizeof(buf) - 1, 0);
	char *line = buf;

	buf[n < 0 ? 0 : n] = 0;
	buf[strcspn(buf, "\n")] = 0;
	line += strncmp(line, "qemu-nbd: ", 10) ? 0 : 10;
	snprintf(text, size, "%s", *line ? line : "it said nothing");
}

static void tell_end(struct storage_nbd *s)
{
	char text[300];

	if (atomic_exchange(&s->told, true))
		return;
	first_words(s, text, sizeof(text));
	fprintf(stderr, "disk manager: qemu-nbd is gone: %s\n", text);
}

/* Gives the connection back; r is what the call on it returned. */
static int finish(struct storage_nbd *s, struct nbd_handle *h, int r)
{
	int error = r < 0 ? nbd_get_errno() : 0;

	if (r < 0 && (nbd_aio_is_dead(h) || nbd_aio_is_closed(h))) {
		tell_end(s);
		error = EIO;
	}
	pthread_mutex_lock(&s->lock);
	s->idle[s->nidle++] = h;
	pthread_cond_signal(&s->free);
	pthread_mutex_unlock(&s->lock);
	if (r >= 0)
		return 0;
	return error ? -error : -EIO;
}

static int image_read(struct storage *st, void *buf, size_t len, uint64_t off)
{
	struct nbd_handle *h = borrow(st->nbd);

	return finish(st->nbd, h, nbd_pread(h, buf, len, off, 0));
}

static int image_write(struct storage *st, const void *buf, size_t len, uint64_t off)
{
	struct nbd_handle *h = borrow(st->nbd);

	return finish(st->nbd, h, nbd_pwrite(h, buf, len, off, 0));
}

/* Not by NBD's trim, which does not promise zeroes. */
static int image_zero(struct storage *st, uint64_t len, uint64_t off, bool punch)
{
	uint32_t flags = punch ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
	int r = 0;

	while (len && !r) {
		uint64_t n = len < ZERO_MAX ? len : ZERO_MAX;
		struct nbd_handle *h = borrow(st->nbd);

		r = finish(st->nbd, h, nbd_zero(h, n, off, flags));
		off += n;
		len -= n;
	}
	return r;
}

static int image_sync(struct storage *st)
{
	struct nbd_handle *h = borrow(st->nbd);

	return finish(st->nbd, h, nbd_flush(h, 0));
}

struct first_extent {
	uint64_t length;
	bool data;
};

static int take_extent(void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t n,
		       int *error)
{
	struct first_extent *e = opaque;

	if (n >= 2 && !e->length && !strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION))
		*e = (struct first_extent){ entries[0], !(entries[1] & LIBNBD_STATE_ZERO) };
	return 0;
}

static struct first_extent extent_at(struct storage *st, uint64_t off, uint64_t rest)
{
	struct first_extent e = { 0, true };
	nbd_extent_callback fn = { .callback = take_extent, .user_data = &e };
	struct nbd_handle *h = borrow(st->nbd);
	uint64_t n = rest < ZERO_MAX ? rest : ZERO_MAX;

	if (finish(st->nbd, h, nbd_block_status(h, n, off, fn, LIBNBD_CMD_FLAG_REQ_ONE)) || !e.length)
		return (struct first_extent){ rest, true };
	return e;
}

static uint64_t image_seek(struct storage *st, uint64_t off, uint64_t stop, bool data)
{
	while (off < stop) {
		struct first_extent e = { stop - off, true };

		if (st->nbd->extents)
			e = extent_at(st, off, stop - off);
		if (e.data == data)
			return off;
		off += e.length;
	}
	return stop;
}

/* ---- the end ---- */

static void remove_socket(struct storage_nbd *s)
{
	if (!s->dir[0])
		return;
	if (s->addr.sun_path[0])
		unlink(s->addr.sun_path);
	rmdir(s->dir);
	s->dir[0] = s->addr.sun_path[0] = 0;
}

/* It ends by itself when its last client leaves; one that was never reached has to be told. It writes out what
 * it has in either case. */
static void end_server(struct storage_nbd *s)
{
	for (unsigned i = 0; i < s->nidle; i++) {
		(void)nbd_shutdown(s->idle[i], 0);
		nbd_close(s->idle[i]);
	}
	if (s->pid)
		kill(s->pid, SIGTERM);
	while (s->pid && waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		;
	s->pid = 0;
	s->nidle = s->count = 0;
	remove_socket(s);
	if (s->errors_fd >= 0)
		close(s->errors_fd);
	s->errors_fd = -1;
}

static void image_close(struct storage *st)
{
	if (!st->nbd)
		return;
	end_server(st->nbd);
	pthread_cond_destroy(&st->nbd->free);
	pthread_mutex_destroy(&st->nbd->lock);
	free(st->nbd);
	st->nbd = NULL;
}

static const struct storage_ops image_ops = {
	.read = image_read,
	.write = image_write,
	.zero = image_zero,
	.sync = image_sync,
	.seek = image_seek,
	.close = image_close,
};

/* ---- the start ---- */

/* A socket that listens in a directory of our own. */
static int make_socket(struct storage_nbd *s)
{
	int fd, r;

	strcpy(s->dir, "/tmp/colo-qcow2-XXXXXX");
	if (!mkdtemp(s->dir)) {
		s->dir[0] = 0;
		return -errno;
	}
	s->addr.sun_family = AF_UNIX;
	snprintf(s->addr.sun_path, sizeof(s->addr.sun_path), "%s/nbd", s->dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&s->addr, sizeof(s->addr)) == 0 && listen(fd, CONNECTIONS) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* Becomes qemu-nbd, with the listening socket as descriptor 3 and a group of its own, so that what ends us
 * from a terminal lets it finish. */
static void become_server(struct storage_nbd *s, int listener, pid_t parent, const char *path, bool read_only)
{
	char pid[16], clients[32];
	int null = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	setpgid(0, 0);
	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	snprintf(clients, sizeof(clients), "--shared=%d", CONNECTIONS);
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "1", 1);
	dup2(null, 0);
	dup2(s->errors_fd, 1);
	dup2(s->errors_fd, 2);
	if (listener == 3)
		fcntl(3, F_SETFD, 0);
	else
		dup2(listener, 3);
	execlp("qemu-nbd", "qemu-nbd", "--format=qcow2", clients, "--discard=unmap",
	       read_only ? "--read-only" : "--cache=writeback", "--", path, (char *)NULL);
	fprintf(stderr, "cannot be run: %s\n", strerrordesc_np(errno));
	_exit(1);
}

static int start_server(struct storage_nbd *s, const char *path, bool read_only)
{
	pid_t parent = getpid();
	int listener;

	s->errors_fd = memfd_create("qemu-nbd", MFD_CLOEXEC);
	if (s->errors_fd < 0)
		return -errno;
	fcntl(s->errors_fd, F_SETFL, O_APPEND);
	listener = make_socket(s);
	if (listener < 0)
		return listener;
	s->pid = fork();
	if (s->pid == 0)
		become_server(s, listener, parent, path, read_only);
	close(listener); /* ours; so that its death refuses us */
	if (s->pid > 0)
		return 0;
	s->pid = 0;
	return -EAGAIN;
}

static int connect_one(struct storage_nbd *s)
{
	struct nbd_handle *h = nbd_create();

	if (!h)
		return -ENOMEM;
	if (nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
	    nbd_connect_unix(h, s->addr.sun_path) < 0) {
		nbd_close(h);
		return -ECONNREFUSED;
	}
	s->idle[s->nidle++] = h;
	s->count++;
	return 0;
}

static int connect_all(struct storage *st, struct storage_nbd *s)
{
	int64_t size;
	int r = connect_one(s);

	if (r)
		return r;
	size = nbd_get_size(s->idle[0]);
	st->size = size > 0 ? (uint64_t)size : 0;
	s->extents = nbd_can_meta_context(s->idle[0], LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
	if (nbd_can_multi_conn(s->idle[0]) == 1)
		while (!r && s->count < CONNECTIONS)
			r = connect_one(s);
	remove_socket(s);
	return r;
}

static int open_once(struct storage *st, struct storage_nbd *s, const char *path, bool read_only)
{
	int r = start_server(s, path, read_only);

	if (!r)
		r = connect_all(st, s);
	return r;
}

/* Why qemu-nbd ended. True: the image is locked, perhaps not for long. */
static bool explain(struct storage_nbd *s, char *why, size_t n)
{
	char text[300];

	if (s->pid)
		kill(s->pid, SIGTERM);
	while (s->pid && waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		; /* its words are complete when it has ended */
	s->pid = 0;
	first_words(s, text, sizeof(text));
	snprintf(why, n, "qemu-nbd: %s", text);
	return strstr(text, " lock") != NULL;
}

int storage_nbd_open(struct storage *st, const char *path, bool read_only, char *why, size_t why_size)
{
	const struct timespec pause = { 0, 50000000 };
	struct storage_nbd *s = calloc(1, sizeof(*s));
	int r = -ENOMEM;

	if (!s)
		return r;
	st->ops = &image_ops;
	st->nbd = s;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->free, NULL);
	for (int i = 0; i < LOCKED_TRIES; i++) {
		bool locked = false;

		s->errors_fd = -1;
		r = open_once(st, s, path, read_only);
		if (!r)
			return 0;
		if (r == -ECONNREFUSED && !s->nidle)
			locked = explain(s, why, why_size);
		end_server(s);
		if (!locked)
			break;
		nanosleep(&pause, NULL);
	}
	return r;
}
