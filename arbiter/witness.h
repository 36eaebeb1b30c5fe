/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * witness.h - `colo witness`: the server on a third machine that says which host may serve
 */
#ifndef COLO_WITNESS_H
#define COLO_WITNESS_H

#include <stdbool.h>

struct witness_options {
	const char *listen, *state; /* address; directory */
	const char *tls;            /* "psk", "x509", "off"; NULL: off, allowed on loopback only */
	const char *tls_dir;
	const char *access;         /* file: which keys may ask for which VMs; or NULL */
	bool fresh;                 /* a new state may begin */
};

/* Runs until SIGTERM or SIGINT. Returns the process' exit status. */
int witness_run(const struct witness_options *o);

#endif
