/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_pagemap.c - an iteration names each page once, however many regions there are
 */
#include "pagemap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static struct pagemap_iter it;

/* every second page of a view of a memfd is private */
static uint8_t *view(unsigned int pages)
{
	int fd = memfd_create("image", MFD_CLOEXEC);
	uint8_t *p;

	assert_true(fd >= 0 && ftruncate(fd, (off_t)pages * PAGE) == 0);
	p = mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	assert_true(p != MAP_FAILED);
	close(fd);
	for (unsigned int i = 0; i < pages; i += 2)
		p[(size_t)i * PAGE] = 1;
	return p;
}

static void each_once(void **state)
{
	static const unsigned int regions[] = { 1, 511, 512, 513, 1024, 1374, 2047, 2048, 2049, 5000 };
	struct errtext err;

	for (size_t k = 0; k < sizeof(regions) / sizeof(*regions); k++) {
		unsigned int pages = 2 * regions[k], found = 0;
		uint8_t *p = view(pages);
		uint64_t last = 0;
		int n;

		pagemap_begin(&it, PAGEMAP_PRIVATE, p, (uint64_t)pages * PAGE);
		while ((n = pagemap_next(&it, &err)) > 0)
			for (int i = 0; i < n; i++) {
				assert_true(it.region[i].start >= last);
				last = it.region[i].end;
				found += (it.region[i].end - it.region[i].start) / PAGE;
			}
		assert_int_equal(n, 0);
		assert_int_equal(found, regions[k]);
		munmap(p, (size_t)pages * PAGE);
	}
}

/* What copied pages are, is the same for both. */
static void each_once_without_scan(void **state)
{
	pagemap_avoid_scan();
	each_once(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_once),
		cmocka_unit_test(each_once_without_scan), /* the last one: there is no way back */
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
