/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ask.c - see ask.h
 */
#include "cli/ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int ask_fail(const char *what, const char *why)
{
	fprintf(stderr, "colo: %s: %s\n", what, why ? why : "failed");
	return 1;
}

static int dial(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 10 };
	int fd, r;

	if (snprintf(a.sun_path, sizeof(a.sun_path), "%s", path) >= (int)sizeof(a.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

int ask_open(struct ask *a, const struct config *c)
{
	int fd;

	a->cfg = c;
	a->quiet = false;
	snprintf(a->path, sizeof(a->path), "%s/colo.sock", config_local(c)->state);
	fd = dial(a->path);
	if (fd < 0) {
		ask_fail(a->path, fd == -ENOENT || fd == -ECONNREFUSED ?
				  "no daemon runs here for this VM (start it with colo run)" : strerror(-fd));
		return fd;
	}
	a->f = fdopen(fd, "r");
	if (a->f)
		return 0;
	close(fd);
	ask_fail(a->path, strerror(ENOMEM));
	return -ENOMEM;
}

void ask_close(struct ask *a)
{
	fclose(a->f);
}

static int say(int fd, const char *text)
{
	size_t n = strlen(text);

	return send(fd, text, n, MSG_NOSIGNAL | MSG_MORE) == (ssize_t)n && send(fd, "\n", 1, MSG_NOSIGNAL) == 1 ?
		0 : -EPIPE;
}

json_t *ask(struct ask *a, json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	json_t *answer = NULL;

	json_decref(request);
	if (text && say(fileno(a->f), text) == 0)
		answer = json_loadf(a->f, JSON_DISABLE_EOF_CHECK, NULL);
	free(text);
	if (!answer) {
		if (!a->quiet)
			ask_fail(a->path, "the daemon does not answer");
	} else if (!json_is_true(json_object_get(answer, "ok"))) {
		ask_fail(config_local(a->cfg)->name, json_string_value(json_object_get(answer, "error")));
		json_decref(answer);
		answer = NULL;
	}
	return answer;
}

json_t *ask_once(const struct config *c, json_t *request)
{
	struct ask a;
	json_t *answer;

	if (ask_open(&a, c) < 0) {
		json_decref(request);
		return NULL;
	}
	answer = ask(&a, request);
	ask_close(&a);
	return answer;
}
