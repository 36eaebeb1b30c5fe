/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * framelog.h - the last frames of a direction, bounded in bytes; the oldest go first
 */
#ifndef COLO_FRAMELOG_H
#define COLO_FRAMELOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct framelog {
	uint8_t *data;
	size_t size, head, tail, end;
	bool wrapped;
};

typedef void framelog_fn(void *arg, uint64_t number, uint64_t when_us, const uint8_t *frame, size_t len);

int framelog_init(struct framelog *l, size_t bytes); /* 0 or -ENOMEM */
void framelog_free(struct framelog *l);
void framelog_clear(struct framelog *l);
void framelog_add(struct framelog *l, uint64_t number, uint64_t when_us, const uint8_t *frame, size_t len);
/* oldest first */
void framelog_each(const struct framelog *l, framelog_fn *fn, void *arg);

#endif
