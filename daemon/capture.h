/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * capture.h - a ring of packets in memory, read as a pcapng file piece by piece
 *
 * The newest packets are kept, within a bound of bytes. Reading leaves them in the ring, and costs the
 * reader's asking a bounded time each: it asks with the number of the last packet it has. What is
 * overwritten between two questions is left out.
 */
#ifndef COLO_CAPTURE_H
#define COLO_CAPTURE_H

#include "daemon/framelog.h"
#include "daemon/pcapng.h"
#include "net/net.h"

#define CAPTURE_COMMENT_MAX 400u
/* room for any packet with its comment */
#define CAPTURE_PIECE (NET_FRAME_MAX + 1024u)

struct capture {
	struct framelog log; /* of finished blocks */
	uint64_t packets;    /* ever: the number of the last one */
	uint8_t block[CAPTURE_PIECE];
};

int capture_init(struct capture *c, size_t bytes); /* 0 or -ENOMEM */
void capture_free(struct capture *c);
/* the comment is cut to CAPTURE_COMMENT_MAX characters */
void capture_add(struct capture *c, const struct pcapng_packet *p);
/* Whole blocks of the packets with numbers above `after`, oldest first, as many as fit; *last: the number of the
 * last one given. Returns the bytes; 0: there are no more. */
size_t capture_read(const struct capture *c, uint64_t after, uint8_t *out, size_t size, uint64_t *last);

#endif
