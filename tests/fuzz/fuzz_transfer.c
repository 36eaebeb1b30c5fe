/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_transfer.c - a checkpoint that comes over the BULK channel
 *
 * A checkpoint that is taken for complete must say nothing outside the RAM blocks and the staging area.
 */
#include "daemon/transfer.c"

#include <sys/mman.h>

#include "tests/fuzz/daemon_stub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STAGE = 24 * AGENT_PAGE_SIZE };

static unsigned received_now;

void checkpoint_received(struct daemon *d, uint64_t epoch, uint32_t flags, uint64_t ran_at_ns)
{
	const struct stage_header *h = (const void *)d->agent.stage;
	const struct stage_record *r = (const void *)(h + 1);
	uint64_t pages = 0;

	(void)epoch, (void)flags, (void)ran_at_ns;
	received_now++;
	CHECK(h->data_off <= STAGE && sizeof(*h) + h->nrec * sizeof(*r) <= h->data_off);
	CHECK(h->npages <= (STAGE - h->data_off) / AGENT_PAGE_SIZE);
	for (uint64_t i = 0; i < h->nrec; i++, r++) {
		CHECK(r->block < 2 && r->npages);
		CHECK(r->offset + r->npages * AGENT_PAGE_SIZE <= d->agent.blocks.blocks.block[r->block].size);
		pages += r->flags & STAGE_ZERO ? 0 : r->npages;
	}
	CHECK(pages == h->npages);
}

static void prepare(struct daemon *d)
{
	struct agent_reply *b = &d->agent.blocks;

	if (!d->transfer) {
		d->agent.stage = aligned_alloc(AGENT_PAGE_SIZE, STAGE);
		d->agent.device_fd = memfd_create("device", MFD_CLOEXEC);
		d->agent.stage_fd = -1;
		if (!d->agent.stage || transfer_init(d) < 0)
			abort();
	}
	d->agent.stage_size = STAGE;
	b->blocks.n = 2;
	b->blocks.block[0].size = 64 * AGENT_PAGE_SIZE;
	b->blocks.block[1].size = 3 * AGENT_PAGE_SIZE;
	d->agent.have_blocks = true;
	transfer_reset(d);
}

/* the first byte: how much comes at a time */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct daemon *d = stub_daemon(false);
	size_t step, n;
	int fd[2];

	if (!size)
		return 0;
	prepare(d);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		abort();
	step = 1 + (size_t)data[0] * 256 + size / 16;
	d->peer.fd[PEER_BULK] = fd[0];
	data++;
	for (size--; size && !d->peer.mute; size -= n, data += n) {
		n = size < step ? size : step;
		if (send(fd[1], data, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n)
			break;
		for (int i = 0; i < 4 && !d->peer.mute; i++)
			transfer_on_bulk(d, UV_READABLE);
	}
	close(fd[1]);
	if (!d->peer.mute)
		transfer_on_bulk(d, UV_READABLE);
	close(fd[0]);
	return 0;
}
