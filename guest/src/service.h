/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the test guest's own TCP services share: one process per connection with blocking reads, so
 * that an answer depends on nothing but what the client sent. systemd bounds the number of processes
 * (TasksMax).
 */
#ifndef COLO_GUEST_SERVICE_H
#define COLO_GUEST_SERVICE_H

#include <stddef.h>

/* Accepts on @port, IPv6 and IPv4, and calls @serve in a process of its own for each connection. Returns
 * EXIT_FAILURE when it cannot listen, and not at all otherwise. */
int service_run(const char *name, int port, void (*serve)(int fd));

/* Both: all @len bytes, or -1 when the connection has ended. */
int service_write(int fd, const void *buf, size_t len);
int service_read(int fd, void *buf, size_t len);

#endif
