/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * throwaway.h - a QEMU that is asked something and ends; what blocks, in a process of its own (selftest.c)
 */
#ifndef COLO_THROWAWAY_H
#define COLO_THROWAWAY_H

#include "daemon/daemon.h"

#define THROWAWAY_TEXT 300

struct throwaway {
	struct daemon *d;
	struct child child;
	int qmp_fd, agent_fd;    /* our ends; -1: none */
	uint64_t deadline_ns;    /* of all that is awaited */
	char version[32];        /* QEMU's, as QMP says */
	struct agent_reply reply;/* the agent's last one */
	bool died;               /* QEMU has closed a socket */
	char error[THROWAWAY_TEXT];
	char line[8192];         /* of QMP, as far as it has come */
	size_t have;
};

/* what the standby's QEMU gets besides the VM's devices */
struct throwaway_ram {
	int fd;        /* the guest's RAM; -1: QEMU's own */
	bool incoming;
};

/* All return 0 or -errno, and then `error` says why in one line. */
int throwaway_start(struct throwaway *t, struct daemon *d, const struct throwaway_ram *ram, uint64_t limit_ms);
int throwaway_qmp(struct throwaway *t, const char *command, json_t *args, int pass_fd, json_t **result);
int throwaway_agent(struct throwaway *t, uint32_t op); /* SETUP gives it two new memfds */
void throwaway_end(struct throwaway *t);
/* Until `done` of the answer to a query is one of the words, separated by blanks. */
int throwaway_await(struct throwaway *t, const char *query, const char *good, const char *bad);
/* Is there KVM at all? why: if not */
int throwaway_has_kvm(char *why, size_t size);
/* Does the firmware get through its start under KVM? why: if not */
int throwaway_kvm(struct daemon *d, uint64_t limit_ms, char *why, size_t size);

#endif
