/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * power.c - the calls of libc that the storage double stands in for (power.h)
 *
 * Real files are reached by system calls. Lock order: names, then a file's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "power.h"

#define FDS 65536
#define PAGES_MAX 98304u /* unflushed, of a file: 384 MiB; then it is written out, as by a kernel with dirty limits */
#define LEAK_EVERY 16    /* changing calls, on average */

static unsigned slow_us;
static char prefix[PATH_MAX];
static size_t prefix_length;
static _Atomic uint64_t random_state, calls, cut_at;
static pthread_mutex_t names = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP; /* guards names and the list of files */
static struct power_file *files;
static struct power_file *_Atomic fd_file[FDS];
static _Atomic bool fd_directory[FDS];

uint64_t power_random(uint64_t below)
{
	uint64_t x = atomic_fetch_add(&random_state, 0x9e3779b97f4a7c15u);

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	x ^= x >> 31;
	return below ? x % below : 0;
}

void power_slow(unsigned us)
{
	slow_us = us;
}

uint64_t power_calls(void)
{
	return calls;
}

void power_cut_after(uint64_t n)
{
	cut_at = n ? calls + n : 0;
}

void power_start(const char *dir, uint64_t seed)
{
	if (!realpath(dir, prefix)) {
		fprintf(stderr, "power: %s: %s\n", dir, strerror(errno));
		abort();
	}
	random_state = seed * 2 + 1;
	power_name_clean(prefix);
	prefix_length = strlen(prefix);
}

__attribute__((constructor)) static void start_preloaded(void)
{
	const char *dir = getenv("COLO_POWER_DIR"), *seed = getenv("COLO_POWER_SEED");

	if (dir)
		power_start(dir, seed ? strtoull(seed, NULL, 0) : (uint64_t)getpid());
}

/* ---- the end ---- */

static void power_lost(void)
{
	static const unsigned chances[] = { 0, 8, 128, 248, 256 };
	unsigned chance = chances[power_random(5)];

	pthread_mutex_lock(&names);
	for (struct power_file *f = files; f; f = f->next) {
		pthread_mutex_lock(&f->lock);
		power_file_scatter(f, chance);
	}
	if (power_random(2))
		power_name_settle(power_random(power_name_pending() + 1));
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

/* The page cache outlives the process. */
static void write_all_out(void)
{
	pthread_mutex_lock(&names);
	for (struct power_file *f = files; f; f = f->next) {
		pthread_mutex_lock(&f->lock);
		power_file_flush(f);
		pthread_mutex_unlock(&f->lock);
	}
	power_name_settle(SIZE_MAX);
	pthread_mutex_unlock(&names);
}

__attribute__((destructor)) static void at_exit(void)
{
	if (prefix_length)
		write_all_out();
}

/* A changing call has begun. True: it is the last. */
static bool counted(void)
{
	return atomic_fetch_add(&calls, 1) + 1 == cut_at;
}

/* It has done what it does; with the file's lock held, which is given back. */
static void changed(struct power_file *f, bool last)
{
	if (f->pages > PAGES_MAX)
		power_file_flush(f);
	else if (f->pages && !power_random(LEAK_EVERY))
		power_file_leak(f, 1);
	pthread_mutex_unlock(&f->lock);
	if (last)
		power_lost();
}

static int failed(int error)
{
	errno = error;
	return -1;
}

static ssize_t result(ssize_t r)
{
	return r < 0 ? failed((int)-r) : r;
}

/* ---- files ---- */

static bool is_ours(const char *path, char *absolute)
{
	int n;

	if (!prefix_length || !path)
		return false;
	if (path[0] == '/') {
		n = snprintf(absolute, PATH_MAX, "%s", path);
	} else {
		char cwd[PATH_MAX];

		n = getcwd(cwd, sizeof(cwd)) ? snprintf(absolute, PATH_MAX, "%s/%s", cwd, path) : PATH_MAX;
	}
	return n < PATH_MAX && !strncmp(absolute, prefix, prefix_length) &&
	       (absolute[prefix_length] == '/' || !absolute[prefix_length]); /* it itself, for fsync */
}

static struct power_file *file_of(int fd)
{
	return fd >= 0 && fd < FDS ? atomic_load(&fd_file[fd]) : NULL;
}

static struct power_file *find_file(const struct stat *sb)
{
	struct power_file *f = files;

	while (f && (f->dev != sb->st_dev || f->ino != sb->st_ino))
		f = f->next;
	return f;
}

static struct power_file *add_file(const struct stat *sb, const char *real)
{
	struct power_file *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	pthread_mutex_init(&f->lock, NULL);
	f->dev = sb->st_dev;
	f->ino = sb->st_ino;
	f->size = (uint64_t)sb->st_size;
	f->fd = (int)syscall(SYS_openat, AT_FDCWD, real, O_RDWR | O_CLOEXEC);
	if (f->fd < 0) { /* read-only for us: nothing of it can be unflushed */
		free(f);
		return NULL;
	}
	f->next = files;
	files = f;
	return f;
}

static void adopt(int fd, const char *real, int flags)
{
	struct stat sb;
	struct power_file *f;

	if (fd >= FDS || syscall(SYS_fstat, fd, &sb) < 0)
		abort();
	fd_directory[fd] = S_ISDIR(sb.st_mode);
	if (!S_ISREG(sb.st_mode))
		return;
	f = find_file(&sb);
	if (!f)
		f = add_file(&sb, real);
	fd_file[fd] = f;
	if (f && flags & O_TRUNC && f->size) {
		pthread_mutex_lock(&f->lock);
		power_file_truncate(f, 0);
		pthread_mutex_unlock(&f->lock);
	}
}

static int open_ours(const char *path, int flags, mode_t mode)
{
	const char *real = power_name_find(path);
	int fd, given = flags;

	if (real && flags & O_CREAT && flags & O_EXCL)
		return failed(EEXIST);
	if (!real && !(flags & O_CREAT))
		return failed(ENOENT);
	if (real) {
		given &= ~(O_CREAT | O_TRUNC);
	} else {
		if (counted())
			power_lost();
		real = power_name_make(path);
	}
	fd = (int)syscall(SYS_openat, AT_FDCWD, real, given, mode);
	if (fd >= 0)
		adopt(fd, real, flags);
	return fd;
}

static int open_any(int at, const char *path, int flags, mode_t mode)
{
	char absolute[PATH_MAX];
	int fd;

	if ((flags & O_TMPFILE) == O_TMPFILE || !is_ours(path, absolute) || (at != AT_FDCWD && path[0] != '/'))
		return (int)syscall(SYS_openat, at, path, flags, mode);
	pthread_mutex_lock(&names);
	fd = open_ours(absolute, flags, mode);
	pthread_mutex_unlock(&names);
	return fd;
}

/* ---- the calls. By their names in libc: with 64-bit offsets the compiler calls those with 64 ---- */
#define STANDS_FOR(name) __asm__(name) __attribute__((visibility("default")))
#define BOTH(type, ours, name, args, pass) \
	type ours args STANDS_FOR(name); \
	type ours##64 args STANDS_FOR(name "64"); \
	type ours##64 args { return ours pass; } \
	type ours args

#define TAKE_MODE(mode, flags) \
	mode_t mode = 0; \
	if (flags & (O_CREAT | O_TMPFILE)) { \
		va_list ap; \
		va_start(ap, flags); \
		mode = va_arg(ap, mode_t); \
		va_end(ap); \
	}

int p_open(const char *path, int flags, ...) STANDS_FOR("open");
int p_open64(const char *path, int flags, ...) STANDS_FOR("open64");
int p_openat(int at, const char *path, int flags, ...) STANDS_FOR("openat");
int p_openat64(int at, const char *path, int flags, ...) STANDS_FOR("openat64");

int p_open(const char *path, int flags, ...)
{
	TAKE_MODE(mode, flags)
	return open_any(AT_FDCWD, path, flags, mode);
}

int p_open64(const char *path, int flags, ...)
{
	TAKE_MODE(mode, flags)
	return open_any(AT_FDCWD, path, flags, mode);
}

int p_openat(int at, const char *path, int flags, ...)
{
	TAKE_MODE(mode, flags)
	return open_any(at, path, flags, mode);
}

int p_openat64(int at, const char *path, int flags, ...)
{
	TAKE_MODE(mode, flags)
	return open_any(at, path, flags, mode);
}

int p_close(int fd) STANDS_FOR("close");
int p_close(int fd)
{
	if (fd >= 0 && fd < FDS) {
		fd_file[fd] = NULL;
		fd_directory[fd] = false;
	}
	return (int)syscall(SYS_close, fd);
}

BOTH(ssize_t, p_pread, "pread", (int fd, void *buf, size_t n, off_t off), (fd, buf, n, off))
{
	struct power_file *f = file_of(fd);
	ssize_t r;

	if (!f)
		return syscall(SYS_pread64, fd, buf, n, off);
	if (off < 0)
		return failed(EINVAL);
	pthread_mutex_lock(&f->lock);
	r = power_file_read(f, buf, n, (uint64_t)off);
	pthread_mutex_unlock(&f->lock);
	return result(r);
}

BOTH(ssize_t, p_pwrite, "pwrite", (int fd, const void *buf, size_t n, off_t off), (fd, buf, n, off))
{
	struct power_file *f = file_of(fd);
	bool last;
	ssize_t r;

	if (!f)
		return syscall(SYS_pwrite64, fd, buf, n, off);
	if (off < 0)
		return failed(EINVAL);
	last = counted();
	pthread_mutex_lock(&f->lock);
	r = power_file_write(f, buf, n, (uint64_t)off);
	changed(f, last);
	return result(r);
}

static ssize_t vector(int fd, const struct iovec *iov, int count, off_t off, bool write)
{
	ssize_t done = 0;

	for (int i = 0; i < count; i++) {
		ssize_t n = write ? p_pwrite(fd, iov[i].iov_base, iov[i].iov_len, off + done)
				  : p_pread(fd, iov[i].iov_base, iov[i].iov_len, off + done);

		if (n < 0)
			return n;
		done += n;
		if ((size_t)n < iov[i].iov_len)
			break;
	}
	return done;
}

BOTH(ssize_t, p_preadv, "preadv", (int fd, const struct iovec *iov, int count, off_t off), (fd, iov, count, off))
{
	return file_of(fd) ? vector(fd, iov, count, off, false)
			   : syscall(SYS_preadv, fd, iov, count, (long)off, 0L);
}

BOTH(ssize_t, p_pwritev, "pwritev", (int fd, const struct iovec *iov, int count, off_t off), (fd, iov, count, off))
{
	return file_of(fd) ? vector(fd, iov, count, off, true)
			   : syscall(SYS_pwritev, fd, iov, count, (long)off, 0L);
}

/* What fortified programs call. */
ssize_t p_pread_chk(int fd, void *buf, size_t n, off_t off, size_t room) STANDS_FOR("__pread_chk");
ssize_t p_pread_chk(int fd, void *buf, size_t n, off_t off, size_t room)
{
	return n <= room ? p_pread(fd, buf, n, off) : (abort(), -1);
}

ssize_t p_pread64_chk(int fd, void *buf, size_t n, off_t off, size_t room) STANDS_FOR("__pread64_chk");
ssize_t p_pread64_chk(int fd, void *buf, size_t n, off_t off, size_t room)
{
	return p_pread_chk(fd, buf, n, off, room);
}

int p_open_2(const char *path, int flags) STANDS_FOR("__open_2");
int p_open_2(const char *path, int flags)
{
	return open_any(AT_FDCWD, path, flags, 0);
}

int p_open64_2(const char *path, int flags) STANDS_FOR("__open64_2");
int p_open64_2(const char *path, int flags)
{
	return open_any(AT_FDCWD, path, flags, 0);
}

/* read and write at the descriptor's own position, which the kernel keeps for us */
ssize_t p_read(int fd, void *buf, size_t n) STANDS_FOR("read");
ssize_t p_read(int fd, void *buf, size_t n)
{
	ssize_t r;

	if (!file_of(fd))
		return syscall(SYS_read, fd, buf, n);
	r = p_pread(fd, buf, n, syscall(SYS_lseek, fd, 0, SEEK_CUR));
	if (r > 0)
		syscall(SYS_lseek, fd, r, SEEK_CUR);
	return r;
}

ssize_t p_write(int fd, const void *buf, size_t n) STANDS_FOR("write");
ssize_t p_write(int fd, const void *buf, size_t n)
{
	ssize_t r;

	if (!file_of(fd))
		return syscall(SYS_write, fd, buf, n);
	r = p_pwrite(fd, buf, n, syscall(SYS_lseek, fd, 0, SEEK_CUR));
	if (r > 0)
		syscall(SYS_lseek, fd, r, SEEK_CUR);
	return r;
}

BOTH(off_t, p_lseek, "lseek", (int fd, off_t off, int whence), (fd, off, whence))
{
	struct power_file *f = file_of(fd);
	off_t r;

	if (!f || whence == SEEK_SET || whence == SEEK_CUR)
		return syscall(SYS_lseek, fd, off, whence);
	pthread_mutex_lock(&f->lock);
	r = whence == SEEK_END ? (off_t)f->size + off : power_file_seek(f, off, whence);
	pthread_mutex_unlock(&f->lock);
	if (r < 0)
		return failed((int)-r);
	return syscall(SYS_lseek, fd, r, SEEK_SET);
}

BOTH(int, p_fallocate, "fallocate", (int fd, int mode, off_t off, off_t len), (fd, mode, off, len))
{
	struct power_file *f = file_of(fd);
	uint64_t end = (uint64_t)off + (uint64_t)len;
	bool last;

	if (!f)
		return (int)syscall(SYS_fallocate, fd, mode, off, len);
	if (off < 0 || len <= 0)
		return failed(EINVAL);
	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return failed(EOPNOTSUPP);
	last = counted();
	pthread_mutex_lock(&f->lock);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > f->size)
		f->size = end;
	end = end < f->size ? end : f->size; /* pages behind the end have no content */
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && end > (uint64_t)off)
		power_file_zero(f, (uint64_t)off, end - (uint64_t)off);
	changed(f, last);
	return 0;
}

BOTH(int, p_posix_fallocate, "posix_fallocate", (int fd, off_t off, off_t len), (fd, off, len))
{
	return p_fallocate(fd, 0, off, len) < 0 ? errno : 0;
}

BOTH(int, p_ftruncate, "ftruncate", (int fd, off_t size), (fd, size))
{
	struct power_file *f = file_of(fd);
	bool last;

	if (!f)
		return (int)syscall(SYS_ftruncate, fd, size);
	if (size < 0)
		return failed(EINVAL);
	last = counted();
	pthread_mutex_lock(&f->lock);
	power_file_truncate(f, (uint64_t)size);
	changed(f, last);
	return 0;
}

/* ---- stable storage ---- */

static int sync_names(void)
{
	bool last = counted();

	if (last)
		power_lost();
	pthread_mutex_lock(&names);
	power_name_settle(SIZE_MAX);
	pthread_mutex_unlock(&names);
	return 0;
}

static int sync_file(struct power_file *f)
{
	bool last = counted();

	if (slow_us) {
		struct timespec ts = { 0, (long)power_random(slow_us) * 1000 };

		syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ts, NULL);
	}
	if (last && power_random(2))
		power_lost();
	pthread_mutex_lock(&f->lock);
	power_file_flush(f);
	pthread_mutex_unlock(&f->lock);
	if (last)
		power_lost();
	if (!power_random(4))
		sched_yield(); /* what is written now is not covered any more */
	return 0;
}

int p_fdatasync(int fd) STANDS_FOR("fdatasync");
int p_fsync(int fd) STANDS_FOR("fsync");
int p_fdatasync(int fd)
{
	return p_fsync(fd);
}

int p_fsync(int fd)
{
	struct power_file *f = file_of(fd);

	if (f)
		return sync_file(f);
	if (fd >= 0 && fd < FDS && fd_directory[fd])
		return sync_names();
	return (int)syscall(SYS_fsync, fd);
}

int p_sync_file_range(int fd, off_t off, off_t len, unsigned flags) STANDS_FOR("sync_file_range");
int p_sync_file_range(int fd, off_t off, off_t len, unsigned flags)
{
	struct power_file *f = file_of(fd);

	if (!f)
		return (int)syscall(SYS_sync_file_range, fd, off, len, flags);
	pthread_mutex_lock(&f->lock);
	power_file_leak(f, (unsigned)power_random(8));
	pthread_mutex_unlock(&f->lock);
	return 0;
}

/* ---- names ---- */

static int change_names(const char *from, const char *to)
{
	bool last = counted();
	int r;

	pthread_mutex_lock(&names);
	r = to ? power_name_rename(from, to) : power_name_unlink(from);
	if (!power_random(4))
		power_name_settle(1);
	pthread_mutex_unlock(&names);
	if (last)
		power_lost();
	return (int)result(r);
}

int p_rename(const char *from, const char *to) STANDS_FOR("rename");
int p_rename(const char *from, const char *to)
{
	char a[PATH_MAX], b[PATH_MAX];

	if (is_ours(from, a) && is_ours(to, b))
		return change_names(a, b);
	return (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}

int p_unlink(const char *path) STANDS_FOR("unlink");
int p_unlink(const char *path)
{
	char a[PATH_MAX];

	return is_ours(path, a) ? change_names(a, NULL) : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* ---- size and time ---- */

static void correct(struct stat *sb, struct power_file *f)
{
	pthread_mutex_lock(&f->lock);
	sb->st_size = (off_t)f->size;
	if (f->touched)
		sb->st_mtim = f->mtime;
	pthread_mutex_unlock(&f->lock);
}

BOTH(int, p_fstat, "fstat", (int fd, struct stat *sb), (fd, sb))
{
	int r = (int)syscall(SYS_fstat, fd, sb);

	if (!r && file_of(fd))
		correct(sb, file_of(fd));
	return r;
}

static int stat_any(const char *path, struct stat *sb, int flags)
{
	char absolute[PATH_MAX];
	const char *real = path;
	struct power_file *f = NULL;
	int r;

	if (!is_ours(path, absolute))
		return (int)syscall(SYS_newfstatat, AT_FDCWD, path, sb, flags);
	pthread_mutex_lock(&names);
	real = power_name_find(absolute);
	r = real ? (int)syscall(SYS_newfstatat, AT_FDCWD, real, sb, flags) : failed(ENOENT);
	if (!r)
		f = find_file(sb);
	pthread_mutex_unlock(&names);
	if (f)
		correct(sb, f);
	return r;
}

BOTH(int, p_stat, "stat", (const char *path, struct stat *sb), (path, sb))
{
	return stat_any(path, sb, 0);
}

BOTH(int, p_lstat, "lstat", (const char *path, struct stat *sb), (path, sb))
{
	return stat_any(path, sb, AT_SYMLINK_NOFOLLOW);
}

int p_access(const char *path, int mode) STANDS_FOR("access");
int p_access(const char *path, int mode)
{
	struct stat sb;
	char absolute[PATH_MAX];

	return is_ours(path, absolute) ? stat_any(path, &sb, 0) : (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
}

/* ---- what cannot be followed, and the orderly end ---- */

BOTH(void *, p_mmap, "mmap", (void *at, size_t n, int prot, int flags, int fd, off_t off),
     (at, n, prot, flags, fd, off))
{
	if (!(flags & MAP_ANONYMOUS) && file_of(fd)) {
		fprintf(stderr, "power: a doubled file was mapped, which cannot be followed\n");
		abort();
	}
	return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, off);
}

__attribute__((noreturn)) void p_exit(int status) STANDS_FOR("_exit");
void p_exit(int status)
{
	if (prefix_length)
		write_all_out();
	for (;;)
		syscall(SYS_exit_group, status);
}
