/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * net.h - the comparing module (primary) and the translator (secondary): pure code
 *
 * No file descriptors, no clock, no threads, no randomness: frames go in with the time they came, frames
 * come out through callbacks, before the call returns. All times are microseconds of one monotonic
 * clock. A callback must not call back into the same cm.
 *
 * A frame is a struct virtio_net_hdr of VNET_HLEN bytes (linux/virtio_net.h, as AF_PACKET's
 * PACKET_VNET_HDR and a TAP with IFF_VNET_HDR have it) and an Ethernet frame without FCS. All zeroes is a
 * frame as on the wire; otherwise it may be larger than the MTU, for the receiver's side to cut
 * (segmentation offload), and its checksum may be left to do. A callback's frame is valid only during the
 * callback.
 *
 * Rules R1 and R2 are DESIGN.md's: what leaves through cm_ops.release was either emitted alike by the
 * SVM of this epoch, or came before a boundary that the secondary holds.
 */
#ifndef COLO_NET_H
#define COLO_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VNET_HLEN 10u
/* with two VLAN tags, and the largest IP packet */
#define NET_FRAME_MAX (VNET_HLEN + 22u + 65535u)

/* why the comparing module wants a checkpoint */
#define CM_CAUSES(X)                                                            \
	X(MISMATCH, "mismatch") /* PVM and SVM said different things */         \
	X(MISSING, "missing")   /* the SVM did not answer in time */            \
	X(FULL, "full")         /* too much is held */
enum cm_cause {
#define X(name, text) CM_##name,
	CM_CAUSES(X)
#undef X
	CM_NCAUSES
};
const char *cm_cause_name(enum cm_cause c);

/* what was different, or missing */
#define CM_KINDS(X)                                                                         \
	/* mismatch */                                                                      \
	X(PAYLOAD, "payload")     /* a byte of a TCP stream */                              \
	X(FIN, "fin")             /* one VM ended the stream where the other has data */    \
	X(REPEAT, "repeat")       /* the PVM repeats bytes, or its FIN, in another way */   \
	X(SYN, "syn-options")     /* TCP options of the SYN */                              \
	X(DATAGRAM, "datagram")   /* content or length of a packet that is not TCP */       \
	X(FRAGMENT, "fragment")   /* of a datagram in IP fragments */                         \
	/* missing */                                                                       \
	X(NO_ANSWER, "no-answer") /* the SVM has not said what the PVM said */              \
	X(NO_SYN, "no-syn")       /* it has not opened the connection */                    \
	X(NO_FIN, "no-fin")       /* it has not ended the stream */                         \
	X(NO_ACK, "no-ack")       /* it has not acknowledged what the PVM acknowledged */   \
	X(WINDOW, "window")       /* its receive window is shut, the PVM's is open */       \
	X(URGENT, "urgent")       /* one VM marked a byte as urgent, the other did not */   \
	X(RESET, "reset")         /* one VM reset the connection, the other did not */      \
	/* full */                                                                          \
	X(HELD, "held")           /* max_held_bytes */                                      \
	X(AHEAD, "ahead")         /* the SVM is too far ahead in one flow */                \
	X(FLOWS, "flows")         /* max_flows, none of them idle */
enum cm_kind {
#define X(name, text) CM_KIND_##name,
	CM_KINDS(X)
#undef X
	CM_NKINDS
};
const char *cm_kind_name(enum cm_kind k);

enum cm_mode {
	CM_PASS,       /* unprotected: every frame of the PVM leaves at once */
	CM_COMPARE,    /* mode colo */
	CM_HOLD,       /* mode checkpoint: everything waits for the boundary */
};

struct cm_ops {
	/* PVM frame (ACK number possibly clamped) that may go to the LAN now */
	void (*release)(void *opaque, const uint8_t *frame, size_t len);
	/* a checkpoint is needed; called once, again only after the next cm_boundary() */
	void (*want_checkpoint)(void *opaque, enum cm_cause cause);
	/* the PVM opened a TCP connection (its SYN or SYN-ACK): the translator on the secondary has to
	 * see this frame before any later frame of the client. Called before the frame is released, and
	 * again for a SYN that is repeated after a boundary. */
	void (*pvm_syn)(void *opaque, const uint8_t *frame, size_t len);
};

struct cm_config {
	size_t max_flows;       /* 0: 131072. When the table is full those go first that ended, and
	                         * those whose peer has not proven yet that it gets what it is sent */
	size_t max_held_bytes;  /* of PVM and SVM frames together, with overhead; 0: 64 MiB; beyond:
	                         * CM_FULL, and see cm_is_full() */
	uint32_t wait_min_us;   /* least and most time to wait for a missing answer; */
	uint32_t wait_max_us;   /* 0: 20 ms, 200 ms. In between it follows the measured lag. A
	                         * missing acknowledgement, which a guest may delay, has half of
	                         * wait_max at least. */
	uint64_t hash_seed;     /* random bits of the caller's, against chosen addresses; or 0 */
};

/* All memory of a cm, at most: per flow, for what is held, and what it takes in any case. */
#define CM_FLOW_BYTES 320u
#define CM_MEMORY(max_flows, max_held_bytes)                                                      \
	((uint64_t)(max_flows) * (CM_FLOW_BYTES + 48u) + (uint64_t)(max_held_bytes) * 5u / 2u + (8u << 20))

struct cm_stats {
	uint64_t flows;                  /* now */
	uint64_t flows_evicted;          /* ever: proven and not ended, but the table was full */
	uint64_t memory;                 /* bytes allocated, now */
	uint64_t held_packets, held_bytes; /* now */
	uint64_t released, matched_bytes; /* ever */
	uint64_t released_by_checkpoint;  /* frames, ever */
	uint64_t mismatches, missing, full; /* ever */
	uint64_t kinds[CM_NKINDS];       /* the same by kind */
	uint64_t stale_svm_frames;       /* of another epoch, dropped */
	uint64_t acks_clamped;
	uint64_t dropped;                /* frames lost because too much was held, or senseless */
	uint32_t lag_us, lag_dev_us;     /* smoothed: SVM's answer after the PVM's; mean deviation */
};

struct cm;
/* NULL: out of memory. cfg (NULL: defaults) and ops are copied. */
struct cm *cm_new(const struct cm_config *cfg, const struct cm_ops *ops, void *opaque);
void cm_free(struct cm *cm);
/* A new cm is in CM_PASS. CM_PASS also releases everything that is held, in order, and forgets the epoch.
 * Set CM_COMPARE before the PVM runs on from the copy that the SVM starts as. */
void cm_set_mode(struct cm *cm, enum cm_mode mode, uint64_t now_us);
/* The SVM starts as a copy of the PVM: as cm_boundary() + cm_held(), for epoch (any number). */
void cm_start_epoch(struct cm *cm, uint64_t epoch, uint64_t now_us);

void cm_from_client(struct cm *cm, const uint8_t *frame, size_t len, uint64_t now_us);
void cm_from_pvm(struct cm *cm, const uint8_t *frame, size_t len, uint64_t now_us);
/* epoch: of the SVM that said it; frames of another than the current one are dropped */
void cm_from_svm(struct cm *cm, uint64_t epoch, const uint8_t *frame, size_t len, uint64_t now_us);

/* The PVM's output so far belongs before the boundary; `epoch` begins. What the SVM of an older epoch
 * says is ignored from here on: each flow's comparison starts anew where the PVM stands. Epochs rise. */
void cm_boundary(struct cm *cm, uint64_t epoch, uint64_t now_us);
/* The secondary holds the complete checkpoint that begins `epoch`: all held from before leaves.
 * A frame of the SVM of `epoch` implies it, since that SVM was started from this checkpoint. */
void cm_held(struct cm *cm, uint64_t epoch, uint64_t now_us);

/* Too much is held: stop reading what the PVM says until cm_held() or cm_from_svm() has changed that, for a
 * checkpoint is wanted already. Only to come to the boundary what was said before it has to be read on: as
 * much again as max_held_bytes, overhead included, finds room. What is beyond is lost (cm_stats.dropped). */
bool cm_is_full(const struct cm *cm);

/* The SVM of the current epoch runs from now on: the time to wait for its answers counts from here.
 * Between cm_boundary() and this call, or the first frame of that SVM, CM_MISSING is not raised. */
void cm_svm_runs(struct cm *cm, uint64_t now_us);

/* Look for answers that are missing too long. Returns the time of the next call that makes sense, or
 * UINT64_MAX. To be called at that time, not after each frame. */
uint64_t cm_tick(struct cm *cm, uint64_t now_us);
uint64_t cm_next_tick(const struct cm *cm);
void cm_get_stats(const struct cm *cm, struct cm_stats *out);
/* one line about the oldest frame that is held, for a log */
void cm_explain(const struct cm *cm, uint64_t now_us, char *text, size_t size);

/*
 * Reports: the last CM_REPORTS differences, of one epoch the first CM_REPORTS_EPOCH only.
 */
#define CM_REPORTS 64u
#define CM_REPORTS_EPOCH 16u
#define CM_EXCERPT 32u

/* What one VM said around the first difference: `before` bytes, and `after` from the difference on. Of a SYN
 * its options, from their start. */
struct cm_side {
	bool known;     /* otherwise nothing was kept of it */
	bool fin, rst;  /* here it ended the stream; it reset the connection */
	uint8_t before, after;
	uint8_t data[2 * CM_EXCERPT];
	uint64_t value; /* datagram: length of its body; no-ack: bytes acknowledged; window: its bytes. Of full the
	                 * PVM's is what there is, the SVM's the bound */
};

enum cm_origin {
	CM_OF_STREAM, /* offset from the stream's first byte, modulo 4 GiB */
	CM_OF_SEEN,   /* the same, from the first byte that was seen: the connection is older than protection */
	CM_OF_PACKET, /* from the first byte after the packet's headers */
	CM_OF_OPTIONS, /* from the first of the TCP options */
	CM_OF_NOTHING,
};

struct cm_report {
	uint64_t number;              /* from 1 */
	uint64_t time_us, epoch;
	enum cm_cause cause;
	enum cm_kind kind;
	bool has_flow;                /* what follows up to `icmp` is known */
	uint8_t family, proto;        /* 4, 6, 0: no IP, the addresses are MACs */
	bool fragment;
	uint16_t ethertype, vlan;     /* vlan: 0: none, else 0x1000 | VLAN id */
	uint8_t guest[16], peer[16];  /* IPv4: the first four bytes */
	uint16_t gport, pport;        /* TCP and UDP */
	uint16_t icmp;                /* ICMP: type and code */
	enum cm_origin origin;
	uint32_t offset;              /* of the first difference */
	struct cm_side pvm, svm;      /* repeat: now, and what the PVM itself had said before */
	uint64_t waited_us;           /* the PVM's frame, until now; 0: the SVM had been first */
	uint32_t lag_us, lag_dev_us;  /* as in cm_stats, then */
	uint32_t patience_us;         /* how long a frame might wait, then */
};

/* i = 0: the last one; NULL: there are no more. Valid until the next call for this cm. */
const struct cm_report *cm_get_report(const struct cm *cm, size_t i);
/* "tcp 10.0.0.2:80 to 10.0.0.9:4000, vlan 7", the guest first */
void cm_report_flow(const struct cm_report *r, char *text, size_t size);
/* Hands over the frames that take part in a difference as it is reported: the PVM's that are held (the
 * first is the one that differs), the SVM's when it is the one that came. time_us: when it came. */
typedef void cm_capture_fn(void *opaque, const struct cm_report *r, bool svm, uint64_t time_us,
	const uint8_t *frame, size_t len);
void cm_set_capture(struct cm *cm, cm_capture_fn *fn, void *opaque);

/*
 * Translator, on the secondary, and on a survivor for good. A connection opened since the last checkpoint has another ISN and another
 * timestamp clock on the SVM, and, where the guest is the client, another source port. Frames of the SVM
 * are rewritten to the PVM's numbers, frames of the client to the SVM's; checksums are adjusted. A connection
 * that is not in its table is older than the checkpoint: both VMs name and count it alike. Frames are
 * rewritten in place.
 *
 * Memory: 192 bytes per connection, as they come, and at most 64 bytes per max_flows and 1.6 MiB of SYNs that
 * wait; 2 * TR_BASE_ENTRY_BYTES per connection of the base, rounded up to a power of two. Time per frame does not grow with the number of connections.
 */
struct tr_config {
	size_t max_flows;   /* 0: 131072 */
	uint64_t hash_seed; /* random bits of the caller's, against chosen addresses; or 0 */
};

struct tr_ops {
	/* a SYN of the SVM, in the PVM's numbers, that had to wait. Must not call back into the same tr. */
	void (*from_svm)(void *opaque, const uint8_t *frame, size_t len);
};

struct tr_stats {
	uint64_t entries;        /* now */
	uint64_t paired_clients; /* connections of which the guest is the client, ever */
	uint64_t waiting_syns;   /* of the SVM for the PVM's, now */
	uint64_t full;           /* times that no entry or place to wait was to be had, ever: the
	                          * connection is not translated, a checkpoint will be asked for */
};

struct tr;
/* NULL: out of memory. cfg (NULL: defaults) and ops are copied. */
struct tr *tr_new(const struct tr_config *cfg, const struct tr_ops *ops, void *opaque);
void tr_free(struct tr *tr);
/* what cm_ops.pvm_syn said, in its order among the frames of the clients; may call from_svm */
void tr_pvm_syn(struct tr *tr, const uint8_t *frame, size_t len, uint64_t now_us);
/* both: false if the frame cannot be translated (the other VM's numbers are not known yet; malformed TCP)
 * and must be dropped. A SYN-ACK of the SVM whose PVM ISN is unknown passes raw (true); a SYN is
 * kept and comes through from_svm later (false). */
bool tr_to_svm(struct tr *tr, uint8_t *frame, size_t len, uint64_t now_us);
bool tr_from_svm(struct tr *tr, uint8_t *frame, size_t len, uint64_t now_us);
/* The SVM is a copy of the PVM again: forget all but the base. What tr_pvm_syn() told since the boundary has to be
 * told again. */
void tr_reset(struct tr *tr, uint64_t now_us);
/* The SVM serves from now on: its timestamps must not run behind what the clients saw, and its new
 * connections must not collide on the LAN with translated ones. SYNs that wait leave through from_svm. */
void tr_failover(struct tr *tr, uint32_t bump_ms);
void tr_get_stats(const struct tr *tr, struct tr_stats *out);

/*
 * The base of the secondary's translator, where the primary is a survivor, or the secondary of another primary
 * that was one: connections whose numbers are the LAN's only behind the primary's translator, too. The
 * primary saves its translator's table at each boundary, when its guest stands still; the secondary takes it
 * from then on for the table that the checkpoint of this boundary begins with.
 */
#define TR_PIECE_MAX 65536u
#define TR_BASE_ENTRY_BYTES 76u
typedef bool tr_piece_fn(void *opaque, const uint8_t *piece, size_t len);
/* Primary: calls fn for each piece, in order, or, if nothing has changed since this was last done, and not
 * `anew`, for one that says so. false: fn has said false, the table is not all sent. */
bool tr_save(struct tr *tr, bool anew, uint64_t now_us, tr_piece_fn *fn, void *opaque);
/* Secondary: a piece. Of more entries than max_flows the rest is left out (tr_stats.full). -EINVAL: it makes no
 * sense; -ENOMEM. */
int tr_base_add(struct tr *tr, const uint8_t *piece, size_t len);
/* all pieces of a table are there */
bool tr_base_known(const struct tr *tr);
/* tr_reset() goes back to the table that was added last, if it is complete */
void tr_base_adopt(struct tr *tr);
/* The next table is another primary's. What was adopted stays. */
void tr_base_forget(struct tr *tr);

#endif
