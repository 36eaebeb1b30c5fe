/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pool.h - buffers for held frames and for the SVM's bytes, in size classes, without malloc per packet
 */
#ifndef COLO_NET_POOL_H
#define COLO_NET_POOL_H

#include <stddef.h>
#include <stdint.h>

#define POOL_CLASSES 4

struct buf {
	struct buf *prev, *next;   /* in its flow, or in the list before a boundary */
	struct buf *aprev, *anext; /* by age, over all flows */
	uint64_t time, epoch;      /* when, and in which epoch, the PVM sent it */
	union {
		struct { /* TCP: of the first payload byte, and after payload and FIN */
			uint32_t seq, end, ack;
		};
		struct { /* datagrams: dgram_cmp.c */
			uint32_t hash, cut, at;
		};
	};
	uint32_t off, body_len;    /* payload in data */
	uint32_t len, room;        /* of data */
	struct flow *flow;         /* datagrams: found in the index for this flow, or NULL */
	struct buf *chain, **pchain; /* of the index */
	struct buf *more;          /* the next fragment of this datagram */
	uint8_t class, flags;      /* pool's class; TCP flags */
	uint8_t shut;              /* owed: only because the SVM's window is closed */
	uint8_t young;             /* on the list of that name (cm_priv.h) */
	uint8_t data[];
};

#define POOL_CHUNK (1u << 20)
#define POOL_RESERVE (POOL_CLASSES * POOL_CHUNK) /* a chunk of each class */

struct pool_chunk;

struct pool {
	struct pool_chunk *room[POOL_CLASSES]; /* chunks that have a buffer to give */
	struct pool_chunk *spare;              /* chunks of no class, all free */
	struct pool_chunk *all;
	size_t used;         /* bytes of the buffers handed out, overhead included */
	size_t chunks, spares, most; /* allocated, of these spare, and allowed */
};

/* At most max bytes and POOL_RESERVE are ever allocated. */
void pool_init(struct pool *p, size_t max);
void pool_fini(struct pool *p);
/* a buffer with room for at least n bytes, header zeroed; NULL: n is too large, or out of memory */
struct buf *pool_get(struct pool *p, size_t n);
void pool_put(struct pool *p, struct buf *b);
/* bytes of all chunks, and of those that are not all free */
size_t pool_memory(const struct pool *p);
size_t pool_in_use(const struct pool *p);

/* doubly linked lists through prev/next */
struct buf_list {
	struct buf *head, *tail;
};
void buf_append(struct buf_list *l, struct buf *b);
/* after == NULL: at the head */
void buf_insert(struct buf_list *l, struct buf *after, struct buf *b);
void buf_unlink(struct buf_list *l, struct buf *b);
/* the same through aprev/anext */
void buf_age_append(struct buf_list *l, struct buf *b);
/* before == NULL: at the end */
void buf_age_insert(struct buf_list *l, struct buf *b, struct buf *before);
void buf_age_unlink(struct buf_list *l, struct buf *b);

#endif
