/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * storage_file.c - storage in a raw file or a block device, through the page cache
 */
#include "disk/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/fdio.h"

#define ZERO_CHUNK 65536u

static int file_read(struct storage *st, void *buf, size_t len, uint64_t off)
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

static int file_write(struct storage *st, const void *buf, size_t len, uint64_t off)
{
	return fdio_write(st->fd, buf, len, off);
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

static int write_zeroes(struct storage *st, uint64_t len, uint64_t off)
{
	static const char zeroes[ZERO_CHUNK];
	int r = 0;

	while (len && !r) {
		size_t n = len < ZERO_CHUNK ? (size_t)len : ZERO_CHUNK;

		r = file_write(st, zeroes, n, off);
		off += n;
		len -= n;
	}
	return r;
}

/* Whole sectors of a device, anything of a file. */
static int zero_sectors(struct storage *st, uint64_t len, uint64_t off, bool punch)
{
	int r = -EOPNOTSUPP;

	if (punch)
		r = try_fallocate(st->fd, FALLOC_FL_PUNCH_HOLE, len, off, &st->no_punch);
	if (r)
		r = try_fallocate(st->fd, FALLOC_FL_ZERO_RANGE, len, off, &st->no_zero_range);
	return r ? write_zeroes(st, len, off) : 0; /* a real fault shows again here */
}

static int file_zero(struct storage *st, uint64_t len, uint64_t off, bool punch)
{
	uint64_t head = (st->sector - off % st->sector) % st->sector, tail;
	int r;

	if (len < head + st->sector)
		return write_zeroes(st, len, off);
	tail = (off + len) % st->sector;
	r = write_zeroes(st, head, off);
	if (!r)
		r = zero_sectors(st, len - head - tail, off + head, punch);
	return r ? r : write_zeroes(st, tail, off + len - tail);
}

static int file_sync(struct storage *st)
{
	return fdatasync(st->fd) < 0 ? -errno : 0;
}

static void file_start_writeout(struct storage *st)
{
	/* only a head start for the flush that follows, which reports the errors */
	(void)sync_file_range(st->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* What is not there any more is no hole: reading it is an error. */
static bool cut_short(struct storage *st)
{
	struct stat sb;

	return fstat(st->fd, &sb) < 0 || (S_ISREG(sb.st_mode) && (uint64_t)sb.st_size < st->size);
}

static uint64_t file_seek(struct storage *st, uint64_t off, uint64_t stop, bool data)
{
	off_t at = lseek(st->fd, (off_t)off, data ? SEEK_DATA : SEEK_HOLE);

	if (at < 0 && errno == ENXIO && !cut_short(st))
		return stop; /* nothing but a hole from off on */
	if (at < 0)
		return data ? off : stop;
	return (uint64_t)at < stop ? (uint64_t)at : stop;
}

static void file_close(struct storage *st)
{
	if (st->fd >= 0)
		close(st->fd);
	st->fd = -1;
}

static const struct storage_ops file_ops = {
	.read = file_read,
	.write = file_write,
	.zero = file_zero,
	.sync = file_sync,
	.start_writeout = file_start_writeout,
	.seek = file_seek,
	.close = file_close,
};

static int find_size(struct storage *st, char *why, size_t n)
{
	struct stat sb;
	int sector;

	if (fstat(st->fd, &sb) < 0)
		return -errno;
	if (S_ISREG(sb.st_mode)) {
		st->size = (uint64_t)sb.st_size;
		return 0;
	}
	if (!S_ISBLK(sb.st_mode)) {
		snprintf(why, n, "is neither a regular file nor a block device");
		return -EINVAL;
	}
	if (ioctl(st->fd, BLKGETSIZE64, &st->size) < 0 || ioctl(st->fd, BLKSSZGET, &sector) < 0)
		return -errno;
	st->sector = sector > 0 ? (uint32_t)sector : 512;
	return 0;
}

/* Two writers ruin a disk at once: the same kind of lock QEMU takes, so that it is noticed as well. */
static int lock_file(int fd, bool read_only, char *why, size_t n)
{
	struct flock fl = { .l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return 0; /* a file system without locks */
	snprintf(why, n, "is in use by another process");
	return -EBUSY;
}

int storage_file_open(struct storage *st, const char *path, bool read_only, char *why, size_t why_size)
{
	struct stat sb;
	/* a device that is mounted, or part of another, is in use, whatever its locks say */
	int exclusive = !read_only && stat(path, &sb) == 0 && S_ISBLK(sb.st_mode) ? O_EXCL : 0;
	int r;

	st->ops = &file_ops;
	st->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | exclusive | O_CLOEXEC);
	if (st->fd < 0 && errno == EBUSY)
		snprintf(why, why_size, "is in use: mounted, or part of another device");
	r = st->fd < 0 ? -errno : find_size(st, why, why_size);
	return r ? r : lock_file(st->fd, read_only, why, why_size);
}
