/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * buffer.h - byte queue with a bound, for non-blocking sockets
 *
 * Linear storage that moves its content to the front when room at the end runs out: all unread bytes
 * are always contiguous, so a parser can look at them in place. Allocated once.
 */
#ifndef COLO_BUFFER_H
#define COLO_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buffer {
	uint8_t *data;
	size_t size, head, tail; /* unread: [head, tail) */
};

int buffer_init(struct buffer *b, size_t size); /* 0 or -ENOMEM */
void buffer_free(struct buffer *b);
void buffer_clear(struct buffer *b);

static inline size_t buffer_len(const struct buffer *b)
{
	return b->tail - b->head;
}

static inline size_t buffer_room(const struct buffer *b)
{
	return b->size - buffer_len(b);
}

static inline const uint8_t *buffer_peek(const struct buffer *b)
{
	return b->data + b->head;
}

void buffer_skip(struct buffer *b, size_t n); /* n <= buffer_len() */
bool buffer_put(struct buffer *b, const void *p, size_t n); /* false, and unchanged: no room */
/* room for n contiguous bytes at the end, to be filled and confirmed with buffer_commit(); or NULL */
uint8_t *buffer_reserve(struct buffer *b, size_t n);
void buffer_commit(struct buffer *b, size_t n);

/* One read or write. > 0: bytes; 0: would block (or no room/nothing to write); < 0: -errno,
 * -EPIPE at end of file. */
ssize_t buffer_read_from(struct buffer *b, int fd, size_t max);
ssize_t buffer_write_to(struct buffer *b, int fd);

#endif
