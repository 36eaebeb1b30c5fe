/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_base.c - TRANSLATIONS: pieces of a table from a primary that may say anything
 *
 * The input is a sequence of: length (two bytes), a piece of that many. Whatever is taken must be a table: within its
 * bound, the same after a second journey, with entries that translate there and back.
 */
#include <errno.h>

#include "tests/net/net_test.h"

enum { MAX_FLOWS = 40, ROOM = 65536 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct table {
	uint8_t bytes[2 * ROOM];
	size_t len;
};

static struct tr *first, *second; /* used again: to make one costs more than to use it */
static struct table out[2];
static uint8_t frame[4096];

static void on_waited(void *opaque, const uint8_t *f, size_t n)
{
	(void)opaque, (void)f, (void)n;
	CHECK(!"no SYN waits");
}

static bool take_piece(void *opaque, const uint8_t *piece, size_t len)
{
	struct table *t = opaque;

	CHECK(len <= TR_PIECE_MAX && t->len + len <= sizeof(t->bytes));
	memcpy(t->bytes + t->len, piece, len);
	t->len += len;
	return true;
}

static uint64_t entries(const struct tr *tr)
{
	struct tr_stats st;

	tr_get_stats(tr, &st);
	CHECK(st.entries <= MAX_FLOWS);
	return st.entries;
}

/* to somebody, from an entry's peer, and what the guest answers */
static void talk(const uint8_t *entry)
{
	struct tcp_spec s = {
		.to_guest = true, .gport = (uint16_t)(entry[40] << 8 | entry[41]),
		.peer = entry[34] == 0x86 ? entry[31] - 2u : entry[19],
		.pport = (uint16_t)(entry[32] << 8 | entry[33]), .v6 = entry[34] == 0x86, .vlan = entry[39] != 0,
		.seq = 5, .ack = 77, .tsval = 9, .tsecr = 10, .flags = F_ACK | (entry[72] & (F_FIN | F_RST | F_SYN)),
	};
	size_t n = build_tcp(frame, &s);
	struct seg in, back;

	if (!tr_to_svm(first, frame, n, 2))
		return;
	CHECK(checksums_ok(frame, n) && parse_seg(frame, n, true, &in));
	s.to_guest = false;
	s.gport = in.gport;
	s.seq = in.ack;
	s.ack = in.seq;
	s.tsval = in.tsecr;
	s.tsecr = in.tsval;
	s.flags = F_ACK;
	n = build_tcp(frame, &s);
	if (!tr_from_svm(first, frame, n, 2))
		return;
	CHECK(checksums_ok(frame, n) && parse_seg(frame, n, false, &back));
	CHECK(back.seq == 77 && back.tsval == 10 && back.ack == 5);
}

/* `first` has what came; is it a table? */
static void judge(void)
{
	for (int i = 0; i < 2; i++)
		out[i].len = 0;
	CHECK(tr_save(first, true, 1, take_piece, &out[0]));
	CHECK(out[0].len == 12 + entries(first) * TR_BASE_ENTRY_BYTES);
	CHECK(tr_base_add(second, out[0].bytes, out[0].len) == 0 && tr_base_known(second));
	tr_base_adopt(second);
	tr_reset(second, 1);
	CHECK(entries(first) == entries(second));
	CHECK(tr_save(second, true, 1, take_piece, &out[1]));
	CHECK(out[0].len == out[1].len && memcmp(out[0].bytes, out[1].bytes, out[0].len) == 0);
	for (size_t at = 12; at < out[0].len; at += TR_BASE_ENTRY_BYTES)
		talk(out[0].bytes + at);
}

static void begin(void)
{
	static const struct tr_ops ops = { on_waited };
	struct tr_config cfg = { .max_flows = MAX_FLOWS };

	if (!first) {
		first = tr_new(&cfg, &ops, NULL);
		second = tr_new(&cfg, &ops, NULL);
		CHECK(first && second);
	}
	tr_base_forget(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t nothing[12] = { 3 };

	begin();
	while (size >= 2) {
		size_t n = (size_t)(data[0] << 8 | data[1]);
		uint8_t *piece;
		int r;

		data += 2;
		size -= 2;
		n = n < size ? n : size;
		piece = malloc(n); /* so that a read beyond it is seen */
		memcpy(piece, data, n);
		r = tr_base_add(first, piece, n);
		CHECK(r == 0 || r == -EINVAL);
		free(piece);
		data += n;
		size -= n;
		if (!tr_base_known(first))
			continue;
		tr_base_adopt(first);
		tr_reset(first, 1);
		judge();
	}
	CHECK(tr_base_add(first, nothing, sizeof(nothing)) == 0);
	tr_base_adopt(first);
	tr_reset(first, 1);
	CHECK(entries(first) == 0);
	return 0;
}
