/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_core.c - the core's decisions, one at a time; what they lead to together is the simulator's part
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "core/core.h"

#define HEARTBEAT 100000u
#define MISSES 5u
#define PERIODIC 1000000u
#define LAG_LIMIT 5000000u
#define SETTLE 3000000u

static struct core core;
static uint64_t now;

static void begin(enum core_role role)
{
	struct core_config c = { .heartbeat_us = HEARTBEAT, .misses = MISSES, .periodic_us = PERIODIC,
				 .lag_limit_us = LAG_LIMIT, .settle_us = SETTLE };

	now = 1000;
	core_init(&core, &c);
	if (role == CORE_UNDECIDED)
		return;
	core_event(&core, &(struct core_event){ .type = CORE_EV_DECIDED, .role = role, .epoch = 6 });
	if (role == CORE_PRIMARY)
		core_event(&core, &(struct core_event){ .type = CORE_EV_CLAIM, .epoch = 7 });
}

/* the answer to the claim that is under way */
#define CLAIM .type = CORE_EV_CLAIM, .epoch = core.claiming
#define EVENT(...) core_event(&core, &(struct core_event){ .now_us = now, __VA_ARGS__ })

/* Are these the actions, and no others? */
#define ASSERT_ACTIONS(...)                                                                      \
	do {                                                                                     \
		const enum core_action_type want[] = { __VA_ARGS__ };                            \
		size_t i;                                                                        \
		assert_int_equal(core.nact, sizeof(want) / sizeof(*want));                       \
		for (i = 0; i < core.nact; i++)                                                  \
			assert_int_equal(core.act[i].type, want[i]);                             \
	} while (0)

static void ready(enum core_role role)
{
	begin(role);
	EVENT(.type = CORE_EV_STARTED);
}

static void seeding(enum core_role role)
{
	ready(role);
	EVENT(.type = CORE_EV_PEER_UP);
	ASSERT_ACTIONS(CORE_ACT_SYNC_DISK);
	EVENT(.type = CORE_EV_DISK_SYNCED, .epoch = 7);
}

static void protected_primary(void)
{
	seeding(CORE_PRIMARY);
	ASSERT_ACTIONS(CORE_ACT_SEED);
	EVENT(.type = CORE_EV_SEEDED);
	ASSERT_ACTIONS(CORE_ACT_HARVEST);
	assert_int_equal(core.act[0].epoch, 1);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 1);
	EVENT(.type = CORE_EV_HELD, .epoch = 1);
	ASSERT_ACTIONS(CORE_ACT_RELEASE);
	assert_int_equal(core.state, CORE_SEEDING);
	EVENT(.type = CORE_EV_APPLIED, .epoch = 1);
	ASSERT_ACTIONS(CORE_ACT_COMPARE);
	assert_int_equal(core.state, CORE_PROTECTED);
}

static void protected_secondary(void)
{
	seeding(CORE_SECONDARY);
	EVENT(.type = CORE_EV_COMPLETE, .epoch = 1);
	ASSERT_ACTIONS(CORE_ACT_HELD, CORE_ACT_APPLY);
	EVENT(.type = CORE_EV_APPLY_DONE, .epoch = 1);
	ASSERT_ACTIONS(CORE_ACT_APPLIED);
	assert_int_equal(core.state, CORE_PROTECTED);
	assert_int_equal(core.epoch, 1);
}

static void want(enum core_cause cause)
{
	EVENT(.type = CORE_EV_WANT_CHECKPOINT, .cause = cause);
}

/* --- starting --- */

static void test_start(void **state)
{
	ready(CORE_PRIMARY);
	assert_int_equal(core.state, CORE_ALONE);
	ready(CORE_SECONDARY);
	assert_int_equal(core.state, CORE_CONNECTING);
	begin(CORE_PRIMARY);
	EVENT(.type = CORE_EV_START_FAILED, .status = -5);
	ASSERT_ACTIONS(CORE_ACT_EXIT);
	assert_int_equal(core.act[0].status, -5);
	assert_int_equal(core.state, CORE_FAILED);
}

static void test_names(void **state)
{
	assert_string_equal(core_state_name(CORE_GIVEN_UP), "given-up");
	assert_string_equal(core_cause_name(CORE_CAUSE_MANUAL), "manual");
	assert_string_equal(core_loss_name(CORE_LOSS_SILENT), "peer-silent");
}

static void test_after_the_end_nothing_happens(void **state)
{
	ready(CORE_PRIMARY);
	EVENT(.type = CORE_EV_STOP);
	ASSERT_ACTIONS(CORE_ACT_EXIT);
	EVENT(.type = CORE_EV_PEER_UP);
	assert_int_equal(core.nact, 0);
	assert_int_equal(core.state, CORE_STOPPED);
}

/* --- checkpoints, primary --- */

static void test_checkpoint(void **state)
{
	protected_primary();
	want(CORE_CAUSE_MISMATCH);
	ASSERT_ACTIONS(CORE_ACT_HARVEST);
	assert_int_equal(core.act[0].epoch, 2);
	assert_int_equal(core.act[0].cause, CORE_CAUSE_MISMATCH);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 2);
	assert_int_equal(core.nact, 0); /* nothing leaves yet */
	EVENT(.type = CORE_EV_HELD, .epoch = 2);
	ASSERT_ACTIONS(CORE_ACT_RELEASE);
	assert_int_equal(core.act[0].epoch, 2);
	EVENT(.type = CORE_EV_APPLIED, .epoch = 2);
	ASSERT_ACTIONS(CORE_ACT_COMPARE);
	assert_int_equal(core.checkpoints[CORE_CAUSE_MISMATCH], 1);
	assert_int_equal(core.checkpoints[CORE_CAUSE_START], 1);
}

static void test_answers_out_of_turn_are_ignored(void **state)
{
	protected_primary();
	EVENT(.type = CORE_EV_HELD, .epoch = 1);
	assert_int_equal(core.nact, 0);
	want(CORE_CAUSE_FULL);
	EVENT(.type = CORE_EV_HELD, .epoch = 2); /* not harvested yet */
	assert_int_equal(core.nact, 0);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 2);
	EVENT(.type = CORE_EV_HELD, .epoch = 1);
	assert_int_equal(core.nact, 0);
	EVENT(.type = CORE_EV_APPLIED, .epoch = 2); /* not held yet */
	assert_int_equal(core.nact, 0);
}

static void test_wanted_before_the_boundary_is_solved_by_it(void **state)
{
	protected_primary();
	want(CORE_CAUSE_MISMATCH);
	want(CORE_CAUSE_MISSING);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 2);
	EVENT(.type = CORE_EV_HELD, .epoch = 2);
	EVENT(.type = CORE_EV_APPLIED, .epoch = 2);
	ASSERT_ACTIONS(CORE_ACT_COMPARE);
}

static void test_wanted_after_the_boundary_follows(void **state)
{
	protected_primary();
	want(CORE_CAUSE_MISMATCH);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 2);
	want(CORE_CAUSE_DISK);
	assert_int_equal(core.nact, 0);
	EVENT(.type = CORE_EV_HELD, .epoch = 2);
	EVENT(.type = CORE_EV_APPLIED, .epoch = 2);
	ASSERT_ACTIONS(CORE_ACT_COMPARE, CORE_ACT_HARVEST);
	assert_int_equal(core.act[1].cause, CORE_CAUSE_DISK);
	assert_int_equal(core.act[1].epoch, 3);
}

static void test_wanted_while_the_first_one_is_under_way(void **state)
{
	seeding(CORE_PRIMARY);
	want(CORE_CAUSE_MISMATCH); /* nothing is held back yet: no use */
	EVENT(.type = CORE_EV_SEEDED);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 1);
	want(CORE_CAUSE_FULL);
	EVENT(.type = CORE_EV_HELD, .epoch = 1);
	EVENT(.type = CORE_EV_APPLIED, .epoch = 1);
	ASSERT_ACTIONS(CORE_ACT_COMPARE, CORE_ACT_HARVEST);
	assert_int_equal(core.act[1].cause, CORE_CAUSE_FULL);
}

static void test_periodic(void **state)
{
	protected_primary();
	assert_true(core_next_tick(&core) <= now + HEARTBEAT);
	EVENT(.type = CORE_EV_RX);
	now += PERIODIC;
	EVENT(.type = CORE_EV_RX);
	EVENT(.type = CORE_EV_TICK);
	ASSERT_ACTIONS(CORE_ACT_HEARTBEAT, CORE_ACT_HARVEST);
	assert_int_equal(core.act[1].cause, CORE_CAUSE_PERIODIC);
}

static void test_failed_harvest_ends_protection(void **state)
{
	protected_primary();
	want(CORE_CAUSE_MANUAL);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 2, .status = -5);
	ASSERT_ACTIONS(CORE_ACT_CLAIM);
	assert_int_equal(core.state, CORE_PROTECTED);
	EVENT(CLAIM, .status = 0);
	ASSERT_ACTIONS(CORE_ACT_DISMISS, CORE_ACT_DROP_PEER, CORE_ACT_SERVE);
	assert_int_equal(core.state, CORE_ALONE);
	assert_int_equal(core.epoch, 1);
}

static void test_failed_first_harvest_costs_the_attempt(void **state)
{
	seeding(CORE_PRIMARY);
	EVENT(.type = CORE_EV_SEEDED);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 1, .status = -5);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER, CORE_ACT_SERVE);
	assert_int_equal(core.state, CORE_ALONE);
}

/* --- checkpoints, secondary --- */

static void test_apply(void **state)
{
	protected_secondary();
	EVENT(.type = CORE_EV_COMPLETE, .epoch = 2);
	ASSERT_ACTIONS(CORE_ACT_HELD, CORE_ACT_APPLY);
	assert_int_equal(core.act[0].epoch, 2);
	assert_int_equal(core.epoch, 1); /* until it is done */
	EVENT(.type = CORE_EV_APPLY_DONE);
	ASSERT_ACTIONS(CORE_ACT_APPLIED);
	assert_int_equal(core.epoch, 2);
}

static void test_failed_apply_ends_the_node(void **state)
{
	protected_secondary();
	EVENT(.type = CORE_EV_COMPLETE, .epoch = 2);
	EVENT(.type = CORE_EV_APPLY_DONE, .status = -5);
	ASSERT_ACTIONS(CORE_ACT_GOODBYE, CORE_ACT_DROP_PEER, CORE_ACT_KILL_VM, CORE_ACT_EXIT);
	assert_int_equal(core.state, CORE_FAILED);
}

static void test_takeover_waits_for_the_apply(void **state)
{
	protected_secondary();
	EVENT(.type = CORE_EV_COMPLETE, .epoch = 2);
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER, CORE_ACT_CLAIM);
	EVENT(CLAIM, .status = 0);
	assert_int_equal(core.nact, 0);
	assert_int_equal(core.state, CORE_TAKEOVER);
	EVENT(.type = CORE_EV_APPLY_DONE);
	ASSERT_ACTIONS(CORE_ACT_TAKE_OVER);
	assert_int_equal(core.act[0].loss, CORE_LOSS_CLOSED);
	assert_int_equal(core.state, CORE_ALONE);
	assert_int_equal(core.role, CORE_PRIMARY);
	assert_int_equal(core.epoch, 2);
}

static void test_complete_comes_too_late(void **state)
{
	protected_secondary();
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	EVENT(.type = CORE_EV_COMPLETE, .epoch = 2);
	assert_int_equal(core.nact, 0);
	EVENT(CLAIM, .status = 0);
	ASSERT_ACTIONS(CORE_ACT_TAKE_OVER);
	assert_int_equal(core.epoch, 1);
}

/* --- losing the peer --- */

/* If only the link fails the primary is the first to notice, and to claim. */
static void test_silence(void **state)
{
	protected_secondary();
	now += HEARTBEAT * MISSES;
	EVENT(.type = CORE_EV_TICK);
	ASSERT_ACTIONS(CORE_ACT_HEARTBEAT);
	now += 1;
	EVENT(.type = CORE_EV_TICK);
	ASSERT_ACTIONS(CORE_ACT_CLAIM);
	protected_primary();
	EVENT(.type = CORE_EV_RX);
	now += HEARTBEAT * (MISSES - 1);
	EVENT(.type = CORE_EV_TICK);
	ASSERT_ACTIONS(CORE_ACT_HEARTBEAT);
	now += 1;
	EVENT(.type = CORE_EV_TICK);
	ASSERT_ACTIONS(CORE_ACT_CLAIM); /* the link stays for a word to a peer that only slept */
	assert_int_equal(core.loss, CORE_LOSS_SILENT);
	assert_int_equal(core.detected_us - core.lost_at_us, HEARTBEAT * (MISSES - 1) + 1);
	EVENT(CLAIM, .status = 0);
	ASSERT_ACTIONS(CORE_ACT_DISMISS, CORE_ACT_DROP_PEER, CORE_ACT_SERVE);
}

static void test_a_sleeper_is_told(void **state)
{
	protected_secondary();
	now += HEARTBEAT * MISSES + 1;
	EVENT(.type = CORE_EV_TICK);
	EVENT(CLAIM, .status = 0);
	ASSERT_ACTIONS(CORE_ACT_TAKEN, CORE_ACT_DROP_PEER, CORE_ACT_TAKE_OVER);
	protected_primary();
	EVENT(.type = CORE_EV_TAKEN);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER, CORE_ACT_KILL_VM, CORE_ACT_EXIT);
	assert_int_equal(core.state, CORE_FAILED);
}

static void test_a_tick_from_before_the_last_message_is_no_silence(void **state)
{
	protected_primary();
	now += 10;
	EVENT(.type = CORE_EV_RX);
	now -= 5;
	EVENT(.type = CORE_EV_TICK);
	assert_int_equal(core.state, CORE_PROTECTED);
}

static void test_unknown_is_not_won(void **state)
{
	protected_primary();
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER, CORE_ACT_CLAIM);
	assert_int_equal(core.act[1].epoch, 8); /* the next generation */
	EVENT(CLAIM, .status = -11);
	assert_int_equal(core.nact, 0);
	assert_int_equal(core.state, CORE_CLAIMING);
	EVENT(CLAIM, .status = 0);
	ASSERT_ACTIONS(CORE_ACT_SERVE);
}

static void test_the_loser_stops_its_vm(void **state)
{
	protected_secondary();
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_SILENT);
	EVENT(CLAIM, .status = 1);
	ASSERT_ACTIONS(CORE_ACT_KILL_VM, CORE_ACT_EXIT);
	assert_int_equal(core.state, CORE_FAILED);
}

static void test_both_claim_the_same_generation(void **state)
{
	protected_secondary(); /* joined a primary of generation 7 */
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	assert_int_equal(core.act[1].epoch, 8);
}

static void test_loss_before_the_first_checkpoint(void **state)
{
	seeding(CORE_PRIMARY);
	EVENT(.type = CORE_EV_SEEDED); /* being harvested, nothing has left */
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER, CORE_ACT_SERVE);
	assert_int_equal(core.state, CORE_ALONE);
	seeding(CORE_SECONDARY);
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER, CORE_ACT_KILL_VM, CORE_ACT_EXIT);
}

static void test_loss_when_the_first_checkpoint_may_be_held(void **state)
{
	seeding(CORE_PRIMARY);
	EVENT(.type = CORE_EV_SEEDED);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 1);
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER, CORE_ACT_CLAIM);
}

static void test_pvm_dies(void **state)
{
	protected_primary();
	EVENT(.type = CORE_EV_VM_DIED);
	ASSERT_ACTIONS(CORE_ACT_HAND_OVER);
	assert_int_equal(core.state, CORE_GIVEN_UP);
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER, CORE_ACT_EXIT);
	assert_int_equal(core.act[1].status, CORE_EXIT_AGAIN);
	ready(CORE_PRIMARY);
	EVENT(.type = CORE_EV_VM_DIED);
	ASSERT_ACTIONS(CORE_ACT_EXIT);
	assert_int_equal(core.state, CORE_FAILED);
}

static void test_handover(void **state)
{
	protected_secondary();
	EVENT(.type = CORE_EV_HANDOVER, .loss = CORE_LOSS_PVM_DIED);
	ASSERT_ACTIONS(CORE_ACT_CLAIM); /* the link stays: the old primary forwards */
	assert_int_equal(core.loss, CORE_LOSS_PVM_DIED);
	EVENT(CLAIM, .status = 0);
	ASSERT_ACTIONS(CORE_ACT_TAKE_OVER);
	seeding(CORE_SECONDARY);
	EVENT(.type = CORE_EV_HANDOVER); /* it holds nothing to serve from */
	assert_int_equal(core.nact, 0);
}

static void test_dismissed(void **state)
{
	protected_secondary();
	EVENT(.type = CORE_EV_DISMISSED);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER, CORE_ACT_KILL_VM, CORE_ACT_EXIT);
}

/* --- the operator --- */

static void test_operator_failover(void **state)
{
	protected_secondary();
	EVENT(.type = CORE_EV_FAILOVER);
	ASSERT_ACTIONS(CORE_ACT_CLAIM);
	EVENT(CLAIM, .status = -11); /* never none: no arbiter, no handover */
	assert_int_equal(core.nact, 0);
	EVENT(CLAIM, .status = 0);
	ASSERT_ACTIONS(CORE_ACT_ASK); /* never both: the primary gives up first */
	assert_int_equal(core.act[0].cause, CORE_CAUSE_MANUAL);
	assert_int_equal(core.state, CORE_PROTECTED);
	EVENT(.type = CORE_EV_HANDOVER, .loss = CORE_LOSS_MANUAL, .epoch = 8);
	ASSERT_ACTIONS(CORE_ACT_TAKE_OVER);
	assert_int_equal(core.loss, CORE_LOSS_MANUAL);
	assert_int_equal(core.generation, 8);
	protected_primary();
	EVENT(.type = CORE_EV_FAILOVER);
	assert_int_equal(core.nact, 0);
	EVENT(.type = CORE_EV_ASKED);
	ASSERT_ACTIONS(CORE_ACT_HAND_OVER, CORE_ACT_KILL_VM);
	assert_int_equal(core.state, CORE_GIVEN_UP);
	seeding(CORE_SECONDARY);
	EVENT(.type = CORE_EV_FAILOVER);
	assert_int_equal(core.nact, 0);
}

static void test_stop(void **state)
{
	protected_primary();
	EVENT(.type = CORE_EV_STOP);
	ASSERT_ACTIONS(CORE_ACT_GUEST_OFF, CORE_ACT_EXIT);
	protected_secondary();
	EVENT(.type = CORE_EV_STOP);
	ASSERT_ACTIONS(CORE_ACT_GOODBYE, CORE_ACT_EXIT);
	assert_int_equal(core.act[0].loss, CORE_LOSS_MANUAL);
	protected_secondary();
	EVENT(.type = CORE_EV_GUEST_OFF); /* only the primary's guest counts */
	assert_int_equal(core.nact, 0);
}

static void test_a_second_peer_is_dropped(void **state)
{
	protected_primary();
	EVENT(.type = CORE_EV_PEER_UP);
	ASSERT_ACTIONS(CORE_ACT_DROP_PEER);
	assert_int_equal(core.state, CORE_PROTECTED);
}

/* --- the role at the start, and disks that fail --- */

static void test_undecided(void **state)
{
	begin(CORE_UNDECIDED);
	EVENT(.type = CORE_EV_DISK_SYNCED);
	EVENT(.type = CORE_EV_DECIDED, .role = CORE_PRIMARY, .epoch = 4);
	ASSERT_ACTIONS(CORE_ACT_CLAIM);
	assert_int_equal(core.act[0].epoch, 5);
	EVENT(CLAIM, .status = -11);
	assert_int_equal(core.nact, 0); /* unknown: the VM does not start */
	EVENT(.type = CORE_EV_CLAIM, .epoch = 4);
	assert_int_equal(core.nact, 0); /* an answer to something else */
	EVENT(CLAIM, .status = 1);
	ASSERT_ACTIONS(CORE_ACT_DECIDE);
	EVENT(.type = CORE_EV_DECIDED, .role = CORE_PRIMARY, .epoch = 5);
	EVENT(CLAIM, .status = 0);
	ASSERT_ACTIONS(CORE_ACT_START);
	EVENT(.type = CORE_EV_STARTED);
	assert_int_equal(core.state, CORE_ALONE);
	assert_int_equal(core.generation, 6);
	EVENT(.type = CORE_EV_DECIDED, .role = CORE_SECONDARY); /* once */
	assert_int_equal(core.role, CORE_PRIMARY);
	begin(CORE_UNDECIDED);
	EVENT(.type = CORE_EV_DECIDED, .role = CORE_SECONDARY);
	ASSERT_ACTIONS(CORE_ACT_START);
	EVENT(.type = CORE_EV_STARTED);
	assert_int_equal(core.state, CORE_CONNECTING);
}

static void test_a_protected_disk_failure_is_handed_over(void **state)
{
	protected_primary();
	EVENT(.type = CORE_EV_DISK_FAILED);
	ASSERT_ACTIONS(CORE_ACT_HAND_OVER, CORE_ACT_KILL_VM);
	assert_int_equal(core.act[0].loss, CORE_LOSS_DISK);
	assert_int_equal(core.state, CORE_GIVEN_UP);
	EVENT(.type = CORE_EV_DISK_FAILED);
	assert_int_equal(core.nact, 0);
}

static void test_an_unprotected_disk_failure_is_the_guests(void **state)
{
	ready(CORE_PRIMARY);
	EVENT(.type = CORE_EV_DISK_FAILED);
	ASSERT_ACTIONS(CORE_ACT_DISK_ERROR);
	seeding(CORE_PRIMARY);
	EVENT(.type = CORE_EV_DISK_FAILED);
	ASSERT_ACTIONS(CORE_ACT_DISK_ERROR);
	EVENT(.type = CORE_EV_SEEDED); /* the VM cannot be stopped for the harvest before it has an answer */
	EVENT(.type = CORE_EV_DISK_FAILED);
	ASSERT_ACTIONS(CORE_ACT_DISK_ERROR);
	assert_int_equal(core.state, CORE_SEEDING);
}

static void test_a_disk_failure_waits_for_the_first_checkpoint(void **state)
{
	seeding(CORE_PRIMARY);
	EVENT(.type = CORE_EV_SEEDED);
	EVENT(.type = CORE_EV_HARVESTED, .epoch = 1);
	EVENT(.type = CORE_EV_DISK_FAILED);
	assert_int_equal(core.nact, 0);
	EVENT(.type = CORE_EV_HELD, .epoch = 1);
	EVENT(.type = CORE_EV_APPLIED, .epoch = 1);
	ASSERT_ACTIONS(CORE_ACT_HAND_OVER, CORE_ACT_KILL_VM);
}

static void test_a_disk_failure_waits_for_the_arbiter(void **state)
{
	protected_primary();
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	EVENT(.type = CORE_EV_DISK_FAILED);
	assert_int_equal(core.nact, 0);
	EVENT(CLAIM, .status = -11);
	assert_int_equal(core.nact, 0);
	EVENT(CLAIM, .status = 0);
	ASSERT_ACTIONS(CORE_ACT_SERVE, CORE_ACT_DISK_ERROR);
	EVENT(.type = CORE_EV_DISK_FAILED);
	ASSERT_ACTIONS(CORE_ACT_DISK_ERROR);
}

static void test_a_secondary_whose_disk_fails_says_so_and_ends(void **state)
{
	protected_secondary();
	EVENT(.type = CORE_EV_DISK_FAILED);
	ASSERT_ACTIONS(CORE_ACT_GOODBYE, CORE_ACT_DROP_PEER, CORE_ACT_KILL_VM, CORE_ACT_EXIT);
	assert_int_equal(core.act[0].loss, CORE_LOSS_DISK);
	assert_int_equal(core.act[3].status, CORE_EXIT_AGAIN);
	assert_int_equal(core.state, CORE_FAILED);
	ready(CORE_SECONDARY);
	EVENT(.type = CORE_EV_DISK_FAILED);
	ASSERT_ACTIONS(CORE_ACT_KILL_VM, CORE_ACT_EXIT);
	protected_secondary();
	EVENT(.type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED);
	EVENT(.type = CORE_EV_DISK_FAILED); /* nobody else can serve */
	assert_int_equal(core.nact, 0);
	assert_int_equal(core.state, CORE_CLAIMING);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_after_the_end_nothing_happens),
		cmocka_unit_test(test_checkpoint),
		cmocka_unit_test(test_answers_out_of_turn_are_ignored),
		cmocka_unit_test(test_wanted_before_the_boundary_is_solved_by_it),
		cmocka_unit_test(test_wanted_after_the_boundary_follows),
		cmocka_unit_test(test_wanted_while_the_first_one_is_under_way),
		cmocka_unit_test(test_periodic),
		cmocka_unit_test(test_failed_harvest_ends_protection),
		cmocka_unit_test(test_failed_first_harvest_costs_the_attempt),
		cmocka_unit_test(test_apply),
		cmocka_unit_test(test_failed_apply_ends_the_node),
		cmocka_unit_test(test_takeover_waits_for_the_apply),
		cmocka_unit_test(test_complete_comes_too_late),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_a_sleeper_is_told),
		cmocka_unit_test(test_a_tick_from_before_the_last_message_is_no_silence),
		cmocka_unit_test(test_unknown_is_not_won),
		cmocka_unit_test(test_the_loser_stops_its_vm),
		cmocka_unit_test(test_both_claim_the_same_generation),
		cmocka_unit_test(test_loss_before_the_first_checkpoint),
		cmocka_unit_test(test_loss_when_the_first_checkpoint_may_be_held),
		cmocka_unit_test(test_pvm_dies),
		cmocka_unit_test(test_handover),
		cmocka_unit_test(test_dismissed),
		cmocka_unit_test(test_operator_failover),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_a_second_peer_is_dropped),
		cmocka_unit_test(test_undecided),
		cmocka_unit_test(test_a_protected_disk_failure_is_handed_over),
		cmocka_unit_test(test_an_unprotected_disk_failure_is_the_guests),
		cmocka_unit_test(test_a_disk_failure_waits_for_the_first_checkpoint),
		cmocka_unit_test(test_a_disk_failure_waits_for_the_arbiter),
		cmocka_unit_test(test_a_secondary_whose_disk_fails_says_so_and_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
