// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Self-modifying code: a table of small functions, `mov eax, VALUE; ret`, that are rewritten at
 * random and all called in each round. An emulator that goes on with translations of code that a
 * checkpoint replaced returns an old value here, although RAM is right to the last byte.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "work.h"

#define SLOT 64		/* bytes per function: several share a page, one never crosses two */

struct code {
	uint8_t *text;
	uint32_t *values;
	size_t count;
};

/* Slot n lies at n * SLOT + 4 * (n % 8), so that the functions differ in alignment. */
static uint8_t *slot(struct code *c, size_t n)
{
	return c->text + n * SLOT + 4 * (n % 8);
}

/* Every other write changes the operand alone, so that old and new share their first byte. */
static void slot_write(struct code *c, size_t n, uint32_t value)
{
	uint8_t *p = slot(c, n);

	c->values[n] = value;
	memcpy(p + 1, &value, sizeof(value));
	if (value & 1)
		return;
	p[0] = 0xb8;	/* mov eax, imm32 */
	p[5] = 0xc3;	/* ret */
}

static void slots_check(struct worker *w, struct code *c)
{
	for (size_t n = 0; n < c->count; n++) {
		uint32_t (*fn)(void);
		void *p = slot(c, n);

		memcpy(&fn, &p, sizeof(fn));
		uint32_t got = fn();

		if (got != c->values[n])
			work_corrupt(w, "function %zu returned %08x, expected %08x", n, got,
				     c->values[n]);
	}
}

static int code_setup(struct worker *w)
{
	struct code *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	w->priv = c;
	c->count = w->args[0];
	c->values = calloc(c->count, sizeof(*c->values));
	c->text = mmap(NULL, c->count * SLOT, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->text == MAP_FAILED)
		c->text = NULL;
	if (!c->values || !c->text)
		return -ENOMEM;
	for (size_t n = 0; n < c->count; n++)
		slot_write(c, n, (uint32_t)n << 1);
	return 0;
}

static void code_round(struct worker *w)
{
	struct code *c = w->priv;

	slots_check(w, c);
	for (size_t i = 0; i < c->count / 4 + 1; i++)
		slot_write(c, work_random(w) % c->count, work_random(w));
	slots_check(w, c);
}

static void code_cleanup(struct worker *w)
{
	struct code *c = w->priv;

	if (!c)
		return;
	if (c->text)
		munmap(c->text, c->count * SLOT);
	free(c->values);
	free(c);
}

const struct work_kind work_code = {
	.name = "code",
	.args = "FUNCTIONS PERIOD-MS",
	.nargs = 2,
	.defaults = { 256, 20 },
	.setup = code_setup,
	.round = code_round,
	.cleanup = code_cleanup,
};
