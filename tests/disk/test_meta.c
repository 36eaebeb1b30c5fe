/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_meta.c - DIR/NAME.meta: what a cut-off write, a power loss or garbage may leave of it
 *
 * Power loss: a process works on the file through the storage double (power.h) until it is cut off. What it had
 * reached is in memory shared with this one, which opens the file again: the state is that before or after
 * the change under way, and each block that may have been written to is in the bitmap. SEED and ROUNDS come
 * from the command line or the environment variables COLO_SEED and COLO_ROUNDS.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "disk/meta_file.h"
#include "tests/disk/power.h"

/* more than one sector of the fine map; the last region, block and word are short */
#define REGIONS 140u
#define SIZE    ((REGIONS - 1) * (uint64_t)META_REGION + 5 * BITMAP_BLOCK + 512)
#define BLOCKS  ((REGIONS - 1) * 64 + 6)

static uint64_t seed, rng;
static char dir[64], path[96];

#define CHECK(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s:%d: %s, seed %llu\n", __FILE__, __LINE__, #cond, (unsigned long long)seed); \
			abort(); \
		} \
	} while (0)

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng * 0x2545f4914f6cdd1dull >> 11) % below;
}

/* ---- helpers ---- */

struct opened {
	struct meta m;
	struct bitmap changed;
	bool found;
	char why[300];
};

static int open_size(struct opened *o, uint64_t size)
{
	CHECK(bitmap_init(&o->changed, size) == 0);
	o->why[0] = 0;
	return meta_open(&o->m, dir, "disk0", size, &o->changed, &o->found, o->why, sizeof(o->why));
}

static void open_it(struct opened *o)
{
	int r = open_size(o, SIZE);

	if (r)
		fprintf(stderr, "%s\n", o->why);
	CHECK(r == 0);
}

static uint64_t blocks_of(void *opaque, uint64_t region)
{
	return bitmap_word(opaque, region);
}

static void close_it(struct opened *o, bool clean)
{
	meta_close(&o->m, clean ? blocks_of : NULL, &o->changed);
	bitmap_free(&o->changed);
}

static void refused(uint64_t size, const char *because)
{
	struct opened o;

	CHECK(open_size(&o, size) < 0);
	CHECK(strstr(o.why, path) && strstr(o.why, because));
	bitmap_free(&o.changed);
}

static struct meta_state numbered(uint64_t n)
{
	return (struct meta_state){
		.size = SIZE,
		.lineage = { .current = n + 1, .base = n * 3, .history = { n, n + 7 }, .flags = LINEAGE_CONSISTENT },
		.epoch = n * 5, .redo_tail = ~n, .failover = n, .stamp_mtime_ns = n << 32,
	};
}

static void be(struct meta_state *s, void *opaque)
{
	*s = numbered(*(uint64_t *)opaque);
}

static void fresh(void)
{
	char temporary[128];

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	unlink(path);
	unlink(temporary);
}

static size_t load(unsigned char **p)
{
	int fd = open(path, O_RDONLY);
	struct stat sb;

	CHECK(fd >= 0 && fstat(fd, &sb) == 0);
	*p = malloc((size_t)sb.st_size);
	CHECK(*p && pread(fd, *p, (size_t)sb.st_size, 0) == sb.st_size);
	close(fd);
	return (size_t)sb.st_size;
}

static void store(const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	CHECK(fd >= 0 && write(fd, p, n) == (ssize_t)n);
	close(fd);
}

/* ---- one file, no trouble ---- */

static void test_life(void)
{
	struct opened o;
	struct meta_state s;
	uint64_t n = 4;

	fresh();
	open_it(&o);
	CHECK(!o.found && o.changed.set == 0);
	meta_get(&o.m, &s);
	CHECK(s.size == SIZE && s.lineage.current == 0);
	refused(SIZE, "in use by another process");
	CHECK(meta_change(&o.m, be, &n) == 0);
	close_it(&o, false);
	refused(SIZE - 512, "is for a disk of");
	open_it(&o);
	meta_get(&o.m, &s);
	CHECK(o.found && s.epoch == 20 && s.lineage.history[1] == 11);
	s.lineage.flags |= LINEAGE_OVERWRITE;
	CHECK(meta_update(&o.m, &s) == 0);
	close_it(&o, true);
	open_it(&o);
	meta_get(&o.m, &s);
	CHECK(s.lineage.flags == LINEAGE_CONSISTENT && s.redo_tail == ~4ull);
	close_it(&o, true);
	unlink(path);
	CHECK(rmdir(dir) == 0);
	CHECK(open_size(&o, SIZE) == -ENOENT && strstr(o.why, dir));
	bitmap_free(&o.changed);
	CHECK(mkdir(dir, 0700) == 0);
}

static void write_to(struct opened *o, uint64_t off, uint64_t len)
{
	bitmap_note(&o->changed, off, len);
	CHECK(meta_heat(&o->m, off, len) == 0);
}

#define GROUPS (2 * 16 * 64 + 11 * 64 + 6u) /* 16 regions are heated together; the last group has 12 */

/* A crash leaves whole regions; settling leaves what was noted; a clean end leaves exactly that. */
static void test_bitmap(void)
{
	struct opened o;

	fresh();
	open_it(&o);
	write_to(&o, 3 * META_REGION + 70000, 10);
	write_to(&o, 70 * (uint64_t)META_REGION - 1, 2); /* two regions, of two sectors */
	write_to(&o, SIZE - 1, 1);
	CHECK(o.changed.set == 4);
	close_it(&o, false);
	open_it(&o);
	CHECK(o.changed.set == GROUPS && bitmap_test(&o.changed, 3 * 64 + 5) && !bitmap_test(&o.changed, 16 * 64));
	close_it(&o, true);
	open_it(&o);
	CHECK(o.changed.set == GROUPS); /* nobody knows better */
	for (uint64_t i = 0; i < bitmap_words(&o.changed); i++)
		bitmap_take(&o.changed, i); /* a round has ended */
	write_to(&o, 5 * META_REGION, 1);
	CHECK(meta_settle(&o.m, blocks_of, &o.changed) == 0);
	write_to(&o, 6 * META_REGION, 1);
	CHECK(meta_settle(&o.m, blocks_of, &o.changed) == 0); /* 5 cools down, 6 stays */
	close_it(&o, false);
	open_it(&o);
	CHECK(o.changed.set == 1 + 64 && bitmap_test(&o.changed, 5 * 64) && bitmap_test(&o.changed, 6 * 64 + 63));
	close_it(&o, true);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void test_hot_is_cheap(void)
{
	struct opened o;
	uint64_t calls, began;

	fresh();
	open_it(&o);
	write_to(&o, 0, 1);
	calls = power_calls();
	began = now_ns();
	for (int i = 0; i < 1000000; i++)
		CHECK(meta_heat(&o.m, (uint64_t)i * 4, 512) == 0);
	printf("a write to a hot region: %.1f ns\n", (double)(now_ns() - began) / 1e6);
	CHECK(power_calls() == calls);
	close_it(&o, true);
}

/* ---- a file that was cut, or is something else ---- */

/* Of a header's write the first k bytes arrive, for each k. */
static void test_cut_header(void)
{
	unsigned char *before, *after;
	struct opened o;
	struct meta_state s;
	uint64_t n = 1;
	size_t size;

	fresh();
	open_it(&o);
	for (; n <= 4; n++)
		CHECK(meta_change(&o.m, be, &n) == 0);
	size = load(&before);
	CHECK(meta_change(&o.m, be, &n) == 0);
	CHECK(load(&after) == size);
	close_it(&o, false);
	for (size_t k = META_HEADER; k <= META_HEADER + sizeof(struct meta_header); k++) {
		bool whole = !memcmp(before + k, after + k, 2 * META_HEADER - k);

		memcpy(before + META_HEADER, after + META_HEADER, k - META_HEADER);
		store(before, size);
		open_it(&o);
		meta_get(&o.m, &s);
		CHECK(s.epoch == 5 * (whole ? n : n - 1));
		CHECK(meta_change(&o.m, be, &n) == 0); /* it goes on from either */
		close_it(&o, false);
	}
	CHECK(memcmp(before + META_HEADER, after + META_HEADER, META_HEADER) == 0);
	free(before);
	free(after);
}

/* Of a sector of a map likewise: what was in it before and what is now count. */
static void test_cut_maps(void)
{
	unsigned char *before, *after;
	struct opened o;
	size_t size;

	fresh();
	open_it(&o);
	write_to(&o, 0, 1);
	meta_settle(&o.m, blocks_of, &o.changed);
	meta_settle(&o.m, blocks_of, &o.changed);
	size = load(&before);
	write_to(&o, META_REGION, 1);
	write_to(&o, 100 * (uint64_t)META_REGION, 1);
	CHECK(load(&after) == size);
	for (size_t k = META_MAPS; k <= META_MAPS + META_SECTOR; k++) {
		struct opened cut;

		memcpy(before + META_MAPS, after + META_MAPS, k - META_MAPS);
		store(before, size);
		close(o.m.fd); /* the lock goes with it */
		open_it(&cut);
		CHECK(bitmap_test(&cut.changed, 0));
		CHECK(cut.changed.set == 1 || cut.changed.set == 2 * 16 * 64 || cut.changed.set == BLOCKS);
		close_it(&cut, false);
	}
	o.m.fd = -1;
	bitmap_free(&o.changed);
	meta_map_free(&o.m);
	free(before);
	free(after);
}

static void test_garbage(void)
{
	unsigned char *good, *bad;
	struct opened o;
	uint64_t n = 9, opened = 0, refusals = 0;
	size_t size;

	fresh();
	open_it(&o);
	CHECK(meta_change(&o.m, be, &n) == 0 && meta_change(&o.m, be, &n) == 0);
	close_it(&o, true);
	size = load(&good);
	bad = malloc(size);
	for (int i = 0; i < 3000; i++) {
		size_t length = rnd(4) ? size : rnd(size);

		memcpy(bad, good, size);
		for (uint64_t k = 1 + rnd(4); k; k--) {
			size_t at = rnd(2) ? rnd(size) : rnd(2) * META_HEADER + rnd(sizeof(struct meta_header));

			for (uint64_t run = 1 + rnd(rnd(2) ? 4 : 3000); run && at < size; run--)
				bad[at++] = (unsigned char)rnd(256);
		}
		store(bad, length);
		if (open_size(&o, SIZE) == 0) {
			opened++;
			CHECK(length == size);
			close_it(&o, rnd(2));
			continue;
		}
		CHECK(strstr(o.why, path) && strlen(o.why) < sizeof(o.why) - 1);
		bitmap_free(&o.changed);
		refusals++;
	}
	CHECK(opened > 100 && refusals > 100);
	memset(bad, 0, size);
	store(bad, size);
	refused(SIZE, "damaged");
	memcpy(bad, good, size);
	((struct meta_header *)bad)->version = ((struct meta_header *)(bad + META_HEADER))->version = 9;
	store(bad, size);
	refused(SIZE, "another version");
	free(good);
	free(bad);
}

/* ---- power loss ---- */

#define WRITERS 3

struct shared {
	_Atomic uint8_t written[BLOCKS];  /* meta_heat() has returned for a write to it */
	_Atomic uint64_t state, next;     /* numbered(): stable for certain; perhaps */
	_Atomic bool made;
};

struct worker {
	struct opened *o;
	struct shared *all;
	uint64_t rng;
	pthread_rwlock_t *still;
	_Atomic bool *stop;
};

static uint64_t worker_rnd(struct worker *w, uint64_t below)
{
	w->rng = w->rng * 6364136223846793005ull + 1442695040888963407ull;
	return (w->rng >> 33) % below;
}

static void *writer(void *arg)
{
	struct timespec pause = { 0, 50000 };
	struct worker *w = arg;

	while (!*w->stop) {
		uint64_t region = worker_rnd(w, 4) ? worker_rnd(w, 6) : worker_rnd(w, REGIONS);
		uint64_t block = region * 64 + worker_rnd(w, 64), count = 1 + worker_rnd(w, 70);

		if (block >= BLOCKS)
			continue;
		count = count < BLOCKS - block ? count : BLOCKS - block;
		pthread_rwlock_rdlock(w->still);
		bitmap_note(&w->o->changed, block * BITMAP_BLOCK, (count - 1) * BITMAP_BLOCK + 1);
		CHECK(meta_heat(&w->o->m, block * BITMAP_BLOCK, (count - 1) * BITMAP_BLOCK + 1) == 0);
		for (uint64_t i = 0; i < count; i++)
			w->all->written[block + i] = 1; /* now it could be written */
		pthread_rwlock_unlock(w->still);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

/* The end of a round: what the peer has is not noted any more. */
static void forget(struct opened *o, struct shared *all)
{
	for (uint64_t i = 0; i < BLOCKS; i++)
		all->written[i] = 0;
	for (uint64_t i = 0; i < bitmap_words(&o->changed); i++)
		bitmap_take(&o->changed, i);
}

static void work(struct shared *all, uint64_t cut)
{
	static struct opened o;
	static pthread_rwlock_t still = PTHREAD_RWLOCK_INITIALIZER;
	static _Atomic bool stop;
	struct worker w[WRITERS];
	pthread_t t[WRITERS];

	power_start(dir, seed + cut);
	power_cut_after(cut);
	open_it(&o);
	all->made = true;
	for (int i = 0; i < WRITERS; i++) {
		w[i] = (struct worker){ &o, all, rng + (uint64_t)i, &still, &stop };
		CHECK(pthread_create(&t[i], NULL, writer, &w[i]) == 0);
	}
	for (int i = 0; i < 40; i++) {
		if (rnd(3) == 0) {
			uint64_t n = all->state + 1;

			all->next = n;
			CHECK(meta_change(&o.m, be, &n) == 0);
			all->state = n;
		} else if (rnd(6) == 0) {
			pthread_rwlock_wrlock(&still);
			forget(&o, all);
			pthread_rwlock_unlock(&still);
		} else {
			CHECK(meta_settle(&o.m, blocks_of, &o.changed) == 0);
		}
	}
	stop = true;
	for (int i = 0; i < WRITERS; i++)
		pthread_join(t[i], NULL);
	close_it(&o, rnd(2));
	kill(getpid(), SIGKILL); /* without what an orderly end would flush */
}

static void after_power_loss(struct shared *all, unsigned long *covered)
{
	struct opened o;
	struct meta_state s;

	open_it(&o);
	meta_get(&o.m, &s);
	CHECK(s.size == SIZE);
	CHECK(s.epoch == 5 * all->state || s.epoch == 5 * all->next);
	all->state = all->next = s.epoch / 5;
	for (uint64_t i = 0; i < BLOCKS; i++) {
		CHECK(!all->written[i] || bitmap_test(&o.changed, i));
		*covered += all->written[i];
	}
	close_it(&o, false);
}

static void test_power_loss(unsigned long rounds)
{
	struct shared *all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned long covered = 0, cut = 0;

	CHECK(all != MAP_FAILED);
	for (unsigned long i = 0; i < rounds; i++) {
		uint64_t after = 1 + rnd(rnd(2) ? 400 : 60);
		int status;
		pid_t pid;

		if (i % 8 == 0) {
			memset(all, 0, sizeof(*all));
			fresh();
		}
		rnd(2); /* or the child would repeat what the parent does */
		pid = fork();
		CHECK(pid >= 0);
		if (!pid)
			work(all, after);
		CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		cut += all->made;
		after_power_loss(all, &covered);
	}
	printf("%lu power losses, %lu blocks covered\n", rounds, covered);
	CHECK(cut > rounds / 2 && covered > rounds);
	munmap(all, sizeof(*all));
}

static unsigned long long number(int argc, char **argv, int i, const char *variable, unsigned long long otherwise)
{
	const char *s = argc > i ? argv[i] : getenv(variable);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	seed = number(argc, argv, 1, "COLO_SEED", (unsigned long long)time(NULL));
	rng = seed * 2 + 1;
	printf("seed %llu\n", (unsigned long long)seed);
	snprintf(dir, sizeof(dir), "/tmp/colo-meta-XXXXXX");
	CHECK(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/disk0.meta", dir);
	test_life();
	test_bitmap();
	test_hot_is_cheap();
	test_cut_header();
	test_cut_maps();
	test_garbage();
	test_power_loss((unsigned long)number(argc, argv, 2, "COLO_ROUNDS", 1000));
	fresh();
	CHECK(rmdir(dir) == 0);
	return 0;
}
