/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_track.c - no write to RAM escapes: of every kind of memory, touched or never touched, by the program or by
 * the kernel, while pages are being harvested, or private ones dropped
 *
 * A copy is kept as a secondary would, from what is harvested alone. In the end it must be equal to RAM.
 * Arguments: how writes are noticed (auto, async, sync), ms that each race takes (700). COLO_SEED repeats a run's choices. Needs nothing but
 * the kernel, so that test_kernel.py runs it on an older one.
 */
#include "jit.h"
#include "stage.h"
#include "track.h"
#include "view.h"
#include "wp.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <unistd.h>

#define PAGES UINT64_C(2048)
#define SIZE (PAGES * PAGE)
#define HUGE (UINT64_C(2) << 20)
#define AHEAD 16 /* wp_sync.c: what counts as written, and was not */
#define APART 64 /* farther than what is done to a page for the sake of others */
#define WRITERS 2

enum kind { ANON, ANON_HUGE, SHARED, VIEW, KINDS };

static const char *const kind_names[] = { "anonymous", "anonymous, huge", "shared file", "view" };

static struct ram ram;
static uint8_t *copy, *stage;
static _Atomic uint64_t seed;
static const char *doing = "";
static int64_t race_ms = 700;

void jit_changed(const struct ram_block *b, uint64_t offset, uint64_t len)
{
	(void)b;
	(void)offset;
	(void)len;
}

static uint64_t draw(uint64_t below)
{
	uint64_t x = atomic_fetch_add(&seed, UINT64_C(0x9e3779b97f4a7c15));

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return (x ^ x >> 31) % below;
}

static void fail(const char *what, uint64_t n)
{
	printf("FAILED %s: %s (%llu)\n", doing, what, (unsigned long long)n);
	exit(1);
}

static void check(int ret, const struct errtext *err, const char *what)
{
	if (ret == -EOPNOTSUPP || ret == -EPERM) {
		printf("skipped: %s\n", err->text);
		exit(77);
	}
	if (ret < 0) {
		printf("FAILED %s: %s: %s\n", doing, what, err->text);
		exit(1);
	}
}

static void *map(uint64_t size, int flags, int fd)
{
	/* begins with a huge page */
	uint8_t *room = mmap(NULL, size + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *at = (uint8_t *)(((uintptr_t)room + HUGE - 1) & ~(uintptr_t)(HUGE - 1));

	if (room == MAP_FAILED || mmap(at, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE, fd, 0) != at)
		fail("mmap", errno);
	return at;
}

/* --- RAM of each kind; @filled: half of its pages hold something --- */

static void fill(uint8_t *host)
{
	for (uint64_t i = 0; i < PAGES; i += 2)
		memset(host + i * PAGE, (int)draw(255) + 1, PAGE);
}

static void make_ram(enum kind kind, bool filled)
{
	struct ram_block *b = &ram.block[0];
	int fd = kind == SHARED ? memfd_create("ram", MFD_CLOEXEC) : -1;
	struct errtext err;

	if (kind == SHARED && (fd < 0 || ftruncate(fd, SIZE) < 0))
		fail("memfd", errno);
	*b = (struct ram_block){ .name = "ram", .size = SIZE, .anon = kind != SHARED, .image_fd = -1 };
	b->host = map(SIZE, kind == SHARED ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd);
	if (fd >= 0)
		close(fd);
	ram.n = 1;
	if (kind == ANON_HUGE)
		madvise(b->host, SIZE, MADV_HUGEPAGE);
	if (kind == ANON_HUGE && !filled) /* huge zero pages */
		for (uint64_t at = 0; at < SIZE / 2; at += HUGE)
			if (((volatile uint8_t *)b->host)[at])
				fail("fresh memory is not zero", at);
	if (filled)
		fill(b->host);
	memset(copy, 0, SIZE);
	if (filled)
		memcpy(copy, b->host, SIZE);
	if (kind == VIEW)
		check(view_create(&ram, &err), &err, "view");
}

static void free_ram(void)
{
	struct ram_block *b = &ram.block[0];

	track_stop();
	wp_disarm();
	munmap(b->host, SIZE);
	if (b->image)
		munmap(b->image, SIZE);
	if (b->image_fd >= 0)
		close(b->image_fd);
}

/* --- harvest into the copy --- */

static uint64_t harvest(void)
{
	uint64_t size = SIZE;
	struct track_times times;
	struct stage_writer w;
	struct stage_reader r;
	struct stage_run run;
	struct errtext err;

	check(stage_begin(&w, stage, stage_size(PAGES), PAGES), &err, "staging area");
	check(track_harvest(&ram, &w, &times, &err), &err, "harvest");
	stage_finish(&w);
	check(stage_open(&r, stage, stage_size(PAGES), &size, 1, &err), &err, "staged");
	while (stage_next(&r, &run)) {
		if (run.data)
			memcpy(copy + run.offset, run.data, run.npages * PAGE);
		else
			memset(copy + run.offset, 0, run.npages * PAGE);
	}
	return w.harvested;
}

static void compare(void)
{
	for (uint64_t i = 0; i < PAGES; i++)
		if (memcmp(copy + i * PAGE, ram.block[0].host + i * PAGE, PAGE))
			fail("a page that was written was not harvested", i);
}

/* --- writes --- */

static void write_page(uint64_t page)
{
	*(volatile uint64_t *)(ram.block[0].host + page * PAGE + draw(PAGE / 8) * 8) = draw(UINT64_MAX) | 1;
}

/* by the kernel: a system call that writes to RAM */
static void read_into(uint64_t page, uint64_t len)
{
	static uint8_t bytes[4 * PAGE];
	int p[2];

	memset(bytes, (int)draw(255) + 1, sizeof(bytes));
	if (pipe(p) < 0 || write(p[1], bytes, len) != (ssize_t)len)
		fail("pipe", errno);
	if (read(p[0], ram.block[0].host + page * PAGE + 100, len) != (ssize_t)len)
		fail("read() into RAM", errno);
	close(p[0]);
	close(p[1]);
}

/* Places at borders, then some by chance: each far from the next, so that nothing is freed ahead. Returns how many. */
static uint64_t write_places(unsigned int offset)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < PAGES; i += 2 * AHEAD, n++)
		write_page((i + offset) % PAGES);
	return n;
}

/* What was never touched before is written first after tracking began. */
static void untouched(bool filled)
{
	struct errtext err;
	uint64_t n, m;

	check(track_start(&ram, &err), &err, "track");
	n = write_places(0);
	m = harvest();
	if (m != n)
		fail("pages were written, so many were harvested", m);
	write_page(HUGE / PAGE - 1);
	write_page(PAGES - 1);
	read_into(5 * AHEAD + 7, 3 * PAGE);
	m = harvest();
	if (m < 6 || m > 6 + 3)
		fail("6 pages were written, so many were harvested", m);
	if (harvest())
		fail("nothing was written, pages were harvested", 0);
	compare();
	for (uint64_t i = 0; i < PAGES; i++)
		write_page(i);
	if (harvest() != PAGES || harvest())
		fail("all was written, not all was harvested, or twice", 0);
	compare();
}

/* A tracking that ended and begins again; what was written between is no dirt of the new one. */
static void again(void)
{
	struct errtext err;

	track_stop();
	write_places(3);
	memcpy(copy, ram.block[0].host, SIZE);
	check(track_start(&ram, &err), &err, "track");
	if (harvest())
		fail("harvested what was written before tracking began", 0);
	write_places(5);
	harvest();
	compare();
	track_forget();
	write_places(6);
	if (harvest() != PAGES)
		fail("not all was harvested after a failure", 0);
	write_places(7);
	harvest();
	compare();
}

/* --- writes and harvests at the same time --- */

/* A read() that a signal interrupts in a fault that waits for us fails, as with any userfaultfd (QEMU lets no signals into
 * threads that read into RAM). With asynchronous protection nothing waits. */
static bool reads, signals;
static atomic_bool ended;

static void *writer(void *unused)
{
	(void)unused;
	while (!ended) {
		uint64_t page = draw(PAGES), run = draw(8) ? 1 : 1 + draw(60);

		if (reads && draw(32) == 0)
			read_into(draw(PAGES - 4), 1 + draw(3 * PAGE));
		for (; run-- && page < PAGES; page++)
			write_page(page);
		if (draw(64) == 0)
			usleep(draw(2000));
	}
	return NULL;
}

static void nothing(int unused)
{
	(void)unused;
}

/* Signals interrupt writers that wait; a write must not get lost, or happen unseen, by that. */
static void *disturb(void *opaque)
{
	pthread_t *writers = opaque;

	while (!ended) {
		pthread_kill(writers[draw(WRITERS)], SIGUSR1);
		usleep(draw(300));
	}
	return NULL;
}

static void race(bool with_reads, bool with_signals)
{
	const struct sigaction act = { .sa_handler = nothing, .sa_flags = SA_RESTART };
	int64_t end = now_ns() + race_ms * 1000000;
	pthread_t thread[WRITERS + 1];
	uint64_t pages = 0;
	int rounds = 0;

	sigaction(SIGUSR1, &act, NULL);
	ended = false;
	reads = with_reads;
	signals = with_signals;
	for (int i = 0; i < WRITERS; i++)
		pthread_create(&thread[i], NULL, writer, NULL);
	if (signals)
		pthread_create(&thread[WRITERS], NULL, disturb, thread);
	for (; now_ns() < end; rounds++) {
		pages += harvest();
		usleep(draw(3000));
	}
	ended = true;
	for (int i = 0; i < WRITERS + signals; i++)
		pthread_join(thread[i], NULL);
	pages += harvest();
	compare();
	printf("    %d harvests beside %d writers%s%s, %llu pages\n", rounds, WRITERS, reads ? ", reads" : "",
	       signals ? ", signals" : "", (unsigned long long)pages);
}

static atomic_uint sweep, swept;

static void *sweeper(void *unused)
{
	(void)unused;
	for (;;) {
		while (sweep == swept) {
			if (ended)
				return NULL;
			sched_yield();
		}
		for (uint64_t i = sweep % APART; i < PAGES; i += APART)
			write_page(i);
		swept = sweep;
	}
}

/* Each page once, while pages are harvested as fast as it goes; looked at before anything could mend what was lost. */
static void collide(void)
{
	int64_t end = now_ns() + race_ms * 1000000;
	pthread_t thread;

	ended = false;
	pthread_create(&thread, NULL, sweeper, NULL);
	while (now_ns() < end) {
		for (sweep++; sweep != swept;)
			harvest();
		harvest();
		for (uint64_t i = sweep % APART; i < PAGES; i += APART)
			if (memcmp(copy + i * PAGE, ram.block[0].host + i * PAGE, PAGE))
				fail("a page that was written was not harvested, in sweep", sweep);
	}
	ended = true;
	pthread_join(thread, NULL);
	compare();
	printf("    %u sweeps\n", (unsigned int)sweep);
}

/* --- views --- */

static void drop(uint64_t least)
{
	uint64_t dropped = 0;
	struct errtext err;

	check(view_drop(&ram, &dropped, &err), &err, "drop");
	check(view_check(&ram, &err), &err, "after drop");
	if (dropped < least)
		fail("private pages were not dropped", least - dropped);
	if (memcmp(ram.block[0].host, copy, SIZE))
		fail("after a drop RAM is not the image", 0);
}

static void drops(void)
{
	struct ram_block *b = &ram.block[0];

	for (unsigned int i = 0; i < 20; i++) {
		uint64_t n = write_places(i % (2 * AHEAD));

		read_into(draw(PAGES - 4), 2 * PAGE);
		for (uint64_t page = draw(PAGES), run = draw(600); run-- && page < PAGES; page++)
			write_page(page);
		drop(n);
		memset(b->image + (n = draw(PAGES)) * PAGE, (int)draw(256), PAGE); /* as a checkpoint */
		memset(copy + n * PAGE, b->image[n * PAGE], PAGE);
	}
	drop(0);
	write_places(1);
	memcpy(copy, b->host, SIZE); /* it takes over, with private pages */
}

/* --- */

/* If a page is left without protection, that must be noticed. Memory that claims to be a file's was not populated. */
static void check_left_out(void)
{
	struct errtext err;
	int ret;

	if (strcmp(wp_way(), "sync"))
		return;
	doing = "anonymous memory that claims to be a file's";
	make_ram(ANON, false);
	ram.block[0].anon = false;
	write_page(1);
	ret = track_start(&ram, &err);
	if (ret != -EILSEQ)
		fail("pages that nothing protects were not noticed", (uint64_t)-ret);
	printf("  %s: refused: %s\n", doing, err.text);
	free_ram();
}

static void check_kind(enum kind kind, bool filled)
{
	bool sync = !strcmp(wp_way(), "sync");
	static char name[64];

	snprintf(name, sizeof(name), "%s, %s", kind_names[kind], filled ? "filled" : "never touched");
	doing = name;
	make_ram(kind, filled);
	if (kind == VIEW && filled)
		drops();
	untouched(filled);
	again();
	printf("  %s: %s\n", name, wp_way());
	race(!sync || filled, !sync || !filled);
	collide();
	free_ram();
}

int main(int argc, char **argv)
{
	const char *set = getenv("COLO_SEED");
	struct errtext err;
	struct utsname u;
	uint64_t s;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && wp_choose(argv[1]) < 0)
		return 2;
	if (argc > 2)
		race_ms = atoi(argv[2]);
	if (set)
		s = strtoull(set, NULL, 0);
	else if (getrandom(&s, sizeof(s), 0) != sizeof(s))
		return 1;
	seed = s;
	check(wp_probe(&err), &err, "probe");
	uname(&u);
	printf("Linux %s, %s, seed %llu\n", u.release, wp_way(), (unsigned long long)s);
	copy = map(SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	stage = map(stage_size(PAGES), MAP_PRIVATE | MAP_ANONYMOUS, -1);
	for (int kind = 0; kind < KINDS; kind++)
		for (int filled = 0; filled < 2; filled++)
			check_kind(kind, filled);
	check_left_out();
	return 0;
}
