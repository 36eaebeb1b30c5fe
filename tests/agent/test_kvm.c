/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_kvm.c - clocks behind the device state, as a peer may send them; this process has no VM
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kvm.h"

#define STATE 100

static void test_none(void **unused)
{
	static uint8_t state[STATE + sizeof(struct kvm_clocks)];
	struct kvm_clocks clocks;
	bool found = true;

	(void)unused;
	assert_int_equal(kvm_clocks_cut(state, STATE, &clocks, &found), STATE);
	assert_false(found);
	assert_int_equal(kvm_clocks_cut(state, sizeof(state), &clocks, &found), sizeof(state));
	assert_false(found);
	assert_int_equal(kvm_clocks_cut(state, 0, &clocks, &found), 0);
}

/* Without KVM they are cut off all the same, and not believed. */
static void test_foreign(void **unused)
{
	static uint8_t state[STATE + sizeof(struct kvm_clocks)];
	struct kvm_clocks clocks = { .magic = "COLO-CL", .vcpus = 1, .khz = 2000000, .clock_ns = 1 };
	bool found = true;

	(void)unused;
	clocks.magic[7] = 'K';
	memcpy(state + STATE, &clocks, sizeof(clocks));
	assert_int_equal(kvm_clocks_cut(state, sizeof(state), &clocks, &found), STATE);
	assert_false(found);
	assert_int_equal(kvm_clocks_cut(state, sizeof(state) - 1, &clocks, &found), sizeof(state) - 1);
}

static void test_blank(void **unused)
{
	uint8_t state[] = {
		4, 0, 0, 0, 9, 8, 'k', 'v', 'm', 'c', 'l', 'o', 'c', 'k', 0, 0, 0, 0, 0, 0, 0, 1,
		1, 2, 3, 4, 5, 6, 7, 8, 0x7e, 0, 0, 0, 9,
		8, 'k', 'v', 'm', 'c', 'l', 'o', 'c', 'k', 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, /* cut short */
	};
	uint8_t want[sizeof(state)];

	(void)unused;
	memcpy(want, state, sizeof(state));
	memset(want + 22, 0, 8);
	kvm_blank_clocks(state, sizeof(state));
	assert_memory_equal(state, want, sizeof(state));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_blank),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
