/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * prop_tr.c - two guests open the same connections with other ports and numbers: the translator never mixes them
 *
 * Models of the PVM and the SVM run one program: open a connection to one of a few destinations, close one.
 * Each picks ports (of few, so that they are used again and crosswise), ISNs and timestamps of its own,
 * and goes on at its own pace. What the PVM opens, and what the LAN sends, reaches the translator in
 * order but late; checkpoints make the SVM a copy of the PVM; in the end the SVM goes on alone.
 * An oracle knows which connection has which name on the LAN and inside, and demands
 *
 *	from the SVM   a frame comes out with the PVM's port, numbers and timestamp, or, while the PVM has not
 *	               opened that connection or uses its port for another, not at all
 *	to the SVM     a frame comes out with the SVM's port and numbers, or, when the SVM uses the port for
 *	               another connection, not at all
 *	after failover connections keep their names, new ones get a name that no live one has
 *
 * and that a frame comes out wherever it can. prop_tr [SEED [SCENARIOS]]: scenario i uses SEED + i.
 */
#include "net_test.h"

enum { DESTS = 4, PORTS = 9, OPEN_MAX = 6, CONNS = 200, OPS = 400, QUEUE = 64, LEAD = 7, STEPS = 500, NONE = -1,
	BUMP = 50, FIRST_PORT = 30000 };

struct end { /* a connection as one guest has it */
	bool opened, live;
	uint16_t port;
	uint32_t isn, ts;
};

struct conn {
	int dest;
	struct end p, s;
	bool out;       /* its SYN has come out */
	bool old;       /* older than the checkpoint */
	bool lost;      /* at failover the LAN had another at its port, or never heard of it */
	uint16_t lan;   /* after failover: port on the LAN */
	uint32_t lan_isn, lan_ts;
};

struct op {
	bool open;
	int conn;
};

struct msg { /* to the translator */
	bool syn;
	int conn;
};

static struct rnd rnd;
static struct tr *tr;
static struct conn conns[CONNS];
static struct op ops[OPS];
static int nconns, nops, pi, si;
static int open_now[DESTS]; /* by the program */
static struct msg queue[QUEUE];
static int nqueue;
static int pname[DESTS][PORTS], sname[DESTS][PORTS]; /* whose port is it, as far as the translator was told? */
static bool alone;
static uint64_t now;
static uint8_t frame[4096];
static size_t len;
static uint64_t total_pairs, total_moved, total_new, total_dropped, total_checked;

static bool chance(uint32_t percent)
{
	return rnd_below(&rnd, 100) < percent;
}

static int *name_of(int names[DESTS][PORTS], int dest, uint16_t port)
{
	CHECK(port >= FIRST_PORT && port < FIRST_PORT + PORTS);
	return &names[dest][port - FIRST_PORT];
}

static struct tcp_spec spec(int dest, uint16_t gport)
{
	return (struct tcp_spec){ .gport = gport, .pport = dest == 1 ? 81 : 80, .peer = dest == 2, .v6 = dest == 1,
		.vlan = dest == 3, .odd_ts = chance(50), .data = "abc", .len = 3 };
}

/* --- the oracle --- */

/* what comes out of the SVM's connection c */
static void check_out(struct conn *c, const uint8_t *f, size_t n, bool syn, uint32_t off)
{
	uint16_t port = alone ? c->lan : c->p.port;
	uint32_t isn = alone ? c->lan_isn : c->p.isn, ts = alone ? c->lan_ts : c->p.ts;
	struct seg s;

	CHECK(checksums_ok(f, n) && parse_seg(f, n, false, &s));
	CHECK(s.gport == port && s.seq == isn + off && s.tsval == ts + off + (alone ? BUMP : 0));
	CHECK(!!(s.flags & F_SYN) == syn && s.pport == spec(c->dest, 1).pport);
	total_checked++;
}

static bool lan_name_is_free(const struct conn *c)
{
	for (int i = 0; i < nconns; i++)
		if (&conns[i] != c && conns[i].s.live && !conns[i].lost && conns[i].dest == c->dest &&
		    conns[i].lan == c->lan)
			return false;
	return true;
}

/* after failover: the SYN of a connection that has no name yet */
static void learn_name(struct conn *c, const uint8_t *f, size_t n)
{
	struct seg s;

	CHECK(parse_seg(f, n, false, &s));
	if (!c->lan) {
		c->lan = s.gport;
		c->lan_isn = c->s.isn;
		c->lan_ts = c->s.ts;
		c->lost = false;
		total_new++;
		total_moved += c->lan != c->s.port;
	}
	CHECK(lan_name_is_free(c));
	check_out(c, f, n, true, 0);
}

static struct conn *by_isn(uint32_t isn, bool svm)
{
	for (int i = nconns; i-- > 0;)
		if ((svm ? conns[i].s.isn : conns[i].p.isn) == isn)
			return &conns[i];
	CHECK(!"a known connection");
	return NULL;
}

static void on_waited(void *opaque, const uint8_t *f, size_t n)
{
	struct conn *c;
	struct seg s;

	(void)opaque;
	CHECK(parse_seg(f, n, false, &s) && (s.flags & F_SYN));
	c = by_isn(s.seq, alone);
	if (alone) {
		CHECK(c->s.opened);
		learn_name(c, f, n);
		return;
	}
	CHECK(c->s.opened && !c->out && *name_of(pname, c->dest, c->p.port) == c - conns);
	c->out = true;
	total_pairs++;
	check_out(c, f, n, true, 0);
}

/* --- the SVM's frames --- */

static bool give_svm(struct conn *c, uint8_t flags, uint32_t off)
{
	struct tcp_spec s = spec(c->dest, c->s.port);

	s.flags = flags;
	s.seq = c->s.isn + off;
	s.tsval = c->s.ts + off;
	s.len = flags & F_SYN ? 0 : 3;
	s.odd_ts &= !(flags & F_SYN); /* the VMs' SYNs have the same options */
	len = build_tcp(frame, &s);
	return tr_from_svm(tr, frame, len, now);
}

static void svm_syn(struct conn *c)
{
	bool known = *name_of(pname, c->dest, c->p.opened ? c->p.port : FIRST_PORT) == c - conns && c->p.opened;
	bool passes = give_svm(c, F_SYN, 0);

	if (alone) {
		CHECK(passes);
		learn_name(c, frame, len);
		return;
	}
	CHECK(passes == known);
	if (!passes)
		return;
	total_pairs += !c->out;
	c->out = true;
	check_out(c, frame, len, true, 0);
}

static void svm_data(struct conn *c)
{
	uint32_t off = 1 + rnd_below(&rnd, 1000);
	bool known = alone ? !c->lost : *name_of(pname, c->dest, c->p.port) == c - conns;
	struct seg s;

	if (!give_svm(c, F_ACK, off)) {
		CHECK(!known);
		total_dropped++;
	} else if (known) {
		check_out(c, frame, len, false, off);
	} else {
		CHECK(alone && parse_seg(frame, len, false, &s)); /* may leave, but not as a live one's */
		for (int i = 0; i < nconns; i++)
			CHECK(!conns[i].s.live || conns[i].lost || conns[i].dest != c->dest || conns[i].lan != s.gport);
	}
}

/* --- the LAN's frames --- */

static bool give_lan(struct conn *c, uint16_t port, uint8_t flags, uint32_t isn, uint32_t ts, uint32_t off)
{
	struct tcp_spec s = spec(c->dest, port);

	s.to_guest = true;
	s.flags = flags;
	s.seq = 1;
	s.ack = isn + off;
	s.tsval = 1;
	s.tsecr = ts + off;
	len = build_tcp(frame, &s);
	return tr_to_svm(tr, frame, len, now);
}

static void check_in(const struct conn *c, uint32_t off)
{
	struct seg s;

	CHECK(checksums_ok(frame, len) && parse_seg(frame, len, true, &s));
	CHECK(s.gport == c->s.port && s.ack == c->s.isn + off && s.tsecr == c->s.ts + off);
	total_checked++;
}

static void lan_data(struct conn *c)
{
	uint32_t off = 1 + rnd_below(&rnd, 1000);
	bool both = *name_of(sname, c->dest, c->s.port) == c - conns;

	if (*name_of(pname, c->dest, c->p.port) != c - conns)
		return; /* nobody can tell it from the new connection there */
	CHECK(give_lan(c, c->p.port, F_ACK, c->p.isn, c->p.ts, off) == both);
	if (both)
		check_in(c, off);
	else
		total_dropped++;
}

/* a SYN of the LAN's reaches the connection of that name, or no live one */
static void lan_syn_alone(int dest, uint16_t port)
{
	struct conn *any = &conns[0], *c = NULL;
	int keep = any->dest;
	bool passes;
	struct seg s;

	for (int i = 0; i < nconns; i++)
		if (conns[i].s.live && !conns[i].lost && conns[i].dest == dest && conns[i].lan == port)
			c = &conns[i];
	any->dest = dest;
	passes = give_lan(any, port, F_SYN, 0, 0, 0);
	any->dest = keep;
	if (c)
		CHECK(passes);
	if (!passes)
		return;
	CHECK(parse_seg(frame, len, true, &s));
	for (int i = 0; i < nconns; i++)
		if (conns[i].s.live && conns[i].dest == dest && conns[i].s.port == s.gport)
			CHECK(&conns[i] == c || conns[i].lost);
}

static void lan_data_alone(struct conn *c)
{
	uint32_t off = 1 + rnd_below(&rnd, 1000);

	CHECK(give_lan(c, c->lan, F_ACK, c->lan_isn, c->lan_ts + BUMP, off));
	check_in(c, off);
}

/* --- the guests --- */

static uint16_t free_port(int dest, bool svm)
{
	uint16_t port;
	bool used;

	do {
		port = (uint16_t)(FIRST_PORT + rnd_below(&rnd, PORTS));
		used = false;
		for (int i = 0; i < nconns; i++) {
			struct end *e = svm ? &conns[i].s : &conns[i].p;

			used |= e->live && conns[i].dest == dest && e->port == port;
		}
	} while (used);
	return port;
}

static void open_end(struct conn *c, bool svm)
{
	struct end *e = svm ? &c->s : &c->p;

	e->port = free_port(c->dest, svm);
	e->opened = e->live = true;
	e->isn = (uint32_t)rnd_next(&rnd);
	e->ts = 1 + (uint32_t)rnd_next(&rnd) / 2;
}

static void push(bool syn, int conn)
{
	if (nqueue < QUEUE)
		queue[nqueue++] = (struct msg){ syn, conn };
	else
		CHECK(!syn);
}

/* the program goes on */
static void make_op(void)
{
	int c = (int)rnd_below(&rnd, CONNS), dest = (int)rnd_below(&rnd, DESTS);

	CHECK(nops < OPS);
	if (nconns < CONNS && open_now[dest] < OPEN_MAX && chance(60)) {
		conns[nconns] = (struct conn){ .dest = dest };
		ops[nops++] = (struct op){ true, nconns++ };
		open_now[dest]++;
		return;
	}
	for (int i = 0; i < nops; i++)
		if (!ops[i].open && ops[i].conn == c)
			return;
	if (c >= nconns)
		return;
	ops[nops++] = (struct op){ false, c };
	open_now[conns[c].dest]--;
}

static void pvm_step(void)
{
	struct conn *c;

	if (pi == nops)
		make_op();
	if (pi == nops || pi - si > LEAD || nqueue > QUEUE / 2)
		return;
	c = &conns[ops[pi].conn];
	if (ops[pi++].open) {
		open_end(c, false);
		push(true, (int)(c - conns));
	} else {
		c->p.live = false;
	}
}

static void svm_step(void)
{
	struct conn *c;

	if (si == nops)
		make_op();
	if (si == nops || (!alone && si - pi > LEAD))
		return;
	c = &conns[ops[si].conn];
	if (!ops[si++].open) {
		c->s.live = false;
		return;
	}
	open_end(c, true);
	*name_of(sname, c->dest, c->s.port) = (int)(c - conns);
	svm_syn(c);
}

static void deliver(void)
{
	struct msg m = queue[0];
	struct conn *c = &conns[m.conn];
	struct tcp_spec s = spec(c->dest, c->p.port);

	if (!nqueue)
		return;
	memmove(queue, queue + 1, (size_t)--nqueue * sizeof(queue[0]));
	if (!m.syn) {
		lan_data(c);
		return;
	}
	*name_of(pname, c->dest, c->p.port) = m.conn;
	s.flags = F_SYN;
	s.seq = c->p.isn;
	s.tsval = c->p.ts;
	s.len = 0;
	s.odd_ts = false;
	for (uint32_t i = rnd_below(&rnd, 5) ? 1 : 2; i; i--) {
		len = build_tcp(frame, &s);
		tr_pvm_syn(tr, frame, len, now);
	}
}

/* traffic of one connection */
static void talk(void)
{
	struct conn *c = &conns[rnd_below(&rnd, nconns ? (uint32_t)nconns : 1)];

	if (alone && chance(20)) {
		lan_syn_alone((int)rnd_below(&rnd, DESTS), (uint16_t)(FIRST_PORT + rnd_below(&rnd, PORTS)));
		return;
	}
	if (!c->s.live)
		return;
	if (alone && !c->lost && chance(50))
		lan_data_alone(c);
	else if (!c->old && chance(20) && !(alone && c->lost))
		svm_syn(c); /* again */
	else if (c->out || c->old)
		svm_data(c);
	if (!alone && (c->out || c->old) && c->p.live)
		push(false, (int)(c - conns));
}

static void forget_names(void)
{
	for (int d = 0; d < DESTS; d++)
		for (int i = 0; i < PORTS; i++)
			pname[d][i] = sname[d][i] = NONE;
}

static void checkpoint(void)
{
	tr_reset(tr);
	si = pi;
	nqueue = 0;
	forget_names();
	for (int i = 0; i < nconns; i++) {
		conns[i].s = conns[i].p;
		conns[i].out = false;
		conns[i].old = conns[i].p.opened;
		if (!conns[i].p.live)
			continue;
		*name_of(pname, conns[i].dest, conns[i].p.port) = i;
		*name_of(sname, conns[i].dest, conns[i].p.port) = i;
	}
}

static void failover(void)
{
	struct tr_stats st;

	for (int i = 0; i < nconns; i++) {
		struct conn *c = &conns[i];

		c->lost = !c->p.opened || *name_of(pname, c->dest, c->p.port) != i || !(c->out || c->old);
		c->lan = c->lost ? 0 : c->p.port;
		c->lan_isn = c->p.isn;
		c->lan_ts = c->p.ts;
		if (c->s.live && c->lost && (c->out || c->old))
			c->old = true; /* does not repeat its SYN */
	}
	alone = true;
	nqueue = 0;
	tr_failover(tr, BUMP);
	tr_get_stats(tr, &st);
	CHECK(st.waiting_syns == 0);
	for (int i = 0; i < nconns; i++) /* its SYN has come out now, or it never opened */
		CHECK(!conns[i].s.live || conns[i].lan || conns[i].old || conns[i].p.opened);
}

static void scenario(void)
{
	static const struct tr_ops tr_ops = { on_waited };
	struct tr_config cfg = { .max_flows = 500, .hash_seed = test_seed };
	uint32_t fail_at = rnd_below(&rnd, STEPS), pace = 20 + rnd_below(&rnd, 60);

	tr = tr_new(&cfg, &tr_ops, NULL);
	CHECK(tr);
	nconns = nops = pi = si = nqueue = 0;
	memset(open_now, 0, sizeof(open_now));
	forget_names();
	alone = false;
	for (uint32_t i = 0; i < STEPS && nops + 2 < OPS && nconns < CONNS; i++) {
		now += 100;
		if (i == fail_at)
			failover();
		if (!alone && chance(30) && chance(pace))
			pvm_step();
		if (chance(20))
			svm_step();
		if (!alone && chance(pace))
			deliver();
		if (nconns)
			talk();
		if (!alone && chance(1))
			checkpoint();
	}
	tr_free(tr);
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed_from(argc, argv);
	int scenarios = argc > 2 ? atoi(argv[2]) : 4000;

	for (int i = 0; i < scenarios; i++) {
		test_seed = rnd.s = seed + (uint64_t)i;
		scenario();
	}
	printf("%d scenarios, %llu connections paired, %llu opened after failover (%llu at another port), "
	       "%llu frames right, %llu rightly dropped\n", scenarios, (unsigned long long)total_pairs,
		(unsigned long long)total_new, (unsigned long long)total_moved,
		(unsigned long long)total_checked, (unsigned long long)total_dropped);
	CHECK(scenarios < 1000 || (total_pairs > 1000 && total_moved > 100 && total_dropped > 100));
	return 0;
}
