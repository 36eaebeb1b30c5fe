/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_disk.c - what the other disk manager says over the DISK channel, in either direction
 *
 * Storage, cache and sync are stubs that judge what would be done: nothing beyond the disk, no answer that
 * was not asked for. The first byte chooses side and state, the second how many questions are open.
 */
#include "disk/link_recv.c"
#include "disk/link_reply.c"

#include <unistd.h>

#define CHECK(cond) do { if (!(cond)) abort(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DISK = 1 << 20 };

static bool failed;
static void *reserved;
static uint64_t last_mark, last_committed;
static bool stalls; /* the ring takes nothing */

static void check_range(uint64_t off, uint64_t len)
{
	CHECK(len && off <= DISK && len <= DISK - off);
}

void link_fail(struct disk *d, const char *fmt, ...)
{
	(void)d, (void)fmt;
	failed = true;
}

void link_poll(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	poll(&p, 1, 10);
}

int control_event(struct disk *d, uint32_t op, uint64_t epoch, bool wait, const char *text)
{
	(void)d, (void)op, (void)epoch, (void)wait, (void)text;
	return 0;
}

void disk_storage_error(struct disk *d, int r, const char *doing)
{
	(void)d, (void)r, (void)doing;
}

const char *disk_strerror(int r)
{
	(void)r;
	return "";
}

void bitmap_note(struct bitmap *b, uint64_t off, uint64_t len)
{
	(void)b;
	check_range(off, len);
}

int storage_write(struct storage *s, const void *buf, size_t len, uint64_t off)
{
	const volatile char *p = buf;

	(void)s;
	check_range(off, len);
	for (size_t i = 0; i < len; i++)
		(void)p[i];
	return 0;
}

int storage_zero(struct storage *s, uint64_t len, uint64_t off, bool punch)
{
	(void)s, (void)punch;
	check_range(off, len);
	return 0;
}

int pvm_cache_reserve(struct pvm_cache *c, uint32_t len, void **data)
{
	(void)c;
	free(reserved);
	*data = reserved = malloc(len ? len : 1);
	return reserved ? 0 : -ENOMEM;
}

bool pvm_cache_append(struct pvm_cache *c, uint64_t off, uint32_t len, bool with_data)
{
	(void)c, (void)with_data;
	check_range(off, len);
	return false;
}

int pvm_cache_mark(struct pvm_cache *c, uint64_t epoch)
{
	(void)c;
	if (epoch <= last_mark)
		return -EPROTO;
	last_mark = epoch;
	return 0;
}

bool pvm_cache_touches(struct pvm_cache *c, uint64_t off, uint64_t len)
{
	(void)c;
	check_range(off, len);
	return off / DISK_HASH_BLOCK % 3 == 1;
}

int commit_receive(struct disk *d)
{
	(void)d;
	return 0;
}

int dirty_note(struct disk *d, uint64_t off, uint64_t len)
{
	(void)d;
	check_range(off, len);
	return 0;
}

int dirty_committed(struct disk *d, uint64_t epoch)
{
	(void)d;
	CHECK(epoch == last_committed);
	return 0;
}

int storage_read(struct storage *s, void *buf, size_t len, uint64_t off)
{
	(void)s;
	check_range(off, len);
	memset(buf, off / DISK_HASH_BLOCK % 2 ? 7 : 0, len);
	return 0;
}

int storage_read_sparse(struct storage *s, void *buf, size_t len, uint64_t off)
{
	return storage_read(s, buf, len, off);
}

uint64_t storage_hole(struct storage *s, uint64_t off, uint64_t max)
{
	(void)s;
	check_range(off, max);
	return off / DISK_HASH_BLOCK % 4 == 2 && max > 4096 ? 4096 : 0;
}

uint64_t bitmap_next(const struct bitmap *b, uint64_t block)
{
	while (block < b->blocks && block % 5 == 0)
		block++;
	return block;
}

bool bitmap_test(const struct bitmap *b, uint64_t block)
{
	return block < b->blocks && block % 5;
}

bool link_say(struct disk *d, uint32_t op, uint64_t off, uint32_t length, const void *data, size_t size)
{
	const volatile char *p = data;

	(void)d;
	CHECK(op >= DISK_LINK_TARGET && op <= DISK_LINK_BUSY && length == size);
	CHECK(op == DISK_LINK_TARGET ? off <= 1 : off < DISK && off % DISK_HASH_BLOCK == 0);
	for (size_t i = 0; i < size; i++)
		(void)p[i];
	return !stalls;
}

enum sync_phase sync_phase(struct disk *d)
{
	return d->sync.phase;
}

void sync_set_phase(struct disk *d, enum sync_phase phase)
{
	CHECK(phase > d->sync.phase);
	d->sync.phase = phase;
	if (d->link.role == DISK_SECONDARY)
		d->sync.phase = SYNC_DONE; /* the flusher was quick */
}

bool sync_committed(struct disk *d, uint64_t epoch)
{
	(void)d;
	if (epoch <= last_committed || epoch > 100)
		return false;
	last_committed = epoch;
	return true;
}

static void ask(struct disk *d, unsigned n, bool holes)
{
	for (unsigned i = 0; i < n; i++) {
		struct sync_question *q = &d->sync.questions[(d->sync.answered + i) % DISK_LINK_WINDOW];

		*q = (struct sync_question){ .offset = i % 16 * DISK_HASH_BLOCK, .length = DISK_HASH_BLOCK };
		q->hole = holes && i % 3 == 2;
		q->parts = q->hole ? 0 : DISK_HASH_PARTS;
	}
	d->sync.asked = d->sync.answered + n;
}

static void check_answers(struct disk *d, uint64_t before)
{
	CHECK(d->sync.answered <= d->sync.asked);
	for (uint64_t i = before; i < d->sync.answered; i++) {
		uint32_t answer = d->sync.questions[i % DISK_LINK_WINDOW].answer;

		CHECK(answer == DISK_LINK_SAME || answer == DISK_LINK_DIFFERS ||
		      (answer == DISK_LINK_BUSY && d->sync.phase == SYNC_DONE));
	}
}

static void as_primary(struct disk *d, unsigned state, unsigned questions)
{
	uint64_t before = 1000 + questions; /* any number will do */

	d->link.role = DISK_PRIMARY;
	d->sync.phase = state & 3;
	d->sync.target_end = 0;
	d->sync.answered = before;
	ask(d, questions % (DISK_LINK_WINDOW + 1), state & 4);
	link_replies(d);
	check_answers(d, before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct disk d;
	int fd[2];

	if (size < 2 || size > 100000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		return 0;
	d.storage.size = DISK;
	d.changed.size = DISK;
	d.changed.blocks = DISK / BITMAP_BLOCK;
	d.link.fd = fd[0];
	d.link.direct = data[0] & 2;
	failed = false;
	stalls = data[0] & 4;
	last_mark = last_committed = 0;
	if (send(fd[1], data + 2, size - 2, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size - 2)
		CHECK(size == 2);
	close(fd[1]);
	if (data[0] & 1) {
		as_primary(&d, data[0] >> 1, data[1]);
	} else {
		d.link.role = DISK_SECONDARY;
		d.sync.phase = SYNC_COMPARING;
		link_receiver(&d);
	}
	CHECK(failed);
	close(fd[0]);
	free(reserved);
	reserved = NULL;
	return 0;
}
