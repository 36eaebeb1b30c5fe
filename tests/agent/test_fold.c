/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_fold.c - a view that serves: tracked, harvested and hashed while its image is folded
 *
 * Without a VM: the test writes to a block of RAM as a guest would, harvests as a checkpoint does, keeps with
 * what was harvested a copy, as a secondary would, and compares all of both, and the hash with one that asks nobody
 * which pages there are. Arguments: seconds (5), how writes are noticed (auto), MiB (96). COLO_SEED repeats a run's choices.
 */
#include "fold.h"
#include "hash.h"
#include "jit.h"
#include "stage.h"
#include "track.h"
#include "view.h"
#include "wp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#define SIZE (PAGES * PAGE)
#define PAGES (mib << 8)

void jit_changed(const struct ram_block *b, uint64_t offset, uint64_t len)
{
	(void)b;
	(void)offset;
	(void)len;
}

static struct ram ram;
static uint8_t *copy, *stage;
static uint64_t seed, mib = 96;

static uint64_t draw(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static void fail(const char *what, int n)
{
	fprintf(stderr, "round %d: %s\n", n, what);
	exit(1);
}

static void check(int ret, const struct errtext *err, const char *what)
{
	if (ret == -EOPNOTSUPP || ret == -EPERM) {
		printf("skipped: %s\n", err->text);
		exit(77);
	}
	if (ret < 0) {
		fprintf(stderr, "%s: %s\n", what, err->text);
		exit(1);
	}
}

static void *map(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

/* as a guest: here and there, some runs of pages, some zeroes, some reads of what was never touched */
static void live(unsigned int times)
{
	uint8_t *host = ram.block[0].host;

	while (times--) {
		uint64_t page = draw(PAGES), run = draw(16) ? 1 : 1 + draw(40);

		for (; run-- && page < PAGES; page++) {
			uint64_t *at = (uint64_t *)(host + page * PAGE + draw(PAGE / 8) * 8);

			switch (draw(8)) {
			case 0: memset(host + page * PAGE, 0, PAGE); break;
			case 1: times += *(volatile uint64_t *)at == 12345; break;
			default: *at = seed;
			}
		}
	}
}

static void harvest(void)
{
	uint64_t block = SIZE;
	struct track_times times;
	struct stage_writer w;
	struct stage_reader r;
	struct stage_run run;
	struct errtext err;

	check(stage_begin(&w, stage, stage_size(PAGES), PAGES), &err, "staging area");
	check(track_harvest(&ram, &w, &times, &err), &err, "harvest");
	stage_finish(&w);
	check(stage_open(&r, stage, stage_size(PAGES), &block, 1, &err), &err, "staged");
	while (stage_next(&r, &run)) {
		if (run.data)
			memcpy(copy + run.offset, run.data, run.npages * PAGE);
		else
			memset(copy + run.offset, 0, run.npages * PAGE);
	}
}

static void compare(int n)
{
	uint64_t hash = 0, want = 0, page;
	struct errtext err;

	check(hash_ram(&ram, &hash, &err), &err, "hash");
	for (page = 0; page < PAGES; page++)
		want += hash_page(copy + page * PAGE, 0, page * PAGE);
	if (memcmp(copy, ram.block[0].host, SIZE))
		fail("a page that was written was not harvested", n);
	if (hash != want)
		fail("the hash counts what is not there, or not what is", n);
}

static void make_view(void)
{
	struct ram_block *b = &ram.block[0];
	struct errtext err;

	ram.n = 1;
	*b = (struct ram_block){ .name = "ram", .host = map(SIZE), .size = SIZE, .anon = true, .image_fd = -1 };
	live(3000);
	check(view_create(&ram, &err), &err, "view");
	live(3000); /* as an SVM that will take over */
}

int main(int argc, char **argv)
{
	int64_t end = now_ns() + (argc > 1 ? atoi(argv[1]) : 5) * INT64_C(1000000000);
	const char *set = getenv("COLO_SEED");
	struct errtext err;
	struct stat st;
	int n = 0;

	if (set)
		seed = strtoull(set, NULL, 0);
	else if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		return 1;
	seed |= 1;
	if (argc > 2 && wp_choose(argv[2]) < 0)
		return 2;
	if (argc > 3)
		mib = strtoull(argv[3], NULL, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	copy = map(SIZE);
	stage = map(stage_size(PAGES));
	make_view();
	check(fold_start(&ram, &err), &err, "fold");
	check(track_start(&ram, &err), &err, "track");
	memcpy(copy, ram.block[0].host, SIZE); /* the seed */
	while (now_ns() < end) {
		live(1 + (unsigned int)draw(4000));
		harvest();
		compare(n++);
	}
	fstat(ram.block[0].image_fd, &st);
	printf("%s, %d rounds; %lld MiB of the image's %llu are left\n", wp_way(), n, (long long)st.st_blocks >> 11,
	       (unsigned long long)SIZE >> 20);
	return 0;
}
