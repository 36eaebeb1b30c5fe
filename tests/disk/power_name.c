/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * power_name.c - names of files that are not stable yet (power.h)
 *
 * A file that was made has a hidden name in its directory until its name is stable. Changes are kept in order;
 * the first n become stable together, as transactions of a file system's journal do.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "power.h"

#define HIDDEN ".power-lost-"
#define NAMES 64 /* a disk manager has a handful of files */

enum kind { MAKE, RENAME, REMOVE };

struct change {
	enum kind kind;
	char from[PATH_MAX], to[PATH_MAX]; /* MAKE: hidden, name; REMOVE: from only */
};
/* what the process sees under a name, where that is not what the file system has */
struct view {
	char name[PATH_MAX], real[PATH_MAX];
	bool gone;
};

static struct change changes[NAMES];
static struct view views[NAMES];
static size_t nchanges, nviews;

static void copy_path(char *to, const char *from)
{
	if (strlen(from) >= PATH_MAX)
		abort();
	strcpy(to, from);
}

static bool exists(const char *path)
{
	return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

static struct view *view_of(const char *name, bool make)
{
	for (size_t i = 0; i < nviews; i++)
		if (!strcmp(views[i].name, name))
			return &views[i];
	if (!make)
		return NULL;
	if (nviews == NAMES) {
		fprintf(stderr, "power: too many names that are not stable\n");
		abort();
	}
	copy_path(views[nviews].name, name);
	return &views[nviews++];
}

const char *power_name_find(const char *path)
{
	static char real[PATH_MAX];
	struct view *v = view_of(path, false);

	if (v && v->gone)
		return NULL;
	copy_path(real, v ? v->real : path);
	return v || exists(real) ? real : NULL;
}

static struct change *add_change(enum kind kind, const char *from, const char *to)
{
	if (nchanges == NAMES)
		power_name_settle(1);
	changes[nchanges].kind = kind;
	copy_path(changes[nchanges].from, from);
	copy_path(changes[nchanges].to, to);
	return &changes[nchanges++];
}

const char *power_name_make(const char *path)
{
	static unsigned serial;
	struct view *v = view_of(path, true);
	const char *slash = strrchr(path, '/');
	char hidden[PATH_MAX];

	if (snprintf(hidden, sizeof(hidden), "%.*s/" HIDDEN "%d-%u", (int)(slash - path), path, (int)getpid(),
		     serial++) >= (int)sizeof(hidden))
		abort();
	copy_path(v->real, hidden);
	v->gone = false;
	add_change(MAKE, hidden, path);
	return v->real;
}

int power_name_rename(const char *from, const char *to)
{
	const char *real = power_name_find(from);
	struct view *v;

	if (!real)
		return -ENOENT;
	v = view_of(to, true);
	copy_path(v->real, real);
	v->gone = false;
	v = view_of(from, true);
	v->gone = true;
	add_change(RENAME, from, to);
	return 0;
}

int power_name_unlink(const char *path)
{
	if (!power_name_find(path))
		return -ENOENT;
	view_of(path, true)->gone = true;
	add_change(REMOVE, path, "");
	return 0;
}

/* What was found at `from` is at `to` now. */
static void moved(const char *from, const char *to)
{
	for (size_t i = 0; i < nviews; i++)
		if (!views[i].gone && !strcmp(views[i].real, from))
			copy_path(views[i].real, to);
}

static void apply(const struct change *c)
{
	int r = c->kind == REMOVE ? (int)syscall(SYS_unlinkat, AT_FDCWD, c->from, 0)
				  : (int)syscall(SYS_renameat, AT_FDCWD, c->from, AT_FDCWD, c->to);

	if (r < 0) {
		fprintf(stderr, "power: %s: %s\n", c->from, strerror(errno));
		abort();
	}
	if (c->kind != REMOVE)
		moved(c->from, c->to);
}

void power_name_settle(size_t n)
{
	n = n < nchanges ? n : nchanges;
	for (size_t i = 0; i < n; i++)
		apply(&changes[i]);
	nchanges -= n;
	memmove(changes, changes + n, nchanges * sizeof(changes[0]));
	if (!nchanges)
		nviews = 0;
}

size_t power_name_pending(void)
{
	return nchanges;
}

void power_name_clean(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char path[PATH_MAX];
		int pid;

		if (sscanf(e->d_name, HIDDEN "%d-", &pid) != 1 || kill(pid, 0) == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		syscall(SYS_unlinkat, AT_FDCWD, path, 0);
	}
	if (d)
		closedir(d);
}
