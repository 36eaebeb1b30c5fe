/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tr_priv.h - shared by the files of the translator: translate.c, tr_table.c, tr_pair.c, tr_icmp.c,
 * tr_base.c
 */
#ifndef COLO_NET_TR_PRIV_H
#define COLO_NET_TR_PRIV_H

#include "flow.h"
#include "frame.h"
#include "net.h"

/* The two ways to name and to count a connection: what the LAN sees, which is the PVM's, and the SVM's. */
enum tr_side { TR_PVM, TR_SVM, TR_SIDES };

enum tr_class {
	TR_YOUNG, /* the peer has not acknowledged the guest's SYN yet */
	TR_OPEN,  /* never thrown out */
	TR_OVER,  /* nothing more is expected than repetitions */
	TR_CLASSES
};

/* a connection's addresses and the peer's port (`k`, with 0 for the guest's port), and the guest's port */
struct tr_key {
	struct flow_key k;
	uint64_t hash; /* of k */
	uint16_t port;
};

struct tr_entry {
	/* two lines of the cache have what a search reads and what rewriting needs */
	_Alignas(64) struct tr_entry *chain[TR_SIDES]; /* of the bucket of each name; [0]: of the free list */
	uint64_t hash;
	uint16_t port[TR_SIDES];
	struct flow_key key;
	bool known[TR_SIDES];             /* that VM's SYN: port, isn, ts */
	bool linked[TR_SIDES];            /* and that VM still uses the port for this connection */
	bool is_ack;                      /* the SYNs acknowledge (the guest is the server) */
	bool queued;
	uint8_t class;
	bool has_guest_fin, has_peer_fin, has_guest_ack, guest_fin_acked, peer_fin_acked;
	uint32_t dseq, dts;               /* PVM's count minus the SVM's */
	uint32_t isn[TR_SIDES], ts[TR_SIDES];
	uint32_t ack;                     /* of the SYN-ACKs */
	uint32_t guest_fin, peer_fin, guest_ack; /* ends of the FINs, last ACK number; guest: the SVM's */
	struct tr_entry *prev, *next;     /* of its class, oldest first */
	struct tr_entry *qprev, *qnext;   /* unpaired SYNs of a bucket, oldest first */
	struct tr_syn *syn;               /* the copy that waits */
	uint64_t used;                    /* when it was made; over: last used */
	uint64_t opts;
};
_Static_assert(sizeof(struct tr_entry) == 192, "net.h states the bytes per entry");

/* a SYN of the SVM that waits for the PVM's */
#define TR_WAITING 1024u
#define TR_SYN_MAX 1600u
struct tr_syn {
	struct tr_syn *prev, *next;
	struct tr_entry *e;
	uint32_t len;
	uint8_t data[TR_SYN_MAX];
};

struct tr_list {
	struct tr_entry *head, *tail;
};

/* see tr_base.c */
struct tr_base {
	uint8_t *data; /* checked */
	size_t n, room;
	uint32_t bump;
	bool begun, complete;
};

struct tr {
	struct tr_ops ops;
	void *opaque;
	uint64_t now; /* latest seen */
	uint64_t seed;
	uint32_t bump;
	bool failed_over;
	uint64_t version, saved; /* of the table: now, and as it was saved last */
	struct tr_base base, next; /* what a reset goes back to; what is received */
	/* tr_table.c */
	size_t n, max;
	uint32_t mask;
	struct tr_entry **buckets[TR_SIDES];
	struct tr_list class[TR_CLASSES];
	struct tr_entry *free;
	void *chunks;
	/* tr_pair.c */
	struct tr_list *unpaired; /* buckets */
	struct tr_syn *syns, *free_syn, *first_syn, *last_syn;
	uint32_t syns_used; /* ever; the rest was never touched */
	uint32_t waiting;
	uint64_t paired, full;
	uint8_t scratch[TR_SYN_MAX];
};

/* known, and used by both VMs */
static inline bool tr_whole(const struct tr_entry *e)
{
	return e->linked[TR_PVM] && e->linked[TR_SVM];
}

static inline enum tr_side tr_other(enum tr_side side)
{
	return side == TR_PVM ? TR_SVM : TR_PVM;
}

/* a log may be replayed with the times of then */
static inline void tr_set_now(struct tr *tr, uint64_t now)
{
	if (now > tr->now)
		tr->now = now;
}

/* tr_table.c: -ENOMEM */
int tr_table_init(struct tr *tr, size_t max);
void tr_table_free(struct tr *tr);
void tr_key_hash(const struct tr *tr, struct tr_key *key);
void tr_key_from_guest(const struct tr *tr, struct tr_key *key, const struct frame *f);
void tr_key_to_guest(const struct tr *tr, struct tr_key *key, const struct frame *f);
/* who has the name `port` on that side? */
struct tr_entry *tr_find(const struct tr *tr, const struct tr_key *key, enum tr_side side, uint16_t port);
/* A new entry without a name, in the class TR_YOUNG. NULL: full of open connections (counted), or out of
 * memory. */
struct tr_entry *tr_add(struct tr *tr, const struct tr_key *key);
void tr_del(struct tr *tr, struct tr_entry *e);
/* what nothing more is expected of goes, `most` entries at most */
void tr_expire(struct tr *tr, uint32_t most);
void tr_link(struct tr *tr, struct tr_entry *e, enum tr_side side, uint16_t port);
/* That VM uses the port for something else: the entry loses this name, without any it goes (unless it is
 * still to be paired). */
void tr_unlink(struct tr *tr, struct tr_entry *e, enum tr_side side);
/* also makes it the last of its class */
void tr_set_class(struct tr *tr, struct tr_entry *e, enum tr_class class);
/* What the other side calls a connection that `side` calls *port and that no entry has: see translate.c.
 * Looks at up to `most` entries. */
bool tr_follow(const struct tr *tr, const struct tr_key *key, enum tr_side side, uint16_t *port,
	uint32_t most);

/* tr_pair.c: -ENOMEM */
int tr_pair_init(struct tr *tr);
void tr_pair_free(struct tr *tr);
/* the entry that the other VM's SYN made, or NULL */
struct tr_entry *tr_partner(struct tr *tr, const struct tr_key *key, enum tr_side side, const struct frame *f);
/* an entry that one VM's SYN has made is to be paired; false: no place (counted), nothing was done */
bool tr_queue(struct tr *tr, struct tr_entry *e, const struct frame *f);
/* forget that it is to be paired, and the copy that waits */
void tr_unqueue(struct tr *tr, struct tr_entry *e);
/* moves the copy that waits to tr->scratch; 0: there is none */
uint32_t tr_take_syn(struct tr *tr, struct tr_entry *e);

/* tr_base.c: of an empty table: fill it with the base */
void tr_base_load(struct tr *tr);
void tr_base_free(struct tr *tr);

/* tr_icmp.c: the TCP header that an ICMP error quotes. false: it cannot be translated */
bool tr_icmp(const struct tr *tr, uint8_t *frame, const struct frame *f, enum tr_side from);

#endif
