/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ops.h - what the daemon can ask for, one function per request
 */
#ifndef COLO_AGENT_OPS_H
#define COLO_AGENT_OPS_H

#include "nic.h"
#include "qemu.h"

/* @nic: @nics of them, at most AGENT_MAX_NICS; @disk_fd: to the disk manager, -1: none */
void ops_init(const struct driver *drv, const struct nic *nic, unsigned int nics,
	      const int *disk_fd, unsigned int disks);

/*
 * Carry out @req and fill @reply, whose op is set. @fds: what came with the request; descriptors
 * taken over are set to -1. Called from the agent's thread, one at a time.
 */
void ops_handle(const struct agent_request *req, int fds[2], struct agent_reply *reply);

#endif
