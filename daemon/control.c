/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * control.c - the operator's socket: STATE/colo.sock, root's alone
 *
 * One JSON object a line in, one out: {"command": "status" | "checkpoint" | "failover" | "switchover" | "pause" |
 * "resume" | "stop" | "explain" | "pcap" | "verify", "verify": bool, "repair": bool, "force": bool, "last": reports
 * at most, "after": packet}. Answer: {"ok": true, ...} or
 * {"ok": false, "error": text}. While an answer has not been read no further line is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "daemon/daemon.h"

#define LINE_MAX_BYTES 4096
#define MAX_CLIENTS 16

struct control {
	int fd;
	struct watch *watch;
	char path[108];
	unsigned int clients;
};

struct client {
	struct daemon *d;
	int fd;
	struct watch *watch;
	char line[LINE_MAX_BYTES];
	size_t n;
	char *out; /* the answer under way, or NULL */
	size_t out_len, out_at;
};

static void end_client(struct client *c)
{
	watch_free(c->watch);
	close(c->fd);
	if (c->d->control)
		c->d->control->clients--;
	free(c->out);
	free(c);
}

/* as much of the answer as is taken now */
static void push(struct client *c)
{
	ssize_t r = 0;

	while (c->out_at < c->out_len) {
		r = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0)
			break;
		c->out_at += (size_t)r;
	}
	if (r >= 0 || (errno != EAGAIN && errno != EINTR)) {
		free(c->out); /* if it failed the client is gone, as the next read will tell */
		c->out = NULL;
	}
	watch_events(c->watch, c->out ? UV_WRITABLE : UV_READABLE);
}

static void reply(struct client *c, json_t *msg)
{
	c->out = json_dumps(msg, JSON_COMPACT);
	c->out_at = 0;
	c->out_len = c->out ? strlen(c->out) + 1 : 0;
	if (c->out)
		c->out[c->out_len - 1] = '\n';
	json_decref(msg);
	push(c);
}

static json_t *no(const char *why)
{
	return json_pack("{s:b s:s}", "ok", 0, "error", why);
}

static json_t *yes(void)
{
	return json_pack("{s:b}", "ok", 1);
}

static json_t *do_checkpoint(struct daemon *d, json_t *args)
{
	if (!daemon_is_primary(d))
		return no("only the primary takes checkpoints");
	if (d->core.state != CORE_PROTECTED)
		return no("not protected");
	if (json_is_true(json_object_get(args, "verify")))
		d->ckpt.verify = true;
	daemon_event(d, (struct core_event){ .type = CORE_EV_WANT_CHECKPOINT, .cause = CORE_CAUSE_MANUAL });
	return yes();
}

static json_t *order(struct daemon *d, enum core_event_type type)
{
	daemon_event(d, (struct core_event){ .type = type });
	return yes();
}

static json_t *do_failover(struct daemon *d, json_t *args)
{
	bool force = json_is_true(json_object_get(args, "force"));
	const char *why;

	if (daemon_is_primary(d))
		return no("this node is primary already");
	if (d->core.state == CORE_CLAIMING && force)
		return arbiter_force(d, &why) < 0 ? no(why) : yes();
	if (d->core.state == CORE_CLAIMING)
		return no("the primary is lost, and nobody has said yet that this node may serve. If there is no arbiter, "
			  "make sure that the primary is off, then: colo failover --force");
	if (d->core.state != CORE_PROTECTED)
		return no("this node holds no complete checkpoint to serve from");
	return order(d, CORE_EV_FAILOVER);
}

static json_t *do_switchover(struct daemon *d)
{
	if (d->core.state != CORE_PROTECTED || !d->core.peer_up)
		return no("not protected: the other node could not go on with the VM");
	if (d->core.leaving)
		return no("protection is about to end here: colo resume first, or wait");
	return order(d, CORE_EV_SWITCHOVER);
}

static json_t *do_pause(struct daemon *d, bool pause)
{
	if (!daemon_is_primary(d))
		return no("this node is not the primary");
	if (d->core.state == CORE_STARTING || d->core.state == CORE_GIVEN_UP)
		return no("this node does not serve");
	if (pause && d->core.paused && d->core.state == CORE_ALONE)
		return no("paused already");
	if (!pause && !d->core.paused)
		return no("not paused");
	return order(d, pause ? CORE_EV_PAUSE : CORE_EV_RESUME);
}

/* its progress and result are in the status */
static json_t *do_verify(struct daemon *d, json_t *args)
{
	const char *why;

	return verify_begin(d, json_is_true(json_object_get(args, "repair")), &why) < 0 ? no(why) : yes();
}

static json_t *do_status(struct daemon *d)
{
	json_t *s = status_json(d);

	diskman_poll_status(d); /* for the next one */
	json_object_set_new(s, "ok", json_true());
	return s;
}

static json_t *execute(struct daemon *d, const char *line, size_t n)
{
	json_t *msg = json_loadb(line, n, 0, NULL), *out;
	const char *cmd = json_string_value(json_object_get(msg, "command"));

	if (!cmd)
		out = no("a line is {\"command\": NAME}");
	else if (!strcmp(cmd, "status"))
		out = do_status(d);
	else if (!strcmp(cmd, "checkpoint"))
		out = do_checkpoint(d, msg);
	else if (!strcmp(cmd, "failover"))
		out = do_failover(d, msg);
	else if (!strcmp(cmd, "switchover"))
		out = do_switchover(d);
	else if (!strcmp(cmd, "pause"))
		out = do_pause(d, true);
	else if (!strcmp(cmd, "resume"))
		out = do_pause(d, false);
	else if (!strcmp(cmd, "verify"))
		out = do_verify(d, msg);
	else if (!strcmp(cmd, "stop"))
		out = order(d, CORE_EV_STOP);
	else if (!strcmp(cmd, "explain"))
		out = explain_json(d, msg);
	else if (!strcmp(cmd, "pcap"))
		out = explain_pcap(d, msg);
	else
		out = no("unknown command");
	json_decref(msg);
	return out;
}

/* the lines that are there, until an answer is not taken at once */
static void serve_lines(struct client *c)
{
	char *nl;

	while (!c->out && (nl = memchr(c->line, '\n', c->n))) {
		reply(c, execute(c->d, c->line, nl - c->line));
		c->n -= nl + 1 - c->line;
		memmove(c->line, nl + 1, c->n);
	}
	if (!c->out && c->n == sizeof(c->line)) {
		reply(c, no("line too long"));
		end_client(c);
	}
}

static void on_client(void *arg, int events)
{
	struct client *c = arg;
	ssize_t r;

	if (c->out) {
		push(c);
		if (!c->out)
			serve_lines(c);
		return;
	}
	r = recv(c->fd, c->line + c->n, sizeof(c->line) - c->n, MSG_DONTWAIT);
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r <= 0) {
		end_client(c);
		return;
	}
	c->n += r;
	serve_lines(c);
}

/* The socket's mode keeps others out; this holds also where somebody changed that. */
static bool is_root(int fd)
{
	static const char text[] = "{\"ok\":false,\"error\":\"only root may ask\"}\n";
	struct ucred who;
	socklen_t n = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && (who.uid == 0 || who.uid == geteuid()))
		return true;
	if (send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		log_warn("user %u was turned away from the control socket", (unsigned int)who.uid);
	return false;
}

static void on_listen(void *arg, int events)
{
	struct daemon *d = arg;
	int fd = accept4(d->control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c = NULL;

	if (fd >= 0 && d->control->clients < MAX_CLIENTS && is_root(fd))
		c = calloc(1, sizeof(*c));
	if (!c) {
		if (fd >= 0)
			close(fd);
		else
			watchdog_rest(d, d->control->watch, errno);
		return;
	}
	c->d = d;
	c->fd = fd;
	d->control->clients++;
	c->watch = watch_new(&d->loop, fd, UV_READABLE, on_client, c);
}

static int another_daemon(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r = connect(fd, (const struct sockaddr *)a, sizeof(*a));

	close(fd);
	return r == 0;
}

int control_start(struct daemon *d)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct control *c = calloc(1, sizeof(*c));
	mode_t old;
	int r;

	if (!c)
		return -ENOMEM;
	d->control = c;
	c->fd = -1;
	if (snprintf(a.sun_path, sizeof(a.sun_path), "%s/colo.sock", daemon_state_dir(d)) >=
	    (int)sizeof(a.sun_path)) {
		log_error("[host] state: the path is too long for a socket");
		return -ENAMETOOLONG;
	}
	if (another_daemon(&a)) {
		log_error("VM '%s' runs here already (%s answers)", d->cfg->name, a.sun_path);
		return -EADDRINUSE;
	}
	unlink(a.sun_path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	old = umask(0177);
	r = c->fd < 0 || bind(c->fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(c->fd, 8) < 0 ?
		-errno : 0;
	umask(old);
	if (r < 0) {
		log_error("%s: %s", a.sun_path, strerror(-r));
		return r;
	}
	strcpy(c->path, a.sun_path);
	c->watch = watch_new(&d->loop, c->fd, UV_READABLE, on_listen, d);
	return 0;
}

void control_stop(struct daemon *d)
{
	struct control *c = d->control;

	if (!c)
		return;
	watch_free(c->watch);
	if (c->fd >= 0)
		close(c->fd);
	if (*c->path)
		unlink(c->path);
	d->control = NULL;
	free(c);
}
