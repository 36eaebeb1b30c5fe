/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * job.h - a request under way, and what requests share; for ops.c, checkpoint.c, apply.c only
 */
#ifndef COLO_AGENT_JOB_H
#define COLO_AGENT_JOB_H

#include "clock.h"
#include "nic.h"
#include "qemu.h"
#include "stage.h"

struct ops {
	const struct driver *drv;
	struct nic nic[AGENT_MAX_NICS];
	unsigned int nics;
	int disk_fd[AGENT_MAX_DISKS];
	unsigned int disks;
	struct ram ram;
	bool viewed;
	bool serves; /* since the view was made: what is private is RAM, and no longer to be dropped */
	bool kvm_to_write; /* since tracking began there has been no harvest */
	bool pinned;
	void *stage;
	uint64_t stage_size;
	int dev_fd;
	int load_fd; /* device state with clocks advanced, what is loaded */
	int64_t rest_ns; /* how long APPLY takes from loading devices until the VM runs */
	int64_t clock_ns; /* how long setting the clocks takes */
};

extern struct ops ops;

/* a request under way */
struct job {
	const struct agent_request *req;
	struct agent_reply *reply;
	struct errtext err;
	struct stage_reader staged;
	uint8_t clock[CLOCK_SECTION_MAX]; /* APPLY: the clocks as the PVM saved them */
	int clock_len;
	bool kvm_clocks; /* the guest's clocks under KVM are with the state */
	int64_t clocks_at_ns; /* CHECKPOINT: when they were read */
	bool harvested; /* CHECKPOINT: dirty pages were taken, and are lost if it fails */
	int ret;
};

/* RAM must stay laid out as it was at set-up: everything refers to it by index and offset. */
int ops_check_ram(struct errtext *err);
/* Forbid or allow devices to give RAM back; does nothing if it is so already. */
int ops_pin_ram(bool pin, struct errtext *err);
/* Mark the boundary in what each NIC sends. */
int ops_mark_nics(struct job *job);
/* Run the VM; how long that took goes to *cont_ns. */
int ops_run(struct job *job, int64_t *cont_ns);

/* Each of these is called in QEMU's main loop with a struct job. */
void checkpoint_job(void *job);
void view_job(void *job);
void apply_job(void *job);
void loaded_job(void *job);

/* Has the VM a view that a checkpoint may come into? @request is named in the refusal. */
int view_may_change(struct job *job, const char *request);
/* From the agent's thread, before apply_job(): is the request one, is what is staged sound? */
int apply_check(struct job *job);

#endif
