/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_control.c - lines on the operator's socket
 *
 * The first byte says how the lines are cut. Each line that ends gets an answer that is JSON.
 */
#include "daemon/control.c"
#include "tests/fuzz/daemon_stub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool ended;

void watch_free(struct watch *w)
{
	(void)w;
	ended = true; /* the client is freed next */
}

static void drain(int fd)
{
	static char text[1 << 16];
	ssize_t n = recv(fd, text, sizeof(text), MSG_DONTWAIT);

	for (char *p = text, *nl; n > 0 && (nl = memchr(p, '\n', text + n - p)); p = nl + 1) {
		json_t *j = json_loadb(p, nl - p, 0, NULL);

		CHECK(json_is_object(j));
		json_decref(j);
	}
}

static void feed(struct client *c, int fd, const uint8_t *data, size_t size, size_t step)
{
	size_t n;

	for (; size && !ended; size -= n, data += n) {
		n = size < step ? size : step;
		if (send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n)
			break;
		for (int i = 0; i < 4 && !ended; i++)
			on_client(c, UV_READABLE);
		drain(fd);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct control control;
	struct daemon *d = stub_daemon(size && data[0] & 1);
	struct client *c = calloc(1, sizeof(*c));
	int fd[2];

	if (!size || !c || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0) {
		free(c);
		return 0;
	}
	control.clients = 1;
	d->control = &control;
	c->d = d;
	c->fd = fd[0];
	ended = false;
	feed(c, fd[1], data + 1, size - 1, 1 + (size_t)data[0] * 16 + size / 16);
	close(fd[1]);
	for (int i = 0; i < 8 && !ended; i++)
		on_client(c, UV_READABLE);
	CHECK(ended && control.clients == 0);
	return 0;
}
