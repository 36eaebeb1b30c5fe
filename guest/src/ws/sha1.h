/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SHA-1 of a short message, for the WebSocket handshake and nothing else. */
#ifndef COLO_GUEST_SHA1_H
#define COLO_GUEST_SHA1_H

#include <stddef.h>
#include <stdint.h>

#define SHA1_LEN 20
#define SHA1_MAX 119	/* bytes of message: two blocks */

/* 0, or -1 when @len is above SHA1_MAX. */
int sha1(uint8_t out[SHA1_LEN], const void *msg, size_t len);

#endif
