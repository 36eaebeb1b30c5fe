/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hash.h - one number for all of guest RAM, for tests
 */
#ifndef COLO_AGENT_HASH_H
#define COLO_AGENT_HASH_H

#include "ram.h"
#include "util.h"

/* VM stopped. Equal RAM gives equal hashes on both hosts, whether or not zero pages are mapped. */
int hash_ram(const struct ram *ram, uint64_t *hash, struct errtext *err);

/* one page at a place; 0 if the page is all zero */
uint64_t hash_page(const uint8_t *page, uint32_t block, uint64_t offset);

#endif
