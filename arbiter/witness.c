/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * witness.c - see witness.h
 *
 * Theory of operation: one thread, one loop. A connection is one line in, one line out (witness_proto.h), in
 * CLIENT_S seconds at most; so many at a time, and so many of one address, that one that talks nonsense or
 * nothing does not keep out the others for long. A claim that is won is on stable storage before it is
 * answered (witness_state.c); the loop waits for that.
 *
 * With keys, the name that came with the key (psk: the user; x509: the common name) says which VM may be asked
 * for: that of the same name, or those that the file --access lists. What is refused says nothing of the state.
 *
 * SIGTERM: no new connections, those there are get their answers, within CLIENT_S.
 */
#include "arbiter/witness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arbiter/arbiter.h"
#include "arbiter/witness_proto.h"
#include "arbiter/witness_state.h"
#include "common/log.h"
#include "common/tls.h"

#define CLIENTS_MAX 128
#define CLIENTS_OF_ONE 32
#define CLIENT_S 5
#define LINES_A_SECOND 20 /* in the log, of refusals */
#define ACCESS_MAX 1024

enum stage { HANDSHAKE, READING, WRITING, CLOSING };

struct client {
	int fd;               /* -1: free */
	enum stage stage;
	struct tls *tls;
	struct in6_addr from; /* IPv4: mapped */
	char name[INET6_ADDRSTRLEN];
	uint64_t until_ms;
	char line[WITNESS_LINE_MAX];
	size_t len;
};

struct access {
	char key[64], vm[ARBITER_NAME_MAX];
};

static struct {
	struct witness_state state;
	enum tls_mode mode;
	struct tls_creds *creds;
	struct access access[ACCESS_MAX];
	unsigned int n_access;
	struct client client[CLIENTS_MAX];
	int listen_fd, signal_fd;
	bool stopping;
	uint64_t log_second;
	unsigned int log_lines;
} w;

/* --- log: strangers cannot fill the disk with it --- */

__attribute__((format(printf, 2, 3))) static void complain(const struct client *c, const char *fmt, ...)
{
	uint64_t second = arbiter_now_ms() / 1000;
	char text[400];
	va_list ap;

	if (second != w.log_second && w.log_lines > LINES_A_SECOND)
		log_warn("%u more lines like these", w.log_lines - LINES_A_SECOND);
	if (second != w.log_second)
		w.log_lines = 0;
	w.log_second = second;
	if (++w.log_lines > LINES_A_SECOND)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_warn("%s: %s", c->name, text);
}

/* --- requests --- */

static bool may_ask(const char *key, const char *vm)
{
	unsigned int i;

	if (w.mode == TLS_OFF || !strcmp(key, vm))
		return true;
	for (i = 0; i < w.n_access; i++)
		if (!strcmp(w.access[i].key, key) && !strcmp(w.access[i].vm, vm))
			return true;
	return false;
}

__attribute__((format(printf, 2, 3))) static void say(struct client *c, const char *fmt, ...)
{
	size_t n = strlen(WITNESS_HELLO);
	va_list ap;

	memcpy(c->line, WITNESS_HELLO, n);
	va_start(ap, fmt);
	vsnprintf(c->line + n, sizeof(c->line) - n - 1, fmt, ap);
	va_end(ap);
	strcat(c->line, "\n");
	c->len = strlen(c->line);
	c->stage = WRITING;
}

static void say_record(struct client *c, const char *word, const struct arbiter_record *r)
{
	say(c, "%s %" PRIu64 " %s", word, r->generation, r->owner);
}

static void store(struct client *c, const struct witness_request *q)
{
	struct arbiter_record r = { .generation = q->generation };
	int e;

	snprintf(r.owner, sizeof(r.owner), "%s", q->host);
	e = witness_state_put(&w.state, q->vm, &r);
	if (e < 0) {
		log_error("VM %s: generation %" PRIu64 " for %s cannot be stored in %s: %s", q->vm, q->generation, q->host,
			  w.state.dir, strerror(-e));
		say(c, "refused it cannot be stored: %s", strerror(-e));
		return;
	}
	log_info("VM %s: %s has generation %" PRIu64 " (asked from %s)", q->vm, q->host, q->generation, c->name);
	say_record(c, "won", &r);
}

static void claim(struct client *c, const struct witness_request *q)
{
	struct arbiter_record r = witness_state_get(&w.state, q->vm);

	switch (record_judge(&r, q->generation, q->host)) {
	case ARBITER_OPEN: store(c, q); break;
	case ARBITER_WON: say_record(c, "won", &r); break;
	default:
		log_info("VM %s: %s does not get generation %" PRIu64 ": %s has %" PRIu64, q->vm, q->host, q->generation,
			 r.owner, r.generation);
		say_record(c, "lost", &r);
	}
}

static void handle(struct client *c)
{
	struct witness_request q;
	struct arbiter_record r;

	if (!witness_parse_request(c->line, &q)) {
		complain(c, "what it says is no request");
		say(c, "refused no such request; this is colo %s", COLO_VERSION);
	} else if (!may_ask(tls_peer(c->tls), q.vm)) {
		complain(c, "the key of '%s' is not for VM %s", tls_peer(c->tls), q.vm);
		say(c, "refused the key of '%.63s' is not for VM %s", tls_peer(c->tls), q.vm);
	} else if (q.op == ARBITER_CLAIM) {
		claim(c, &q);
	} else {
		r = witness_state_get(&w.state, q.vm);
		if (r.generation)
			say_record(c, "record", &r);
		else
			say(c, "none");
	}
}

/* --- connections --- */

static void drop(struct client *c)
{
	tls_free(c->tls);
	close(c->fd);
	*c = (struct client){ .fd = -1 };
}

static void read_line(struct client *c)
{
	char *end = NULL;
	ssize_t n;

	do {
		n = tls_recv(c->tls, c->line + c->len, sizeof(c->line) - 1 - c->len);
		if (n < 0) {
			if (c->len || w.mode != TLS_OFF)
				complain(c, "%s", tls_error(c->tls));
			drop(c);
			return;
		}
		c->len += n;
		c->line[c->len] = 0;
		end = memchr(c->line, '\n', c->len);
	} while (n > 0 && !end && c->len < sizeof(c->line) - 1);
	if (end && strlen(c->line) < (size_t)(end - c->line))
		c->line[0] = 0; /* no text */
	else if (end)
		*end = 0;
	else if (c->len == sizeof(c->line) - 1)
		c->line[0] = 0; /* too long to be a request */
	else
		return;
	c->len = 0;
	handle(c);
}

static void handshake(struct client *c)
{
	int r = tls_handshake(c->tls);

	if (r == -EAGAIN)
		return;
	if (r == 0) {
		c->stage = READING;
		c->len = 0;
		return;
	}
	complain(c, "%s", tls_error(c->tls));
	tls_flush(c->tls); /* its alert, if it goes at once */
	drop(c);
}

static void write_line(struct client *c)
{
	ssize_t n = c->len ? tls_send(c->tls, c->line, c->len, false) : tls_flush(c->tls);

	if (n < 0 && n != -EAGAIN) {
		drop(c);
		return;
	}
	if (n > 0) {
		c->len -= n;
		memmove(c->line, c->line + n, c->len);
	}
	if (c->len || tls_unsent(c->tls))
		return;
	tls_bye(c->tls);
	tls_flush(c->tls);
	shutdown(c->fd, SHUT_WR);
	c->stage = CLOSING;
}

/* The client closes; a close from here could take the answer away from it. */
static void wait_for_end(struct client *c)
{
	char rest[64];
	ssize_t n = recv(c->fd, rest, sizeof(rest), MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN))
		drop(c);
}

static void progress(struct client *c)
{
	if (c->stage == HANDSHAKE)
		handshake(c);
	if (c->fd >= 0 && c->stage == READING)
		read_line(c);
	if (c->fd >= 0 && c->stage == WRITING)
		write_line(c);
	if (c->fd >= 0 && c->stage == CLOSING)
		wait_for_end(c);
}

static void set_from(struct client *c, const struct sockaddr_storage *from)
{
	const struct sockaddr_in *v4 = (const void *)from;

	if (from->ss_family == AF_INET) {
		c->from.s6_addr[10] = c->from.s6_addr[11] = 0xff;
		memcpy(&c->from.s6_addr[12], &v4->sin_addr, 4);
		inet_ntop(AF_INET, &v4->sin_addr, c->name, sizeof(c->name));
	} else {
		c->from = ((const struct sockaddr_in6 *)from)->sin6_addr;
		inet_ntop(AF_INET6, &c->from, c->name, sizeof(c->name));
	}
}

/* a free place; NULL: all, or all that one address may have, are taken */
static struct client *place(const struct client *like)
{
	struct client *found = NULL;
	unsigned int i, same = 0;

	for (i = 0; i < CLIENTS_MAX; i++)
		if (w.client[i].fd < 0)
			found = &w.client[i];
		else
			same += !memcmp(&w.client[i].from, &like->from, sizeof(like->from));
	return same < CLIENTS_OF_ONE ? found : NULL;
}

static void on_connection(void)
{
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);
	struct client new = { .stage = HANDSHAKE, .until_ms = arbiter_now_ms() + CLIENT_S * 1000 }, *c;

	new.fd = accept4(w.listen_fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (new.fd < 0)
		return;
	set_from(&new, &from);
	c = place(&new);
	new.tls = c ? tls_new(w.creds, new.fd, TLS_SERVER) : NULL;
	if (!new.tls) {
		complain(&new, "too many connections");
		close(new.fd);
		return;
	}
	*c = new;
	progress(c);
}

/* --- the loop --- */

static short events_of(const struct client *c)
{
	if (c->stage == HANDSHAKE)
		return tls_events(c->tls);
	return c->stage == WRITING ? POLLOUT : POLLIN;
}

/* Returns ms until the next of them has had its time, -1: there is none. */
static int overdue(void)
{
	uint64_t now = arbiter_now_ms();
	int next = -1;
	unsigned int i;

	for (i = 0; i < CLIENTS_MAX; i++) {
		struct client *c = &w.client[i];

		if (c->fd >= 0 && c->until_ms <= now) {
			if (c->stage != CLOSING)
				complain(c, "was too slow");
			drop(c);
		}
		if (c->fd >= 0 && (next < 0 || (int)(c->until_ms - now) < next))
			next = (int)(c->until_ms - now);
	}
	return next;
}

static void round_of_loop(int limit)
{
	struct pollfd p[2 + CLIENTS_MAX] = {
		{ .fd = w.signal_fd, .events = POLLIN }, { .fd = w.stopping ? -1 : w.listen_fd, .events = POLLIN },
	};
	struct signalfd_siginfo info;
	unsigned int i;

	for (i = 0; i < CLIENTS_MAX; i++)
		p[2 + i] = (struct pollfd){ .fd = w.client[i].fd, .events = w.client[i].fd < 0 ? 0 : events_of(&w.client[i]) };
	if (poll(p, 2 + CLIENTS_MAX, limit) <= 0)
		return;
	for (i = 0; i < CLIENTS_MAX; i++)
		if (p[2 + i].fd >= 0 && p[2 + i].revents)
			progress(&w.client[i]);
	if (p[1].revents)
		on_connection();
	if (p[0].revents && read(w.signal_fd, &info, sizeof(info)) == sizeof(info)) {
		log_info("signal %u: stopping", info.ssi_signo);
		w.stopping = true;
	}
}

static void loop(void)
{
	int limit;

	for (;;) {
		limit = overdue();
		if (w.stopping && limit < 0)
			return;
		round_of_loop(limit);
	}
}

/* --- start --- */

static int start_listening(const struct witness_options *o)
{
	char host[256], error[300];
	struct addrinfo *ai;
	int one = 1, r = -1;

	if (witness_resolve(o->listen, true, host, &ai, error, sizeof(error)) < 0) {
		log_error("--listen: %s", error);
		return -1;
	}
	if (!o->tls && !witness_is_loopback(host)) {
		log_error("--listen: whoever reaches %s could decide which host serves: say --tls psk or --tls x509 with "
			  "--tls-dir, or --tls off to do without keys", o->listen);
		freeaddrinfo(ai);
		return -1;
	}
	w.listen_fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (w.listen_fd >= 0 && setsockopt(w.listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
	    bind(w.listen_fd, ai->ai_addr, ai->ai_addrlen) == 0)
		r = listen(w.listen_fd, CLIENTS_MAX);
	if (r < 0)
		log_error("--listen: %s: %s", o->listen, strerror(errno));
	freeaddrinfo(ai);
	return r;
}

static int read_access(const char *path)
{
	char line[512], *word, *save, key[64];
	FILE *f = fopen(path, "re");

	if (!f) {
		log_error("--access: %s: %s", path, strerror(errno));
		return -1;
	}
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "#\n")] = 0;
		word = strtok_r(line, " \t", &save);
		snprintf(key, sizeof(key), "%s", word ? word : "");
		while (word && (word = strtok_r(NULL, " \t", &save)) && w.n_access < ACCESS_MAX) {
			if (!record_is_name(word)) {
				log_error("--access: %s: '%s' is not the name of a VM", path, word);
				fclose(f);
				return -1;
			}
			strcpy(w.access[w.n_access].key, key);
			strcpy(w.access[w.n_access++].vm, word);
		}
	}
	fclose(f);
	return 0;
}

static int load_keys(const struct witness_options *o)
{
	char error[300];

	w.mode = !o->tls || !strcmp(o->tls, "off") ? TLS_OFF : !strcmp(o->tls, "psk") ? TLS_PSK : TLS_X509;
	if (w.mode == TLS_X509 && strcmp(o->tls, "x509")) {
		log_error("--tls: '%s' is none of psk, x509, off", o->tls);
		return -1;
	}
	if (w.mode != TLS_OFF && !o->tls_dir) {
		log_error("--tls %s needs --tls-dir", o->tls);
		return -1;
	}
	if (tls_creds_load(&w.creds, w.mode, TLS_SERVER, o->tls_dir, NULL, error, sizeof(error)) == 0)
		return 0;
	log_error("--tls-dir: %s", error);
	return -1;
}

static int catch_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	w.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return w.signal_fd < 0 ? -1 : 0;
}

int witness_run(const struct witness_options *o)
{
	char error[400];
	unsigned int i;

	log_set_context("-", "witness", 0);
	for (i = 0; i < CLIENTS_MAX; i++)
		w.client[i].fd = -1;
	if (load_keys(o) < 0 || (o->access && read_access(o->access) < 0))
		return 1;
	if (witness_state_open(&w.state, o->state, o->fresh, error, sizeof(error)) < 0) {
		log_error("--state: %s", error);
		return 1;
	}
	if (start_listening(o) < 0 || catch_signals() < 0)
		return 1;
	log_info("witness on %s, state of %zu VMs in %s%s", o->listen, w.state.n, o->state,
		 w.mode == TLS_OFF ? ", without keys" : "");
	loop();
	witness_state_close(&w.state);
	tls_creds_free(w.creds);
	log_info("ended");
	return 0;
}
