/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hash.c - hashes of blocks and of their parts, as two disk managers compare them
 *
 * The seed is random and new with each link, so that no guest can write two blocks that look the same.
 */
#include "disk/hash.h"

#include <string.h>

#include "disk/xxh.h"

void hash_block(uint64_t seed, const void *data, size_t len, unsigned char hash[DISK_HASH_BYTES])
{
	XXH128_canonical_t c;

	XXH128_canonicalFromHash(&c, XXH3_128bits_withSeed(data, len, seed));
	_Static_assert(sizeof(c.digest) == DISK_HASH_BYTES, "XXH128");
	memcpy(hash, c.digest, DISK_HASH_BYTES);
}

unsigned hash_parts(uint64_t seed, const void *data, size_t len, uint64_t parts[DISK_HASH_PARTS])
{
	const char *p = data;
	unsigned n = 0;

	for (size_t at = 0; at < len; at += DISK_HASH_PART) {
		size_t part = len - at < DISK_HASH_PART ? len - at : DISK_HASH_PART;

		parts[n++] = XXH3_64bits_withSeed(p + at, part, seed);
	}
	return n;
}

bool hash_all_zero(const void *data, size_t len)
{
	const char *p = data;

	return !p[0] && !memcmp(p, p + 1, len - 1);
}
