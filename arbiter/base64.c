/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * base64.c - see base64.h
 */
#include "arbiter/base64.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const void *p, size_t n, char *out)
{
	const uint8_t *in = p;
	size_t i;
	int k;

	for (i = 0; i < n; i += 3, out += 4) {
		uint32_t v = in[i] << 16 | (i + 1 < n ? in[i + 1] << 8 : 0) | (i + 2 < n ? in[i + 2] : 0);

		for (k = 0; k < 4; k++)
			out[k] = k > (int)(n - i) ? '=' : letters[v >> (18 - 6 * k) & 63];
	}
	*out = 0;
}

ssize_t base64_decode(const char *text, void *out, size_t size)
{
	size_t len = strlen(text), n = 0, i;
	uint8_t *p = out;
	uint32_t v = 0;

	if (len % 4)
		return -EBADMSG;
	for (i = 0; i < len && text[i] != '='; i++) {
		const char *at = strchr(letters, text[i]);

		if (!at)
			return -EBADMSG;
		v = v << 6 | (uint32_t)(at - letters);
		if (i % 4 == 0)
			continue;
		if (n == size)
			return -EBADMSG;
		p[n++] = v >> (6 - i % 4 * 2) & 255;
	}
	if (len - i > 2 || (i % 4 && strspn(text + i, "=") != len - i) || (!(i % 4) && i != len))
		return -EBADMSG;
	return n;
}
