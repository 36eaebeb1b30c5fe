/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * link_recv.h - what both ends of the link need to read it
 */
#ifndef COLO_DISK_LINK_RECV_H
#define COLO_DISK_LINK_RECV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/disk_proto.h"

#define RECEIVE_BUFFER 262144u

struct disk;

struct receiver {
	struct disk *d;
	size_t pos, len; /* of what is buffered */
	bool large;      /* the last data were */
	char buffer[RECEIVE_BUFFER];
};

/* Exactly n bytes. False: the link has failed, by name. */
bool receive_bytes(struct receiver *rx, void *p, size_t n);
/* The next header, in host byte order, its magic checked. */
bool receive_header(struct receiver *rx, struct disk_link_header *h);
/* The peer broke the protocol. Always false. */
bool receive_refuse(struct receiver *rx, const struct disk_link_header *h, const char *fault);

#endif
