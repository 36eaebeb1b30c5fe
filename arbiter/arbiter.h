/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * arbiter.h - who may serve a VM alone: the back ends that know, behind two functions
 *
 * An arbiter keeps one record for each VM: the highest generation that was claimed, and by which host. There is
 * no lease and no clock in it. A claim of generation g by a host is
 *   won      if the record becomes, or is already, (g, this host); it becomes so only from a lower generation;
 *   lost     if it is (g, another host), or of a higher generation;
 *   unknown  in any other case: no answer, an error, an answer that makes no sense.
 * So a claim may be repeated until it is known, and of two hosts that claim the same generation one wins.
 *
 * These are used by the helper process (helper.c) only, one request at a time, and may block until about
 * their deadline; a hung NFS server can hold them longer.
 */
#ifndef COLO_ARBITER_H
#define COLO_ARBITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arbiter/arbiter_proto.h"

#define ARBITER_WON 0
#define ARBITER_LOST 1

struct arbiter {
	const struct arbiter_config *cfg;
	uint64_t deadline_ms;           /* of this request, as arbiter_now_ms() */
	char error[ARBITER_ERROR_MAX];  /* why the answer is unknown, for a person */
};

struct arbiter_backend {
	/* 0: *r is the record, generation 0: nobody ever claimed. -errno: unknown */
	int (*read)(struct arbiter *a, struct arbiter_record *r);
	/* ARBITER_WON, ARBITER_LOST: *r is the record; -errno: unknown */
	int (*claim)(struct arbiter *a, uint64_t generation, struct arbiter_record *r);
};

extern const struct arbiter_backend arbiter_etcd, arbiter_file, arbiter_witness;

/* fills a->error, returns r */
__attribute__((format(printf, 3, 4))) int arbiter_unknown(struct arbiter *a, int r, const char *fmt, ...);
uint64_t arbiter_now_ms(void);
/* until the deadline, at most `most`; 0: it has passed */
uint64_t arbiter_left_ms(const struct arbiter *a, uint64_t most);

/* --- record.c --- */

/* What a record says of a claim: WON, LOST, or ARBITER_OPEN: it may be tried. */
#define ARBITER_OPEN 2
int record_judge(const struct arbiter_record *r, uint64_t generation, const char *me);
/* letters, digits, '-', '_' and '.', at most ARBITER_NAME_MAX - 1: names of VMs and hosts */
bool record_is_name(const char *s);
/* As a line of JSON. vm: NULL where the place says whose it is; else the VM and a checksum are in it, and must
 * be right. Length; 0 or -EBADMSG */
#define RECORD_TEXT_MAX 256
size_t record_format(const struct arbiter_record *r, const char *vm, char text[RECORD_TEXT_MAX]);
int record_parse(const char *text, size_t len, const char *vm, struct arbiter_record *r);

#endif
