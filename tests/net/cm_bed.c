/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * cm_bed.c - see cm_bed.h
 */
#include "cm_bed.h"

struct bed bed;
struct cm *cm;
uint64_t now, epoch;
uint8_t frame[NET_FRAME_MAX];

struct tcp_spec spec(uint32_t seq, const char *data, uint32_t ack)
{
	return (struct tcp_spec){ .gport = G, .pport = P, .seq = seq, .ack = ack, .flags = F_ACK,
		.tsval = 1000 + (uint32_t)(now / 1000), .tsecr = 1, .data = data, .len = strlen(data) };
}

void pvm_spec(const struct tcp_spec *s)
{
	cm_from_pvm(cm, frame, build_tcp(frame, s), now);
}

void svm_spec(const struct tcp_spec *s)
{
	cm_from_svm(cm, epoch, frame, build_tcp(frame, s), now);
}

void peer_spec(struct tcp_spec s)
{
	s.to_guest = true;
	cm_from_client(cm, frame, build_tcp(frame, &s), now);
}

void pvm(uint32_t seq, const char *data, uint32_t ack)
{
	struct tcp_spec s = spec(seq, data, ack);

	pvm_spec(&s);
}

void svm(uint32_t seq, const char *data, uint32_t ack)
{
	struct tcp_spec s = spec(seq, data, ack);

	s.window = 77;
	s.ipid = 9;
	svm_spec(&s);
}

void flagged(bool from_pvm, uint32_t seq, const char *data, uint32_t ack, uint8_t flags)
{
	struct tcp_spec s = spec(seq, data, ack);

	s.flags = flags;
	if (flags & F_SYN) {
		s.mss = 1460;
		s.tsval += from_pvm ? 0 : 555;
	}
	from_pvm ? pvm_spec(&s) : svm_spec(&s);
}

void begin_with(const struct cm_config *cfg)
{
	bed_init(&bed, cfg);
	cm = bed.cm;
	now = 1000000;
	epoch = 1;
}

void begin(void)
{
	begin_with(NULL);
}

void connect_both(void)
{
	flagged(true, 1000, "", 5001, F_SYN | F_ACK);
	flagged(false, 77000, "", 5001, F_SYN | F_ACK);
	CHECK(bed_new(&bed) == 1);
}

void end(void)
{
	struct cm_stats st;

	cm_get_stats(cm, &st);
	CHECK(st.released == bed.n);
	bed_fini(&bed);
}

void checkpoint(void)
{
	cm_boundary(cm, ++epoch, now);
	cm_held(cm, epoch, now);
}
