/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * arbiter_proto.h - what the daemon and its helper process colo-arbiter say to each other
 *
 * Over a SOCK_SEQPACKET socketpair, in the helper descriptor 3; both are of one build, so structs go as they are.
 * The daemon sends its configuration, then requests, one at a time: the next one after the answer. The helper answers
 * each, and sends a pulse each ARBITER_PULSE_MS, also while a request hangs: a helper without
 * pulse is stopped or dead, and its request is lost. When the daemon's end closes, the helper ends.
 */
#ifndef COLO_ARBITER_PROTO_H
#define COLO_ARBITER_PROTO_H

#include <stdint.h>

#define ARBITER_NAME_MAX 32
#define ARBITER_ERROR_MAX 240
#define ARBITER_PULSE_MS 500

enum arbiter_type { ARBITER_NONE, ARBITER_WITNESS, ARBITER_ETCD, ARBITER_FILE };
enum arbiter_tls { ARBITER_TLS_OFF, ARBITER_TLS_PSK, ARBITER_TLS_X509 };

struct arbiter_config {
	uint32_t type, tls;
	char vm[ARBITER_NAME_MAX], node[ARBITER_NAME_MAX];
	char address[1024];      /* witness: HOST:PORT; etcd: URLs, separated by commas */
	char directory[256];     /* file */
	char tls_dir[256];       /* "": none */
	char username[64];       /* of the key with which the witness is asked */
	char user[64], password_file[256]; /* etcd; "": none */
};

struct arbiter_record {
	uint64_t generation;     /* 0: nobody ever claimed */
	char owner[ARBITER_NAME_MAX];
};

enum arbiter_op { ARBITER_READ = 1, ARBITER_CLAIM, ARBITER_PULSE };

struct arbiter_request {
	uint32_t op, limit_ms;   /* how long an answer is worth waiting for */
	uint64_t generation;     /* CLAIM */
};

struct arbiter_answer {
	uint32_t op;             /* of the request, or PULSE */
	int32_t status;          /* as the functions in arbiter.h */
	uint64_t generation;     /* of the request */
	struct arbiter_record record;
	char error[ARBITER_ERROR_MAX];
};

#endif
