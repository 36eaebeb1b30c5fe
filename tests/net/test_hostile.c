/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_hostile.c - garbage, cut and damaged frames, and senseless sequences of good ones, at every entry point
 *
 * Meant for a build with sanitizers (-Db_sanitize=address,undefined); without them it still checks the
 * bounds. test_hostile [SEED [ROUNDS]]
 */
#include "dgram_frames.h"
#include "hostile.h"

enum { INPUT = 1 << 16, RECORDS = 300 };

static struct rnd rnd;
static uint8_t input[INPUT];

static size_t random_tcp(uint8_t *out)
{
	static const uint8_t data[1400];
	const uint8_t any = (uint8_t)rnd_below(&rnd, 64);
	const uint8_t flags[8] = { F_ACK, F_ACK, F_ACK, F_SYN, F_SYN, F_SYN | F_ACK, any, any };
	struct tcp_spec s = {
		.to_guest = rnd_below(&rnd, 4) == 0,
		.v6 = rnd_below(&rnd, 4) == 0,
		.vlan = rnd_below(&rnd, 8) == 0,
		.odd_ts = rnd_below(&rnd, 2),
		.gport = (uint16_t)(80 + rnd_below(&rnd, 4)),
		.pport = (uint16_t)rnd_below(&rnd, 8),
		.seq = rnd_below(&rnd, 3) ? rnd_below(&rnd, 5000) : (uint32_t)rnd_next(&rnd),
		.ack = rnd_below(&rnd, 3) ? rnd_below(&rnd, 5000) : (uint32_t)rnd_next(&rnd),
		.tsval = rnd_below(&rnd, 3),
		.flags = flags[rnd_below(&rnd, 8)],
		.nsack = rnd_below(&rnd, 4),
		.data = data,
		.len = rnd_below(&rnd, 2) ? rnd_below(&rnd, 1400) : rnd_below(&rnd, 3),
	};

	return build_tcp(out, &s);
}

/* an ICMP error quotes a packet */
static size_t random_icmp(uint8_t *out, bool to_guest, uint16_t id)
{
	static uint8_t quote[NET_FRAME_MAX];
	uint8_t type = (uint8_t)rnd_below(&rnd, 13);
	size_t skip = VNET_HLEN + 14, n = random_tcp(quote) - skip;

	return build_icmp(out, to_guest, type, id, quote + skip, n < 200 ? n : rnd_below(&rnd, 200));
}

/* of few datagrams, so that some are completed, and overlap */
static size_t random_fragment(uint8_t *out)
{
	static const uint8_t data[1000] = { 0, 53, 0, 5, 4 };
	static const uint8_t protos[] = { 17, 1, 6, 58, 132 };
	uint32_t at = 8 * rnd_below(&rnd, 40), len = 8 * rnd_below(&rnd, 40);
	struct ip_spec s = { .v6 = rnd_below(&rnd, 2), .to_guest = rnd_below(&rnd, 8) == 0,
		.tags = rnd_below(&rnd, 3), .proto = protos[rnd_below(&rnd, 5)], .id = rnd_below(&rnd, 3),
		.frag = true, .more = rnd_below(&rnd, 2), .offset = at, .payload = data + at, .len = len };

	if (rnd_below(&rnd, 10) == 0)
		s.offset = 8 * rnd_below(&rnd, 8192);
	return build_ip(out, &s);
}

/* an error quotes what is as good as anything */
static size_t random_icmp6(uint8_t *out)
{
	uint8_t icmp[208], data[200] = { 0x60, [24] = 0xfd, [39] = 2 };
	struct ip_spec s = { .v6 = true, .proto = 58, .tags = rnd_below(&rnd, 3), .payload = icmp };

	s.len = put_icmp(icmp, (uint8_t)rnd_below(&rnd, 5), 0, 0, data, rnd_below(&rnd, 200));
	return build_ip(out, &s);
}

static size_t random_neighbour(uint8_t *out)
{
	bool to_guest = rnd_below(&rnd, 2);
	uint32_t from = rnd_below(&rnd, 3), target = rnd_below(&rnd, 300);

	if (rnd_below(&rnd, 2))
		return build_arp_of(out, to_guest, 1 + rnd_below(&rnd, 2), from, target);
	return build_nd(out, to_guest, (uint8_t)(130 + rnd_below(&rnd, 14)), from, target);
}

static size_t random_frame(uint8_t *out)
{
	static const uint8_t data[200];
	bool to_guest = rnd_below(&rnd, 2);
	uint16_t id = (uint16_t)rnd_below(&rnd, 4);

	switch (rnd_below(&rnd, 12)) {
	case 0: return build_udp(out, to_guest, 1, id, data, rnd_below(&rnd, 200), 1);
	case 1: return random_icmp(out, to_guest, id);
	case 2: return build_arp(out);
	case 3: return random_icmp6(out);
	case 4: return random_neighbour(out);
	case 5:
	case 6: return random_fragment(out);
	default: return random_tcp(out);
	}
}

/* flip bits mostly in the headers, cut it, or leave it whole */
static size_t damage(uint8_t *p, size_t n)
{
	uint32_t flips = rnd_below(&rnd, 3) ? 0 : rnd_below(&rnd, 6);

	for (uint32_t i = 0; i < flips; i++)
		p[rnd_below(&rnd, n < 80 ? (uint32_t)n : 80)] ^= (uint8_t)(1u << rnd_below(&rnd, 8));
	if (rnd_below(&rnd, 6) == 0)
		n = rnd_below(&rnd, (uint32_t)n + 1);
	if (rnd_below(&rnd, 30) == 0)
		for (size_t i = 0; i < n; i++)
			p[i] = (uint8_t)rnd_next(&rnd);
	return n;
}

static size_t make_input(void)
{
	size_t len = 0, n;

	for (int i = 0; i < RECORDS && len + 2000 < INPUT; i++) {
		n = damage(input + len + 3, random_frame(input + len + 3));
		input[len] = (uint8_t)rnd_next(&rnd);
		input[len + 1] = (uint8_t)(n >> 8);
		input[len + 2] = (uint8_t)n;
		len += 3 + n;
	}
	return len;
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed_from(argc, argv);
	int rounds = argc > 2 ? atoi(argv[2]) : 2000;

	for (int i = 0; i < rounds; i++) {
		size_t len;
		uint8_t *exact;

		test_seed = rnd.s = seed + (uint64_t)i;
		len = make_input();
		exact = malloc(len);
		memcpy(exact, input, len);
		hostile_run(exact, len);
		free(exact);
	}
	printf("%d rounds\n", rounds);
	return 0;
}
