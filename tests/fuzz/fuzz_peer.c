/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_peer.c - what the other daemon says: messages of the control channel, and hellos
 *
 * The first byte chooses: messages to the primary, to the secondary, to one that took over; a hello; an
 * answer's text. Messages lie at the end of memory of their own, so that what is read beyond is seen.
 */
#include <fcntl.h>
#include <stdlib.h>

#include "daemon/peer.c"
#include "tests/fuzz/daemon_stub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void messages(struct daemon *d, const uint8_t *data, size_t size)
{
	struct peer *p = &d->peer;
	size_t cut = size ? data[0] * size / 256 : 0;

	p->fd[PEER_CONTROL] = open("/dev/null", O_RDWR | O_CLOEXEC);
	p->rtt_ns = p->their_time = 0;
	buffer_free(&p->in);
	if (!size || buffer_init(&p->in, size) < 0)
		abort();
	/* in two pieces: a message may be cut anywhere */
	buffer_put(&p->in, data, cut);
	peer_parse(d);
	if (buffer_len(&p->in) && p->fd[PEER_CONTROL] >= 0 && !p->mute)
		CHECK(buffer_len(&p->in) < sizeof(struct peer_header) + PEER_PAYLOAD_MAX);
	if (!p->mute && p->fd[PEER_CONTROL] >= 0 && buffer_put(&p->in, data + cut, size - cut))
		peer_parse(d);
	peer_drop(d);
	buffer_free(&p->in);
}

/* Bytes of the hello by place: the first pair what channel and disk, then two of place and one of value each. */
static void change(void *p, size_t n, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i + 2 < size; i += 3)
		((uint8_t *)p)[(data[i] << 8 | data[i + 1]) % n] = data[i + 2];
}

static void hello(struct daemon *d, const uint8_t *data, size_t size)
{
	struct peer_hello *h = malloc(sizeof(*h));
	struct peer_answer *a = calloc(1, sizeof(*a));
	char text[240];

	/* what is not given is right; the peer's copies are as of the generation before, or empty */
	d->core.state = size && data[0] & 1 ? CORE_ALONE : CORE_PROTECTED;
	hello_fill(d, h, size > 1 ? data[1] % PEER_NCHANNELS : 0, size > 1 ? data[1] >> 4 : 0);
	memcpy(h->node, "b", 2);
	for (unsigned int i = 0; i < d->cfg->disks; i++) {
		h->disks[i].current = size && data[0] & 2 ? h->disks[i].base : h->disks[i].current;
		h->disks[i].lineage_flags = htobe32(LINEAGE_CONSISTENT);
	}
	change(h, sizeof(*h), data + 2, size > 2 ? size - 2 : 0);
	memset(text, 'x', sizeof(text));
	if (hello_check(d, h, text, sizeof(text)) != PEER_OK)
		CHECK(memchr(text, 0, sizeof(text)) && *text);
	hello_answer_fill(d, a);
	change(a->disks, sizeof(a->disks), data + 2, size > 2 ? size - 2 : 0);
	memset(text, 'x', sizeof(text));
	if (hello_answer_check(d, a, text, sizeof(text)) != PEER_OK)
		CHECK(memchr(text, 0, sizeof(text)) && *text);
	free(a);
	free(h);
}

static void answer(const uint8_t *data, size_t size)
{
	char *text = malloc(size);

	memcpy(text, data, size);
	hello_text(text, size);
	CHECK(strlen(text) < size);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct daemon *d;

	if (size < 2)
		return 0;
	d = stub_daemon(data[0] % 5 != 1);
	d->failover.valid = data[0] % 5 == 2;
	switch (data[0] % 5) {
	case 3: hello(d, data + 1, size - 1); break;
	case 4: answer(data + 1, size - 1); break;
	default: messages(d, data + 1, size - 1);
	}
	return 0;
}
