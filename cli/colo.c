/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * colo.c - the command line
 *
 * Commands are rows of a table; all but `run` talk to the daemon over its control socket.
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arbiter/witness.h"
#include "cli/ask.h"
#include "cli/explain.h"
#include "cli/planned.h"
#include "cli/run.h"
#include "cli/show.h"
#include "cli/verify.h"
#include "common/log.h"
#include "daemon/daemon.h"

#define DEFAULT_REPORTS 10
#define MAX_REPORTS 1000

struct options {
	const char *node, *pcap;
	unsigned long last;
	bool json, verify, debug, repair, once, force;
	struct run_options run;
	struct witness_options witness;
};

struct command {
	const char *name, *help;
	int (*run)(const struct config *c, const struct options *o); /* NULL: main() knows what to do */
};

static int simple(const struct config *c, json_t *request)
{
	json_t *a = ask_once(c, request);

	json_decref(a);
	return a ? 0 : 1;
}

/* --- commands --- */

static int do_run(const struct config *c, const struct options *o)
{
	if (geteuid() != 0)
		return ask_fail("run", "must be root: it makes a TAP, tracks QEMU's memory and owns the VM");
	if (o->debug)
		log_set_level(LOG_DEBUG);
	return run_node(c, &o->run, o->once);
}

static void print_json(json_t *o)
{
	json_object_del(o, "ok");
	json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	printf("\n");
}

static int do_status(const struct config *c, const struct options *o)
{
	json_t *s = ask_once(c, json_pack("{s:s}", "command", "status"));

	if (!s)
		return 1;
	if (o->json)
		print_json(s);
	else
		show_status(s);
	json_decref(s);
	return 0;
}

static int do_checkpoint(const struct config *c, const struct options *o)
{
	return simple(c, json_pack("{s:s s:b}", "command", "checkpoint", "verify", o->verify));
}

static int do_verify(const struct config *c, const struct options *o)
{
	return verify_disks(c, o->repair, o->json);
}

static int do_failover(const struct config *c, const struct options *o)
{
	return simple(c, json_pack("{s:s s:b}", "command", "failover", "force", o->force));
}

static int do_switchover(const struct config *c, const struct options *o)
{
	return planned_switchover(c);
}

static int do_pause(const struct config *c, const struct options *o)
{
	return planned_pause(c);
}

static int do_resume(const struct config *c, const struct options *o)
{
	return simple(c, json_pack("{s:s}", "command", "resume"));
}

static int do_stop(const struct config *c, const struct options *o)
{
	return simple(c, json_pack("{s:s}", "command", "stop"));
}

static int explain(struct ask *a, const struct options *o)
{
	json_t *answer = ask(a, json_pack("{s:s s:I}", "command", "explain", "last", (json_int_t)o->last));
	long packets = 0;

	if (answer && o->pcap)
		packets = explain_save(a, o->pcap);
	if (!answer || packets < 0) {
		json_decref(answer);
		return 1;
	}
	if (o->json)
		print_json(answer);
	else
		explain_show(answer);
	if (o->pcap && !o->json)
		printf("%ld packets in %s\n", packets, o->pcap);
	json_decref(answer);
	return 0;
}

static int do_explain(const struct config *c, const struct options *o)
{
	struct ask a;
	int r;

	if (ask_open(&a, c) < 0)
		return 1;
	r = explain(&a, o);
	ask_close(&a);
	return r;
}

static int do_check(const struct config *c, const struct options *o)
{
	char text[400];
	struct tls_creds *creds;

	if (notify_check(c, text, sizeof(text)) < 0) {
		fprintf(stderr, "colo: %s: %s\n", c->path, text);
		return 1;
	}
	printf("%s: VM %s, this node is %s\n", c->path, c->name, config_local(c)->name);
	if (tls_creds_load(&creds, c->tls_mode, TLS_CLIENT | TLS_SERVER, c->tls_dir, c->tls_user, text,
			   sizeof(text)) < 0) {
		fprintf(stderr, "colo: %s: [tls] %s\n", c->path, text);
		return 1;
	}
	if (tls_creds_warning(creds, text, sizeof(text)))
		fprintf(stderr, "colo: %s: [tls] dir: %s/%s\n", c->path, c->tls_dir, text);
	tls_creds_free(creds);
	return 0;
}

static const struct command commands[] = {
	{ "run", "run this node's part of the VM, in the foreground", do_run },
	{ "status", "show role, state, checkpoints, pauses (--json for scripts)", do_status },
	{ "checkpoint", "take a checkpoint now (--verify: compare all RAM on both hosts)", do_checkpoint },
	{ "verify", "on the primary: compare the disks of both hosts while the VM runs", do_verify },
	{ "explain", "on the primary: show how the VMs' last answers differed", do_explain },
	{ "switchover", "on either host: exchange the roles, without loss", do_switchover },
	{ "failover", "on the secondary: take over and serve (--force: the primary is off, I know)", do_failover },
	{ "pause", "on the primary: end protection, take no peer; the VM goes on", do_pause },
	{ "resume", "on the primary: take a peer again after colo pause", do_resume },
	{ "stop", "on the primary: end the VM on both hosts; on the secondary: end protection", do_stop },
	{ "check", "read the configuration and say what is wrong with it", do_check },
	{ "witness", "on a third machine, without CONFIG: say which host may serve", NULL },
};
#define NCOMMANDS (sizeof(commands) / sizeof(*commands))

static int do_witness(const struct witness_options *o)
{
	if (o->listen && o->state)
		return witness_run(o);
	fprintf(stderr, "colo: witness needs --listen and --state\n");
	return 2;
}

static void usage(FILE *f)
{
	size_t i;

	fprintf(f, "Usage: colo COMMAND [OPTIONS] CONFIG\n\nNon-stop service for a VM on two hosts.\n\n"
		"Commands:\n");
	for (i = 0; i < NCOMMANDS; i++)
		fprintf(f, "  %-12s%s\n", commands[i].name, commands[i].help);
	fprintf(f, "\nOptions:\n"
		"  --node NAME  which [host NAME] of CONFIG this is (default: the host's name)\n"
		"  --role ROLE  run: as primary or as secondary, whatever the disks say of their past\n"
		"  --overwrite  run --role secondary: what is on this host's disks may be lost\n"
		"  --once       run: when this node's part ends, for whatever reason, do not start it again\n"
		"  --peer-version N  run: speak no newer protocol than N with the other host (for tests)\n"
		"  --repair     verify: copy what differs from the primary to the secondary\n"
		"  --force      failover, without an arbiter: the primary is off, which this program cannot know\n"
		"  --json       status, explain, verify: as JSON\n"
		"  --last N     explain: so many reports at most (default: 10)\n"
		"  --pcap FILE  explain: write the packets concerned to FILE, for Wireshark\n"
		"  --verify     checkpoint: hash all RAM on both hosts (the guest stands still meanwhile)\n"
		"  --debug      run: log each checkpoint\n"
		"  --listen A   witness: at HOST:PORT\n"
		"  --state DIR  witness: what it must not forget, on stable storage\n"
		"  --new        witness: DIR may be empty: state begins there\n"
		"  --tls HOW    witness: psk, x509 or off (needed unless it listens on loopback)\n"
		"  --tls-dir D  witness: its keys\n"
		"  --access F   witness: which keys may ask for which VMs\n"
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

static bool parse_count(const char *text, unsigned long *out)
{
	char *end;

	errno = 0;
	*out = strtoul(text, &end, 10);
	if (isdigit((unsigned char)*text) && !*end && !errno && *out > 0 && *out <= MAX_REPORTS)
		return true;
	fprintf(stderr, "colo: --last: '%s' is not a number from 1 to %d\n", text, MAX_REPORTS);
	return false;
}

static bool parse_peer_version(const char *text, unsigned int *out)
{
	*out = (unsigned int)atoi(text);
	if (*out >= PEER_VERSION_MIN && *out <= PEER_VERSION)
		return true;
	fprintf(stderr, "colo: --peer-version: '%s' is not one of %d to %d\n", text, PEER_VERSION_MIN, PEER_VERSION);
	return false;
}

static bool parse_role(const char *text, enum start_role *out)
{
	*out = !strcmp(text, "primary") ? START_PRIMARY : START_SECONDARY;
	if (*out == START_PRIMARY || !strcmp(text, "secondary"))
		return true;
	fprintf(stderr, "colo: --role: '%s' is neither primary nor secondary\n", text);
	return false;
}

int main(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "node", required_argument, NULL, 'n' }, { "json", no_argument, NULL, 'j' },
		{ "last", required_argument, NULL, 'l' }, { "pcap", required_argument, NULL, 'p' },
		{ "verify", no_argument, NULL, 'v' },     { "debug", no_argument, NULL, 'd' },
		{ "role", required_argument, NULL, 'r' }, { "overwrite", no_argument, NULL, 'o' },
		{ "repair", no_argument, NULL, 'R' },     { "once", no_argument, NULL, 'O' },
		{ "listen", required_argument, NULL, 1 }, { "state", required_argument, NULL, 2 },
		{ "tls", required_argument, NULL, 3 },    { "tls-dir", required_argument, NULL, 4 },
		{ "access", required_argument, NULL, 5 }, { "new", no_argument, NULL, 6 },
		{ "peer-version", required_argument, NULL, 'P' },
		{ "force", no_argument, NULL, 'f' },
		{ "version", no_argument, NULL, 'V' },    { "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static struct config config;
	const struct command *command;
	struct options o = { .last = DEFAULT_REPORTS };
	char error[512];
	int c;

	while ((c = getopt_long(argc, argv, "h", longopts, NULL)) != -1) {
		switch (c) {
		case 'n': o.node = optarg; break;
		case 'j': o.json = true; break;
		case 'l':
			if (!parse_count(optarg, &o.last))
				return 2;
			break;
		case 'p': o.pcap = optarg; break;
		case 'v': o.verify = true; break;
		case 'd': o.debug = true; break;
		case 'r':
			if (!parse_role(optarg, &o.run.role))
				return 2;
			break;
		case 'o': o.run.overwrite = true; break;
		case 'R': o.repair = true; break;
		case 'O': o.once = true; break;
		case 1: o.witness.listen = optarg; break;
		case 2: o.witness.state = optarg; break;
		case 3: o.witness.tls = optarg; break;
		case 4: o.witness.tls_dir = optarg; break;
		case 5: o.witness.access = optarg; break;
		case 6: o.witness.fresh = true; break;
		case 'P':
			if (!parse_peer_version(optarg, &o.run.peer_version))
				return 2;
			break;
		case 'f': o.force = true; break;
		case 'V': printf("colo %s\n", COLO_VERSION); return 0;
		case 'h': usage(stdout); return 0;
		default: return 2;
		}
	}
	if (argc - optind == 1 && !strcmp(argv[optind], "witness"))
		return do_witness(&o.witness);
	if (argc - optind != 2) {
		usage(stderr);
		return 2;
	}
	if (o.run.overwrite && o.run.role != START_SECONDARY) {
		fprintf(stderr, "colo: --overwrite goes with --role secondary only\n");
		return 2;
	}
	command = find_command(argv[optind]);
	if (command && !command->run) {
		fprintf(stderr, "colo: %s takes no CONFIG\n", argv[optind]);
		return 2;
	}
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
