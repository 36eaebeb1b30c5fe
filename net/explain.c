/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * explain.c - what the comparing module waits for, in words
 */
#include <stdbool.h>
#include <stdio.h>

#include "cm_priv.h"

static int put_flow(char *text, size_t size, const struct frame *f)
{
	const uint8_t *ip = f->data + f->l3;

	if (f->family != 4)
		return snprintf(text, size, "ethertype %04x", f->ethertype);
	return snprintf(text, size, "%u.%u.%u.%u:%u to %u.%u.%u.%u:%u", ip[12], ip[13], ip[14], ip[15],
			f->sport, ip[16], ip[17], ip[18], ip[19], f->dport);
}

static void put_tcp(char *text, size_t size, const struct flow *fl, const struct buf *b)
{
	const struct tcp_state *t = &fl->tcp;

	snprintf(text, size, "%s%s%s%s, %u bytes from %+d to %+d of what matched, acknowledgement %+d of the "
		 "allowed, SVM ahead %u bytes%s%s%s",
		 b->flags & TCP_SYN ? " SYN" : "", b->flags & TCP_FIN ? " FIN" : "",
		 b->flags & TCP_RST ? " RST" : "", fl->bad ? " differs" : "", b->body_len,
		 (int32_t)(b->seq - t->matched), (int32_t)(b->end - t->matched),
		 (int32_t)(b->ack - t->ack_ok), fl->said_bytes, t->known & T_SVM_FIN ? ", SVM's FIN is there" : "",
		 t->known & T_SYN_WAIT ? ", SVM's SYN is missing" : "",
		 t->known & T_ACK_OK ? "" : ", no acknowledgement of the SVM");
}

void cm_explain(const struct cm *cm, uint64_t now, char *text, size_t size)
{
	const struct buf *frame = cm->age.head, *ack = cm->acks.head;
	bool owed = ack && (!frame || ack->time < frame->time);
	const struct buf *b = owed ? ack : frame;
	const struct flow *fl;
	struct flow_key k;
	struct frame f;
	int n;

	snprintf(text, size, "nothing is held");
	if (!b)
		return;
	frame_parse(&f, b->data, b->len);
	flow_key_from_guest(&k, &f);
	fl = (const struct flow *)flow_find(&cm->flows, &k);
	n = snprintf(text, size, "%s %llu ms old of ", owed ? "owed acknowledgement" : "frame",
		     (unsigned long long)(now - b->time) / 1000);
	if (n < (int)size)
		n += put_flow(text + n, size - n, &f);
	if (fl && f.type == FRAME_TCP && n < (int)size)
		put_tcp(text + n, size - n, fl, b);
}
