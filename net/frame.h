/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * frame.h - what a frame (net.h) says: Ethernet, VLAN, IPv4, IPv6, TCP, UDP, ICMP
 *
 * frame_parse() never reads beyond the frame: every read goes through one checked accessor, and what
 * cannot be understood is reported as the innermost layer that could be. Offsets in struct frame are
 * from the frame's first byte and lie inside it.
 */
#ifndef COLO_NET_FRAME_H
#define COLO_NET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net.h"

#define FRAME_ETH VNET_HLEN /* offset of the Ethernet header */
#define FRAME_ETH_HLEN 14u

enum frame_type {
	FRAME_BAD,   /* not even an Ethernet header, or beyond NET_FRAME_MAX */
	FRAME_OTHER, /* no IP, or a broken IP header; body: all behind the Ethernet header and tags */
	FRAME_PASS,  /* ARP, RARP, ND, MLD, IGMP, what bridges keep to a link: neighbours talk, not
	              * applications */
	FRAME_IP,    /* IP, nothing closer known, or a broken transport header; body: the IP payload */
	FRAME_FRAG,  /* an IP fragment; body: its payload */
	FRAME_ICMP,  /* ICMP or ICMPv6; body: from the type on, without the checksum */
	FRAME_UDP,   /* body: the UDP payload */
	FRAME_TCP,   /* body: the TCP payload */
};

enum {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

struct frame {
	const uint8_t *data;
	uint32_t len;
	enum frame_type type;
	bool partial;   /* the checksum field has the pseudo-header's sum only: the rest is left to do */
	bool error;     /* ICMP: an error message that quotes what its receiver sent, and little else */
	uint8_t family; /* 0, 4, 6 */
	uint8_t proto;
	uint16_t ethertype;
	uint16_t frag;     /* IPv4: offset and flags; IPv6: low bits of the fragment header */
	uint32_t vlan;     /* 0: none, else 0x1000 | VLAN id; the outer of two likewise, 16 bits up */
	uint16_t extra;    /* ICMP: id of an echo, or type and code */
	uint16_t sport, dport; /* ICMP: sport is type and code */
	uint32_t l3, l4;   /* offsets */
	uint32_t body, body_len;
	/* TCP */
	uint8_t flags;
	uint16_t window;
	uint8_t wscale;    /* 0xff: no such option */
	uint32_t seq, ack;
	uint32_t opt, opt_len;
	uint32_t ts;       /* offset of the timestamp value (the echo follows it), 0: none */
	uint32_t sack, sack_n; /* offset of the first SACK block, number of blocks */
};

enum frame_type frame_parse(struct frame *f, const uint8_t *data, size_t len);

/* the one accessor: n bytes at off, or NULL; nothing beyond the frame is ever read */
static inline const uint8_t *frame_at(const struct frame *f, uint32_t off, uint32_t n)
{
	if (off > f->len || n > f->len - off)
		return NULL;
	return f->data + off;
}

/* An IP fragment: where its body belongs in the datagram, whether more follow, and the datagram's number.
 * IPv4 numbers have 16 bits. */
uint32_t frame_frag_offset(const struct frame *f);
bool frame_frag_more(const struct frame *f);
uint32_t frame_frag_id(const struct frame *f);
/* All of the datagram is known of which f is a fragment: `len` bytes, which begin with the n at `first`.
 * Sets f's type, ports and extra as if it had come in one piece; returns how many bytes are not body. */
uint32_t frame_frag_whole(struct frame *f, const uint8_t *first, uint32_t n, uint32_t len);

static inline uint16_t frame_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t frame_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* TCP's arithmetic: is a after b? */
static inline bool seq_after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static inline uint32_t seq_min(uint32_t a, uint32_t b)
{
	return seq_after(a, b) ? b : a;
}

static inline uint32_t seq_max(uint32_t a, uint32_t b)
{
	return seq_after(a, b) ? a : b;
}

/* Write 32 bits at offset `off` of a frame's layer 4, whose checksum is at offset `csum`, and correct that by
 * the difference. Any alignment. `data` is a writable copy of the frame's bytes. */
void frame_set32(uint8_t *data, const struct frame *f, uint32_t csum, uint32_t off, uint32_t value);
/* same for a TCP frame */
void frame_tcp_set32(uint8_t *data, const struct frame *f, uint32_t off, uint32_t value);
#define FRAME_TCP_SEQ(f) ((f)->l4 + 4)
#define FRAME_TCP_ACK(f) ((f)->l4 + 8)
void frame_tcp_set_window(uint8_t *data, const struct frame *f, uint16_t window);
/* overwrite the SACK option with padding */
void frame_tcp_drop_sack(uint8_t *data, const struct frame *f);

/* Make the pure ACK that a TCP frame with payload carries along: headers only, sequence number `seq`.
 * `out` has room for FRAME_ACK_MAX bytes. Returns its length, 0 if the headers are too long. */
#define FRAME_ACK_MAX 256u
uint32_t frame_make_ack(uint8_t *out, const struct frame *f, uint32_t seq);

/* What must be alike in two VMs' SYNs: option kinds and values, without timestamp values. */
uint64_t frame_syn_options(const struct frame *f);

#endif
