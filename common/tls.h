/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tls.h - authenticated and encrypted byte streams over TCP (GnuTLS, TLS 1.3 only)
 *
 * Credentials are read from the files that QEMU's tls-creds-psk and tls-creds-x509 name, in one directory:
 *   psk   keys.psk: lines "user:hexkey", as psktool writes them
 *   x509  ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem, client-key.pem
 * Both sides prove who they are. Files with keys must be readable by their owner alone.
 *
 * A session works on a socket that somebody else owns, in an event loop (nothing here waits) or, with the
 * functions of "blocking use", until a deadline. Without credentials (TLS_OFF) it passes bytes through, so
 * that users need no second way.
 *
 * Errors are -errno, with one line in tls_error(): -EPIPE the peer closed in an orderly way, -ECONNRESET it is
 * gone without having said so (or somebody cut the stream), -EBADMSG a record is broken or forged, -EACCES
 * one side refuses the other's credentials, -EPROTONOSUPPORT it speaks no TLS, -EPROTO other nonsense.
 * After one of these nothing but tls_free() is useful.
 */
#ifndef COLO_TLS_H
#define COLO_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum tls_mode { TLS_OFF, TLS_PSK, TLS_X509 };
enum tls_end { TLS_CLIENT = 1, TLS_SERVER = 2 }; /* of a session; for credentials: or both */

#define TLS_PEER_MAX 64

struct tls_creds;
struct tls;

/* Reads the files. ends: what they are to serve for, TLS_CLIENT | TLS_SERVER. user: that a client gives with
 * psk. 0, or -errno with one line in error that names the file. TLS_OFF: *c is NULL, which is credentials, too. */
int tls_creds_load(struct tls_creds **c, enum tls_mode mode, unsigned int ends, const char *dir,
		   const char *user, char *error, size_t error_size);
void tls_creds_free(struct tls_creds *c); /* sessions that use them keep them; NULL: nothing */
/* Reads the files again if they have changed, for the sessions to come: 1; 0: nothing has; -errno, with one line in
 * error, once for each change: they are of no use, *c stays as it was. */
int tls_creds_renew(struct tls_creds **c, char *error, size_t error_size);
/* x509: why our own certificates are of no use now, or soon (30 days); false: nothing to say */
bool tls_creds_warning(const struct tls_creds *c, char *text, size_t size);

/* --- a session --- */

/* All of a credential's sessions begin and end in one thread. fd: connected socket, not taken. NULL: no memory */
struct tls *tls_new(const struct tls_creds *c, int fd, enum tls_end end);
void tls_free(struct tls *t); /* NULL: nothing. Says nothing to the peer */
/* 0: done; -EAGAIN: again when fd is ready for tls_events(); else it failed */
int tls_handshake(struct tls *t);
short tls_events(const struct tls *t); /* POLLIN and/or POLLOUT, of poll(2): what it waits for */
/* Bytes taken, which may be fewer than n; 0: none now, when fd is writable again. What is taken may still have
 * to be sent: see tls_unsent(). more: more will follow at once, so it need not be sent yet. */
ssize_t tls_send(struct tls *t, const void *p, size_t n, bool more);
int tls_flush(struct tls *t);             /* 0: all taken is with the kernel; -EAGAIN: not yet */
bool tls_unsent(const struct tls *t);     /* call tls_flush() or tls_send() when fd is writable */
/* Bytes; 0: none now. With n >= 16384 nothing that has come stays behind unseen by poll(2); else see
 * tls_pending(). */
ssize_t tls_recv(struct tls *t, void *p, size_t n);
bool tls_pending(const struct tls *t);    /* tls_recv() has something without fd being readable */
/* Reads more than it needs at a time: for a user that calls tls_recv() until it returns 0 before it waits. */
int tls_read_ahead(struct tls *t);
/* Small records while the connection is slow: nothing of a record is seen before all of it has come, and for some
 * users any byte is a sign of life. */
void tls_set_fine(struct tls *t);
int tls_bye(struct tls *t);               /* the end of what we send, in an orderly way; flush it */

/* who the peer is: psk: the user that the client gave (the same on both sides); x509: the common name in its
 * certificate. "": unknown. Valid after the handshake. */
const char *tls_peer(const struct tls *t);
/* x509: is the peer's certificate for this host name or address? psk and off: true */
bool tls_peer_is(const struct tls *t, const char *name);
const char *tls_error(const struct tls *t);

/* --- blocking use: until clock_now_ns() is deadline_ns, then -ETIMEDOUT --- */

int tls_handshake_by(struct tls *t, uint64_t deadline_ns);
int tls_send_all(struct tls *t, const void *p, size_t n, uint64_t deadline_ns);
int tls_recv_all(struct tls *t, void *p, size_t n, uint64_t deadline_ns); /* exactly n */
ssize_t tls_recv_some(struct tls *t, void *p, size_t n, uint64_t deadline_ns); /* at least 1 */

/* For tests: records after which the keys are renewed. */
void tls_set_rekey(struct tls *t, uint64_t records);

#endif
