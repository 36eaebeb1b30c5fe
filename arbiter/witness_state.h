/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * witness_state.h - what a witness knows, in memory and in a directory on stable storage
 */
#ifndef COLO_WITNESS_STATE_H
#define COLO_WITNESS_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arbiter/arbiter_proto.h"

#define WITNESS_VMS_MAX 100000

struct witness_vm {
	char name[ARBITER_NAME_MAX];
	struct arbiter_record record;
};

struct witness_state {
	char dir[256];
	int dir_fd, lock_fd;
	struct witness_vm *vm; /* in no order */
	size_t n, room;
};

/* fresh: a directory without state (made if it is not there) is where a new one begins; else it is an error, since
 * a witness that forgot must not answer. 0, or -errno with one line in error. */
int witness_state_open(struct witness_state *s, const char *dir, bool fresh, char *error, size_t error_size);
void witness_state_close(struct witness_state *s);
/* generation 0: nobody ever claimed */
struct arbiter_record witness_state_get(const struct witness_state *s, const char *vm);
/* On stable storage when it returns 0. -errno: as before, as far as this process goes; on storage either. */
int witness_state_put(struct witness_state *s, const char *vm, const struct arbiter_record *r);

#endif
