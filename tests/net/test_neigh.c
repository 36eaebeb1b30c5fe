/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_neigh.c - which of the SVM's own questions to its neighbours leave
 */
#include "dgram_bed.h"

static unsigned svm_asks_arp(uint32_t from, uint32_t target)
{
	give(false, build_arp_of(frame, false, 1, from, target));
	return left();
}

static void test_svm_asks_by_arp(void)
{
	begin();
	CHECK(svm_asks_arp(9, 20) == 0); /* as somebody the PVM never was */
	give(true, build_arp_of(frame, false, 2, 9, 1));
	CHECK(left() == 1);
	CHECK(svm_asks_arp(9, 20) == 1);
	CHECK(svm_asks_arp(9, 20) == 0); /* the answer is to come */
	CHECK(svm_asks_arp(8, 21) == 0);
	CHECK(svm_asks_arp(0, 22) == 0); /* a probe */
	CHECK(svm_asks_arp(9, 9) == 0);  /* an announcement */
	give(true, build_arp_of(frame, false, 1, 9, 23));
	CHECK(left() == 1);
	CHECK(svm_asks_arp(9, 23) == 0); /* the PVM has asked */
	cm_from_client(cm, frame, build_arp_of(frame, true, 2, 23, 9), now);
	CHECK(svm_asks_arp(9, 23) == 1); /* it came too early for the SVM */
	now += 900001;
	CHECK(svm_asks_arp(9, 20) == 1);
	give(false, build_arp_of(frame, false, 2, 9, 1)); /* an answer */
	CHECK(left() == 0);
	frame[VNET_HLEN + 14 + 8 + 5] ^= 1; /* another's MAC */
	frame[VNET_HLEN + 6 + 5] ^= 1;
	frame[VNET_HLEN + 14 + 7] = 1;
	give(false, VNET_HLEN + 14 + 28);
	CHECK(left() == 0);
	finish();
}

static void test_svm_asks_by_nd(void)
{
	begin();
	give(false, build_nd(frame, false, 135, 1, 20));
	CHECK(left() == 0);
	give(true, build_nd(frame, false, 136, 1, 1));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 135, 1, 20));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 135, 1, 20));
	give(false, build_nd(frame, false, 135, 0, 1)); /* is this address free? */
	CHECK(left() == 0);
	cm_from_client(cm, frame, build_nd(frame, true, 136, 20, 20), now);
	give(false, build_nd(frame, false, 135, 1, 20));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 133, 1, 0));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 133, 1, 0));
	CHECK(left() == 0);
	cm_from_client(cm, frame, build_nd(frame, true, 134, 3, 0), now);
	give(false, build_nd(frame, false, 133, 1, 0));
	CHECK(left() == 1);
	give(false, build_nd(frame, false, 136, 1, 1));
	give(false, build_nd(frame, false, 143, 1, 1));
	CHECK(left() == 0);
	finish();
}

static void test_svm_asks_with_a_wrong_option(void)
{
	begin();
	give(true, build_nd(frame, false, 136, 1, 1));
	bed_new(&bed);
	build_nd(frame, false, 135, 1, 20);
	frame[VNET_HLEN + 14 + 40 + 24 + 7] ^= 1; /* the link address it teaches */
	give(false, VNET_HLEN + 14 + 40 + 32);
	CHECK(left() == 0);
	finish();
}

/* a place in the table that another question takes is no answer to it */
static void test_svm_asks_for_many(void)
{
	begin();
	give(true, build_arp_of(frame, false, 1, 9, 1));
	CHECK(left() == 1);
	for (uint32_t i = 100; i < 160; i++)
		CHECK(svm_asks_arp(9, i) == 1);
	finish();
}

static void test_last_addresses_of_the_pvm(void)
{
	begin();
	for (uint32_t i = 1; i <= 20; i++)
		give(true, build_arp_of(frame, false, 2, i, 1));
	CHECK(left() == 20);
	for (uint32_t i = 1; i <= 20; i++)
		CHECK(svm_asks_arp(i, 100 + i) == (i > 4));
	finish();
}

static void test_svm_asks_in_the_pvms_vlan(void)
{
	static const struct ip_spec vlan = { .tags = 1, .vid = { 5 } };
	uint8_t arp[28];
	size_t n = build_arp_of(frame, false, 1, 9, 20);

	begin();
	memcpy(arp, frame + n - 28, 28);
	give(true, n);
	CHECK(left() == 1);
	arp[27]++;
	give(false, build_raw(frame, NULL, &vlan, 0x0806, arp, 28));
	CHECK(left() == 0); /* the PVM never was there */
	give(true, build_raw(frame, NULL, &vlan, 0x0806, arp, 28));
	CHECK(left() == 1);
	arp[27]++;
	give(false, build_raw(frame, NULL, &vlan, 0x0806, arp, 28));
	CHECK(left() == 1);
	give(false, build_raw(frame, NULL, &vlan, 0x0806, arp, 27));
	CHECK(left() == 0);
	finish();
}

static void test_svm_asks_not_too_often(void)
{
	unsigned n = 0;

	begin();
	give(true, build_arp_of(frame, false, 1, 9, 1));
	bed_new(&bed);
	for (uint32_t i = 100; i < 1000; i++)
		n += svm_asks_arp(9, i);
	CHECK(n == 64);
	now += 1000000;
	CHECK(svm_asks_arp(9, 1) == 1);
	finish();
}

int main(void)
{
	test_svm_asks_by_arp();
	test_svm_asks_by_nd();
	test_svm_asks_with_a_wrong_option();
	test_svm_asks_for_many();
	test_last_addresses_of_the_pvm();
	test_svm_asks_in_the_pvms_vlan();
	test_svm_asks_not_too_often();
	puts("ok");
	return 0;
}
