/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dgram_bed.c - see dgram_bed.h
 */
#include "dgram_bed.h"

static uint8_t payload[2000];

struct cm_stats stats(void)
{
	struct cm_stats st;

	cm_get_stats(cm, &st);
	return st;
}

void finish(void)
{
	checkpoint();
	CHECK(stats().released == bed.n && stats().held_packets == 0 && stats().held_bytes == 0);
	CHECK(inside_keeps_nothing(cm));
	bed_fini(&bed);
}

void give(bool from_pvm, size_t n)
{
	from_pvm ? cm_from_pvm(cm, frame, n, now) : cm_from_svm(cm, epoch, frame, n, now);
}

void give_ip(bool from_pvm, struct ip_spec s)
{
	s.id = from_pvm ? 100 : 200;
	s.ttl = from_pvm ? 64 : 63;
	give(from_pvm, build_ip(frame, &s));
}

void pvm_ip(struct ip_spec s)
{
	give_ip(true, s);
}

void svm_ip(struct ip_spec s)
{
	give_ip(false, s);
}

struct ip_spec udp_spec(const char *text, bool v6)
{
	return (struct ip_spec){ .v6 = v6, .proto = 17, .payload = payload,
		.len = put_udp(payload, G, P, text, strlen(text), 0) };
}

void pvm_says(const char *text)
{
	pvm_ip(udp_spec(text, false));
}

void svm_says(const char *text)
{
	svm_ip(udp_spec(text, false));
}

void request(void)
{
	struct ip_spec s = { .to_guest = true, .proto = 17, .payload = payload,
		.len = put_udp(payload, P, G, "?", 1, 0) };

	cm_from_client(cm, frame, build_ip(frame, &s), now);
}

unsigned left(void)
{
	CHECK(bed.wants == 0);
	return bed_new(&bed);
}
