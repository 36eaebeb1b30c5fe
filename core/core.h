/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * core.h - all decisions of a node: role, state, epochs, checkpoints, release, failover
 *
 * Pure code: no descriptor, clock, thread or random source. The driver (daemon, or a simulator in the
 * tests) tells the core what happened (core_event()), and carries out, in order, the actions the core
 * lists. Times are microseconds of one monotonic clock, read by the driver.
 */
#ifndef COLO_CORE_H
#define COLO_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* UNDECIDED: only while STARTING, see start.h */
enum core_role { CORE_PRIMARY, CORE_SECONDARY, CORE_UNDECIDED };

/* what each state means and may do stands at the head of core.c */
#define CORE_STATES(X)             \
	X(STARTING, "starting")    \
	X(CONNECTING, "connecting")\
	X(ALONE, "alone")          \
	X(SYNCING, "syncing")      \
	X(SEEDING, "seeding")      \
	X(PROTECTED, "protected")  \
	X(CLAIMING, "claiming")    \
	X(TAKEOVER, "takeover")    \
	X(GIVEN_UP, "given-up")    \
	X(FAILED, "failed")        \
	X(STOPPED, "stopped")
enum core_state {
#define X(name, text) CORE_##name,
	CORE_STATES(X)
#undef X
	CORE_NSTATES
};
const char *core_state_name(enum core_state s);

/* why a checkpoint was taken */
#define CORE_CAUSES(X)             \
	X(START, "start")          \
	X(PERIODIC, "periodic")    \
	X(MISMATCH, "mismatch")    \
	X(MISSING, "missing")      \
	X(FULL, "full")            \
	X(DISK, "disk")            \
	X(MANUAL, "manual")        \
	X(SWITCHOVER, "switchover")
enum core_cause {
#define X(name, text) CORE_CAUSE_##name,
	CORE_CAUSES(X)
#undef X
	CORE_NCAUSES
};
const char *core_cause_name(enum core_cause c);

/* why the peer was lost or a failover began */
#define CORE_LOSSES(X)                      \
	X(NONE, "none")                     \
	X(SILENT, "peer-silent")            \
	X(CLOSED, "peer-closed")            \
	X(PVM_DIED, "pvm-died")             \
	X(MANUAL, "manual")                 \
	X(PROTOCOL, "peer-protocol-error")  \
	X(DISK, "disk-failed")              \
	X(WEDGED, "wedged")                 \
	X(SLOW, "slow")                     \
	X(CHECKPOINT, "checkpoint-failed")  \
	X(PAUSED, "paused")
enum core_loss {
#define X(name, text) CORE_LOSS_##name,
	CORE_LOSSES(X)
#undef X
	CORE_NLOSSES
};
const char *core_loss_name(enum core_loss l);

enum core_event_type {
	CORE_EV_DECIDED,        /* .role: this node begins in it; .epoch: generation of the arbiter's record, 0: none */
	CORE_EV_STARTED,        /* local parts are up (primary: the VM runs) */
	CORE_EV_START_FAILED,
	CORE_EV_PEER_UP,        /* all channels to the peer are connected */
	CORE_EV_PEER_LOST,      /* .loss */
	CORE_EV_RX,             /* anything came from the peer */
	CORE_EV_TICK,           /* time has passed; sockets were read before */
	CORE_EV_DISK_SYNCED,    /* primary: the peer's disk gets the same content;
				 * secondary: the primary says so, .epoch is its generation. May come again,
				 * with a newer one (CORE_ACT_GENERATION) */
	CORE_EV_SEEDED,         /* primary: both VMs stand at the same RAM, the PVM is tracked and runs;
				 * secondary: the SVM has its private view */
	CORE_EV_SEED_FAILED,
	CORE_EV_WANT_CHECKPOINT,/* .cause */
	CORE_EV_HARVESTED,      /* primary: PVM runs on, .epoch has begun; status < 0: not taken */
	CORE_EV_HELD,           /* primary: the peer holds the checkpoint that begins .epoch */
	CORE_EV_APPLIED,        /* primary: the SVM runs in .epoch */
	CORE_EV_COMPLETE,       /* secondary: all of the checkpoint of .epoch is here */
	CORE_EV_APPLY_DONE,     /* secondary: status */
	CORE_EV_CLAIM,          /* answer of the arbiter about generation .epoch: status 0 won, 1 lost, < 0 unknown.
				 * Of the last ACT_CLAIM; what comes to an earlier one is ignored */
	CORE_EV_VM_DIED,        /* the local QEMU ended unasked */
	CORE_EV_VM_WEDGED,      /* it does not answer any more */
	CORE_EV_DISK_FAILED,    /* the local storage. primary: a request of the VM waits for what becomes
				 * of it; secondary: this node cannot be one */
	CORE_EV_HANDOVER,       /* secondary: the primary does not serve any more; .loss says why, .epoch is the
				 * generation to claim */
	CORE_EV_DISMISSED,      /* secondary: the primary serves alone; never take over. .epoch: the generation in
				 * which it serves, where it told a dialler, 0: on the link of the pair */
	CORE_EV_TAKEN,          /* primary: the secondary serves, this node was silent for too long */
	CORE_EV_FAILOVER,       /* secondary: the operator asks this node to serve, as it is */
	CORE_EV_SWITCHOVER,     /* the operator asks both to exchange their roles; on the secondary also the
				 * primary's word that its operator does (CORE_ACT_SWITCHOVER there) */
	CORE_EV_ASKED,          /* primary: the secondary asks it to hand over; .cause SWITCHOVER: after a
				 * checkpoint */
	CORE_EV_PAUSE,          /* primary: the operator asks it to serve alone and take no peer, */
	CORE_EV_RESUME,         /* or one again */
	CORE_EV_GUEST_OFF,      /* primary: the guest powered itself off */
	CORE_EV_STOP,           /* the operator asks this node to stop */
};

struct core_event {
	enum core_event_type type;
	uint64_t now_us;
	uint64_t epoch;
	int status;
	enum core_cause cause;
	enum core_loss loss;
	enum core_role role;
};

enum core_action_type {
	CORE_ACT_START,         /* begin in the role that was decided: primary: the claim is won, serve the disks,
				 * start the VM; then CORE_EV_STARTED */
	CORE_ACT_DECIDE,        /* the claim at the start was lost: read the arbiter's record, decide again */
	CORE_ACT_SYNC_DISK,     /* link the disks; the primary sends what differs */
	CORE_ACT_SEED,          /* primary: begin the live migration, tell the peer to receive it */
	CORE_ACT_HARVEST,       /* primary: take the checkpoint that begins .epoch */
	CORE_ACT_RELEASE,       /* primary: output before .epoch may leave */
	CORE_ACT_COMPARE,       /* primary: the SVM of .epoch runs; its answers count */
	CORE_ACT_HELD,          /* secondary: tell the primary that .epoch is held */
	CORE_ACT_APPLY,         /* secondary: switch to .epoch */
	CORE_ACT_APPLIED,       /* secondary: tell the primary */
	CORE_ACT_CLAIM,         /* ask the arbiter for generation .epoch, until it is known who has it; .loss: why;
				 * .peer_gone: the peer said that it does not serve. Takes the place of the last one */
	CORE_ACT_SERVE,         /* primary: protection is over, pass everything */
	CORE_ACT_TAKE_OVER,     /* secondary: the SVM serves, this node is primary */
	CORE_ACT_HEARTBEAT,     /* send one */
	CORE_ACT_DROP_PEER,     /* close the peer link */
	CORE_ACT_HAND_OVER,     /* primary: silence the NICs, tell the peer to take over; .loss: why, .epoch: the
				 * generation it has to claim. The VM is killed by the next action */
	CORE_ACT_SWITCHOVER,    /* primary: tell the peer to get ready, and then to ask for the handover */
	CORE_ACT_GENERATION,    /* primary: tell the peer that the pair's generation is .epoch */
	CORE_ACT_ASK,           /* secondary: ask the primary to hand over; .cause SWITCHOVER: after a checkpoint */
	CORE_ACT_TAKEN,         /* secondary: tell the primary that it must not serve any more */
	CORE_ACT_DISMISS,       /* primary: tell the peer that it must not take over */
	CORE_ACT_KILL_VM,       /* the local VM must not run any more */
	CORE_ACT_GUEST_OFF,     /* primary: tell the peer that the guest is off */
	CORE_ACT_DISK_ERROR,    /* primary: let the VM have the error */
	CORE_ACT_GOODBYE,       /* secondary: tell the primary why this node ends; .loss */
	CORE_ACT_EXIT,          /* end the daemon; .status */
};

struct core_action {
	enum core_action_type type;
	uint64_t epoch;
	enum core_cause cause;
	enum core_loss loss;
	int status;
	bool peer_gone;
};

/* status of CORE_ACT_EXIT: this node has lost its part in the pair; started again it may get one */
#define CORE_EXIT_AGAIN 75

struct core_config {
	bool arbiter_none;      /* nobody to ask: a claim is only good when it is needed */
	uint64_t heartbeat_us;  /* interval */
	unsigned int misses;    /* heartbeats that may be missing */
	uint64_t periodic_us;   /* longest time without a checkpoint; mode checkpoint: its interval */
	uint64_t lag_limit_us;  /* longest time until a checkpoint is applied, else the peer is too slow; 0: none */
	uint64_t settle_us;     /* a lost pair is not formed again before; doubled when it is lost again soon */
};

enum core_phase { CORE_IDLE, CORE_HARVESTING, CORE_SENDING, CORE_APPLYING };

#define CORE_MAX_ACTIONS 8

struct core {
	struct core_config cfg;
	enum core_role role;
	enum core_state state;
	enum core_phase phase;
	uint64_t epoch;         /* primary: of the PVM's output; secondary: of the SVM */
	uint64_t complete;      /* secondary: epoch of a complete checkpoint not yet applied, or 0 */
	/* Generations. Whoever serves alone has won the claim for its generation; a pair lives in that of its
	 * primary, and both claim the next one when they lose each other. */
	uint64_t generation;    /* 0: none yet */
	uint64_t claiming;      /* asked for, no answer yet; 0: none */
	uint64_t ahead;         /* secondary: won in advance, for a switchover; 0: none */
	uint64_t last_rx_us, last_tx_us, last_checkpoint_us, phase_us, protected_us;
	bool peer_up, wanted;
	bool disk_failed;       /* a request of the VM waits for the end of what is under way */
	bool paused;            /* by the operator: take no peer */
	bool leaving;           /* primary, protected: ends protection when the claim is won; `loss` says why */
	bool handing_over;      /* primary: does so after the next checkpoint */
	bool asking;            /* secondary: asks for the handover when the claim is won, */
	enum core_cause ask;    /* so */
	enum core_cause wanted_cause;
	enum core_loss loss;    /* of the last failover or loss of the peer */
	uint64_t lost_at_us;    /* when the peer was last heard before it was lost */
	uint64_t detected_us;   /* when the loss was noticed */
	uint64_t pair_from_us;  /* no new pair before */
	unsigned int losses;    /* that followed each other soon */
	uint64_t checkpoints[CORE_NCAUSES];
	enum core_cause cause;  /* of the checkpoint under way */

	struct core_action act[CORE_MAX_ACTIONS];
	size_t nact;
};

void core_init(struct core *c, const struct core_config *cfg);
/* Fills c->act[0..nact); the driver carries them out before the next event. */
void core_event(struct core *c, const struct core_event *e);
/* when CORE_EV_TICK makes sense next; never more than a heartbeat interval away while a peer is up */
uint64_t core_next_tick(const struct core *c);
/* primary: may a peer come now? Not while paused, nor so soon after the last one was lost. */
bool core_may_pair(const struct core *c, uint64_t now_us);

#endif
