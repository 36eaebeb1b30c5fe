// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * colo-guest-fetch: the test guest as a client. Opens connections at a fixed rate, asks for one object over
 * each and checks every byte of it.
 *
 * usage: colo-guest-fetch ADDRESS PORT RATE SECONDS BYTES [any-port]
 *
 * Object N is asked for as `GET /object/N/BYTES` (HTTP/1.0). Its content are lines of 18 bytes, "%08x %08x\n"
 * of N and of the line's number times 2654435761, cut to BYTES. One line of JSON says what came of it.
 * Connections are opened on a fixed time table, whether or not earlier ones are through. With any-port their
 * source ports depend on the clock's nanoseconds, so that two copies of this guest never choose the same.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 512
#define HEAD_MAX 1024
#define LINE 18
#define PATIENCE_MS 30000
#define PORT_FIRST 10000	/* and up to where the kernel's own choice begins */
#define PORT_COUNT 20000

enum state { FREE, CONNECTING, HEAD, BODY };

struct slot {
	enum state state;
	unsigned int number;
	size_t have;		/* bytes of head, then of body */
	int64_t begin;
	char head[HEAD_MAX];
};

static struct {
	struct sockaddr_storage to;
	socklen_t to_len;
	size_t bytes;
	int any_port;
	unsigned int started, done, refused, cut, wrong, late, no_slot;
	int64_t longest;
} run;

static struct slot slots[SLOTS];
static struct pollfd fds[SLOTS];

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void slot_end(int i, unsigned int *count)
{
	int64_t took = now_ms() - slots[i].begin;

	if (took > run.longest)
		run.longest = took;
	++*count;
	close(fds[i].fd);
	fds[i].fd = -1;
	slots[i].state = FREE;
}

static int port_choose(int fd)
{
	struct sockaddr_storage from = { .ss_family = run.to.ss_family };
	struct timespec t;
	int tries = 100;

	do {
		clock_gettime(CLOCK_MONOTONIC, &t);
		/* the port is at the same place in both families' addresses */
		((struct sockaddr_in *)&from)->sin_port =
			htons(PORT_FIRST + t.tv_nsec % PORT_COUNT);
		if (!bind(fd, (struct sockaddr *)&from, run.to_len))
			return 0;
	} while (errno == EADDRINUSE && --tries);
	return -1;
}

static void slot_begin(int i)
{
	struct slot *s = &slots[i];
	int fd = socket(run.to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*s = (struct slot){ .state = CONNECTING, .number = run.started++, .begin = now_ms() };
	fds[i] = (struct pollfd){ .fd = fd, .events = POLLOUT };
	if (fd < 0 || (run.any_port && port_choose(fd)) ||
	    (connect(fd, (struct sockaddr *)&run.to, run.to_len) &&
	     errno != EINPROGRESS))
		slot_end(i, &run.refused);
}

static void connection_open(void)
{
	for (int i = 0; i < SLOTS; i++)
		if (slots[i].state == FREE)
			return slot_begin(i);
	run.started++;
	run.no_slot++;
}

static void request_send(int i)
{
	char text[128];
	int error = 0, n;
	socklen_t len = sizeof(error);

	getsockopt(fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &len);
	n = snprintf(text, sizeof(text), "GET /object/%u/%zu HTTP/1.0\r\n\r\n", slots[i].number,
		     run.bytes);
	if (error || write(fds[i].fd, text, n) != n)
		return slot_end(i, &run.refused);
	slots[i].state = HEAD;
	fds[i].events = POLLIN;
}

/* Is @len bytes at offset @at of object @number what they must be? */
static int body_right(unsigned int number, size_t at, const char *data, size_t len)
{
	char line[LINE + 1];

	for (size_t i = 0; i < len; i++) {
		size_t pos = at + i;

		if (i == 0 || pos % LINE == 0)
			snprintf(line, sizeof(line), "%08x %08x\n", number,
				 (unsigned int)(pos / LINE) * 2654435761u);
		if (data[i] != line[pos % LINE])
			return 0;
	}
	return 1;
}

static void body_take(int i, const char *data, size_t len)
{
	struct slot *s = &slots[i];

	if (len > run.bytes - s->have || !body_right(s->number, s->have, data, len))
		return slot_end(i, &run.wrong);
	s->have += len;
}

static void head_take(int i, const char *data, size_t len)
{
	struct slot *s = &slots[i];
	size_t room = HEAD_MAX - 1 - s->have, n = len < room ? len : room;
	size_t had = s->have;
	char *end;

	memcpy(s->head + had, data, n);
	s->have += n;
	s->head[s->have] = '\0';
	end = strstr(s->head, "\r\n\r\n");
	if (!end && n == len)
		return;
	if (!end || strncmp(s->head, "HTTP/1.", 7) || strncmp(s->head + 8, " 200", 4))
		return slot_end(i, &run.wrong);
	s->state = BODY;
	s->have = 0;
	n = end + 4 - s->head - had;
	body_take(i, data + n, len - n);
}

static void answer_read(int i)
{
	char buf[16384];
	ssize_t n = read(fds[i].fd, buf, sizeof(buf));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		return slot_end(i, !n && slots[i].state == BODY && slots[i].have == run.bytes ?
				&run.done : &run.cut);
	if (slots[i].state == HEAD)
		head_take(i, buf, n);
	else
		body_take(i, buf, n);
}

static int slots_serve(void)
{
	int busy = 0;

	for (int i = 0; i < SLOTS; i++) {
		if (fds[i].fd >= 0 && fds[i].revents) {
			if (slots[i].state == CONNECTING)
				request_send(i);
			else
				answer_read(i);
		}
		if (slots[i].state != FREE && now_ms() - slots[i].begin > PATIENCE_MS)
			slot_end(i, &run.late);
		busy += slots[i].state != FREE;
	}
	return busy;
}

static void fetch(unsigned int rate, unsigned int seconds)
{
	int64_t begin = now_ms();
	unsigned int total = rate * seconds;
	int busy = 0;

	while (run.started < total || busy) {
		int64_t next = begin + run.started * 1000LL / rate, wait = next - now_ms();

		if (run.started < total && wait <= 0) {
			connection_open();
			busy++;
			continue;
		}
		poll(fds, SLOTS, run.started < total ? wait : 100);
		busy = slots_serve();
	}
}

static int address_parse(const char *address, int port)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&run.to;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&run.to;

	if (inet_pton(AF_INET, address, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		run.to_len = sizeof(*in);
		return 0;
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	run.to_len = sizeof(*in6);
	return inet_pton(AF_INET6, address, &in6->sin6_addr) == 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
	run.any_port = argc == 7 && !strcmp(argv[6], "any-port");
	if (argc != 6 + run.any_port || address_parse(argv[1], atoi(argv[2])) ||
	    atoi(argv[3]) < 1 || atoi(argv[4]) < 1) {
		fprintf(stderr, "usage: %s ADDRESS PORT RATE SECONDS BYTES [any-port]\n", argv[0]);
		return 2;
	}
	run.bytes = strtoul(argv[5], NULL, 10);
	for (int i = 0; i < SLOTS; i++)
		fds[i].fd = -1;
	fetch(atoi(argv[3]), atoi(argv[4]));
	printf("{\"connections\": %u, \"right\": %u, \"refused\": %u, \"cut\": %u, \"wrong\": %u, "
	       "\"late\": %u, \"no_slot\": %u, \"longest_ms\": %lld}\n", run.started, run.done,
	       run.refused, run.cut, run.wrong, run.late, run.no_slot, (long long)run.longest);
	return run.done == run.started ? 0 : 1;
}
