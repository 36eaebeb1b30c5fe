/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tr_base.c - the table of a survivor on its way to the translator of its next secondary
 *
 * A survivor's guest goes on under the numbers that clients know of the connections in the table. A
 * checkpoint makes the SVM a copy of this guest, so these connections have the same two names there:
 * the base is all whole entries as of the boundary, and the survivor's bump. Neither order nor the time of
 * last use matters, names and numbers have to be exact.
 *
 * It comes in pieces: a header and entries, big endian.
 *
 *	 0  u8 flags (PIECE_*), 3 bytes 0, u32 bump, u32 number of entries that follow
 *	12  entries of ENTRY_BYTES:
 *	     0 guest's address   16 peer's address (IPv4: four bytes and zeroes)
 *	    32 u16 peer's port   34 u16 EtherType   36 u32 VLANs
 *	    40 u16 guest's port on the LAN   42 u16 inside
 *	    44 u32 ISN on the LAN   48 u32 inside   52 u32 dts   56 u32 ACK number of the SYN-ACK
 *	    60 u32 guest_fin   64 u32 peer_fin   68 u32 guest_ack
 *	    72 u8 flags (ENTRY_*)   73 u8 class   74 2 bytes 0
 *
 * Open connections come first: what finds no place in a smaller table are those that are over. What was
 * received is kept as it came, checked, and decoded at each reset.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tr_priv.h"

#define HEADER_BYTES 12u
#define ENTRY_BYTES TR_BASE_ENTRY_BYTES
#define PIECE_ENTRIES ((TR_PIECE_MAX - HEADER_BYTES) / ENTRY_BYTES)
#define VLAN_BITS 0x1fff1fffu

enum { PIECE_FIRST = 1, PIECE_LAST = 2, PIECE_SAME = 4 /* no entries: the table is as it was */ };

enum {
	ENTRY_IS_ACK = 1, ENTRY_GUEST_FIN = 2, ENTRY_PEER_FIN = 4, ENTRY_GUEST_ACK = 8,
	ENTRY_GUEST_FIN_ACKED = 16, ENTRY_PEER_FIN_ACKED = 32, ENTRY_ALL = 63,
};

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}

/* --- sending --- */

static uint8_t entry_flags(const struct tr_entry *e)
{
	return (uint8_t)((e->is_ack ? ENTRY_IS_ACK : 0) | (e->has_guest_fin ? ENTRY_GUEST_FIN : 0) |
			 (e->has_peer_fin ? ENTRY_PEER_FIN : 0) | (e->has_guest_ack ? ENTRY_GUEST_ACK : 0) |
			 (e->guest_fin_acked ? ENTRY_GUEST_FIN_ACKED : 0) |
			 (e->peer_fin_acked ? ENTRY_PEER_FIN_ACKED : 0));
}

static void encode(uint8_t *p, const struct tr_entry *e)
{
	memcpy(p, e->key.guest, 16);
	memcpy(p + 16, e->key.peer, 16);
	put16(p + 32, e->key.pport);
	put16(p + 34, e->key.ethertype);
	put32(p + 36, e->key.vlan);
	put16(p + 40, e->port[TR_PVM]);
	put16(p + 42, e->port[TR_SVM]);
	put32(p + 44, e->isn[TR_PVM]);
	put32(p + 48, e->isn[TR_SVM]);
	put32(p + 52, e->dts);
	put32(p + 56, e->ack);
	put32(p + 60, e->guest_fin);
	put32(p + 64, e->peer_fin);
	put32(p + 68, e->guest_ack);
	p[72] = entry_flags(e);
	p[73] = e->class;
	p[74] = p[75] = 0;
}

struct saving {
	struct tr *tr;
	tr_piece_fn *fn;
	void *opaque;
	uint8_t *piece;
	uint32_t n;
	uint8_t flags;
};

static bool send_piece(struct saving *s, uint8_t flags)
{
	memset(s->piece, 0, HEADER_BYTES);
	s->piece[0] = s->flags | flags;
	put32(s->piece + 4, s->tr->bump);
	put32(s->piece + 8, s->n);
	s->flags = 0;
	if (!s->fn(s->opaque, s->piece, HEADER_BYTES + s->n * ENTRY_BYTES))
		return false;
	s->n = 0;
	return true;
}

static bool save_class(struct saving *s, enum tr_class class)
{
	for (const struct tr_entry *e = s->tr->class[class].head; e; e = e->next) {
		if (!tr_whole(e))
			continue;
		if (s->n == PIECE_ENTRIES && !send_piece(s, 0))
			return false;
		encode(s->piece + HEADER_BYTES + s->n++ * ENTRY_BYTES, e);
	}
	return true;
}

bool tr_save(struct tr *tr, bool anew, uint64_t now, tr_piece_fn *fn, void *opaque)
{
	static uint8_t piece[TR_PIECE_MAX];
	struct saving s = { .tr = tr, .fn = fn, .opaque = opaque, .piece = piece, .flags = PIECE_FIRST };
	bool done;

	tr_set_now(tr, now);
	tr_expire(tr, UINT32_MAX);
	if (!anew && tr->saved == tr->version) {
		s.flags = PIECE_SAME;
		return send_piece(&s, PIECE_LAST);
	}
	done = save_class(&s, TR_OPEN) && save_class(&s, TR_YOUNG) && save_class(&s, TR_OVER) &&
	       send_piece(&s, PIECE_LAST);
	if (done)
		tr->saved = tr->version;
	return done;
}

/* --- receiving --- */

static bool is_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

static bool entry_ok(const uint8_t *p)
{
	bool v4 = frame_be16(p + 34) == 0x0800;

	if (v4 ? !is_zero(p + 4, 12) || !is_zero(p + 20, 12) : frame_be16(p + 34) != 0x86dd)
		return false;
	return !(frame_be32(p + 36) & ~VLAN_BITS) && !(p[72] & ~ENTRY_ALL) && p[73] < TR_CLASSES &&
	       is_zero(p + 74, 2);
}

static bool piece_ok(const uint8_t *p, size_t len)
{
	uint32_t n;

	if (len < HEADER_BYTES || len > TR_PIECE_MAX || !is_zero(p + 1, 3))
		return false;
	n = frame_be32(p + 8);
	if (n > PIECE_ENTRIES || len != HEADER_BYTES + n * ENTRY_BYTES)
		return false;
	for (uint32_t i = 0; i < n; i++)
		if (!entry_ok(p + HEADER_BYTES + i * ENTRY_BYTES))
			return false;
	return true;
}

static int store(struct tr_base *b, const uint8_t *entries, uint32_t n)
{
	size_t room = b->room ? b->room : 64;
	uint8_t *p;

	while (room < b->n + n)
		room *= 2;
	if (room != b->room) {
		p = realloc(b->data, room * ENTRY_BYTES);
		if (!p)
			return -ENOMEM;
		b->data = p;
		b->room = room;
	}
	memcpy(b->data + b->n * ENTRY_BYTES, entries, n * ENTRY_BYTES);
	b->n += n;
	return 0;
}

int tr_base_add(struct tr *tr, const uint8_t *piece, size_t len)
{
	struct tr_base *b = &tr->next;
	uint32_t n;

	if (!piece_ok(piece, len))
		return -EINVAL;
	n = frame_be32(piece + 8);
	if (piece[0] == (PIECE_SAME | PIECE_LAST))
		return n == 0 && (tr->base.complete || b->complete) ? 0 : -EINVAL;
	if (piece[0] & ~(PIECE_FIRST | PIECE_LAST) || (!(piece[0] & PIECE_FIRST) && !b->begun))
		return -EINVAL;
	if (piece[0] & PIECE_FIRST)
		b->n = 0;
	b->begun = !(piece[0] & PIECE_LAST);
	b->complete = piece[0] & PIECE_LAST;
	b->bump = frame_be32(piece + 4);
	if (n > tr->max - b->n) {
		tr->full += n - (tr->max - b->n);
		n = (uint32_t)(tr->max - b->n);
	}
	return store(b, piece + HEADER_BYTES, n);
}

bool tr_base_known(const struct tr *tr)
{
	return tr->next.complete || (tr->base.complete && !tr->next.begun);
}

void tr_base_adopt(struct tr *tr)
{
	struct tr_base b = tr->base;

	if (!tr->next.complete)
		return;
	tr->base = tr->next;
	tr->next = b;
	tr->next.complete = tr->next.begun = false;
}

void tr_base_forget(struct tr *tr)
{
	tr->base.complete = tr->next.complete = tr->next.begun = false;
}

void tr_base_free(struct tr *tr)
{
	free(tr->base.data);
	free(tr->next.data);
}

static void decode(struct tr_entry *e, const uint8_t *p)
{
	for (int i = 0; i < TR_SIDES; i++)
		e->known[i] = true;
	e->isn[TR_PVM] = frame_be32(p + 44);
	e->isn[TR_SVM] = frame_be32(p + 48);
	e->dseq = e->isn[TR_PVM] - e->isn[TR_SVM];
	e->dts = frame_be32(p + 52);
	e->ack = frame_be32(p + 56);
	e->guest_fin = frame_be32(p + 60);
	e->peer_fin = frame_be32(p + 64);
	e->guest_ack = frame_be32(p + 68);
	e->is_ack = p[72] & ENTRY_IS_ACK;
	e->has_guest_fin = p[72] & ENTRY_GUEST_FIN;
	e->has_peer_fin = p[72] & ENTRY_PEER_FIN;
	e->has_guest_ack = p[72] & ENTRY_GUEST_ACK;
	e->guest_fin_acked = p[72] & ENTRY_GUEST_FIN_ACKED;
	e->peer_fin_acked = p[72] & ENTRY_PEER_FIN_ACKED;
}

/* A name that is there already is a liar's: a table has each once. */
static void load_entry(struct tr *tr, const uint8_t *p)
{
	struct tr_key key = { .k = { .pport = frame_be16(p + 32), .ethertype = frame_be16(p + 34),
				     .vlan = frame_be32(p + 36), .proto = 6, .type = FRAME_TCP } };
	uint16_t lan = frame_be16(p + 40), inside = frame_be16(p + 42);
	struct tr_entry *e;

	memcpy(key.k.guest, p, 16);
	memcpy(key.k.peer, p + 16, 16);
	tr_key_hash(tr, &key);
	if (tr_find(tr, &key, TR_PVM, lan) || tr_find(tr, &key, TR_SVM, inside))
		return;
	e = tr_add(tr, &key);
	if (!e)
		return;
	decode(e, p);
	tr_link(tr, e, TR_PVM, lan);
	tr_link(tr, e, TR_SVM, inside);
	tr_set_class(tr, e, p[73]);
}

void tr_base_load(struct tr *tr)
{
	tr->bump = tr->base.bump;
	for (size_t i = 0; i < tr->base.n; i++)
		load_entry(tr, tr->base.data + i * ENTRY_BYTES);
}
