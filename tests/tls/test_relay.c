/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_relay.c - a relay hides TLS from its user and nothing else: data, ends, closes, cuts and back-pressure go
 * through
 *
 * Two users, each behind a relay; between the relays a socketpair stands for the wire.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/tls.h"
#include "common/wire.h"
#include "daemon/relay.h"

#define LIMIT_MS 10000
#define LIMIT_NS (LIMIT_MS * 1000000ull)

static char dir[] = "/tmp/colo-test-relay-XXXXXX";
static struct tls_creds *creds;

struct pair {
	struct relay *relay[2];
	int user[2];
	int wire[2];  /* the relays' own descriptors, to be shut by a hostile wire */
	int event[2];
};

static int make_key(void **state)
{
	char path[100], error[200];
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/keys.psk", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs("colo:00112233445566778899aabbccddeeff\n", f);
	fclose(f);
	assert_int_equal(chmod(path, 0600), 0);
	return tls_creds_load(&creds, TLS_PSK, TLS_CLIENT | TLS_SERVER, dir, "colo", error, sizeof(error));
}

static int remove_key(void **state)
{
	char path[100];

	tls_creds_free(creds);
	snprintf(path, sizeof(path), "%s/keys.psk", dir);
	return unlink(path) || rmdir(dir);
}

static void *shake(void *t)
{
	return (void *)(intptr_t)tls_handshake_by(t, clock_now_ns() + LIMIT_NS);
}

static struct pair open_pair(void)
{
	struct pair p;
	struct tls *t[2];
	pthread_t other;
	void *r;
	int i;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p.wire), 0);
	for (i = 0; i < 2; i++)
		t[i] = tls_new(creds, p.wire[i], i ? TLS_SERVER : TLS_CLIENT);
	assert_int_equal(pthread_create(&other, NULL, shake, t[1]), 0);
	assert_int_equal(tls_handshake_by(t[0], clock_now_ns() + LIMIT_NS), 0);
	pthread_join(other, &r);
	assert_null(r);
	for (i = 0; i < 2; i++) {
		p.event[i] = eventfd(0, EFD_CLOEXEC);
		p.relay[i] = relay_start(t[i], p.wire[i], p.event[i], &p.user[i]);
		assert_non_null(p.relay[i]);
	}
	return p;
}

static void close_pair(struct pair *p)
{
	int i;

	for (i = 0; i < 2; i++) {
		relay_free(p->relay[i]);
		close(p->event[i]);
		if (p->user[i] >= 0)
			close(p->user[i]);
	}
}

static void wait_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	if (poll(&p, 1, LIMIT_MS) != 1)
		fail_msg("waited in vain");
}

static void wait_over(struct pair *p, int i, const char *why)
{
	wait_for(p->event[i], POLLIN);
	assert_true(relay_over(p->relay[i]));
	if (!strstr(relay_error(p->relay[i]), why) || (!*why && *relay_error(p->relay[i])))
		fail_msg("'%s', not '%s'", relay_error(p->relay[i]), why);
}

static void say(struct pair *p, int from, const char *text)
{
	char got[100] = "";

	assert_int_equal(write(p->user[from], text, strlen(text)), strlen(text));
	wait_for(p->user[!from], POLLIN);
	assert_int_equal(read(p->user[!from], got, sizeof(got)), strlen(text));
	assert_string_equal(got, text);
}

static void assert_end(int fd)
{
	char byte;

	wait_for(fd, POLLIN);
	assert_int_equal(read(fd, &byte, 1), 0);
}

static void test_talk(void **state)
{
	struct pair p = open_pair();
	int i;

	for (i = 0; i < 100; i++)
		say(&p, i & 1, "there and back");
	assert_false(relay_over(p.relay[0]));
	close_pair(&p); /* from both users' view it simply ends */
}

static void test_half_close(void **state)
{
	struct pair p = open_pair();

	assert_int_equal(shutdown(p.user[0], SHUT_WR), 0);
	assert_end(p.user[1]);
	say(&p, 1, "the other way stays open");
	assert_int_equal(shutdown(p.user[1], SHUT_WR), 0);
	assert_end(p.user[0]);
	wait_over(&p, 0, "");
	wait_over(&p, 1, "");
	close_pair(&p);
}

/* What was written before the close arrives, then the end. */
static void test_close(void **state)
{
	struct pair p = open_pair();
	char got[10];

	assert_int_equal(write(p.user[0], "last", 4), 4);
	close(p.user[0]);
	p.user[0] = -1;
	wait_over(&p, 0, "");
	wait_for(p.user[1], POLLIN);
	assert_int_equal(read(p.user[1], got, sizeof(got)), 4);
	assert_end(p.user[1]);
	close_pair(&p);
}

/* Somebody cuts the connection: both users see an end at once, and the relays say that it was nobody's word. */
static void test_cut(void **state)
{
	struct pair p = open_pair();

	say(&p, 0, "before");
	shutdown(p.wire[0], SHUT_RDWR);
	assert_end(p.user[0]);
	assert_end(p.user[1]);
	wait_over(&p, 0, "closed without a farewell");
	wait_over(&p, 1, "closed without a farewell");
	assert_int_equal(send(p.user[0], "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	close_pair(&p);
}

/* Something on the wire that is no record of the session. */
static void test_forged(void **state)
{
	static const char forged[] = "\x17\x03\x03\x00\x20 this was never encrypted by anyone";
	struct pair p = open_pair();

	say(&p, 0, "before");
	assert_int_equal(send(p.wire[0], forged, 37, MSG_NOSIGNAL), 37);
	assert_end(p.user[1]);
	wait_over(&p, 1, "a record is broken or forged");
	assert_end(p.user[0]);
	wait_over(&p, 0, "was broken or forged on the way");
	close_pair(&p);
}

static size_t fill(int fd, size_t max)
{
	static const char zeroes[65536];
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	size_t n = 0;
	ssize_t r;

	while (n < max && poll(&p, 1, 300) == 1) { /* full: when nothing goes on for so long */
		r = send(fd, zeroes, sizeof(zeroes), MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r < 0 && errno != EAGAIN)
			break;
		n += r > 0 ? r : 0;
	}
	return n;
}

/* A user that does not read stops the other one from writing; nothing grows, and nothing is lost. */
static void test_back_pressure(void **state)
{
	struct pair p = open_pair();
	size_t n = fill(p.user[0], 64u << 20), got = 0;
	static char b[65536];
	ssize_t r;

	print_message("%zu bytes under way\n", n);
	assert_true(n < 8u << 20);
	assert_int_equal(write(p.user[1], "x", 1), 1); /* the other way is not held up */
	wait_for(p.user[0], POLLIN);
	shutdown(p.user[0], SHUT_WR);
	for (; got < n; got += r) {
		wait_for(p.user[1], POLLIN);
		r = read(p.user[1], b, sizeof(b));
		assert_true(r > 0);
	}
	assert_end(p.user[1]);
	close_pair(&p);
}

/* A close is not held up by what nobody reads, nor does a relay outlive its end for it. */
static void test_close_when_full(void **state)
{
	struct pair p = open_pair();
	uint64_t begin = clock_now_ns();

	fill(p.user[0], 64u << 20);
	close(p.user[1]);
	p.user[1] = -1;
	wait_over(&p, 1, "");
	fill(p.user[0], 1u << 20);
	close(p.user[0]);
	p.user[0] = -1;
	wait_for(p.event[0], POLLIN);
	assert_true(clock_now_ns() - begin < LIMIT_NS);
	close_pair(&p);
}

/* relay_free() waits for nobody. */
static void test_free_when_full(void **state)
{
	struct pair p = open_pair();
	uint64_t begin;

	fill(p.user[0], 64u << 20);
	fill(p.user[1], 64u << 20);
	begin = clock_now_ns();
	close_pair(&p);
	assert_true(clock_now_ns() - begin < 1000000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_talk),
		cmocka_unit_test(test_half_close),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_close_when_full),
		cmocka_unit_test(test_free_when_full),
	};

	return cmocka_run_group_tests_name("relay", tests, make_key, remove_key);
}
