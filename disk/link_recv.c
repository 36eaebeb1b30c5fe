/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * link_recv.c - the secondary's end of the link
 *
 * Until the first boundary no SVM has run and storage has no meaning yet, so what the first sync brings goes
 * straight to storage and memory stays bounded however large the disk is. From that boundary on
 * everything goes to the PVM cache. Nothing the peer sends is believed: a header that is not exactly
 * right ends the link, by name.
 */
#include "disk/disk.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BUFFER 262144u

struct receiver {
	struct disk *d;
	size_t pos, len; /* of what is buffered */
	char *scratch;   /* DISK_LINK_MAX_DATA, for direct writes */
	char buffer[BUFFER];
};

/* Some bytes; false when the link ended. */
static bool receive(struct receiver *rx, void *p, size_t max, size_t *got)
{
	int fd = rx->d->link.fd;
	ssize_t n;

	for (;;) {
		n = recv(fd, p, max, 0);
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

static bool take(struct receiver *rx, void *p, size_t n)
{
	char *out = p;

	while (n) {
		size_t have = rx->len - rx->pos;

		if (have) {
			have = have < n ? have : n;
			memcpy(out, rx->buffer + rx->pos, have);
			rx->pos += have;
		} else if (n >= BUFFER / 2) { /* large: spare it the copy */
			if (!receive(rx, out, n, &have))
				return false;
		} else {
			rx->pos = rx->len = 0;
			if (!receive(rx, rx->buffer, BUFFER, &rx->len))
				return false;
			continue;
		}
		out += have;
		n -= have;
	}
	return true;
}

static bool storage_ok(struct receiver *rx, int r)
{
	if (!r)
		return true;
	disk_storage_error(rx->d, r, "writing what the peer sent");
	link_fail(rx->d, "cannot write what the peer sent: %s", disk_strerror(-r));
	return false;
}

static void append(struct receiver *rx, uint64_t off, uint32_t len, bool with_data)
{
	if (pvm_cache_append(&rx->d->pvm, off, len, with_data))
		control_event(rx->d, DISK_EV_WANT_CHECKPOINT, 0, true, "the PVM cache is half full");
}

static bool cache_ok(struct receiver *rx, int r)
{
	if (r && r != -EINTR) /* interrupted: the link has failed already */
		link_fail(rx->d, "the PVM cache: %s", disk_strerror(-r));
	return r == 0;
}

static bool on_write(struct receiver *rx, uint64_t off, uint32_t len)
{
	struct disk *d = rx->d;
	void *data;

	if (d->link.direct) {
		if (!take(rx, rx->scratch, len))
			return false;
		bitmap_note(&d->changed, off, len);
		return storage_ok(rx, storage_write(&d->storage, rx->scratch, len, off));
	}
	if (!cache_ok(rx, pvm_cache_reserve(&d->pvm, len, &data)) || !take(rx, data, len))
		return false;
	append(rx, off, len, true);
	return true;
}

static bool on_zero(struct receiver *rx, uint64_t off, uint32_t len)
{
	struct disk *d = rx->d;
	void *none;

	if (d->link.direct) {
		bitmap_note(&d->changed, off, len);
		return storage_ok(rx, storage_zero(&d->storage, len, off, true));
	}
	if (!cache_ok(rx, pvm_cache_reserve(&d->pvm, 0, &none)))
		return false;
	append(rx, off, len, false);
	return true;
}

static bool on_boundary(struct receiver *rx, uint64_t epoch)
{
	struct disk *d = rx->d;
	int r = pvm_cache_mark(&d->pvm, epoch);

	if (r == -EPROTO)
		link_fail(d, "boundary %llu is not above the one before", (unsigned long long)epoch);
	else if (r)
		link_fail(d, "too many boundaries without a commit");
	if (r)
		return false;
	d->link.direct = false;
	return control_event(d, DISK_EV_BOUNDARY, epoch, true, "") == 0;
}

/* The one place where a header is judged. NULL if it is right. */
static const char *header_fault(const struct disk *d, const struct disk_link_header *h)
{
	if (h->magic != DISK_LINK_MAGIC)
		return "bad magic";
	if (h->op != DISK_LINK_WRITE && h->op != DISK_LINK_ZERO && h->op != DISK_LINK_BOUNDARY)
		return "unknown operation";
	if (h->op == DISK_LINK_BOUNDARY)
		return h->length ? "boundary with a length" : NULL;
	if (!h->length)
		return "length is zero";
	if (h->op == DISK_LINK_WRITE && h->length > DISK_LINK_MAX_DATA)
		return "length beyond the limit";
	return range_ok(h->offset, h->length, d->storage.size) ? NULL : "beyond the end of the disk";
}

static bool one_message(struct receiver *rx)
{
	struct disk_link_header h;
	const char *fault;

	if (!take(rx, &h, sizeof(h)))
		return false;
	h.magic = be32toh(h.magic);
	h.op = be32toh(h.op);
	h.offset = be64toh(h.offset);
	h.length = be32toh(h.length);
	fault = header_fault(rx->d, &h);
	if (fault) {
		link_fail(rx->d, "the peer broke the protocol: %s (op %u, offset %llu, length %u)", fault,
			  h.op, (unsigned long long)h.offset, h.length);
		return false;
	}
	if (h.op == DISK_LINK_BOUNDARY)
		return on_boundary(rx, h.offset);
	atomic_fetch_add(&rx->d->link.moved, h.op == DISK_LINK_WRITE ? h.length : 0);
	return h.op == DISK_LINK_WRITE ? on_write(rx, h.offset, h.length)
				       : on_zero(rx, h.offset, h.length);
}

void *link_receiver(void *disk)
{
	struct disk *d = disk;
	struct receiver *rx = malloc(sizeof(*rx));

	if (rx) {
		rx->d = d;
		rx->pos = rx->len = 0;
		rx->scratch = malloc(DISK_LINK_MAX_DATA);
		while (rx->scratch && one_message(rx))
			;
		free(rx->scratch);
	}
	link_fail(d, "out of memory"); /* unless there was a better reason */
	free(rx);
	return NULL;
}
