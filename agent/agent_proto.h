/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * agent_proto.h - what daemon and agent say to each other
 *
 * The agent is a library inside QEMU; the daemon is QEMU's parent. They talk over a SOCK_SEQPACKET
 * socketpair inherited by QEMU, one packet a message, host byte order (same machine, same build).
 * The daemon asks, the agent answers each request with exactly one reply, in order. Nothing else is
 * ever sent, except the one AGENT_HELLO reply the agent sends by itself once it is ready.
 *
 * File descriptors handed over (SCM_RIGHTS, with AGENT_SETUP): [0] staging memfd, [1] device-state
 * memfd. Both ends map or pread them; only one side uses them at a time: the agent between request
 * and reply, the daemon otherwise.
 */
#ifndef COLO_AGENT_PROTO_H
#define COLO_AGENT_PROTO_H

#include <stdint.h>

#define AGENT_PROTO_VERSION 2
#define AGENT_MAX_BLOCKS 64
#define AGENT_BLOCK_NAME 64
#define AGENT_PAGE_SIZE 4096u
#define AGENT_ERROR_TEXT 256
#define AGENT_NONCE 16
#define AGENT_MAX_NICS 8
#define AGENT_MAX_DISKS 8

enum agent_op {
	AGENT_HELLO = 1,  /* reply only: sent unasked when the agent is up (reply.hello) */
	AGENT_SETUP,      /* + 2 fds: staging, device state; find RAM blocks (reply.blocks) */
	AGENT_SELFTEST,   /* VM must not run: save, reset, load into itself, save, compare */
	AGENT_TRACK,      /* primary: arm dirty tracking; everything is clean afterwards */
	AGENT_CHECKPOINT, /* primary: stop, save, harvest, marker, run on (reply.checkpoint) */
	AGENT_VIEW,       /* secondary, VM stopped: turn RAM into a private view of an image memfd */
	AGENT_APPLY,      /* secondary: stop, drop, apply staging, [reset, load, drop, marker, run] */
	AGENT_STOP,       /* stop the VM (no disk flush) */
	AGENT_CONT,       /* run the VM */
	AGENT_UNTRACK,    /* primary: stop tracking, for example before a new seeding */
	AGENT_SERVE,      /* an SVM has taken over: what it writes is RAM for good, no APPLY comes any more */
	AGENT_PING,       /* pass through QEMU's main loop, do nothing. The only one that may be asked while another
			   * has no answer, or be followed by one */
	AGENT_LOADED,     /* secondary, driver standby only: device state was loaded over QMP, the VM has not run
			   * since: drop what that wrote, drain the NICs, marker, [hash] (reply.apply) */
};

/*
 * Plugin arguments: fd=N (this socket); ram=N (driver standby, below);
 * nic=T:S:C for each NIC (its TAP, the daemon's packet socket, the
 * counters of the TAP's network namespace, that is /proc/net/dev; none: no marker); diskfd=N for each
 * disk that the VM can write to (a control socket of its disk manager, disk/disk_proto.h; none: no disk boundary);
 * track=auto|async|sync (how writes to RAM are noticed, wp.h; none: auto).
 * CHECKPOINT, with diskfd: after the drain and while the VM is stopped, the agent sends DISK_BOUNDARY
 * with the epoch on each diskfd, and has the answers of all before the VM runs on, so that the boundary lies in
 * each disk's stream exactly where it lies in the VM's life. An error of one of them, or no answer within
 * 200 ms, fails the checkpoint. (-ETIMEDOUT and -EPIPE come from nothing else: a disk manager is silent, or gone.)
 *
 * Drivers. Without ram= the agent drives QEMU by functions of QEMU's own (hello.driver "direct"). With ram=N it uses
 * none ("standby"): the daemon stops, saves, loads and runs the VM by QMP, and the agent sees to RAM, disk and network.
 * N is the file (a memfd of full size) that QEMU has the guest's RAM in:
 *	-object memory-backend-file,id=ram0,size=SIZE,mem-path=/proc/self/fd/N,share=on -machine ...,memory-backend=ram0
 * so that a migration with the capability x-ignore-shared leaves RAM out. All other RAM blocks are in that stream.
 * The VM must be stopped, by QMP, for TRACK, CHECKPOINT, VIEW, APPLY, and LOADED: requests do not pass through
 * the main loop.
 *	SETUP		QEMU must have made its RAM: answered QMP once. One block, "ram", of the file's size
 *	SELFTEST	is RAM found, do write protection and page map work on it?
 *	CHECKPOINT	after QEMU has saved its state (migration completed, query-status is "postmigrate"; an event of
 *			the migration comes earlier than that, and `cont` in between would abort QEMU): all but
 *			stopping, saving and running. device_bytes, stop_ns, save_ns, cont_ns, pause_ns, ran_at_ns are 0
 *	VIEW		the image is the file itself, with what is in it
 *	APPLY		with STAGED: pages go into the image. With ran_at_ns: the clocks in the device-state memfd, which
 *			holds the whole migration stream, are advanced in place by the time since; so the daemon asks
 *			before it feeds the stream to QEMU, takes from ran_at_ns what it expects to need from now until
 *			the VM runs, and says 0 unless the guest's TSC is emulated (TCG). All other SVMs with a view of
 *			this file must stand still, for pages that they did not write change under them
 *	LOADED		after the load (query-status is "paused" or "prelaunch"), before `cont`. The standby was told
 *			announce-rounds=1: that frame of QEMU's own comes before the marker. (With 0 the guest's next
 *			reset of a virtio-net NIC crashes QEMU 7.2, which has then freed its timer.)
 *	PING		answered at once: says nothing about the main loop
 *	STOP, CONT, flags RUN and LOAD: -ENOSYS. (LOADED is -ENOSYS with driver direct.)
 */

/* request flags */
#define AGENT_F_RUN    1u /* CHECKPOINT, APPLY: run the VM afterwards */
#define AGENT_F_LOAD   2u /* APPLY: load the device state, too (off: RAM image only, mode checkpoint) */
#define AGENT_F_HASH   4u /* CHECKPOINT, APPLY, LOADED: hash all RAM while the VM is stopped (slow; tests) */
#define AGENT_F_STAGED 8u /* APPLY: the staging area holds pages to apply (off: only load and run) */

/* daemon -> agent */
struct agent_request {
	uint32_t op;    /* enum agent_op */
	uint32_t flags; /* AGENT_F_* */
	uint64_t epoch; /* for messages only */
	uint8_t nonce[AGENT_NONCE]; /* CHECKPOINT, APPLY with LOAD, LOADED: goes into the marker frame */
	int64_t ran_at_ns;  /* APPLY with LOAD, and as said above with standby: when the PVM ran on, in CLOCK_MONOTONIC of this host; the
			     * guest's clocks are advanced by the time since, so that both guests' clocks
			     * read alike; 0: do not */
};

struct agent_block {
	char name[AGENT_BLOCK_NAME]; /* QEMU's idstr, NUL-terminated */
	uint64_t size;               /* bytes used, rounded up to whole pages */
};

/* agent -> daemon */
struct agent_reply {
	uint32_t op;
	int32_t status; /* 0 or a negative errno */
	char error[AGENT_ERROR_TEXT]; /* one line for the operator; empty if status is 0 */
	union {
		struct {
			uint32_t proto;           /* AGENT_PROTO_VERSION */
			int32_t major, minor, micro; /* QEMU's version, -1 unknown */
			char driver[16];          /* "direct", "standby" */
		} hello;
		struct {
			uint32_t n;
			uint32_t pad;
			struct agent_block block[AGENT_MAX_BLOCKS];
			uint64_t stage_size; /* bytes the staging memfd was grown to (sparse) */
		} blocks;
		struct {
			uint64_t pages;       /* harvested */
			uint64_t device_bytes;/* length of device state, from offset 0 of its memfd */
			uint64_t net_taken[AGENT_MAX_NICS]; /* frames the VM had taken from each TAP */
			int64_t stop_ns, save_ns, scan_ns, copy_ns, cont_ns;
			int64_t pause_ns;     /* VM stopped until running again */
			int64_t ran_at_ns;    /* CLOCK_MONOTONIC when the VM ran on, 0: it did not; under
					       * KVM when its clocks, which go on, were saved */
			uint64_t hash;        /* of all RAM, with AGENT_F_HASH */
		} checkpoint;
		struct {
			uint64_t dropped;     /* private pages dropped */
			uint64_t applied;     /* pages applied */
			int64_t stop_ns, drop_ns, apply_ns, reset_ns, load_ns, cont_ns;
			int64_t total_ns;
			uint64_t hash;
		} apply;
	};
};

/*
 * Staging area: a header, then records, then page data.
 *
 *   struct stage_header | struct stage_record[nrec] | padding to a page | pages
 *
 * A record is a run of pages of one block. Runs flagged zero have no page data. Records are in order of
 * block, then offset; page data is in the order of records. The reader checks every number.
 */
#define STAGE_MAGIC 0x47545343u
#define STAGE_VERSION 1u
#define STAGE_ZERO 1u

struct stage_header {
	uint32_t magic;    /* STAGE_MAGIC */
	uint32_t version;  /* STAGE_VERSION */
	uint64_t nrec;
	uint64_t npages;   /* with data, zero runs not counted */
	uint64_t data_off; /* of the first page from the start of the area, page-aligned */
};

struct stage_record {
	uint32_t block;  /* index in reply.blocks */
	uint32_t flags;  /* STAGE_ZERO */
	uint64_t offset; /* in the block, bytes, page-aligned */
	uint64_t npages; /* > 0 */
};

_Static_assert(sizeof(struct stage_header) == 32, "staging layout");
_Static_assert(sizeof(struct stage_record) == 24, "staging layout");

/*
 * Marker frame. QEMU's NIC is a TAP whose other end is a packet socket of the daemon. While the VM is
 * stopped the agent writes one frame of its own into it, so that the daemon knows which frames the guest
 * sent before the boundary and which after. The guest cannot forge it: it does not know the nonce.
 */
#define AGENT_MARKER_MAGIC "COLO-MRK"
#define AGENT_MARKER_TYPE { 0x88, 0xb5 } /* for local experiments: no VLAN, for the kernel would take it off */
struct agent_marker {
	uint8_t to[6], from[6], type[2];
	char magic[8];
	uint8_t nonce[AGENT_NONCE];
};

#endif
