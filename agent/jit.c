/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * jit.c - keep translated code
 *
 * Loading CPU state makes QEMU order a flush of all translated code, since it cannot know what
 * changed in RAM. We know: the pages dropped and the pages applied. Throwing away just their code
 * spares the SVM about 40 ms of translating again after every checkpoint, which is most of what a
 * checkpoint costs it.
 *
 * The order is a work item for the vCPU's thread that carries the number of flushes so far; when it
 * is carried out and the number has moved on, somebody else has flushed and nothing is done. So
 * counting one up cancels it. The counter has no accessor: it is a word of the exported tb_ctx.
 * Which one is found out by flushing twice and looking for the only word that follows the number
 * `info jit` tells. Only versions whose code was read for this are driven so (known()); any doubt
 * means no.
 */
#include "jit.h"

#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <time.h>

#define MAX_WORDS 256
#define ROUNDS 2 /* flushes to watch */

static struct {
	void (*invalidate)(uint64_t start, uint64_t end); /* RAM addresses, end exclusive */
	void (*flush)(void *cpu);
	void *(*get_cpu)(int index);
	uint32_t *words;
	unsigned int nwords;
	bool candidate[MAX_WORDS];
	uint32_t *count; /* NULL: not calibrated, leave everything to QEMU */
} jit;

struct sample {
	const struct driver *drv;
	int64_t flushes;
};

/* tb_invalidate_phys_range() took a last address from 8.0 on, and a CPU later. */
static bool known(void)
{
	struct qemu_version v = qemu_version();

	return v.major == 7 && v.minor == 2;
}

static bool resolve(void)
{
	void *ctx = dlsym(RTLD_DEFAULT, "tb_ctx");
	ElfW(Sym) *symbol = NULL;
	Dl_info info;

	*(void **)&jit.invalidate = dlsym(RTLD_DEFAULT, "tb_invalidate_phys_range");
	*(void **)&jit.flush = dlsym(RTLD_DEFAULT, "tb_flush");
	*(void **)&jit.get_cpu = dlsym(RTLD_DEFAULT, "qemu_get_cpu");
	if (!ctx || !jit.invalidate || !jit.flush || !jit.get_cpu)
		return false;
	if (!dladdr1(ctx, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
		return false;
	jit.words = ctx;
	jit.nwords = symbol->st_size / sizeof(uint32_t);
	return jit.nwords > 0 && jit.nwords <= MAX_WORDS;
}

static void order_flush(void *opaque)
{
	(void)opaque;
	jit.flush(jit.get_cpu(0));
}

static void take_sample(void *opaque)
{
	struct sample *s = opaque;

	s->flushes = s->drv->jit_flushes();
	for (unsigned int i = 0; i < jit.nwords; i++)
		jit.candidate[i] &= jit.words[i] == (uint64_t)s->flushes;
}

static void count_flushes(void *opaque)
{
	struct sample *s = opaque;

	s->flushes = s->drv->jit_flushes();
}

/* flush once, and wait until it is done */
static bool flush_once(struct sample *s)
{
	const struct timespec tick = { .tv_nsec = 1000000 };
	int64_t before = s->flushes, deadline = now_ns() + INT64_C(500000000);

	s->drv->call(order_flush, s);
	do {
		s->drv->call(count_flushes, s);
		if (s->flushes > before)
			return true;
		nanosleep(&tick, NULL);
	} while (now_ns() < deadline);
	return false;
}

static uint32_t *only_candidate(void)
{
	uint32_t *found = NULL;

	for (unsigned int i = 0; i < jit.nwords; i++) {
		if (!jit.candidate[i])
			continue;
		if (found)
			return NULL;
		found = &jit.words[i];
	}
	return found;
}

void jit_calibrate(const struct driver *drv)
{
	struct sample s = { .drv = drv };

	jit.count = NULL;
	if (!known() || !resolve())
		return;
	for (unsigned int i = 0; i < jit.nwords; i++)
		jit.candidate[i] = true;
	drv->call(take_sample, &s);
	if (s.flushes < 0)
		return; /* nothing is translated */
	for (int i = 0; i < ROUNDS; i++) {
		if (!flush_once(&s))
			return;
		drv->call(take_sample, &s);
	}
	jit.count = only_candidate();
}

void jit_changed(const struct ram_block *b, uint64_t offset, uint64_t len)
{
	if (jit.count)
		jit.invalidate(b->ram_addr + offset, b->ram_addr + offset + len);
}

void jit_keep(void)
{
	if (jit.count)
		__atomic_fetch_add(jit.count, 1, __ATOMIC_SEQ_CST);
}
