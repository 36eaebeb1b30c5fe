/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * neigh.c - see neigh.h
 *
 * Theory of operation
 *
 * The answers to the PVM's ARP requests, neighbour and router solicitations reach both VMs. A kernel takes
 * such an answer only when it has asked itself, so an SVM that needs a neighbour a little later than the PVM
 * got its answer would stall, a second or more, until it gives up asking: its answers would be missing. So
 * its questions leave, too, if
 *
 *	- it asks as somebody (MAC, address, VLAN) that the PVM has been: neighbours learn the asker's
 *	  address from a question, and a broken SVM must not teach them a wrong one. Probes for duplicate
 *	  addresses ask as nobody, and need no answer;
 *	- no question of either VM about the same address waits for its answer: that will serve both. It does
 *	  not wait any more when the peer's answer was seen, or after ASKED_US, shortly before kernels ask
 *	  again (1 s);
 *	- not more than PER_SECOND have left in this second.
 *
 * Whatever else the SVM says of this kind does not leave, the PVM says the same.
 *
 * Bounds: fixed tables. Addresses take the oldest's place, questions that of another with the same hash;
 * what is forgotten costs a question more or less.
 */
#include <string.h>

#include "neigh.h"

#define ASKED_US 900000u
#define PER_SECOND 64u

enum {
	ETHERTYPE_ARP = 0x0806, ARP_LEN = 28, ARP_REQUEST = 1, ARP_REPLY = 2,
	IP_ICMP6 = 58, ND_RS = 133, ND_RA = 134, ND_NS = 135, ND_NA = 136,
	ND_TARGET = 8, ND_LEN = 24, ND_OPTION = 8, RS_LEN = 8,
};

enum kind { NOTHING, QUESTION, ANSWER };

struct message {
	enum kind kind;
	struct neigh_addr who, about; /* family 0: unknown */
	const uint8_t *mac;           /* whose */
};

static void set_addr(struct neigh_addr *a, const struct frame *f, uint8_t family, const uint8_t *ip)
{
	static const uint8_t none[16];
	size_t n = family == 4 ? 4 : 16;

	memset(a, 0, sizeof(*a));
	if (memcmp(ip, none, n) == 0)
		return;
	memcpy(a->ip, ip, n);
	a->vlan = f->vlan;
	a->family = family;
}

static const uint8_t *eth_source(const struct frame *f)
{
	return f->data + FRAME_ETH + 6;
}

static void read_arp(struct message *m, const struct frame *f)
{
	static const uint8_t ethernet_ip4[6] = { 0, 1, 8, 0, 6, 4 };
	const uint8_t *p = frame_at(f, f->l3, ARP_LEN);
	uint16_t op;

	if (!p || memcmp(p, ethernet_ip4, 6) != 0)
		return;
	op = frame_be16(p + 6);
	m->mac = p + 8;
	set_addr(&m->who, f, 4, p + 14);
	if (op == ARP_REPLY) {
		m->kind = ANSWER;
		m->about = m->who;
	} else if (op == ARP_REQUEST && memcmp(m->mac, eth_source(f), 6) == 0 &&
		   memcmp(p + 14, p + 24, 4) != 0) { /* else it only tells */
		m->kind = QUESTION;
		set_addr(&m->about, f, 4, p + 24);
	}
}

/* the message has n bytes, and behind those at most the asker's link address, which is right */
static bool option_is_right(const struct frame *f, uint32_t n)
{
	const uint8_t *p;

	if (f->body_len == n)
		return true;
	p = frame_at(f, f->body + n, ND_OPTION);
	return p && f->body_len == n + ND_OPTION && p[0] == 1 && p[1] == 1 &&
	       memcmp(p + 2, eth_source(f), 6) == 0;
}

/* routers are asked and answer as one: no target */
static void about_routers(struct message *m, const struct frame *f)
{
	memset(&m->about, 0, sizeof(m->about));
	m->about.vlan = f->vlan;
	m->about.family = 6;
}

static void read_nd(struct message *m, const struct frame *f)
{
	uint8_t type = f->sport >> 8;
	const uint8_t *target = frame_at(f, f->body + ND_TARGET, 16);

	m->mac = eth_source(f);
	set_addr(&m->who, f, 6, f->data + f->l3 + 8);
	if (type == ND_RS || type == ND_RA) {
		m->kind = type == ND_RA ? ANSWER : option_is_right(f, RS_LEN) ? QUESTION : NOTHING;
		about_routers(m, f);
	} else if ((type == ND_NS || type == ND_NA) && target && f->body_len >= ND_LEN) {
		m->kind = type == ND_NA ? ANSWER : option_is_right(f, ND_LEN) ? QUESTION : NOTHING;
		set_addr(&m->about, f, 6, target);
	}
}

static struct message read_message(const struct frame *f)
{
	struct message m = { NOTHING };

	if (f->ethertype == ETHERTYPE_ARP)
		read_arp(&m, f);
	else if (f->family == 6 && f->proto == IP_ICMP6)
		read_nd(&m, f);
	return m;
}

static uint64_t *asked_at(struct neigh *n, const struct neigh_addr *about, bool make)
{
	uint32_t h = about->vlan, w;
	unsigned i;

	for (i = 0; i < 16; i += 4) {
		memcpy(&w, about->ip + i, 4);
		h = (h ^ w) * 0x9e3779b1u;
		h ^= h >> 15;
	}
	i = h % NEIGH_QUESTIONS;
	if (memcmp(&n->asked[i].about, about, sizeof(*about)) != 0) {
		if (!make)
			return NULL;
		n->asked[i].about = *about;
		n->asked[i].time = 0;
	}
	return &n->asked[i].time;
}

static bool is_self(const struct neigh *n, const struct message *m)
{
	for (unsigned i = 0; i < n->nselves; i++)
		if (memcmp(&n->self[i].addr, &m->who, sizeof(m->who)) == 0 &&
		    memcmp(n->self[i].mac, m->mac, 6) == 0)
			return true;
	return false;
}

static void learn_self(struct neigh *n, const struct message *m)
{
	unsigned i = n->next_self;

	if (!m->who.family || is_self(n, m))
		return;
	n->self[i].addr = m->who;
	memcpy(n->self[i].mac, m->mac, 6);
	n->next_self = (i + 1) % NEIGH_SELVES;
	if (n->nselves < NEIGH_SELVES)
		n->nselves++;
}

void neigh_from_pvm(struct neigh *n, const struct frame *f, uint64_t now)
{
	struct message m = read_message(f);

	if (m.kind == NOTHING)
		return;
	learn_self(n, &m);
	if (m.kind == QUESTION)
		*asked_at(n, &m.about, true) = now + 1;
}

void neigh_from_peer(struct neigh *n, const struct frame *f, uint64_t now)
{
	struct message m = read_message(f);
	uint64_t *asked = m.kind == ANSWER ? asked_at(n, &m.about, false) : NULL;

	(void)now;
	if (asked)
		*asked = 0;
}

static bool within_rate(struct neigh *n, uint64_t now)
{
	if (n->second != now / 1000000) {
		n->second = now / 1000000;
		n->in_second = 0;
	}
	return n->in_second++ < PER_SECOND;
}

bool neigh_svm_may_ask(struct neigh *n, const struct frame *f, uint64_t now)
{
	struct message m;
	uint64_t *asked;

	if (f->type != FRAME_PASS)
		return false;
	m = read_message(f);
	if (m.kind != QUESTION || !m.about.family || !m.who.family || !is_self(n, &m))
		return false;
	asked = asked_at(n, &m.about, true);
	if ((*asked && now < *asked + ASKED_US) || !within_rate(n, now))
		return false;
	*asked = now + 1;
	return true;
}
