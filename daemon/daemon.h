/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * daemon.h - the daemon's parts, in sections headed by the file that defines them
 *
 * One event loop, one thread. Parts report what happened with daemon_event(); the core decides; the
 * core's actions are carried out by daemon.c, which calls the parts. Parts do not call each other
 * except where stated. QEMU, its agent and the driver standby are in vm.h.
 */
#ifndef COLO_DAEMON_H
#define COLO_DAEMON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <uv.h>

#include "agent/agent_proto.h"
#include "arbiter/arbiter_proto.h"
#include "common/buffer.h"
#include "common/percentile.h"
#include "common/spawn.h"
#include "common/tls.h"
#include "core/core.h"
#include "core/start.h"
#include "daemon/config.h"
#include "daemon/peer_proto.h"
#include "daemon/vm.h"
#include "daemon/watch.h"
#include "disk/disk_proto.h"
#include "net/net.h"

struct daemon;

/* --- diskman.c: the disk managers, one process for each disk; diskevent.c: what they say --- */

#define DISKMAN_OPS (DISK_RATE + 1)

struct disk_progress { /* of a sync or verify; before the hello: of hashing the disk */
	bool active;
	uint64_t done, total; /* bytes of the disk looked at, and to be looked at */
	uint64_t moved;       /* bytes over the link */
	uint64_t eta_s;       /* UINT64_MAX: unknown */
	uint64_t said_ns;     /* in the log */
	unsigned int said_percent;
};
unsigned int disk_percent(const struct disk_progress *p);

struct dm { /* one disk manager */
	struct daemon *d;
	unsigned int index;
	char name[8];         /* disk0, ...: of its socket, log and data files */
	const char *file;
	bool writable;
	struct child child;
	struct watch *exit_watch, *watch;
	int fd;               /* control */
	int boundary_fd;      /* its second control socket, for the agent */
	char socket[108];
	uint8_t owes[DISKMAN_OPS]; /* answers, of each kind of request */
	struct disk_message hello; /* op 0: it has not come */
	uint64_t size;
	struct lineage lineage;    /* as hello or the last answer said */
	struct disk_message status;/* the last answer that says how the disk is */
	uint64_t boundary;    /* secondary: epoch */
	bool synced;          /* primary: since the last LINK */
	bool link_lost;       /* since the last LINK */
	bool fault;           /* DISK_EV_FAULT has come */
	bool wedged;          /* says watchdog.c */
	bool doubted;         /* a checkpoint missed its answer; has it one for the daemon? */
	bool silent;          /* as of the last turn of watchdog.c it owes an answer, */
	uint64_t silent_us;   /* and did so before */
	bool writing_back;    /* what the SVM wrote before a failover is not all in storage yet */
	struct disk_progress sync, verify;
};

/* the answers of all disks are there. status: 0, or the first error, which was logged with its disk's name */
typedef void diskman_fn(struct daemon *d, int status);

struct diskman_round {
	diskman_fn *fn;
	int status;
};

struct diskman {
	struct dm disk[CONFIG_DISKS_MAX];
	unsigned int n;
	bool ready; /* all have said hello */
	struct diskman_round round[DISKMAN_OPS];
};

struct diskman_peer { /* the peer's disk */
	int fd;                 /* connection to its disk manager */
	bool all;               /* it may differ anywhere */
	struct lineage lineage;
};

void diskman_init(struct daemon *d); /* before anything else */
int diskman_start(struct daemon *d);
void diskman_stop(struct daemon *d);
/* Where fn is not NULL: 0 if it will be called, -EBUSY if the same was asked already and is not answered. Read-only
 * disks are only opened. */
/* After all have said hello, once: content is that of the last complete checkpoint, or failover, of all. */
int diskman_open(struct daemon *d, diskman_fn *fn);
/* secondary: what the SVM wrote is stable; then diskman_serve() lets it count */
int diskman_failover(struct daemon *d, uint64_t generation, diskman_fn *fn);
int diskman_serve(struct daemon *d, diskman_fn *fn); /* this node serves alone; fn: or NULL */
int diskman_fault(struct daemon *d); /* the VM gets the error of a request that failed */
int diskman_verify(struct daemon *d, bool repair); /* primary; verify_done() for each disk */
int diskman_rate(struct daemon *d, uint64_t bytes_s);
/* peer[i].fd of each writable disk i is taken. A disk that refuses: its link is lost. */
int diskman_link(struct daemon *d, struct diskman_peer *peer, enum disk_role role);
int diskman_unlink(struct daemon *d);
int diskman_commit(struct daemon *d, uint64_t epoch, diskman_fn *fn);
int diskman_poll_status(struct daemon *d);
bool diskman_owes(const struct dm *m, bool but_status); /* any answer; or any but that of DISK_STATUS */
/* No answer is owed that may say something new of the lineages. */
bool diskman_settled(const struct daemon *d);
/* After a failover: some of what the SVM wrote is not in storage yet. */
bool diskman_writes_back(const struct daemon *d);
/* For QEMU: a connection to its NBD server, which turns others than this process away. Descriptor or -errno */
int diskman_connect(const struct dm *m);
/* between the two files */
void diskman_on_message(void *dm, int events);
void diskman_answer(struct dm *m, const struct disk_message *a);
void diskman_link_lost(struct dm *m, const char *why);

/* --- channel.c: the link's connections as TLS sessions --- */

struct channels {
	struct tls_creds *creds; /* NULL: [tls] mode = off */
	struct channel_relay *relay; /* list */
	int event_fd;
	struct watch *watch;
};

int channel_init(struct daemon *d); /* 0, or -errno, logged */
void channel_stop(struct daemon *d);
/* A new one, with what the files say now. fd: not taken. NULL: no memory */
struct tls *channel_session(struct daemon *d, int fd, bool dialled);
/* After the handshake: is it our peer? NULL: yes; else text, why not */
const char *channel_check_peer(struct daemon *d, const struct tls *t, char *text, size_t size);
/* Makes a connection one that a process without TLS can use. Takes t and fd. Descriptor or -errno, logged */
int channel_for_others(struct daemon *d, struct tls *t, int fd, const char *what);

/* --- peer.c: the link to the other daemon; peer_connect.c: how it comes about --- */

#define PEER_STRANGERS 16

struct peer {
	int listen_fd;
	struct watch *listen_watch;
	int fd[PEER_NCHANNELS]; /* of DISK and SEED: never */
	struct tls *tls[PEER_NCHANNELS]; /* on each of these */
	struct diskman_peer disk[CONFIG_DISKS_MAX]; /* fd: DISK channels, -1: none, or given away */
	struct watch *watch[PEER_NCHANNELS];
	struct buffer in, out;  /* CONTROL */
	uint64_t session;
	unsigned int version;   /* spoken on this link */
	unsigned int their_state; /* enum core_state + 1 as the last heartbeat said; 0: unknown */
	bool up;                /* CONTROL, BULK and DISK are there */
	bool dialling;          /* this node looks for the other one */
	bool dialled;           /* the link there is was made so */
	struct handshake *stranger[PEER_STRANGERS]; /* that have yet to say hello, oldest first */
	unsigned int strangers;
	uint64_t accepted_since_ms; /* a second, in which so many connections were accepted: */
	unsigned int accepted;
	uv_timer_t accept_again;
	bool mute;              /* nothing more is read: it talked nonsense */
	bool former;            /* of the former primary, which may forward what clients send to it */
	uv_timer_t retry;
	char last_refusal[256];
	uint64_t tx_bytes, rx_bytes;
	/* round trip of heartbeats, ns; 0: unknown */
	uint64_t rtt_ns, their_time, their_time_at;
	struct addrinfo *address; /* of the peer */
};

int peer_start(struct daemon *d); /* listen */
/* secondary, or undecided: dial until there is a link */
void peer_start_dialling(struct daemon *d);
void peer_stop_dialling(struct daemon *d);
void peer_stop(struct daemon *d);
/* secondary: connect one more channel (PEER_SEED) */
int peer_dial(struct daemon *d, enum peer_channel channel);
void peer_drop(struct daemon *d);
/* after a takeover: of the link that there may be, only what clients sent to the former primary is of use */
void peer_keep_former(struct daemon *d);
void peer_side_closed(struct daemon *d, enum peer_channel channel); /* BULK or DISK has ended */
void peer_mute(struct daemon *d); /* read nothing more, but keep the link for a last word */
/* false: no room; only droppable messages may ignore that. Data: payload of two pieces. */
bool peer_send(struct daemon *d, enum peer_type type, uint64_t epoch, const void *a, size_t na,
	       const void *b, size_t nb);
bool peer_has_room(const struct peer *p); /* for data plane back-pressure */
void peer_flush(struct daemon *d);
void peer_flush_blocking(struct daemon *d); /* at most a second; before the daemon ends */
bool peer_hear_goodbye(struct daemon *d);   /* likewise; true: the secondary has said that it ends */
void peer_read(struct daemon *d);           /* what has come, now */
void peer_heartbeat(struct daemon *d);

/* --- handshake.c: how a connection of it begins --- */

/* take fd. It becomes a channel in time, or is closed and, if we dialled, dialled again. */
int handshake_dialled(struct daemon *d, int fd, enum peer_channel channel, unsigned int disk);
void handshake_accepted(struct daemon *d, int fd);
void handshake_end_strangers(struct daemon *d);

/* between the three files */
bool peer_has_channel(const struct peer *p, enum peer_channel channel, unsigned int disk);
void peer_channel_open(struct daemon *d, enum peer_channel channel, unsigned int disk, struct tls *tls, int fd,
		       bool dialled); /* takes tls and fd */
void peer_dial_failed(struct daemon *d);
void peer_parse(struct daemon *d);
void peer_on_control(void *d, int events);
void peer_redial(struct daemon *d); /* in a while, if this node looks for its peer */

/* --- hello.c: who may link --- */

void hello_fill(struct daemon *d, struct peer_hello *h, enum peer_channel channel, unsigned int disk);
/* Of the listener. text: why not. PEER_OK to CONTROL: d->peer.disk[] is what it says of its disks. */
enum peer_status hello_check(struct daemon *d, struct peer_hello *h, char *text, size_t size);
void hello_answer_fill(struct daemon *d, struct peer_answer *a); /* what we say of ours */
/* Of the dialler, about an answer that is PEER_OK to CONTROL. */
enum peer_status hello_answer_check(struct daemon *d, const struct peer_answer *a, char *text, size_t size);
/* The protocol version for a peer that speaks min to max; 0: there is none. */
unsigned int hello_version(const struct daemon *d, unsigned int min, unsigned int max);
/* Of what this node speaks itself */
unsigned int hello_newest(const struct daemon *d);
/* This node serves: who claims a generation up to its own must not. */
bool hello_is_claiming(const struct daemon *d);
/* --- hello_disk.c: the disks in it --- */
void hello_disks_fill(struct daemon *d, struct peer_disk *out);
void hello_disk_lineage(const struct peer_disk *in, struct lineage *out);
/* UNJUDGED: it is not known yet which node's content counts. Otherwise, on PEER_OK d->peer.disk[] has lineages
 * and verdicts. */
enum hello_side { HELLO_UNJUDGED, HELLO_SOURCE, HELLO_TARGET /* this node is */ };
enum peer_status hello_disks_check(struct daemon *d, const struct peer_disk *theirs, enum hello_side side,
				   char *text, size_t size);
/* a text from the peer: ended, and printable only */
void hello_text(char *s, size_t size);

/* --- nic_setup.c, nic.c: the NICs --- */

struct nics;
int nic_open(struct daemon *d); /* TAPs on the bridges */
void nic_close(struct daemon *d);
/* A new VM's side of all NICs. fds: of the network namespace's counters, and for each NIC TAP and packet socket;
 * QEMU has to inherit them. nic_prepared(): it has. */
#define NIC_FDS(nics) (1 + 2 * (nics))
int nic_prepare(struct daemon *d, int *fds);
void nic_prepared(struct daemon *d);
void nic_detach(struct daemon *d);
/* The same for a standby; then nic_switch() makes its NICs the VM's. */
int nic_prepare_next(struct daemon *d, int *fds);
void nic_switch(struct daemon *d);
void nic_drop_next(struct daemon *d);
void nic_flush(struct daemon *d);
uint64_t nic_tick(struct daemon *d, uint64_t now_us); /* next one */
/* INPUT, PVM_SYN, OUTPUT, TRANSLATIONS from the peer. false: malformed */
bool nic_message(struct daemon *d, enum peer_type type, uint64_t epoch, const uint8_t *p, size_t len);
/* primary */
void nic_serve(struct daemon *d); /* unprotected: all passes */
void nic_harvest(struct daemon *d, const uint8_t nonce[AGENT_NONCE], uint64_t epoch); /* before it */
/* after it; r: NULL: it failed. last_read: the last input the PVM had, for each NIC. < 0: the peer cannot be told
 * all that belongs before the boundary */
int nic_harvested(struct daemon *d, const struct agent_reply *r, uint64_t last_read[AGENT_MAX_NICS]);
void nic_held(struct daemon *d, uint64_t epoch);
void nic_compare(struct daemon *d, uint64_t epoch);
void nic_give_up(struct daemon *d); /* only forward clients' frames to the peer */
void nic_link_reset(struct daemon *d); /* a peer that comes knows nothing */
/* secondary */
bool nic_has_base(const struct daemon *d, uint64_t epoch); /* all TRANSLATIONS for this boundary are here */
void nic_apply(struct daemon *d, const uint8_t nonce[AGENT_NONCE], uint64_t epoch);
void nic_applied(struct daemon *d, uint64_t epoch, const uint64_t last_read[AGENT_MAX_NICS]);
void nic_take_over(struct daemon *d, uint64_t lost_at_us);
void nic_announce(struct daemon *d);
json_t *nic_status(struct daemon *d);

/* --- explain.c: what the comparing modules found different --- */

int explain_add(struct daemon *d, struct cm *cm); /* of the next NIC: 0, 1, ...; 0 or -errno */
void explain_close(struct daemon *d);             /* before the NICs go */
/* new references */
json_t *explain_counts(struct daemon *d);         /* by kind */
json_t *explain_json(struct daemon *d, json_t *args); /* answers to the operator's commands */
json_t *explain_pcap(struct daemon *d, json_t *args);

/* --- transfer.c: a checkpoint over the BULK channel --- */

struct transfer;
int transfer_init(struct daemon *d);
void transfer_free(struct daemon *d);
void transfer_reset(struct daemon *d); /* forget what is under way */
/* primary: send what the agent harvested */
int transfer_send(struct daemon *d, uint64_t epoch, uint32_t flags, uint64_t device_bytes,
		  uint64_t ran_at_ns);
/* secondary: what came last becomes what the agent loads. Only when it is complete: until then the last one counts,
 * which mode checkpoint loads at a failover. */
int transfer_store_device(struct daemon *d);
void transfer_on_bulk(void *arg, int events);
void transfer_shrink(struct daemon *d); /* after a large one was sent or applied */

/* --- seed.c: first copy of the guest --- */

enum seed_phase {
	SEED_IDLE,      /* or done */
	SEED_TRACKING,  /* the agent is to note what the VM writes from now on */
	SEED_OFFERED,   /* the peer was told to dial */
	SEED_MIGRATING, /* QEMU stops the VM at the end of it */
	SEED_RUNNING,   /* the VM is told to run on */
	SEED_SETTLING,  /* given up, not over yet */
};

void seed_begin(struct daemon *d);          /* primary, CORE_ACT_SEED */
void seed_channel(struct daemon *d, int fd);/* both: the SEED channel is there; takes fd */
void seed_receive(struct daemon *d);        /* secondary: PEER_SEED_START came */
void seed_peer_ready(struct daemon *d, const uint8_t *p, size_t n); /* primary: PEER_SEED_READY */
void seed_cancel(struct daemon *d);
void seed_stands_ready(struct daemon *d); /* secondary: tell the primary */

/* --- checkpoint.c: the order of events of one checkpoint --- */

void checkpoint_harvest(struct daemon *d, uint64_t epoch, enum core_cause cause);
/* secondary: parts of what makes epoch complete */
void checkpoint_received(struct daemon *d, uint64_t epoch, uint32_t flags, uint64_t ran_at_ns);
/* last_read: as it came, one number a NIC; false: malformed */
bool checkpoint_boundary(struct daemon *d, uint64_t epoch, const uint8_t *last_read, size_t len);
void checkpoint_disk_boundary(struct daemon *d, uint64_t epoch);
void checkpoint_apply(struct daemon *d, uint64_t epoch);
void checkpoint_peer_applied(struct daemon *d, uint64_t epoch, const uint8_t *p, size_t n);
void checkpoint_send_applied(struct daemon *d, uint64_t epoch);
void checkpoint_reset(struct daemon *d);
void checkpoint_disk_answers(struct daemon *d); /* to DISK_STATUS, all that were doubted */
void checkpoint_new_role(struct daemon *d); /* secondary no more: the VM serves */
/* mode checkpoint, at failover: load the last checkpoint into the VM, run; ends in daemon_loaded() */
void checkpoint_load(struct daemon *d);

struct checkpoint {
	uint8_t nonce[AGENT_NONCE];
	uint64_t epoch;          /* under way */
	/* primary */
	bool verify;             /* the next one with hashes */
	bool hashing;            /* the one under way was asked for with hashes */
	uint64_t sent_hash, sent_hash_epoch;
	uint64_t verified, verify_failed;
	struct percentile pause_us, pages, send_us, apply_us;
	uint64_t started_ns, last_pages;
	int doubt;               /* it failed so, for want of a disk manager's answer: what of that one? */
	char doubt_text[AGENT_ERROR_TEXT];
	/* secondary */
	uint64_t got_pages, got_boundary, got_disk; /* epochs */
	uint32_t flags;
	uint64_t ran_at_ns;      /* PVM's run-on, in our clock */
	uint64_t last_read[AGENT_MAX_NICS]; /* input */
	bool svm_started;        /* by QMP cont, once */
	bool staged_only;        /* mode checkpoint: RAM is in the image, state is not loaded */
	bool loading;            /* mode checkpoint: failover loads it */
	struct agent_reply reply;
};

/* --- arbiter.c: asks the arbiter, through a helper process --- */

/* status 0: r is the record, generation 0: nobody ever claimed; < 0: unknown, d->arbiter.error says why */
typedef void arbiter_fn(struct daemon *d, int status, const struct arbiter_record *r);

struct arbiterlink {
	struct arbiter_config cfg;
	struct child child;
	struct watch *exit_watch, *watch;
	int fd;
	uv_timer_t timer;
	bool busy;              /* a request is not answered */
	bool wanted;            /* a read, for fn */
	arbiter_fn *fn;
	uint64_t claim;         /* until it is known who has it; 0: none */
	uint64_t heard_at, asked_at, known_at, said_at, next_at; /* ms */
	bool known;
	struct arbiter_record record; /* as last known */
	char error[ARBITER_ERROR_MAX]; /* of the last answer, "": it was one */
};

int arbiter_start(struct daemon *d);
void arbiter_stop(struct daemon *d);
/* Until it is won or lost: CORE_EV_CLAIM. Takes the place of an earlier one. peer_gone: the primary said that it does
 * not serve. */
void arbiter_claim(struct daemon *d, uint64_t generation, bool peer_gone);
/* colo failover --force, arbiter none: the operator says that the peer is off. 0, or why not */
int arbiter_force(struct daemon *d, const char **why);
/* Once, also if unknown; fn may be called at once. */
void arbiter_read(struct daemon *d, arbiter_fn *fn);
json_t *arbiter_json(const struct daemon *d); /* new reference */

/* --- control.c: the operator's socket; status.c --- */

int control_start(struct daemon *d);
void control_stop(struct daemon *d);
json_t *status_json(struct daemon *d); /* new reference */

/* --- faults.c: alarms, disks that fail, and what verify finds --- */

enum alarm {
	ALARM_PROTECTION, /* a pair that was protected is not any more */
	ALARM_DISK,       /* a local disk failed */
	ALARM_FAILOVER,   /* what the SVM had written could not be made stable */
	ALARM_VERIFY,     /* the disks differ */
	ALARM_SILENT,     /* QEMU, its agent or a disk manager does not answer */
	ALARM_SPACE,      /* a directory of the daemon's is full */
	ALARM_DESCRIPTORS,/* there are no more */
	ALARM_ARBITER,    /* it does not answer */
	ALARMS
};

struct alarms {
	struct {
		uint64_t at_unix_ms; /* 0: none */
		char text[300];
	} alarm[ALARMS];
	char goodbye[200];           /* the secondary's last words */
};

void faults_alarm(struct daemon *d, enum alarm a, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void faults_mended(struct daemon *d, enum alarm a);
/* a disk manager says that storage failed: DISK_EV_FAULT (a request of the VM waits) or DISK_EV_ERROR */
void faults_disk(struct daemon *d, const char *disk, const char *why);
void faults_state(struct daemon *d, enum core_state before); /* after each event */
void faults_goodbye(struct daemon *d, enum core_loss why);   /* secondary: say it */
void faults_heard_goodbye(struct daemon *d, const uint8_t *text, size_t n); /* primary */
json_t *faults_json(const struct daemon *d);                 /* new reference */

/* --- verify.c: colo verify --- */

struct verify {
	bool running, repair;
	uint64_t at_unix_ms;    /* 0: there was none */
	struct verify_disk {
		bool running;
		int status;     /* < 0: could not */
		uint64_t checked, differing, repaired;
		char text[200];
	} disk[CONFIG_DISKS_MAX];
};

int verify_begin(struct daemon *d, bool repair, const char **why);
/* DISK_EV_VERIFIED; status < 0: could not */
void verify_done(struct daemon *d, unsigned int disk, const struct disk_message *m);
void verify_cut_off(struct daemon *d); /* the link is gone */
json_t *verify_json(const struct daemon *d); /* new reference */

/* --- start.c: which role this node begins in --- */

struct run_options {
	enum start_role role; /* BY_DISKS, PRIMARY, SECONDARY */
	bool overwrite;       /* what is on this host's disks may be lost */
	bool supervised;      /* by cli/run.c, which reads... */
	int watchdog_fd;      /* ...signs of life here */
	unsigned int peer_version; /* for tests: the newest to speak; 0: PEER_VERSION */
};

void start_begin(struct daemon *d);
/* A peer says hello while this node does not know its role. its: lineages of its writable disks, in order;
 * undecided: it does not know either (it listens, too). */
enum peer_status start_hello(struct daemon *d, bool undecided, const struct lineage *its, unsigned int n,
			     char *text, size_t size);
void start_taken(struct daemon *d); /* undecided, dialled, and was taken as secondary */
bool start_is_undecided(const struct daemon *d);
const char *start_waits_for(const struct daemon *d); /* what this node waits for; "": nothing */
void start_role(struct daemon *d);         /* CORE_ACT_START */
void start_decide_again(struct daemon *d); /* CORE_ACT_DECIDE */

/* --- notify.c: tell others what happens --- */

struct notify;
int notify_check(const struct config *c, char *error, size_t size); /* 0, or -EINVAL and why */
int notify_start(struct daemon *d);
void notify_state(struct daemon *d, enum core_state before); /* it has changed */
void notify_alarm(struct daemon *d, const char *event, const char *text); /* alarm, mended */
void notify_stop(struct daemon *d); /* waits for the last of them, at most 10 s; then, once the loop has ended: */
void notify_free(struct notify *n);

/* --- watchdog.c: signs of life for the supervisor, and of QEMU and the disk managers --- */

enum watchdog_sign {
	WATCHDOG_ALIVE = '.',
	WATCHDOG_UP = '+',    /* past the start, where an error is the operator's to mend */
	WATCHDOG_ENDING = '-',
};

void watchdog_start(struct daemon *d);
void watchdog_state(struct daemon *d); /* after each event */
void watchdog_ending(struct daemon *d);
void watchdog_soon(struct daemon *d); /* something has closed: look as soon as its end would be known */
/* Of a listener, after accept() failed: if for want of descriptors or memory, it rests for a while. */
void watchdog_rest(struct daemon *d, struct watch *listener, int error);

/* --- daemon.c --- */

struct failover_record {
	bool valid;
	enum core_loss cause;
	uint64_t at_unix_ms, detect_us, total_us;
};

struct daemon {
	const struct config *cfg;
	uv_loop_t loop;
	uv_timer_t tick;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_signal_t sigint, sigterm;
	struct core core;
	struct vm vm;
	struct agentlink agent;
	struct staging stage;
	struct standby standby;
	struct diskman disk;
	struct channels channels;
	struct peer peer;
	struct arbiterlink arbiter;
	struct nics *nics;
	struct transfer *transfer;
	struct checkpoint ckpt;
	struct failover_record failover;
	bool taking_over;       /* it has the role, and not yet all it needs to serve */
	struct alarms alarms;
	struct verify verify;
	struct control *control;
	struct notify *notify;
	struct explain *explain;
	struct selftest_child *selftest; /* under way */
	uv_timer_t announce, linger, seed_poll, start_limit, follow, say, patience, pet, vm_look;
	struct run_options options;
	bool undecided;         /* all but the role is known */
	bool waited;            /* at the start: as struct start_node has it */
	enum start_owner owner; /* at the start: who has the arbiter's record, */
	uint64_t owned;         /* of this generation */
	char waits_for[512];    /* undecided, or secondary: why, and what decides */
	int announcements;
	char qemu_version[32], driver[16], accel[8]; /* as the start has found them out */
	char exe_dir[256];      /* where agent and plugin may lie in a build tree */
	double seed_percent;
	bool seed_local, seed_remote; /* this side and the peer are done */
	enum seed_phase seed_phase; /* primary */
	bool seed_waiting;      /* for the end of a migration of an earlier link, */
	bool seed_agent;        /* or for the agent, which begins to track for one */
	int exit_status;
	bool ending;
	struct {
		uint64_t turn_us;
		unsigned int turns;
		struct watch *resting[2]; /* listeners */
	} watchdog;
	bool was_up;            /* said so to the supervisor */
	bool told_off;          /* the peer, that the VM is off */
};

static inline bool standby_on(const struct daemon *d)
{
	return !strcmp(d->driver, "standby");
}

/* Runs until the daemon ends. Returns the process' exit status. */
int daemon_run(const struct config *cfg, const struct run_options *options);
void daemon_event(struct daemon *d, struct core_event e); /* now_us is filled in */
void daemon_fail_start(struct daemon *d, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void daemon_loaded(struct daemon *d, int status);
uint64_t daemon_now_us(void);
/* full path of an installed or just built file ("colo-agent.so"); static storage of the caller */
int daemon_find(struct daemon *d, const char *sub, const char *file, char *out, size_t size);
bool daemon_is_primary(const struct daemon *d);
const char *daemon_role_name(const struct daemon *d);
uint64_t daemon_unix_ms(void);
const char *daemon_state_dir(const struct daemon *d);
/* with those above it; key: of [host], for a message */
int daemon_make_dir(const char *path, const char *key);
/* a file in the state directory for a child's messages; descriptor or < 0 */
int daemon_open_log(const struct daemon *d, const char *name);

#endif
