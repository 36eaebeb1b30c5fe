/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fault_shim.c - LD_PRELOAD for a disk manager in the lab: storage that fails, is full, or slow
 *
 * While the file FAULT_SWITCH exists, calls on files below FAULT_DIR (with a slash at its end) do what its
 * first word says: EIO: reads, writes and flushes fail; ENOSPC: writes fail; SLOW: each write and each
 * flush takes 20 ms more.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum fault { NONE, FAILS, FULL, SLOW };
enum call { READ, WRITE, FLUSH };

static bool is_concerned(int fd)
{
	const char *dir = getenv("FAULT_DIR");
	char link[64], path[512];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	return dir && n > 0 && !strncmp(path, dir, strlen(dir));
}

static enum fault fault(int fd)
{
	const char *path = getenv("FAULT_SWITCH");
	char word[16] = "";
	FILE *f;

	if (!path || access(path, F_OK) < 0 || !is_concerned(fd))
		return NONE;
	f = fopen(path, "re");
	if (!f || fscanf(f, "%15s", word) != 1)
		*word = 0;
	if (f)
		fclose(f);
	return !strcmp(word, "EIO") ? FAILS : !strcmp(word, "ENOSPC") ? FULL : !strcmp(word, "SLOW") ? SLOW : NONE;
}

/* Does the call fail? errno is set then. */
static bool hit(int fd, enum call call)
{
	const struct timespec pause = { 0, 20000000 };
	enum fault f = fault(fd);

	if (f == SLOW && call != READ)
		nanosleep(&pause, NULL);
	if (f == FAILS || (f == FULL && call == WRITE)) {
		errno = f == FAILS ? EIO : ENOSPC;
		return true;
	}
	return false;
}

/* By their names in libc: with 64-bit file offsets the compiler calls those with 64. */
#define PUBLIC(name) __asm__(name) __attribute__((visibility("default")))
ssize_t shim_pwrite64(int fd, const void *p, size_t n, off64_t off) PUBLIC("pwrite64");
ssize_t shim_pread64(int fd, void *p, size_t n, off64_t off) PUBLIC("pread64");
int shim_fallocate64(int fd, int mode, off64_t off, off64_t len) PUBLIC("fallocate64");
int shim_fdatasync(int fd) PUBLIC("fdatasync");
int shim_fsync(int fd) PUBLIC("fsync");

static void *real(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

ssize_t shim_pwrite64(int fd, const void *p, size_t n, off64_t off)
{
	return hit(fd, WRITE) ? -1 : ((ssize_t (*)(int, const void *, size_t, off64_t))real("pwrite64"))(fd, p, n, off);
}

ssize_t shim_pread64(int fd, void *p, size_t n, off64_t off)
{
	return hit(fd, READ) ? -1 : ((ssize_t (*)(int, void *, size_t, off64_t))real("pread64"))(fd, p, n, off);
}

int shim_fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	return hit(fd, WRITE) ? -1 : ((int (*)(int, int, off64_t, off64_t))real("fallocate64"))(fd, mode, off, len);
}

int shim_fdatasync(int fd)
{
	return hit(fd, FLUSH) ? -1 : ((int (*)(int))real("fdatasync"))(fd);
}

int shim_fsync(int fd)
{
	return hit(fd, FLUSH) ? -1 : ((int (*)(int))real("fsync"))(fd);
}
