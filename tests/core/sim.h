/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim.h - deterministic simulator of a pair: two nodes which run the real core.c
 *
 * Theory of operation: a world has a clock, a queue of things to happen, a network, an arbiter, a client
 * and two nodes. A node's driver (sim_node.c) does with the core's actions what the daemon does with
 * them, on a model of VM, NIC and link instead of real ones. A VM is the list of the outputs it has
 * emitted; the client is the list of those it has got. Rules R1, R3 and R4 are statements about these
 * lists, checked after every step (sim_check.c). Everything follows from the seed.
 */
#ifndef COLO_TESTS_SIM_H
#define COLO_TESTS_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"

#define SIM_OUTPUTS 192   /* of a VM, then it is quiet */
#define SIM_SNAPSHOTS 512
#define SIM_QUEUE 512    /* messages under way in one direction of one channel */
#define SIM_EVENTS 4096

struct rnd {
	uint64_t s;
};
uint64_t rnd_next(struct rnd *r);
uint64_t rnd_below(struct rnd *r, uint64_t n);
uint64_t rnd_in(struct rnd *r, uint64_t lo, uint64_t hi);
bool rnd_chance(struct rnd *r, unsigned int percent);

struct history {
	unsigned int n;
	uint64_t v[SIM_OUTPUTS];
};

/* --- network --- */

enum channel { CONTROL, BULK, DISK, NCHANNELS };

enum msg_type {
	MSG_CLOSE, MSG_HEARTBEAT, MSG_SYNCED, MSG_SEED_START, MSG_SEED_READY, MSG_BOUNDARY, MSG_PAGES,
	MSG_DISK_BOUNDARY, MSG_HELD, MSG_APPLIED, MSG_OUTPUT, MSG_HANDOVER, MSG_ASK,
	MSG_TAKEN, MSG_DISMISS, MSG_GUEST_OFF, MSG_GOODBYE, MSG_SWITCHOVER,
};

struct msg {
	uint64_t arrives;
	enum msg_type type;
	uint64_t epoch, value; /* OUTPUT: the output; PAGES: snapshot */
};

struct queue {
	struct msg m[SIM_QUEUE];
	unsigned int head, tail;
	uint64_t last; /* arrival of the newest: a channel keeps its order */
};

struct link {
	unsigned int id;
	bool open[2];         /* this node's end */
	uint64_t blocked[2];  /* nothing comes to this node before; what was sent is not lost */
	struct queue q[2][NCHANNELS]; /* to node i */
};

/* --- node --- */

enum nic_mode { NIC_OFF, NIC_PASS, NIC_COMPARE, NIC_HOLD, NIC_SURVIVOR };

/* release rule of net/, for one stream of outputs */
struct nic {
	enum nic_mode mode;
	unsigned int released;    /* outputs which have left */
	unsigned int boundary;    /* outputs before it are of older epochs */
	unsigned int held;        /* outputs before it are in a checkpoint that the peer holds */
	uint64_t epoch;
	struct history svm;       /* what the SVM said, indexed as the PVM's */
	bool svm_runs, wanted, mismatch;
};

struct vm {
	unsigned int id;          /* another one after each start */
	bool alive, runs, half;   /* half: between stop and done of an apply */
	bool waits;               /* a request to the disk has failed, and has no answer yet */
	struct history h;
};

struct node {
	enum core_role start_as;
	unsigned int index, life; /* life: another one after each start of the daemon */
	bool alive, linked;       /* linked: the core was told so */
	bool peer_gone;           /* of its last claim */
	bool mute;                /* the peer talked nonsense, and is not listened to any more */
	unsigned int link;        /* id, 0: none */
	struct core core;
	struct vm vm;
	struct nic nic;
	bool agent_busy, marker_due, seed_local, seed_remote;
	uint64_t marker_epoch, got_pages, got_boundary, got_disk;
	unsigned int staged, applying, snapshot, former_link;
	uint64_t stalled_until, tick_at;
	struct core_event queue[8];
	unsigned int queued, taken;
	bool in_core;
	bool fail_harvest, fail_apply, fail_seed; /* the next one */
};

/* --- world --- */

enum ev_type {
	EV_START, EV_CHANNEL, EV_TICK, EV_OUTPUT, EV_SNAPSHOT, EV_HARVESTED, EV_APPLIED, EV_LOADED,
	EV_DISK_SYNCED, EV_SEED_LOCAL, EV_SVM_READY, EV_CLAIM, EV_LINGER, EV_VM_DIED, EV_WAIT, EV_DIAL,
	EV_PEER_UP, EV_FAULT, EV_HEAL, EV_RESTART, EV_QUIET,
};

struct ev {
	uint64_t at, seq;
	enum ev_type type;
	unsigned int node, life;
	uint64_t arg;
};

struct world {
	uint64_t seed, now, seq;
	struct rnd rnd;
	bool trace;
	unsigned int nev;
	struct node node[2];
	bool cut;                        /* no new connections */
	bool silence;                    /* guests say nothing more */
	unsigned int nsnapshots;
	struct history client;
	/* this schedule */
	bool arbiter_none, checkpoint_mode, mean; /* mean: faults come thick */
	uint64_t heartbeat_us, periodic_us, delay_us, jitter_us, wait_us, gap_us, faults_end, end;
	unsigned int misses, diverge;    /* percent */
	/* arbiter */
	struct { uint64_t generation; unsigned int owner; } record;
	uint64_t arbiter_out[2];         /* until then, this node gets no answer */
	/* expectations */
	bool split;      /* arbiter none was asked: two may serve */
	bool stopped;    /* by the operator */
	bool off;        /* and nothing has happened since that the peer might not have heard */
	bool harsh;      /* something broke: not just sleep and the operator's commands */
	bool expect;     /* no fault so far that the pair need not survive */
	uint64_t calm_from; /* the last fault has had its effect by then */
	unsigned int budget; /* faults to come */
	unsigned int faults, takeovers, checkpoints, claims_lost, protections;

	/* not cleared for each schedule: */
	struct link link;
	struct ev heap[SIM_EVENTS];
	struct history snapshot[SIM_SNAPSHOTS];
};

void sim_fail(struct world *w, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
void sim_trace(struct world *w, int node, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* node: who it happens to; it is forgotten when that daemon has ended by then */
void sim_after(struct world *w, uint64_t delay, enum ev_type type, unsigned int node, uint64_t arg);

/* --- sim_link.c --- */

struct link *link_of(struct world *w, const struct node *n);
void link_send(struct world *w, struct node *n, enum channel c, enum msg_type type, uint64_t epoch,
	       uint64_t value);
void link_open(struct world *w);   /* both daemons have agreed */
void link_close(struct world *w, struct node *n); /* n's end; the other notices */
void link_break(struct world *w);  /* both ends notice */
void link_block(struct world *w, unsigned int to, uint64_t until); /* nothing comes to this node */
void link_vanish(struct world *w, struct node *n); /* n's end is gone, and says nothing */
/* the next message that has arrived at n */
bool link_receive(struct world *w, struct node *n, enum channel c, struct msg *m);

/* --- sim_node.c --- */

void node_start(struct world *w, unsigned int i, enum core_role role);
void node_end(struct world *w, struct node *n);
void node_event(struct world *w, struct node *n, struct core_event e);
void node_happens(struct world *w, struct node *n, const struct ev *e);
void node_vm_dies(struct world *w, struct node *n);
void node_hears_nonsense(struct world *w, struct node *n);
void node_disk_fails(struct world *w, struct node *n);

/* --- sim_nic.c --- */

void nic_pass(struct world *w, struct node *n, enum nic_mode mode);
void nic_boundary(struct world *w, struct node *n, uint64_t epoch);
void nic_held(struct world *w, struct node *n, uint64_t epoch);
void nic_svm_runs(struct world *w, struct node *n);
void nic_from_svm(struct world *w, struct node *n, uint64_t epoch, uint64_t value);
void nic_vm_output(struct world *w, struct node *n);
void nic_missing(struct world *w, struct node *n, uint64_t index);

/* --- sim_check.c --- */

void check_step(struct world *w);
void check_serves(struct world *w, const struct node *n); /* n begins to serve alone after a claim */
void check_takeover(struct world *w, const struct node *n);
void check_disk_error(struct world *w, const struct node *n); /* n's VM is given an I/O error */
void check_end(struct world *w);
bool check_pair_protected(const struct world *w);
bool check_node_serves(const struct node *n);

#endif
