/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * prop_tr.c - two guests open the same connections with other ports and numbers: the translator never mixes them
 *
 * Models of the PVM and the SVM run one program: open a connection to one of a few destinations, close one.
 * Each picks ports (of few, so that they are used again and crosswise), ISNs and timestamps of its own,
 * and goes on at its own pace. What the PVM opens, and what the LAN sends, reaches the translator in
 * order but late; checkpoints make the SVM a copy of the PVM; the SVM goes on alone, and after a while it is
 * the PVM of another SVM, behind its own translator, whose table is the base of the other's; and so on.
 * An oracle knows which connection has which name on the LAN and inside, and demands
 *
 *	from the SVM   a frame comes out with the LAN's port, numbers and timestamp, or, while the PVM has not
 *	               opened that connection or uses its port for another, not at all
 *	from the PVM   with the LAN's, always; to the PVM, with its own
 *	to the SVM     a frame comes out with the SVM's port and numbers, or, when the SVM uses the port for
 *	               another connection, not at all
 *	after failover connections keep their names, new ones get a name that no live one has
 *
 * and that a frame comes out wherever it can. prop_tr [SEED [SCENARIOS]]: scenario i uses SEED + i.
 */
#include "net_test.h"

enum { DESTS = 4, PORTS = 9, OPEN_MAX = 6, CONNS = 400, OPS = 800, QUEUE = 64, LEAD = 7, STEPS = 1200, NONE = -1,
	BUMP = 50, FIRST_PORT = 30000 };

struct end { /* a connection as one guest has it */
	bool opened, live;
	uint16_t port;
	uint32_t isn, ts;
};

struct conn {
	int dest;
	struct end p, s, lan; /* as PVM, SVM and LAN have it; lan.opened: the LAN has heard of it */
	bool out;       /* its SYN has come out */
	bool old;       /* older than the checkpoint */
	bool lost;      /* at failover the LAN had another at its port, or never heard of it */
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
static struct tr *tr;  /* the SVM's */
static struct tr *ptr; /* the PVM's, if it has survived a failover; or NULL */
static struct conn conns[CONNS];
static struct op ops[OPS];
static int nconns, nops, pi, si;
static int open_now[DESTS]; /* by the program */
static struct msg queue[QUEUE];
static int nqueue;
static int pname[DESTS][PORTS], sname[DESTS][PORTS]; /* whose port is it, as far as the translator was told? */
static bool alone, base_anew;
static uint32_t bump;
static uint64_t now;
static uint8_t frame[4096];
static size_t len;
static uint64_t total_rounds, total_pairs, total_moved, total_new, total_dropped, total_checked;

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

/* what comes out of connection c, of either VM */
static void check_out(struct conn *c, const uint8_t *f, size_t n, bool syn, uint32_t off)
{
	struct seg s;

	CHECK(checksums_ok(f, n) && parse_seg(f, n, false, &s));
	CHECK(s.gport == c->lan.port && s.seq == c->lan.isn + off && s.tsval == c->lan.ts + off);
	CHECK(!!(s.flags & F_SYN) == syn && s.pport == spec(c->dest, 1).pport);
	total_checked++;
}

/* svm: it serves, otherwise the PVM */
static bool lan_name_is_free(const struct conn *c, bool svm)
{
	for (int i = 0; i < nconns; i++)
		if (&conns[i] != c && (svm ? conns[i].s.live : conns[i].p.live) && !conns[i].lost &&
		    conns[i].lan.opened && conns[i].dest == c->dest && conns[i].lan.port == c->lan.port)
			return false;
	return true;
}

/* the SYN of a connection that may have no name yet, of the VM that serves */
static void learn_name(struct conn *c, const struct end *e, const uint8_t *f, size_t n)
{
	struct seg s;

	CHECK(parse_seg(f, n, false, &s));
	if (!c->lan.opened) {
		c->lan = (struct end){ .opened = true, .port = s.gport, .isn = e->isn, .ts = e->ts + bump };
		c->lost = false;
		total_new += alone;
		total_moved += c->lan.port != e->port;
	}
	CHECK(lan_name_is_free(c, alone));
	check_out(c, f, n, true, 0);
}

static struct conn *by_isn(uint32_t isn, bool svm)
{
	for (int i = nconns; i-- > 0;)
		if ((svm ? conns[i].s.isn : conns[i].lan.isn) == isn)
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
		learn_name(c, &c->s, f, n);
		return;
	}
	CHECK(c->s.opened && !c->out && *name_of(pname, c->dest, c->lan.port) == c - conns);
	c->out = true;
	total_pairs++;
	check_out(c, f, n, true, 0);
}

/* --- the VMs' frames --- */

static void build_out(const struct conn *c, const struct end *e, uint8_t flags, uint32_t off)
{
	struct tcp_spec s = spec(c->dest, e->port);

	s.flags = flags;
	s.seq = e->isn + off;
	s.tsval = e->ts + off;
	s.len = flags & F_SYN ? 0 : 3;
	s.odd_ts &= !(flags & F_SYN); /* the VMs' SYNs have the same options */
	len = build_tcp(frame, &s);
}

static bool give_svm(struct conn *c, uint8_t flags, uint32_t off)
{
	build_out(c, &c->s, flags, off);
	return tr_from_svm(tr, frame, len, now);
}

/* leaves frame as the comparing module gets it */
static void give_pvm(struct conn *c, uint8_t flags, uint32_t off)
{
	build_out(c, &c->p, flags, off);
	CHECK(!ptr || tr_from_svm(ptr, frame, len, now));
}

static void pvm_data(struct conn *c)
{
	uint32_t off = 1 + rnd_below(&rnd, 1000);

	give_pvm(c, F_ACK, off);
	check_out(c, frame, len, false, off);
}

static void svm_syn(struct conn *c)
{
	bool known = c->lan.opened && *name_of(pname, c->dest, c->lan.port) == c - conns;
	bool passes = give_svm(c, F_SYN, 0);

	if (alone) {
		CHECK(passes);
		learn_name(c, &c->s, frame, len);
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
	bool known = alone ? !c->lost : *name_of(pname, c->dest, c->lan.port) == c - conns;
	struct seg s;

	if (!give_svm(c, F_ACK, off)) {
		CHECK(!known);
		total_dropped++;
	} else if (known) {
		check_out(c, frame, len, false, off);
	} else {
		CHECK(alone && parse_seg(frame, len, false, &s)); /* may leave, but not as a live one's */
		for (int i = 0; i < nconns; i++)
			CHECK(!conns[i].s.live || conns[i].lost || conns[i].dest != c->dest || conns[i].lan.port != s.gport);
	}
}

/* --- the LAN's frames --- */

static bool give_lan(struct tr *to, int dest, const struct end *e, uint8_t flags, uint32_t off)
{
	struct tcp_spec s = spec(dest, e->port);

	s.to_guest = true;
	s.flags = flags;
	s.seq = 1;
	s.ack = e->isn + off;
	s.tsval = 1;
	s.tsecr = e->ts + off;
	len = build_tcp(frame, &s);
	return !to || tr_to_svm(to, frame, len, now);
}

static void check_in(const struct end *e, uint32_t off)
{
	struct seg s;

	CHECK(checksums_ok(frame, len) && parse_seg(frame, len, true, &s));
	CHECK(s.gport == e->port && s.ack == e->isn + off && s.tsecr == e->ts + off);
	total_checked++;
}

/* to the PVM now, to the SVM later */
static void lan_data_pvm(struct conn *c)
{
	uint32_t off = 1 + rnd_below(&rnd, 1000);

	CHECK(give_lan(ptr, c->dest, &c->lan, F_ACK, off));
	check_in(&c->p, off);
}

static void lan_data(struct conn *c)
{
	uint32_t off = 1 + rnd_below(&rnd, 1000);
	bool both = *name_of(sname, c->dest, c->s.port) == c - conns;

	if (*name_of(pname, c->dest, c->lan.port) != c - conns)
		return; /* nobody can tell it from the new connection there */
	CHECK(give_lan(tr, c->dest, &c->lan, F_ACK, off) == both);
	if (both)
		check_in(&c->s, off);
	else
		total_dropped++;
}

/* a SYN of the LAN's reaches the connection of that name, or no live one */
static void lan_syn_alone(int dest, uint16_t port)
{
	struct conn *c = NULL;
	struct seg s;

	for (int i = 0; i < nconns; i++)
		if (conns[i].s.live && !conns[i].lost && conns[i].dest == dest && conns[i].lan.port == port)
			c = &conns[i];
	if (!give_lan(tr, dest, &(struct end){ .port = port }, F_SYN, 0)) {
		CHECK(!c);
		return;
	}
	CHECK(parse_seg(frame, len, true, &s));
	for (int i = 0; i < nconns; i++)
		if (conns[i].s.live && conns[i].dest == dest && conns[i].s.port == s.gport)
			CHECK(&conns[i] == c || conns[i].lost);
}

static void lan_data_alone(struct conn *c)
{
	uint32_t off = 1 + rnd_below(&rnd, 1000);

	CHECK(give_lan(tr, c->dest, &c->lan, F_ACK, off));
	check_in(&c->s, off);
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
		give_pvm(c, F_SYN, 0);
		c->lan.opened = false;
		learn_name(c, &c->p, frame, len);
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

	if (!nqueue)
		return;
	memmove(queue, queue + 1, (size_t)--nqueue * sizeof(queue[0]));
	if (!m.syn) {
		lan_data(c);
		return;
	}
	*name_of(pname, c->dest, c->lan.port) = m.conn;
	for (uint32_t i = rnd_below(&rnd, 5) ? 1 : 2; i; i--) {
		build_out(c, &c->lan, F_SYN, 0);
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
	if (!alone && c->p.live && c->lan.opened)
		pvm_data(c);
	if (!c->s.live)
		return;
	if (alone && !c->lost && chance(50))
		lan_data_alone(c);
	else if (!c->old && chance(20) && !(alone && c->lost))
		svm_syn(c); /* again */
	else if (c->out || c->old)
		svm_data(c);
	if (!alone && (c->out || c->old) && c->p.live) {
		lan_data_pvm(c);
		push(false, (int)(c - conns));
	}
}

static void forget_names(void)
{
	for (int d = 0; d < DESTS; d++)
		for (int i = 0; i < PORTS; i++)
			pname[d][i] = sname[d][i] = NONE;
}

static bool take_piece(void *opaque, const uint8_t *piece, size_t n)
{
	(void)opaque;
	CHECK(tr_base_add(tr, piece, n) == 0);
	return true;
}

static void checkpoint(void)
{
	if (ptr) {
		CHECK(tr_save(ptr, base_anew, now, take_piece, NULL) && tr_base_known(tr));
		base_anew = false;
		tr_base_adopt(tr);
	}
	tr_reset(tr, now);
	si = pi;
	nqueue = 0;
	forget_names();
	for (int i = 0; i < nconns; i++) {
		conns[i].s = conns[i].p;
		conns[i].out = false;
		conns[i].old = conns[i].p.opened;
		if (!conns[i].p.live)
			continue;
		*name_of(pname, conns[i].dest, conns[i].lan.port) = i;
		*name_of(sname, conns[i].dest, conns[i].p.port) = i;
	}
}

static void failover(void)
{
	struct tr_stats st;

	bump += BUMP;
	for (int i = 0; i < nconns; i++) {
		struct conn *c = &conns[i];

		c->lost = !c->lan.opened || *name_of(pname, c->dest, c->lan.port) != i || !(c->out || c->old);
		c->lan.ts += BUMP;
		if (c->lost)
			c->lan = (struct end){ 0 };
		if (c->s.live && c->lost && (c->out || c->old))
			c->old = true; /* does not repeat its SYN */
	}
	alone = true;
	nqueue = 0;
	tr_failover(tr, BUMP);
	if (ptr)
		tr_free(ptr);
	ptr = NULL;
	tr_get_stats(tr, &st);
	CHECK(st.waiting_syns == 0);
	for (int i = 0; i < nconns; i++) /* its SYN has come out now, or it never opened */
		CHECK(!conns[i].s.live || conns[i].lan.opened || conns[i].old || conns[i].p.opened);
}

static void begin(void)
{
	static const struct tr_ops tr_ops = { on_waited };
	struct tr_config cfg = { .max_flows = 500, .hash_seed = test_seed };

	tr = tr_new(&cfg, &tr_ops, NULL);
	CHECK(tr);
}

/* the survivor is a PVM now; what the LAN knows nothing of is over */
static void come_back(void)
{
	ptr = tr;
	alone = false;
	base_anew = true;
	begin();
	pi = si;
	for (int i = 0; i < nconns; i++) {
		conns[i].s.live &= !conns[i].lost;
		conns[i].p = conns[i].s;
	}
	checkpoint();
	total_rounds++;
}

static void step(uint32_t pace)
{
	now += 100;
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

static void scenario(void)
{
	uint32_t change_at = rnd_below(&rnd, STEPS / 2), pace = 20 + rnd_below(&rnd, 60);

	begin();
	nconns = nops = pi = si = nqueue = 0;
	memset(open_now, 0, sizeof(open_now));
	forget_names();
	alone = false;
	bump = 0;
	for (uint32_t i = 0; i < STEPS && nops + 2 < OPS && nconns < CONNS; i++) {
		if (i == change_at) {
			if (alone)
				come_back();
			else
				failover();
			change_at += 1 + rnd_below(&rnd, STEPS / 3);
		}
		step(pace);
	}
	tr_free(tr);
	if (ptr)
		tr_free(ptr);
	ptr = NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed_from(argc, argv);
	int scenarios = argc > 2 ? atoi(argv[2]) : 4000;

	for (int i = 0; i < scenarios; i++) {
		test_seed = rnd.s = seed + (uint64_t)i;
		scenario();
	}
	printf("%d scenarios, %llu returns, %llu connections paired, %llu opened after failover (%llu at another port), "
	       "%llu frames right, %llu rightly dropped\n", scenarios, (unsigned long long)total_rounds, (unsigned long long)total_pairs,
		(unsigned long long)total_new, (unsigned long long)total_moved,
		(unsigned long long)total_checked, (unsigned long long)total_dropped);
	CHECK(scenarios < 1000 || (total_rounds > 500 && total_pairs > 1000 && total_moved > 100 && total_dropped > 100));
	return 0;
}
