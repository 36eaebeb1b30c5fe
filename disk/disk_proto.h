/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * disk_proto.h - what daemon and disk manager, and two disk managers, say to each other
 *
 * The disk manager is an nbdkit plugin, one process per disk, a child of the daemon. QEMU reaches it by
 * NBD over a unix socket. The daemon reaches it over an inherited SOCK_SEQPACKET socketpair
 * (parameter control-fd=N), host byte order. A second such socket (boundary-fd=N, optional) is given to
 * the agent in QEMU for DISK_BOUNDARY; it takes the same requests and gets the answers to its own, but
 * no events. The daemon connects the two hosts' disk managers: it
 * hands each one end of an established TCP connection (DISK_LINK, SCM_RIGHTS).
 */
#ifndef COLO_DISK_PROTO_H
#define COLO_DISK_PROTO_H

#include <stdint.h>

#include "disk/lineage.h"

#define DISK_PROTO_VERSION 2

enum disk_role {
	DISK_ALONE = 0,  /* read and write storage, note changed blocks in the bitmap */
	DISK_PRIMARY,    /* as ALONE, and every write goes to the peer, too */
	DISK_SECONDARY,  /* SVM cache over storage; PVM cache filled by the peer */
};

/*
 * From start to service. HELLO says what was found on stable storage. Nothing is changed, and no
 * request of a VM is served, before the daemon has seen all its disks and says OPEN, with the epoch that all
 * of them can come back to. Then, one of
 *   SERVE                this node's VM serves, alone
 *   LINK as secondary    content comes from the peer
 *
 *   ALONE ----LINK primary----> PRIMARY     UNLINK, or the link's loss, lead back; a SERVE then says that the
 *                                           peer has not taken over (the claim is won)
 *   ALONE ----LINK secondary--> SECONDARY
 *   SECONDARY --FAILOVER, SERVE-> ALONE     FAILOVER: the SVM's writes are on stable storage beside the disk;
 *                                           SERVE: they count. Two steps so that several disks do it as one
 */

/* daemon -> disk manager; each is answered by the message of the same name unless said otherwise */
enum disk_request_op {
	DISK_LINK = 1,   /* + fd: connection to the peer. role says what this side is. As primary: sync what
			  * may differ, then DISK_EV_SYNCED; writes are mirrored from the moment of the
			  * answer on. flags: DISK_LINK_ALL. As secondary: receive. */
	DISK_UNLINK,     /* drop the link; role becomes ALONE unless SECONDARY, which needs COMMIT or
			  * FAILOVER to know which content counts */
	DISK_BOUNDARY,   /* primary; VM stopped, requests drained: mark epoch's end in the stream */
	DISK_COMMIT,     /* secondary; SVM stopped: PVM cache up to the boundary of `epoch` becomes
			  * storage, SVM cache is dropped */
	DISK_FAILOVER,   /* secondary: PVM cache is dropped; what the SVM wrote is on stable storage, not yet
			  * counting, when this is answered. epoch: the new generation, the same for all disks */
	DISK_STATUS,
	DISK_OPEN,       /* once: epoch as above (0: there is none to come back to). flags: DISK_OPEN_FAILOVER.
			  * Answered when storage has that content; it may have to be repeated from a journal */
	DISK_SERVE,      /* this node serves alone: lineage moves on; after FAILOVER: to ALONE, the SVM's
			  * writes go to storage in the background, DISK_EV_WRITTEN_BACK when they are there */
	DISK_VERIFY,     /* primary, linked: compare with the peer, in the background; then DISK_EV_VERIFIED.
			  * flags: DISK_VERIFY_REPAIR. -EBUSY: one is under way or the sync is not over */
	DISK_FAULT,      /* answer to DISK_EV_FAULT: the VM gets the error (nobody else can serve) */
	DISK_RATE,       /* epoch: sync and verify read at most so many bytes a second, 0: no limit */
};

enum disk_request_flag {
	DISK_LINK_ALL = 1,      /* LINK as primary: the bitmaps say nothing, compare all */
	DISK_OPEN_FAILOVER = 2, /* OPEN: another disk's SERVE was done: the prepared failover counts */
	DISK_VERIFY_REPAIR = 4,
};

struct disk_request {
	uint32_t op;
	uint32_t role;  /* LINK: enum disk_role */
	uint64_t epoch; /* BOUNDARY, COMMIT, OPEN, FAILOVER, RATE */
	uint32_t flags;
	uint32_t pad;
	struct lineage peer; /* LINK: the peer's disk */
};

enum disk_event_op {
	DISK_EV_HELLO = 100,    /* at start */
	DISK_EV_BOUNDARY,       /* secondary: everything before the boundary of `epoch` is here, and stable */
	DISK_EV_SYNC,           /* primary: progress of sync or verify */
	DISK_EV_SYNCED,         /* primary: the peer has all, and its storage is stable */
	DISK_EV_WRITTEN_BACK,   /* after failover: the SVM's writes are in storage */
	DISK_EV_WANT_CHECKPOINT,/* a cache is filling up */
	DISK_EV_LINK_LOST,      /* text says why; the VM's requests go on alone (primary) */
	DISK_EV_ERROR,          /* text: storage failed */
	DISK_EV_FAULT,          /* PRIMARY: storage failed a request of the VM, which waits unanswered. The daemon
				 * hands over and kills the VM, or says DISK_FAULT */
	DISK_EV_VERIFIED,       /* primary: done; differing, repaired (bytes); text: the first places */
	DISK_EV_OPENING,        /* progress of what comes before HELLO: hashing a disk without metadata */
};

enum disk_hello_flag {
	DISK_HELLO_READ_ONLY = 1,
	DISK_HELLO_PREPARED = 2,  /* a failover was prepared, it counts if another disk's was completed */
	DISK_HELLO_FAILED_OVER = 4, /* it was completed: meta's `failover` is set, and not merely PREPARED. What is
				     * not written back yet is at OPEN */
};

/* disk manager -> daemon: answers (op = request's) and events */
struct disk_message {
	uint32_t op;
	int32_t status; /* 0 or a negative errno */
	uint64_t epoch; /* HELLO: the last checkpoint this disk can come back to, 0: none */
	union {
		struct {
			uint32_t proto;
			uint32_t flags;    /* enum disk_hello_flag */
			uint64_t size;     /* bytes */
			uint64_t identity; /* hash of the content: read-only disks, and those without metadata */
			uint64_t failover; /* PREPARED, FAILED_OVER: its generation */
			struct lineage lineage;
		} hello;
		struct {
			uint64_t done, total; /* bytes of the disk that were looked at, and are to be */
			uint64_t moved;       /* bytes that went over the link for it */
			uint64_t eta_s;       /* UINT64_MAX: unknown */
		} sync; /* SYNC, SYNCED, OPENING */
		struct {
			uint64_t checked, differing, repaired; /* bytes */
		} verified;
		struct {
			uint64_t pvm_cache_bytes, svm_cache_bytes; /* held, in memory or spilled */
			uint64_t memory_bytes;    /* of both caches and the link's ring, in use */
			uint64_t mirrored_bytes;  /* sent to or received from the peer */
			uint64_t changed_bytes;   /* in the bitmap */
			uint64_t reads, writes, flushes;
			uint64_t journal_bytes;   /* of the journal in use */
			struct lineage lineage;
		} status_reply; /* the answers to OPEN, SERVE, LINK, UNLINK, COMMIT and FAILOVER have it, too */
	};
	char text[200];
};

/*
 * disk manager -> disk manager, big endian, over the link
 *
 *   secondary                                             primary
 *      <----------------------------------------------  HELLO, mirrored writes from now on
 *   TARGET, length runs (struct disk_link_run)  ------>  candidates: own bitmap and these, or all
 *      <----------------------------------------------  HASH of a candidate block, HOLE of a range
 *   SAME, or DIFFERS with the hashes of its parts  --->  WRITE, ZERO of the parts that differ
 *      <----------------------------------------------  SYNCED
 *   SYNC_STABLE, when storage is flushed  ------------>
 *      <----------------------------------------------  BOUNDARY
 *   COMMITTED  --------------------------------------->
 *
 * HASH and HOLE are questions about the content at their place in the stream. Before the first boundary that
 * is storage; later (verify) it is storage if no uncommitted write touches the range, and BUSY is the
 * answer if one does. Every question gets one answer, in the order of the questions, and no more than
 * DISK_LINK_WINDOW are without an answer. COMMITTED may stand anywhere between answers.
 */
#define DISK_LINK_MAGIC 0x434f4c44u
#define DISK_LINK_MAX_DATA 262144u /* per DISK_LINK_WRITE; larger ones are split */
#define DISK_HASH_BLOCK 65536u
#define DISK_HASH_PART 4096u
#define DISK_HASH_PARTS (DISK_HASH_BLOCK / DISK_HASH_PART)
#define DISK_HASH_BYTES 16u
#define DISK_LINK_MAX_HOLE (64u * DISK_HASH_BLOCK)
#define DISK_LINK_MAX_RUNS 16384u  /* per DISK_LINK_TARGET; more of these follow */
#define DISK_LINK_WINDOW 128u
enum disk_link_op {
	DISK_LINK_WRITE = 1, /* offset, length, then data */
	DISK_LINK_ZERO,      /* offset, length; no data (trim or write-zeroes) */
	DISK_LINK_BOUNDARY,  /* epoch in offset */
	DISK_LINK_HASH,      /* offset, length (of one block; the disk's last may be short), then XXH128, 16 bytes */
	DISK_LINK_SYNCED,
	DISK_LINK_HELLO,     /* first of all. Seed of the hashes of this link in offset; all hashing uses it.
			      * length: 1 if all will be compared, so that no runs are needed; or 0 */
	DISK_LINK_HOLE,      /* offset, length (whole blocks, up to DISK_LINK_MAX_HOLE): all zeroes here */
	/* secondary to primary */
	DISK_LINK_TARGET = 32, /* once, after HELLO; length: bytes of struct disk_link_run that follow, in
			      * ascending order; offset: 1: more come, 0: that was all */
	DISK_LINK_SAME,      /* offset: of the question, here and below; length: 0 */
	DISK_LINK_DIFFERS,   /* length: of the XXH64 of each part that follow; after HOLE: 0 */
	DISK_LINK_BUSY,      /* length: 0 */
	DISK_LINK_SYNC_STABLE,
	DISK_LINK_COMMITTED, /* epoch in offset: this checkpoint is in the secondary's storage */
};
struct disk_link_header {
	uint32_t magic;
	uint32_t op;
	uint64_t offset;
	uint32_t length;
	uint32_t pad;
};
_Static_assert(sizeof(struct disk_link_header) == 24, "disk link layout");
struct disk_link_run {
	uint64_t offset, length; /* multiples of DISK_HASH_BLOCK but for the disk's end */
};

#endif
