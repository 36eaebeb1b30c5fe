/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hash.h - hashes of blocks and of their parts, as two disk managers compare them
 */
#ifndef COLO_DISK_HASH_H
#define COLO_DISK_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/disk_proto.h"

/* XXH128 of up to DISK_HASH_BLOCK bytes, big endian */
void hash_block(uint64_t seed, const void *data, size_t len, unsigned char hash[DISK_HASH_BYTES]);
/* XXH64 (XXH3) of each part, the last one may be short; how many there are. */
unsigned hash_parts(uint64_t seed, const void *data, size_t len, uint64_t parts[DISK_HASH_PARTS]);
static inline unsigned hash_part_count(uint32_t len)
{
	return (len + DISK_HASH_PART - 1) / DISK_HASH_PART;
}
bool hash_all_zero(const void *data, size_t len);

#endif
