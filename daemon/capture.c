/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * capture.c - see capture.h
 */
#include "daemon/capture.h"

#include <stdio.h>
#include <string.h>

int capture_init(struct capture *c, size_t bytes)
{
	memset(c, 0, sizeof(*c));
	return framelog_init(&c->log, bytes);
}

void capture_free(struct capture *c)
{
	framelog_free(&c->log);
}

void capture_add(struct capture *c, const struct pcapng_packet *p)
{
	char comment[CAPTURE_COMMENT_MAX + 1];
	struct pcapng_packet cut = *p;
	size_t n;

	snprintf(comment, sizeof(comment), "%s", p->comment ? p->comment : "");
	cut.comment = comment;
	n = pcapng_packet(c->block, sizeof(c->block), &cut);
	if (n)
		framelog_add(&c->log, ++c->packets, p->time_us, c->block, n);
}

struct reader {
	uint64_t after, last;
	uint8_t *out;
	size_t n, size;
	bool full;
};

static void read_one(void *arg, uint64_t number, uint64_t when_us, const uint8_t *block, size_t len)
{
	struct reader *r = arg;

	if (number <= r->after || r->full)
		return;
	if (len > r->size - r->n) {
		r->full = true;
		return;
	}
	memcpy(r->out + r->n, block, len);
	r->n += len;
	r->last = number;
}

size_t capture_read(const struct capture *c, uint64_t after, uint8_t *out, size_t size, uint64_t *last)
{
	struct reader r = { .after = after, .last = after, .out = out, .size = size };

	framelog_each(&c->log, read_one, &r);
	*last = r.last;
	return r.n;
}
