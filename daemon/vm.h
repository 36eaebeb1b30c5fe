/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * vm.h - QEMU: the process, its agent, and the driver standby; in sections headed by the file that defines them
 *
 * A part of daemon.h, which includes it.
 */
#ifndef COLO_DAEMON_VM_H
#define COLO_DAEMON_VM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "agent/agent_proto.h"
#include "common/spawn.h"
#include "daemon/qmp.h"
#include "daemon/watch.h"

struct daemon;
typedef void agent_fn(struct daemon *d, const struct agent_reply *reply);

/* --- vm.c: the QEMU process --- */

enum vm_kind {
	VM_SELFTEST, /* throw-away, never runs, no disk */
	VM_RUN,      /* boots */
	VM_INCOMING, /* waits for the seed */
	VM_STANDBY,  /* driver standby: waits for the next checkpoint. d->standby.vm; the others are d->vm */
};

/* Where a QEMU is in struct daemon: what watches it keeps this, for it moves when the standby becomes the VM. */
struct vm_home {
	struct daemon *d;
	bool next; /* it is the standby */
};

struct vm {
	struct vm_home *home;
	struct child child;
	struct watch *exit_watch;
	struct qmp *qmp;
	int agent_fd;         /* our end of the socketpair, for the agent link */
	bool dying;           /* its end is expected */
	bool ended;           /* and was told to the core, though the process may still be there */
	bool qmp_asked;       /* a question of watchdog.c has no answer yet, */
	uint64_t qmp_silent_us; /* for so long */
};

int vm_start(struct daemon *d, enum vm_kind kind);
void vm_kill(struct daemon *d); /* and the standby */
/* Kill one of the two, whose end is expected, and do not wait for it; its agent's link and NICs end, too. */
void vm_discard(struct daemon *d, struct vm *vm);
/* The standby takes the place of d->vm, which is gone. */
void vm_promote(struct daemon *d);
/* To its agent, or to what does an agent's work with driver standby. As agentlink_request() */
int vm_request(struct daemon *d, const struct agent_request *r, agent_fn *fn);

/* --- agentlink.c: requests to the agent in QEMU --- */

struct agentlink {
	int fd;
	struct watch *watch;
	agent_fn *fn;         /* of the request under way, NULL: none */
	struct agent_request request;
	struct agent_reply hello;
	bool pinged;          /* a ping has no answer yet */
	bool gone;            /* its end of the socket is closed */
	bool silent;          /* as of the last turn of watchdog.c it owes an answer, */
	uint64_t silent_us;   /* and did so before */
};

#define DEVICE_STATE_MAX (64u << 20)

struct staging { /* what daemon and agent share; with driver standby agents follow each other */
	int fd, device_fd;    /* -1: none */
	uint8_t *map;         /* of fd; device state is read and written with pread and pwrite */
	size_t size;
	struct agent_reply blocks;
	bool have_blocks;
};

/* Of d->vm's agent, d->agent. Waits for its hello; fn is called with it */
int agentlink_open(struct daemon *d, int fd, agent_fn *fn);
void agentlink_close(struct daemon *d); /* and forget the staging area */
/* Sends the two memfds; maps them when the answer is there. */
int agentlink_setup(struct daemon *d, agent_fn *fn);
/* One at a time; -EBUSY otherwise, -EPIPE without agent. */
int agentlink_request(struct daemon *d, const struct agent_request *r, agent_fn *fn);
/* The same of the standby's, d->standby.agent */
int agentlink_open_next(struct daemon *d, agent_fn *fn);
int agentlink_setup_next(struct daemon *d, agent_fn *fn);
int agentlink_request_next(struct daemon *d, const struct agent_request *r, agent_fn *fn);
void agentlink_shut(struct agentlink *a); /* either: close the socket, no more */
void agentlink_ping(struct daemon *d); /* if it has nothing else to do */
static inline bool agentlink_busy(const struct agentlink *a)
{
	return a->fn != NULL;
}

/* --- standby.c: the driver standby, on the secondary; standby_save.c: on the primary --- */

enum standby_phase { /* secondary: of the next SVM */
	STANDBY_NONE,
	STANDBY_STARTING,
	STANDBY_READY,
	STANDBY_APPLYING, /* pages */
	STANDBY_LOADING,  /* device state */
};

enum standby_save_phase { /* primary */
	SAVE_IDLE,
	SAVE_STREAM,   /* the VM stops, and its device state comes */
	SAVE_STATUS,   /* all of it is here: was it a success? */
	SAVE_HARVEST,  /* the agent is at work */
	SAVE_RUN,      /* the VM is told to run on */
	SAVE_SETTLING, /* it failed, and the VM does not run on yet */
};

struct standby {
	int ram_fd;           /* the guest's RAM; on a secondary the image of the last checkpoint. -1: none */
	/* secondary */
	struct vm vm;
	struct agentlink agent;
	enum standby_phase phase;
	unsigned int failures;/* in a row */
	bool seeded;          /* when the first one is ready: seed_stands_ready() */
	int feed_fd;          /* device state goes in here, -1: none */
	struct watch *feed_watch;
	uint64_t fed;
	uint64_t fed_at_ns, rest_ns; /* from then until the VM runs; and how long that usually takes */
	bool advanced;        /* the device state's clocks, for this request */
	/* primary */
	enum standby_save_phase save;
	int save_fd;          /* device state comes from here, -1: none */
	struct watch *save_watch;
	uint64_t saved, saved_ns, cont_ns;
	/* both: the request under way, fn NULL: none */
	struct agent_request request;
	struct agent_reply reply;
	agent_fn *fn;
	uint64_t began_ns;
	uv_timer_t limit, step, start;
};

void standby_init(struct daemon *d);
/* What the agent does with driver direct: STOP and APPLY (secondary), CHECKPOINT (primary). As agentlink_request(), but
 * fn may be called at once. */
int standby_request(struct daemon *d, const struct agent_request *r, agent_fn *fn);
void standby_seeded(struct daemon *d);  /* secondary: RAM is here */
void standby_leave(struct daemon *d);   /* no SVM comes after the VM there is */
void standby_drop(struct daemon *d);    /* the VM is killed */
int standby_new_ram(struct daemon *d);  /* for a VM with RAM of its own. 0 or -errno */
/* from vm.c: of the next SVM */
void standby_died(struct daemon *d);
void standby_migration(struct daemon *d, const char *status);
/* between the two files */
int standby_save(struct daemon *d);
void standby_save_drop(struct daemon *d);
void standby_save_failed(struct daemon *d, int status, const char *why);
void standby_finish(struct daemon *d, int status, const char *why); /* answer the request */
/* A socketpair with room for device state; ours does not block. 0 or -errno */
int standby_channel(int *ours, int *theirs);
void standby_close(struct watch **watch, int *fd); /* our end of one, and what watches it */
json_t *standby_capabilities(bool ignore_shared); /* arguments of migrate-set-capabilities */

#endif
