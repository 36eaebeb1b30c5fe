/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * base64.h - as etcd's JSON has keys and values (RFC 4648, with padding)
 */
#ifndef COLO_ARBITER_BASE64_H
#define COLO_ARBITER_BASE64_H

#include <stddef.h>
#include <sys/types.h>

#define BASE64_SIZE(n) (((n) + 2) / 3 * 4 + 1)

void base64_encode(const void *p, size_t n, char *out); /* BASE64_SIZE(n) bytes, ended */
/* Length; -EBADMSG: not base64, or longer than size. */
ssize_t base64_decode(const char *text, void *out, size_t size);

#endif
