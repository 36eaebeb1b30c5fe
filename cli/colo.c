/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * colo.c - the command line
 *
 * Commands are rows of a table; all but `run` talk to the daemon over its control socket.
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/show.h"
#include "common/log.h"
#include "daemon/daemon.h"

struct options {
	const char *node;
	bool json, verify, debug;
};

struct command {
	const char *name, *help;
	int (*run)(const struct config *c, const struct options *o);
};

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "colo: %s: %s\n", what, why);
	return 1;
}

/* --- talking to the daemon --- */

static int dial(const struct config *c, char *path, size_t size)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 10 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(path, size, "%s/colo.sock", config_local(c)->state);
	if (snprintf(a.sun_path, sizeof(a.sun_path), "%s", path) >= (int)sizeof(a.sun_path))
		return -ENAMETOOLONG;
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

/* new reference, or NULL after a message */
static json_t *ask(const struct config *c, json_t *request)
{
	char path[CONFIG_PATH_MAX + 16], *text = json_dumps(request, JSON_COMPACT);
	int fd = dial(c, path, sizeof(path));
	json_t *answer = NULL;
	FILE *f;

	json_decref(request);
	if (fd < 0) {
		fail(path, fd == -ENOENT || fd == -ECONNREFUSED ?
			   "no daemon runs here for this VM (start it with colo run)" : strerror(-fd));
		free(text);
		return NULL;
	}
	f = fdopen(fd, "r+");
	if (f && text && dprintf(fd, "%s\n", text) > 0)
		answer = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL);
	if (f)
		fclose(f);
	free(text);
	if (!answer)
		fail(path, "the daemon does not answer");
	return answer;
}

static int simple(const struct config *c, json_t *request)
{
	json_t *a = ask(c, request);
	int r = 1;

	if (a && json_is_true(json_object_get(a, "ok")))
		r = 0;
	else if (a)
		fail(config_local(c)->name, json_string_value(json_object_get(a, "error")));
	json_decref(a);
	return r;
}

/* --- commands --- */

static int do_run(const struct config *c, const struct options *o)
{
	if (geteuid() != 0)
		return fail("run", "must be root: it makes a TAP, tracks QEMU's memory and owns the VM");
	if (o->debug)
		log_set_level(LOG_DEBUG);
	return daemon_run(c);
}

static int do_status(const struct config *c, const struct options *o)
{
	json_t *s = ask(c, json_pack("{s:s}", "command", "status"));

	if (!s)
		return 1;
	json_object_del(s, "ok");
	if (o->json) {
		json_dumpf(s, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
		printf("\n");
	} else {
		show_status(s);
	}
	json_decref(s);
	return 0;
}

static int do_checkpoint(const struct config *c, const struct options *o)
{
	return simple(c, json_pack("{s:s s:b}", "command", "checkpoint", "verify", o->verify));
}

static int do_failover(const struct config *c, const struct options *o)
{
	return simple(c, json_pack("{s:s}", "command", "failover"));
}

static int do_stop(const struct config *c, const struct options *o)
{
	return simple(c, json_pack("{s:s}", "command", "stop"));
}

static int do_check(const struct config *c, const struct options *o)
{
	printf("%s: VM %s, this node is %s\n", c->path, c->name, config_local(c)->name);
	return 0;
}

static const struct command commands[] = {
	{ "run", "run this node's part of the VM, in the foreground", do_run },
	{ "status", "show role, state, checkpoints, pauses (--json for scripts)", do_status },
	{ "checkpoint", "take a checkpoint now (--verify: compare all RAM on both hosts)", do_checkpoint },
	{ "failover", "on the secondary: take over and serve", do_failover },
	{ "stop", "on the primary: end the VM on both hosts; on the secondary: end protection", do_stop },
	{ "check", "read the configuration and say what is wrong with it", do_check },
};
#define NCOMMANDS (sizeof(commands) / sizeof(*commands))

static void usage(FILE *f)
{
	size_t i;

	fprintf(f, "Usage: colo COMMAND [OPTIONS] CONFIG\n\nNon-stop service for a VM on two hosts.\n\n"
		"Commands:\n");
	for (i = 0; i < NCOMMANDS; i++)
		fprintf(f, "  %-12s%s\n", commands[i].name, commands[i].help);
	fprintf(f, "\nOptions:\n"
		"  --node NAME  which [host NAME] of CONFIG this is (default: the host's name)\n"
		"  --json       status: as JSON\n"
		"  --verify     checkpoint: hash all RAM on both hosts (the guest stands still meanwhile)\n"
		"  --debug      run: log each checkpoint\n"
		"  --version    print the version\n"
		"  --help       print this\n\n"
		"CONFIG is one file for both hosts; see colo(5). Manual: colo(1).\n");
}

static const struct command *find_command(const char *name)
{
	size_t i;

	for (i = 0; i < NCOMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "node", required_argument, NULL, 'n' }, { "json", no_argument, NULL, 'j' },
		{ "verify", no_argument, NULL, 'v' },     { "debug", no_argument, NULL, 'd' },
		{ "version", no_argument, NULL, 'V' },    { "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static struct config config;
	const struct command *command;
	struct options o = { 0 };
	char error[512];
	int c;

	while ((c = getopt_long(argc, argv, "h", longopts, NULL)) != -1) {
		switch (c) {
		case 'n': o.node = optarg; break;
		case 'j': o.json = true; break;
		case 'v': o.verify = true; break;
		case 'd': o.debug = true; break;
		case 'V': printf("colo %s\n", COLO_VERSION); return 0;
		case 'h': usage(stdout); return 0;
		default: return 2;
		}
	}
	if (argc - optind != 2) {
		usage(stderr);
		return 2;
	}
	command = find_command(argv[optind]);
	if (!command) {
		fprintf(stderr, "colo: unknown command '%s' (see colo --help)\n", argv[optind]);
		return 2;
	}
	if (config_load(&config, argv[optind + 1], o.node, error, sizeof(error)) < 0) {
		fprintf(stderr, "colo: %s\n", error);
		return 1;
	}
	return command->run(&config, &o);
}
