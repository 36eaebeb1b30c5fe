/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * framelog.c - see framelog.h
 *
 * A ring of entries, each in one piece. While `wrapped` the oldest are [head, end), the newer ones [0, tail);
 * else all are [head, tail).
 */
#include "daemon/framelog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	uint64_t number, when_us;
	uint64_t len;
};

int framelog_init(struct framelog *l, size_t bytes)
{
	*l = (struct framelog){ .data = malloc(bytes), .size = bytes };
	return l->data ? 0 : -ENOMEM;
}

void framelog_free(struct framelog *l)
{
	free(l->data);
	*l = (struct framelog){ 0 };
}

void framelog_clear(struct framelog *l)
{
	l->head = l->tail = l->end = 0;
	l->wrapped = false;
}

static void drop_oldest(struct framelog *l)
{
	struct entry e;

	memcpy(&e, l->data + l->head, sizeof(e));
	l->head += sizeof(e) + e.len;
	if (l->wrapped && l->head == l->end) {
		l->head = 0;
		l->wrapped = false;
	}
}

/* n <= l->size */
static uint8_t *make_room(struct framelog *l, size_t n)
{
	if (!l->wrapped && l->size - l->tail < n) {
		l->end = l->tail;
		l->tail = 0;
		l->wrapped = l->head != l->end;
		l->head = l->wrapped ? l->head : 0;
	}
	while (l->wrapped && l->head - l->tail < n)
		drop_oldest(l);
	/* the last of the old ones may have made way; those from 0 on are younger, and end at tail */
	return l->wrapped || l->size - l->tail >= n ? l->data + l->tail : make_room(l, n);
}

void framelog_add(struct framelog *l, uint64_t number, uint64_t when_us, const uint8_t *frame, size_t len)
{
	struct entry e = { number, when_us, len };
	uint8_t *to;

	if (len > l->size || l->size - len < sizeof(e))
		return;
	to = make_room(l, sizeof(e) + len);
	memcpy(to, &e, sizeof(e));
	memcpy(to + sizeof(e), frame, len);
	l->tail += sizeof(e) + len;
}

static void each_in(const struct framelog *l, size_t at, size_t end, framelog_fn *fn, void *arg)
{
	struct entry e;

	while (at < end) {
		memcpy(&e, l->data + at, sizeof(e));
		fn(arg, e.number, e.when_us, l->data + at + sizeof(e), e.len);
		at += sizeof(e) + e.len;
	}
}

void framelog_each(const struct framelog *l, framelog_fn *fn, void *arg)
{
	each_in(l, l->head, l->wrapped ? l->end : l->tail, fn, arg);
	if (l->wrapped)
		each_in(l, 0, l->tail, fn, arg);
}
