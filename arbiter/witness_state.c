/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * witness_state.c - see witness_state.h
 *
 * Theory of operation: one file for each VM, VM.record, of one line with a checksum (record.c). A change writes
 * VM.new, syncs it, renames it over VM.record and syncs the directory; then it is answered. A crash leaves
 * the old record or the new one, whole; what VM.new then holds is nothing.
 *
 * If the directory cannot be synced the new record may or may not be on storage. It was not answered as won,
 * so both are right; another claim of the same generation may replace it.
 *
 * The file `colo-witness` says that state begins here, and is locked: an empty directory (a disk that was not
 * mounted) is no state, and two witnesses never share one.
 */
#include "arbiter/witness_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arbiter/arbiter.h"

#define MARK "colo-witness"
#define MARK_TEXT "state of a colo witness, format 1\n"
#define SUFFIX ".record"
#define FILE_MAX (ARBITER_NAME_MAX + 16)

struct report {
	char *text;
	size_t size;
};

__attribute__((format(printf, 3, 4))) static int fail(struct report *e, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e->text, e->size, fmt, ap);
	va_end(ap);
	return r;
}

/* Synced, whole. */
static int write_file(int dir, const char *name, const char *text, size_t len)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), r = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, text, len);
	if (n != (ssize_t)len)
		r = n < 0 ? -errno : -ENOSPC;
	else if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* in s->vm; NULL: not there */
static struct witness_vm *find(const struct witness_state *s, const char *vm)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		if (!strcmp(s->vm[i].name, vm))
			return &s->vm[i];
	return NULL;
}

static int grow(struct witness_state *s)
{
	size_t room = s->room ? 2 * s->room : 64;
	struct witness_vm *vm;

	if (s->n < s->room)
		return 0;
	if (s->n >= WITNESS_VMS_MAX)
		return -ENOSPC;
	vm = reallocarray(s->vm, room, sizeof(*vm));
	if (!vm)
		return -ENOMEM;
	s->vm = vm;
	s->room = room;
	return 0;
}

static int remember(struct witness_state *s, const char *vm, const struct arbiter_record *r)
{
	struct witness_vm *v = find(s, vm);
	int e;

	if (!v) {
		e = grow(s);
		if (e < 0)
			return e;
		v = &s->vm[s->n++];
		snprintf(v->name, sizeof(v->name), "%s", vm);
	}
	v->record = *r;
	return 0;
}

struct arbiter_record witness_state_get(const struct witness_state *s, const char *vm)
{
	const struct witness_vm *v = find(s, vm);

	return v ? v->record : (struct arbiter_record){ 0 };
}

int witness_state_put(struct witness_state *s, const char *vm, const struct arbiter_record *r)
{
	char text[RECORD_TEXT_MAX], name[FILE_MAX], temp[FILE_MAX];
	int e = grow(s);

	snprintf(name, sizeof(name), "%s" SUFFIX, vm);
	snprintf(temp, sizeof(temp), "%s.new", vm);
	e = e < 0 ? e : write_file(s->dir_fd, temp, text, record_format(r, vm, text));
	if (e < 0)
		return e;
	if (renameat(s->dir_fd, temp, s->dir_fd, name) < 0 || fsync(s->dir_fd) < 0)
		return -errno;
	return remember(s, vm, r);
}

/* --- at the start --- */

static int load_one(struct witness_state *s, const char *name, struct report *e)
{
	size_t len = strlen(name) - strlen(SUFFIX);
	char vm[ARBITER_NAME_MAX], text[RECORD_TEXT_MAX];
	struct arbiter_record r;
	ssize_t n;
	int fd;

	if (len >= sizeof(vm))
		return fail(e, -EBADMSG, "%s/%s is not a file of a witness", s->dir, name);
	memcpy(vm, name, len);
	vm[len] = 0;
	fd = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (n < 0)
		fail(e, -errno, "%s/%s: %s", s->dir, name, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (n < 0)
		return -EIO;
	if (!record_is_name(vm) || record_parse(text, n, vm, &r) < 0)
		return fail(e, -EBADMSG, "%s/%s is damaged: who may serve VM %s cannot be told. Restore the file; or see that "
			    "no host runs this VM, and remove it", s->dir, name, vm);
	return remember(s, vm, &r) < 0 ? fail(e, -ENOMEM, "too many VMs in %s", s->dir) : 0;
}

static bool is_record(const char *name)
{
	size_t n = strlen(name);

	return n > strlen(SUFFIX) && !strcmp(name + n - strlen(SUFFIX), SUFFIX);
}

static int load(struct witness_state *s, struct report *e)
{
	int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	if (!list) {
		if (fd >= 0)
			close(fd);
		return fail(e, -EIO, "%s cannot be read", s->dir);
	}
	while (!r && (errno = 0, d = readdir(list)))
		if (is_record(d->d_name))
			r = load_one(s, d->d_name, e);
	if (!r && errno)
		r = fail(e, -EIO, "%s: %s", s->dir, strerror(errno));
	closedir(list);
	return r;
}

/* A new state may only begin where none was. */
static int make_mark(struct witness_state *s, bool fresh, struct report *e)
{
	int r;

	if (!fresh)
		return fail(e, -ENOENT, "%s holds no state of a witness. A witness that has forgotten must not answer: if the "
			    "disk is not mounted, mount it; to begin a new state, say --new", s->dir);
	r = load(s, e);
	if (r)
		return r;
	if (s->n)
		return fail(e, -EBADMSG, "%s holds records, but its file " MARK " is missing", s->dir);
	r = write_file(s->dir_fd, MARK, MARK_TEXT, strlen(MARK_TEXT));
	if (!r && fsync(s->dir_fd) < 0)
		r = -errno;
	return r ? fail(e, r, "%s/" MARK ": %s", s->dir, strerror(-r)) : 0;
}

static int lock(struct witness_state *s, bool fresh, struct report *e)
{
	char text[64] = "";
	int r;

	s->lock_fd = openat(s->dir_fd, MARK, O_RDWR | O_CLOEXEC);
	if (s->lock_fd < 0 && errno == ENOENT) {
		r = make_mark(s, fresh, e);
		if (r)
			return r;
		s->lock_fd = openat(s->dir_fd, MARK, O_RDWR | O_CLOEXEC);
	}
	if (s->lock_fd < 0)
		return fail(e, -errno, "%s/" MARK ": %s", s->dir, strerror(errno));
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return fail(e, -EBUSY, "%s is in use by another witness", s->dir);
	if (read(s->lock_fd, text, sizeof(text) - 1) < 0 || strcmp(text, MARK_TEXT))
		return fail(e, -EBADMSG, "%s/" MARK " is damaged, or of another version of colo", s->dir);
	return 0;
}

int witness_state_open(struct witness_state *s, const char *dir, bool fresh, char *error, size_t error_size)
{
	struct report e = { error, error_size };
	int r;

	*s = (struct witness_state){ .lock_fd = -1 };
	snprintf(s->dir, sizeof(s->dir), "%s", dir);
	if (fresh && mkdir(dir, 0700) < 0 && errno != EEXIST)
		return fail(&e, -errno, "%s: %s", dir, strerror(errno));
	s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0)
		return fail(&e, -errno, "%s: %s", dir, strerror(errno));
	r = lock(s, fresh, &e);
	if (!r && !s->n)
		r = load(s, &e);
	if (r)
		witness_state_close(s);
	return r;
}

void witness_state_close(struct witness_state *s)
{
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	free(s->vm);
	*s = (struct witness_state){ .lock_fd = -1, .dir_fd = -1 };
}
