/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * compare.c - compare blocks with the peer's, for sync and for verify
 *
 * Theory of operation. For each block the primary puts a question with the block's hash into the stream of
 * mirrored writes; the secondary answers for its own block at that place of the stream. Up to
 * DISK_LINK_WINDOW questions are under way, so that neither latency nor reading costs much.
 *
 * Why the result is exact, though the guest goes on writing. A block is read and its question is put into
 * the stream with the block's range locked, and so is a guest's write (disk.c). So at the question's
 * place both sides have applied the same mirrored writes, and the hashes are those of the two contents at
 * that one place. What is the same there stays the same, because every later write reaches both in the
 * same order. What differs there is sent as it is when the answer comes: read anew and queued with
 * the range locked again, it stands behind every write it contains and before every one it does not; so
 * after it the part is the same on both sides, and stays so. (Parts, not blocks, are compared with the hashes
 * of the question, not with newer content, so a guest's write after the question neither makes nor hides a
 * difference.)
 *
 * Questions are a ring. The worker fills questions[asked], then counts it; the receiver of replies fills in
 * questions[answered], then counts that; the worker handles it, and counts it in `handled`. Each touches
 * only questions which the counters give to it.
 *
 * Holes: what needs no reading here is asked about in long ranges. If such a range differs its blocks
 * are asked about one by one in the next pass, as are blocks that were busy.
 */
#include "disk/compare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/failpoint.h"
#include "disk/disk.h"
#include "disk/hash.h"

#define PROGRESS_NS 200000000u
#define SAMPLE_NS 4000000000u /* the ETA is by the speed of the last one to two of these */
#define HEADER sizeof(struct disk_link_header)

int compare_init(struct compare *c, struct disk *d, struct bitmap *blocks, bool mend, uint64_t least_rate)
{
	int r;

	*c = (struct compare){ .d = d, .todo = *blocks, .mend = mend, .least_rate = least_rate };
	c->total = bitmap_bytes(blocks) < d->storage.size ? bitmap_bytes(blocks) : d->storage.size;
	pthread_mutex_lock(&d->sync.lock);
	c->handled = d->sync.answered; /* all: nothing is under way between two jobs */
	pthread_mutex_unlock(&d->sync.lock);
	c->paced_ns = c->sample[0].ns = c->sample[1].ns = disk_now_ns();
	c->buf = malloc(DISK_HASH_BLOCK);
	r = bitmap_init(&c->again, d->storage.size);
	if (!r && !c->buf)
		r = -ENOMEM;
	atomic_store(&d->sync.moved, 0);
	return r;
}

void compare_free(struct compare *c)
{
	bitmap_free(&c->todo);
	bitmap_free(&c->again);
	free(c->buf);
}

bool compare_finished(const struct compare *c)
{
	return c->todo.set == 0;
}

static void moved(struct compare *c, uint64_t bytes)
{
	atomic_fetch_add(&c->d->sync.moved, bytes);
}

static bool link_gone(struct compare *c)
{
	return atomic_load(&c->d->link.failed);
}

/* ---- progress ---- */

static uint64_t seconds_left(struct compare *c, uint64_t now)
{
	uint64_t done = c->done - c->sample[0].done, ns = now - c->sample[0].ns;

	if (c->done >= c->total)
		return 0;
	if (!done)
		return UINT64_MAX;
	return (uint64_t)((double)(c->total - c->done) / (double)done * (double)ns / 1e9) + 1;
}

void compare_progress(struct compare *c, struct disk_message *m)
{
	uint64_t now = disk_now_ns();

	m->sync.done = c->done < c->total ? c->done : c->total;
	m->sync.total = c->total;
	m->sync.moved = atomic_load(&c->d->sync.moved);
	m->sync.eta_s = seconds_left(c, now);
	if (now - c->sample[1].ns < SAMPLE_NS)
		return;
	c->sample[0] = c->sample[1];
	c->sample[1].ns = now;
	c->sample[1].done = c->done;
}

static void tell(struct compare *c)
{
	struct disk_message m = { .op = DISK_EV_SYNC };
	uint64_t now = disk_now_ns();

	if (now - c->told_ns < PROGRESS_NS)
		return;
	c->told_ns = now;
	compare_progress(c, &m);
	control_send(c->d, &m, false);
}

/* ---- pace ---- */

static void refill(struct compare *c, double rate)
{
	uint64_t now = disk_now_ns();
	double most = rate / 10 + DISK_HASH_BLOCK;

	c->credit += rate * (double)(now - c->paced_ns) / 1e9;
	if (c->credit > most)
		c->credit = most;
	c->paced_ns = now;
}

static double rate_of(struct compare *c)
{
	uint64_t rate = atomic_load(&c->d->link.rate);

	return (double)(rate ? rate : c->least_rate);
}

/* Take `bytes` of credit, waiting until there is some. False: the link is gone. */
static bool pace(struct compare *c, uint32_t bytes)
{
	struct disk_sync *s = &c->d->sync;
	double rate;

	pthread_mutex_lock(&s->lock);
	while (!link_gone(c) && (rate = rate_of(c)) > 0) {
		uint64_t until;
		struct timespec ts;

		refill(c, rate);
		if (c->credit >= 0)
			break;
		until = c->paced_ns + (uint64_t)(-c->credit / rate * 1e9) + 1000;
		if (until > c->paced_ns + PROGRESS_NS)
			until = c->paced_ns + PROGRESS_NS; /* progress goes on, a new rate is noticed */
		ts = (struct timespec){ (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
		pthread_cond_timedwait(&s->changed, &s->lock, &ts);
		pthread_mutex_unlock(&s->lock);
		tell(c);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	c->credit = rate_of(c) > 0 ? c->credit - bytes : 0;
	return !link_gone(c);
}

/* ---- what differs ---- */

enum kind { LEAVE, DATA, ZEROES };

static uint32_t part_bytes(const struct sync_question *q, unsigned part)
{
	uint32_t rest = q->length - part * DISK_HASH_PART;

	return rest < DISK_HASH_PART ? rest : DISK_HASH_PART;
}

static bool differs(const struct sync_question *q, unsigned part)
{
	return q->mine[part] != q->theirs[part];
}

static enum kind kind_of(struct compare *c, const struct sync_question *q, unsigned part)
{
	if (!differs(q, part))
		return LEAVE;
	return hash_all_zero(c->buf + part * DISK_HASH_PART, part_bytes(q, part)) ? ZEROES : DATA;
}

static bool send_run(struct compare *c, uint64_t off, const char *data, uint32_t len, enum kind kind)
{
	moved(c, HEADER + (kind == DATA ? len : 0));
	return kind == DATA ? link_sync_write(c->d, data, len, off) : link_sync_zero(c->d, len, off);
}

/* Runs of parts that differ; the block is in buf, its range is locked. */
static bool send_parts(struct compare *c, const struct sync_question *q)
{
	unsigned i = 0;
	bool ok = true;

	while (ok && i < q->parts) {
		enum kind kind = kind_of(c, q, i);
		unsigned from = i;
		uint32_t len = 0;

		for (; i < q->parts && kind_of(c, q, i) == kind; i++)
			len += part_bytes(q, i);
		if (kind != LEAVE)
			ok = send_run(c, q->offset + from * DISK_HASH_PART, c->buf + from * DISK_HASH_PART, len,
				      kind);
	}
	return ok;
}

static int read_block(struct compare *c, uint64_t off, uint32_t len)
{
	struct disk *d = c->d;

	if (svm_cache_empty(&d->svm))
		return storage_read_sparse(&d->storage, c->buf, len, off);
	return svm_cache_read(&d->svm, c->buf, len, off); /* still an overlay soon after a failover */
}

/* A block could not be read. A sync fails; a verify goes on without it, as the peer may be needed all the more. */
static bool unreadable(struct compare *c, uint64_t off, int r)
{
	disk_storage_error(c->d, r, "reading to compare with the peer");
	if (!c->tolerant) {
		link_fail(c->d, "cannot read what the peer needs: %s", disk_strerror(-r));
		return false;
	}
	if (!c->error)
		c->unread = off;
	c->error = c->error ? c->error : r;
	return true;
}

static bool noted(struct compare *c, const struct sync_question *q)
{
	int r = dirty_note(c->d, q->offset, q->length);

	if (r)
		link_fail(c->d, "cannot note what differs: %s", disk_strerror(-r));
	return r == 0;
}

static bool send_difference(struct compare *c, const struct sync_question *q, bool *sent)
{
	struct range held;
	bool ok;
	int r;

	range_lock(&c->d->ranges, &held, q->offset, q->length);
	r = read_block(c, q->offset, q->length);
	/* Until the peer has committed it the difference is there: should the link end before, the next sync
	 * must find it. Noted once more afterwards, because a boundary may have come in between (dirty.h). */
	ok = !r && noted(c, q) && send_parts(c, q) && noted(c, q);
	range_unlock(&c->d->ranges, &held);
	*sent = ok;
	return r ? unreadable(c, q->offset, r) : ok;
}

static void count_difference(struct compare *c, const struct sync_question *q, bool sent)
{
	for (unsigned i = 0; i < q->parts; i++) {
		if (!differs(q, i))
			continue;
		c->differing += part_bytes(q, i);
		c->mended += sent ? part_bytes(q, i) : 0;
		if (c->nplaces < COMPARE_PLACES)
			c->places[c->nplaces++] = q->offset + i * DISK_HASH_PART;
	}
}

/* ---- answers ---- */

static bool handle(struct compare *c, const struct sync_question *q)
{
	bool sent = false, ok;

	if (q->answer == DISK_LINK_BUSY || (q->answer == DISK_LINK_DIFFERS && q->hole)) {
		bitmap_note(&c->again, q->offset, q->length);
		c->busy |= q->answer == DISK_LINK_BUSY;
		return true;
	}
	c->done += q->length;
	if (q->answer == DISK_LINK_SAME)
		return true;
	ok = !c->mend || send_difference(c, q, &sent);
	count_difference(c, q, sent);
	return ok;
}

/* Is the oldest question answered? With `wait`: wait until it is. False: not yet, or the link is gone. */
static bool answered(struct compare *c, bool wait)
{
	struct disk_sync *s = &c->d->sync;
	bool yes;

	pthread_mutex_lock(&s->lock);
	while (wait && s->answered == c->handled && !link_gone(c))
		pthread_cond_wait(&s->changed, &s->lock);
	yes = s->answered != c->handled;
	pthread_mutex_unlock(&s->lock);
	return yes;
}

/* Handle what is answered, and wait until at most `most` questions are under way. False: the link is gone. */
static bool collect(struct compare *c, uint64_t most)
{
	struct disk_sync *s = &c->d->sync; /* asked: only this thread changes it */

	while (s->asked > c->handled) {
		bool full = s->asked - c->handled > most;

		if (!answered(c, full))
			return !full;
		if (!handle(c, &s->questions[c->handled % DISK_LINK_WINDOW]))
			return false;
		c->handled++;
		tell(c);
	}
	return true;
}

/* ---- questions ---- */

/* The next free one; collect() made sure that there is one. */
static struct sync_question *new_question(struct compare *c, uint64_t off, uint32_t len, bool hole)
{
	struct sync_question *q = &c->d->sync.questions[c->d->sync.asked % DISK_LINK_WINDOW];

	q->offset = off;
	q->length = len;
	q->hole = hole;
	q->parts = hole ? 0 : hash_part_count(len);
	return q;
}

/* It must count as asked before it can be answered. */
static void count_asked(struct compare *c)
{
	struct disk_sync *s = &c->d->sync;

	pthread_mutex_lock(&s->lock);
	s->asked++;
	pthread_mutex_unlock(&s->lock);
}

static bool ask_block(struct compare *c, uint64_t off, uint32_t len)
{
	struct sync_question *q = new_question(c, off, len, false);
	unsigned char hash[DISK_HASH_BYTES];
	struct range held;
	bool ok = true;
	int r;

	range_lock(&c->d->ranges, &held, off, len);
	r = read_block(c, off, len);
	if (!r) {
		hash_parts(c->d->link.seed, c->buf, len, q->mine);
		hash_block(c->d->link.seed, c->buf, len, hash);
		count_asked(c);
		ok = link_say(c->d, DISK_LINK_HASH, off, len, hash, sizeof(hash));
		moved(c, HEADER + sizeof(hash));
	}
	range_unlock(&c->d->ranges, &held);
	return r ? unreadable(c, off, r) : ok;
}

/* How much of [off, off + most) is a hole here, in whole blocks. What lies over storage is not looked at. */
static uint64_t hole_bytes(struct compare *c, uint64_t off, uint64_t most)
{
	uint64_t hole = svm_cache_empty(&c->d->svm) ? storage_hole(&c->d->storage, off, most) : 0;

	return hole < most ? hole / DISK_HASH_BLOCK * DISK_HASH_BLOCK : hole;
}

/* *asked: bytes of a hole from off on that are asked about, 0 if there is none. False: the link is gone. */
static bool ask_hole(struct compare *c, uint64_t off, uint64_t most, uint64_t *asked)
{
	struct range held;
	bool ok = true;

	*asked = hole_bytes(c, off, most);
	if (!*asked)
		return true;
	range_lock(&c->d->ranges, &held, off, *asked);
	*asked = hole_bytes(c, off, *asked); /* somebody may have written */
	if (*asked) {
		new_question(c, off, (uint32_t)*asked, true);
		count_asked(c);
		ok = link_say(c->d, DISK_LINK_HOLE, off, (uint32_t)*asked, NULL, 0);
		moved(c, HEADER);
	}
	range_unlock(&c->d->ranges, &held);
	return ok;
}

/* Bytes in blocks of this pass from `block` on, as many as one question about a hole may have. */
static uint64_t run_bytes(struct compare *c, uint64_t block)
{
	uint64_t end = block, off = block * DISK_HASH_BLOCK, rest = c->d->storage.size - off, len;

	while (end < c->todo.blocks && (end - block) * DISK_HASH_BLOCK < DISK_LINK_MAX_HOLE &&
	       bitmap_test(&c->todo, end))
		end++;
	len = (end - block) * DISK_HASH_BLOCK;
	return len < rest ? len : rest;
}

/* Ask about `block`, or about the hole that begins there; *asked: bytes. */
static bool ask(struct compare *c, uint64_t block, uint64_t *asked)
{
	uint64_t off = block * DISK_HASH_BLOCK, rest = c->d->storage.size - off;
	uint32_t len = rest < DISK_HASH_BLOCK ? (uint32_t)rest : DISK_HASH_BLOCK;

	*asked = 0;
	if (!c->one_by_one && !ask_hole(c, off, run_bytes(c, block), asked))
		return false;
	if (*asked)
		return true;
	*asked = len;
	return pace(c, len) && ask_block(c, off, len);
}

/* What is left becomes what is to be done. */
static bool turn(struct compare *c)
{
	struct bitmap empty;

	if (bitmap_init(&empty, c->d->storage.size)) {
		link_fail(c->d, "out of memory");
		return false;
	}
	bitmap_free(&c->todo);
	c->todo = c->again;
	c->again = empty;
	c->one_by_one = true;
	return true;
}

bool compare_pass(struct compare *c)
{
	uint64_t block = 0, asked;

	c->busy = false;
	while ((block = bitmap_next(&c->todo, block)) < c->todo.blocks) {
		tell(c);
		if (!collect(c, DISK_LINK_WINDOW - 1) || !ask(c, block, &asked))
			return false;
		FAILPOINT("disk-sync-part");
		block += (asked + DISK_HASH_BLOCK - 1) / DISK_HASH_BLOCK;
	}
	return collect(c, 0) && turn(c);
}
