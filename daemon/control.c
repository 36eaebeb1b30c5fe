/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * control.c - the operator's socket: STATE/colo.sock, root's alone
 *
 * One JSON object a line in, one out: {"command": "status" | "checkpoint" | "failover" | "stop",
 * "verify": bool}. Answer: {"ok": true, ...} or {"ok": false, "error": text}.
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
};

static void end_client(struct client *c)
{
	watch_free(c->watch);
	close(c->fd);
	if (c->d->control)
		c->d->control->clients--;
	free(c);
}

static void reply(struct client *c, json_t *msg)
{
	char *text = json_dumps(msg, JSON_COMPACT);

	if (text) {
		/* the answer fits the socket's buffer; an operator who does not read gets none */
		if (send(c->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ||
		    send(c->fd, "\n", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			log_debug("control: answer not read");
	}
	free(text);
	json_decref(msg);
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

static json_t *do_failover(struct daemon *d)
{
	if (daemon_is_primary(d))
		return no("this node is primary already");
	if (d->core.state != CORE_PROTECTED)
		return no("this node holds no complete checkpoint to serve from");
	daemon_event(d, (struct core_event){ .type = CORE_EV_FAILOVER });
	return yes();
}

static json_t *do_stop(struct daemon *d)
{
	daemon_event(d, (struct core_event){ .type = CORE_EV_STOP });
	return yes();
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
		out = do_failover(d);
	else if (!strcmp(cmd, "stop"))
		out = do_stop(d);
	else
		out = no("unknown command");
	json_decref(msg);
	return out;
}

static void on_client(void *arg, int events)
{
	struct client *c = arg;
	ssize_t r = recv(c->fd, c->line + c->n, sizeof(c->line) - c->n, MSG_DONTWAIT);
	char *nl;

	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r <= 0) {
		end_client(c);
		return;
	}
	c->n += r;
	while ((nl = memchr(c->line, '\n', c->n))) {
		reply(c, execute(c->d, c->line, nl - c->line));
		c->n -= nl + 1 - c->line;
		memmove(c->line, nl + 1, c->n);
	}
	if (c->n == sizeof(c->line)) {
		reply(c, no("line too long"));
		end_client(c);
	}
}

static void on_listen(void *arg, int events)
{
	struct daemon *d = arg;
	int fd = accept4(d->control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c = fd < 0 || d->control->clients >= MAX_CLIENTS ? NULL : calloc(1, sizeof(*c));

	if (!c) {
		if (fd >= 0)
			close(fd);
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
