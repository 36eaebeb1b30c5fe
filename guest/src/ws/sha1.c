// SPDX-License-Identifier: GPL-2.0-or-later
/* SHA-1 (RFC 3174), for messages of at most two blocks. */
#include "sha1.h"

#include <string.h>

#define BLOCK 64

static uint32_t rol(uint32_t x, int n)
{
	return x << n | x >> (32 - n);
}

static void block_words(uint32_t w[80], const uint8_t *p)
{
	for (int i = 0; i < 16; i++, p += 4)
		w[i] = (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
	for (int i = 16; i < 80; i++)
		w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
}

static uint32_t mix(int i, uint32_t b, uint32_t c, uint32_t d)
{
	if (i < 20)
		return ((b & c) | (~b & d)) + 0x5a827999;
	if (i < 40)
		return (b ^ c ^ d) + 0x6ed9eba1;
	if (i < 60)
		return ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
	return (b ^ c ^ d) + 0xca62c1d6;
}

static void block_add(uint32_t h[5], const uint8_t *p)
{
	uint32_t w[80], v[5];

	block_words(w, p);
	memcpy(v, h, sizeof(v));
	for (int i = 0; i < 80; i++) {
		uint32_t t = rol(v[0], 5) + mix(i, v[1], v[2], v[3]) + v[4] + w[i];

		v[4] = v[3];
		v[3] = v[2];
		v[2] = rol(v[1], 30);
		v[1] = v[0];
		v[0] = t;
	}
	for (int i = 0; i < 5; i++)
		h[i] += v[i];
}

int sha1(uint8_t out[SHA1_LEN], const void *msg, size_t len)
{
	uint32_t h[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 };
	uint8_t buf[2 * BLOCK] = { 0 };
	size_t total = len + 9 <= BLOCK ? BLOCK : 2 * BLOCK;

	if (len > SHA1_MAX)
		return -1;
	memcpy(buf, msg, len);
	buf[len] = 0x80;
	buf[total - 2] = len * 8 >> 8;
	buf[total - 1] = len * 8;
	for (size_t at = 0; at < total; at += BLOCK)
		block_add(h, buf + at);
	for (int i = 0; i < SHA1_LEN; i++)
		out[i] = h[i / 4] >> (24 - i % 4 * 8);
	return 0;
}
