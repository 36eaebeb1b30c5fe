/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_caches.c - PVM cache, SVM cache, storage, bitmap, identity and range locks against plain memory
 *
 * The model keeps whole disks as byte arrays: what storage holds, what the PVM sees, what each boundary
 * froze, what the SVM sees. Random steps are done to both and compared. SEED and STEPS come from the
 * command line or the environment variables COLO_SEED and COLO_STEPS.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "disk/bitmap.h"
#include "disk/identity.h"
#include "disk/pvm_cache.h"
#include "disk/range.h"
#include "disk/storage.h"
#include "disk/svm_cache.h"

/* more than one table of the SVM cache, and an end that is no multiple of 4 KiB */
#define SIZE       ((2u << 20) + (192u << 10) + 3 * 512)
#define MARKS_MAX  3
#define PVM_MAX    (8u << 20)
#define JOURNAL    (16u << 20)
#define SVM_MAX    (64u * 4096)
#define WRITE_MAX  40000u

static uint64_t seed, rng;
static unsigned long step;

#define CHECK(cond) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, "%s:%d: %s, seed %llu, step %lu\n", __FILE__, __LINE__, #cond, \
				(unsigned long long)seed, step); \
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

static void fill(unsigned char *p, size_t n)
{
	unsigned char v = (unsigned char)rnd(256), d = (unsigned char)(1 + 2 * rnd(100));

	for (size_t i = 0; i < n; i++, v += d)
		p[i] = v;
}

struct model {
	struct storage st;
	struct redo journal;
	struct pvm_cache pvm;
	struct svm_cache svm;
	unsigned char *storage, *pvm_view, *svm_view, *frozen[MARKS_MAX];
	uint64_t epochs[MARKS_MAX], epoch;
	unsigned nmarks;
	bool alone;
	unsigned spilled, committed, failovers, retries; /* that the interesting cases happened */
};

static unsigned char scratch[SIZE], data[SIZE];

/* Ranges of the sort guests make, and of the sort they do not. */
static void pick(uint64_t *off, uint32_t *len)
{
	static const uint32_t units[] = { 1, 512, 4096, 65536 };
	uint32_t unit = units[rnd(4)];

	*len = (uint32_t)(1 + rnd(rnd(8) ? 8192 : WRITE_MAX));
	*len = (*len + unit - 1) / unit * unit;
	*off = rnd(SIZE) / unit * unit;
	if (rnd(16) == 0)
		*off = SIZE - rnd(9000); /* the end of the disk */
	if (*off >= SIZE)
		*off = SIZE - 1;
	if (*len > SIZE - *off)
		*len = (uint32_t)(SIZE - *off);
}

static void check_range(struct model *m, const unsigned char *want, uint64_t off, uint32_t len)
{
	CHECK(svm_cache_read(&m->svm, scratch, len, off) == 0);
	CHECK(memcmp(scratch, want + off, len) == 0);
}

static void check_storage(struct model *m)
{
	CHECK(storage_read(&m->st, scratch, SIZE, 0) == 0);
	CHECK(memcmp(scratch, m->storage, SIZE) == 0);
}

static void pvm_mark(struct model *m)
{
	if (m->nmarks == MARKS_MAX)
		return;
	CHECK(pvm_cache_mark(&m->pvm, m->epoch) == -EPROTO || !m->epoch);
	m->epoch += 1 + rnd(3);
	CHECK(pvm_cache_mark(&m->pvm, m->epoch) == 0);
	memcpy(m->frozen[m->nmarks], m->pvm_view, SIZE);
	m->epochs[m->nmarks++] = m->epoch;
}

static void commit(struct model *m);

static void pvm_write(struct model *m)
{
	uint64_t off;
	uint32_t len;
	void *to;

	pick(&off, &len);
	fill(data, len);
	CHECK(pvm_cache_reserve(&m->pvm, len, &to) == 0);
	memcpy(to, data, len);
	if (rnd(400) == 0) /* while a write is being received */
		commit(m);
	pvm_cache_append(&m->pvm, off, len, true);
	memcpy(m->pvm_view + off, data, len);
}

static void pvm_zero(struct model *m)
{
	uint64_t off;
	uint32_t len;
	void *none;

	pick(&off, &len);
	CHECK(pvm_cache_reserve(&m->pvm, 0, &none) == 0);
	pvm_cache_append(&m->pvm, off, len, false);
	memset(m->pvm_view + off, 0, len);
}

/* A write that was being received when the link broke must leave no trace. */
static void pvm_torn_write(struct model *m)
{
	void *to;

	CHECK(pvm_cache_reserve(&m->pvm, 3000, &to) == 0);
	memset(to, 0xee, 1000);
}

struct applying {
	struct model *m;
	unsigned fail_after;
	struct pvm_applied applied;
};

static int apply(void *opaque, uint64_t off, const void *p, uint32_t len)
{
	struct applying *a = opaque;

	if (a->fail_after && !--a->fail_after)
		return -EIO;
	return p ? storage_write(&a->m->st, p, len, off) : storage_zero(&a->m->st, len, off, true);
}

static void commit(struct model *m)
{
	unsigned k = (unsigned)rnd(MARKS_MAX);
	struct applying a = { .m = m, .fail_after = rnd(4) ? 0 : 1 + (unsigned)rnd(20) };
	int r;

	CHECK(pvm_cache_commit(&m->pvm, m->epoch + 1, apply, &a) == -ENOENT);
	if (k >= m->nmarks)
		return;
	r = pvm_cache_commit(&m->pvm, m->epochs[k], apply, &a);
	if (r) {
		CHECK(r == -EIO);
		m->retries++;
		a.fail_after = 0;
		CHECK(pvm_cache_commit(&m->pvm, m->epochs[k], apply, &a) == 0);
	}
	m->spilled += m->svm.spill_fd >= 0;
	a.applied = pvm_cache_applied(&m->pvm);
	CHECK(a.applied.epoch == m->epochs[k]);
	pvm_cache_settled(&m->pvm, &a.applied);
	svm_cache_drop(&m->svm);
	memcpy(m->storage, m->frozen[k], SIZE);
	memcpy(m->svm_view, m->frozen[k], SIZE);
	for (unsigned i = k + 1; i < m->nmarks; i++) {
		unsigned char *swap = m->frozen[i - k - 1];

		m->frozen[i - k - 1] = m->frozen[i];
		m->frozen[i] = swap;
		m->epochs[i - k - 1] = m->epochs[i];
	}
	m->nmarks -= k + 1;
	m->committed++;
	check_storage(m);
	CHECK(svm_cache_bytes(&m->svm) == 0);
}

static void svm_change(struct model *m, bool zero)
{
	uint64_t off;
	uint32_t len;

	pick(&off, &len);
	if (zero)
		memset(data, 0, len);
	else
		fill(data, len);
	CHECK((zero ? svm_cache_zero(&m->svm, len, off) : svm_cache_write(&m->svm, data, len, off)) == 0);
	memcpy(m->svm_view + off, data, len);
}

/* A guest's request after the failover, as disk.c does it. */
static void alone_change(struct model *m, bool zero)
{
	uint64_t off;
	uint32_t len;

	pick(&off, &len);
	if (zero)
		memset(data, 0, len);
	else
		fill(data, len);
	CHECK(svm_cache_settle_edges(&m->svm, off, len) == 0);
	if (zero)
		CHECK(storage_zero(&m->st, len, off, rnd(2)) == 0);
	else
		CHECK(storage_write(&m->st, data, len, off) == 0);
	svm_cache_forget(&m->svm, off, len);
	memcpy(m->svm_view + off, data, len);
}

static void write_some_back(struct model *m)
{
	uint64_t off = rnd(SIZE), len;

	if (svm_cache_next(&m->svm, off, SIZE, 4096 * (1 + rnd(8)), &off, &len)) {
		CHECK(range_ok(off, len, SIZE) && len && off % 4096 == 0);
		CHECK(svm_cache_write_back(&m->svm, off, len) == 0);
	}
}

static void check_svm_somewhere(struct model *m)
{
	uint64_t off;
	uint32_t len;

	pick(&off, &len);
	check_range(m, m->svm_view, off, len);
}

/* The rest goes back; then storage is what the survivor sees, and a new peer starts from it. */
static void finish_alone(struct model *m)
{
	uint64_t off = 0, len;

	check_range(m, m->svm_view, 0, SIZE);
	while (svm_cache_next(&m->svm, off, SIZE, 1 << 20, &off, &len))
		CHECK(svm_cache_write_back(&m->svm, off, len) == 0);
	CHECK(svm_cache_empty(&m->svm));
	memcpy(m->storage, m->svm_view, SIZE);
	check_storage(m);
	svm_cache_drop(&m->svm);
	memcpy(m->pvm_view, m->storage, SIZE);
	m->alone = false;
}

static void fail_over(struct model *m)
{
	if (rnd(2))
		pvm_torn_write(m);
	pvm_cache_drop(&m->pvm);
	CHECK(pvm_cache_begin(&m->pvm) == 0);
	m->nmarks = 0;
	m->epoch = 0;
	m->alone = true;
	m->failovers++;
	check_storage(m);
}

static void secondary_step(struct model *m)
{
	unsigned what = (unsigned)rnd(1000);

	if (pvm_cache_bytes(&m->pvm) > PVM_MAX / 4 || what < 4) {
		pvm_mark(m);
		commit(m);
	} else if (what < 8) {
		pvm_mark(m);
	} else if (what < 9) {
		fail_over(m);
	} else if (what < 300) {
		pvm_write(m);
	} else if (what < 350) {
		pvm_zero(m);
	} else if (what < 600) {
		svm_change(m, false);
	} else if (what < 650) {
		svm_change(m, true);
	} else {
		check_svm_somewhere(m);
	}
}

static void alone_step(struct model *m)
{
	unsigned what = (unsigned)rnd(1000);

	if (what < 8)
		finish_alone(m);
	else if (what < 200)
		alone_change(m, false);
	else if (what < 250)
		alone_change(m, true);
	else if (what < 500)
		write_some_back(m);
	else
		check_svm_somewhere(m);
}

static void open_storage(struct storage *st, uint64_t size)
{
	char path[] = "/tmp/colo-test-disk-XXXXXX", why[160];
	int fd = mkstemp(path);

	CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	close(fd);
	if (storage_open(st, path, NULL, false, why, sizeof(why))) {
		fprintf(stderr, "%s %s\n", path, why);
		abort();
	}
	unlink(path);
}

/* An unlinked journal, in memory if possible: this is not about power losses. */
static void open_journal(struct redo *j)
{
	char dir[] = "/dev/shm/colo-test-XXXXXX", other[] = "/tmp/colo-test-XXXXXX", path[64], why[160];
	char *made = mkdtemp(dir) ? dir : mkdtemp(other);

	CHECK(made && redo_open(j, made, "test", JOURNAL, why, sizeof(why)) == 0);
	snprintf(path, sizeof(path), "%s/test.journal", made);
	CHECK(unlink(path) == 0 && rmdir(made) == 0);
}

static void test_model(unsigned long steps)
{
	static struct model m;

	open_storage(&m.st, SIZE);
	open_journal(&m.journal);
	CHECK(pvm_cache_init(&m.pvm, &m.journal, SIZE, PVM_MAX) == 0 && pvm_cache_begin(&m.pvm) == 0);
	CHECK(svm_cache_init(&m.svm, &m.st, SVM_MAX, "/tmp") == 0);
	m.storage = calloc(1, SIZE);
	m.pvm_view = calloc(1, SIZE);
	m.svm_view = calloc(1, SIZE);
	for (int i = 0; i < MARKS_MAX; i++)
		m.frozen[i] = malloc(SIZE);
	for (step = 0; step < steps; step++)
		if (m.alone)
			alone_step(&m);
		else
			secondary_step(&m);
	printf("model: %lu steps, %u commits, %u retried, %u with spill, %u failovers\n", steps, m.committed,
	       m.retries, m.spilled, m.failovers);
	CHECK(steps < 100000 || (m.committed && m.retries && m.spilled && m.failovers));
	for (int i = 0; i < MARKS_MAX; i++)
		free(m.frozen[i]);
	free(m.storage);
	free(m.pvm_view);
	free(m.svm_view);
	pvm_cache_destroy(&m.pvm);
	redo_close(&m.journal);
	svm_cache_destroy(&m.svm);
	storage_close(&m.st);
}

static void test_bitmap(void)
{
	const uint64_t size = 200 * BITMAP_BLOCK + 512;
	unsigned char want[201] = { 0 };
	struct bitmap b, copy;
	uint64_t set = 0, found = 0;

	CHECK(bitmap_init(&b, size) == 0 && b.blocks == 201);
	for (step = 0; step < 60; step++) {
		uint64_t off = rnd(size), len = rnd(3 * BITMAP_BLOCK);

		len = len < size - off ? len : size - off;
		bitmap_note(&b, off, len);
		for (uint64_t i = off; i < off + len; i++)
			want[i / BITMAP_BLOCK] = 1;
	}
	CHECK(bitmap_copy(&copy, &b) == 0);
	for (uint64_t i = 0; i < b.blocks; i++) {
		CHECK(bitmap_test(&b, i) == want[i] && bitmap_test(&copy, i) == want[i]);
		set += want[i];
	}
	for (uint64_t i = 0; (i = bitmap_next(&copy, i)) < copy.blocks; i++, found++)
		CHECK(want[i]);
	CHECK(found == set && bitmap_bytes(&b) == set * BITMAP_BLOCK && bitmap_bytes(&copy) == bitmap_bytes(&b));
	bitmap_free(&b);
	bitmap_free(&copy);
	printf("bitmap: %llu of 201 blocks\n", (unsigned long long)set);
}

static void note_progress(void *opaque, uint64_t done)
{
	uint64_t *told = opaque;

	CHECK(done > *told && done <= SIZE + 512);
	*told = done;
}

static uint64_t identity_of(struct storage *st)
{
	uint64_t id = 0, told = 0;
	bool blank;

	CHECK(identity_compute(st, &id, &blank, note_progress, &told) == 0 && id);
	return id;
}

static void test_identity(void)
{
	struct storage sparse, written, longer;
	uint64_t id;

	open_storage(&sparse, SIZE);
	open_storage(&written, SIZE);
	open_storage(&longer, SIZE + 512);
	memset(data, 0, SIZE);
	CHECK(storage_write(&written, data, SIZE, 0) == 0);
	CHECK(identity_of(&sparse) == identity_of(&written));
	CHECK(identity_of(&sparse) != identity_of(&longer));
	for (step = 0; step < 40; step++) {
		uint64_t off;
		uint32_t len;

		pick(&off, &len);
		fill(data, len);
		CHECK(storage_write(&sparse, data, len, off) == 0 && storage_write(&written, data, len, off) == 0);
		pick(&off, &len);
		CHECK(storage_zero(&sparse, len, off, true) == 0 && storage_zero(&written, len, off, false) == 0);
		id = identity_of(&sparse);
		CHECK(id == identity_of(&written));
		off = rnd(SIZE);
		CHECK(storage_read(&written, data, 1, off) == 0);
		data[0] ^= 1;
		CHECK(storage_write(&written, data, 1, off) == 0 && identity_of(&written) != id);
		data[0] ^= 1;
		CHECK(storage_write(&written, data, 1, off) == 0 && identity_of(&written) == id);
	}
	CHECK(storage_zero(&sparse, SIZE, 0, true) == 0 && storage_zero(&written, SIZE, 0, true) == 0);
	CHECK(storage_write(&sparse, "moved", 5, 0) == 0 && storage_write(&written, "moved", 5, 65536) == 0);
	CHECK(identity_of(&sparse) != identity_of(&written));
	storage_close(&sparse);
	storage_close(&written);
	storage_close(&longer);
	printf("identity: 40 contents, with and without holes\n");
}

/* The appending thread: more than fits, so it must wait for commits; then until it is interrupted. */
static void *overfill(void *arg)
{
	struct pvm_cache *c = arg;
	uint64_t n = 0;
	void *to;
	int r;

	while ((r = pvm_cache_reserve(c, 65536, &to)) == 0) {
		memset(to, (int)(n % 251), 65536);
		pvm_cache_append(c, n * 65536, 65536, true);
		if (++n % 8 == 0)
			CHECK(pvm_cache_mark(c, n / 8) == 0);
	}
	CHECK(r == -EINTR);
	return NULL;
}

static int apply_ordered(void *opaque, uint64_t off, const void *p, uint32_t len)
{
	uint64_t *next = opaque;
	const unsigned char *bytes = p;

	CHECK(off == *next && len == 65536);
	CHECK(bytes[0] == off / 65536 % 251 && bytes[65535] == bytes[0]);
	*next += len;
	return 0;
}

static unsigned settled;

/* called when the appending thread runs short of slots */
static void settle_at_once(void *cache)
{
	struct pvm_applied a = pvm_cache_applied(cache);

	pvm_cache_settled(cache, &a);
	settled++;
}

static void test_pvm_full(void)
{
	struct timespec ms = { 0, 1000000 };
	struct redo journal;
	struct pvm_cache c;
	uint64_t next = 0, epoch = 1;
	pthread_t t;

	open_journal(&journal);
	CHECK(pvm_cache_init(&c, &journal, 1u << 30, 4u << 20) == 0 && pvm_cache_begin(&c) == 0);
	pvm_cache_on_short(&c, settle_at_once, &c);
	CHECK(pthread_create(&t, NULL, overfill, &c) == 0);
	for (unsigned tries = 0; epoch <= 100; tries++) {
		int r = pvm_cache_commit(&c, epoch, apply_ordered, &next);

		CHECK(pvm_cache_journal_bytes(&c) <= journal.slots * REDO_SLOT);
		CHECK(pvm_cache_memory_bytes(&c) <= 4u << 20);
		CHECK(r == 0 || r == -ENOENT);
		CHECK(tries < 20000); /* 20 s */
		if (r)
			nanosleep(&ms, NULL);
		else
			epoch++;
	}
	pvm_cache_interrupt(&c, true);
	pthread_join(t, NULL);
	pvm_cache_destroy(&c);
	redo_close(&journal);
	CHECK(next == 100 * 8 * 65536ull && settled);
	printf("pvm full: %llu MiB through a journal of 16 and memory of 4, %u times settled\n",
	       (unsigned long long)next >> 20, settled);
}

/* A full journal ends in an error if no commit can come, or none comes for long. */
static void test_pvm_in_vain(void)
{
	struct timespec before, after;
	struct redo journal;
	struct pvm_cache c;

	open_journal(&journal);
	CHECK(pvm_cache_init(&c, &journal, 1u << 30, 4u << 20) == 0);
	for (int marked = 0; marked < 2; marked++) {
		uint64_t off = 0;
		void *to;
		int r;

		pvm_cache_drop(&c);
		pvm_cache_set_patience(&c, marked ? 300 : 60000);
		CHECK(pvm_cache_begin(&c) == 0 && (!marked || pvm_cache_mark(&c, 1) == 0));
		clock_gettime(CLOCK_MONOTONIC, &before);
		for (; !(r = pvm_cache_reserve(&c, 65536, &to)); off += 65536)
			pvm_cache_append(&c, off, 65536, true);
		clock_gettime(CLOCK_MONOTONIC, &after);
		CHECK(r == -EXFULL && off > 12u << 20 && after.tv_sec - before.tv_sec < 20);
	}
	pvm_cache_destroy(&c);
	redo_close(&journal);
	printf("pvm full: in vain\n");
}

/* How much is written until a checkpoint is asked for. */
static uint64_t until_asked(struct svm_cache *c, uint64_t *off)
{
	uint64_t from = *off;

	while (!svm_cache_wants_checkpoint(c)) {
		CHECK(*off - from <= 20u << 20);
		CHECK(svm_cache_write(c, data, 65536, *off) == 0);
		*off += 65536;
	}
	return *off - from;
}

static void test_svm_asks(void)
{
	static const struct { uint64_t max, each; } cases[] = { { 8u << 20, 4u << 20 }, { 1u << 30, 16u << 20 } };
	struct storage st;

	open_storage(&st, 64u << 20);
	for (unsigned i = 0; i < 2; i++) {
		struct svm_cache c;
		uint64_t off = 0;

		CHECK(svm_cache_init(&c, &st, cases[i].max, "/tmp") == 0);
		CHECK(svm_cache_zero(&c, 60u << 20, 0) == 0 && !svm_cache_wants_checkpoint(&c)); /* no data to save */
		for (int times = 0; times < 3; times++)
			CHECK(until_asked(&c, &off) <= cases[i].each + 65536 && off >= (unsigned)(times + 1) * cases[i].each);
		svm_cache_drop(&c);
		off = 0;
		CHECK(until_asked(&c, &off) >= cases[i].each);
		svm_cache_destroy(&c);
	}
	storage_close(&st);
	printf("svm cache: asks for checkpoints\n");
}

#define SLOTS 64
static struct range_lock ranges;
static _Atomic int owners[SLOTS];

static void *lock_ranges(void *arg)
{
	uint64_t x = (uint64_t)(uintptr_t)arg * 0x9e3779b97f4a7c15ull + seed;

	for (int i = 0; i < 20000; i++) {
		uint64_t first, n;
		struct range r;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		first = (x >> 33) % SLOTS;
		n = 1 + (x >> 50) % 8;
		n = n < SLOTS - first ? n : SLOTS - first;
		range_lock(&ranges, &r, first * DISK_BLOCK + (x >> 20) % DISK_BLOCK, (n - 1) * DISK_BLOCK + 1);
		for (uint64_t s = first; s < first + n; s++)
			CHECK(atomic_fetch_add(&owners[s], 1) == 0);
		for (uint64_t s = first; s < first + n; s++)
			atomic_fetch_sub(&owners[s], 1);
		range_unlock(&ranges, &r);
	}
	return NULL;
}

static void test_ranges(void)
{
	pthread_t t[4];

	CHECK(range_ok(0, 0, 0) && range_ok(5, 5, 10) && !range_ok(6, 5, 10) && !range_ok(11, 0, 10));
	CHECK(!range_ok(1, UINT64_MAX, 10) && !range_ok(UINT64_MAX, 1, 10) && range_ok(10, 0, 10));
	range_lock_init(&ranges);
	for (uintptr_t i = 0; i < 4; i++)
		CHECK(pthread_create(&t[i], NULL, lock_ranges, (void *)(i + 1)) == 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	CHECK(!ranges.first && !ranges.last && !ranges.waiting);
	range_lock_destroy(&ranges);
	printf("ranges: 80000 locks by 4 threads\n");
}

static unsigned long number(int argc, char **argv, int i, const char *name, unsigned long otherwise)
{
	const char *s = argc > i ? argv[i] : getenv(name);

	return s ? strtoul(s, NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
	unsigned long steps = number(argc, argv, 2, "COLO_STEPS", 200000);

	seed = number(argc, argv, 1, "COLO_SEED", (unsigned long)time(NULL) ^ ((unsigned long)getpid() << 16));
	rng = seed * 2 + 1;
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	test_bitmap();
	test_ranges();
	test_identity();
	test_pvm_full();
	test_pvm_in_vain();
	test_svm_asks();
	test_model(steps);
	return 0;
}
