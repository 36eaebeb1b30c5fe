/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * bench_tls.c - what TLS costs on a connection: throughput and round trip, over loopback TCP
 *
 * Usage: bench_tls DIR [MIB]   (DIR: with keys.psk of user colo)
 * plain: no TLS; session: TLS in the threads that use the connection, as CONTROL and BULK; relay: through a
 * relay on each side, as DISK and SEED.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/percentile.h"
#include "common/tls.h"
#include "common/wire.h"
#include "daemon/relay.h"

#define FOREVER UINT64_MAX
#define ROUNDS 20000
#define SMALL 200

enum way { PLAIN, SESSION, RELAY };

struct side {
	struct tls *t;
	int fd;
	size_t total;
};

static struct tls_creds *creds;
static char piece[256 << 10];

static void must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench_tls: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void tcp_pair(int sv[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(l >= 0 && bind(l, (void *)&a, n) == 0 && listen(l, 1) == 0 && getsockname(l, (void *)&a, &n) == 0, "listen");
	sv[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(connect(sv[0], (void *)&a, sizeof(a)) == 0, "connect");
	sv[1] = accept(l, NULL, NULL);
	close(l);
	wire_set_tcp(sv[0]);
	wire_set_tcp(sv[1]);
}

static void *shake(void *arg)
{
	struct side *s = arg;

	if (tls_handshake_by(s->t, clock_now_ns() + 5000000000ull) < 0) {
		fprintf(stderr, "bench_tls: %s\n", tls_error(s->t));
		exit(1);
	}
	return NULL;
}

/* what the users of the connection have in hands */
static void open_sides(struct side s[2], enum way way)
{
	int sv[2], i, event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_t other;

	tcp_pair(sv);
	for (i = 0; i < 2; i++)
		s[i] = (struct side){ tls_new(way == PLAIN ? NULL : creds, sv[i], i ? TLS_SERVER : TLS_CLIENT), sv[i], 0 };
	must(pthread_create(&other, NULL, shake, &s[1]) == 0, "thread");
	shake(&s[0]);
	pthread_join(other, NULL);
	for (i = 0; i < 2 && way == RELAY; i++) { /* they end with the process */
		must(relay_start(s[i].t, s[i].fd, event, &s[i].fd) != NULL, "relay");
		s[i].t = tls_new(NULL, s[i].fd, TLS_CLIENT);
	}
}

static void *take(void *arg)
{
	static char into[256 << 10];
	struct side *s = arg;
	ssize_t r;

	for (size_t got = 0; got < s->total; got += r) {
		r = tls_recv_some(s->t, into, sizeof(into), FOREVER);
		must(r > 0, "receive");
	}
	return NULL;
}

static void *echo(void *arg)
{
	struct side *s = arg;
	char b[SMALL];

	for (int i = 0; i < ROUNDS; i++)
		if (tls_recv_all(s->t, b, SMALL, FOREVER) < 0 || tls_send_all(s->t, b, SMALL, FOREVER) < 0)
			return NULL;
	return NULL;
}

static double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void measure(enum way way, const char *name, size_t mib)
{
	static struct percentile rtt;
	struct side s[2];
	pthread_t other;
	uint64_t at, ns;
	double cpu;
	char b[SMALL] = "";

	open_sides(s, way);
	s[1].total = mib << 20;
	cpu = cpu_s();
	at = clock_now_ns();
	must(pthread_create(&other, NULL, take, &s[1]) == 0, "thread");
	for (size_t sent = 0; sent < s[1].total; sent += sizeof(piece))
		must(tls_send_all(s[0].t, piece, sizeof(piece), FOREVER) == 0, "send");
	pthread_join(other, NULL);
	ns = clock_now_ns() - at;
	cpu = cpu_s() - cpu;
	must(pthread_create(&other, NULL, echo, &s[1]) == 0, "thread");
	memset(&rtt, 0, sizeof(rtt));
	for (int i = 0; i < ROUNDS; i++) {
		at = clock_now_ns();
		must(tls_send_all(s[0].t, b, SMALL, FOREVER) == 0 && tls_recv_all(s[0].t, b, SMALL, FOREVER) == 0, "echo");
		percentile_add(&rtt, (clock_now_ns() - at) / 100); /* of 0.1 us */
	}
	pthread_join(other, NULL);
	printf("%-8s %6.0f MB/s, %5.2f s of CPU a GB; round trip of %d bytes %5.1f us (p99 %.1f)\n", name,
	       s[1].total / 1e6 / (ns / 1e9), cpu / (s[1].total / 1e9), SMALL, percentile_get(&rtt, 50) / 10.0,
	       percentile_get(&rtt, 99) / 10.0);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	size_t mib = argc > 2 ? strtoul(argv[2], NULL, 10) : 1024;
	char error[300];

	if (argc < 2 || tls_creds_load(&creds, TLS_PSK, TLS_CLIENT | TLS_SERVER, argv[1], "colo", error, sizeof(error))) {
		fprintf(stderr, "bench_tls: %s\n", argc < 2 ? "which directory has keys.psk?" : error);
		return 1;
	}
	measure(PLAIN, "plain", mib);
	measure(SESSION, "session", mib);
	measure(RELAY, "relay", mib);
	return 0;
}
