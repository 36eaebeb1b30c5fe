/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_redo.c - the journal and the write-back file, through power losses
 *
 * A PVM cache works on a real journal file. The model knows what the disk holds at each boundary,
 * what of it a commit has written to storage, and what was synced when. A power loss takes every
 * block of journal and storage that was written since its last sync and keeps it, loses it, cuts it
 * at some byte or (journal) fills it with rubbish; then the journal is repeated on what is left, up
 * to an epoch that a pair might agree on, and must give exactly the content at that boundary. SEED
 * and STEPS come from the command line or from COLO_SEED and COLO_STEPS.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "disk/pvm_cache.h"
#include "disk/range.h"
#include "disk/redo.h"
#include "disk/storage.h"
#include "disk/svm_cache.h"
#include "disk/writeback.h"

#define SIZE      ((3u << 20) + 5 * 512)
#define EPOCHS    64 /* boundaries the model remembers */
#define BLOCK     4096u
#define JOURNAL   (16u << 20)
#define WRITE_MAX 262144u

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

/* What stable storage makes of `now` when the power goes: `stable` is what it had for certain.
 * rubbish: also bytes may be ruined that were not written but share a block with such that were;
 * only the journal is made for that, for a disk no file system is either. */
static void lose_power(unsigned char *now, const unsigned char *stable, size_t size, bool rubbish)
{
	unsigned mood = (unsigned)rnd(4); /* all kept, all lost, or some of each */

	for (size_t at = 0; at < size; at += BLOCK) {
		size_t n = size - at < BLOCK ? size - at : BLOCK, cut;
		unsigned how = mood < 2 ? mood : (unsigned)rnd(rubbish ? 4 : 3);

		if (!memcmp(now + at, stable + at, n))
			continue;
		cut = how == 2 ? rnd(n) : n;
		if (how == 1)
			memcpy(now + at, stable + at, n);
		else if (how == 2)
			memcpy(now + at + cut, stable + at + cut, n - cut);
		else if (how == 3)
			fill(now + at, n);
	}
}

/* ---- the journal ---- */

struct boundary {
	uint64_t epoch;
	unsigned char *content;
};

struct model {
	char dir[64];
	struct redo j;
	struct pvm_cache c;
	size_t journal_size;
	unsigned char *journal_stable; /* at the last sync */
	unsigned char *pvm;            /* what the PVM sees */
	unsigned char *storage, *storage_stable;
	struct boundary known[EPOCHS];
	unsigned nknown;
	uint64_t epoch, committed;     /* last boundary, last commit */
	uint64_t meta_session, meta_tail, meta_epoch; /* as the metadata have it */
	bool torn;                     /* a commit failed half-way */
	unsigned commits, torn_commits, settled, losses, further, spilled, asked;
};

static unsigned char data[WRITE_MAX];

static void read_file(int fd, void *p, size_t n)
{
	CHECK(pread(fd, p, n, 0) == (ssize_t)n);
}

static struct boundary *find(struct model *m, uint64_t epoch)
{
	for (unsigned i = 0; i < m->nknown; i++)
		if (m->known[i].epoch == epoch)
			return &m->known[i];
	return NULL;
}

static void remember(struct model *m, uint64_t epoch)
{
	struct boundary oldest = m->known[0];

	if (m->nknown == EPOCHS) {
		memmove(m->known, m->known + 1, (EPOCHS - 1) * sizeof(m->known[0]));
		m->known[EPOCHS - 1] = oldest;
	} else {
		m->nknown++;
	}
	m->known[m->nknown - 1].epoch = epoch;
	memcpy(m->known[m->nknown - 1].content, m->pvm, SIZE);
}

static void mark_unsynced(struct model *m)
{
	m->epoch += 1 + rnd(3);
	CHECK(pvm_cache_mark(&m->c, m->epoch) == 0);
	remember(m, m->epoch);
}

static void mark(struct model *m)
{
	mark_unsynced(m);
	read_file(m->j.fd, m->journal_stable, m->journal_size);
}

static void change(struct model *m)
{
	static const uint32_t longest[] = { 512, 8192, 65536, WRITE_MAX };
	bool zero = rnd(8) == 0;
	uint32_t len = (uint32_t)(1 + rnd(longest[rnd(4)]));
	uint64_t off = rnd(SIZE);
	void *to;

	if (len > SIZE - off)
		len = (uint32_t)(SIZE - off);
	fill(data, len);
	if (rnd(10) == 0) /* data that looks like the journal itself */
		CHECK(pread(m->j.fd, data, len, (off_t)(rnd(m->journal_size / 512 - 512) * 512)) == (ssize_t)len);
	CHECK(pvm_cache_reserve(&m->c, zero ? 0 : len, &to) == 0);
	if (!zero)
		memcpy(to, data, len);
	m->asked += pvm_cache_append(&m->c, off, len, !zero);
	if (zero)
		memset(m->pvm + off, 0, len);
	else
		memcpy(m->pvm + off, data, len);
	CHECK(pvm_cache_touches(&m->c, off, len));
}

struct applying {
	unsigned char *to;
	unsigned fail_after;
};

static int apply(void *opaque, uint64_t off, const void *p, uint32_t len)
{
	struct applying *a = opaque;

	if (a->fail_after && !--a->fail_after)
		return -EIO;
	CHECK(range_ok(off, len, SIZE));
	if (p)
		memcpy(a->to + off, p, len);
	else
		memset(a->to + off, 0, len);
	return 0;
}

static void commit(struct model *m)
{
	struct applying a = { m->storage, rnd(6) ? 0 : 1 + (unsigned)rnd(10) };
	struct boundary *b = &m->known[m->nknown - 1 - rnd(m->nknown < 3 ? m->nknown : 3)];
	int r;

	if (b->epoch <= m->committed)
		return;
	m->spilled += m->c.chunks > m->c.in_memory;
	m->committed = b->epoch; /* begun: nothing before it can be had any more */
	r = pvm_cache_commit(&m->c, b->epoch, apply, &a);
	if (r) {
		CHECK(r == -EIO);
		m->torn = true;
		m->torn_commits++;
		if (rnd(2))
			return;
		a.fail_after = 0;
		CHECK(pvm_cache_commit(&m->c, b->epoch, apply, &a) == 0);
	}
	m->torn = false;
	m->commits++;
	CHECK(!memcmp(m->storage, b->content, SIZE));
	for (uint64_t off = 0; b->epoch == m->epoch && !memcmp(m->pvm, b->content, SIZE) && off < SIZE; off += 65536)
		CHECK(m->c.applied != m->c.appended || !pvm_cache_touches(&m->c, off, 1));
}

static void settle(struct model *m)
{
	struct pvm_applied a = pvm_cache_applied(&m->c);

	memcpy(m->storage_stable, m->storage, SIZE);
	if (!a.epoch)
		return;
	m->meta_epoch = a.epoch;
	m->meta_tail = a.tail;
	m->settled++;
	pvm_cache_settled(&m->c, &a);
}

/* As LINK and its first commit do it: storage is what the PVM has. */
static void begin(struct model *m)
{
	pvm_cache_drop(&m->c);
	CHECK(pvm_cache_mark(&m->c, m->epoch + 1) == -EPERM);
	CHECK(pvm_cache_begin(&m->c) == 0);
	m->nknown = 0;
	memcpy(m->storage, m->pvm, SIZE);
	mark(m);
	m->committed = m->epoch;
	CHECK(pvm_cache_commit(&m->c, m->epoch, apply, &(struct applying){ m->storage, 0 }) == 0);
	memcpy(m->storage_stable, m->storage, SIZE);
	m->meta_session = pvm_cache_applied(&m->c).session;
	m->meta_tail = pvm_cache_applied(&m->c).tail;
	m->meta_epoch = m->epoch;
	m->torn = false;
}

/* The journal after the power loss, opened anew. */
static void damage_journal(struct model *m)
{
	unsigned char *now = malloc(m->journal_size);
	char why[160];

	read_file(m->j.fd, now, m->journal_size);
	lose_power(now, m->journal_stable, m->journal_size, true);
	CHECK(pwrite(m->j.fd, now, m->journal_size, 0) == (ssize_t)m->journal_size);
	memcpy(m->journal_stable, now, m->journal_size);
	free(now);
	redo_close(&m->j);
	CHECK(redo_open(&m->j, m->dir, "test", JOURNAL, why, sizeof(why)) == 0);
}

static void power_loss(struct model *m)
{
	struct applying a = { m->storage, 0 };
	uint64_t last, target, stable = m->epoch;
	struct boundary *b;
	int r;

	if (rnd(2)) /* in the middle of a boundary */
		mark_unsynced(m);
	damage_journal(m);
	lose_power(m->storage, m->storage_stable, SIZE, false);
	CHECK(redo_last_epoch(&m->j, m->meta_session, m->meta_tail, &last) == 0);
	if (last < m->meta_epoch)
		last = m->meta_epoch;
	CHECK(last >= stable && find(m, last));
	m->further += last > stable;
	do { /* any that all disks of a VM may have: committed, or later */
		target = m->known[rnd(m->nknown)].epoch;
	} while (target < m->committed || target > last);
	b = find(m, target);
	if (target != m->meta_epoch) {
		if (rnd(4) == 0) { /* cut off half-way, and begun anew */
			a.fail_after = 1 + (unsigned)rnd(100);
			r = redo_replay(&m->j, m->meta_session, m->meta_tail, target, apply, &a);
			CHECK(r == 0 || r == -EIO);
			a.fail_after = 0;
		}
		CHECK(redo_replay(&m->j, m->meta_session, m->meta_tail, target, apply, &a) == 0);
	}
	CHECK(!memcmp(m->storage, b->content, SIZE));
	CHECK(redo_replay(&m->j, m->meta_session, m->meta_tail, last + 1, apply, &a) == -ENODATA);
	CHECK(!memcmp(m->storage, b->content, SIZE)); /* nothing was applied then */
	memcpy(m->pvm, m->storage, SIZE);
	m->losses++;
	begin(m);
}

/* Bounded as commits and settling bound it: the appending thread would wait here. */
static bool must_commit(struct model *m)
{
	return m->c.next - m->c.tail + 2 >= m->j.slots;
}

static void relieve(struct model *m)
{
	if (m->epoch == m->committed && m->c.applied != m->c.appended)
		mark(m);
	m->torn = false;
	if (pvm_cache_applied(&m->c).epoch != m->epoch) {
		m->committed = m->epoch;
		CHECK(pvm_cache_commit(&m->c, m->epoch, apply, &(struct applying){ m->storage, 0 }) == 0);
		m->commits++;
	}
	settle(m);
	if (must_commit(m)) { /* a single epoch that filled it */
		mark(m);
		m->committed = m->epoch;
		CHECK(pvm_cache_commit(&m->c, m->epoch, apply, &(struct applying){ m->storage, 0 }) == 0);
		settle(m);
	}
	CHECK(!must_commit(m));
}

static void one_step(struct model *m)
{
	unsigned what = (unsigned)rnd(1000);

	if (must_commit(m))
		relieve(m);
	if (what < 30)
		mark(m);
	else if (what < 45)
		commit(m);
	else if (what < 55 && !m->torn)
		settle(m);
	else if (what < 65)
		power_loss(m);
	else
		change(m);
}

static void make_dir(char *dir)
{
	strcpy(dir, "/dev/shm/colo-test-XXXXXX"); /* what is stable is the model's business */
	if (mkdtemp(dir))
		return;
	strcpy(dir, "/tmp/colo-test-XXXXXX");
	CHECK(mkdtemp(dir));
}

static void remove_dir(const char *dir)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/test.journal", dir);
	unlink(path);
	CHECK(rmdir(dir) == 0);
}

static void test_journal(unsigned long steps)
{
	static struct model m;
	char why[160];
	struct stat sb;

	make_dir(m.dir);
	CHECK(redo_open(&m.j, m.dir, "test", JOURNAL, why, sizeof(why)) == 0);
	CHECK(fstat(m.j.fd, &sb) == 0 && sb.st_size <= JOURNAL && sb.st_size > JOURNAL - 2 * (1 << 20));
	CHECK((uint64_t)sb.st_blocks * 512 >= (uint64_t)sb.st_size);
	m.journal_size = (size_t)sb.st_size;
	CHECK(pvm_cache_init(&m.c, &m.j, SIZE, 4u << 20) == 0);
	m.journal_stable = malloc(m.journal_size);
	m.pvm = calloc(1, SIZE);
	m.storage = calloc(1, SIZE);
	m.storage_stable = calloc(1, SIZE);
	for (int i = 0; i < EPOCHS; i++)
		m.known[i].content = malloc(SIZE);
	begin(&m);
	for (step = 0; step < steps; step++)
		one_step(&m);
	printf("journal: %lu steps, %u power losses (%u came back further than the last sync), %u commits, %u torn, "
	       "%u settled, %u read back\n", steps, m.losses, m.further, m.commits, m.torn_commits, m.settled,
	       m.spilled);
	CHECK(steps < 20000 || (m.losses && m.further && m.torn_commits && m.settled && m.spilled && m.asked));
	pvm_cache_destroy(&m.c);
	redo_close(&m.j);
	remove_dir(m.dir);
	for (int i = 0; i < EPOCHS; i++)
		free(m.known[i].content);
	free(m.journal_stable);
	free(m.pvm);
	free(m.storage);
	free(m.storage_stable);
}

/* Two epochs: a write of 700 bytes; a write of 300 and a zeroing. How far one comes if byte `at` is
 * wrong. */
static uint64_t reached(size_t at)
{
	size_t header = sizeof(struct redo_record), second = at - BLOCK;

	if (at < BLOCK) /* data is filled up to 8 bytes, and the boundary to a block */
		return at < header + 700 || (at >= header + 704 && at < 2 * header + 704) ? 0 : 9;
	return second < header + 300 || (second >= header + 304 && second < 3 * header + 304) ? 7 : 9;
}

static void test_every_byte(void)
{
	unsigned char *image;
	char dir[64], why[160];
	struct pvm_cache c;
	struct redo j;
	uint64_t last, session;
	size_t end;
	void *to;

	make_dir(dir);
	CHECK(redo_open(&j, dir, "test", JOURNAL, why, sizeof(why)) == 0);
	CHECK(pvm_cache_init(&c, &j, SIZE, 4u << 20) == 0 && pvm_cache_begin(&c) == 0);
	CHECK(pvm_cache_reserve(&c, 700, &to) == 0);
	memset(to, 1, 700);
	pvm_cache_append(&c, 0, 700, true);
	CHECK(pvm_cache_mark(&c, 7) == 0);
	CHECK(pvm_cache_reserve(&c, 300, &to) == 0);
	memset(to, 2, 300);
	pvm_cache_append(&c, 0, 300, true);
	CHECK(pvm_cache_reserve(&c, 0, &to) == 0);
	pvm_cache_append(&c, 100, 10, false);
	CHECK(pvm_cache_mark(&c, 9) == 0);
	session = c.session;
	end = BLOCK + 3 * sizeof(struct redo_record) + 304;
	image = malloc(2 * BLOCK);
	read_file(j.fd, image, 2 * BLOCK);
	for (size_t cut = 0; cut < end; cut += 1 + rnd(5)) {
		unsigned char wrong = image[cut] ^ 0x40;

		CHECK(pwrite(j.fd, &wrong, 1, (off_t)cut) == 1);
		CHECK(redo_last_epoch(&j, session, 0, &last) == 0 && last == reached(cut));
		CHECK(pwrite(j.fd, image + cut, 1, (off_t)cut) == 1);
	}
	CHECK(redo_last_epoch(&j, session, 0, &last) == 0 && last == 9);
	CHECK(redo_last_epoch(&j, session + 1, 0, &last) == 0 && last == 0);
	CHECK(redo_last_epoch(&j, session, j.slots, &last) == 0 && last == 0); /* the next lap */
	free(image);
	pvm_cache_destroy(&c);
	redo_close(&j);
	remove_dir(dir);
	printf("every byte: some of %zu damaged\n", end);
}

/* ---- the write-back file ---- */

static int load(void *opaque, uint64_t off, const void *p, uint64_t len)
{
	unsigned char *to = opaque;

	CHECK(range_ok(off, len, SIZE));
	if (p)
		memcpy(to + off, p, len);
	else
		memset(to + off, 0, len);
	return 0;
}

static int must_not(void *opaque, uint64_t off, const void *p, uint64_t len)
{
	CHECK(!"nothing of a damaged file is used");
	return 0;
}

static void damage_and_load(const char *dir, const struct writeback_seal *seal)
{
	char path[128];
	unsigned char b;
	uint64_t at = rnd(seal->bytes);
	int fd;

	snprintf(path, sizeof(path), "%s/test.writeback", dir);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0 && pread(fd, &b, 1, (off_t)at) == 1);
	b ^= (unsigned char)(1 + rnd(255));
	CHECK(pwrite(fd, &b, 1, (off_t)at) == 1);
	CHECK(writeback_load(dir, "test", SIZE, seal, must_not, NULL) == -EBADMSG);
	CHECK(ftruncate(fd, (off_t)at) == 0);
	CHECK(writeback_load(dir, "test", SIZE, seal, must_not, NULL) == -EBADMSG);
	close(fd);
	writeback_remove(dir, "test");
	CHECK(writeback_load(dir, "test", SIZE, seal, must_not, NULL) == -EBADMSG);
}

static void open_storage(struct storage *st)
{
	char path[] = "/tmp/colo-test-disk-XXXXXX", why[160];
	int fd = mkstemp(path);

	CHECK(fd >= 0 && ftruncate(fd, SIZE) == 0);
	close(fd);
	CHECK(storage_open(st, path, NULL, false, why, sizeof(why)) == 0);
	unlink(path);
}

static void change_svm(struct svm_cache *c, unsigned char *view)
{
	uint64_t off = rnd(SIZE);
	uint32_t len = (uint32_t)(1 + rnd(rnd(4) ? 9000 : WRITE_MAX));
	bool zero = rnd(4) == 0;

	if (len > SIZE - off)
		len = (uint32_t)(SIZE - off);
	fill(data, len);
	if (zero)
		memset(data, 0, len);
	CHECK((zero ? svm_cache_zero(c, len, off) : svm_cache_write(c, data, len, off)) == 0);
	memcpy(view + off, data, len);
}

static void test_writeback(void)
{
	unsigned char *base = malloc(SIZE), *view = malloc(SIZE), *got = malloc(SIZE);
	struct writeback_seal seal;
	struct storage st;
	struct svm_cache c;
	uint64_t bytes = 0;
	char dir[64];

	make_dir(dir);
	open_storage(&st);
	CHECK(svm_cache_init(&c, &st, 64 * 4096, "/tmp") == 0); /* most of it is spilled */
	for (step = 0; step < 60; step++) {
		fill(base, SIZE);
		CHECK(storage_write(&st, base, SIZE, 0) == 0);
		memcpy(view, base, SIZE);
		svm_cache_drop(&c);
		for (unsigned n = (unsigned)rnd(20); n; n--)
			change_svm(&c, view);
		CHECK(writeback_save(dir, "test", &c, &seal) == 0);
		memcpy(got, base, SIZE);
		for (int twice = 0; twice < 2; twice++) {
			CHECK(writeback_load(dir, "test", SIZE, &seal, load, got) == 0);
			CHECK(!memcmp(got, view, SIZE));
		}
		CHECK(writeback_load(dir, "test", SIZE + 512, &seal, must_not, NULL) == -EBADMSG);
		bytes += seal.bytes;
		damage_and_load(dir, &seal);
	}
	CHECK(writeback_save("/nowhere", "test", &c, &seal) == -ENOENT);
	printf("write-back: 60 files, %llu KiB\n", (unsigned long long)bytes >> 10);
	svm_cache_destroy(&c);
	storage_close(&st);
	CHECK(rmdir(dir) == 0);
	free(base);
	free(view);
	free(got);
}

static unsigned long number(int argc, char **argv, int i, const char *name, unsigned long otherwise)
{
	const char *s = argc > i ? argv[i] : getenv(name);

	return s ? strtoul(s, NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
	unsigned long steps = number(argc, argv, 2, "COLO_STEPS", 20000);

	seed = number(argc, argv, 1, "COLO_SEED", (unsigned long)time(NULL) ^ ((unsigned long)getpid() << 16));
	rng = seed * 2 + 1;
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	test_every_byte();
	test_writeback();
	test_journal(steps);
	return 0;
}
