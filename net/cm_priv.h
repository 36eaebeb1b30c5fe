/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * cm_priv.h - shared by the files of the comparing module: cm.c, tcp_cmp.c, tcp_syn.c, tcp_leave.c,
 * dgram_cmp.c, frag.c, explain.c
 */
#ifndef COLO_NET_CM_PRIV_H
#define COLO_NET_CM_PRIV_H

#include "flow.h"
#include "frame.h"
#include "neigh.h"
#include "net.h"
#include "pool.h"

/* What the SVM may be ahead in one flow: a sender with a free hand is ahead by the peer's window, which
 * common stacks let grow to 6 MiB. */
#define CM_AHEAD_MAX (8u << 20)

/* what is known of a TCP flow; see tcp_cmp.c */
enum {
	T_POS = 1 << 0,      /* matched, safe, pvm_next */
	T_SYN = 1 << 1,      /* the PVM's SYN of this incarnation was seen: isn, syn_opts */
	T_SYN_WAIT = 1 << 2, /* and the SVM's was not yet */
	T_SYN_ACK = 1 << 3,  /* the PVM's SYN acknowledges (syn_ack) */
	T_SVM_SYN = 1 << 4,  /* a SYN of the SVM that waits for the PVM's: svm_syn_* */
	T_SVM_SYN_ACK = 1 << 5,
	T_PVM_FIN = 1 << 6,
	T_SVM_FIN = 1 << 7,
	T_SVM_RST = 1 << 8,
	T_PVM_ACK = 1 << 9,
	T_ACK_OK = 1 << 10,
	T_ACK_SAFE = 1 << 11,
	T_ACK_OUT = 1 << 12,
	T_PEER_SYN = 1 << 13,
	T_PEER_FIN = 1 << 14,
	T_FIN_ACKED = 1 << 15,
	T_SVM_WINDOW = 1 << 16,
	T_WSCALE = 1 << 17,
	T_PVM_TS = 1 << 18,
	T_TS_OUT = 1 << 19,
	T_SVM_URG = 1 << 20,
	T_AUTH = 1 << 21,    /* its segments are signed: none may be altered */
	T_SYN_TOLD = 1 << 22, /* the translator knows of the PVM's SYN in this epoch */
	T_PVM_URG = 1 << 23,
	T_PEER_ACK = 1 << 24,
};

/* TCP flags that frame.h has no use for */
enum { TCP_URG = 0x20, TCP_ECE = 0x40, TCP_CWR = 0x80 };

/* What each segment needs comes first: it is one line of the cache. */
struct tcp_state {
	uint32_t known;
	uint32_t matched;  /* PVM and SVM said the same up to here, in this epoch */
	uint32_t pvm_next; /* after the last that the PVM said */
	uint32_t pvm_ack;  /* highest of the PVM */
	uint32_t ack_ok;   /* highest that may leave; while the boundary is not held: ack_safe */
	uint32_t ack_out;  /* highest that left */
	uint32_t pvm_seq, pvm_ts; /* after its last segment; its last timestamp */
	uint32_t ts_out;   /* latest that left */
	uint16_t pvm_window, svm_window, window_out; /* last of each, as in the header */
	uint8_t wscale, offer;    /* offer: in the SYN of the guest as client; 0xff: none */
	uint64_t reset_until; /* the peer has just reset the connection */
	uint32_t pvm_fin, svm_fin;
	uint32_t safe;     /* what may leave while the boundary is not held yet */
	uint32_t ack_safe;
	uint32_t pvm_urg, svm_urg; /* urgent marks: after the last urgent byte */
	uint32_t urg_safe; /* marks up to here were said before this epoch */
	/* of the handshake */
	uint32_t peer_ack; /* highest of the peer */
	uint32_t isn, svm_isn, syn_ack, svm_syn_ack, peer_isn; /* svm_isn: in the SVM's own count */
	uint32_t first;    /* position of the first payload seen, where the SYN was not */
	uint64_t syn_opts, svm_syn_opts;
};

struct flow {
	struct flow_node node; /* first; it ends 16 bytes into a line of the cache, */
	uint64_t epoch;        /* which is filled up by what each frame needs. Of this state */
	struct buf_list held;  /* the PVM's frames; TCP: by end, datagrams: in order */
	struct buf_list said;  /* the SVM's bytes that the PVM has not said yet */
	struct buf *owed;      /* the PVM's last acknowledgement that could not leave as it was */
	struct tcp_state tcp;
	uint32_t said_bytes;
	bool busy;             /* on the list of flows that hold something */
	bool bad;              /* the VMs differ: nothing new leaves before the boundary */
	bool proven;           /* the peer is where it says it is; see cm.c, strangers */
	bool spoke;            /* datagrams: the PVM has sent one */
	struct flow *bprev, *bnext;
};
_Static_assert(sizeof(struct flow) <= CM_FLOW_BYTES, "net.h states it");
_Static_assert(offsetof(struct flow, tcp) == 2 * FLOW_LINE, "lines of the cache");

#define CM_PEERS 16u

struct peer_segment {
	struct flow_key key;
	uint32_t hash;
	uint64_t time;
	struct frame frame; /* without data */
};

/* datagrams that the peer sent in a flow and the guest did not answer; see dgram_cmp.c */
struct dgram_request {
	uint32_t hash, n; /* of the flow */
	uint64_t time;    /* of the last */
};

/* a datagram of which not all fragments are there; see frag.c */
struct frag_group {
	struct flow_key key;
	uint32_t id;
	bool pvm, ended;         /* ended: the last one is there */
	unsigned n;
	uint32_t have, total;    /* bytes */
	uint64_t time;           /* of the first that came */
	struct buf *head, *tail; /* chained by `more` */
};

#define CM_DGRAM_CHAINS 16384u
#define CM_REQUESTS 4096u
#define CM_FRAG_GROUPS 64u
#define CM_FRAG_PIECES 128u

struct cm {
	struct cm_config cfg;
	struct cm_ops ops;
	void *opaque;
	enum cm_mode mode;
	uint64_t epoch, held_epoch;
	bool svm_runs;          /* that of the current epoch */
	uint64_t run_time;      /* since when */
	struct flow_table flows;
	struct pool pool;
	struct buf_list age;    /* held frames of this epoch, by arrival */
	struct buf_list young;  /* the same of flows that are not proven, and of none */
	uint64_t young_limit;   /* no checkpoint is wanted for these before */
	unsigned alone;         /* so many of these found no place in the table of flows */
	struct buf_list acks;   /* owed acknowledgements, by the time the SVM's last advanced */
	struct buf_list before; /* held frames of before a boundary */
	struct flow *busy;
	bool wanted;            /* a checkpoint, since the last boundary */
	bool tell;              /* and the owner was not told yet */
	enum cm_cause cause;
	struct cm_stats stats;
	/* for reports: the frame being looked at (NULL: none), whose, when; what was reported */
	const struct frame *at;
	bool at_svm;
	bool at_young;          /* is its flow not proven? */
	uint64_t at_time;
	cm_capture_fn *capture;
	void *capture_opaque;
	struct history *history;
	struct peer_segment peers[CM_PEERS];
	unsigned npeers;
	struct buf_list heard;  /* the SVM's datagrams that the PVM did not send yet, by age */
	struct buf *dgrams[CM_DGRAM_CHAINS]; /* index of the datagrams of all flows */
	struct dgram_request requests[CM_REQUESTS];
	struct frag_group frags[CM_FRAG_GROUPS];
	unsigned nfrags;
	struct neigh neigh;
	uint8_t scratch[NET_FRAME_MAX];
};

/* the boundary of the current epoch is not held by the secondary yet */
static inline bool cm_pending(const struct cm *cm)
{
	return cm->held_epoch < cm->epoch;
}

/* explain.c: count and report, while the flow is as the difference was found */
void explain_mismatch(struct cm *cm, const struct flow *fl, enum cm_kind kind);
void explain_missing(struct cm *cm, uint64_t now);
void explain_full(struct cm *cm, enum cm_kind kind);

/* cm.c */
/* a checkpoint is wanted; its owner is told by cm_tell(), at the end of each entry point */
void cm_want(struct cm *cm, enum cm_cause cause);
void cm_tell(struct cm *cm);
/* kind: which bound was met */
void cm_full(struct cm *cm, enum cm_kind kind);
/* The VMs differ, TCP: at `matched`, and one of the two is in the frame that is being looked at; else both
 * hold datagrams that the other has not said. */
void cm_mismatch(struct cm *cm, struct flow *fl, enum cm_kind kind);
void cm_emit(struct cm *cm, const uint8_t *frame, uint32_t len);
void cm_busy(struct cm *cm, struct flow *fl);
/* the flow, in the current epoch; NULL: no room for it */
struct flow *cm_flow(struct cm *cm, const struct flow_key *k, uint64_t now);
/* bring a flow into the current epoch, before it is used */
void cm_sync(struct cm *cm, struct flow *fl);
/* the peer has proven to receive what the guest sends it */
void cm_prove(struct cm *cm, struct flow *fl);

/* held.c */
/* a copy of the frame in the list `age`, or `young`; NULL: too much is held, the frame is lost */
struct buf *cm_hold(struct cm *cm, const struct frame *f, uint64_t now);
/* a buffer for n bytes of the SVM, or of an acknowledgement of the PVM; fl: or NULL */
struct buf *cm_keep(struct cm *cm, struct flow *fl, uint32_t n);
/* a held frame that is on no flow's list leaves */
void cm_let_go(struct cm *cm, struct buf *b);
/* a frame that the flow holds has left, or shall not: it is unlinked and freed */
void cm_drop(struct cm *cm, struct flow *fl, struct buf *b);
void cm_drop_held(struct cm *cm, struct flow *fl);
void cm_drop_said(struct cm *cm, struct flow *fl);
void cm_drop_owed(struct cm *cm, struct flow *fl);
/* a boundary: all that is held, and what a flow owes, is before it */
void held_to_before(struct cm *cm);
void held_owed_to_before(struct cm *cm, struct flow *fl);
/* what is before a boundary that is held leaves */
void held_release_before(struct cm *cm);
void held_release_all(struct cm *cm);

/* waiting.c */
/* for frames of flows that are not proven a checkpoint is wanted at most this often */
#define CM_YOUNG_US 1000000u
/* the SVM said at `now` what the PVM said at `then` */
void cm_lag(struct cm *cm, uint64_t then, uint64_t now);
/* how long a frame may wait for the SVM's */
uint64_t cm_patience(const struct cm *cm);
/* that of which the time to wait ends first, and when; NULL, UINT64_MAX: there is nothing */
struct cm_waiting {
	const struct buf *b;
	uint64_t until;
};
struct cm_waiting cm_waiting(const struct cm *cm);

/* peers.c */
/* the TCP segment that was parsed into peers[npeers] */
void peers_note(struct cm *cm, uint64_t now);
void peers_tell_now(struct cm *cm);
/* what was noted is told to the flows: before anything else happens */
static inline void peers_tell(struct cm *cm)
{
	if (cm->npeers)
		peers_tell_now(cm);
}

static inline bool tcp_knows(const struct flow *fl, uint32_t what)
{
	return fl->tcp.known & what;
}

/* of a segment with TCP_URG: the position after the last urgent byte */
static inline uint32_t tcp_urgent_mark(const struct frame *f)
{
	return f->seq + frame_be16(f->data + f->l4 + 18);
}

/* tcp_leave.c */
bool tcp_can_leave(const struct cm *cm, const struct flow *fl, uint8_t flags, uint32_t end);
/* besides: what is rare, an urgent mark and a signature; true for a frame without */
bool tcp_agrees(const struct cm *cm, const struct flow *fl, const struct frame *f);
/* a frame that can leave goes, its acknowledgement as far as allowed */
void tcp_leave(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now);
void tcp_leave_ack(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now);
/* a pure ACK of the SVM, which has been taken note of: does the peer have to see it? */
void tcp_forward_ack(struct cm *cm, struct flow *fl, const struct frame *f);
/* the SVM says again what both have said: let the peer acknowledge it again */
void tcp_ask_peer(struct cm *cm, struct flow *fl, const struct frame *f);
/* held frames that can leave go */
void tcp_release(struct cm *cm, struct flow *fl, uint64_t now);
/* and what is owed */
void tcp_serve(struct cm *cm, struct flow *fl, uint64_t now);
/* does `owed` say more than what will have left with the frames that the flow holds? */
bool tcp_owed_counts(const struct flow *fl);

/* tcp_syn.c */
void tcp_pvm_syn(struct cm *cm, struct flow *fl, const struct frame *f);
/* true: the SYNs of both are alike now */
bool tcp_svm_syn(struct cm *cm, struct flow *fl, const struct frame *f);
/* The SVM has begun the connection anew, the PVM not yet. */
bool tcp_svm_anew(const struct flow *fl);
/* then: keep what else the SVM says, in its own count */
void tcp_svm_early(struct cm *cm, struct flow *fl, const struct frame *f);
void tcp_peer_syn(struct flow *fl, const struct frame *f);
/* a connection that began unseen: are its segments signed? */
void tcp_look_for_auth(struct flow *fl, const struct frame *f);

/* tcp_cmp.c */
/* keep what the SVM said, though its place in the stream is not known yet */
void tcp_keep_said(struct cm *cm, struct flow *fl, const uint8_t *p, uint32_t len, uint32_t seq);
/* go over what is held and said */
void tcp_advance(struct cm *cm, struct flow *fl);
void tcp_from_pvm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now);
void tcp_from_svm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now);
/* f has no data any more, only what frame_parse() found */
void tcp_from_peer(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now);
/* a boundary was drawn since the flow was last looked at; was the one before it held? */
void tcp_new_epoch(struct flow *fl, bool was_held);

/* dgram_cmp.c */
void dgram_from_pvm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now);
void dgram_from_svm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now);
void dgram_from_peer(struct cm *cm, const struct frame *f, uint64_t now);
/* the same for one in fragments: b is the first, `at` the length of the body; b is theirs from then on */
void dgram_from_pvm_whole(struct cm *cm, struct flow *fl, const struct frame *f, struct buf *b,
	uint64_t now);
void dgram_from_svm_whole(struct cm *cm, struct flow *fl, const struct frame *f, struct buf *b,
	uint64_t now);
/* a held frame is about to be freed, or its flow */
void dgram_unindex(struct buf *b);
/* one that the SVM said, unlinked from its flow, is freed */
void dgram_forget(struct cm *cm, struct buf *b);
void dgram_put_chain(struct cm *cm, struct buf *b);
/* offset of the first byte of the bodies that differs */
uint32_t dgram_difference(const struct buf *a, const struct buf *b);

/* frag.c */
void frag_from_pvm(struct cm *cm, const struct frame *f, uint64_t now);
void frag_from_svm(struct cm *cm, const struct frame *f, uint64_t now);
/* what is incomplete: the PVM's frames wait for the next boundary, the SVM's are freed */
void frag_forget(struct cm *cm);

#endif
