/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * real_app.c - see real_app.h
 *
 * A request is one byte that says what to do, and four how much. What the server says depends on nothing else,
 * since two of them have to say the same.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "real_app.h"

static uint8_t pattern(uint32_t i)
{
	return (uint8_t)(i ^ i >> 8 ^ i >> 16);
}

static bool all(int fd, void *data, size_t len, bool in)
{
	uint8_t *p = data;

	while (len) {
		ssize_t n = in ? read(fd, p, len) : write(fd, p, len);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static void fill(uint8_t *p, uint32_t from, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		p[i] = pattern(from + i);
}

static bool send_pattern(int fd, uint32_t len)
{
	uint8_t chunk[16384];

	for (uint32_t n, i = 0; i < len; i += n) {
		n = len - i < sizeof(chunk) ? len - i : sizeof(chunk);
		fill(chunk, i, n);
		if (!all(fd, chunk, n, false))
			return false;
	}
	return true;
}

static bool check_pattern(int fd, uint32_t len)
{
	uint8_t chunk[16384], want[16384];

	for (uint32_t n, i = 0; i < len; i += n) {
		n = len - i < sizeof(chunk) ? len - i : sizeof(chunk);
		fill(want, i, n);
		if (!all(fd, chunk, n, true) || memcmp(chunk, want, n) != 0)
			return false;
	}
	return true;
}

static void reset(int fd)
{
	struct linger l = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(fd);
}

static void small_buffer(int fd)
{
	int n = 4096;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &n, sizeof(n));
}

static void keep_alive(int fd)
{
	int one = 1;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &one, sizeof(one));
}

/* Unlike the others these requests are a connection's last. */
static bool serve_last(int fd, uint8_t what, uint32_t n)
{
	uint8_t byte = 'k';

	switch (what) {
	case 'H': /* answer when the client has closed its half */
		if (check_pattern(fd, n) && read(fd, &byte, 1) == 0 && all(fd, &byte, 1, false))
			send_pattern(fd, n);
		return true;
	case 'R': /* reset when the client has got it all */
		if (send_pattern(fd, n) && all(fd, &byte, 1, true))
			reset(fd);
		return true;
	case 'Q': /* close first */
		send_pattern(fd, n);
		return true;
	default:
		return false;
	}
}

static bool serve_one(int fd, uint8_t what, uint32_t n)
{
	uint8_t ok = 'k';

	switch (what) {
	case 'D':
		return send_pattern(fd, n);
	case 'S': /* the window closes */
		small_buffer(fd);
		usleep(300000);
		/* fallthrough */
	case 'U':
		return check_pattern(fd, n) && all(fd, &ok, 1, false);
	case 'O':
		return send_pattern(fd, n) && send(fd, "!", 1, MSG_OOB) == 1 && send_pattern(fd, n);
	case 'K':
		keep_alive(fd);
		return true;
	default:
		return false;
	}
}

static void serve(int fd)
{
	uint8_t cmd[5];
	uint32_t n;

	while (all(fd, cmd, 5, true)) {
		memcpy(&n, cmd + 1, 4);
		if (serve_last(fd, cmd[0], n) || !serve_one(fd, cmd[0], n))
			return;
	}
}

void app_prepare_listener(int s)
{
	int queue = 16;

	setsockopt(s, IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof(queue));
}

void app_server(int s)
{
	int one = 1, fd;

	signal(SIGCHLD, SIG_IGN);
	while ((fd = accept(s, NULL, NULL)) >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			serve(fd);
			_exit(0);
		}
		close(fd);
	}
	_exit(1);
}

static struct sockaddr_in6 address_of(const char *address, int port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };

	inet_pton(AF_INET6, address, &a.sin6_addr);
	return a;
}

int app_dial(const char *address, int port)
{
	struct sockaddr_in6 a = address_of(address, port);
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	close(fd);
	return -1;
}

static bool request(int fd, char what, uint32_t n)
{
	uint8_t cmd[5] = { (uint8_t)what };

	memcpy(cmd + 1, &n, 4);
	return all(fd, cmd, 5, false);
}

bool app_ask(int fd, char what, uint32_t n)
{
	uint8_t ok;

	if (!request(fd, what, n))
		return false;
	if (what == 'D')
		return check_pattern(fd, n);
	return send_pattern(fd, n) && all(fd, &ok, 1, true) && ok == 'k';
}

/* --- odd corners: each gets a new socket, connected or not, which is closed afterwards --- */

static bool ended(int fd)
{
	uint8_t byte;

	return read(fd, &byte, 1) == 0;
}

static bool half_close(int fd)
{
	uint8_t byte;

	return request(fd, 'H', 100000) && send_pattern(fd, 100000) && shutdown(fd, SHUT_WR) == 0 &&
	       all(fd, &byte, 1, true) && byte == 'k' && check_pattern(fd, 100000) && ended(fd);
}

static bool urgent_data(int fd)
{
	int one = 1;
	uint8_t byte;

	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one));
	return send(fd, "?", 1, MSG_OOB) == 1 && request(fd, 'O', 5000) && check_pattern(fd, 5000) &&
	       all(fd, &byte, 1, true) && byte == '!' && check_pattern(fd, 5000);
}

static bool closed_window_here(int fd)
{
	if (!request(fd, 'D', 300000))
		return false;
	usleep(600000); /* the guest probes */
	return check_pattern(fd, 300000);
}

static bool closed_window_there(int fd)
{
	return app_ask(fd, 'S', 300000);
}

static bool reset_here(int fd)
{
	if (!request(fd, 'D', 1000000) || !check_pattern(fd, 100000))
		return false;
	reset(dup(fd)); /* at the last close() */
	return true;
}

static bool reset_there(int fd)
{
	uint8_t byte = 'r';

	if (!request(fd, 'R', 3000) || !check_pattern(fd, 3000) || !all(fd, &byte, 1, false))
		return false;
	return read(fd, &byte, 1) < 0; /* ECONNRESET */
}

static bool kept_alive(int fd)
{
	if (!request(fd, 'K', 0))
		return false;
	usleep(2300000);
	return app_ask(fd, 'D', 1000);
}

static bool short_ones(int fd)
{
	return app_ask(fd, 'U', 1);
}

static const struct {
	const char *name;
	bool (*talk)(int fd);
	bool small, fixed_port, fast;
} odd[] = {
	{ .name = "half-close", .talk = half_close },
	{ .name = "urgent data", .talk = urgent_data },
	{ .name = "a window closed by the client", .talk = closed_window_here, .small = true },
	{ .name = "a window closed by the guest", .talk = closed_window_there },
	{ .name = "a reset by the client", .talk = reset_here },
	{ .name = "a reset by the guest", .talk = reset_there },
	{ .name = "keep-alive", .talk = kept_alive },
	{ .name = "a port used again at once", .fixed_port = true },
	{ .name = "data on the SYN", .fast = true },
	{ .name = "many short connections", .talk = short_ones },
};
#define NODD ((int)(sizeof(odd) / sizeof(*odd)))

const char *app_odd_name(int k)
{
	return k < NODD ? odd[k].name : NULL;
}

/* the guest closes first and is left in TIME_WAIT */
static bool use_port_again(int fd, const struct sockaddr_in6 *to)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(29999) };
	int one = 1, r = 0;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return false;
	/* our last ACK of the connection before may be on its way */
	for (int i = 0; i < 500; i++) {
		r = connect(fd, (const struct sockaddr *)to, sizeof(*to));
		if (r == 0 || errno != EADDRNOTAVAIL)
			break;
		usleep(2000);
	}
	if (r < 0)
		return false;
	return request(fd, 'Q', 2000) && check_pattern(fd, 2000) && ended(fd);
}

/* the first time the kernel asks for a cookie, later the SYN has the request on it */
static bool fast_open(int fd, const struct sockaddr_in6 *to)
{
	uint8_t cmd[5] = { 'D', 0, 1 };

	return sendto(fd, cmd, 5, MSG_FASTOPEN, (const struct sockaddr *)to, sizeof(*to)) == 5 &&
	       check_pattern(fd, 256);
}

bool app_odd(int k, const char *address, int port)
{
	struct sockaddr_in6 to = address_of(address, port);
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok;

	if (odd[k].small)
		small_buffer(fd);
	if (odd[k].fixed_port)
		ok = use_port_again(fd, &to);
	else if (odd[k].fast)
		ok = fast_open(fd, &to);
	else
		ok = connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 && odd[k].talk(fd);
	close(fd);
	return ok;
}
