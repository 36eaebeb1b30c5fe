/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * storage.h - the disk itself: a raw file, a block device, or a qcow2 image by way of qemu-nbd
 *
 * All functions are safe from any thread and return 0 or -errno unless said otherwise. Offsets must lie
 * within the disk.
 */
#ifndef COLO_DISK_STORAGE_H
#define COLO_DISK_STORAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct storage;

/* What a backend does (storage_file.c, storage_nbd.c); the functions below add what all have in common. */
struct storage_ops {
	int (*read)(struct storage *st, void *buf, size_t len, uint64_t off);
	int (*write)(struct storage *st, const void *buf, size_t len, uint64_t off);
	int (*zero)(struct storage *st, uint64_t len, uint64_t off, bool punch);
	int (*sync)(struct storage *st);
	void (*start_writeout)(struct storage *st);
	/* First place in [off, stop) that may hold data, or that is known to be zero; stop when there is none.
	 * What it cannot tell is data. */
	uint64_t (*seek)(struct storage *st, uint64_t off, uint64_t stop, bool data);
	void (*close)(struct storage *st);
};

struct storage {
	const struct storage_ops *ops;
	uint64_t size;
	int fd;                 /* file, block device; else -1 */
	uint32_t sector;        /* block device: what its own zeroing must be aligned to; else 1 */
	atomic_bool no_punch, no_zero_range; /* learnt: the file system cannot */
	struct storage_nbd *nbd;
	_Atomic uint64_t changes; /* completed writes */
	pthread_mutex_t flush_lock; /* guards what follows, held during a sync */
	uint64_t stable; /* this many of the changes are on stable storage */
	int broken;      /* a failed sync: what it covered may be lost, for ever */
};

/* format: "raw", "qcow2", or NULL: raw, but what looks like a qcow2 image is refused. On failure `why` says what
 * was wrong, for a person. To be called from a thread that lives as long as the storage is open. */
int storage_open(struct storage *st, const char *path, const char *format, bool read_only, char *why,
		 size_t why_size);
void storage_close(struct storage *st);
int storage_read(struct storage *st, void *buf, size_t len, uint64_t off);
int storage_write(struct storage *st, const void *buf, size_t len, uint64_t off);
/* The range reads as zeroes afterwards; `punch` asks to give the space back. */
int storage_zero(struct storage *st, uint64_t len, uint64_t off, bool punch);
/* Everything completed before the call is on stable storage afterwards. */
int storage_flush(struct storage *st);
/* As this, of the writes that were completed when st->changes was `changes`. */
int storage_flush_upto(struct storage *st, uint64_t changes);
/* Begin to write dirty pages out, without waiting. */
void storage_start_writeout(struct storage *st);
/* First place at or after off that may hold anything but zeroes; the size when there is none. */
uint64_t storage_next_data(struct storage *st, uint64_t off);
/* First place after off that is known to be zero (a hole); the size when there is none. */
uint64_t storage_next_hole(struct storage *st, uint64_t off);
/* How many bytes from off on, up to max, are known to be zeroes without being read. Never too many; 0 if that
 * cannot be told. */
uint64_t storage_hole(struct storage *st, uint64_t off, uint64_t max);
/* As storage_read(), without reading holes, which would only fill the page cache with zeroes. */
int storage_read_sparse(struct storage *st, void *buf, size_t len, uint64_t off);
/* When the file at path was written last; 0: unknown, or a block device. Also for an image that was closed. */
uint64_t storage_mtime_ns(const char *path);

/* The backends' part of storage_open(). */
int storage_file_open(struct storage *st, const char *path, bool read_only, char *why, size_t why_size);
int storage_nbd_open(struct storage *st, const char *path, bool read_only, char *why, size_t why_size);

#endif
