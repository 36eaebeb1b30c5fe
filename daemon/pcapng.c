/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pcapng.c - see pcapng.h
 */
#include "daemon/pcapng.h"

#include <string.h>

enum {
	BLOCK_SECTION = 0x0a0d0d0a, BLOCK_INTERFACE = 1, BLOCK_PACKET = 6,
	BYTE_ORDER_MAGIC = 0x1a2b3c4d,
	LINKTYPE_ETHERNET = 1,
	OPT_END = 0, OPT_COMMENT = 1, OPT_SHB_PROGRAM = 4, OPT_IF_NAME = 2, OPT_IF_DESCRIPTION = 3,
	OPT_IF_TSRESOL = 9, OPT_EPB_FLAGS = 2,
	TSRESOL_US = 6, FLAG_OUTBOUND = 2,
};

struct block {
	uint8_t *p;
	size_t size, len;
	bool full;
};

static void put(struct block *b, const void *bytes, size_t n)
{
	size_t padded = (n + 3) & ~(size_t)3;

	if (b->full || padded > b->size - b->len) {
		b->full = true;
		return;
	}
	memcpy(b->p + b->len, bytes, n);
	memset(b->p + b->len + n, 0, padded - n);
	b->len += padded;
}

static void put32(struct block *b, uint32_t v)
{
	put(b, &v, 4);
}

static void put16s(struct block *b, uint16_t first, uint16_t second)
{
	uint16_t v[2] = { first, second };

	put(b, v, 4);
}

static void put_option(struct block *b, uint16_t code, const void *value, size_t n)
{
	if (n > UINT16_MAX)
		n = UINT16_MAX;
	put16s(b, code, (uint16_t)n);
	put(b, value, n);
}

static void put_text(struct block *b, uint16_t code, const char *text)
{
	if (text && *text)
		put_option(b, code, text, strlen(text));
}

static struct block begin(uint8_t *out, size_t size, uint32_t type)
{
	struct block b = { .p = out, .size = size };

	put32(&b, type);
	put32(&b, 0); /* length, when it is known */
	return b;
}

/* options end, and the block's length stands at both ends of it */
static size_t end(struct block *b)
{
	uint32_t len;

	put16s(b, OPT_END, 0);
	len = (uint32_t)b->len + 4;
	put32(b, len);
	if (b->full)
		return 0;
	memcpy(b->p + 4, &len, 4);
	return b->len;
}

size_t pcapng_section(uint8_t *out, size_t size, const char *program)
{
	struct block b = begin(out, size, BLOCK_SECTION);
	uint64_t unknown = UINT64_MAX;

	put32(&b, BYTE_ORDER_MAGIC);
	put16s(&b, 1, 0);
	put(&b, &unknown, 8); /* length of the section */
	put_text(&b, OPT_SHB_PROGRAM, program);
	return end(&b);
}

size_t pcapng_interface(uint8_t *out, size_t size, const char *name, const char *description)
{
	struct block b = begin(out, size, BLOCK_INTERFACE);
	uint8_t resolution = TSRESOL_US;

	put16s(&b, LINKTYPE_ETHERNET, 0);
	put32(&b, 0); /* no limit to a packet's length */
	put_text(&b, OPT_IF_NAME, name);
	put_text(&b, OPT_IF_DESCRIPTION, description);
	put_option(&b, OPT_IF_TSRESOL, &resolution, 1);
	return end(&b);
}

size_t pcapng_packet(uint8_t *out, size_t size, const struct pcapng_packet *p)
{
	struct block b = begin(out, size, BLOCK_PACKET);
	uint32_t flags = FLAG_OUTBOUND;

	put32(&b, p->interface);
	put32(&b, (uint32_t)(p->time_us >> 32));
	put32(&b, (uint32_t)p->time_us);
	put32(&b, (uint32_t)p->len); /* captured */
	put32(&b, (uint32_t)p->len); /* on the wire */
	put(&b, p->data, p->len);
	put_text(&b, OPT_COMMENT, p->comment);
	put_option(&b, OPT_EPB_FLAGS, &flags, 4);
	return end(&b);
}
