/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hex.h - bytes as hexadecimal digits, for JSON
 */
#ifndef COLO_HEX_H
#define COLO_HEX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* out has room for 2 * n + 1 characters */
void hex_encode(char *out, const void *bytes, size_t n);
/* Returns the number of bytes, or -EINVAL: not pairs of digits, or more than `size` bytes. */
ssize_t hex_decode(uint8_t *out, size_t size, const char *text);

#endif
