/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * storage.h - the disk itself: a raw file or a block device
 *
 * All functions are safe from any thread and return 0 or -errno. Offsets must lie within the disk.
 */
#ifndef COLO_DISK_STORAGE_H
#define COLO_DISK_STORAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct storage {
	int fd;
	uint64_t size;
	atomic_bool no_punch, no_zero_range; /* learnt: the file system cannot */
	_Atomic uint64_t changes; /* completed writes */
	pthread_mutex_t flush_lock; /* guards what follows, held during fdatasync */
	uint64_t stable; /* this many of the changes are on stable storage */
	int broken;      /* a failed fdatasync: what it covered may be lost, for ever */
};

/* On failure `why` says what was wrong, for a person. */
int storage_open(struct storage *st, const char *path, char *why, size_t why_size);
void storage_close(struct storage *st);
int storage_read(struct storage *st, void *buf, size_t len, uint64_t off);
int storage_write(struct storage *st, const void *buf, size_t len, uint64_t off);
/* The range reads as zeroes afterwards; `punch` asks to give the space back. */
int storage_zero(struct storage *st, uint64_t len, uint64_t off, bool punch);
/* How many bytes from off on, up to max, are known to be zeroes without being read. Never too many; 0 if that
 * cannot be told. */
uint64_t storage_hole(struct storage *st, uint64_t off, uint64_t max);
/* Everything completed before the call is on stable storage afterwards. */
int storage_flush(struct storage *st);
/* Begin to write dirty pages out, without waiting. */
void storage_start_writeout(struct storage *st);

#endif
