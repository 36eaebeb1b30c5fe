/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tr_icmp.c - the translator: what ICMP and ICMPv6 errors quote
 */
#include "tr_bed.h"

struct error {
	bool v6, to_guest;
	uint8_t type;
	size_t quoted; /* bytes of the TCP header */
	uint8_t ext;   /* IPv6: an extension header of this kind before it */
	uint16_t frag;
};

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t sum16(uint32_t s, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		s += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

static size_t l4_at(const struct error *e)
{
	return VNET_HLEN + 14 + (e->v6 ? 40 : 20);
}

static uint32_t icmp_sum(const struct error *e, size_t n)
{
	size_t l4 = l4_at(e);
	uint32_t s = e->v6 ? sum16(58 + (uint32_t)(n - l4), frame + l4 - 32, 32) : 0;

	return sum16(s, frame + l4, n - l4);
}

/* An error that quotes segment s: the addresses of s's packet are those of the error too, but swapped. Returns
 * the offset of the quoted ports. */
static size_t build_error(const struct error *e, struct tcp_spec s)
{
	static uint8_t seg[NET_FRAME_MAX], *ip;
	size_t ihl = e->v6 ? 40 : 20, l4 = l4_at(e), at = l4 + 8;

	s.v6 = e->v6;
	s.to_guest = !e->to_guest;
	build_tcp(seg, &s);
	s.to_guest = e->to_guest;
	build_tcp(frame, &s);
	ip = frame + VNET_HLEN + 14;
	memset(frame + l4, 0, 8);
	frame[l4] = e->type;
	memcpy(frame + at, seg + VNET_HLEN + 14, ihl);
	at += ihl;
	if (e->ext) {
		frame[at - 34] = e->ext;
		memset(frame + at, 0, 8);
		frame[at] = 6;
		put16(frame + at + 2, e->frag);
		at += 8;
	} else if (e->frag) {
		put16(frame + at - 14, e->frag);
	}
	memcpy(frame + at, seg + VNET_HLEN + 14 + ihl, e->quoted);
	len = at + e->quoted;
	ip[e->v6 ? 6 : 9] = e->v6 ? 58 : 1;
	put16(ip + (e->v6 ? 4 : 2), (uint32_t)(len - (e->v6 ? l4 : l4 - ihl)));
	put16(frame + l4 + 2, ~icmp_sum(e, len));
	return at;
}

static uint32_t get(size_t off, int n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | frame[off++];
	return v;
}

static void check_error_to_svm(struct error e)
{
	size_t at = build_error(&e, spec(40000, F_ACK, 5005, 9));

	CHECK(tr_to_svm(tr, frame, len, now) && icmp_sum(&e, len) == 0xffff);
	CHECK(get(at, 2) == 50000 && get(at + 2, 2) == DEST && get(at + 4, 4) == 82);
	if (e.quoted >= 12)
		CHECK(get(at + 8, 4) == 9);
}

static void check_error_from_svm(struct error e)
{
	size_t at;

	e.to_guest = false;
	at = build_error(&e, spec(50000, F_ACK, 9, 82));
	CHECK(tr_from_svm(tr, frame, len, now) && icmp_sum(&e, len) == 0xffff);
	CHECK(get(at, 2) == DEST && get(at + 2, 2) == 40000 && get(at + 4, 4) == 9);
	if (e.quoted >= 12)
		CHECK(get(at + 8, 4) == 5005);
}

static void test_icmp_errors(void)
{
	static const struct error errors[] = {
		{ false, true, 3, 8, 0, 0 }, { false, true, 3, 20, 0, 0 }, { false, true, 5, 12, 0, 0 },
		{ false, true, 11, 8, 0, 0x2000 }, { false, true, 12, 11, 0, 0x4000 }, { true, true, 1, 8, 0, 0 },
		{ true, true, 2, 20, 0, 0 }, { true, true, 3, 8, 60, 0 }, { true, true, 4, 12, 44, 1 },
	};

	for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		begin();
		dest.v6 = errors[i].v6;
		connect_pair(40000, 5000, 50000, 77);
		check_error_to_svm(errors[i]);
		check_error_from_svm(errors[i]);
		end();
	}
}

static bool error_passes_unchanged(struct error e, uint16_t gport)
{
	static uint8_t copy[NET_FRAME_MAX];

	build_error(&e, spec(gport, F_ACK, 5005, 9));
	memcpy(copy, frame, len);
	if (!(e.to_guest ? tr_to_svm : tr_from_svm)(tr, frame, len, now))
		return false;
	CHECK(memcmp(copy, frame, len) == 0);
	return true;
}

static void test_icmp_others(void)
{
	const struct error four = { false, true, 3, 8, 0, 0 }, cut = { false, true, 3, 7, 0, 0 };
	const struct error later = { false, true, 3, 8, 0, 0x0001 }, later6 = { true, true, 1, 8, 44, 0x0008 };
	const struct error echo = { false, true, 8, 8, 0, 0 }, esp = { true, true, 1, 8, 50, 0 };
	const struct error out = { false, false, 3, 8, 0, 0 };

	begin();
	connect_pair(40000, 5000, 50000, 77);
	CHECK(error_passes_unchanged(four, 60000)); /* older than the checkpoint */
	CHECK(error_passes_unchanged(cut, 40000) && error_passes_unchanged(later, 40000));
	CHECK(error_passes_unchanged(echo, 40000));
	CHECK(!error_passes_unchanged(four, 50000)); /* another's name inside */
	CHECK(!error_passes_unchanged(out, 40000));
	pvm_syn(40001, 5);
	CHECK(!error_passes_unchanged(four, 40001));
	dest.v6 = true;
	pvm_syn(40002, 5);
	CHECK(error_passes_unchanged(later6, 40002) && error_passes_unchanged(esp, 40002));
	end();
}

int main(int argc, char **argv)
{
	test_seed_from(argc, argv);
	test_icmp_errors();
	test_icmp_others();
	puts("ok");
	return 0;
}
