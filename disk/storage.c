/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * storage.c - the disk itself: what its backends have in common
 *
 * Flushes are shared: one sync covers every write completed before it began, so threads that waited for
 * it find nothing left to do, and a flush with nothing written since the last costs nothing (QEMU
 * flushes at every vm_stop, that is, at every checkpoint).
 *
 * After a failed sync the kernel may have dropped the pages and would report success next time. That would be
 * a lie to the guest, so the failure is remembered and every later flush fails, too.
 */
#include "disk/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define QCOW2_MAGIC "QFI\xfb"

/* A qcow2 image taken for raw would show the guest the image's innards, and be ruined by its writes. */
static int refuse_qcow2(const char *path, char *why, size_t n)
{
	char magic[4] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? 0 : pread(fd, magic, sizeof(magic), 0);

	if (fd >= 0)
		close(fd);
	if (got != sizeof(magic) || memcmp(magic, QCOW2_MAGIC, sizeof(magic)))
		return 0; /* what else is wrong with it, opening it will tell */
	snprintf(why, n, "begins like a qcow2 image: say format=qcow2, or format=raw if its bytes are to be "
		 "used as they are");
	return -EINVAL;
}

static int open_as(struct storage *st, const char *path, const char *format, bool read_only, char *why,
		   size_t n)
{
	int r = 0;

	if (format && !strcmp(format, "qcow2"))
		return storage_nbd_open(st, path, read_only, why, n);
	if (format && strcmp(format, "raw")) {
		snprintf(why, n, "format=%s is neither raw nor qcow2", format);
		return -EINVAL;
	}
	if (!format)
		r = refuse_qcow2(path, why, n);
	return r ? r : storage_file_open(st, path, read_only, why, n);
}

int storage_open(struct storage *st, const char *path, const char *format, bool read_only, char *why,
		 size_t why_size)
{
	int r;

	*st = (struct storage){ .fd = -1, .sector = 1 };
	why[0] = 0;
	pthread_mutex_init(&st->flush_lock, NULL);
	r = open_as(st, path, format, read_only, why, why_size);
	if (!r && (!st->size || st->size % 512)) {
		snprintf(why, why_size, "has %llu bytes; a disk needs a multiple of 512, at least one",
			 (unsigned long long)st->size);
		r = -EINVAL;
	}
	if (r && !why[0])
		snprintf(why, why_size, "cannot be opened: %s", strerrordesc_np(-r));
	if (r)
		storage_close(st);
	return r;
}

void storage_close(struct storage *st)
{
	if (st->ops)
		st->ops->close(st);
	st->ops = NULL;
	pthread_mutex_destroy(&st->flush_lock);
}

int storage_read(struct storage *st, void *buf, size_t len, uint64_t off)
{
	return st->ops->read(st, buf, len, off);
}

int storage_write(struct storage *st, const void *buf, size_t len, uint64_t off)
{
	int r = st->ops->write(st, buf, len, off);

	/* counted even if it failed: part of it may have been written */
	atomic_fetch_add(&st->changes, 1);
	return r;
}

int storage_zero(struct storage *st, uint64_t len, uint64_t off, bool punch)
{
	int r = st->ops->zero(st, len, off, punch);

	atomic_fetch_add(&st->changes, 1);
	return r;
}

int storage_flush(struct storage *st)
{
	return storage_flush_upto(st, atomic_load(&st->changes));
}

int storage_flush_upto(struct storage *st, uint64_t want)
{
	uint64_t seen;
	int r;

	pthread_mutex_lock(&st->flush_lock);
	if (!st->broken && st->stable < want) {
		seen = atomic_load(&st->changes);
		st->broken = st->ops->sync(st);
		if (!st->broken)
			st->stable = seen;
	}
	r = st->broken;
	pthread_mutex_unlock(&st->flush_lock);
	return r;
}

void storage_start_writeout(struct storage *st)
{
	if (st->ops->start_writeout)
		st->ops->start_writeout(st);
}

uint64_t storage_next_data(struct storage *st, uint64_t off)
{
	return st->ops->seek(st, off, st->size, true);
}

uint64_t storage_next_hole(struct storage *st, uint64_t off)
{
	return st->ops->seek(st, off, st->size, false);
}

uint64_t storage_hole(struct storage *st, uint64_t off, uint64_t max)
{
	return st->ops->seek(st, off, off + max, true) - off;
}

int storage_read_sparse(struct storage *st, void *buf, size_t len, uint64_t off)
{
	char *p = buf;
	int r = 0;

	while (len && !r) {
		size_t n = (size_t)storage_hole(st, off, len);

		if (n) {
			memset(p, 0, n);
		} else {
			n = (size_t)(st->ops->seek(st, off, off + len, false) - off);
			n = n ? n : len; /* a hole just now: whoever makes one has its range locked, or no reader */
			r = storage_read(st, p, n, off);
		}
		p += n;
		off += n;
		len -= n;
	}
	return r;
}

uint64_t storage_mtime_ns(const char *path)
{
	struct stat sb;

	if (stat(path, &sb) < 0 || !S_ISREG(sb.st_mode))
		return 0;
	return (uint64_t)sb.st_mtim.tv_sec * 1000000000u + (uint64_t)sb.st_mtim.tv_nsec;
}
