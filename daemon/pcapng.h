/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pcapng.h - blocks of a capture file that Wireshark and tcpdump open
 *
 * Source: the pcapng specification (draft-ietf-opsawg-pcapng). A file is one section header, the interfaces,
 * then packets, which name an interface by its place among them. Times are microseconds since 1970. The
 * byte order is this host's, as the format allows.
 */
#ifndef COLO_PCAPNG_H
#define COLO_PCAPNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pcapng_packet {
	uint32_t interface;
	uint64_t time_us;
	const char *comment; /* or NULL */
	const uint8_t *data; /* Ethernet frame without FCS */
	size_t len;
};

/* All write one block and return its length, a multiple of 4; 0: `size` is too small. */
size_t pcapng_section(uint8_t *out, size_t size, const char *program);
size_t pcapng_interface(uint8_t *out, size_t size, const char *name, const char *description);
size_t pcapng_packet(uint8_t *out, size_t size, const struct pcapng_packet *p);

#endif
