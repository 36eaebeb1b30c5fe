/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * sim.h - deterministic simulator of a pair: two hosts which run the real core.c, start.c and lineage.c
 *
 * Theory of operation: a world has a clock, a queue of things to happen, a network, an arbiter, a client
 * and two hosts, whose disks outlive what runs on them. A node's driver (sim_node.c, sim_start.c) does with
 * the core's actions what the daemon does with them, on a model of VM, NIC, disk and link instead of real
 * ones. A supervisor starts what has ended. A VM is the list of the outputs it has emitted; each is
 * written and flushed before it is emitted, so that a disk is such a list, too; the client is the list of those
 * it has got. The rules are statements about these lists and the arbiter's record, checked after every step
 * (sim_check.c). Everything follows from the seed. The faults of a schedule are drawn up front (sim_fault.c),
 * so that a schedule can be run again with fewer of them.
 *
 * The links are TCP: what is sent comes late, or not at all when the connection is lost, but never twice or out of
 * order. The arbiter is asked again while it does not answer, so its requests are late, lost and repeated.
 */
#ifndef COLO_TESTS_SIM_H
#define COLO_TESTS_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"
#include "core/start.h"

#define SIM_OUTPUTS 224   /* of a VM, then it is quiet */
#define SIM_SNAPSHOTS 64  /* used in turn; one is of use as long as its checkpoint is under way */
#define SIM_QUEUE 1024    /* messages under way in one direction of one channel */
#define SIM_EVENTS 8192
#define SIM_FAULTS 16

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
void history_copy(struct history *to, const struct history *from);

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
	uint64_t epoch, value; /* OUTPUT: the output; PAGES, DISK_BOUNDARY: snapshot; HANDOVER: loss; ASK: cause */
};

struct queue {
	struct msg m[SIM_QUEUE];
	unsigned int head, tail;
	uint64_t last; /* arrival of the newest: a channel keeps its order */
};

struct link {
	unsigned int id;
	bool open[2];         /* this node's end */
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

/* stable storage; one disk stands for all, tests/core/sim_disks.c has several */
struct disk {
	struct lineage l, source; /* source: the peer's, as of LINK */
	struct history h;         /* of no use while it is a mixture */
	struct history boundary;  /* the journal's last, not committed yet */
	bool has_boundary;
};

struct node {
	unsigned int index, life; /* life: another one after each start of the daemon */
	bool alive, linked;       /* linked: the core was told so */
	bool mute;                /* the peer talked nonsense, and is not listened to any more */
	bool peer_gone;           /* of the last claim */
	bool undecided;           /* looks for the peer, and does not know its role */
	bool taking_over;         /* has the role, and not yet all it needs to serve */
	unsigned int link;        /* id, 0: none */
	struct core core;
	struct vm vm;
	struct nic nic;
	uint64_t started_at;
	enum start_owner owner;   /* as of the last read */
	uint64_t owner_generation;
	bool agent_busy, marker_due, seed_local, seed_remote;
	uint64_t marker_epoch, got_pages, got_boundary, got_disk;
	unsigned int staged, applying, snapshot, former_link;
	uint64_t stalled_until, tick_at, slow_disk_until;
	struct core_event queue[8];
	unsigned int queued, taken;
	bool in_core;
	bool fail_harvest, fail_apply, fail_seed; /* the next one */
};

/* --- faults --- */

struct fault {
	unsigned int what, node;
	bool by_step;             /* when: steps of the world since the last fault, else us since the start */
	bool dropped;             /* by the shrinker */
	uint64_t when, length, salt;
};

/* --- world --- */

enum ev_type {
	/* of a node, forgotten when its daemon has ended */
	EV_OPEN, EV_READ, EV_READ_DONE, EV_SERVED, EV_START, EV_CHANNEL, EV_TICK, EV_OUTPUT, EV_SNAPSHOT,
	EV_HARVESTED, EV_APPLIED, EV_FAILED_OVER, EV_LOADED, EV_DISK_SYNCED, EV_SEED_LOCAL, EV_SVM_READY, EV_CLAIM,
	EV_CLAIM_DONE, EV_LINGER, EV_VM_DIED, EV_WAIT, EV_DIAL, EV_PEER_UP,
	/* of the world */
	EV_FAULT, EV_HEAL, EV_BOOT, EV_WATCH, EV_AT_ARBITER,
};

struct ev {
	uint64_t at, seq;
	enum ev_type type;
	unsigned int node, life;
	uint64_t arg;
};

struct world {
	uint64_t seed, now, seq, steps;
	struct rnd rnd;
	bool trace, quiet;
	unsigned int nev;
	struct node node[2];
	struct disk disk[2];
	uint64_t clock_us[2];            /* the host's clock is ahead by */
	bool power[2];                   /* of the host */
	uint64_t blocked[2];             /* nothing comes to this node before; what was sent is not lost */
	uint64_t slow_until, slow_us;    /* the link is slow: this much more delay */
	bool silence;                    /* guests say nothing more */
	unsigned int nsnapshots;
	struct history client;
	/* this schedule */
	bool arbiter_none, checkpoint_mode;
	uint64_t heartbeat_us, periodic_us, delay_us, jitter_us, wait_us, gap_us, lag_us, settle_us, supervisor_us;
	uint64_t claim_again_us, faults_end;
	unsigned int misses, diverge;    /* percent */
	/* arbiter; with `none` only kept for the checks */
	struct { uint64_t generation; unsigned int owner; } record;
	unsigned int overtaken[2];       /* none: the other one served alone after this VM, as its operator knows */
	uint64_t arbiter_out[2];         /* until then, what this node asks is lost, */
	uint64_t answer_lost[2];         /* only the answers are, */
	uint64_t arbiter_slow[2], arbiter_slow_us; /* or they take so much longer */
	/* faults */
	struct fault fault[SIM_FAULTS];
	unsigned int nfaults, next_fault;
	uint64_t last_fault_step;
	bool healed;
	/* expectations */
	bool expect;     /* each fault hit a pair that has to survive it, and had survived the last one */
	uint64_t calm_from; /* the last fault has had its effect by then */
	uint64_t good_since; /* protected without a break, after all faults */
	bool done;
	unsigned int boots, booted_at_fault;
	/* figures */
	unsigned int faults, takeovers, checkpoints, claims_lost, claims_unknown, protections, switchovers, undecided;

	/* not cleared for each schedule: */
	struct link link;
	struct ev heap[SIM_EVENTS];
	struct history snapshot[SIM_SNAPSHOTS];
};

void sim_fail(struct world *w, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
void sim_trace(struct world *w, int node, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* node: who it happens to; it is forgotten when that daemon has ended by then */
void sim_after(struct world *w, uint64_t delay, enum ev_type type, unsigned int node, uint64_t arg);
void sim_after_life(struct world *w, uint64_t delay, enum ev_type type, unsigned int node, unsigned int life,
		    uint64_t arg);
static inline uint64_t some(struct world *w, uint64_t lo, uint64_t hi)
{
	return rnd_in(&w->rnd, lo, hi);
}
static inline uint64_t node_now(const struct world *w, const struct node *n)
{
	return w->now + w->clock_us[n->index];
}
static inline struct node *node_other(struct world *w, const struct node *n)
{
	return &w->node[!n->index];
}

/* --- sim_fault.c --- */

void fault_plan(struct world *w, struct rnd *r);
void fault_print(const struct world *w);
void fault_begin(struct world *w); /* of a schedule: its timed faults */
void fault_step(struct world *w);  /* what is due at this step */
void fault_inject(struct world *w, struct fault *f);
void fault_due(struct world *w, uint64_t arg); /* EV_FAULT */
void fault_heal(struct world *w);
void fault_boot(struct world *w, unsigned int i); /* the host's supervisor starts the daemon, if it should */

/* --- sim_arbiter.c --- */

void arbiter_claim(struct world *w, struct node *n, uint64_t generation);
void arbiter_read(struct world *w, struct node *n);
void arbiter_hears(struct world *w, const struct ev *e);
void arbiter_happens(struct world *w, struct node *n, const struct ev *e); /* CLAIM, CLAIM_DONE, READ, READ_DONE */
void arbiter_force(struct world *w, struct node *n); /* none: the operator says so */

/* --- sim_link.c --- */

struct link *link_of(struct world *w, const struct node *n);
void link_send(struct world *w, struct node *n, enum channel c, enum msg_type type, uint64_t epoch,
	       uint64_t value);
void link_open(struct world *w);   /* both daemons have agreed */
void link_close(struct world *w, struct node *n); /* n's end; the other notices */
void link_break(struct world *w);  /* both ends notice */
void link_block(struct world *w, unsigned int to, uint64_t until); /* nothing comes to this node */
void link_heal(struct world *w);   /* what was held up comes now */
void link_vanish(struct world *w, struct node *n); /* n's end is gone, and says nothing */
/* the next message that has arrived at n */
bool link_receive(struct world *w, struct node *n, enum channel c, struct msg *m);

/* --- sim_node.c --- */

void node_start(struct world *w, unsigned int i);
void node_end(struct world *w, struct node *n);
void node_event(struct world *w, struct node *n, struct core_event e);
void node_happens(struct world *w, struct node *n, const struct ev *e);
void node_hears_nonsense(struct world *w, struct node *n);

/* --- sim_vm.c --- */

void vm_new(struct world *w, struct node *n, bool runs);
void vm_end(struct node *n);
void vm_output(struct world *w, struct node *n);
void node_vm_dies(struct world *w, struct node *n);
void node_disk_fails(struct world *w, struct node *n);
uint64_t disk_delay(struct world *w, const struct node *n); /* of a flush */

/* --- sim_start.c: from the start to a role; who meets whom; what the disks know --- */

void start_open(struct world *w, struct node *n);
void start_decides(struct world *w, struct node *n);
void start_granted(struct world *w, struct node *n); /* CORE_ACT_START */
void start_served(struct world *w, struct node *n);
void start_dial(struct world *w, struct node *n);
void disk_link(struct world *w, struct node *secondary);
void disk_commit(struct world *w, unsigned int i);
void disk_go_alone(struct world *w, const struct node *n);

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
void check_serves(struct world *w, const struct node *n); /* n begins to serve alone */
void check_takeover(struct world *w, const struct node *n);
void check_stable(struct world *w, const struct node *n); /* it is about to serve from its disk */
void check_disk_error(struct world *w, const struct node *n); /* n's VM is given an I/O error */
void check_end(struct world *w);
bool check_pair_protected(const struct world *w);
bool check_node_serves(const struct node *n);

#endif
