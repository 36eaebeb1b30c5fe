/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * peers.c - TCP segments of the peers, noted by the dozen
 *
 * A peer's segment only tells the state of its connection, and nothing waits for it before the guest's next
 * frame. But it is nearly always the first of a request and its two answers, so it is the one that finds its
 * flow in no cache, with two accesses to memory of which one tells where the other goes. Requests come
 * in bursts, the host being busy: so segments are kept here until another entry point is called or
 * CM_PEERS are there, and then all look for their flows at once. Each keeps the time it came at.
 */
#include "cm_priv.h"

void peers_note(struct cm *cm, uint64_t now)
{
	struct peer_segment *p = &cm->peers[cm->npeers++];

	flow_key_to_guest(&p->key, &p->frame);
	p->hash = flow_hash(&cm->flows, &p->key);
	flow_prefetch_slot(&cm->flows, p->hash);
	p->frame.data = NULL; /* it is the caller's */
	p->time = now;
	if (cm->npeers == CM_PEERS || p->frame.flags & (TCP_SYN | TCP_FIN | TCP_RST))
		peers_tell(cm);
}

void peers_tell_now(struct cm *cm)
{
	unsigned n = cm->npeers;

	cm->npeers = 0;
	for (unsigned i = 0; n > 1 && i < n; i++)
		flow_prefetch(&cm->flows, cm->peers[i].hash);
	for (unsigned i = 0; i < n; i++) {
		const struct peer_segment *p = &cm->peers[i];
		struct flow_node *fl = flow_find_hashed(&cm->flows, &p->key, p->hash);

		if (!fl)
			continue;
		flow_touch(&cm->flows, fl, p->time);
		cm_sync(cm, (struct flow *)fl);
		tcp_from_peer(cm, (struct flow *)fl, &p->frame, p->time);
	}
}
