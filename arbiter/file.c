/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * file.c - the arbiter `file`: a directory on a file system that both hosts share
 *
 * Theory of operation: each claim that was won is a file of its own, VM.GENERATION, which appears complete and
 * never changes; the record is the one with the highest number. A claim is the exclusive creation of such a
 * file: a temporary file of a name nobody else uses is written, synced, and given the second name
 * with link(2), which exactly one can do. NFS may lose the answer to a link() that was done, and the repeated
 * one fails; so, as open(2) says, the temporary file's link count counts and not what link() returned.
 *
 * A claim of generation 5 must not be won where 6 exists. It is looked at before, and again after the
 * link: a host that creates 6 later does so in the knowledge of 5.
 *
 * NFS clients remember what they read of a directory. Creating and removing a file in it makes the client
 * compare with the server and forget that, so each look begins with one; it shows, too, that
 * the directory can be written to.
 *
 * Nothing is ever removed but the temporary files of one's own: a file of a few bytes stays for each claim. Those
 * with lower numbers than the highest one may be removed by hand.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/random.h>
#include <unistd.h>

#include "arbiter/arbiter.h"

#define DIGITS 20
#define NAME_SIZE (ARBITER_NAME_MAX + DIGITS + 2)
#define TEMP_SIZE (2 * ARBITER_NAME_MAX + 64)

static int failed(struct arbiter *a, const char *name, const char *what)
{
	int e = errno;

	return arbiter_unknown(a, -e, "%s/%s: %s: %s", a->cfg->directory, name, what, strerror(e));
}

static int open_dir(struct arbiter *a)
{
	int fd = open(a->cfg->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? failed(a, "", "cannot be opened") : fd;
}

/* A name that no other process, here or on another host, uses; creates the file. */
static int make_temp(struct arbiter *a, int dir, char name[TEMP_SIZE])
{
	uint64_t random;
	int fd;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return arbiter_unknown(a, -EIO, "no random numbers");
	snprintf(name, TEMP_SIZE, ".tmp.%s.%s.%d.%016" PRIx64, a->cfg->vm, a->cfg->node, (int)getpid(), random);
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? failed(a, name, "cannot be created") : fd;
}

static int refresh(struct arbiter *a, int dir)
{
	char name[TEMP_SIZE];
	int fd = make_temp(a, dir, name);

	if (fd < 0)
		return fd;
	close(fd);
	return unlinkat(dir, name, 0) < 0 ? failed(a, name, "cannot be removed") : 0;
}

/* generation in a file's name, 0: it is none of this VM's */
static uint64_t number_of(const char *name, const char *vm)
{
	size_t n = strlen(vm);

	if (strncmp(name, vm, n) || name[n] != '.')
		return 0;
	name += n + 1;
	return strlen(name) == DIGITS && strspn(name, "0123456789") == DIGITS ? strtoull(name, NULL, 10) : 0;
}

static int highest(struct arbiter *a, int dir, uint64_t *found)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	uint64_t n;
	int r;

	*found = 0;
	if (!list) {
		r = failed(a, "", "cannot be read");
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (errno = 0, (e = readdir(list))) {
		n = number_of(e->d_name, a->cfg->vm);
		*found = n > *found ? n : *found;
	}
	r = errno ? failed(a, "", "cannot be read") : 0;
	closedir(list);
	return r;
}

static void name_of(const struct arbiter *a, uint64_t generation, char name[NAME_SIZE])
{
	snprintf(name, NAME_SIZE, "%s.%0*" PRIu64, a->cfg->vm, DIGITS, generation);
}

static int read_record(struct arbiter *a, int dir, uint64_t generation, struct arbiter_record *r)
{
	char name[NAME_SIZE], text[RECORD_TEXT_MAX];
	ssize_t n;
	int fd;

	name_of(a, generation, name);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return failed(a, name, "cannot be opened");
	n = read(fd, text, sizeof(text));
	if (n < 0) {
		n = failed(a, name, "cannot be read");
		close(fd);
		return n;
	}
	close(fd);
	if (record_parse(text, n, a->cfg->vm, r) < 0 || r->generation != generation)
		return arbiter_unknown(a, -EBADMSG, "%s/%s is damaged: who claimed generation %" PRIu64 " cannot be told. "
				       "See on both hosts who serves; when none of them does, remove the file",
				       a->cfg->directory, name, generation);
	return 0;
}

static int look(struct arbiter *a, int dir, struct arbiter_record *r)
{
	uint64_t generation;
	int e = refresh(a, dir);

	memset(r, 0, sizeof(*r));
	if (!e)
		e = highest(a, dir, &generation);
	return e || !generation ? e : read_record(a, dir, generation, r);
}

static int file_read(struct arbiter *a, struct arbiter_record *r)
{
	int dir = open_dir(a), e;

	if (dir < 0)
		return dir;
	e = look(a, dir, r);
	close(dir);
	return e;
}

static int fill(struct arbiter *a, int fd, const char *name, uint64_t generation)
{
	struct arbiter_record mine = { .generation = generation };
	char text[RECORD_TEXT_MAX];
	ssize_t len;

	snprintf(mine.owner, sizeof(mine.owner), "%s", a->cfg->node);
	len = record_format(&mine, a->cfg->vm, text);
	errno = ENOSPC; /* of a write that is cut short */
	if (write(fd, text, len) != len || fsync(fd) < 0)
		return failed(a, name, "cannot be written");
	return 0;
}

/* Exactly one wins. What link() says does not count: see above. 0, also when another one was first */
static int create(struct arbiter *a, int dir, uint64_t generation)
{
	char temp[TEMP_SIZE], name[NAME_SIZE];
	int fd = make_temp(a, dir, temp), e;
	struct stat st;

	if (fd < 0)
		return fd;
	name_of(a, generation, name);
	e = fill(a, fd, temp, generation);
	if (!e && linkat(dir, temp, dir, name, 0) < 0 && errno != EEXIST &&
	    (fstat(fd, &st) < 0 || st.st_nlink != 2))
		e = failed(a, name, "cannot be created");
	close(fd);
	unlinkat(dir, temp, 0);
	if (!e && fsync(dir) < 0)
		e = failed(a, "", "cannot be synced");
	return e;
}

static int file_claim(struct arbiter *a, uint64_t generation, struct arbiter_record *r)
{
	int dir = open_dir(a), e;

	if (dir < 0)
		return dir;
	e = look(a, dir, r);
	if (!e)
		e = record_judge(r, generation, a->cfg->node);
	if (e == ARBITER_OPEN) {
		e = create(a, dir, generation);
		e = e ? e : look(a, dir, r);
		e = e ? e : record_judge(r, generation, a->cfg->node);
	}
	close(dir);
	if (e == ARBITER_OPEN)
		return arbiter_unknown(a, -EIO, "%s: the file of generation %" PRIu64 " was created and is not there",
				       a->cfg->directory, generation);
	return e;
}

const struct arbiter_backend arbiter_file = { file_read, file_claim };
