/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * witness_proto.h - what hosts and `colo witness` say to each other, and how its address is read
 *
 * One TCP connection, with TLS or without (common/tls.h), for one line each way:
 *   colo-witness 1 read VM
 *   colo-witness 1 claim VM HOST GENERATION
 * and the answer
 *   colo-witness 1 none                      nobody ever claimed
 *   colo-witness 1 record GENERATION HOST
 *   colo-witness 1 won GENERATION HOST       as the record is now; so, too, when it was won before
 *   colo-witness 1 lost GENERATION HOST
 *   colo-witness 1 refused TEXT              nothing was changed, or it is not known whether it was
 * An answer that does not end with a newline is none.
 */
#ifndef COLO_WITNESS_PROTO_H
#define COLO_WITNESS_PROTO_H

#include <stdbool.h>
#include <stddef.h>

#include "arbiter/arbiter_proto.h"

#define WITNESS_PORT "7440"
#define WITNESS_LINE_MAX 256 /* with the newline */
#define WITNESS_HELLO "colo-witness 1 "

struct witness_request {
	enum arbiter_op op; /* READ or CLAIM */
	char vm[ARBITER_NAME_MAX], host[ARBITER_NAME_MAX];
	uint64_t generation;
};

/* line: without its newline. false: not one of the above */
bool witness_parse_request(const char *line, struct witness_request *r);
/* word: "none", "record", "won", "lost", "refused"; text: of refused, points into line */
bool witness_parse_answer(const char *line, char word[8], struct arbiter_record *r, const char **text);

struct addrinfo;
/* Without looking it up. false: not of a form below. port: points into where, or to WITNESS_PORT */
bool witness_split(const char *where, char host[256], const char **port);
/* an address of this machine only, or "localhost" */
bool witness_is_loopback(const char *host);
/* "HOST:PORT", "HOST", "[IPV6]:PORT", "[IPV6]"; without PORT: WITNESS_PORT. host: what stands before it.
 * 0 or -errno with one line in error; *out: freeaddrinfo() */
int witness_resolve(const char *where, bool to_listen, char host[256], struct addrinfo **out, char *error,
		    size_t error_size);

#endif
