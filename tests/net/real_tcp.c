/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * real_tcp.c - two Linux TCP stacks as PVM and SVM, a third as their client, and the real code in between
 *
 * Three network namespaces, each with a TAP whose other end is in this process. Two have the same
 * address and run the same server, as the two VMs do. Every frame goes the way it goes in the daemons:
 * client -> comparing module, PVM, translator, SVM; PVM -> comparing module; SVM -> translator ->
 * comparing module; what is released -> client. There are no checkpoints here, since a kernel's TCP
 * cannot be copied: the VMs must agree by themselves, and a mismatch fails the test. Nor is there one to mend what
 * a frame does to the VMs that only one of them gets (a window that stays closed in one): so what a VM loses in the
 * phase with losses comes LATE_US later, when TCP has long noticed.
 *
 * The VMs open connections to the client as well, 100 per second and bulk transfers, each to a port of
 * its own; the kernels choose ports and ISNs as they like. One of the kinds goes over IPv6.
 *
 * One phase goes through TCP's odd corners (real_app.h). In the last the PVM dies in the
 * middle of open connections and the SVM serves alone; every connection must go on without a byte wrong.
 * From then on it is a survivor in a pair again: PVM behind its own translator and, since a kernel's TCP cannot
 * be copied, its SVM, too, whose translator (`twin`) begins with the survivor's table, several times a second. Such a
 * copy says everything alike, so both translators must do the same with each frame.
 *
 * The TAPs have offloads: frames of up to 64 KiB, checksums not done; with `plain` they have none. The seed
 * 0 takes one from the clock.
 *
 * Needs root and /dev/net/tun (else 77). real_tcp [SEED [plain]]
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "net_test.h"
#include "real_app.h"

enum { PVM, SVM, CLIENT, NODES, PORT = 7000, CLIENTS = 6, DIALERS = 3, ODD = 10, SKIP = 77, DEADLINE_S = 60,
	BASE_US = 150000 };

struct node {
	int ns, tap;
	int listeners[1 + DIALERS]; /* the guests use the first, their dialers one each of the others */
};

struct process {
	pid_t pid;
	int node;
};

static struct node nodes[NODES];
static struct cm *cm;
static struct tr *tr, *twin;
static uint64_t epoch = 1, next_base;
static bool pvm_dead, plain;
static uint64_t frames[NODES], lost;
static struct process processes[CLIENTS + 2 * DIALERS + ODD];
static int running;
static struct rnd rnd;
static uint32_t loss_permille;

#define LATE_US 1000000u
#define LATE_MAX 1024u
static struct late_frame {
	uint64_t due;
	int to;
	size_t len;
	uint8_t *data;
} late[LATE_MAX]; /* a ring */
static unsigned late_head, late_tail;

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void skip(const char *why)
{
	printf("skipped: %s: %s\n", why, strerror(errno));
	exit(SKIP);
}

/* --- the namespaces --- */

static void run(const char *cmd)
{
	if (system(cmd) != 0)
		skip(cmd);
}

/* in the namespace last made */
static int listen_here(int port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	int s = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), no = 0;

	setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no));
	app_prepare_listener(s);
	if (bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 100) < 0)
		skip("listen");
	return s;
}

static struct node make_node(const char *address, const char *address6, const char *mac)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	unsigned offloads = plain ? 0 : TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	struct node n;
	char cmd[600];

	if (unshare(CLONE_NEWNET) < 0)
		skip("unshare");
	n.ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	n.tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	strcpy(ifr.ifr_name, "eth0");
	if (n.ns < 0 || n.tap < 0 || ioctl(n.tap, TUNSETIFF, &ifr) < 0 || ioctl(n.tap, TUNSETOFFLOAD, offloads) < 0)
		skip("/dev/net/tun");
	snprintf(cmd, sizeof(cmd),
		"sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv4.tcp_ecn=1 "
		"net.ipv4.tcp_ecn_fallback=0 "
		"net.ipv4.tcp_fastopen=3 net.ipv4.tcp_fastopen_key=1-2-3-4 && ip link set lo up && "
		"ip link set eth0 address %s txqueuelen 20000 up && ip addr add %s/24 dev eth0 && "
		"ip addr add %s/64 dev eth0 nodad", mac, address, address6);
	run(cmd);
	for (int i = 0; i <= DIALERS; i++)
		n.listeners[i] = listen_here(PORT + i);
	return n;
}

static pid_t fork_in(const struct node *n)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (setns(n->ns, CLONE_NEWNET) < 0)
		_exit(1);
	return 0;
}

/* --- who talks --- */

static bool session(int k, struct rnd *r)
{
	int fd = app_dial(k % 2 ? "fd99::2" : "::ffff:10.99.0.2", PORT), rounds = k % 3 == 0 ? 300 : 6;
	uint32_t most = k % 3 == 0 ? 2000 : 2000000;
	bool ok = fd >= 0;

	for (int i = 0; ok && i < rounds; i++)
		ok = app_ask(fd, k % 3 == 2 ? 'U' : 'D', 1 + rnd_below(r, most));
	if (fd >= 0)
		close(fd);
	return ok;
}

/* sessions of one kind, and new connections, until the time is over */
static void client(int k, double secs)
{
	struct rnd r = { test_seed + (uint64_t)k };
	uint64_t end = now_us() + (uint64_t)(secs * 1e6), n = 0;

	do {
		if (!session(k, &r)) {
			fprintf(stderr, "client %d: session %llu broke: %s\n", k,
				(unsigned long long)n, strerror(errno));
			_exit(1);
		}
		n++;
	} while (now_us() < end);
	_exit(0);
}

/* one of TCP's odd corners, again and again */
static void odd_client(int k, double secs)
{
	uint64_t end = now_us() + (uint64_t)(secs * 1e6);

	do {
		if (!app_odd(k, k % 2 ? "fd99::2" : "::ffff:10.99.0.2", PORT)) {
			fprintf(stderr, "%s broke: %s\n", app_odd_name(k), strerror(errno));
			_exit(1);
		}
	} while (now_us() < end);
	_exit(0);
}

/* A program of the guest, which runs in both: the same connections in the same order. What it asks for is
 * left to chance, of the same seed. */
static void dialer(int k, double secs)
{
	static const char *const peers[DIALERS] = { "::ffff:10.99.0.1", "fd99::1", "::ffff:10.99.0.1" };
	int sessions = (int)(k ? secs * 5 : secs * 100);
	struct rnd r = { test_seed + 1000 + (uint64_t)k };
	uint64_t start = now_us();

	for (int i = 0; i < sessions; i++) {
		uint64_t due = start + (uint64_t)(i * secs * 1e6 / sessions), t = now_us();
		uint32_t n = 1 + rnd_below(&r, k ? 3000000 : 3000);
		int fd;

		if (t < due)
			usleep((useconds_t)(due - t));
		fd = app_dial(peers[k], PORT + 1 + k);
		if (fd < 0 || !app_ask(fd, k == 2 ? 'U' : 'D', n)) {
			fprintf(stderr, "dialer %d: connection %d broke: %s\n", k, i, strerror(errno));
			_exit(1);
		}
		close(fd);
	}
	_exit(0);
}

/* --- the wire --- */

static void put_late(int to, const uint8_t *frame, size_t len)
{
	struct late_frame *l = &late[late_head % LATE_MAX];

	CHECK(late_head - late_tail < LATE_MAX);
	*l = (struct late_frame){ now_us() + LATE_US, to, len, malloc(len) };
	CHECK(l->data);
	memcpy(l->data, frame, len);
	late_head++;
}

static void deliver_late(uint64_t now)
{
	for (; late_tail != late_head && late[late_tail % LATE_MAX].due <= now; late_tail++) {
		struct late_frame *l = &late[late_tail % LATE_MAX];

		if (write(nodes[l->to].tap, l->data, l->len) < 0)
			lost++;
		free(l->data);
	}
}

static void deliver(int to, const uint8_t *frame, size_t len)
{
	if (rnd_below(&rnd, 1000) < loss_permille) {
		lost++;
		if (to != CLIENT)
			put_late(to, frame, len);
		return;
	}
	if (write(nodes[to].tap, frame, len) < 0)
		lost++;
}

static void on_release(void *opaque, const uint8_t *frame, size_t len)
{
	(void)opaque;
	deliver(CLIENT, frame, len);
}

static void on_want(void *opaque, enum cm_cause cause)
{
	(void)opaque;
	(void)cause; /* there is no checkpoint to be had; see cm_get_stats() */
}

/* SYNs of the SVM that have waited for the PVM's; they come while the cm is busy with that */
static uint8_t waited[64][200];
static size_t waited_len[64];
static unsigned nwaited;

static void on_waited(void *opaque, const uint8_t *frame, size_t len)
{
	if (pvm_dead && opaque != &twin) {
		deliver(CLIENT, frame, len);
		return;
	}
	CHECK(nwaited < 64 && len <= sizeof(waited[0]));
	memcpy(waited[nwaited], frame, len);
	waited_len[nwaited++] = len;
}

static void compare_waited(uint64_t now)
{
	for (unsigned i = 0; i < nwaited; i++)
		cm_from_svm(cm, epoch, waited[i], waited_len[i], now);
	nwaited = 0;
}

static void on_syn(void *opaque, const uint8_t *frame, size_t len)
{
	(void)opaque;
	tr_pvm_syn(pvm_dead ? twin : tr, frame, len, now_us());
}

static uint8_t copy[NET_FRAME_MAX];

static const struct cm_ops cm_ops = { on_release, on_want, on_syn };

static void to_svm(uint8_t *frame, size_t len, uint64_t now)
{
	bool passes;

	memcpy(copy, frame, len);
	passes = tr_to_svm(tr, frame, len, now);
	if (twin)
		CHECK(tr_to_svm(twin, copy, len, now) == passes && (!passes || memcmp(copy, frame, len) == 0));
	if (passes)
		deliver(SVM, frame, len);
}

/* the survivor's, as those of PVM and SVM */
static void from_survivor(uint8_t *frame, size_t len, uint64_t now)
{
	memcpy(copy, frame, len);
	if (tr_from_svm(tr, frame, len, now))
		cm_from_pvm(cm, frame, len, now);
	compare_waited(now);
	if (tr_from_svm(twin, copy, len, now))
		cm_from_svm(cm, epoch, copy, len, now);
}

static void from_node(int from, uint8_t *frame, size_t len, uint64_t now)
{
	frames[from]++;
	switch (from) {
	case CLIENT:
		cm_from_client(cm, frame, len, now);
		if (!pvm_dead)
			deliver(PVM, frame, len);
		to_svm(frame, len, now);
		break;
	case PVM:
		if (!pvm_dead)
			cm_from_pvm(cm, frame, len, now);
		compare_waited(now);
		break;
	default:
		if (pvm_dead)
			from_survivor(frame, len, now);
		else if (tr_from_svm(tr, frame, len, now))
			cm_from_svm(cm, epoch, frame, len, now);
	}
}

static void read_node(int from)
{
	static uint8_t frame[NET_FRAME_MAX];
	uint64_t now = now_us();
	ssize_t len;

	for (int i = 0; i < 32 && (len = read(nodes[from].tap, frame, sizeof(frame))) > 0; i++)
		from_node(from, frame, (size_t)len, now);
}

static bool take_piece(void *opaque, const uint8_t *piece, size_t len)
{
	(void)opaque;
	CHECK(tr_base_add(twin, piece, len) == 0);
	return true;
}

/* a checkpoint of the survivor's pair */
static void next_epoch(uint64_t now)
{
	CHECK(tr_save(tr, false, now, take_piece, NULL) && tr_base_known(twin));
	tr_base_adopt(twin);
	tr_reset(twin, now);
	epoch++;
	cm_boundary(cm, epoch, now);
	cm_held(cm, epoch, now);
	next_base = now + BASE_US;
}

static void pvm_dies(void)
{
	static const struct tr_ops twin_ops = { on_waited };
	uint64_t now = now_us();

	pvm_dead = true;
	tr_failover(tr, 20);
	cm_free(cm); /* that was on the other host */
	cm = cm_new(NULL, &cm_ops, NULL);
	CHECK(cm);
	cm_set_mode(cm, CM_COMPARE, now);
	twin = tr_new(NULL, &twin_ops, &twin);
	CHECK(twin);
	next_epoch(now);
	for (int i = 0; i < running; i++)
		if (processes[i].node == PVM)
			kill(processes[i].pid, SIGKILL);
}

/* a process has ended; false: it failed */
static bool reap(void)
{
	int status, i;
	pid_t pid = waitpid(-1, &status, WNOHANG);
	bool ok;

	if (pid <= 0)
		return true;
	for (i = 0; i < running && processes[i].pid != pid; i++)
		;
	CHECK(i < running);
	ok = status == 0 || (pvm_dead && processes[i].node == PVM);
	processes[i] = processes[--running];
	return ok;
}

/* move frames until all processes have ended; false: one failed, or the deadline is over */
static bool wire(double die_after_s)
{
	struct pollfd p[NODES];
	uint64_t last = now_us(), now, passed = 0;

	for (int i = 0; i < NODES; i++)
		p[i] = (struct pollfd){ .fd = nodes[i].tap, .events = POLLIN };
	while (running) {
		poll(p, NODES, 5);
		for (int i = 0; i < NODES; i++)
			read_node(i);
		now = now_us();
		passed += now - last < 100000 ? now - last : 100000; /* a stopped machine does not count */
		last = now;
		cm_tick(cm, now);
		if (twin && now > next_base)
			next_epoch(now);
		deliver_late(now);
		if (die_after_s > 0 && !pvm_dead && passed > (uint64_t)(die_after_s * 1e6))
			pvm_dies();
		if (passed > DEADLINE_S * 1000000ull || !reap())
			return false;
	}
	return true;
}

static void report(const char *what, uint64_t start)
{
	struct cm_stats st;
	struct tr_stats ts;

	cm_get_stats(cm, &st);
	tr_get_stats(tr, &ts);
	printf("%s: %.1f s, frames PVM %llu SVM %llu client %llu, lost %llu; released %llu, "
	       "%llu bytes matched, %llu ACKs clamped, lag %u us, mismatches %llu, missing %llu, full %llu, dropped %llu; "
	       "translated %llu, of the guest's %llu, waiting %llu, full %llu\n",
		what, (double)(now_us() - start) / 1e6, (unsigned long long)frames[PVM],
		(unsigned long long)frames[SVM], (unsigned long long)frames[CLIENT],
		(unsigned long long)lost, (unsigned long long)st.released,
		(unsigned long long)st.matched_bytes, (unsigned long long)st.acks_clamped, st.lag_us,
		(unsigned long long)st.mismatches, (unsigned long long)st.missing,
		(unsigned long long)st.full, (unsigned long long)st.dropped, (unsigned long long)ts.entries,
		(unsigned long long)ts.paired_clients, (unsigned long long)ts.waiting_syns,
		(unsigned long long)ts.full);
	fflush(stdout);
}

/* what hangs, and where */
static void show_sockets(void)
{
	static const char *const names[NODES] = { "PVM", "SVM", "client" };

	for (int i = 0; i < NODES; i++) {
		pid_t pid = fork_in(&nodes[i]);

		if (pid == 0) {
			fprintf(stderr, "%s:\n", names[i]);
			_exit(system("ss -tnoi state connected exclude time-wait >&2"));
		}
		waitpid(pid, NULL, 0);
	}
}

static void start(int node, void (*what)(int k, double secs), int k, double secs)
{
	pid_t pid = fork_in(&nodes[node]);

	if (pid == 0)
		what(k, secs);
	processes[running++] = (struct process){ pid, node };
}

/* one after the other with the same cm and translator: connections of the last phase may linger */
static void phase(const char *what, double secs, double die_after_s, uint32_t loss)
{
	uint64_t start_us = now_us();
	struct cm_stats before, st;
	struct tr_stats ts_before, ts, twin_ts;
	bool ok;

	cm_get_stats(cm, &before);
	tr_get_stats(tr, &ts_before);
	loss_permille = loss;
	for (int k = 0; k < CLIENTS; k++)
		start(CLIENT, client, k, secs);
	for (int k = 0; k < DIALERS; k++) {
		start(PVM, dialer, k, secs);
		start(SVM, dialer, k, secs);
	}
	ok = wire(die_after_s);
	report(what, start_us);
	if (!ok)
		show_sockets();
	cm_get_stats(cm, &st);
	tr_get_stats(tr, &ts);
	if (pvm_dead) { /* of another host */
		before = (struct cm_stats){ 0 };
		tr_get_stats(twin, &twin_ts);
		CHECK(st.missing == 0 && twin_ts.entries > 0 && twin_ts.full == 0);
	}
	CHECK(ok && st.mismatches == 0 && st.dropped == 0 && ts.full == 0);
	CHECK(st.matched_bytes - before.matched_bytes > 1000000);
	CHECK(ts.paired_clients - ts_before.paired_clients >= (uint64_t)(die_after_s > 0 ? 20 : 100 * secs));
}

/* half-closes, resets, closed windows, urgent data and the like, besides ordinary traffic */
static void odd_phase(double secs, uint32_t loss)
{
	uint64_t start_us = now_us();
	struct cm_stats st;
	bool ok;

	loss_permille = loss;
	for (int k = 0; k < 2; k++)
		start(CLIENT, client, k, secs);
	for (int k = 0; k < ODD && app_odd_name(k); k++)
		start(CLIENT, odd_client, k, secs);
	ok = wire(0);
	report("odd corners", start_us);
	if (!ok)
		show_sockets();
	cm_get_stats(cm, &st);
	CHECK(ok && st.mismatches == 0 && st.dropped == 0);
}

int main(int argc, char **argv)
{
	static const struct tr_ops tr_ops = { on_waited };

	test_seed_from(argc, argv);
	plain = argc > 2 && strcmp(argv[2], "plain") == 0;
	rnd.s = test_seed;
	signal(SIGPIPE, SIG_IGN);
	nodes[PVM] = make_node("10.99.0.2", "fd99::2", "02:00:00:00:00:02");
	nodes[SVM] = make_node("10.99.0.2", "fd99::2", "02:00:00:00:00:02");
	nodes[CLIENT] = make_node("10.99.0.1", "fd99::1", "02:00:00:00:00:01");
	for (int i = 0; i < NODES; i++)
		for (int k = 0; k <= DIALERS; k++)
			if (fork_in(&nodes[i]) == 0)
				app_server(nodes[i].listeners[k]);
	cm = cm_new(NULL, &cm_ops, NULL);
	tr = tr_new(NULL, &tr_ops, NULL);
	CHECK(cm && tr);
	cm_set_mode(cm, CM_COMPARE, now_us());
	cm_start_epoch(cm, 1, now_us());
	phase("same", 2, 0, 0);
	phase("with loss", 2, 0, 5);
	odd_phase(3, 0);
	phase("failover", 3, 1.5, 0);
	cm_free(cm);
	tr_free(tr);
	tr_free(twin);
	puts("ok");
	return 0;
}
