/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sync_shim.c - LD_PRELOAD: hold up a disk manager under test
 *
 * SYNC_FILE names the disk, to whose file all this is confined. SYNC_LOG names a file that gets one byte per
 * fdatasync. The others name files that act while they exist: SYNC_GATE makes fdatasync wait, SYNC_FAIL makes it fail, SYNC_CRAWL puts 2 ms before every pwrite,
 * SYNC_DAWDLE 2 ms after every pread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool exists(const char *variable)
{
	const char *path = getenv(variable);

	return path && access(path, F_OK) == 0;
}

/* SYNC_FILE's descriptor, or any if that is not set */
static bool ours(int fd)
{
	const char *path = getenv("SYNC_FILE");
	struct stat a, b;

	return !path || (fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino);
}

static void note(void)
{
	const char *path = getenv("SYNC_LOG");
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;

	if (fd < 0)
		return;
	if (write(fd, ".", 1) != 1)
		abort(); /* a test that counts must not miscount */
	close(fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	struct timespec ms = { 0, 1000000 };

	if (!ours(fd))
		return real(fd);
	note();
	while (exists("SYNC_GATE"))
		nanosleep(&ms, NULL);
	if (exists("SYNC_FAIL")) {
		errno = EIO;
		return -1;
	}
	return real(fd);
}

static void pause_if(int fd, const char *variable)
{
	struct timespec two = { 0, 2000000 };

	if (exists(variable) && ours(fd))
		nanosleep(&two, NULL);
}

/* By their names in libc: with 64-bit file offsets the compiler calls those with 64. */
#define PUBLIC(name) __asm__(name) __attribute__((visibility("default")))
ssize_t slow_pwrite64(int fd, const void *p, size_t n, off64_t off) PUBLIC("pwrite64");
ssize_t slow_pwrite(int fd, const void *p, size_t n, off64_t off) PUBLIC("pwrite");
ssize_t slow_pread64(int fd, void *p, size_t n, off64_t off) PUBLIC("pread64");
ssize_t slow_pread(int fd, void *p, size_t n, off64_t off) PUBLIC("pread");

ssize_t slow_pwrite64(int fd, const void *p, size_t n, off64_t off)
{
	ssize_t (*real)(int, const void *, size_t, off64_t) =
		(ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");

	pause_if(fd, "SYNC_CRAWL");
	return real(fd, p, n, off);
}

ssize_t slow_pwrite(int fd, const void *p, size_t n, off64_t off)
{
	return slow_pwrite64(fd, p, n, off);
}

ssize_t slow_pread64(int fd, void *p, size_t n, off64_t off)
{
	ssize_t (*real)(int, void *, size_t, off64_t) =
		(ssize_t (*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
	ssize_t r = real(fd, p, n, off);

	pause_if(fd, "SYNC_DAWDLE"); /* what was read grows stale */
	return r;
}

ssize_t slow_pread(int fd, void *p, size_t n, off64_t off)
{
	return slow_pread64(fd, p, n, off);
}
