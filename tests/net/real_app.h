/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * real_app.h - server and client of real_tcp.c: sockets, and nothing of what is between them
 */
#ifndef COLO_TESTS_REAL_APP_H
#define COLO_TESTS_REAL_APP_H

#include <stdbool.h>
#include <stdint.h>

/* before listen(): what connections will inherit */
void app_prepare_listener(int s);
/* serves for ever, a process for each connection */
void app_server(int listener) __attribute__((noreturn));

/* IPv6 or mapped address. A descriptor, or -1 */
int app_dial(const char *address, int port);
/* what: 'D', the server sends n bytes; 'U', it takes n and says so. False: something was wrong */
bool app_ask(int fd, char what, uint32_t n);

/* a connection that goes through one of TCP's odd corners; k: from 0 on, as long as there is a name */
bool app_odd(int k, const char *address, int port);
const char *app_odd_name(int k);

#endif
