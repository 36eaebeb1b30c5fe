/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * framelog.c - see framelog.h
 */
#include "daemon/framelog.h"

#include <string.h>

struct entry {
	uint64_t number, when_us;
	uint64_t len;
};

int framelog_init(struct framelog *l, size_t bytes)
{
	return buffer_init(&l->b, 2 * bytes);
}

void framelog_free(struct framelog *l)
{
	buffer_free(&l->b);
}

void framelog_clear(struct framelog *l)
{
	buffer_clear(&l->b);
}

void framelog_add(struct framelog *l, uint64_t number, uint64_t when_us, const uint8_t *frame, size_t len)
{
	struct entry e = { number, when_us, len }, old;

	if (sizeof(e) + len > l->b.size / 2)
		return;
	while (buffer_len(&l->b) + sizeof(e) + len > l->b.size / 2) {
		memcpy(&old, buffer_peek(&l->b), sizeof(old));
		buffer_skip(&l->b, sizeof(old) + old.len);
	}
	buffer_put(&l->b, &e, sizeof(e));
	buffer_put(&l->b, frame, len);
}

void framelog_each(const struct framelog *l, framelog_fn *fn, void *arg)
{
	const uint8_t *p = buffer_peek(&l->b), *end = p + buffer_len(&l->b);
	struct entry e;

	while (p < end) {
		memcpy(&e, p, sizeof(e));
		fn(arg, e.number, e.when_us, p + sizeof(e), e.len);
		p += sizeof(e) + e.len;
	}
}
