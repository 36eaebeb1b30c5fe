/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * verify.c - colo verify: are the disks of both hosts equal?
 *
 * The disk managers compare while the VM runs; here is who may ask, and what they found last.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "daemon/daemon.h"

int verify_begin(struct daemon *d, bool repair, const char **why)
{
	struct verify *v = &d->verify;
	unsigned int i;
	int r;

	*why = !daemon_is_primary(d) ? "only the primary verifies" :
	       d->core.state != CORE_PROTECTED ? "not protected: there is nothing to compare with" :
	       v->running ? "a verify is under way" : NULL;
	if (*why)
		return -1;
	*v = (struct verify){ .running = true, .repair = repair, .at_unix_ms = daemon_unix_ms() };
	for (i = 0; i < d->disk.n; i++)
		v->disk[i].running = d->disk.disk[i].writable;
	r = diskman_verify(d, repair);
	if (r == 0)
		return 0;
	v->running = false;
	*why = "the disk managers cannot verify";
	return r;
}

static bool all_done(const struct verify *v)
{
	unsigned int i;

	for (i = 0; i < CONFIG_DISKS_MAX; i++)
		if (v->disk[i].running)
			return false;
	return true;
}

/* Differences that stay are an alarm until a later verify finds none, or repairs them. */
static void judge(struct daemon *d)
{
	const struct verify *v = &d->verify;
	bool failed = false, differ = false;
	unsigned int i;

	for (i = 0; i < d->disk.n; i++) {
		failed = failed || v->disk[i].status < 0;
		differ = differ || v->disk[i].differing > v->disk[i].repaired;
	}
	if (differ)
		faults_alarm(d, ALARM_VERIFY, "the disks of the two hosts differ: see colo verify; --repair copies from %s",
			     config_local(d->cfg)->name);
	else if (!failed)
		faults_mended(d, ALARM_VERIFY);
}

static void done(struct daemon *d, unsigned int disk)
{
	const struct verify_disk *k = &d->verify.disk[disk];

	if (k->status < 0)
		log_warn("disk%u: verify: %s", disk, *k->text ? k->text : strerror(-k->status));
	else
		log_info("disk%u: verified %llu bytes, %llu differ, %llu repaired%s%s", disk,
			 (unsigned long long)k->checked, (unsigned long long)k->differing,
			 (unsigned long long)k->repaired, *k->text ? ": " : "", k->text);
	if (!all_done(&d->verify))
		return;
	d->verify.running = false;
	judge(d);
}

void verify_done(struct daemon *d, unsigned int disk, const struct disk_message *m)
{
	struct verify_disk *k = &d->verify.disk[disk];

	/* the answer to the request says that it has begun */
	if (!k->running || (m->op == DISK_VERIFY && m->status >= 0))
		return;
	k->running = false;
	k->status = m->status;
	snprintf(k->text, sizeof(k->text), "%s", m->text);
	if (m->op == DISK_EV_VERIFIED) {
		k->checked = m->verified.checked;
		k->differing = m->verified.differing;
		k->repaired = m->verified.repaired;
	}
	done(d, disk);
}

void verify_cut_off(struct daemon *d)
{
	unsigned int i;

	for (i = 0; i < CONFIG_DISKS_MAX; i++) {
		struct verify_disk *k = &d->verify.disk[i];

		if (!k->running)
			continue;
		k->running = false;
		k->status = -EPIPE;
		snprintf(k->text, sizeof(k->text), "the link was lost");
		done(d, i);
	}
}

static json_t *one(const struct daemon *d, unsigned int i)
{
	const struct verify_disk *k = &d->verify.disk[i];
	const struct disk_progress *p = &d->disk.disk[i].verify;
	json_t *o = json_pack("{s:s s:b}", "name", d->disk.disk[i].name, "running", k->running);

	if (k->running) {
		json_object_set_new(o, "done", json_integer(p->active ? (json_int_t)p->done : 0));
		json_object_set_new(o, "total", json_integer((json_int_t)d->disk.disk[i].size));
		json_object_set_new(o, "eta_s", p->active && p->eta_s != UINT64_MAX ?
				    json_integer((json_int_t)p->eta_s) : json_null());
		return o;
	}
	json_object_set_new(o, "error", k->status < 0 ?
			    json_string(*k->text ? k->text : strerror(-k->status)) : json_null());
	json_object_set_new(o, "checked", json_integer((json_int_t)k->checked));
	json_object_set_new(o, "differing", json_integer((json_int_t)k->differing));
	json_object_set_new(o, "repaired", json_integer((json_int_t)k->repaired));
	json_object_set_new(o, "places", json_string(k->status < 0 ? "" : k->text));
	return o;
}

json_t *verify_json(const struct daemon *d)
{
	const struct verify *v = &d->verify;
	json_t *disks = json_array();
	unsigned int i;

	if (!v->at_unix_ms) {
		json_decref(disks);
		return json_null();
	}
	for (i = 0; i < d->disk.n; i++)
		if (d->disk.disk[i].writable)
			json_array_append_new(disks, one(d, i));
	return json_pack("{s:I s:b s:b s:o}", "at", (json_int_t)v->at_unix_ms, "running", v->running, "repair",
			 v->repair, "disks", disks);
}
