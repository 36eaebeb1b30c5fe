/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * witness_client.c - the arbiter `witness`: a `colo witness` on a third machine
 *
 * A connection for each request: it is nothing to keep alive, to time out or to mistrust after the witness
 * was restarted. Who does not acknowledge within CONNECT_MS is given up; one that only takes long to
 * answer has until the deadline, since a late "won" is as good as an early one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arbiter/arbiter.h"
#include "arbiter/witness_proto.h"
#include "common/tls.h"

#define CONNECT_MS 1500

static const enum tls_mode modes[] = {
	[ARBITER_TLS_OFF] = TLS_OFF, [ARBITER_TLS_PSK] = TLS_PSK, [ARBITER_TLS_X509] = TLS_X509,
};

static int finish_connect(struct arbiter *a, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t size = sizeof(int);
	int e = 0, r = poll(&p, 1, (int)arbiter_left_ms(a, CONNECT_MS));

	if (r == 0)
		return -ETIMEDOUT;
	return r < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &size) < 0 ? -errno : -e;
}

static int connect_one(struct arbiter *a, const struct addrinfo *ai)
{
	unsigned int ms = CONNECT_MS;
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, r = 0;

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0)
		r = errno == EINPROGRESS ? finish_connect(a, fd) : -errno;
	if (!r)
		return fd;
	close(fd);
	return r;
}

static int connect_any(struct arbiter *a, char host[256])
{
	struct addrinfo *list, *ai;
	int r = witness_resolve(a->cfg->address, false, host, &list, a->error, sizeof(a->error));

	if (r < 0)
		return r;
	for (ai = list, r = -ETIMEDOUT; ai && r < 0; ai = ai->ai_next)
		r = connect_one(a, ai);
	freeaddrinfo(list);
	return r < 0 ? arbiter_unknown(a, r, "the witness %s cannot be reached: %s", a->cfg->address, strerror(-r)) : r;
}

static int failed(struct arbiter *a, struct tls *t, int r)
{
	if (r == -ETIMEDOUT)
		return arbiter_unknown(a, r, "the witness %s does not answer", a->cfg->address);
	return arbiter_unknown(a, r, "the witness %s: %s", a->cfg->address, tls_error(t));
}

/* The line that it answers, without newline. */
static int exchange(struct arbiter *a, struct tls *t, const char *host, const char *request, char *line, size_t size)
{
	uint64_t deadline_ns = a->deadline_ms * 1000000;
	size_t n = 0;
	ssize_t r = tls_handshake_by(t, deadline_ns);

	if (r < 0)
		return failed(a, t, r);
	if (!tls_peer_is(t, host))
		return arbiter_unknown(a, -EACCES, "the witness %s shows a certificate for %s", a->cfg->address, tls_peer(t));
	r = tls_send_all(t, request, strlen(request), deadline_ns);
	if (r < 0)
		return failed(a, t, r);
	do {
		r = tls_recv_some(t, line + n, size - 1 - n, deadline_ns);
		if (r < 0)
			return failed(a, t, r);
		n += r;
		line[n] = 0;
	} while (!memchr(line, '\n', n) && n < size - 1);
	if (strcspn(line, "\n") != n - 1)
		return arbiter_unknown(a, -EBADMSG, "what answers at %s is not a witness", a->cfg->address);
	line[n - 1] = 0;
	return 0;
}

static int ask(struct arbiter *a, const char *request, char *line, size_t size)
{
	struct tls_creds *creds;
	char host[256], why[200];
	struct tls *t;
	int fd, r;

	if (tls_creds_load(&creds, modes[a->cfg->tls], TLS_CLIENT, a->cfg->tls_dir, a->cfg->username, why,
			   sizeof(why)) < 0)
		return arbiter_unknown(a, -EACCES, "[arbiter] tls-dir: %s", why);
	fd = connect_any(a, host);
	t = fd >= 0 ? tls_new(creds, fd, TLS_CLIENT) : NULL;
	if (t)
		r = exchange(a, t, host, request, line, size);
	else
		r = fd < 0 ? fd : arbiter_unknown(a, -ENOMEM, "no memory");
	tls_free(t);
	if (fd >= 0)
		close(fd);
	tls_creds_free(creds);
	return r;
}

static void printable(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 32 || (unsigned char)*s > 126)
			*s = '?';
}

/* kind: what of the answers that are no refusal came */
static int ask_witness(struct arbiter *a, const char *request, char kind[8], struct arbiter_record *r)
{
	char line[WITNESS_LINE_MAX];
	const char *text = "";
	int e = ask(a, request, line, sizeof(line));

	if (e < 0)
		return e;
	printable(line);
	if (!witness_parse_answer(line, kind, r, &text))
		return arbiter_unknown(a, -EBADMSG, "what answers at %s is not a witness: '%.80s'", a->cfg->address, line);
	if (!strcmp(kind, "refused"))
		return arbiter_unknown(a, -EACCES, "the witness %s refuses: %s", a->cfg->address, text);
	return 0;
}

static int witness_read(struct arbiter *a, struct arbiter_record *r)
{
	char request[WITNESS_LINE_MAX], kind[8];
	int e;

	snprintf(request, sizeof(request), WITNESS_HELLO "read %s\n", a->cfg->vm);
	e = ask_witness(a, request, kind, r);
	if (e < 0 || !strcmp(kind, "none") || !strcmp(kind, "record"))
		return e;
	return arbiter_unknown(a, -EBADMSG, "the witness %s answers '%s' to a question", a->cfg->address, kind);
}

static int witness_claim(struct arbiter *a, uint64_t generation, struct arbiter_record *r)
{
	char request[WITNESS_LINE_MAX], kind[8];
	int e, judged;

	snprintf(request, sizeof(request), WITNESS_HELLO "claim %s %s %" PRIu64 "\n", a->cfg->vm, a->cfg->node, generation);
	e = ask_witness(a, request, kind, r);
	if (e < 0)
		return e;
	judged = record_judge(r, generation, a->cfg->node);
	if ((judged == ARBITER_WON && !strcmp(kind, "won")) || (judged == ARBITER_LOST && !strcmp(kind, "lost")))
		return judged;
	return arbiter_unknown(a, -EBADMSG, "the witness %s answers '%s' with a record that does not fit the claim",
			       a->cfg->address, kind);
}

const struct arbiter_backend arbiter_witness = { witness_read, witness_claim };
