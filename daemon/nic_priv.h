/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * nic_priv.h - shared by nic.c (data plane) and nic_setup.c (set-up, status)
 */
#ifndef COLO_DAEMON_NIC_PRIV_H
#define COLO_DAEMON_NIC_PRIV_H

#include "daemon/announce.h"
#include "daemon/daemon.h"
#include "daemon/framelog.h"
#include "daemon/tap.h"
#include "net/nudge.h"

enum nic_mode { NIC_IDLE, NIC_PRIMARY, NIC_GIVEN_UP, NIC_SECONDARY };

struct nic {
	struct daemon *d;
	unsigned int number;
	enum nic_mode mode;
	int uplink;
	struct vmtap vm, next;      /* of the VM; of the standby that is to become it */
	struct watch *uplink_watch, *vm_watch;
	bool csum, tso;             /* what the uplink offers */
	uint64_t given;             /* frames, to this VM: the number of the last one */
	struct cm *cm;
	struct tr *tr;
	bool translates;            /* primary: some clients know the VM by the numbers of another */
	bool base_anew, base_sent;  /* primary: the secondary has no base yet; it has that of this boundary */
	uint64_t base_epoch;        /* secondary: of the base that came last */
	uint8_t nonce[AGENT_NONCE];
	bool marker_due;
	uint64_t marker_epoch;
	uint64_t epoch;             /* of what comes from the VM now */
	bool deaf;                  /* secondary, SVM being replaced: what it says does not count */
	bool log_only;              /* likewise: what is for the SVM waits in `input` for nic_applied() */
	struct framelog input, output; /* secondary */
	struct announce who;        /* guest's addresses */
	struct nudge *nudge;        /* secondary: the clients' connections */
	uint64_t lan_rx, lan_tx, dropped_in, dropped_out;
};

struct nics {
	struct tap_room room;
	unsigned int n;
	bool mirror;                /* primary: the secondary is told */
	bool hold;                  /* nothing is given to the VM now */
	struct nic nic[AGENT_MAX_NICS];
};

#define for_each_nic(nics, p) for (struct nic *p = (nics)->nic; p < (nics)->nic + (nics)->n; p++)

/* of struct cm and struct tr; the argument is the NIC */
extern const struct cm_ops nic_cm_ops;
extern const struct tr_ops nic_tr_ops;
/* descriptors are readable */
void nic_on_uplink(void *nic, int events);
void nic_on_vm(void *nic, int events);
/* let the uplink offer what the guest takes */
void nic_follow(struct nic *n);

#endif
