/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * dgram_cmp.c - compare whatever is not TCP, datagram by datagram
 *
 * Theory of operation
 *
 * A flow (addresses, ports or ICMP id or type) is two queues of which at most one is not empty: the
 * PVM's held frames, or the SVM's bodies. The heads are compared; alike: the PVM's frame leaves;
 * different: the flow is bad until the next boundary. The body is the payload (frame.h), and for a
 * fragment its offset: IP id, TTL and checksums do not count. The SVM's queue is bounded.
 */
#include <string.h>

#include "cm_priv.h"

static bool same_body(const struct frame *f, const struct buf *b)
{
	return f->body_len == b->body_len && f->frag == b->seq &&
	       memcmp(f->data + f->body, b->data + b->off, b->body_len) == 0;
}

static void hold(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	struct buf *b = cm_hold(cm, f, now);

	if (!b)
		return;
	b->seq = f->frag;
	buf_append(&fl->held, b);
	cm_busy(cm, fl);
}

void dgram_from_pvm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	struct buf *b = fl->said.head;

	if (fl->bad || !b) {
		hold(cm, fl, f, now);
		return;
	}
	if (!same_body(f, b)) {
		cm_mismatch(cm, fl, CM_KIND_DATAGRAM);
		hold(cm, fl, f, now);
		return;
	}
	buf_unlink(&fl->said, b);
	fl->said_bytes -= b->room;
	pool_put(&cm->pool, b);
	cm->stats.matched_bytes += f->body_len;
	cm_lag(cm, now, now);
	cm_emit(cm, f->data, f->len);
}

/* the whole buffer counts: many small datagrams must not take unbounded memory */
static void keep(struct cm *cm, struct flow *fl, const struct frame *f)
{
	struct buf *b;

	if (fl->said_bytes >= CM_AHEAD_MAX) {
		cm->stats.dropped++;
		cm_full(cm, CM_KIND_AHEAD);
		return;
	}
	b = cm_keep(cm, fl, f->body_len);
	if (!b)
		return;
	memcpy(b->data, f->data + f->body, f->body_len);
	b->body_len = f->body_len;
	b->seq = f->frag;
	fl->said_bytes += b->room;
	buf_append(&fl->said, b);
}

void dgram_from_svm(struct cm *cm, struct flow *fl, const struct frame *f, uint64_t now)
{
	struct buf *b = fl->held.head;

	if (fl->bad)
		return;
	if (!b) {
		keep(cm, fl, f);
		return;
	}
	if (!same_body(f, b)) {
		cm_mismatch(cm, fl, CM_KIND_DATAGRAM);
		return;
	}
	cm->stats.matched_bytes += f->body_len;
	cm_lag(cm, b->time, now);
	cm_let_go(cm, fl, b);
}
