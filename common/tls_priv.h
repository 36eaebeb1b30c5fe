/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tls_priv.h - what the files of common/tls share
 */
#ifndef COLO_TLS_PRIV_H
#define COLO_TLS_PRIV_H

#include <gnutls/gnutls.h>

#include "common/tls.h"

struct tls_creds {
	unsigned int users_of_it; /* sessions, and the caller of tls_creds_load() */
	enum tls_mode mode;
	unsigned int ends;
	char dir[256], user_name[TLS_PEER_MAX];
	uint64_t stamp;           /* of the files: another one when they have changed */
	gnutls_priority_t priority;
	/* psk: all of keys.psk */
	struct tls_user {
		char name[TLS_PEER_MAX];
		gnutls_datum_t key; /* raw */
	} *user;
	unsigned int users;
	gnutls_psk_server_credentials_t psk_server;
	gnutls_psk_client_credentials_t psk_client;
	char client_user[TLS_PEER_MAX];
	gnutls_certificate_credentials_t x509_server, x509_client;
};

struct tls {
	gnutls_session_t s; /* NULL: passes through */
	struct tls_creds *creds;
	int fd;
	enum tls_end end;
	bool looked;      /* at the first byte */
	bool shaken;      /* the handshake is over; some of it may have to be sent yet */
	bool eof;         /* the kernel said so */
	bool closed;      /* the peer said so: nothing more comes */
	bool unknown_user;
	bool fine;        /* small records while... */
	bool full;        /* ...the kernel takes no more */
	int err;          /* of the session, once it has failed; 0: none */
	int io_errno;     /* of the last system call that failed */
	uint64_t records, rekey;
	uint8_t *out;     /* ciphertext to be sent: [out_head, out_tail) */
	size_t out_head, out_tail;
	uint8_t *in;      /* ciphertext read ahead; NULL: none is */
	size_t in_head, in_tail;
	char peer[TLS_PEER_MAX];
	char error[240];
	char hint[200];   /* of a callback in the handshake: what is wrong */
};

/* of tls_creds.c, for a new session; 0 or -EINVAL */
int tls_creds_use(struct tls *t);
struct tls_creds *tls_creds_keep(const struct tls_creds *c); /* one more user; NULL: NULL */

#endif
