/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sync_shim.c - LD_PRELOAD: count, delay or fail fdatasync, slow down writes in a disk manager under test
 *
 * SYNC_LOG: a file that gets one byte per call. SYNC_GATE: while this file exists, calls wait. SYNC_FAIL:
 * while this file exists, calls fail with EIO. SYNC_CRAWL: while this file exists, every pwrite takes 2 ms.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static bool exists(const char *variable)
{
	const char *path = getenv(variable);

	return path && access(path, F_OK) == 0;
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

	note();
	while (exists("SYNC_GATE"))
		nanosleep(&ms, NULL);
	if (exists("SYNC_FAIL")) {
		errno = EIO;
		return -1;
	}
	return real(fd);
}

/* By their names in libc: with 64-bit file offsets the compiler calls both pwrite64. */
__attribute__((visibility("default")))
ssize_t crawl64(int fd, const void *p, size_t n, off64_t off) __asm__("pwrite64");
__attribute__((visibility("default")))
ssize_t crawl(int fd, const void *p, size_t n, off64_t off) __asm__("pwrite");

ssize_t crawl64(int fd, const void *p, size_t n, off64_t off)
{
	ssize_t (*real)(int, const void *, size_t, off64_t) =
		(ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
	struct timespec two = { 0, 2000000 };

	if (exists("SYNC_CRAWL"))
		nanosleep(&two, NULL);
	return real(fd, p, n, off);
}

ssize_t crawl(int fd, const void *p, size_t n, off64_t off)
{
	return crawl64(fd, p, n, off);
}
