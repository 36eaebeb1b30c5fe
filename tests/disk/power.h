/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * power.h - a storage double: files whose unflushed content a power loss takes away
 *
 * Theory of operation. All files beneath one directory are doubled. What the process writes, cuts, punches,
 * makes, renames or removes there it sees at once, but the real files hold only what is stable:
 *
 *   fdatasync, fsync    make the content and size of that file stable
 *   fsync of a directory makes all names stable: made, renamed and removed since (in order, as by a journal of
 *                       the file system). A flushed file whose directory was not flushed may be gone: ext4 is
 *                       kinder, POSIX is not
 *   at random           some unflushed pieces of 4 KiB, or single sectors of 512 bytes of them, become stable
 *                       early and in any order, as a page cache writes them out; so do the oldest names
 *   sync_file_range     makes that more likely, and promises nothing
 *
 * A process that is killed leaves what is stable, which is power loss. A process that ends in an orderly way (exit,
 * _exit) leaves all it wrote: a page cache outlives a process.
 *
 * Linked into a test, or preloaded (power_shim.so: COLO_POWER_DIR, COLO_POWER_SEED). It stands in for the libc
 * calls that the disk manager makes, and aborts on those that it cannot follow (a shared mapping of a doubled
 * file). Files opened with O_TMPFILE are left alone: nothing of them outlives the process anyway.
 */
#ifndef COLO_TESTS_DISK_POWER_H
#define COLO_TESTS_DISK_POWER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* ---- power.c: what a test asks for ---- */

/* Files beneath dir are doubled from now on. */
void power_start(const char *dir, uint64_t seed);
/* The n-th changing call from now on is the process's last: whatever it does, and all that is unflushed, becomes
 * stable in part, at random; then SIGKILL. 0: never. */
void power_cut_after(uint64_t n);
/* Making a file stable takes up to so long. */
void power_slow(unsigned us);
/* Changing calls so far. */
uint64_t power_calls(void);
uint64_t power_random(uint64_t below);

/* ---- power_file.c: the unflushed content of one file ---- */

#define POWER_PAGE 4096u
#define POWER_SECTOR 512u

struct power_region;
struct power_file {
	struct power_file *next;
	pthread_mutex_t lock; /* guards what follows */
	dev_t dev;
	ino_t ino;
	int fd;               /* of the real file, for reading and writing; its own */
	uint64_t size;        /* as the process sees it */
	struct timespec mtime;
	bool touched;         /* mtime is that of an unflushed change */
	struct power_region **regions;
	size_t nregions, pages;
};

/* With the file's lock held. As the system calls of these names, but -errno instead of errno. */
ssize_t power_file_read(struct power_file *f, char *buf, size_t len, uint64_t off);
ssize_t power_file_write(struct power_file *f, const char *buf, size_t len, uint64_t off);
void power_file_zero(struct power_file *f, uint64_t off, uint64_t len);
void power_file_truncate(struct power_file *f, uint64_t size);
off_t power_file_seek(struct power_file *f, off_t off, int whence);
/* All of it to the real file. */
void power_file_flush(struct power_file *f);
/* Some pieces of it, of `tries` places. */
void power_file_leak(struct power_file *f, unsigned tries);
/* Each unflushed sector with this probability of 256. */
void power_file_scatter(struct power_file *f, unsigned chance);

/* ---- power_name.c: names that are not stable yet. Absolute paths; one thread at a time ---- */

/* Where the file of this name really is: a path until the next call, NULL: there is none. */
const char *power_name_find(const char *path);
/* A new file: its real path until the next call. */
const char *power_name_make(const char *path);
int power_name_rename(const char *from, const char *to);
int power_name_unlink(const char *path);
/* Make the oldest n changes stable. */
void power_name_settle(size_t n);
size_t power_name_pending(void);
/* Remove what processes that have lost power left behind. */
void power_name_clean(const char *dir);

#endif
