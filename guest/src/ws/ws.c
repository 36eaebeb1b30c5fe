// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * WebSocket service of the test guest (RFC 6455) on TCP port 8080.
 *
 * GET /echo: each text or binary message comes back. GET /push: a numbered message every 20 ms, whose
 * content depends on its number only; what the client says is not answered, but for ping and close.
 * Messages are single frames of at most MESSAGE_MAX bytes; anything else ends the connection.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "../service.h"
#include "sha1.h"

#define WS_PORT 8080
#define MESSAGE_MAX 65535
#define HEAD_MAX 4096
#define PUSH_NS 20000000
#define MAGIC "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

enum opcode { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

/* Up to the empty line, byte by byte: what follows it belongs to the frames. */
static int head_read(int fd, char *head)
{
	for (size_t n = 0; n < HEAD_MAX - 1; n++) {
		if (service_read(fd, head + n, 1))
			return -1;
		head[n + 1] = '\0';
		if (n >= 3 && !memcmp(head + n - 3, "\r\n\r\n", 4))
			return 0;
	}
	return -1;
}

static void base64(char *out, const uint8_t *in, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = in[i] << 16 | (i + 1 < len ? in[i + 1] : 0) << 8 |
			     (i + 2 < len ? in[i + 2] : 0);

		*out++ = digits[v >> 18];
		*out++ = digits[v >> 12 & 63];
		*out++ = i + 1 < len ? digits[v >> 6 & 63] : '=';
		*out++ = i + 2 < len ? digits[v & 63] : '=';
	}
	*out = '\0';
}

static int handshake(int fd, const char *head)
{
	char key[64], answer[256], accept[32];
	const char *field = strcasestr(head, "\r\nsec-websocket-key:");
	uint8_t digest[SHA1_LEN];
	int n;

	if (!field || sscanf(field + 20, " %63[^\r\n ]", key) != 1)
		return -1;
	n = snprintf(answer, sizeof(answer), "%s" MAGIC, key);
	if (sha1(digest, answer, n))
		return -1;
	base64(accept, digest, sizeof(digest));
	n = snprintf(answer, sizeof(answer),
		     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
		     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
	return service_write(fd, answer, n);
}

static int frame_write(int fd, int opcode, const void *data, size_t len)
{
	static uint8_t frame[4 + MESSAGE_MAX];
	size_t head = len < 126 ? 2 : 4;

	frame[0] = 0x80 | opcode;
	frame[1] = len < 126 ? len : 126;
	frame[2] = len >> 8;
	frame[3] = len;
	memcpy(frame + head, data, len);
	return service_write(fd, frame, head + len);
}

/* Length of the client's next frame, unmasked in @data, or -1. */
static int frame_read(int fd, int *opcode, uint8_t *data)
{
	uint8_t head[4], mask[4];
	size_t len;

	if (service_read(fd, head, 2) || (head[0] & 0xf0) != 0x80 || !(head[1] & 0x80))
		return -1;
	len = head[1] & 0x7f;
	if (len == 127 || (len == 126 && service_read(fd, head + 2, 2)))
		return -1;
	if (len == 126)
		len = head[2] << 8 | head[3];
	if (service_read(fd, mask, 4) || service_read(fd, data, len))
		return -1;
	for (size_t i = 0; i < len; i++)
		data[i] ^= mask[i % 4];
	*opcode = head[0] & 0xf;
	return len;
}

/* Takes one frame of the client; -1 when the connection is to end. */
static int frame_serve(int fd, int push)
{
	static uint8_t data[MESSAGE_MAX];
	int opcode, len = frame_read(fd, &opcode, data);

	if (len < 0)
		return -1;
	if (opcode == CLOSE)
		return frame_write(fd, CLOSE, data, len), -1;
	if (opcode == PING)
		return frame_write(fd, PONG, data, len);
	if ((opcode == TEXT || opcode == BINARY) && !push)
		return frame_write(fd, opcode, data, len);
	return 0;
}

static int tick_send(int fd, int timer)
{
	static uint32_t number;
	uint64_t ticks = 0;
	char text[32];

	if (read(timer, &ticks, sizeof(ticks)) != sizeof(ticks))
		return -1;
	/* A late one is made up for: how many there are must not depend on how busy the guest was. */
	for (; ticks; ticks--, number++) {
		int n = snprintf(text, sizeof(text), "tick %08u %08x", number, number * 2654435761u);

		if (frame_write(fd, TEXT, text, n))
			return -1;
	}
	return 0;
}

static void push_serve(int fd)
{
	struct itimerspec every = { .it_interval.tv_nsec = PUSH_NS, .it_value.tv_nsec = PUSH_NS };
	struct pollfd fds[2] = { { .fd = fd, .events = POLLIN }, { .events = POLLIN } };

	fds[1].fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (fds[1].fd < 0 || timerfd_settime(fds[1].fd, 0, &every, NULL))
		return;
	while (poll(fds, 2, -1) >= 0) {
		if (fds[0].revents && frame_serve(fd, 1))
			return;
		if (fds[1].revents && tick_send(fd, fds[1].fd))
			return;
	}
}

static void serve(int fd)
{
	static char head[HEAD_MAX];

	if (head_read(fd, head) || handshake(fd, head))
		return;
	if (!strncmp(head, "GET /push ", 10))
		push_serve(fd);
	else
		while (!frame_serve(fd, 0))
			;
}

int main(void)
{
	return service_run("ws", WS_PORT, serve);
}
