/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_power.c - the storage double itself: reads see all, power loss takes what was not flushed and only that
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#undef NDEBUG
#include "power.h"

#define SIZE (5u << 20)
#define SECTORS (SIZE / POWER_SECTOR)

static char dir[] = "/tmp/colo-power-XXXXXX";
static char path[64], other[64];
static uint64_t seed;
static struct shared {
	uint32_t last[SECTORS], stable[SECTORS], version;
} *sh;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	printf("FAILED: %s; COLO_SEED=%llu\n", what, (unsigned long long)seed);
	fflush(stdout);
	_exit(1);
}

/* Runs fn in a process that ends as fn says, or by power loss. */
static void in_child(void (*fn)(int), int arg, bool loses)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		power_start(dir, seed + (uint64_t)arg);
		fn(arg);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	check(loses ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0, "end of the process");
}

static bool all_zero(const char *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

static void check_seek(int fd, const char *want, size_t size)
{
	off_t off = (off_t)power_random(size), data = lseek(fd, off, SEEK_DATA), hole = lseek(fd, off, SEEK_HOLE);

	if (data < 0)
		check(errno == ENXIO && all_zero(want + off, size - (size_t)off), "SEEK_DATA finds nothing");
	else
		check(data >= off && all_zero(want + off, (size_t)(data - off)), "SEEK_DATA skips zeroes only");
	check(hole >= off && (size_t)hole <= size, "SEEK_HOLE");
	check((size_t)hole == size || all_zero(want + hole, 1), "a hole reads as zeroes");
}

/* Any operation; `want` is what the file holds. */
static void change(int fd, char *want, size_t *size)
{
	uint64_t off = power_random(SIZE - 200000), len = power_random(power_random(3) ? 200000 : 5000) + 1;
	static char buf[200001];

	switch (power_random(8)) {
	case 0:
		len = power_random(3) ? len : SIZE - off;
		check(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0, "punch");
		memset(want + off, 0, len);
		break;
	case 1:
		if (power_random(8))
			break;
		*size = power_random(2) ? SIZE : SIZE - power_random(100000);
		check(ftruncate(fd, (off_t)*size) == 0, "ftruncate");
		memset(want + *size, 0, SIZE - *size);
		break;
	case 2:
		check(power_random(4) || fdatasync(fd) == 0, "fdatasync");
		break;
	default:
		memset(buf, (int)power_random(255) + 1, len);
		check(pwrite(fd, buf, len, (off_t)off) == (ssize_t)len, "pwrite");
		memcpy(want + off, buf, len);
		*size = off + len > *size ? off + len : *size;
	}
}

static void reads_see_all(int arg)
{
	char *want = calloc(1, SIZE), *got = malloc(SIZE);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), again;
	struct stat sb;
	size_t size = SIZE;

	check(ftruncate(fd, SIZE) == 0, "ftruncate");
	for (int i = 0; i < 400; i++) {
		change(fd, want, &size);
		check_seek(fd, want, size);
		if (i % 8)
			continue;
		again = open(path, O_RDONLY | O_CLOEXEC);
		check(fstat(again, &sb) == 0 && (size_t)sb.st_size == size, "size");
		check(pread(again, got, SIZE, 0) == (ssize_t)size && !memcmp(got, want, size), "content");
		close(again);
	}
	_exit(0);
}

static void write_versions(int arg)
{
	static char buf[64 * POWER_SECTOR];
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	power_cut_after(power_random(300) + 1);
	for (;;) {
		uint32_t version = ++sh->version;
		unsigned first = (unsigned)power_random(SECTORS - 64), n = (unsigned)power_random(64) + 1;

		if (!power_random(20)) {
			check(fdatasync(fd) == 0, "fdatasync");
			memcpy(sh->stable, sh->last, sizeof(sh->last));
			continue;
		}
		for (unsigned i = 0; i < n; i++) {
			memcpy(buf + i * POWER_SECTOR, &version, sizeof(version));
			memcpy(buf + (i + 1) * POWER_SECTOR - 4, &version, sizeof(version));
			sh->last[first + i] = version;
		}
		check(pwrite(fd, buf, n * POWER_SECTOR, (off_t)first * POWER_SECTOR) > 0, "pwrite");
	}
}

/* Sectors whose last write was lost; fails if one that was flushed was, or is torn. */
static unsigned lost_sectors(void)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned lost = 0;

	for (unsigned i = 0; i < SECTORS; i++) {
		uint32_t v[POWER_SECTOR / 4];

		check(pread(fd, v, sizeof(v), (off_t)i * POWER_SECTOR) == sizeof(v), "pread");
		check(v[0] == v[POWER_SECTOR / 4 - 1], "a sector is whole");
		check(v[0] >= sh->stable[i] && v[0] <= sh->last[i], "what was flushed is there");
		lost += v[0] != sh->last[i];
		sh->last[i] = sh->stable[i] = v[0];
	}
	close(fd);
	return lost;
}

static void make_file(int arg)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), d = open(dir, O_RDONLY | O_DIRECTORY);

	check(fd >= 0 && write(fd, "new", 3) == 3 && fdatasync(fd) == 0, "a new file");
	check(access(path, F_OK) == 0, "its name is seen");
	if (arg & 1)
		check(fsync(d) == 0, "fsync of the directory");
	power_cut_after(1);
	unlink(other);
}

static void rename_file(int arg)
{
	int fd = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct stat sb;

	check(fd >= 0 && write(fd, "newer", 5) == 5 && fdatasync(fd) == 0, "a file");
	check(rename(other, path) == 0 && stat(path, &sb) == 0 && sb.st_size == 5, "its new name is seen");
	check(access(other, F_OK) < 0, "its old one is not");
	power_cut_after(1);
	pwrite(fd, "", 0, 0);
}

static void test_names(void)
{
	unsigned absent = 0, newer = 0;
	struct stat sb;

	for (int i = 0; i < 60; i++) {
		unlink(path);
		in_child(make_file, i, true);
		check(!(i & 1) || access(path, F_OK) == 0, "the name was made stable");
		absent += access(path, F_OK) < 0;
		if (access(path, F_OK) < 0)
			continue;
		in_child(rename_file, i, true);
		check(stat(path, &sb) == 0 && (sb.st_size == 3 || sb.st_size == 5), "the old file or the new one");
		newer += sb.st_size == 5;
	}
	check(absent && newer, "names are lost, and are not");
}

int main(void)
{
	const char *given = getenv("COLO_SEED");
	unsigned lost = 0;

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 16 | (uint64_t)getpid();
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	check(mkdtemp(dir) != NULL, "mkdtemp");
	snprintf(path, sizeof(path), "%s/file", dir);
	snprintf(other, sizeof(other), "%s/other", dir);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 10; i++) {
		in_child(reads_see_all, i, false);
		unlink(path);
	}
	check(truncate(path, 0) < 0, "gone");
	close(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	check(truncate(path, SIZE) == 0, "truncate");
	for (int i = 0; i < 60; i++) {
		in_child(write_versions, i, true);
		lost += lost_sectors();
	}
	check(lost > 1000, "power loss loses something");
	test_names();
	power_name_clean(dir); /* as the next start does */
	unlink(path);
	unlink(other);
	check(rmdir(dir) == 0, "nothing is left behind");
	return 0;
}
