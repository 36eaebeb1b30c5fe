/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * peer_proto.h - what two daemons say to each other over TCP
 *
 * The secondary dials the primary once for each channel. Each connection begins with a hello of the
 * dialler and an answer of the listener; the control channel comes first, its answer names the session
 * that the others belong to. All numbers are big endian. Each says what its disks are, so that both judge
 * whether, and how far, the secondary's may be overwritten.
 *
 * Versions. From 3 on a daemon speaks some versions, version_min to version; the pair speaks the highest that
 * both do, so that one host after the other can be brought to a newer colo. Hello and answer keep their size
 * and layout, new fields take of what is spare (zeroes until then). What is new is sent only to a peer
 * that knows it. 3: first with a range. 4: heartbeats say the sender's state. 5: the hello says which driver and
 * accelerator this host has come to (before: `direct`, and what the digest has).
 *
 *   CONTROL  messages (struct peer_header + payload), both ways
 *   BULK     checkpoints (struct bulk_header, stage records, pages, device state), to the secondary
 *   DISK     one for each writable disk: handed to the disk managers (disk/disk_proto.h)
 *   SEED     handed to the two QEMUs: their migration stream
 */
#ifndef COLO_PEER_PROTO_H
#define COLO_PEER_PROTO_H

#include <stdint.h>

#include "disk/lineage.h"

#define PEER_MAGIC 0x434f4c4fu
#define PEER_VERSION 5     /* the newest that is spoken */
#define PEER_VERSION_MIN 3 /* the oldest */
#define PEER_MAX_DISKS 8

enum peer_channel { PEER_CONTROL, PEER_BULK, PEER_DISK, PEER_SEED, PEER_NCHANNELS };

enum peer_disk_flag { PEER_DISK_PRESENT = 1, PEER_DISK_READ_ONLY = 2, PEER_DISK_CDROM = 4 };

struct peer_disk {
	uint64_t size;     /* bytes */
	uint64_t identity; /* read-only: hash of the content */
	uint32_t flags;    /* enum peer_disk_flag */
	uint32_t sector;
	uint64_t current, base, history[LINEAGE_HISTORY]; /* writable: struct lineage */
	uint32_t lineage_flags;
	uint32_t pad;
};
_Static_assert(sizeof(struct peer_disk) == 96, "disk layout");

enum peer_hello_flag {
	PEER_HELLO_UNDECIDED = 1, /* does not know its role yet; may be dialled as well */
	PEER_HELLO_CLAIMING = 2,  /* lost its primary, and waits for the arbiter; `generation` is the pair's */
};

/* magic and version keep their place in all versions */
struct peer_hello {
	uint32_t magic;
	uint16_t version;
	uint16_t channel;
	uint64_t session; /* CONTROL: 0 */
	uint16_t disk;    /* DISK: which */
	uint16_t flags;   /* enum peer_hello_flag */
	uint16_t version_min; /* version is the newest one spoken, this the oldest */
	uint16_t pad;
	uint64_t memory, vcpus, mode, digest;
	char vm[32], node[32], machine[32], qemu[32];
	struct peer_disk disks[PEER_MAX_DISKS];
	uint64_t generation; /* CLAIMING */
	char driver[16], accel[8]; /* version 5 */
	uint8_t spare[32];
};
_Static_assert(sizeof(struct peer_hello) == 1016, "hello layout");

enum peer_status {
	PEER_OK,
	PEER_REFUSED,
	PEER_LATER,
	PEER_SERVES, /* to CLAIMING: this node serves, in `generation`, and the dialler must not */
};

struct peer_answer {
	uint32_t magic;
	uint16_t version; /* OK: the one that is spoken; else the newest */
	uint16_t status; /* enum peer_status */
	uint64_t session;
	char text[240];
	/* up to here as in version 1 */
	struct peer_disk disks[PEER_MAX_DISKS]; /* with PEER_OK to CONTROL */
	uint64_t generation; /* SERVES */
	uint8_t spare[56];
};
_Static_assert(sizeof(struct peer_answer) == 256 + 768 + 64, "answer layout");
#define PEER_ANSWER_ANY 256 /* what an answer of any version has */
#define PEER_HELLO_ANY 8

enum peer_type {
	/* both; payload: u64 time of the sender, u64 time it last got, u64 ns ago; from version 4 on: u64 state of the
	 * sender (enum core_state) */
	PEER_HEARTBEAT = 1,
	PEER_SEED_START,    /* to secondary: start QEMU, dial SEED */
	PEER_SEED_READY,    /* to primary: the SVM has its private view. payload: RAM block list */
	/* u64: NIC in the highest byte, number of the frame below; frame as in net/net.h */
	PEER_INPUT,         /* to secondary: frame of a client */
	PEER_PVM_SYN,       /* to secondary: frame of the PVM; epoch: the PVM's; number 0 */
	PEER_OUTPUT,        /* to primary: frame of the SVM; epoch: the SVM's; number 0 */
	PEER_BOUNDARY,      /* to secondary: epoch begins; u64 for each NIC: last input the PVM had */
	PEER_HELD,          /* to primary */
	PEER_APPLIED,       /* to primary: struct peer_applied */
	PEER_HANDOVER,      /* to secondary: take over; epoch: enum core_loss, why; payload: u64, the
			     * generation to claim */
	PEER_ASK,           /* to primary: hand over; epoch: 1 after a checkpoint, 0 at once */
	PEER_TAKEN,         /* to primary: the secondary serves, end */
	PEER_DISMISS,       /* to secondary: never take over */
	PEER_GUEST_OFF,     /* to secondary: the guest is off, end */
	PEER_SYNCED,        /* to secondary: disks are alike, seeding begins; epoch: the generation. May
			     * come again, with a newer one */
	PEER_GOODBYE,       /* to primary: the secondary ends; payload: text */
	/* to secondary, of each NIC, before BOUNDARY and with its epoch: u64 as above, number 0; piece of the base of
	 * its translator (net/net.h), the last one says so */
	PEER_TRANSLATIONS,
	PEER_SWITCHOVER,    /* to secondary: claim, then ask the primary to hand over */
};

struct peer_header {
	uint32_t length; /* of the payload */
	uint16_t type;
	uint16_t flags;
	uint64_t epoch;
};
_Static_assert(sizeof(struct peer_header) == 16, "header layout");
#define PEER_PAYLOAD_MAX (128u << 10)

struct peer_applied {
	uint64_t hash;
	uint64_t total_us; /* SVM stopped until running */
	uint64_t dropped;
};

/* flags of a checkpoint, in bulk_header */
#define BULK_VERIFY 1u /* the secondary answers with the hash of RAM */

struct bulk_header {
	uint32_t magic;
	uint32_t flags;
	uint64_t epoch;
	uint64_t nrec, npages, device_bytes;
};
_Static_assert(sizeof(struct bulk_header) == 40, "bulk layout");
/* after the device state: */
struct bulk_trailer {
	uint64_t age_ns; /* time since the PVM ran on, when the trailer was sent */
};

#endif
