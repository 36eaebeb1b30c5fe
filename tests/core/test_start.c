/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_start.c - which role a node begins in, a row for each past; sim.c and sim_disks.c put them together
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "core/start.h"

#define NEW (LINEAGE_NEW | LINEAGE_CONSISTENT)
#define BLANK (NEW | LINEAGE_BLANK)
#define RECEIVED LINEAGE_CONSISTENT
#define SERVED (LINEAGE_CONSISTENT | LINEAGE_SERVED)
#define SHARED (SERVED | LINEAGE_SHARED)
#define MIXTURE 0
#define NONE UINT32_MAX

struct row {
	uint32_t disk[2]; /* flags; NONE: no such disk */
	bool primary;     /* configured as */
	bool kernel;
	enum start_role asked, want;
	const char *says;
	enum start_owner owner;
};

static const struct row rows[] = {
	{ { NEW, NONE }, true, false, START_BY_DISKS, START_PRIMARY, "", START_NOBODY },
	{ { NEW, NONE }, false, false, START_BY_DISKS, START_SECONDARY, "", START_NOBODY },
	{ { NEW, BLANK }, true, false, START_BY_DISKS, START_PRIMARY, "", START_NOBODY },
	{ { BLANK, BLANK }, true, false, START_BY_DISKS, START_REFUSED, "--role primary", START_NOBODY },
	{ { BLANK, NONE }, true, true, START_BY_DISKS, START_PRIMARY, "", START_NOBODY },
	{ { BLANK, NONE }, true, false, START_PRIMARY, START_PRIMARY, "", START_NOBODY },
	{ { BLANK, NONE }, false, false, START_BY_DISKS, START_SECONDARY, "", START_NOBODY },
	{ { NONE, NONE }, true, false, START_BY_DISKS, START_PRIMARY, "", START_NOBODY }, /* read-only ones at most */
	{ { NONE, NONE }, false, false, START_BY_DISKS, START_SECONDARY, "", START_NOBODY },
	{ { SERVED, SERVED }, true, false, START_BY_DISKS, START_PRIMARY, "", START_NOBODY },
	{ { SERVED, SERVED }, false, false, START_BY_DISKS, START_PRIMARY, "", START_NOBODY },
	{ { SHARED, SHARED }, true, false, START_BY_DISKS, START_UNDECIDED, "--role primary", START_NOBODY },
	{ { SERVED, SHARED }, false, false, START_BY_DISKS, START_UNDECIDED, "waiting for b", START_NOBODY },
	{ { RECEIVED, RECEIVED }, true, false, START_BY_DISKS, START_SECONDARY, "--role primary", START_NOBODY },
	{ { RECEIVED, SERVED }, true, false, START_BY_DISKS, START_SECONDARY, "waiting for b", START_NOBODY },
	{ { RECEIVED, NONE }, false, false, START_PRIMARY, START_PRIMARY, "", START_NOBODY },
	{ { SERVED, SERVED }, true, false, START_SECONDARY, START_SECONDARY, "", START_NOBODY },
	{ { SHARED, SHARED }, true, false, START_PRIMARY, START_PRIMARY, "", START_NOBODY },
	{ { MIXTURE, SERVED }, true, false, START_BY_DISKS, START_SECONDARY, "did not end", START_NOBODY },
	{ { SERVED, MIXTURE }, true, false, START_PRIMARY, START_REFUSED, "disk1 is a mixture", START_NOBODY },
	{ { MIXTURE, MIXTURE }, true, true, START_PRIMARY, START_REFUSED, "disk0 is a mixture", START_NOBODY },
	/* a disk that was added, or lost and replaced */
	{ { SERVED, BLANK }, true, false, START_BY_DISKS, START_REFUSED, "disk1 has no past", START_NOBODY },
	{ { NEW, SHARED }, true, false, START_BY_DISKS, START_REFUSED, "disk0 has no past", START_NOBODY },
	{ { SERVED, BLANK }, true, false, START_PRIMARY, START_PRIMARY, "", START_NOBODY },
	{ { RECEIVED, BLANK }, true, false, START_BY_DISKS, START_SECONDARY, "waiting for b", START_NOBODY },
	/* the arbiter knows that nobody claimed after this host */
	{ { SERVED, SERVED }, true, false, START_BY_DISKS, START_PRIMARY, "", START_ME },
	{ { SHARED, SHARED }, false, false, START_BY_DISKS, START_PRIMARY, "", START_ME },
	{ { RECEIVED, RECEIVED }, true, false, START_BY_DISKS, START_SECONDARY, "--role primary", START_ME },
	{ { MIXTURE, SERVED }, true, false, START_BY_DISKS, START_SECONDARY, "did not end", START_ME },
	{ { NEW, NONE }, true, false, START_BY_DISKS, START_PRIMARY, "", START_ME },
	{ { NEW, SHARED }, true, false, START_BY_DISKS, START_REFUSED, "disk0 has no past", START_ME },
	{ { SHARED, SHARED }, true, false, START_SECONDARY, START_SECONDARY, "", START_ME },
	/* or that the peer did */
	{ { SERVED, SERVED }, true, false, START_BY_DISKS, START_UNDECIDED, "generation 7", START_PEER },
	{ { SHARED, SHARED }, true, false, START_BY_DISKS, START_UNDECIDED, "--role primary", START_PEER },
	{ { SERVED, BLANK }, true, false, START_BY_DISKS, START_UNDECIDED, "b served last", START_PEER },
	{ { NEW, NEW }, true, false, START_BY_DISKS, START_SECONDARY, "", START_PEER },
	{ { BLANK, NONE }, true, false, START_BY_DISKS, START_SECONDARY, "", START_PEER },
	{ { NONE, NONE }, true, false, START_BY_DISKS, START_SECONDARY, "", START_PEER },
	{ { RECEIVED, NONE }, true, false, START_BY_DISKS, START_SECONDARY, "waiting for b", START_PEER },
	{ { SHARED, SHARED }, true, false, START_PRIMARY, START_PRIMARY, "", START_PEER },
	{ { MIXTURE, SHARED }, true, false, START_PRIMARY, START_REFUSED, "disk0 is a mixture", START_PEER },
	/* or does not answer */
	{ { SERVED, SERVED }, true, false, START_BY_DISKS, START_UNDECIDED, "the arbiter", START_UNKNOWN },
	{ { NEW, NONE }, true, false, START_BY_DISKS, START_UNDECIDED, "the arbiter", START_UNKNOWN },
	{ { NEW, NONE }, false, false, START_BY_DISKS, START_SECONDARY, "", START_UNKNOWN },
	{ { NEW, SERVED }, false, false, START_BY_DISKS, START_UNDECIDED, "the arbiter", START_UNKNOWN },
	{ { RECEIVED, NONE }, true, false, START_BY_DISKS, START_SECONDARY, "waiting for b", START_UNKNOWN },
	{ { MIXTURE, SERVED }, true, false, START_BY_DISKS, START_SECONDARY, "did not end", START_UNKNOWN },
	{ { SHARED, SHARED }, true, false, START_SECONDARY, START_SECONDARY, "", START_UNKNOWN },
	{ { SHARED, SHARED }, true, false, START_PRIMARY, START_PRIMARY, "", START_UNKNOWN },
};

/* of a node that started just now: the peer may run the SVM, and not know yet that this host was away */
static const struct row early[] = {
	{ { SHARED, SHARED }, true, false, START_BY_DISKS, START_UNDECIDED, "may still run", START_ME },
	{ { SERVED, SHARED }, false, false, START_BY_DISKS, START_UNDECIDED, "may still run", START_ME },
	{ { SERVED, SERVED }, true, false, START_BY_DISKS, START_PRIMARY, "", START_ME },
	{ { SHARED, SHARED }, true, false, START_PRIMARY, START_PRIMARY, "", START_ME },
	{ { SHARED, SHARED }, true, false, START_BY_DISKS, START_UNDECIDED, "--role primary", START_NOBODY },
	{ { NEW, NONE }, true, false, START_BY_DISKS, START_PRIMARY, "", START_NOBODY },
};

static void check_rows(const struct row *row, size_t count, bool waited)
{
	enum start_role got;
	unsigned int i, n;
	char text[512];

	for (i = 0; i < count; i++) {
		const struct row *r = &row[i];
		const struct start_node node = { r->asked, r->primary, r->kernel, "b", r->owner, 7, waited };
		struct lineage l[2] = { { .current = 1, .flags = r->disk[0] }, { .current = 2, .flags = r->disk[1] } };

		for (n = 0; n < 2 && r->disk[n] != NONE; n++)
			;
		got = start_decide(&node, l, n, text, sizeof(text));
		if (got != r->want || !strstr(text, r->says) || (!*r->says && *text))
			fail_msg("row %u: %d: %s", i, got, text);
	}
}

static void test_rows(void **state)
{
	check_rows(rows, sizeof(rows) / sizeof(*rows), true);
	check_rows(early, sizeof(early) / sizeof(*early), false);
}

#define HEARS(mine, its, undecided) start_hears(mine, its, 2, undecided, "a", "b", text, sizeof(text))

static void test_hears(void **state)
{
	struct lineage mine[2], its[2];
	char text[512];

	/* in step: the peer received what this node had */
	mine[0] = mine[1] = (struct lineage){ .current = 5, .base = 5, .history = { 4 }, .flags = SHARED };
	its[0] = its[1] = (struct lineage){ .current = 5, .base = 5, .history = { 4 }, .flags = RECEIVED };
	assert_int_equal(HEARS(mine, its, false), START_PRIMARY);
	assert_string_equal(text, "");
	/* two nodes that both do not know, and neither is newer */
	assert_int_equal(HEARS(mine, its, true), START_PRIMARY); /* it received: this one served last */
	assert_int_equal(HEARS(mine, mine, true), START_UNDECIDED);
	assert_true(*text);
	/* the second disk went on there */
	its[1] = (struct lineage){ .current = 6, .base = 5, .history = { 5, 4 }, .flags = SERVED };
	assert_int_equal(HEARS(mine, its, false), START_UNDECIDED);
	assert_non_null(strstr(text, "disk1"));
	/* its operator gives that up */
	its[1].flags |= LINEAGE_OVERWRITE;
	assert_int_equal(HEARS(mine, its, false), START_PRIMARY);
	/* a new host */
	its[0] = its[1] = (struct lineage){ .current = 9, .flags = BLANK };
	assert_int_equal(HEARS(mine, its, false), START_PRIMARY);
	its[0].flags = NEW;
	assert_int_equal(HEARS(mine, its, false), START_UNDECIDED);
	assert_non_null(strstr(text, "disk0"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_hears),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
