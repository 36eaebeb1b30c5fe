/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * storage.c - the disk itself: a raw file or a block device, through the page cache
 *
 * Flushes are shared: one fdatasync covers every write completed before it began, so threads that
 * waited for it find nothing left to do, and a flush with nothing written since the last costs nothing
 * (QEMU flushes at every vm_stop, that is, at every checkpoint).
 *
 * After a failed fdatasync the kernel may have dropped the pages and would report success next time.
 * That would be a lie to the guest, so the failure is remembered and every later flush fails, too.
 */
#include "disk/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZERO_CHUNK 65536u

static int find_size(int fd, uint64_t *size, char *why, size_t n)
{
	struct stat sb;

	if (fstat(fd, &sb) < 0)
		return -errno;
	if (S_ISREG(sb.st_mode)) {
		*size = (uint64_t)sb.st_size;
	} else if (S_ISBLK(sb.st_mode)) {
		if (ioctl(fd, BLKGETSIZE64, size) < 0)
			return -errno;
	} else {
		snprintf(why, n, "is neither a regular file nor a block device");
		return -EINVAL;
	}
	if (*size && *size % 512 == 0)
		return 0;
	snprintf(why, n, "has %llu bytes; a disk needs a multiple of 512, at least one",
		 (unsigned long long)*size);
	return -EINVAL;
}

/* Two writers ruin a disk at once: the same kind of lock QEMU takes, so that it is noticed as well. */
static int lock_file(int fd, char *why, size_t n)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return 0; /* a file system without locks */
	snprintf(why, n, "is in use by another process");
	return -EBUSY;
}

int storage_open(struct storage *st, const char *path, char *why, size_t why_size)
{
	int r;

	*st = (struct storage){ .fd = -1 };
	why[0] = 0;
	pthread_mutex_init(&st->flush_lock, NULL);
	st->fd = open(path, O_RDWR | O_CLOEXEC);
	r = st->fd < 0 ? -errno : find_size(st->fd, &st->size, why, why_size);
	if (!r)
		r = lock_file(st->fd, why, why_size);
	if (r && !why[0])
		snprintf(why, why_size, "cannot be opened: %s", strerrordesc_np(-r));
	if (r)
		storage_close(st);
	return r;
}

void storage_close(struct storage *st)
{
	if (st->fd >= 0)
		close(st->fd);
	st->fd = -1;
	pthread_mutex_destroy(&st->flush_lock);
}

int storage_read(struct storage *st, void *buf, size_t len, uint64_t off)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(st->fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO; /* somebody cut the file short */
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_all(int fd, const char *p, size_t len, uint64_t off)
{
	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int storage_write(struct storage *st, const void *buf, size_t len, uint64_t off)
{
	int r = write_all(st->fd, buf, len, off);

	/* counted even if it failed: part of it may have been written */
	atomic_fetch_add(&st->changes, 1);
	return r;
}

static int try_fallocate(int fd, int mode, uint64_t len, uint64_t off, atomic_bool *cannot)
{
	int r;

	if (atomic_load(cannot))
		return -EOPNOTSUPP;
	do {
		r = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
	} while (r < 0 && errno == EINTR);
	if (!r)
		return 0;
	if (errno == EOPNOTSUPP || errno == ENODEV || errno == ENOSYS)
		atomic_store(cannot, true);
	return -errno;
}

static int write_zeroes(int fd, uint64_t len, uint64_t off)
{
	static const char zeroes[ZERO_CHUNK];
	int r = 0;

	while (len && !r) {
		size_t n = len < ZERO_CHUNK ? (size_t)len : ZERO_CHUNK;

		r = write_all(fd, zeroes, n, off);
		off += n;
		len -= n;
	}
	return r;
}

int storage_zero(struct storage *st, uint64_t len, uint64_t off, bool punch)
{
	int r = -EOPNOTSUPP;

	if (punch)
		r = try_fallocate(st->fd, FALLOC_FL_PUNCH_HOLE, len, off, &st->no_punch);
	if (r)
		r = try_fallocate(st->fd, FALLOC_FL_ZERO_RANGE, len, off, &st->no_zero_range);
	if (r) /* also what a device refuses for alignment; a real fault shows again here */
		r = write_zeroes(st->fd, len, off);
	atomic_fetch_add(&st->changes, 1);
	return r;
}

uint64_t storage_hole(struct storage *st, uint64_t off, uint64_t max)
{
	off_t data = lseek(st->fd, (off_t)off, SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? max : 0; /* nothing but a hole; or cannot tell */
	return (uint64_t)data - off < max ? (uint64_t)data - off : max;
}

int storage_flush(struct storage *st)
{
	uint64_t want = atomic_load(&st->changes), seen;
	int r;

	pthread_mutex_lock(&st->flush_lock);
	if (!st->broken && st->stable < want) {
		seen = atomic_load(&st->changes);
		if (fdatasync(st->fd) < 0)
			st->broken = -errno;
		else
			st->stable = seen;
	}
	r = st->broken;
	pthread_mutex_unlock(&st->flush_lock);
	return r;
}

void storage_start_writeout(struct storage *st)
{
	/* only a head start for the flush that follows, which reports the errors */
	(void)sync_file_range(st->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}
