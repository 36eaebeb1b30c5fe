/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_stage.c - the staging area: what is written is read back, and nothing hostile gets through
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "stage.h"

#define PAGES 64
static const uint64_t block_size[] = { 40 * PAGE, 24 * PAGE };

static uint8_t *area;
static uint64_t area_size;

static int set_up(void **state)
{
	(void)state;
	area_size = stage_size(PAGES);
	area = aligned_alloc(PAGE, area_size);
	memset(area, 0xee, area_size);
	return area ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	free(area);
	return 0;
}

static struct stage_header *header(void)
{
	return (struct stage_header *)area;
}

static struct stage_record *record(unsigned int i)
{
	return (struct stage_record *)(area + sizeof(struct stage_header)) + i;
}

static int reopen(struct stage_reader *r)
{
	struct errtext err = { "" };
	int ret = stage_open(r, area, area_size, block_size, 2, &err);

	/* a refusal says why */
	assert_true(ret == 0 || (ret == -EBADMSG && err.text[0]));
	return ret;
}

/* two pages of block 0, a zero page next to them, one page of block 1 */
static void fill(void)
{
	static uint8_t pages[3 * PAGE];
	struct stage_writer w;

	memset(pages, 1, PAGE);
	memset(pages + PAGE, 2, PAGE);
	memset(pages + 2 * PAGE, 0, PAGE);
	assert_int_equal(stage_begin(&w, area, area_size, PAGES), 0);
	assert_int_equal(stage_add(&w, 0, 5 * PAGE, pages, 1), 0);
	assert_int_equal(stage_add(&w, 0, 6 * PAGE, pages + PAGE, 2), 0);
	assert_int_equal(stage_add(&w, 1, 23 * PAGE, pages, 1), 0);
	stage_finish(&w);
	assert_int_equal(w.harvested, 4);
}

static void test_round_trip(void **state)
{
	struct stage_reader r;
	struct stage_run run;

	(void)state;
	fill();
	assert_int_equal(header()->nrec, 3); /* adjacent runs became one */
	assert_int_equal(header()->npages, 3);
	assert_int_equal(reopen(&r), 0);
	assert_int_equal(stage_next(&r, &run), 1);
	assert_true(run.block == 0 && run.offset == 5 * PAGE && run.npages == 2);
	assert_int_equal(run.data[0], 1);
	assert_int_equal(run.data[PAGE], 2);
	assert_int_equal(stage_next(&r, &run), 1);
	assert_true(run.block == 0 && run.offset == 7 * PAGE && run.npages == 1 && !run.data);
	assert_int_equal(stage_next(&r, &run), 1);
	assert_true(run.block == 1 && run.offset == 23 * PAGE && run.data[PAGE - 1] == 1);
	assert_int_equal(stage_next(&r, &run), 0);
}

static void test_other_layout(void **state)
{
	struct stage_reader r;

	(void)state;
	fill();
	/* the same pages behind just as many records as there are: what a daemon may write */
	memmove(area + PAGE, area + header()->data_off, 3 * PAGE);
	header()->data_off = PAGE;
	assert_int_equal(reopen(&r), 0);
}

static void test_full(void **state)
{
	static uint8_t pages[PAGES * PAGE];
	struct stage_writer w;
	struct stage_reader r;

	(void)state;
	assert_int_equal(stage_begin(&w, area, area_size - 1, PAGES), -EINVAL);
	assert_int_equal(stage_begin(&w, area, area_size, PAGES), 0);
	/* worst case: no two adjacent pages alike */
	for (int i = 0; i < PAGES; i++)
		pages[i * PAGE] = i % 2;
	assert_int_equal(stage_add(&w, 0, 0, pages, 40), 0);
	assert_int_equal(stage_add(&w, 1, 0, pages, 24), 0);
	assert_int_equal(stage_add(&w, 1, 0, pages, 1), -ENOSPC);
	stage_finish(&w);
	assert_int_equal(header()->nrec, PAGES);
	assert_int_equal(reopen(&r), 0);
}

#define REFUSED(change)                                          \
	do {                                                     \
		struct stage_reader r_;                          \
		fill();                                          \
		assert_int_equal(reopen(&r_), 0);                \
		change;                                          \
		assert_int_equal(reopen(&r_), -EBADMSG);         \
	} while (0)

static void test_hostile_header(void **state)
{
	(void)state;
	REFUSED(header()->magic++);
	REFUSED(header()->version++);
	REFUSED(header()->nrec = UINT64_MAX);
	REFUSED(header()->nrec = UINT64_MAX / sizeof(struct stage_record) + 2);
	REFUSED(header()->nrec--); /* page count no longer fits */
	REFUSED(header()->nrec = header()->data_off / sizeof(struct stage_record));
	REFUSED(header()->npages = UINT64_MAX);
	REFUSED(header()->npages = UINT64_MAX / PAGE + 3);
	REFUSED(header()->npages++);
	REFUSED(header()->npages--);
	REFUSED(header()->data_off = 0);
	REFUSED(header()->data_off += 1);
	REFUSED(header()->data_off = area_size);
	REFUSED(header()->data_off = area_size + PAGE);
	REFUSED(header()->data_off = -(uint64_t)PAGE);
}

static void test_hostile_records(void **state)
{
	(void)state;
	REFUSED(record(0)->block = 2);
	REFUSED(record(2)->block = UINT32_MAX);
	REFUSED(record(0)->block = 1); /* then block 0 again */
	REFUSED(record(0)->flags = 2);
	REFUSED(record(0)->flags = STAGE_ZERO); /* fewer pages than announced */
	REFUSED(record(1)->flags = 0);          /* more */
	REFUSED(record(0)->offset += 1);
	REFUSED(record(0)->offset = 40 * PAGE);
	REFUSED(record(0)->offset = -(uint64_t)PAGE);
	REFUSED(record(2)->offset = 24 * PAGE);
	REFUSED(record(1)->offset = 6 * PAGE); /* overlaps */
	REFUSED(record(0)->npages = 0);
	REFUSED(record(1)->npages = 34);
	REFUSED(record(1)->npages = UINT64_MAX);
	REFUSED(record(1)->npages = UINT64_MAX / PAGE + 2);
}

static void test_tiny(void **state)
{
	struct errtext err;
	struct stage_reader r;

	(void)state;
	fill();
	for (uint64_t size = 0; size < sizeof(struct stage_header); size++)
		assert_int_equal(stage_open(&r, area, size, block_size, 2, &err), -EBADMSG);
}

/* whatever the first bytes hold, an area that is accepted stays inside its bounds */
static void test_random(void **state)
{
	unsigned int seed = 20231123, accepted = 0;

	(void)state;
	print_message("seed %u\n", seed);
	for (int round = 0; round < 200000; round++) {
		struct stage_reader r;
		struct stage_run run;

		fill();
		for (int i = 0; i < 2; i++) {
			uint64_t at = rand_r(&seed) % (sizeof(struct stage_header) +
						       3 * sizeof(struct stage_record));

			area[at] = rand_r(&seed);
		}
		if (reopen(&r) < 0)
			continue;
		accepted++;
		while (stage_next(&r, &run)) {
			assert_true(run.block < 2);
			assert_true(run.offset + run.npages * PAGE <= block_size[run.block]);
			if (run.data)
				assert_true(run.data >= area &&
					    run.data + run.npages * PAGE <= area + area_size);
		}
	}
	assert_true(accepted > 0 && accepted < 200000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_layout, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hostile_header, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hostile_records, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tiny, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_random, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
