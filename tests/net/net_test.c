/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * net_test.c - see net_test.h
 */
#include <time.h>

#include "net_test.h"

uint64_t test_seed;

uint64_t rnd_next(struct rnd *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint32_t rnd_below(struct rnd *r, uint32_t n)
{
	return (uint32_t)((rnd_next(r) >> 32) * n >> 32);
}

uint64_t test_seed_from(int argc, char **argv)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	test_seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 0;
	if (!test_seed)
		test_seed = (uint64_t)ts.tv_sec * 1000000007u ^ (uint64_t)ts.tv_nsec;
	printf("seed %llu\n", (unsigned long long)test_seed);
	fflush(stdout);
	return test_seed;
}

static uint8_t *p16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
	return p + 2;
}

static uint8_t *p32(uint8_t *p, uint32_t v)
{
	return p16(p16(p, v >> 16), v);
}

static uint32_t g16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t g32(const uint8_t *p)
{
	return g16(p) << 16 | g16(p + 2);
}

static uint32_t sum(uint32_t s, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		s += g16(p + i);
	if (n & 1)
		s += (uint32_t)p[n - 1] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

static uint8_t *build_eth(uint8_t *p, bool vlan, uint32_t type)
{
	static const uint8_t macs[12] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 };

	memset(p, 0, VNET_HLEN);
	p += VNET_HLEN;
	memcpy(p, macs, 12);
	p += 12;
	if (vlan)
		p = p16(p16(p, 0x8100), 7);
	return p16(p, type);
}

static uint8_t *build_ip4(uint8_t *p, bool to_guest, uint32_t peer, uint8_t proto, size_t n, uint16_t id)
{
	uint32_t guest = 0x0a000002, src = to_guest ? 0x0a010000 + peer : guest;
	uint32_t dst = to_guest ? guest : 0x0a010000 + peer;
	uint8_t *ip = p;

	p = p16(p16(p, 0x4500), 20 + (uint32_t)n);
	p = p16(p16(p, id), 0x4000);
	*p++ = 64;
	*p++ = proto;
	p = p32(p32(p16(p, 0), src), dst);
	p16(ip + 10, ~sum(0, ip, 20));
	return p;
}

static uint8_t *build_ip6(uint8_t *p, bool to_guest, uint32_t peer, uint8_t proto, size_t n)
{
	uint8_t *src, *dst;

	p = p32(p, 0x60000000);
	p = p16(p, (uint32_t)n);
	*p++ = proto;
	*p++ = 64;
	memset(p, 0, 32);
	src = p;
	dst = p + 16;
	p32(src, 0xfd000000);
	p32(dst, 0xfd000000);
	p32(to_guest ? src + 12 : dst + 12, peer + 2);
	p32(to_guest ? dst + 12 : src + 12, 1);
	return p + 32;
}

static uint8_t *build_options(uint8_t *p, const struct tcp_spec *s)
{
	uint8_t *start = p;

	if (s->mss) {
		p = p16(p, 0x0204);
		p = p16(p, s->mss);
	}
	if (s->wscale) {
		p = p16(p, 0x0303);
		*p++ = s->wscale - 1;
	}
	if (s->tsval) {
		*p++ = 1;
		if (!s->odd_ts)
			*p++ = 1;
		p = p32(p32(p16(p, 0x080a), s->tsval), s->tsecr);
	}
	if (s->nsack) {
		*p++ = 1;
		*p++ = 5;
		*p++ = (uint8_t)(2 + 8 * s->nsack);
		for (unsigned i = 0; i < 2 * s->nsack; i++)
			p = p32(p, s->sack[i]);
	}
	if (s->odd_opt) {
		*p++ = s->odd_opt;
		*p++ = 18;
		memset(p, 0x5a, 16);
		p += 16;
	}
	while ((p - start) % 4)
		*p++ = 1;
	if (s->raw_len)
		memcpy(p, s->raw_opt, s->raw_len);
	return p + s->raw_len;
}

/* of the transport; the addresses lie right before it */
static uint32_t pseudo(const uint8_t *l4, bool v6, uint8_t proto, size_t n)
{
	return sum(proto + (uint32_t)n, v6 ? l4 - 32 : l4 - 8, v6 ? 32 : 8);
}

size_t build_tcp(uint8_t *out, const struct tcp_spec *s)
{
	uint8_t opts[120], *tcp, *p;
	size_t olen = (size_t)(build_options(opts, s) - opts), n = 20 + olen + s->len;

	p = build_eth(out, s->vlan, s->v6 ? 0x86dd : 0x0800);
	tcp = p = s->v6 ? build_ip6(p, s->to_guest, s->peer, 6, n) :
			  build_ip4(p, s->to_guest, s->peer, 6, n, s->ipid);
	p = p16(p, s->to_guest ? s->pport : s->gport);
	p = p16(p, s->to_guest ? s->gport : s->pport);
	p = p32(p32(p, s->seq), s->ack);
	*p++ = (uint8_t)((20 + olen) / 4 << 4);
	*p++ = s->flags;
	p = p16(p16(p16(p, s->shut ? 0 : s->window ? s->window : 500), 0), s->urg);
	memcpy(p, opts, olen);
	p += olen;
	if (s->len)
		memcpy(p, s->data, s->len);
	p += s->len;
	out[0] = s->partial;
	p16(tcp + 16, s->partial ? pseudo(tcp, s->v6, 6, n) : ~sum(pseudo(tcp, s->v6, 6, n), tcp, n));
	return (size_t)(p - out);
}

size_t build_udp(uint8_t *out, bool to_guest, uint16_t gport, uint16_t pport, const void *data, size_t len,
	uint16_t ipid)
{
	uint8_t *p = build_ip4(build_eth(out, false, 0x0800), to_guest, 1, 17, 8 + len, ipid), *udp = p;

	p = p16(p16(p, to_guest ? pport : gport), to_guest ? gport : pport);
	p = p16(p16(p, 8 + (uint32_t)len), 0);
	memcpy(p, data, len);
	p16(udp + 6, ~sum(pseudo(udp, false, 17, 8 + len), udp, 8 + len));
	return (size_t)(p + len - out);
}

size_t build_icmp(uint8_t *out, bool to_guest, uint8_t type, uint16_t id, const void *data, size_t len)
{
	uint8_t *p = build_ip4(build_eth(out, false, 0x0800), to_guest, 1, 1, 8 + len, 0), *icmp = p;

	*p++ = type;
	*p++ = 0;
	p = p16(p16(p16(p, 0), id), 1);
	memcpy(p, data, len);
	p16(icmp + 2, ~sum(0, icmp, 8 + len));
	return (size_t)(p + len - out);
}

size_t build_arp(uint8_t *out)
{
	uint8_t *p = build_eth(out, false, 0x0806);

	memset(p, 0, 46);
	return (size_t)(p + 46 - out);
}

/* offset of layer 4, 0: not TCP */
static size_t l4_of(const uint8_t *f, size_t len, bool *v6)
{
	size_t l3 = VNET_HLEN + 14;

	if (len < l3 + 20 + 20)
		return 0;
	if (g16(f + l3 - 2) == 0x8100)
		l3 += 4;
	*v6 = g16(f + l3 - 2) == 0x86dd;
	if (!*v6 && g16(f + l3 - 2) != 0x0800)
		return 0;
	if (f[l3 + (*v6 ? 6 : 9)] != 6 || len < l3 + (*v6 ? 40 : 20) + 20)
		return 0;
	return *v6 || f[l3] == 0x45 ? l3 + (*v6 ? 40 : 20) : 0;
}

bool checksums_ok(const uint8_t *f, size_t len)
{
	bool v6 = false;
	size_t l4 = l4_of(f, len, &v6), n = len - l4;

	if (!l4)
		return false;
	if (!v6 && (sum(0, f + l4 - 20, 20) != 0xffff || g16(f + l4 - 18) != 20 + n))
		return false;
	if (v6 && g16(f + l4 - 36) != n)
		return false;
	if (f[0] & 1)
		return sum(pseudo(f + l4, v6, 6, n), NULL, 0) == g16(f + l4 + 16);
	return sum(pseudo(f + l4, v6, 6, n), f + l4, n) == 0xffff;
}

static void parse_options(struct seg *s, const uint8_t *p, const uint8_t *end)
{
	for (; p < end && *p; p += *p == 1 ? 1 : p[1]) {
		if (*p == 1)
			continue;
		if (end - p < 2 || p[1] < 2 || p[1] > end - p)
			return;
		if (*p == 8 && p[1] == 10) {
			s->tsval = g32(p + 2);
			s->tsecr = g32(p + 6);
		} else if (*p == 5) {
			s->nsack = p[1] >= 34 ? 4 : (p[1] - 2u) / 8;
			for (unsigned i = 0; i < 2 * s->nsack; i++)
				s->sack[i] = g32(p + 2 + 4 * i);
		}
	}
}

bool parse_seg(const uint8_t *f, size_t len, bool to_guest, struct seg *s)
{
	bool v6 = false;
	size_t l4 = l4_of(f, len, &v6), hlen;
	const uint8_t *t = f + l4;

	memset(s, 0, sizeof(*s));
	if (!l4)
		return false;
	hlen = (t[12] >> 4) * 4u;
	if (hlen < 20 || hlen > len - l4)
		return false;
	s->gport = (uint16_t)g16(to_guest ? t + 2 : t);
	s->pport = (uint16_t)g16(to_guest ? t : t + 2);
	s->seq = g32(t + 4);
	s->ack = g32(t + 8);
	s->flags = t[13];
	s->window = (uint16_t)g16(t + 14);
	s->urg = (uint16_t)g16(t + 18);
	s->ipid = v6 ? 0 : (uint16_t)g16(f + l4 - 16);
	s->data = t + hlen;
	s->len = (uint32_t)(len - l4 - hlen);
	parse_options(s, t + 20, t + hlen);
	return true;
}

static void on_release(void *opaque, const uint8_t *frame, size_t len)
{
	struct bed *b = opaque;

	if (b->on_release) {
		b->on_release(b, frame, len);
		return;
	}
	CHECK(b->n < REC_MAX);
	b->out[b->n].frame = malloc(len);
	memcpy(b->out[b->n].frame, frame, len);
	b->out[b->n++].len = len;
}

static void on_want(void *opaque, enum cm_cause cause)
{
	struct bed *b = opaque;

	b->wants++;
	b->cause = cause;
}

static void on_syn(void *opaque, const uint8_t *frame, size_t len)
{
	struct bed *b = opaque;
	struct seg s;

	CHECK(parse_seg(frame, len, false, &s) && (s.flags & F_SYN));
	b->syns++;
	if (b->on_syn)
		b->on_syn(frame, len);
}

void bed_init(struct bed *b, const struct cm_config *cfg)
{
	static const struct cm_ops ops = { on_release, on_want, on_syn };

	memset(b, 0, sizeof(*b));
	b->cm = cm_new(cfg, &ops, b);
	CHECK(b->cm);
	cm_set_mode(b->cm, CM_COMPARE, 0);
	cm_start_epoch(b->cm, 1, 0);
}

void bed_fini(struct bed *b)
{
	for (unsigned i = 0; i < b->n; i++)
		free(b->out[i].frame);
	cm_free(b->cm);
}

unsigned bed_new(struct bed *b)
{
	unsigned n = b->n - b->taken;

	b->taken = b->n;
	return n;
}

struct seg bed_last(const struct bed *b, unsigned i)
{
	struct seg s;

	CHECK(i < b->n);
	CHECK(checksums_ok(b->out[b->n - 1 - i].frame, b->out[b->n - 1 - i].len));
	CHECK(parse_seg(b->out[b->n - 1 - i].frame, b->out[b->n - 1 - i].len, false, &s));
	return s;
}
