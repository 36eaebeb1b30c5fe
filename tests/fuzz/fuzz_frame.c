/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_frame.c - one raw frame for the parser and for all that rewrites frames
 *
 * What the parser says lies inside the frame; a rewritten frame says what was written, and nothing else is
 * changed; a checksum that was right stays right.
 */
#include "net/flow.h"
#include "tests/net/net_test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_parsed(const struct frame *f)
{
	CHECK(f->len <= NET_FRAME_MAX && f->l3 <= f->len && f->body <= f->len && f->body_len <= f->len - f->body);
	if (f->type != FRAME_TCP)
		return;
	CHECK(f->l4 + 20 + f->opt_len == f->body && f->opt == f->l4 + 20);
	CHECK(!f->ts || (f->ts >= f->opt + 2 && f->ts + 8 <= f->body));
	CHECK(!f->sack || (f->sack >= f->opt + 2 && f->sack + 8 * f->sack_n <= f->body));
}

static void check_rewriting(const struct frame *f, uint8_t *copy)
{
	struct seg seg;
	bool ok = parse_seg(f->data, f->len, false, &seg) && checksums_ok(f->data, f->len);
	struct frame g;

	frame_tcp_set32(copy, f, FRAME_TCP_ACK(f), 0x12345678);
	frame_tcp_set32(copy, f, FRAME_TCP_SEQ(f), 0x9abcdef0);
	frame_tcp_set_window(copy, f, 0xbeef);
	frame_tcp_drop_sack(copy, f);
	if (f->ts)
		frame_tcp_set32(copy, f, f->ts, 77);
	CHECK(frame_parse(&g, copy, f->len) == FRAME_TCP);
	CHECK(g.ack == 0x12345678 && g.seq == 0x9abcdef0 && g.window == 0xbeef && g.body == f->body);
	CHECK(memcmp(copy + g.body, f->data + g.body, g.body_len) == 0);
	CHECK(!ok || checksums_ok(copy, f->len));
}

static void check_made_ack(const struct frame *f)
{
	uint8_t *out = malloc(FRAME_ACK_MAX);
	uint32_t n = frame_make_ack(out, f, 42);
	struct frame g;

	CHECK(n == 0 || n == f->body);
	if (n) {
		CHECK(frame_parse(&g, out, n) == FRAME_TCP);
		CHECK(g.seq == 42 && g.ack == f->ack && g.body_len == 0 && !(g.flags & (TCP_SYN | TCP_FIN | TCP_RST)));
	}
	free(out);
}

/* exactly as large as the frame, so that what is read beyond it is seen */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);
	struct flow_key k;
	struct frame f;

	if (size)
		memcpy(exact, data, size);
	if (frame_parse(&f, exact, size) != FRAME_BAD) {
		check_parsed(&f);
		flow_key_from_guest(&k, &f);
		flow_key_to_guest(&k, &f);
	}
	if (f.type == FRAME_TCP) {
		uint8_t *copy = malloc(size);

		memcpy(copy, data, size);
		frame_syn_options(&f);
		check_made_ack(&f);
		check_rewriting(&f, copy);
		free(copy);
	}
	free(exact);
	return 0;
}
