/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * selftest.h - before the start: which accelerator works, and which driver passes the self-test
 */
#ifndef COLO_SELFTEST_H
#define COLO_SELFTEST_H

#include "daemon/daemon.h"

#define SELFTEST_TEXT 400

struct selftest_result {
	int32_t status;       /* 0, or -errno, and text says why not */
	bool known;           /* from an earlier start */
	char version[32];     /* QEMU's */
	char driver[16], accel[8];
	char text[SELFTEST_TEXT];
};

typedef void selftest_fn(struct daemon *d, const struct selftest_result *r);

/* fn is called once, from the loop. 0 or -errno */
int selftest_start(struct daemon *d, selftest_fn *fn);
void selftest_stop(struct daemon *d); /* it is not called any more */

/* --- selftest_cache.c: what was found out earlier --- */

#define SELFTEST_FOUND 300

enum selftest_test { TEST_KVM, TEST_DIRECT, TEST_STANDBY, SELFTEST_TESTS };

struct selftest_found {
	char version[32];
	char test[SELFTEST_TESTS][SELFTEST_FOUND]; /* "passed", or why not; "": was not tried */
};

/* What earlier results must have been found for; NULL: out of memory. To be freed. */
char *selftest_identity(struct daemon *d);
/* found: empty where nothing counts. A file that does not fit is removed. */
void selftest_recall(const struct daemon *d, const char *identity, struct selftest_found *found);
void selftest_keep(const struct daemon *d, const char *identity, const struct selftest_found *found);

#endif
