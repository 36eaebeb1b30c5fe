/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * channel.c - the peer link's connections as TLS sessions
 *
 * CONTROL and BULK are used by the daemon itself: their sessions live in the event loop. DISK and SEED are used
 * by nbdkit and QEMU, which know nothing of it: a relay stands in between. What a relay has to say when it ends is
 * logged in the loop, since logging is not for threads.
 *
 * Keys prove that the peer is one of the pair, certificates also which one. With a key shared by both, a node could
 * be made to talk to itself by somebody who sends what it says back to it; the hello names its sender, and a node
 * refuses its own name.
 */
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/log.h"
#include "daemon/daemon.h"
#include "daemon/relay.h"

struct channel_relay {
	struct channel_relay *next;
	struct relay *relay;
	const char *what;
};

static void log_end(struct daemon *d, const struct channel_relay *c)
{
	const char *why = relay_error(c->relay);

	if (*why)
		log_warn("peer %s: %s channel: %s", config_peer(d->cfg)->name, c->what, why);
}

static void on_relay_over(void *arg, int events)
{
	struct daemon *d = arg;
	struct channel_relay **at = &d->channels.relay, *c;
	uint64_t n;

	if (read(d->channels.event_fd, &n, sizeof(n)) < 0)
		return;
	while ((c = *at)) {
		if (!relay_over(c->relay)) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		log_end(d, c);
		relay_free(c->relay);
		free(c);
	}
}

/* A certificate that is of no use must not keep the VM from being served: the peer will refuse it. */
static void warn_of_certificates(struct daemon *d)
{
	char text[200];

	if (tls_creds_warning(d->channels.creds, text, sizeof(text)))
		log_warn("[tls] dir: %s/%s", d->cfg->tls_dir, text);
}

int channel_init(struct daemon *d)
{
	const struct config *cfg = d->cfg;
	struct channels *c = &d->channels;
	char error[400];
	int r = tls_creds_load(&c->creds, cfg->tls_mode, TLS_CLIENT | TLS_SERVER, cfg->tls_dir, cfg->tls_user, error,
			       sizeof(error));

	if (r < 0) {
		log_error("[tls] %s", error);
		return r;
	}
	warn_of_certificates(d);
	c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->event_fd < 0)
		return -errno;
	c->watch = watch_new(&d->loop, c->event_fd, UV_READABLE, on_relay_over, d);
	return c->watch ? 0 : -ENOMEM;
}

struct tls *channel_session(struct daemon *d, int fd, bool dialled)
{
	struct channels *c = &d->channels;
	char error[400];
	int r = tls_creds_renew(&c->creds, error, sizeof(error));

	if (r < 0)
		log_warn("[tls] the files have changed and are of no use; what was read before counts: %s", error);
	if (r > 0) {
		log_info("[tls] the files have changed, and count for connections from now on");
		warn_of_certificates(d);
	}
	return tls_new(c->creds, fd, dialled ? TLS_CLIENT : TLS_SERVER);
}

void channel_stop(struct daemon *d)
{
	struct channels *c = &d->channels;
	struct channel_relay *r;

	while ((r = c->relay)) {
		c->relay = r->next;
		relay_free(r->relay);
		free(r);
	}
	watch_free(c->watch);
	if (c->event_fd > 0)
		close(c->event_fd);
	tls_creds_free(c->creds);
	*c = (struct channels){ 0 };
}

const char *channel_check_peer(struct daemon *d, const struct tls *t, char *text, size_t size)
{
	const struct config_host *h = config_peer(d->cfg);

	if (tls_peer_is(t, h->name) || tls_peer_is(t, h->address))
		return NULL;
	snprintf(text, size, "its certificate is for '%s', not for %s or %s", tls_peer(t), h->name, h->address);
	return text;
}

int channel_for_others(struct daemon *d, struct tls *t, int fd, const char *what)
{
	struct channels *c = &d->channels;
	struct channel_relay *r;
	int user;

	if (!c->creds) { /* nothing to encrypt: as it is */
		tls_free(t);
		return fd;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		tls_free(t);
		close(fd);
		return -ENOMEM;
	}
	r->relay = relay_start(t, fd, c->event_fd, &user);
	if (!r->relay) {
		log_error("%s channel: no relay for it: %s", what, strerror(errno));
		free(r);
		return -ENOMEM;
	}
	r->what = what;
	r->next = c->relay;
	c->relay = r;
	return user;
}
