/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * bitmap.h - a set of 64 KiB blocks of a disk, in memory
 *
 * Noting is safe from any thread without a lock. A word holds 64 blocks, which is a region of meta.h.
 */
#ifndef COLO_DISK_BITMAP_H
#define COLO_DISK_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define BITMAP_BLOCK 65536u

struct bitmap {
	uint64_t size;   /* of the disk, bytes */
	uint64_t blocks; /* the last one may be short */
	_Atomic uint64_t *words;
	_Atomic uint64_t set;
};

/* 0 or -ENOMEM */
int bitmap_init(struct bitmap *b, uint64_t size);
void bitmap_free(struct bitmap *b);
void bitmap_note(struct bitmap *b, uint64_t offset, uint64_t length);
bool bitmap_test(const struct bitmap *b, uint64_t block);
/* First set block at or after `block`; b->blocks when there is none. */
uint64_t bitmap_next(const struct bitmap *b, uint64_t block);
/* 64 blocks at once: those of word `word`. Bits beyond the disk's end are ignored. */
void bitmap_or(struct bitmap *b, uint64_t word, uint64_t bits);
uint64_t bitmap_word(const struct bitmap *b, uint64_t word);
/* Takes these bits out and returns them. */
uint64_t bitmap_take(struct bitmap *b, uint64_t word);
uint64_t bitmap_words(const struct bitmap *b);
/* dst gets what is set in src now; dst must not be initialised. 0 or -ENOMEM. */
int bitmap_copy(struct bitmap *dst, const struct bitmap *src);
/* Bytes of the disk in set blocks, the last block counted whole. */
uint64_t bitmap_bytes(const struct bitmap *b);

#endif
