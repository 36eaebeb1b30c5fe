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

#define DISK_PROTO_VERSION 1

enum disk_role {
	DISK_ALONE = 0,  /* read and write storage, note changed blocks in the bitmap */
	DISK_PRIMARY,    /* as ALONE, and every write goes to the peer, too */
	DISK_SECONDARY,  /* SVM cache over storage; PVM cache filled by the peer */
};

/* daemon -> disk manager; each is answered by the message of the same name unless said otherwise */
enum disk_request_op {
	DISK_LINK = 1,   /* + fd: connection to the peer. role says what this side is. As primary: sync the
			  * blocks changed since start, then DISK_EV_SYNCED; writes are mirrored from
			  * the moment of the answer on. As secondary: receive. */
	DISK_UNLINK,     /* drop the link; role becomes ALONE unless SECONDARY, which needs COMMIT or
			  * FAILOVER or DISCARD to know which content counts */
	DISK_BOUNDARY,   /* primary; VM stopped, requests drained: mark epoch's end in the stream */
	DISK_COMMIT,     /* secondary; SVM stopped: PVM cache up to the boundary of `epoch` becomes
			  * storage, SVM cache is dropped */
	DISK_FAILOVER,   /* secondary -> alone: PVM cache is dropped, the SVM's writes stay; they go to
			  * storage in the background, DISK_EV_WRITTEN_BACK when they are stable */
	DISK_STATUS,
};

struct disk_request {
	uint32_t op;
	uint32_t role;  /* LINK: enum disk_role */
	uint64_t epoch; /* BOUNDARY, COMMIT */
};

enum disk_event_op {
	DISK_EV_HELLO = 100,    /* at start: size, identity */
	DISK_EV_BOUNDARY,       /* secondary: everything before the boundary of `epoch` is here */
	DISK_EV_SYNC,           /* primary: progress, done of total bytes */
	DISK_EV_SYNCED,         /* primary: all changed blocks are on their way, before any later boundary */
	DISK_EV_WRITTEN_BACK,   /* after failover: the SVM's writes are on stable storage */
	DISK_EV_WANT_CHECKPOINT,/* a cache is filling up */
	DISK_EV_LINK_LOST,      /* text says why; the VM's requests go on alone (primary) */
	DISK_EV_ERROR,          /* text: storage failed */
};

/* disk manager -> daemon: answers (op = request's) and events */
struct disk_message {
	uint32_t op;
	int32_t status; /* 0 or a negative errno */
	uint64_t epoch;
	union {
		struct {
			uint32_t proto;
			uint32_t pad;
			uint64_t size;     /* bytes */
			uint64_t identity; /* hash of the content when it was opened */
		} hello;
		struct {
			uint64_t done, total; /* bytes */
		} sync;
		struct {
			uint64_t pvm_cache_bytes, svm_cache_bytes;
			uint64_t mirrored_bytes;  /* sent to or received from the peer */
			uint64_t changed_bytes;   /* in the bitmap */
			uint64_t reads, writes, flushes;
		} status_reply;
	};
	char text[200];
};

/* disk manager -> disk manager, big endian, over the link; primary to secondary only */
#define DISK_LINK_MAGIC 0x434f4c44u
#define DISK_LINK_MAX_DATA 262144u /* per DISK_LINK_WRITE; larger ones are split */
enum disk_link_op {
	DISK_LINK_WRITE = 1, /* offset, length, then data */
	DISK_LINK_ZERO,      /* offset, length; no data (trim or write-zeroes) */
	DISK_LINK_BOUNDARY,  /* epoch in offset */
};
struct disk_link_header {
	uint32_t magic;
	uint32_t op;
	uint64_t offset;
	uint32_t length;
	uint32_t pad;
};
_Static_assert(sizeof(struct disk_link_header) == 24, "disk link layout");

#endif
