/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * bitmap.c - a set of 64 KiB blocks of a disk, in memory
 */
#include "disk/bitmap.h"

#include <errno.h>
#include <stdlib.h>

uint64_t bitmap_words(const struct bitmap *b)
{
	return (b->blocks + 63) / 64;
}

int bitmap_init(struct bitmap *b, uint64_t size)
{
	b->size = size;
	b->blocks = size / BITMAP_BLOCK + (size % BITMAP_BLOCK != 0);
	b->set = 0;
	b->words = calloc(bitmap_words(b) + 1, sizeof(*b->words));
	return b->words ? 0 : -ENOMEM;
}

void bitmap_free(struct bitmap *b)
{
	free(b->words);
	b->words = NULL;
}

static void note_block(struct bitmap *b, uint64_t block)
{
	uint64_t bit = 1ull << (block % 64);

	/* most writes hit a block already noted: spare them the locked operation */
	if (atomic_load(&b->words[block / 64]) & bit)
		return;
	if (!(atomic_fetch_or(&b->words[block / 64], bit) & bit))
		atomic_fetch_add(&b->set, 1);
}

void bitmap_note(struct bitmap *b, uint64_t offset, uint64_t length)
{
	if (!length)
		return;
	for (uint64_t i = offset / BITMAP_BLOCK; i <= (offset + length - 1) / BITMAP_BLOCK; i++)
		note_block(b, i);
}

bool bitmap_test(const struct bitmap *b, uint64_t block)
{
	return atomic_load(&b->words[block / 64]) >> (block % 64) & 1;
}

uint64_t bitmap_next(const struct bitmap *b, uint64_t block)
{
	while (block < b->blocks) {
		uint64_t rest = atomic_load(&b->words[block / 64]) >> (block % 64);

		if (rest)
			return block + (uint64_t)__builtin_ctzll(rest);
		block = (block / 64 + 1) * 64;
	}
	return b->blocks;
}

void bitmap_or(struct bitmap *b, uint64_t word, uint64_t bits)
{
	uint64_t old, rest = b->blocks - word * 64;

	if (rest < 64)
		bits &= (1ull << rest) - 1;
	if (!bits)
		return;
	old = atomic_fetch_or(&b->words[word], bits);
	atomic_fetch_add(&b->set, (uint64_t)__builtin_popcountll(bits & ~old));
}

uint64_t bitmap_word(const struct bitmap *b, uint64_t word)
{
	return atomic_load(&b->words[word]);
}

uint64_t bitmap_take(struct bitmap *b, uint64_t word)
{
	uint64_t old = atomic_load(&b->words[word]);

	if (!old)
		return 0;
	old = atomic_exchange(&b->words[word], 0);
	atomic_fetch_sub(&b->set, (uint64_t)__builtin_popcountll(old));
	return old;
}

int bitmap_copy(struct bitmap *dst, const struct bitmap *src)
{
	int r = bitmap_init(dst, src->size);

	if (r)
		return r;
	for (uint64_t i = 0; i < bitmap_words(src); i++) {
		uint64_t w = atomic_load(&src->words[i]);

		dst->words[i] = w;
		dst->set += (uint64_t)__builtin_popcountll(w);
	}
	return 0;
}

uint64_t bitmap_bytes(const struct bitmap *b)
{
	return atomic_load(&b->set) * BITMAP_BLOCK;
}
