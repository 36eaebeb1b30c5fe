/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * nic_setup.c - the NICs come and go: uplinks, the VM's side, offloads; and their status
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/log.h"
#include "daemon/nic_priv.h"

#define INPUT_LOG_SIZE (8u << 20)
#define OUTPUT_LOG_SIZE (16u << 20)
#define NUDGE_FLOWS 65536
#define FOLLOW_MS 100

static int open_uplink(struct nic *n)
{
	const struct config *c = n->d->cfg;
	char text[160];
	int r = tap_uplink(c->nic[n->number].tap, config_bridge(c, n->number), text, sizeof(text));

	if (r < 0)
		log_error("[%s] %s", config_nic_section(n->number), text);
	else
		n->uplink = r;
	return r < 0 ? r : 0;
}

static int make_modules(struct nic *n)
{
	const struct config *c = n->d->cfg;
	struct tr_config tr_cfg = { .max_flows = c->flows };
	struct cm_config cfg = {
		.max_flows = c->flows,
		.max_held_bytes = c->held_max,
		.wait_min_us = c->wait_min_us,
		.wait_max_us = c->wait_max_us,
	};

	/* so that no client can choose addresses that collide in the table */
	if (getrandom(&cfg.hash_seed, sizeof(cfg.hash_seed), 0) != sizeof(cfg.hash_seed))
		return -EIO;
	n->cm = cm_new(&cfg, &nic_cm_ops, n);
	tr_cfg.hash_seed = cfg.hash_seed;
	n->tr = tr_new(&tr_cfg, &nic_tr_ops, n);
	n->nudge = nudge_new(NUDGE_FLOWS);
	if (!n->cm || !n->tr || !n->nudge || framelog_init(&n->input, INPUT_LOG_SIZE) < 0 ||
	    framelog_init(&n->output, OUTPUT_LOG_SIZE) < 0 || explain_add(n->d, n->cm) < 0)
		return -ENOMEM;
	cm_set_mode(n->cm, CM_PASS, daemon_now_us());
	return 0;
}

static int open_one(struct daemon *d, struct nic *n, unsigned int number)
{
	int r;

	n->d = d;
	n->number = number;
	n->uplink = n->vm.sock = n->vm.tap = n->next.sock = n->next.tap = -1;
	n->base_anew = true;
	announce_init(&n->who, d->cfg->nic[number].mac_bytes);
	r = open_uplink(n);
	r = r < 0 ? r : make_modules(n);
	if (r < 0)
		return r;
	n->uplink_watch = watch_new(&d->loop, n->uplink, UV_READABLE, nic_on_uplink, n);
	return n->uplink_watch ? 0 : -ENOMEM;
}

void nic_follow(struct nic *n)
{
	bool csum, tso;

	if (n->vm.sock < 0 || n->mode != NIC_PRIMARY)
		return;
	vmtap_offloads(&n->vm, &csum, &tso);
	if (csum == n->csum && tso == n->tso)
		return;
	n->csum = csum;
	n->tso = tso;
	tap_set_offloads(n->uplink, csum, tso);
}

static void on_follow(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (d->nics)
		for_each_nic(d->nics, n)
			nic_follow(n);
}

int nic_open(struct daemon *d)
{
	struct nics *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	d->nics = s;
	r = tap_room_open(&s->room);
	if (r < 0) {
		log_error("network namespace for the VM's side of its NICs: %s", strerror(-r));
		return r;
	}
	while (r == 0 && s->n < d->cfg->nics) {
		r = open_one(d, &s->nic[s->n], s->n);
		s->n++;
	}
	uv_timer_start(&d->follow, on_follow, FOLLOW_MS, FOLLOW_MS);
	return r;
}

static void detach_one(struct nic *n)
{
	watch_free(n->vm_watch);
	n->vm_watch = NULL;
	vmtap_close(&n->vm);
	n->marker_due = false;
}

void nic_detach(struct daemon *d)
{
	if (!d->nics)
		return;
	for_each_nic(d->nics, n)
		detach_one(n);
	d->nics->hold = false;
}

static void close_one(struct nic *n)
{
	detach_one(n);
	vmtap_close(&n->next);
	watch_free(n->uplink_watch);
	if (n->uplink >= 0)
		close(n->uplink);
	if (n->cm)
		cm_free(n->cm);
	if (n->tr)
		tr_free(n->tr);
	nudge_free(n->nudge);
	framelog_free(&n->input);
	framelog_free(&n->output);
}

void nic_close(struct daemon *d)
{
	struct nics *s = d->nics;

	if (!s)
		return;
	explain_close(d);
	for_each_nic(s, n)
		close_one(n);
	tap_room_close(&s->room);
	free(s);
	d->nics = NULL;
}

/* --- the VM comes --- */

static int open_vm_side(struct nic *n, struct vmtap *t)
{
	int r = vmtap_open(t, &n->d->nics->room, n->number, n->d->cfg->offload);

	if (r < 0)
		log_error("nic%u: TAP for the VM: %s", n->number, strerror(-r));
	return r;
}

static int prepare_one(struct nic *n)
{
	int r;

	detach_one(n);
	r = open_vm_side(n, &n->vm);
	if (r < 0)
		return r;
	n->given = 0;
	n->translates = false;
	n->mode = daemon_is_primary(n->d) ? NIC_PRIMARY : NIC_SECONDARY;
	n->deaf = n->log_only = n->mode == NIC_SECONDARY; /* until the first checkpoint */
	n->vm_watch = watch_new(&n->d->loop, n->vm.sock, UV_READABLE, nic_on_vm, n);
	return n->vm_watch ? 0 : -ENOMEM;
}

int nic_prepare(struct daemon *d, int *fds)
{
	int r = 0;

	*fds++ = d->nics->room.counters;
	for_each_nic(d->nics, n) {
		r = prepare_one(n);
		if (r < 0)
			return r;
		*fds++ = n->vm.tap;
		*fds++ = n->vm.sock;
	}
	return 0;
}

static void close_tap(struct vmtap *t)
{
	if (t->tap >= 0)
		close(t->tap);
	t->tap = -1;
}

void nic_prepared(struct daemon *d)
{
	for_each_nic(d->nics, n) {
		close_tap(&n->vm);
		close_tap(&n->next);
	}
}

/* --- driver standby: another VM comes, in the place of this one --- */

int nic_prepare_next(struct daemon *d, int *fds)
{
	int r = 0;

	nic_drop_next(d);
	*fds++ = d->nics->room.counters;
	for_each_nic(d->nics, n) {
		r = open_vm_side(n, &n->next);
		if (r < 0)
			return r;
		*fds++ = n->next.tap;
		*fds++ = n->next.sock;
	}
	return 0;
}

/* What the NIC is in the middle of goes on: the marker that it waits for comes from the new VM. */
static void switch_one(struct nic *n)
{
	watch_free(n->vm_watch);
	vmtap_close(&n->vm);
	n->vm = n->next;
	n->next.sock = n->next.tap = -1;
	n->given = 0;
	n->vm_watch = watch_new(&n->d->loop, n->vm.sock, UV_READABLE, nic_on_vm, n);
}

void nic_switch(struct daemon *d)
{
	for_each_nic(d->nics, n)
		switch_one(n);
}

void nic_drop_next(struct daemon *d)
{
	if (d->nics)
		for_each_nic(d->nics, n)
			vmtap_close(&n->next);
}

/* --- status --- */

static json_t *one_status(struct nic *n)
{
	json_t *o = json_object();
	struct cm_stats s;
	struct tr_stats t;
	size_t i;

	cm_get_stats(n->cm, &s);
	tr_get_stats(n->tr, &t);
	const struct {
		const char *key;
		uint64_t value;
	} all[] = {
		{ "flows", s.flows }, { "flows_evicted", s.flows_evicted }, { "memory_bytes", s.memory },
		{ "held_packets", s.held_packets }, { "held_bytes", s.held_bytes }, { "released", s.released },
		{ "matched_bytes", s.matched_bytes }, { "released_by_checkpoint", s.released_by_checkpoint },
		{ "mismatches", s.mismatches }, { "missing", s.missing }, { "full", s.full },
		{ "dropped_held", s.dropped }, { "stale_svm_frames", s.stale_svm_frames },
		{ "acks_clamped", s.acks_clamped }, { "lag_us", s.lag_us }, { "translated", t.entries },
		{ "paired", t.paired_clients }, { "not_translated", t.full }, { "lan_rx", n->lan_rx },
		{ "lan_tx", n->lan_tx }, { "dropped_in", n->dropped_in }, { "dropped_out", n->dropped_out },
	};

	for (i = 0; i < sizeof(all) / sizeof(*all); i++)
		json_object_set_new(o, all[i].key, json_integer((json_int_t)all[i].value));
	return o;
}

/* numbers add up, but for the lag: the longest */
static void add_status(json_t *sum, json_t *one)
{
	const char *key;
	json_t *v, *old;

	json_object_foreach(one, key, v) {
		json_int_t a = json_integer_value(v), b;

		old = json_object_get(sum, key);
		b = json_integer_value(old);
		if (strcmp(key, "lag_us"))
			a += b;
		else
			a = a > b ? a : b;
		json_object_set_new(sum, key, json_integer(a));
	}
}

json_t *nic_status(struct daemon *d)
{
	json_t *sum = json_object(), *list = json_array(), *one;

	if (d->nics)
		for_each_nic(d->nics, n) {
			if (!n->cm)
				continue;
			one = one_status(n);
			add_status(sum, one);
			json_object_set_new(one, "mac", json_string(d->cfg->nic[n->number].mac));
			json_object_set_new(one, "checksum_offload", json_boolean(n->csum));
			json_object_set_new(one, "segmentation_offload", json_boolean(n->tso));
			json_array_append_new(list, one);
		}
	json_object_set_new(sum, "nics", list);
	return sum;
}
