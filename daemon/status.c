/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * status.c - `colo status --json`: published keys keep their meaning
 */
#include <stdio.h>
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

/* --- disks --- */

static json_t *progress(const struct disk_progress *p)
{
	return json_pack("{s:i s:o s:o s:o s:o}", "percent", (int)disk_percent(p), "done", integer(p->done),
			 "total", integer(p->total), "moved", integer(p->moved), "eta_s",
			 p->eta_s == UINT64_MAX ? json_null() : integer(p->eta_s));
}

static const char *role(const struct config_disk *k)
{
	return k->cdrom ? "cdrom" : k->read_only ? "read-only" : "writable";
}

static json_t *one_disk(const struct dm *m)
{
	const struct config_disk *k = &m->d->cfg->disk[m->index];
	const struct disk_message *s = &m->status;
	char generation[20];
	json_t *o;

	snprintf(generation, sizeof(generation), "%016llx", (unsigned long long)m->lineage.current);
	o = json_pack("{s:s s:s s:s s:o s:i s:s}", "file", m->file, "format",
		      k->format == FORMAT_QCOW2 ? "qcow2" : "raw", "role", role(k), "size", integer(m->size),
		      "sector", (int)k->sector, "state", s->text);
	json_object_set_new(o, "sync", m->sync.active || m->synced ? progress(&m->sync) : json_null());
	json_object_set_new(o, "changed_bytes", integer(s->status_reply.changed_bytes));
	json_object_set_new(o, "memory_bytes", integer(s->status_reply.memory_bytes));
	json_object_set_new(o, "journal_bytes", integer(s->status_reply.journal_bytes));
	json_object_set_new(o, "generation", m->lineage.current ? json_string(generation) : json_null());
	return o;
}

static json_t *disks(const struct diskman *all)
{
	json_t *out = json_array();
	unsigned int i;

	for (i = 0; i < all->n; i++)
		json_array_append_new(out, one_disk(&all->disk[i]));
	return out;
}

/* sums over all disks */
static json_t *disk(const struct diskman *all)
{
	uint64_t size = 0, pvm = 0, svm = 0, mirrored = 0, changed = 0;
	unsigned int i;

	for (i = 0; i < all->n; i++) {
		const struct disk_message *s = &all->disk[i].status;

		size += all->disk[i].size;
		pvm += s->status_reply.pvm_cache_bytes;
		svm += s->status_reply.svm_cache_bytes;
		mirrored += s->status_reply.mirrored_bytes;
		changed += s->status_reply.changed_bytes;
	}
	return json_pack("{s:o s:o s:o s:o s:o}", "size", integer(size), "pvm_cache_bytes", integer(pvm),
			 "svm_cache_bytes", integer(svm), "mirrored_bytes", integer(mirrored), "changed_bytes",
			 integer(changed));
}

static json_t *processes(const struct daemon *d)
{
	json_t *all = json_array();
	unsigned int i;

	for (i = 0; i < d->disk.n; i++)
		json_array_append_new(all, json_integer(d->disk.disk[i].child.pid));
	return json_pack("{s:i s:i s:i s:i s:o}", "colo", (int)getpid(), "supervisor",
			 d->options.supervised ? (int)getppid() : 0, "qemu", (int)d->vm.child.pid, "disk",
			 (int)d->disk.disk[0].child.pid, "disks", all);
}

static json_t *link_status(const struct daemon *d)
{
	const struct peer *p = &d->peer;
	bool said = p->up && p->their_state;

	return json_pack("{s:b s:s s:o s:o s:o s:i s:o}", "up", p->up, "tls", config_tls_name(d->cfg), "tx_bytes", integer(p->tx_bytes), "rx_bytes",
			 integer(p->rx_bytes), "rtt_us", integer(p->rtt_ns / 1000), "version",
			 p->up ? (int)p->version : 0, "peer_state",
			 said ? json_string(core_state_name(p->their_state - 1)) : json_null());
}

json_t *status_json(struct daemon *d)
{
	const struct checkpoint *k = &d->ckpt;
	json_t *net = nic_status(d), *s;

	s = json_pack("{s:s s:s s:s s:s s:s s:o s:o s:s}", "vm", d->cfg->name, "node",
		      config_local(d->cfg)->name, "role", daemon_role_name(d),
		      "state", core_state_name(d->core.state), "mode",
		      d->cfg->mode == MODE_CHECKPOINT ? "checkpoint" : "colo", "epoch",
		      integer(d->core.epoch), "generation", integer(d->core.generation), "version",
		      COLO_VERSION);
	json_object_set_new(s, "paused", json_boolean(d->core.paused));
	json_object_set_new(s, "checkpoints", checkpoints(&d->core));
	json_object_set_new(s, "pause_us", percentiles(&k->pause_us));
	json_object_set_new(s, "apply_us", percentiles(&k->apply_us));
	json_object_set_new(s, "send_us", percentiles(&k->send_us));
	json_object_set_new(s, "dirty_pages", json_pack("{s:o s:o}", "last", integer(k->last_pages), "p50",
							 integer(percentile_get(&k->pages, 50))));
	json_object_set_new(s, "link", link_status(d));
	json_object_set(s, "flows", json_object_get(net, "flows"));
	json_object_set(s, "held_packets", json_object_get(net, "held_packets"));
	json_object_set(s, "mismatches", json_object_get(net, "mismatches"));
	json_object_set_new(net, "differences", explain_counts(d));
	json_object_set_new(s, "net", net);
	json_object_set_new(s, "disk", disk(&d->disk));
	json_object_set_new(s, "disks", disks(&d->disk));
	json_object_set_new(s, "seed_percent", json_real(d->seed_percent));
	json_object_set_new(s, "verified", json_pack("{s:o s:o}", "checked", integer(k->verified),
						      "mismatched", integer(k->verify_failed)));
	json_object_set_new(s, "verify", verify_json(d));
	json_object_set_new(s, "arbiter", arbiter_json(d));
	json_object_set_new(s, "waits_for", *start_waits_for(d) ? json_string(start_waits_for(d)) : json_null());
	json_object_set_new(s, "alarms", faults_json(d));
	json_object_set_new(s, "last_failover", last_failover(&d->failover));
	json_object_set_new(s, "pid", processes(d));
	json_object_set_new(s, "qemu", json_pack("{s:s s:s s:s}", "version", d->qemu_version, "driver",
						  d->driver, "accel", d->accel));
	return s;
}
