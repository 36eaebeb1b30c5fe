/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * link_recv.c - the secondary's end of the link
 *
 * Until the first boundary no SVM has run and storage has no meaning yet, so what the first sync brings goes
 * straight to storage and memory stays bounded however large the disk is. From that boundary on
 * everything goes to the PVM cache. Nothing the peer sends is believed: a header that is not exactly
 * right ends the link, by name.
 *
 * Questions (HASH, HOLE) are answered here, in the thread that receives writes, so that the answer is about
 * the disk as it is at the question's place in the stream. Before the first boundary that is storage.
 * After it storage lacks what is not committed; but where no uncommitted record touches it, it is the
 * same. Only this thread adds records, so that stays true while it reads; a commit that is being applied
 * meanwhile writes only where records still count as uncommitted, so nothing is read half-written.
 */
#include "disk/link_recv.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "disk/disk.h"
#include "disk/hash.h"

#define LARGE 32768u

struct secondary {
	struct receiver rx;
	bool greeted, synced;
	_Alignas(struct disk_link_run) char scratch[DISK_LINK_MAX_DATA];
};

/* Some bytes; false when the link ended. */
static bool receive(struct receiver *rx, struct iovec *to, size_t *got)
{
	struct msghdr m = { .msg_iov = to, .msg_iovlen = 2 };
	int fd = rx->d->link.fd;
	ssize_t n;

	for (;;) {
		n = recvmsg(fd, &m, 0);
		if (n > 0) {
			*got = (size_t)n;
			return true;
		}
		if (n == 0) {
			link_fail(rx->d, "the peer closed the connection");
			return false;
		}
		if (errno == EAGAIN)
			link_poll(fd, POLLIN);
		else if (errno != EINTR)
			break;
	}
	link_fail(rx->d, "receiving from the peer: %s", disk_strerror(errno));
	return false;
}

/* What is wanted goes to where it is wanted, what follows to the buffer, which is empty. Among large data
 * that is only a header, so that the data are spared the second copy. */
static bool receive_more(struct receiver *rx, void *out, size_t n, size_t *got)
{
	size_t ahead = rx->large ? sizeof(struct disk_link_header) : RECEIVE_BUFFER, have;
	struct iovec to[] = { { out, n }, { rx->buffer, ahead } };

	if (!receive(rx, to, &have))
		return false;
	*got = have < n ? have : n;
	rx->pos = 0;
	rx->len = have - *got;
	return true;
}

bool receive_bytes(struct receiver *rx, void *p, size_t n)
{
	char *out = p;

	if (n > sizeof(struct disk_link_header))
		rx->large = n >= LARGE;
	while (n) {
		size_t have = rx->len - rx->pos;

		if (have) {
			have = have < n ? have : n;
			memcpy(out, rx->buffer + rx->pos, have);
			rx->pos += have;
		} else if (!receive_more(rx, out, n, &have)) {
			return false;
		}
		out += have;
		n -= have;
	}
	return true;
}

bool receive_refuse(struct receiver *rx, const struct disk_link_header *h, const char *fault)
{
	link_fail(rx->d, "the peer broke the protocol: %s (op %u, offset %llu, length %u)", fault, h->op,
		  (unsigned long long)h->offset, h->length);
	return false;
}

bool receive_header(struct receiver *rx, struct disk_link_header *h)
{
	if (!receive_bytes(rx, h, sizeof(*h)))
		return false;
	h->magic = be32toh(h->magic);
	h->op = be32toh(h->op);
	h->offset = be64toh(h->offset);
	h->length = be32toh(h->length);
	return h->magic == DISK_LINK_MAGIC || receive_refuse(rx, h, "bad magic");
}

/* ---- writes ---- */

static bool storage_ok(struct secondary *s, int r, const char *doing)
{
	if (!r)
		return true;
	disk_storage_error(s->rx.d, r, doing);
	link_fail(s->rx.d, "%s failed: %s", doing, disk_strerror(-r));
	return false;
}

static void append(struct secondary *s, uint64_t off, uint32_t len, bool with_data)
{
	if (pvm_cache_append(&s->rx.d->pvm, off, len, with_data))
		control_event(s->rx.d, DISK_EV_WANT_CHECKPOINT, 0, true, "the PVM cache is half full");
}

static bool cache_ok(struct secondary *s, int r)
{
	if (r == -EXFULL)
		link_fail(s->rx.d, "the journal is full, and no checkpoint comes");
	else if (r != -EINTR) /* interrupted: the link has failed already */
		return storage_ok(s, r, "writing the journal");
	return false;
}

/* Before a write that goes straight to storage. 0 or -errno */
static int begin_direct(struct disk *d, uint64_t off, uint32_t len)
{
	int r = commit_receive(d);

	return r ? r : dirty_note(d, off, len);
}

static bool on_write(struct secondary *s, uint64_t off, uint32_t len)
{
	struct disk *d = s->rx.d;
	void *data;
	int r;

	if (d->link.direct) {
		if (!receive_bytes(&s->rx, s->scratch, len))
			return false;
		r = begin_direct(d, off, len);
		return storage_ok(s, r ? r : storage_write(&d->storage, s->scratch, len, off),
				  "writing what the peer sent");
	}
	if (!cache_ok(s, pvm_cache_reserve(&d->pvm, len, &data)) || !receive_bytes(&s->rx, data, len))
		return false;
	append(s, off, len, true);
	return true;
}

static bool on_zero(struct secondary *s, uint64_t off, uint32_t len)
{
	struct disk *d = s->rx.d;
	void *none;
	int r;

	if (d->link.direct) {
		r = begin_direct(d, off, len);
		return storage_ok(s, r ? r : storage_zero(&d->storage, len, off, true), "writing what the peer sent");
	}
	if (!cache_ok(s, pvm_cache_reserve(&d->pvm, 0, &none)))
		return false;
	append(s, off, len, false);
	return true;
}

static bool on_boundary(struct secondary *s, uint64_t epoch)
{
	struct disk *d = s->rx.d;
	int r = commit_receive(d);

	if (!r)
		r = pvm_cache_mark(&d->pvm, epoch);
	if (r == -EPROTO)
		link_fail(d, "boundary %llu is not above the one before", (unsigned long long)epoch);
	else if (r == -EXFULL)
		link_fail(d, "too many boundaries without a commit");
	else if (r)
		storage_ok(s, r, "noting the boundary in the data directory");
	if (r)
		return false;
	d->link.direct = false;
	return control_event(d, DISK_EV_BOUNDARY, epoch, true, "") == 0;
}

/* ---- questions ---- */

static bool is_pending(struct secondary *s, uint64_t off, uint32_t len)
{
	struct disk *d = s->rx.d;

	return !d->link.direct && pvm_cache_touches(&d->pvm, off, len);
}

static bool answer(struct secondary *s, uint32_t op, uint64_t off, const void *data, uint32_t size)
{
	return link_say(s->rx.d, op, off, size, data, size);
}

static bool on_hash(struct secondary *s, uint64_t off, uint32_t len)
{
	struct disk *d = s->rx.d;
	unsigned char theirs[DISK_HASH_BYTES], mine[DISK_HASH_BYTES];
	uint64_t parts[DISK_HASH_PARTS];
	unsigned n;

	if (!receive_bytes(&s->rx, theirs, sizeof(theirs)))
		return false;
	if (is_pending(s, off, len))
		return answer(s, DISK_LINK_BUSY, off, NULL, 0);
	if (!storage_ok(s, storage_read_sparse(&d->storage, s->scratch, len, off), "reading to compare with the peer"))
		return false;
	hash_block(d->link.seed, s->scratch, len, mine);
	if (!memcmp(mine, theirs, sizeof(mine)))
		return answer(s, DISK_LINK_SAME, off, NULL, 0);
	n = hash_parts(d->link.seed, s->scratch, len, parts);
	for (unsigned i = 0; i < n; i++)
		parts[i] = htobe64(parts[i]);
	return answer(s, DISK_LINK_DIFFERS, off, parts, n * (uint32_t)sizeof(parts[0]));
}

static int reads_as_zeroes(struct secondary *s, uint64_t off, uint64_t len, bool *zero)
{
	struct storage *st = &s->rx.d->storage;
	int r = 0;

	*zero = true;
	while (len && *zero && !r) {
		uint64_t n = storage_hole(st, off, len);

		if (!n) {
			n = len < sizeof(s->scratch) ? len : sizeof(s->scratch);
			r = storage_read(st, s->scratch, n, off);
			*zero = !r && hash_all_zero(s->scratch, n);
		}
		off += n;
		len -= n;
	}
	return r;
}

static bool on_hole(struct secondary *s, uint64_t off, uint32_t len)
{
	bool zero;

	if (is_pending(s, off, len))
		return answer(s, DISK_LINK_BUSY, off, NULL, 0);
	if (!storage_ok(s, reads_as_zeroes(s, off, len, &zero), "reading to compare with the peer"))
		return false;
	return answer(s, zero ? DISK_LINK_SAME : DISK_LINK_DIFFERS, off, NULL, 0);
}

/* ---- the first sync ---- */

/* The next run of blocks changed here; false when there is none. */
static bool next_run(const struct bitmap *b, uint64_t *block, struct disk_link_run *run)
{
	uint64_t first = bitmap_next(b, *block), end = first, stop;

	if (first >= b->blocks)
		return false;
	while (end < b->blocks && bitmap_test(b, end))
		end++;
	*block = end;
	stop = end * DISK_HASH_BLOCK < b->size ? end * DISK_HASH_BLOCK : b->size;
	run->offset = htobe64(first * DISK_HASH_BLOCK);
	run->length = htobe64(stop - first * DISK_HASH_BLOCK);
	return true;
}

static bool send_target(struct secondary *s, bool none)
{
	struct disk *d = s->rx.d;
	struct disk_link_run *runs = (struct disk_link_run *)(void *)s->scratch;
	uint64_t block = none ? d->changed.blocks : 0;
	bool more = true;

	_Static_assert(DISK_LINK_MAX_RUNS * sizeof(*runs) <= sizeof(s->scratch), "runs fit");
	while (more) {
		uint32_t n = 0, size;

		while (n < DISK_LINK_MAX_RUNS && (more = next_run(&d->changed, &block, &runs[n])))
			n++;
		size = n * (uint32_t)sizeof(*runs);
		if (!link_say(d, DISK_LINK_TARGET, more, size, runs, size))
			return false;
	}
	return true;
}

static bool on_hello(struct secondary *s, const struct disk_link_header *h)
{
	s->greeted = true;
	s->rx.d->link.seed = h->offset;
	return send_target(s, h->length);
}

/* ---- all of them ---- */

static const char *hash_fault(const struct disk *d, const struct disk_link_header *h)
{
	uint64_t rest = h->offset <= d->storage.size ? d->storage.size - h->offset : 0;

	if (h->offset % DISK_HASH_BLOCK || !rest)
		return "not a block of the disk";
	if (h->op == DISK_LINK_HASH)
		return h->length == (rest < DISK_HASH_BLOCK ? rest : DISK_HASH_BLOCK) ? NULL : "not one block";
	if (!h->length || h->length > DISK_LINK_MAX_HOLE || h->length > rest ||
	    (h->length % DISK_HASH_BLOCK && h->length != rest))
		return "not whole blocks, or too many";
	return NULL;
}

/* What may come when. */
static const char *order_fault(const struct secondary *s, const struct disk_link_header *h)
{
	if (s->greeted == (h->op == DISK_LINK_HELLO))
		return s->greeted ? "a second hello" : "no hello";
	if (h->op == DISK_LINK_SYNCED && s->synced)
		return "synced twice";
	if (h->op == DISK_LINK_BOUNDARY && sync_phase(s->rx.d) != SYNC_DONE)
		return "a boundary before the sync is stable";
	return NULL;
}

/* The one place where a header is judged. NULL if it is right. */
static const char *header_fault(const struct secondary *s, const struct disk_link_header *h)
{
	const struct disk *d = s->rx.d;

	switch (h->op) {
	case DISK_LINK_HELLO:
		return h->length > 1 ? "a hello that is not understood" : NULL;
	case DISK_LINK_BOUNDARY:
		return h->length ? "boundary with a length" : NULL;
	case DISK_LINK_SYNCED:
		return h->length || h->offset ? "synced with a length" : NULL;
	case DISK_LINK_HASH:
	case DISK_LINK_HOLE:
		return hash_fault(d, h);
	case DISK_LINK_WRITE:
		if (h->length > DISK_LINK_MAX_DATA)
			return "length beyond the limit";
		/* fall through */
	case DISK_LINK_ZERO:
		if (!h->length)
			return "length is zero";
		return range_ok(h->offset, h->length, d->storage.size) ? NULL : "beyond the end of the disk";
	default:
		return "unknown operation";
	}
}

static bool obey(struct secondary *s, const struct disk_link_header *h)
{
	switch (h->op) {
	case DISK_LINK_HELLO:
		return on_hello(s, h);
	case DISK_LINK_BOUNDARY:
		return on_boundary(s, h->offset);
	case DISK_LINK_SYNCED:
		s->synced = true;
		sync_set_phase(s->rx.d, SYNC_FLUSHING); /* the flusher answers */
		return true;
	case DISK_LINK_HASH:
		return on_hash(s, h->offset, h->length);
	case DISK_LINK_HOLE:
		return on_hole(s, h->offset, h->length);
	case DISK_LINK_WRITE:
		atomic_fetch_add(&s->rx.d->link.moved, h->length);
		return on_write(s, h->offset, h->length);
	default:
		return on_zero(s, h->offset, h->length);
	}
}

static bool one_message(struct secondary *s)
{
	struct disk_link_header h;
	const char *fault;

	if (!receive_header(&s->rx, &h))
		return false;
	fault = header_fault(s, &h);
	if (!fault)
		fault = order_fault(s, &h);
	return fault ? receive_refuse(&s->rx, &h, fault) : obey(s, &h);
}

void *link_receiver(void *disk)
{
	struct disk *d = disk;
	struct secondary *s = malloc(sizeof(*s));

	if (s) {
		s->rx.d = d;
		s->rx.pos = s->rx.len = 0;
		s->rx.large = false;
		s->greeted = s->synced = false;
		while (one_message(s))
			;
	}
	link_fail(d, "out of memory"); /* unless there was a better reason */
	free(s);
	return NULL;
}
