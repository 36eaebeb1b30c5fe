/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tls.c - see tls.h
 *
 * Theory of operation: GnuTLS writes records into `out`, from where one send() takes many; it never sees a
 * socket that is full, so that it has no half-written record to be asked for again: tls_send() takes as much as
 * `out` has room for. What is read goes the same way where the user asks for that (tls_read_ahead), else GnuTLS
 * reads exactly one record at a time, so that what has come is in the kernel, where poll(2) sees it, or in the
 * user's hands.
 * Session tickets and early data are off: every connection agrees on fresh keys, so that what was recorded of
 * another one is of no use. The stream's end counts as orderly only if the peer said so inside of the encryption.
 * After so many records the keys are renewed, long before AES-GCM's limit (2^24.5 records of one key).
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gnutls/x509.h>

#include "common/tls_priv.h"
#include "common/wire.h"

#define RECORD_MAX 16384u
#define RECORD_FINE 2048u
#define RECORD_EXTRA 64u       /* header, tag, and more than there is */
#define OUT_SIZE (320u << 10)
#define OUT_ENOUGH (128u << 10) /* beyond: wait until it is sent */
#define OUT_WORTH (64u << 10)   /* with more to come, worth a system call */
#define IN_SIZE (256u << 10)
#define REKEY_RECORDS (1ull << 22)
#define FIRST_HANDSHAKE 22u    /* content types of TLS: first byte of a record */
#define FIRST_ALERT 21u

_Static_assert(OUT_SIZE > OUT_ENOUGH + OUT_ENOUGH / RECORD_FINE * (RECORD_FINE + RECORD_EXTRA) + 2 * RECORD_MAX,
	       "room for alerts and key updates");

/* the first one counts */
static int fail(struct tls *t, int err, const char *text)
{
	if (!t->err) {
		t->err = err;
		snprintf(t->error, sizeof(t->error), "%s", text);
	}
	return t->err;
}

/* --- between GnuTLS and the socket --- */

static int flush_out(struct tls *t)
{
	ssize_t n;

	while (t->out_head < t->out_tail) {
		n = send(t->fd, t->out + t->out_head, t->out_tail - t->out_head, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		t->full = n < 0 && errno == EAGAIN;
		if (t->full)
			return -EAGAIN;
		if (n < 0) {
			t->io_errno = errno;
			return -errno;
		}
		t->out_head += n;
	}
	t->out_head = t->out_tail = 0;
	return 0;
}

static ssize_t push(gnutls_transport_ptr_t arg, const void *p, size_t n)
{
	struct tls *t = arg;

	if (OUT_SIZE - t->out_tail < n && t->out_head) {
		memmove(t->out, t->out + t->out_head, t->out_tail - t->out_head);
		t->out_tail -= t->out_head;
		t->out_head = 0;
	}
	if (OUT_SIZE - t->out_tail < n) {
		gnutls_transport_set_errno(t->s, EAGAIN);
		return -1;
	}
	memcpy(t->out + t->out_tail, p, n);
	t->out_tail += n;
	return n;
}

/* Anything but TLS has another first byte: say so rather than what GnuTLS makes of it. */
static bool begins_as_tls(struct tls *t, uint8_t first)
{
	t->looked = true;
	if (first == FIRST_HANDSHAKE || first == FIRST_ALERT)
		return true;
	fail(t, -EPROTONOSUPPORT, "it speaks no TLS ([tls] mode = off there?)");
	return false;
}

static ssize_t receive(struct tls *t, void *p, size_t n)
{
	ssize_t r = recv(t->fd, p, n, MSG_DONTWAIT);

	if (r > 0 && !t->looked && !begins_as_tls(t, *(uint8_t *)p)) {
		gnutls_transport_set_errno(t->s, EPROTO);
		return -1;
	}
	t->eof = t->eof || r == 0;
	if (r < 0) {
		if (errno != EAGAIN && errno != EINTR)
			t->io_errno = errno;
		gnutls_transport_set_errno(t->s, errno);
	}
	return r;
}

static ssize_t pull(gnutls_transport_ptr_t arg, void *p, size_t n)
{
	struct tls *t = arg;
	ssize_t r;

	if (!t->in)
		return receive(t, p, n);
	if (t->in_head == t->in_tail) {
		r = receive(t, t->in, IN_SIZE);
		if (r <= 0)
			return r;
		t->in_head = 0;
		t->in_tail = r;
	}
	if (n > t->in_tail - t->in_head)
		n = t->in_tail - t->in_head;
	memcpy(p, t->in + t->in_head, n);
	t->in_head += n;
	return n;
}

static int pull_timeout(gnutls_transport_ptr_t arg, unsigned int ms)
{
	struct tls *t = arg;
	struct pollfd p = { .fd = t->fd, .events = POLLIN };

	return t->in_head < t->in_tail ? 1 : poll(&p, 1, ms);
}

/* --- life --- */

static int start_session(struct tls *t)
{
	unsigned int flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS |
			     (t->end == TLS_SERVER ? GNUTLS_SERVER : GNUTLS_CLIENT);

	t->out = malloc(OUT_SIZE);
	if (!t->out || gnutls_init(&t->s, flags) < 0)
		return -ENOMEM;
	gnutls_session_set_ptr(t->s, t);
	gnutls_transport_set_ptr(t->s, t);
	gnutls_transport_set_push_function(t->s, push);
	gnutls_transport_set_pull_function(t->s, pull);
	gnutls_transport_set_pull_timeout_function(t->s, pull_timeout);
	return tls_creds_use(t);
}

struct tls *tls_new(const struct tls_creds *c, int fd, enum tls_end end)
{
	struct tls *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->creds = tls_creds_keep(c);
	t->fd = fd;
	t->end = end;
	t->rekey = REKEY_RECORDS;
	if (c && start_session(t) < 0) {
		tls_free(t);
		return NULL;
	}
	return t;
}

void tls_free(struct tls *t)
{
	if (!t)
		return;
	if (t->s)
		gnutls_deinit(t->s);
	tls_creds_free(t->creds);
	free(t->out);
	free(t->in);
	free(t);
}

int tls_read_ahead(struct tls *t)
{
	if (t->s && !t->in)
		t->in = malloc(IN_SIZE);
	return t->s && !t->in ? -ENOMEM : 0;
}

void tls_set_fine(struct tls *t)
{
	t->fine = true;
}

void tls_set_rekey(struct tls *t, uint64_t records)
{
	t->rekey = records;
}

const char *tls_peer(const struct tls *t)
{
	return t->peer;
}

const char *tls_error(const struct tls *t)
{
	return t->error;
}

/* --- what went wrong --- */

static int fail_io(struct tls *t, int err)
{
	return fail(t, err, err == -EPIPE || err == -ECONNRESET ? "the connection was reset" : strerror(-err));
}

static const char *alert_text(const struct tls *t)
{
	switch (gnutls_alert_get(t->s)) {
	case GNUTLS_A_UNKNOWN_PSK_IDENTITY:
		return "it does not know our user";
	case GNUTLS_A_DECRYPT_ERROR:
	case GNUTLS_A_ILLEGAL_PARAMETER:
		return t->creds->mode == TLS_PSK ? "it has another key for our user (keys.psk)" : "it cannot verify us";
	case GNUTLS_A_CERTIFICATE_EXPIRED:
		return "our certificate has expired, or is not valid yet";
	case GNUTLS_A_UNKNOWN_CA:
		return "our certificate is not signed by its CA";
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_CERTIFICATE_UNKNOWN:
	case GNUTLS_A_CERTIFICATE_REVOKED:
	case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
		return "it does not accept our certificate";
	case GNUTLS_A_CERTIFICATE_REQUIRED:
	case GNUTLS_A_HANDSHAKE_FAILURE:
	case GNUTLS_A_INSUFFICIENT_SECURITY:
	case GNUTLS_A_MISSING_EXTENSION:
		return "the two have no kind of credentials in common ([tls] mode psk here, x509 there?)";
	case GNUTLS_A_PROTOCOL_VERSION:
		return "it does not speak TLS 1.3";
	case GNUTLS_A_BAD_RECORD_MAC:
		return "what it got of us was broken or forged on the way";
	case GNUTLS_A_USER_CANCELED:
		return "it gave up";
	default:
		return gnutls_alert_get_name(gnutls_alert_get(t->s));
	}
}

static int fail_alert(struct tls *t)
{
	char text[200];

	snprintf(text, sizeof(text), "it refuses us: %s", alert_text(t));
	return fail(t, gnutls_alert_get(t->s) == GNUTLS_A_BAD_RECORD_MAC ? -EBADMSG : -EACCES, text);
}

/* r: of GnuTLS, fatal, with an established session or not */
static int fail_gnutls(struct tls *t, int r)
{
	char text[200];

	/* whatever GnuTLS makes of half a record */
	if (t->eof && r != GNUTLS_E_FATAL_ALERT_RECEIVED && r != GNUTLS_E_DECRYPTION_FAILED)
		return fail(t, -ECONNRESET, "closed without a farewell (it died, or the connection was cut)");
	switch (r) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return fail_alert(t);
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return fail_io(t, t->io_errno ? -t->io_errno : -EIO);
	case GNUTLS_E_DECRYPTION_FAILED:
	case GNUTLS_E_UNEXPECTED_PACKET:
	case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
	case GNUTLS_E_RECORD_OVERFLOW:
		return fail(t, -EBADMSG, "a record is broken or forged");
	default:
		snprintf(text, sizeof(text), "TLS: %s", gnutls_strerror(r));
		return fail(t, -EPROTO, text);
	}
}

static int fail_handshake(struct tls *t, int r)
{
	if (*t->hint)
		return fail(t, -EACCES, t->hint);
	if (t->eof && r != GNUTLS_E_FATAL_ALERT_RECEIVED)
		return fail(t, -ECONNRESET, "closed the connection in the TLS handshake");
	switch (r) {
	case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER:
	case GNUTLS_E_DECRYPTION_FAILED:
	case GNUTLS_E_ERROR_IN_FINISHED_PACKET:
		return fail(t, -EACCES, t->creds->mode == TLS_PSK ? "its key is not ours (keys.psk)" : gnutls_strerror(r));
	case GNUTLS_E_NO_CIPHER_SUITES:
	case GNUTLS_E_NO_COMMON_KEY_SHARE:
	case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
	case GNUTLS_E_MISSING_EXTENSION:
	case GNUTLS_E_INCOMPATIBLE_SIG_WITH_KEY:
		return fail(t, -EACCES, "the two have no kind of credentials in common ([tls] mode psk here, x509 there?)");
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
		return fail(t, -EPROTONOSUPPORT, "it does not speak TLS 1.3");
	default:
		return fail_gnutls(t, r);
	}
}

static bool retry(int r)
{
	return r == GNUTLS_E_INTERRUPTED || r == GNUTLS_E_WARNING_ALERT_RECEIVED;
}

/* --- handshake --- */

static void name_peer(struct tls *t)
{
	const char *user = t->end == TLS_SERVER ? gnutls_psk_server_get_username(t->s) : t->creds->client_user;
	const gnutls_datum_t *der;
	gnutls_x509_crt_t crt;
	size_t n = sizeof(t->peer);
	unsigned int count;

	if (t->creds->mode == TLS_PSK) {
		snprintf(t->peer, sizeof(t->peer), "%s", user ? user : "");
		return;
	}
	der = gnutls_certificate_get_peers(t->s, &count);
	if (!der || !count || gnutls_x509_crt_init(&crt) < 0)
		return;
	if (gnutls_x509_crt_import(crt, der, GNUTLS_X509_FMT_DER) < 0 ||
	    gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, t->peer, &n) < 0)
		t->peer[0] = 0;
	gnutls_x509_crt_deinit(crt);
}

/* 0, -EAGAIN, or it failed. Not to be called again after 0: GnuTLS would renew the keys. */
static int shake(struct tls *t)
{
	int r;

	do
		r = gnutls_handshake(t->s);
	while (retry(r));
	if (r >= 0 || !gnutls_error_is_fatal(r))
		return r < 0 ? -EAGAIN : 0;
	if (t->err) /* no TLS there, that would understand an alert */
		return t->err;
	fail_handshake(t, r);
	if (t->unknown_user)
		gnutls_alert_send(t->s, GNUTLS_AL_FATAL, GNUTLS_A_UNKNOWN_PSK_IDENTITY);
	else
		gnutls_alert_send_appropriate(t->s, r);
	flush_out(t);
	return t->err;
}

int tls_handshake(struct tls *t)
{
	int r = 0, sent;

	if (t->err || !t->s)
		return t->err;
	if (!t->shaken) {
		r = shake(t);
		if (r < 0 && r != -EAGAIN)
			return r;
		t->shaken = r == 0;
		if (t->shaken)
			name_peer(t);
	}
	sent = flush_out(t);
	if (sent < 0 && sent != -EAGAIN)
		return fail_io(t, sent);
	return r < 0 ? r : sent;
}

short tls_events(const struct tls *t)
{
	return tls_unsent(t) ? POLLIN | POLLOUT : POLLIN;
}

bool tls_peer_is(const struct tls *t, const char *name)
{
	const gnutls_datum_t *der;
	gnutls_x509_crt_t crt;
	unsigned int count;
	bool is;

	if (!t->s || t->creds->mode == TLS_PSK)
		return true;
	der = gnutls_certificate_get_peers(t->s, &count);
	if (!der || !count || gnutls_x509_crt_init(&crt) < 0)
		return false;
	is = gnutls_x509_crt_import(crt, der, GNUTLS_X509_FMT_DER) >= 0 && gnutls_x509_crt_check_hostname(crt, name);
	gnutls_x509_crt_deinit(crt);
	return is;
}

/* --- data --- */

static ssize_t send_plain(struct tls *t, const void *p, size_t n, bool more)
{
	ssize_t r = send(t->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0));

	if (r < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : fail_io(t, -errno);
	return r;
}

static int encrypt(struct tls *t, const uint8_t *p, size_t n)
{
	int r;

	if (++t->records % t->rekey == 0 && (r = gnutls_session_key_update(t->s, 0)) < 0)
		return fail_gnutls(t, r);
	do
		r = gnutls_record_send(t->s, p, n);
	while (retry(r));
	return r < 0 ? fail_gnutls(t, r) : r;
}

int tls_flush(struct tls *t)
{
	int r = t->s ? flush_out(t) : 0;

	return r < 0 && r != -EAGAIN ? fail_io(t, r) : r;
}

ssize_t tls_send(struct tls *t, const void *p, size_t n, bool more)
{
	size_t done = 0, max = t->fine && t->full ? RECORD_FINE : RECORD_MAX;
	int r;

	if (t->err)
		return t->err;
	if (!t->s)
		return send_plain(t, p, n, more);
	if (t->out_tail - t->out_head >= OUT_ENOUGH) {
		r = tls_flush(t);
		if (r < 0)
			return r == -EAGAIN ? 0 : r;
	}
	if (n > OUT_ENOUGH)
		n = OUT_ENOUGH;
	for (; done < n; done += r) {
		r = encrypt(t, (const uint8_t *)p + done, n - done < max ? n - done : max);
		if (r < 0)
			return r;
	}
	if (!more || t->out_tail - t->out_head >= OUT_WORTH) {
		r = tls_flush(t);
		if (r < 0 && r != -EAGAIN)
			return r;
	}
	return done;
}

bool tls_unsent(const struct tls *t)
{
	return t->out_head < t->out_tail;
}

/* our own direction may still be of use */
static int closed(struct tls *t)
{
	t->closed = true;
	snprintf(t->error, sizeof(t->error), "closed the link");
	return -EPIPE;
}

static ssize_t recv_plain(struct tls *t, void *p, size_t n)
{
	ssize_t r = recv(t->fd, p, n, MSG_DONTWAIT);

	if (r < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : fail_io(t, -errno);
	return r ? r : closed(t);
}

/* One record, or what is left of one. As tls_recv(). */
static ssize_t recv_record(struct tls *t, void *p, size_t n)
{
	ssize_t r;

	do
		r = gnutls_record_recv(t->s, p, n);
	while (retry(r));
	if (r > 0)
		return r;
	if (r == 0)
		return closed(t);
	if (r == GNUTLS_E_AGAIN)
		return 0;
	fail_gnutls(t, r);
	if (t->err == -EBADMSG) { /* the other side's log is to say it, too */
		gnutls_alert_send(t->s, GNUTLS_AL_FATAL, GNUTLS_A_BAD_RECORD_MAC);
		flush_out(t);
	}
	return t->err;
}

ssize_t tls_recv(struct tls *t, void *p, size_t n)
{
	size_t got = 0;
	ssize_t r;

	/* an error that was found behind data is told after them */
	if (t->err || t->closed)
		return t->err ? t->err : -EPIPE;
	if (!t->s)
		return recv_plain(t, p, n);
	while (got < n) {
		/* a record that would not fit whole stays with the kernel */
		if (got && n - got < RECORD_MAX && !t->in && !gnutls_record_check_pending(t->s))
			break;
		r = recv_record(t, (uint8_t *)p + got, n - got);
		if (r <= 0)
			return got ? (ssize_t)got : r;
		got += r;
	}
	return got;
}

bool tls_pending(const struct tls *t)
{
	return t->s && !t->err && !t->closed && (gnutls_record_check_pending(t->s) || t->in_head < t->in_tail);
}

int tls_bye(struct tls *t)
{
	if (!t->s || t->err)
		return t->err;
	gnutls_bye(t->s, GNUTLS_SHUT_WR);
	return tls_flush(t);
}
