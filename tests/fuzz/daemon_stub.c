/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * daemon_stub.c - see daemon_stub.h
 *
 * Weak, so that a target that has the real one uses that.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/fuzz/daemon_stub.h"

#define WEAK __attribute__((weak))

unsigned stub_events;
enum core_event_type stub_last_event;

static struct config config;

void stub_touch(const void *p, size_t n)
{
	const volatile uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		(void)b[i];
}

struct daemon *stub_daemon(bool primary)
{
	static struct daemon d;
	static bool done;

	if (!done) {
		uv_loop_init(&d.loop);
		uv_timer_init(&d.loop, &d.vm_look);
		uv_timer_init(&d.loop, &d.peer.retry);
		uv_timer_init(&d.loop, &d.seed_poll);
		uv_timer_init(&d.loop, &d.linger);
		d.seed_poll.data = d.peer.retry.data = d.linger.data = &d;
		strcpy(d.driver, "direct");
		strcpy(d.accel, "tcg");
		strcpy(config.name, "web");
		strcpy(config.machine, "pc");
		strcpy(config.host[0].name, "a");
		strcpy(config.host[1].name, "b");
		config.nhosts = 2;
		config.memory = 512 << 20;
		config.vcpus = 1;
		config.disks = 3;
		config.nics = 1;
		for (int i = 0; i < 3; i++) {
			struct dm *m = &d.disk.disk[i];

			config.disk[i].sector = i == 1 ? 4096 : 512;
			config.disk[i].read_only = i == 2;
			m->index = i;
			m->d = &d;
			m->file = "/srv/web.img";
			m->writable = i < 2;
			m->size = 1 << 30;
			m->hello.hello.identity = 77;
			m->lineage = (struct lineage){ .current = 5 + i, .base = 3, .history = { 3, 2, 1 },
						       .flags = LINEAGE_CONSISTENT | LINEAGE_SERVED };
		}
		d.disk.n = 3;
		done = true;
	}
	d.cfg = &config;
	d.core.role = primary ? CORE_PRIMARY : CORE_SECONDARY;
	d.core.state = CORE_PROTECTED;
	for (int i = 0; i < PEER_NCHANNELS; i++)
		d.peer.fd[i] = -1;
	for (int i = 0; i < CONFIG_DISKS_MAX; i++)
		d.peer.disk[i].fd = -1;
	d.peer.mute = false;
	d.peer.up = true;
	stub_events = 0;
	return &d;
}

WEAK void log_line(enum log_level level, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)level;
}

WEAK void daemon_event(struct daemon *d, struct core_event e)
{
	(void)d;
	stub_events++;
	stub_last_event = e.type;
}

WEAK void daemon_fail_start(struct daemon *d, const char *fmt, ...)
{
	(void)d;
	(void)fmt;
	abort();
}

WEAK int arbiter_force(struct daemon *d, const char **why)
{
	(void)d;
	*why = "stub";
	return -1;
}

WEAK uint64_t daemon_now_us(void)
{
	return 1000000;
}

WEAK bool daemon_is_primary(const struct daemon *d)
{
	return d->core.role == CORE_PRIMARY;
}

WEAK const char *daemon_state_dir(const struct daemon *d)
{
	(void)d;
	return "/nonexistent";
}

/* --- descriptors: nothing is watched --- */

WEAK struct watch *watch_new(uv_loop_t *loop, int fd, int events, watch_fn *fn, void *arg)
{
	(void)loop, (void)fd, (void)events, (void)fn, (void)arg;
	return NULL;
}

WEAK void watch_events(struct watch *w, int events)
{
	(void)w, (void)events;
}

WEAK void watch_free(struct watch *w)
{
	(void)w;
}

/* --- where messages go --- */

WEAK bool nic_message(struct daemon *d, enum peer_type type, uint64_t epoch, const uint8_t *p, size_t len)
{
	(void)d, (void)type, (void)epoch;
	stub_touch(p, len);
	return len >= sizeof(uint64_t);
}

WEAK bool checkpoint_boundary(struct daemon *d, uint64_t epoch, const uint8_t *last_read, size_t len)
{
	(void)d, (void)epoch;
	stub_touch(last_read, len);
	return len == sizeof(uint64_t);
}

WEAK void checkpoint_peer_applied(struct daemon *d, uint64_t epoch, const uint8_t *p, size_t n)
{
	(void)d, (void)epoch;
	stub_touch(p, n);
}

WEAK void checkpoint_received(struct daemon *d, uint64_t epoch, uint32_t flags, uint64_t ran_at_ns)
{
	(void)d, (void)epoch, (void)flags, (void)ran_at_ns;
}

WEAK void seed_channel(struct daemon *d, int fd)
{
	(void)d;
	close(fd);
}

WEAK void seed_peer_ready(struct daemon *d, const uint8_t *p, size_t n)
{
	(void)d;
	stub_touch(p, n);
}

WEAK void seed_receive(struct daemon *d)
{
	(void)d;
}

/* --- TLS is not what is tested --- */

WEAK int channel_init(struct daemon *d)
{
	(void)d;
	return 0;
}

WEAK struct tls *channel_session(struct daemon *d, int fd, bool dialled)
{
	(void)d, (void)dialled;
	return tls_new(NULL, fd, TLS_CLIENT);
}

WEAK void channel_stop(struct daemon *d)
{
	(void)d;
}

WEAK const char *channel_check_peer(struct daemon *d, const struct tls *t, char *text, size_t size)
{
	(void)d, (void)t, (void)text, (void)size;
	return NULL;
}

WEAK int channel_for_others(struct daemon *d, struct tls *t, int fd, const char *what)
{
	(void)d, (void)what;
	tls_free(t);
	return fd;
}

WEAK void transfer_on_bulk(void *arg, int events)
{
	(void)arg, (void)events;
}

WEAK void peer_mute(struct daemon *d)
{
	d->peer.mute = true;
}

WEAK void peer_side_closed(struct daemon *d, enum peer_channel channel)
{
	(void)d, (void)channel;
}

WEAK json_t *status_json(struct daemon *d)
{
	(void)d;
	return json_object();
}

WEAK json_t *explain_json(struct daemon *d, json_t *args)
{
	(void)d, (void)args;
	return json_object();
}

WEAK json_t *explain_pcap(struct daemon *d, json_t *args)
{
	(void)d, (void)args;
	return json_object();
}

WEAK bool diskman_settled(const struct daemon *d)
{
	return d->core.state != CORE_STARTING;
}

WEAK bool diskman_writes_back(const struct daemon *d)
{
	(void)d;
	return false;
}

WEAK int diskman_poll_status(struct daemon *d)
{
	(void)d;
	return 0;
}

WEAK enum peer_status start_hello(struct daemon *d, bool undecided, const struct lineage *its, unsigned int n,
				  char *text, size_t size)
{
	(void)d, (void)undecided, (void)its, (void)n, (void)size;
	*text = 0;
	return PEER_LATER;
}

WEAK bool start_is_undecided(const struct daemon *d)
{
	(void)d;
	return false;
}

WEAK void start_taken(struct daemon *d)
{
	(void)d;
}

WEAK void faults_heard_goodbye(struct daemon *d, const uint8_t *text, size_t n)
{
	(void)d;
	stub_touch(text, n);
}

WEAK int verify_begin(struct daemon *d, bool repair, const char **why)
{
	(void)d, (void)repair;
	*why = "stub";
	return -1;
}

WEAK void watchdog_rest(struct daemon *d, struct watch *listener, int error)
{
}
