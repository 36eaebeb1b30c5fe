/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * meta_file.h - layout of DIR/NAME.meta, for meta.c and its tests
 *
 * Host byte order; the magic tells. Each part is sealed with a hash, so that what was written in part is
 * seen: a header has a twin, and of a sector of the maps all bits then count as set.
 *
 *   0       header, written when its sequence number is even
 *   4096    header, odd
 *   8192    coarse map: sectors of 512 bytes, one bit per region
 *   then    fine map: sectors of 512 bytes, one bit per block, one word (64 blocks of 64 KiB) per region
 */
#ifndef COLO_DISK_META_FILE_H
#define COLO_DISK_META_FILE_H

#include <stdint.h>

#include "disk/meta.h"

#define META_MAGIC 0x316174656d6f6c63ull /* "clometa1" on a little-endian host */
#define META_VERSION 1u
#define META_HEADER 4096u
#define META_SECTOR 512u
#define META_WORDS 63u                  /* of a sector, beside its hash */
#define META_MAPS (2 * META_HEADER)     /* where the maps begin */

struct meta_header {
	uint64_t hash;     /* XXH3 of the rest */
	uint64_t magic;
	uint32_t version;
	uint32_t bytes;    /* sizeof(struct meta_header) */
	uint64_t sequence;
	struct meta_state state;
};

struct meta_sector {
	uint64_t hash;     /* XXH3 of the words, seed: the sector's offset in the file */
	uint64_t words[META_WORDS];
};
_Static_assert(sizeof(struct meta_sector) == META_SECTOR, "sector layout");

#endif
