/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * buffer.c - see buffer.h
 */
#include "common/buffer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A queue that is never empty would wander through all of its storage, none of which is in a cache when it
 * comes round. So little content is moved to the front long before the end; what that costs is a fraction of
 * what was read meanwhile. */
#define WANDER (512u << 10)
#define LITTLE 8

static bool must_move(const struct buffer *b, size_t n)
{
	return b->size - b->tail < n || (b->head >= WANDER && buffer_len(b) <= b->head / LITTLE);
}

int buffer_init(struct buffer *b, size_t size)
{
	*b = (struct buffer){ .data = malloc(size), .size = size };
	return b->data ? 0 : -ENOMEM;
}

void buffer_free(struct buffer *b)
{
	free(b->data);
	*b = (struct buffer){ 0 };
}

void buffer_clear(struct buffer *b)
{
	b->head = b->tail = 0;
}

void buffer_skip(struct buffer *b, size_t n)
{
	assert(n <= buffer_len(b));
	b->head += n;
	if (b->head == b->tail)
		b->head = b->tail = 0;
}

uint8_t *buffer_reserve(struct buffer *b, size_t n)
{
	if (n > buffer_room(b))
		return NULL;
	if (must_move(b, n)) {
		memmove(b->data, b->data + b->head, buffer_len(b));
		b->tail -= b->head;
		b->head = 0;
	}
	return b->data + b->tail;
}

void buffer_commit(struct buffer *b, size_t n)
{
	assert(n <= b->size - b->tail);
	b->tail += n;
}

bool buffer_put(struct buffer *b, const void *p, size_t n)
{
	uint8_t *to = buffer_reserve(b, n);

	if (!to)
		return false;
	memcpy(to, p, n);
	b->tail += n;
	return true;
}

ssize_t buffer_read_from(struct buffer *b, int fd, size_t max)
{
	size_t room = buffer_room(b);
	uint8_t *to;
	ssize_t n;

	if (room > max)
		room = max;
	if (!room)
		return 0;
	to = buffer_reserve(b, room);
	n = read(fd, to, room);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -EPIPE;
	b->tail += n;
	return n;
}

ssize_t buffer_write_to(struct buffer *b, int fd)
{
	ssize_t n;

	if (!buffer_len(b))
		return 0;
	n = send(fd, buffer_peek(b), buffer_len(b), MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	buffer_skip(b, n);
	return n;
}
