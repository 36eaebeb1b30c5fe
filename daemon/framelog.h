/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * framelog.h - the last frames of a direction, bounded in bytes; the oldest go first
 */
#ifndef COLO_FRAMELOG_H
#define COLO_FRAMELOG_H

#include "common/buffer.h"

struct framelog {
	struct buffer b; /* used to a half, so that moving the content costs a byte for a byte */
};

typedef void framelog_fn(void *arg, uint64_t number, uint64_t when_us, const uint8_t *frame, size_t len);

int framelog_init(struct framelog *l, size_t bytes); /* 0 or -ENOMEM */
void framelog_free(struct framelog *l);
void framelog_clear(struct framelog *l);
void framelog_add(struct framelog *l, uint64_t number, uint64_t when_us, const uint8_t *frame, size_t len);
/* oldest first */
void framelog_each(const struct framelog *l, framelog_fn *fn, void *arg);

#endif
