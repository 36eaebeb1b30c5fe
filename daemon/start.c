/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * start.c - from the start of the disk managers to a role
 *
 * disks say hello (hashing a disk without metadata takes its time) -> OPEN (recovery, too) -> self-test in a
 * throw-away QEMU -> who has the arbiter's record? -> the role, core/start.h -> primary: claim the next generation,
 * then SERVE, then the VM; secondary: dial.
 *
 * Undecided, the node dials as a secondary would, and listens: that the peer takes it for a secondary
 * decides, or the hello of one that is no newer. So it is, too, as long as the arbiter does not answer: it is asked
 * again and again. A claim that is lost means that the peer serves by now, whatever the operator has asked for. A host
 * that was away for a moment only gives a peer that runs the SVM the time to claim first (on_patience()).
 */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "daemon/daemon.h"
#include "daemon/selftest.h"

#define START_LIMIT_MS 60000 /* of QEMU's part */
#define DISKS_POLL_MS 5
#define SAY_MS 10000

/* --- secondary --- */

static void secondary(struct daemon *d)
{
	uv_timer_stop(&d->say);
	uv_timer_stop(&d->patience);
	uv_timer_stop(&d->start_limit);
	daemon_event(d, (struct core_event){ .type = CORE_EV_DECIDED, .role = CORE_SECONDARY });
	log_info("waiting for %s", config_peer(d->cfg)->name);
}

/* --- primary --- */

static void on_setup(struct daemon *d, const struct agent_reply *r)
{
	if (r->status) {
		daemon_fail_start(d, "agent: %s", r->error);
		return;
	}
	uv_timer_stop(&d->start_limit);
	daemon_event(d, (struct core_event){ .type = CORE_EV_STARTED });
	log_info("the guest runs, unprotected until %s comes", config_peer(d->cfg)->name);
}

static void on_hello(struct daemon *d, const struct agent_reply *r)
{
	if (r->status || agentlink_setup(d, on_setup) < 0)
		daemon_fail_start(d, "agent: %s", r->error);
}

static void on_start_limit(uv_timer_t *t)
{
	struct daemon *d = t->data;

	daemon_fail_start(d, "QEMU's agent does not answer; see %s/qemu.log", daemon_state_dir(d));
}

static void limit(struct daemon *d)
{
	uv_timer_start(&d->start_limit, on_start_limit, START_LIMIT_MS, 0);
}

/* A crash from here on finds disks that say who served last. */
static void on_serving(struct daemon *d, int status)
{
	if (status < 0) {
		daemon_fail_start(d, "the disks cannot be served; see %s/disk0.log", daemon_state_dir(d));
		return;
	}
	limit(d);
	if (vm_start(d, VM_RUN) < 0 || agentlink_open(d, d->vm.agent_fd, on_hello) < 0)
		daemon_fail_start(d, "QEMU does not start");
}

static void primary(struct daemon *d)
{
	uv_timer_stop(&d->say);
	uv_timer_stop(&d->patience);
	uv_timer_stop(&d->start_limit);
	peer_stop_dialling(d);
	*d->waits_for = 0;
	daemon_event(d, (struct core_event){ .type = CORE_EV_DECIDED, .role = CORE_PRIMARY, .epoch = d->owned });
}

void start_role(struct daemon *d)
{
	if (!daemon_is_primary(d))
		daemon_event(d, (struct core_event){ .type = CORE_EV_STARTED });
	else if (diskman_serve(d, on_serving) < 0)
		daemon_fail_start(d, "a disk manager does not answer");
}

/* --- which one --- */

static unsigned int lineages(const struct daemon *d, struct lineage out[CONFIG_DISKS_MAX])
{
	unsigned int i, n = 0;

	for (i = 0; i < d->disk.n; i++)
		if (d->disk.disk[i].writable)
			out[n++] = d->disk.disk[i].lineage;
	return n;
}

static bool has_cdrom(const struct config *c)
{
	unsigned int i;

	for (i = 0; i < c->disks; i++)
		if (c->disk[i].cdrom)
			return true;
	return false;
}

static void say(struct daemon *d)
{
	if (*d->waits_for)
		log_warn("undecided: %s", d->waits_for);
}

static void on_say(uv_timer_t *t)
{
	say(t->data);
}

static void undecided(struct daemon *d)
{
	if (d->undecided && uv_is_active((uv_handle_t *)&d->say))
		return;
	d->undecided = true;
	say(d);
	uv_timer_start(&d->say, on_say, SAY_MS, SAY_MS);
	peer_start_dialling(d);
}

static enum start_role choose(struct daemon *d)
{
	const struct start_node n = {
		.asked = d->options.role, .configured_primary = config_is_primary(d->cfg),
		.boots_without_disk = *d->cfg->kernel || has_cdrom(d->cfg), .peer = config_peer(d->cfg)->name,
		.owner = d->owner, .generation = d->owned, .waited = d->waited,
	};
	struct lineage l[CONFIG_DISKS_MAX];
	unsigned int count = lineages(d, l);

	return start_decide(&n, l, count, d->waits_for, sizeof(d->waits_for));
}

static void on_record(struct daemon *d, int status, const struct arbiter_record *r);

/* --role primary, and no answer yet: without it there is nothing to claim. */
static void wait_for_arbiter(struct daemon *d)
{
	snprintf(d->waits_for, sizeof(d->waits_for), "waiting for the arbiter: %s", d->arbiter.error);
	if (!uv_is_active((uv_handle_t *)&d->say)) {
		say(d);
		uv_timer_start(&d->say, on_say, SAY_MS, SAY_MS);
	}
}

static void decide(struct daemon *d)
{
	switch (choose(d)) {
	case START_PRIMARY:
		if (d->owner == START_UNKNOWN)
			wait_for_arbiter(d);
		else
			primary(d);
		break;
	case START_SECONDARY:
		if (config_is_primary(d->cfg) && !d->options.role)
			log_warn("this host is configured as primary, but %s served last: to serve this older copy instead, "
				 "start with --role primary", config_peer(d->cfg)->name);
		secondary(d);
		peer_start_dialling(d);
		break;
	case START_UNDECIDED: undecided(d); break;
	default: daemon_fail_start(d, "%s", d->waits_for);
	}
}

static enum start_owner owner_of(const struct daemon *d, int status, const struct arbiter_record *r)
{
	if (status < 0)
		return START_UNKNOWN;
	if (!r->generation)
		return START_NOBODY;
	return strcmp(r->owner, config_local(d->cfg)->name) ? START_PEER : START_ME;
}

static void on_record(struct daemon *d, int status, const struct arbiter_record *r)
{
	if (d->core.role != CORE_UNDECIDED || d->core.state != CORE_STARTING)
		return; /* the peer has taken this node */
	d->owner = owner_of(d, status, r);
	d->owned = status < 0 ? 0 : r->generation;
	decide(d);
	if (d->owner == START_UNKNOWN && d->core.role == CORE_UNDECIDED)
		arbiter_read(d, on_record);
}

/* If the peer runs the SVM it has taken over by now. */
static void on_patience(uv_timer_t *t)
{
	struct daemon *d = t->data;

	d->waited = true;
	if (d->core.role == CORE_UNDECIDED && d->core.state == CORE_STARTING && d->owner == START_ME)
		arbiter_read(d, on_record);
}

static void be_patient(struct daemon *d)
{
	const struct core_config *c = &d->core.cfg;

	if (!d->waited)
		uv_timer_start(&d->patience, on_patience, start_patience_us(c->heartbeat_us, c->misses) / 1000, 0);
}

/* A secondary has nothing to ask. */
static void begin(struct daemon *d)
{
	enum start_role r;

	uv_timer_stop(&d->start_limit);
	be_patient(d);
	d->owner = START_UNKNOWN;
	r = choose(d);
	if (r == START_SECONDARY || r == START_REFUSED)
		decide(d);
	else
		arbiter_read(d, on_record);
}

/* Who won serves, or is about to: what the operator asked for was said before that. */
void start_decide_again(struct daemon *d)
{
	if (d->options.role == START_PRIMARY)
		d->options.role = START_BY_DISKS;
	begin(d);
}

const char *start_waits_for(const struct daemon *d)
{
	if (d->core.claiming)
		return *d->arbiter.error ? d->arbiter.error : "the arbiter's answer";
	return d->core.state == CORE_STARTING || d->core.state == CORE_CONNECTING ? d->waits_for : "";
}

bool start_is_undecided(const struct daemon *d)
{
	return d->undecided && d->core.role == CORE_UNDECIDED && d->core.state == CORE_STARTING;
}

enum peer_status start_hello(struct daemon *d, bool peer_undecided, const struct lineage *its, unsigned int n,
			     char *text, size_t size)
{
	const char *me = config_local(d->cfg)->name, *peer = config_peer(d->cfg)->name;
	struct lineage mine[CONFIG_DISKS_MAX];
	char why[400];

	snprintf(text, size, "busy: state %s", core_state_name(d->core.state));
	if (!start_is_undecided(d) || d->owner == START_UNKNOWN || lineages(d, mine) != n)
		return PEER_LATER;
	if (start_hears(mine, its, n, peer_undecided, me, peer, why, sizeof(why)) == START_PRIMARY) {
		log_info("%s has no newer copy: this node serves", peer);
		primary(d);
	} else {
		if (strcmp(d->waits_for, why))
			log_warn("undecided: %s", why);
		snprintf(d->waits_for, sizeof(d->waits_for), "%s", why);
		snprintf(text, size, "%s", why);
	}
	return PEER_LATER;
}

void start_taken(struct daemon *d)
{
	log_info("%s serves: this node joins it", config_peer(d->cfg)->name);
	secondary(d);
}

/* --- disks and self-test --- */

static void on_selftest(struct daemon *d, const struct selftest_result *r)
{
	if (d->core.state != CORE_STARTING || d->ending)
		return;
	if (r->status) {
		daemon_fail_start(d, "%s", r->text);
		return;
	}
	snprintf(d->qemu_version, sizeof(d->qemu_version), "%s", r->version);
	snprintf(d->driver, sizeof(d->driver), "%s", r->driver);
	snprintf(d->accel, sizeof(d->accel), "%s", r->accel);
	log_info("QEMU %s passes the self-test%s (driver %s, %s)", d->qemu_version, r->known ? ", as it did before" : "",
		 d->driver, d->accel);
	begin(d);
}

static void on_opened(struct daemon *d, int status)
{
	if (status < 0) {
		daemon_fail_start(d, "the disks cannot be opened; see %s/disk0.log", daemon_state_dir(d));
		return;
	}
	limit(d);
	if (selftest_start(d, on_selftest) < 0)
		daemon_fail_start(d, "no memory for the self-test");
}

/* called from the loop until all disk managers have said hello */
static void on_disks_poll(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (!d->disk.ready)
		return;
	uv_timer_stop(t);
	if (diskman_open(d, on_opened) < 0)
		daemon_fail_start(d, "a disk manager does not answer");
}

void start_begin(struct daemon *d)
{
	uv_timer_start(&d->seed_poll, on_disks_poll, DISKS_POLL_MS, DISKS_POLL_MS);
}
