/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_tls.c - sessions of common/tls: who is let in, who is turned away and with which words, and what becomes
 * of a stream that somebody on the wire cuts, changes or plays again
 *
 * The two ends are on two socketpairs; what the wire does between them is done here, byte by byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/tls.h"
#include "common/wire.h"

#define LIMIT_NS 10000000000ull
#define KEY_1 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define KEY_2 "f0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char top[] = "/tmp/colo-test-tls-XXXXXX";

/* --- files --- */

static const char *dir_of(const char *name)
{
	static char path[4][200];
	static unsigned int i;
	char *p = path[i++ % 4];

	snprintf(p, 200, "%s/%s", top, name);
	mkdir(p, 0700);
	return p;
}

static void write_file(const char *dir, const char *name, const char *text, mode_t mode)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

static const char *psk_dir(const char *name, const char *line)
{
	const char *dir = dir_of(name);

	write_file(dir, "keys.psk", line, 0600);
	return dir;
}

static void shell(const char *fmt, ...)
{
	char command[2000];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

/* dates: lines of a certtool template */
static const char *x509_dir(const char *name, const char *ca, const char *cn, const char *dates)
{
	const char *dir = dir_of(name), *end;

	shell("cd %s && cp ../%s/ca-cert.pem . && for end in server client; do "
	      "printf 'cn=%s\\ndns_name=%s\\nsigning_key\\n%s\\n%%s\\n' $( [ $end = server ] && echo tls_www_server || echo "
	      "tls_www_client ) >t && "
	      "certtool --generate-privkey --ecc --outfile $end-key.pem 2>/dev/null && "
	      "certtool --generate-certificate --load-privkey $end-key.pem --load-ca-certificate ../%s/ca-cert.pem "
	      "--load-ca-privkey ../%s/ca-key.pem --template t --outfile $end-cert.pem 2>/dev/null; done",
	      dir, ca, cn, cn, dates, ca, ca);
	end = dir;
	return end;
}

static void make_ca(const char *name)
{
	shell("cd %s && printf 'cn=ca\\nca\\ncert_signing_key\\nexpiration_days=100\\n' >t && "
	      "certtool --generate-privkey --ecc --outfile ca-key.pem 2>/dev/null && "
	      "certtool --generate-self-signed --load-privkey ca-key.pem --template t --outfile ca-cert.pem 2>/dev/null",
	      dir_of(name));
}

static int make_files(void **state)
{
	if (system("certtool --version >/dev/null 2>&1"))
		exit(77);
	assert_non_null(mkdtemp(top));
	psk_dir("one", "colo:" KEY_1 "\n");
	psk_dir("two", "colo:" KEY_2 "\n");
	psk_dir("other-user", "eve:" KEY_1 "\n");
	make_ca("ca");
	make_ca("ca2");
	x509_dir("a", "ca", "a", "expiration_days=90");
	x509_dir("b", "ca", "b", "expiration_days=90");
	x509_dir("foreign", "ca2", "b", "expiration_days=90");
	x509_dir("expired", "ca", "b", "activation_date=\"2020-01-01 00:00:00\"\\nexpiration_date=\"2021-01-01 00:00:00\"");
	x509_dir("early", "ca", "b", "activation_date=\"2090-01-01 00:00:00\"\\nexpiration_date=\"2091-01-01 00:00:00\"");
	return 0;
}

static int remove_files(void **state)
{
	shell("rm -rf %s", top);
	return 0;
}

/* --- a pair and the wire between them --- */

struct end {
	struct tls_creds *creds;
	struct tls *t;
	int fd, wire;
};

struct pair {
	struct end client, server;
	uint8_t seen[2][1 << 20]; /* what the wire carried: to the server, to the client */
	size_t n[2];
	size_t flip_at;           /* of what goes to the server: byte to be changed; 0: none */
	size_t cut_at;            /* where the stream to the server ends; 0: nowhere */
};

static void open_end(struct end *e, enum tls_end which, enum tls_mode mode, const char *dir)
{
	char error[300];
	int sv[2];

	memset(e, 0, sizeof(*e));
	if (tls_creds_load(&e->creds, mode, which, dir ? dir : "", "colo", error, sizeof(error)) < 0 &&
	    tls_creds_load(&e->creds, mode, which, dir, "eve", error, sizeof(error)) < 0)
		fail_msg("%s", error);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), 0);
	e->fd = sv[0];
	e->wire = sv[1];
	e->t = tls_new(e->creds, e->fd, which);
	assert_non_null(e->t);
}

static void close_end(struct end *e)
{
	tls_free(e->t);
	tls_creds_free(e->creds);
	close(e->fd);
	close(e->wire);
}

static struct pair *pair_new(enum tls_mode mode, const char *client, const char *server)
{
	struct pair *p = calloc(1, sizeof(*p));

	open_end(&p->client, TLS_CLIENT, mode, client);
	open_end(&p->server, TLS_SERVER, mode, server);
	return p;
}

static void pair_free(struct pair *p)
{
	close_end(&p->client);
	close_end(&p->server);
	free(p);
}

static void carry(struct pair *p, int way, int from, int to)
{
	uint8_t b[4096];
	size_t at = p->n[way];
	ssize_t n = recv(from, b, sizeof(b), MSG_DONTWAIT);

	if (n <= 0)
		return;
	if (way == 0 && p->flip_at > at && p->flip_at - at <= (size_t)n)
		b[p->flip_at - at - 1] ^= 1;
	if (way == 0 && p->cut_at && at + n >= p->cut_at)
		n = p->cut_at > at ? p->cut_at - at : 0;
	if (at + n <= sizeof(p->seen[0]))
		memcpy(p->seen[way] + at, b, n);
	p->n[way] += n;
	if (send(to, b, n, MSG_NOSIGNAL) != n && n)
		fail_msg("the wire is full");
	if (way == 0 && p->cut_at && p->n[0] >= p->cut_at)
		shutdown(to, SHUT_WR);
}

static void pump(struct pair *p)
{
	int i;

	for (i = 0; i < 8; i++) {
		carry(p, 0, p->client.wire, p->server.wire);
		carry(p, 1, p->server.wire, p->client.wire);
	}
}

/* both: until neither gets on */
static void shake(struct pair *p, int *client, int *server)
{
	int i;

	*client = *server = -EAGAIN;
	for (i = 0; i < 50; i++) {
		if (*client == -EAGAIN || *client == 0) /* to ask again does no harm */
			*client = tls_handshake(p->client.t);
		pump(p);
		if (*server == -EAGAIN || *server == 0)
			*server = tls_handshake(p->server.t);
		pump(p);
	}
	if (!*client && !*server)
		assert_true(p->n[0] < 3000 && p->n[1] < 3000);
}

static struct pair *linked(enum tls_mode mode, const char *client, const char *server)
{
	struct pair *p = pair_new(mode, client, server);
	int c, s;

	shake(p, &c, &s);
	if (c || s)
		fail_msg("client %d %s, server %d %s", c, tls_error(p->client.t), s, tls_error(p->server.t));
	return p;
}

static void say(struct pair *p, struct end *from, struct end *to, const char *text)
{
	char got[100] = "";
	ssize_t n = 0;
	int i;

	assert_int_equal(tls_send(from->t, text, strlen(text), false), strlen(text));
	for (i = 0; i < 10 && !n; i++) {
		pump(p);
		n = tls_recv(to->t, got, sizeof(got));
	}
	assert_int_equal(n, strlen(text));
	assert_string_equal(got, text);
}

static void test_talk(void **state)
{
	struct pair *p[] = {
		linked(TLS_OFF, NULL, NULL),
		linked(TLS_PSK, dir_of("one"), dir_of("one")),
		linked(TLS_X509, dir_of("a"), dir_of("b")),
	};
	size_t i, k;

	for (i = 0; i < 3; i++) {
		say(p[i], &p[i]->client, &p[i]->server, "the master key of the guest");
		say(p[i], &p[i]->server, &p[i]->client, "answer");
		for (k = 0; i && k + 6 < p[i]->n[0]; k++)
			assert_memory_not_equal(p[i]->seen[0] + k, "master", 6);
	}
	assert_string_equal(tls_peer(p[1]->server.t), "colo");
	assert_string_equal(tls_peer(p[1]->client.t), "colo");
	assert_string_equal(tls_peer(p[2]->server.t), "a");
	assert_string_equal(tls_peer(p[2]->client.t), "b");
	assert_true(tls_peer_is(p[2]->client.t, "b"));
	assert_false(tls_peer_is(p[2]->client.t, "a"));
	for (i = 0; i < 3; i++)
		pair_free(p[i]);
}

/* Both ends must fail, or the server must before it has given the client a byte of data. */
static void refused(enum tls_mode mode, const char *client, const char *server, const char *server_says,
		    const char *client_says)
{
	struct pair *p = pair_new(mode, client, server);
	char byte;
	int c, s;

	shake(p, &c, &s);
	if (s == 0) { /* what the client does not accept is told by its alert */
		assert_int_not_equal(c, 0);
		s = tls_recv(p->server.t, &byte, 1);
	}
	if (c == 0)
		c = tls_recv(p->client.t, &byte, 1);
	print_message("server %d: %s\nclient %d: %s\n", s, tls_error(p->server.t), c, tls_error(p->client.t));
	assert_int_equal(s, -EACCES);
	assert_int_equal(c, -EACCES);
	assert_non_null(strstr(tls_error(p->server.t), server_says));
	assert_non_null(strstr(tls_error(p->client.t), client_says));
	pair_free(p);
}

static void test_wrong_key(void **state)
{
	refused(TLS_PSK, dir_of("two"), dir_of("one"), "its key is not ours", "it has another key for our user");
}

static void test_unknown_user(void **state)
{
	refused(TLS_PSK, dir_of("other-user"), dir_of("one"), "user 'eve' is not in our keys.psk", "it does not know our user");
}

static void test_certificates(void **state)
{
	refused(TLS_X509, dir_of("expired"), dir_of("a"), "its certificate has expired", "our certificate");
	refused(TLS_X509, dir_of("early"), dir_of("a"), "its certificate is not valid yet", "our certificate");
	refused(TLS_X509, dir_of("a"), dir_of("expired"), "our certificate", "its certificate has expired");
	refused(TLS_X509, dir_of("foreign"), dir_of("a"), "it", "is not signed by our CA");
}

static void test_other_kind(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));
	int c, s;

	open_end(&p->client, TLS_CLIENT, TLS_X509, dir_of("a"));
	open_end(&p->server, TLS_SERVER, TLS_PSK, dir_of("one"));
	shake(p, &c, &s);
	print_message("server %d: %s\nclient %d: %s\n", s, tls_error(p->server.t), c, tls_error(p->client.t));
	assert_int_equal(s, -EACCES);
	assert_int_equal(c, -EACCES);
	assert_non_null(strstr(tls_error(p->server.t), "credentials in common"));
	assert_non_null(strstr(tls_error(p->client.t), "credentials in common"));
	pair_free(p);
}

static void test_plain_peer(void **state)
{
	struct pair *p = pair_new(TLS_PSK, dir_of("one"), dir_of("one"));

	assert_int_equal(send(p->server.wire, "OLOC hello", 10, 0), 10);
	assert_int_equal(tls_handshake(p->server.t), -EPROTONOSUPPORT);
	assert_string_equal(tls_error(p->server.t), "it speaks no TLS ([tls] mode = off there?)");
	assert_int_equal(tls_handshake(p->client.t), -EAGAIN);
	assert_int_equal(send(p->client.wire, "COLO", 4, 0), 4);
	assert_int_equal(tls_handshake(p->client.t), -EPROTONOSUPPORT);
	pair_free(p);
}

/* --- a hostile wire --- */

static void hostile(size_t flip, size_t cut, int error, const char *says)
{
	struct pair *p = linked(TLS_PSK, dir_of("one"), dir_of("one"));
	static const char data[3000];
	char got[4000];
	ssize_t n = 0;
	int i;

	say(p, &p->client, &p->server, "before");
	p->flip_at = flip ? p->n[0] + flip : 0;
	p->cut_at = cut ? p->n[0] + cut : 0;
	assert_int_equal(tls_send(p->client.t, data, sizeof(data), false), sizeof(data));
	for (i = 0; i < 10 && !n; i++) {
		pump(p);
		n = tls_recv(p->server.t, got, sizeof(got));
	}
	print_message("%zd: %s\n", n, tls_error(p->server.t));
	assert_int_equal(n, error);
	assert_non_null(strstr(tls_error(p->server.t), says));
	assert_int_equal(tls_recv(p->server.t, got, sizeof(got)), error < 0 ? error : -ECONNRESET);
	pair_free(p);
}

static void test_flipped(void **state)
{
	hostile(6, 0, -EBADMSG, "broken or forged");
	hostile(100, 0, -EBADMSG, "broken or forged");  /* data */
	hostile(3010, 0, -EBADMSG, "broken or forged"); /* tag */
}

static void test_cut(void **state)
{
	hostile(0, 1, -ECONNRESET, "was cut");
	hostile(0, 1500, -ECONNRESET, "was cut");
	hostile(0, 3000 + 22, 3000, ""); /* the whole record is data */
}

static void test_ends(void **state)
{
	struct pair *p = linked(TLS_PSK, dir_of("one"), dir_of("one"));
	char byte;

	assert_int_equal(tls_bye(p->client.t), 0);
	pump(p);
	assert_int_equal(tls_recv(p->server.t, &byte, 1), -EPIPE);
	say(p, &p->server, &p->client, "the other way stays open");
	close(p->client.wire);
	p->client.wire = -1;
	assert_int_equal(tls_recv(p->client.t, &byte, 1), -ECONNRESET);
	pair_free(p);
}

/* All that a client sent once, sent again to the same server. */
static void test_replay(void **state)
{
	struct pair *p = linked(TLS_PSK, dir_of("one"), dir_of("one"));
	struct pair *again = pair_new(TLS_PSK, dir_of("one"), dir_of("one"));
	int i, r = -EAGAIN;
	char got[100];

	say(p, &p->client, &p->server, "take over");
	assert_int_equal(send(again->server.wire, p->seen[0], p->n[0], 0), p->n[0]);
	for (i = 0; i < 10 && r == -EAGAIN; i++)
		r = tls_handshake(again->server.t);
	print_message("%d: %s\n", r, tls_error(again->server.t));
	assert_true(r < 0 && r != -EAGAIN);
	assert_true(tls_recv(again->server.t, got, sizeof(got)) < 0);
	/* and the server's own part, to a client */
	r = -EAGAIN;
	assert_int_equal(tls_handshake(again->client.t), -EAGAIN);
	assert_int_equal(send(again->client.wire, p->seen[1], p->n[1], 0), p->n[1]);
	for (i = 0; i < 10 && r == -EAGAIN; i++)
		r = tls_handshake(again->client.t);
	assert_true(r < 0 && r != -EAGAIN);
	pair_free(again);
	pair_free(p);
}

/* a record that was sent once, sent again in the same session */
static void test_replayed_record(void **state)
{
	struct pair *p = linked(TLS_PSK, dir_of("one"), dir_of("one"));
	size_t from = p->n[0];
	char got[100];

	say(p, &p->client, &p->server, "once");
	assert_int_equal(send(p->server.wire, p->seen[0] + from, p->n[0] - from, 0), p->n[0] - from);
	assert_int_equal(tls_recv(p->server.t, got, sizeof(got)), -EBADMSG);
	pair_free(p);
}

/* --- much data --- */

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

/* of those on the wire, as far as it remembers, after the handshake: how many are longer than some */
static unsigned int long_records(const struct pair *p, size_t than)
{
	const uint8_t *r = p->seen[0] + 1000, *end = p->seen[0] + sizeof(p->seen[0]);
	unsigned int n = 0;
	size_t length;

	/* a record begins with these three; what is within one is as good as random */
	while (r + 5 < end && memcmp(r, "\x17\x03\x03", 3))
		r++;
	for (; r + 5 < end && r[0]; r += 5 + length) { /* where it forgets there are zeroes */
		length = (size_t)r[3] << 8 | r[4];
		assert_memory_equal(r, "\x17\x03\x03", 3);
		n += length > than;
	}
	return n;
}

/* in pieces of all sizes, through a wire that is often full; keys are renewed on the way */
static void much(bool ahead, bool fine, size_t read_max)
{
	struct pair *p = linked(TLS_PSK, dir_of("one"), dir_of("one"));
	size_t total = 3000000, sent = 0, got = 0, n, i;
	static uint8_t b[400000];
	unsigned int idle = 0;
	ssize_t r;

	if (ahead)
		assert_int_equal(tls_read_ahead(p->server.t), 0);
	if (fine)
		tls_set_fine(p->client.t);
	tls_set_rekey(p->client.t, fine ? 700 : 100);
	while (got < total && idle < 1000) {
		n = 1 + (sent * 7919) % sizeof(b);
		n = n < total - sent ? n : total - sent;
		for (i = 0; i < n; i++)
			b[i] = pattern(sent + i);
		r = n ? tls_send(p->client.t, b, n, sent % 3 == 0) : tls_flush(p->client.t);
		assert_true(r >= 0 || r == -EAGAIN);
		sent += r > 0 ? r : 0;
		pump(p);
		idle++;
		do {
			r = tls_recv(p->server.t, b, read_max);
			if (r < 0)
				fail_msg("%zd: %s", r, tls_error(p->server.t));
			for (i = 0; i < (size_t)r; i++)
				assert_int_equal(b[i], pattern(got + i));
			got += r;
			idle = r ? 0 : idle;
		} while (r || (ahead && tls_pending(p->server.t) && r));
	}
	assert_int_equal(got, total);
	print_message("%u long records\n", long_records(p, 3000));
	assert_true(fine ? long_records(p, 3000) < 20 : long_records(p, 3000) > 30);
	pair_free(p);
}

static void test_much(void **state)
{
	much(false, false, 300000);
	much(true, false, 300000);
	much(false, true, 300000);
	much(false, false, 1000);
	much(true, false, 40);
}

/* What is left behind by a small read is known, though the kernel has nothing. */
static void test_pending(void **state)
{
	struct pair *p = linked(TLS_PSK, dir_of("one"), dir_of("one"));
	char got[20];

	assert_int_equal(tls_send(p->client.t, "header and data", 15, false), 15);
	pump(p);
	assert_int_equal(tls_recv(p->server.t, got, 6), 6);
	assert_true(tls_pending(p->server.t));
	assert_int_equal(tls_recv(p->server.t, got, 20), 9);
	assert_false(tls_pending(p->server.t));
	pair_free(p);
}

static void test_deadline(void **state)
{
	struct end e;
	uint64_t before = clock_now_ns();
	char byte;

	open_end(&e, TLS_SERVER, TLS_PSK, dir_of("one"));
	assert_int_equal(tls_handshake_by(e.t, before + 50000000), -ETIMEDOUT);
	assert_true(clock_now_ns() - before < 5000000000ull);
	close_end(&e);
	open_end(&e, TLS_SERVER, TLS_OFF, NULL);
	assert_int_equal(tls_handshake_by(e.t, 0), 0);
	assert_int_equal(tls_recv_all(e.t, &byte, 1, clock_now_ns() + 20000000), -ETIMEDOUT);
	assert_int_equal(send(e.wire, "x", 1, 0), 1);
	assert_int_equal(tls_recv_all(e.t, &byte, 1, clock_now_ns() + LIMIT_NS), 0);
	close_end(&e);
}

/* --- files that are refused --- */

static void bad(enum tls_mode mode, unsigned int ends, const char *dir, const char *says)
{
	struct tls_creds *c = (void *)&c;
	char error[300] = "";

	assert_true(tls_creds_load(&c, mode, ends, dir, "colo", error, sizeof(error)) < 0);
	assert_null(c);
	print_message("%s\n", error);
	assert_non_null(strstr(error, says));
	assert_null(strchr(error, '\n'));
}

static void test_files(void **state)
{
	const unsigned int both = TLS_CLIENT | TLS_SERVER;
	char path[300];

	bad(TLS_PSK, both, "/nonexistent", "keys.psk: No such file");
	bad(TLS_PSK, both, dir_of("other-user"), "no user 'colo'");
	bad(TLS_PSK, both, psk_dir("x", "colo:zz\n"), "keys.psk:1: the key is not hexadecimal");
	bad(TLS_PSK, both, psk_dir("x", "\ncolo\n"), "keys.psk:2: not user:hexkey");
	bad(TLS_PSK, both, psk_dir("x", "colo:00112233\n"), "at least 16 bytes");
	bad(TLS_PSK, both, psk_dir("x", ""), "no key in it");
	snprintf(path, sizeof(path), "%s/keys.psk", psk_dir("x", "colo:" KEY_1 "\n"));
	assert_int_equal(chmod(path, 0640), 0);
	bad(TLS_PSK, both, dir_of("x"), "(mode 640): chmod 600 it");
	bad(TLS_X509, both, dir_of("x"), "ca-cert.pem: No such file");
	shell("cd %s && cp -p ../a/*.pem . && cp ../b/client-key.pem .", dir_of("mixed"));
	bad(TLS_X509, both, dir_of("mixed"), "client-cert.pem, client-key.pem");
	shell("cd %s && cp -p ../a/*.pem . && chmod 644 server-key.pem", dir_of("open"));
	bad(TLS_X509, both, dir_of("open"), "server-key.pem: others may read or write it (mode 644)");
}

static void test_warning(void **state)
{
	char error[300], text[200] = "";
	struct tls_creds *c;

	assert_int_equal(tls_creds_load(&c, TLS_X509, TLS_SERVER, dir_of("expired"), NULL, error, sizeof(error)), 0);
	assert_true(tls_creds_warning(c, text, sizeof(text)));
	assert_string_equal(text, "server-cert.pem has expired: the peer will refuse it");
	tls_creds_free(c);
	assert_int_equal(tls_creds_load(&c, TLS_X509, TLS_SERVER, dir_of("a"), NULL, error, sizeof(error)), 0);
	assert_false(tls_creds_warning(c, text, sizeof(text)));
	tls_creds_free(c);
}

/* New files count for new sessions; those there are go on with what they have. */
static void test_renewed(void **state)
{
	const char *dir = psk_dir("renewed", "colo:" KEY_1 "\n");
	struct pair *p = linked(TLS_PSK, dir, dir);
	char error[300] = "";
	int c, s;

	assert_int_equal(tls_creds_renew(&p->server.creds, error, sizeof(error)), 0);
	psk_dir("renewed", "colo:nonsense\n");
	assert_true(tls_creds_renew(&p->server.creds, error, sizeof(error)) < 0);
	assert_non_null(strstr(error, "keys.psk:1: the key is not hexadecimal"));
	assert_int_equal(tls_creds_renew(&p->server.creds, error, sizeof(error)), 0); /* said once */
	psk_dir("renewed", "colo:" KEY_2 "22\n");
	assert_int_equal(tls_creds_renew(&p->server.creds, error, sizeof(error)), 1);
	say(p, &p->client, &p->server, "the session goes on");
	tls_free(p->server.t);
	tls_free(p->client.t);
	p->server.t = tls_new(p->server.creds, p->server.fd, TLS_SERVER);
	p->client.t = tls_new(p->client.creds, p->client.fd, TLS_CLIENT);
	shake(p, &c, &s);
	assert_int_equal(s, -EACCES); /* the client has the old key */
	assert_int_equal(tls_creds_renew(&p->client.creds, error, sizeof(error)), 1);
	pair_free(p);
	pair_free(linked(TLS_PSK, dir, dir));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_talk),
		cmocka_unit_test(test_wrong_key),
		cmocka_unit_test(test_unknown_user),
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_other_kind),
		cmocka_unit_test(test_plain_peer),
		cmocka_unit_test(test_flipped),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_replay),
		cmocka_unit_test(test_replayed_record),
		cmocka_unit_test(test_much),
		cmocka_unit_test(test_pending),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_warning),
		cmocka_unit_test(test_renewed),
	};

	return cmocka_run_group_tests_name("tls", tests, make_files, remove_files);
}
