/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_transfer.c - a checkpoint that comes over the BULK channel
 *
 * A checkpoint that is taken for complete must say nothing outside the RAM blocks and the staging area.
 *
 * The first byte says how it is cut, and whether the rest are the bytes, or (describe()) what records there are,
 * from which a whole checkpoint is made that adds up.
 */
#include "daemon/transfer.c"

#include <sys/mman.h>

#include "tests/fuzz/daemon_stub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STAGE = 24 * AGENT_PAGE_SIZE };

static unsigned received_now;

void checkpoint_received(struct daemon *d, uint64_t epoch, uint32_t flags, uint64_t ran_at_ns)
{
	const struct stage_header *h = (const void *)d->stage.map;
	const struct stage_record *r = (const void *)(h + 1);
	uint64_t pages = 0;

	(void)epoch, (void)flags, (void)ran_at_ns;
	received_now++;
	CHECK(h->data_off <= STAGE && sizeof(*h) + h->nrec * sizeof(*r) <= h->data_off);
	CHECK(h->npages <= (STAGE - h->data_off) / AGENT_PAGE_SIZE);
	for (uint64_t i = 0; i < h->nrec; i++, r++) {
		CHECK(r->block < 2 && r->npages);
		CHECK(r->offset + r->npages * AGENT_PAGE_SIZE <= d->stage.blocks.blocks.block[r->block].size);
		pages += r->flags & STAGE_ZERO ? 0 : r->npages;
	}
	CHECK(pages == h->npages);
}

static void prepare(struct daemon *d)
{
	struct agent_reply *b = &d->stage.blocks;

	if (!d->transfer) {
		d->stage.map = aligned_alloc(AGENT_PAGE_SIZE, STAGE);
		d->stage.device_fd = memfd_create("device", MFD_CLOEXEC);
		d->stage.fd = -1;
		if (!d->stage.map || transfer_init(d) < 0)
			abort();
	}
	d->stage.size = STAGE;
	b->blocks.n = 2;
	b->blocks.block[0].size = 64 * AGENT_PAGE_SIZE;
	b->blocks.block[1].size = 3 * AGENT_PAGE_SIZE;
	d->stage.have_blocks = true;
	transfer_reset(d);
}

static size_t put(uint8_t *out, size_t at, const void *p, size_t n)
{
	memcpy(out + at, p, n);
	return at + n;
}

/* Four bytes a record: block, flags and high bits of the number of pages, first page, pages. The first two
 * bytes: bytes of device state; what the header says wrong. Returns the length. */
static size_t describe(uint8_t *out, const uint8_t *p, size_t n)
{
	static const uint8_t zeroes[AGENT_PAGE_SIZE];
	size_t nrec = (n - 2) / 4 < 20 ? (n - 2) / 4 : 20, at = sizeof(struct bulk_header);
	struct bulk_header h = { .magic = PEER_MAGIC, .epoch = 3, .nrec = nrec, .device_bytes = p[0] };
	struct bulk_trailer t = { .age_ns = 5 };

	for (size_t i = 0; i < nrec; i++) {
		const uint8_t *q = p + 2 + 4 * i;
		struct stage_record r = { .block = q[0] & 3, .flags = q[1] & 1, .offset = q[2] * AGENT_PAGE_SIZE,
			.npages = q[3] | (uint64_t)(q[1] & 0xf0) << 56 };

		h.npages += r.flags & STAGE_ZERO ? 0 : r.npages;
		at = put(out, at, &r, sizeof(r));
	}
	if (p[1] & 1)
		h.npages += (p[1] >> 1) - 64u;
	put(out, 0, &h, sizeof(h));
	for (size_t i = 0; i < h.npages && i < 24; i++)
		at = put(out, at, zeroes, sizeof(zeroes));
	at = put(out, at, zeroes, p[0]);
	return put(out, at, &t, sizeof(t));
}

static void feed(struct daemon *d, int fd, const uint8_t *p, size_t size, size_t step)
{
	for (size_t n; size && !d->peer.mute; size -= n, p += n) {
		n = size < step ? size : step;
		if (send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n)
			break;
		for (int i = 0; i < 4 && !d->peer.mute; i++)
			transfer_on_bulk(d, UV_READABLE);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t whole[32 * AGENT_PAGE_SIZE];
	struct daemon *d = stub_daemon(false);
	size_t step;
	int fd[2];

	if (size < 3)
		return 0;
	prepare(d);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		abort();
	d->peer.fd[PEER_BULK] = fd[0];
	d->peer.tls[PEER_BULK] = tls_new(NULL, fd[0], TLS_CLIENT);
	if (!d->peer.tls[PEER_BULK])
		abort();
	step = 1 + (size_t)data[0] * 256;
	if (data[0] & 1) {
		size = describe(whole, data + 1, size - 1);
		data = whole;
	} else {
		size--;
		data++;
	}
	feed(d, fd[1], data, size, step + size / 16);
	close(fd[1]);
	if (!d->peer.mute)
		transfer_on_bulk(d, UV_READABLE);
	tls_free(d->peer.tls[PEER_BULK]);
	close(fd[0]);
	return 0;
}
