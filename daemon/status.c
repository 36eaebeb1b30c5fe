/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * status.c - `colo status --json`: published keys keep their meaning
 */
#include <unistd.h>

#include "daemon/daemon.h"

static json_t *integer(uint64_t v)
{
	return json_integer((json_int_t)v);
}

static json_t *percentiles(const struct percentile *p)
{
	return json_pack("{s:o s:o s:o s:o}", "p50", integer(percentile_get(p, 50)), "p99",
			 integer(percentile_get(p, 99)), "max", integer(p->max), "count",
			 integer(p->count));
}

static json_t *checkpoints(const struct core *c)
{
	json_t *by = json_object(), *out;
	uint64_t total = 0;
	unsigned int i;

	for (i = 0; i < CORE_NCAUSES; i++) {
		json_object_set_new(by, core_cause_name(i), integer(c->checkpoints[i]));
		total += c->checkpoints[i];
	}
	out = json_pack("{s:o s:o}", "total", integer(total), "by_cause", by);
	return out;
}

static json_t *last_failover(const struct failover_record *f)
{
	if (!f->valid)
		return json_null();
	return json_pack("{s:o s:s s:f s:f}", "at", integer(f->at_unix_ms), "cause",
			 core_loss_name(f->cause), "detect_ms", f->detect_us / 1000.0, "total_ms",
			 f->total_us / 1000.0);
}

static json_t *disk(const struct diskman *m)
{
	return json_pack("{s:o s:o s:o s:o s:o}", "size", integer(m->size), "pvm_cache_bytes",
			 integer(m->status.status_reply.pvm_cache_bytes), "svm_cache_bytes",
			 integer(m->status.status_reply.svm_cache_bytes), "mirrored_bytes",
			 integer(m->status.status_reply.mirrored_bytes), "changed_bytes",
			 integer(m->status.status_reply.changed_bytes));
}

static json_t *processes(const struct daemon *d)
{
	return json_pack("{s:i s:i s:i}", "colo", (int)getpid(), "qemu", (int)d->vm.child.pid, "disk",
			 (int)d->disk.child.pid);
}

json_t *status_json(struct daemon *d)
{
	const struct checkpoint *k = &d->ckpt;
	json_t *net = nic_status(d), *s;

	s = json_pack("{s:s s:s s:s s:s s:s s:o s:o s:s}", "vm", d->cfg->name, "node",
		      config_local(d->cfg)->name, "role", daemon_is_primary(d) ? "primary" : "secondary",
		      "state", core_state_name(d->core.state), "mode",
		      d->cfg->mode == MODE_CHECKPOINT ? "checkpoint" : "colo", "epoch",
		      integer(d->core.epoch), "generation", integer(d->core.generation), "version",
		      COLO_VERSION);
	json_object_set_new(s, "checkpoints", checkpoints(&d->core));
	json_object_set_new(s, "pause_us", percentiles(&k->pause_us));
	json_object_set_new(s, "apply_us", percentiles(&k->apply_us));
	json_object_set_new(s, "send_us", percentiles(&k->send_us));
	json_object_set_new(s, "dirty_pages", json_pack("{s:o s:o}", "last", integer(k->last_pages), "p50",
							 integer(percentile_get(&k->pages, 50))));
	json_object_set_new(s, "link", json_pack("{s:b s:o s:o s:o}", "up", d->peer.up, "tx_bytes",
						  integer(d->peer.tx_bytes), "rx_bytes",
						  integer(d->peer.rx_bytes), "rtt_us",
						  integer(d->peer.rtt_ns / 1000)));
	json_object_set(s, "flows", json_object_get(net, "flows"));
	json_object_set(s, "held_packets", json_object_get(net, "held_packets"));
	json_object_set(s, "mismatches", json_object_get(net, "mismatches"));
	json_object_set_new(net, "differences", explain_counts(d));
	json_object_set_new(s, "net", net);
	json_object_set_new(s, "disk", disk(&d->disk));
	json_object_set_new(s, "seed_percent", json_real(d->seed_percent));
	json_object_set_new(s, "verified", json_pack("{s:o s:o}", "checked", integer(k->verified),
						      "mismatched", integer(k->verify_failed)));
	json_object_set_new(s, "last_failover", last_failover(&d->failover));
	json_object_set_new(s, "pid", processes(d));
	json_object_set_new(s, "qemu", json_pack("{s:s s:s}", "version", d->qemu_version, "driver",
						  d->driver));
	return s;
}
