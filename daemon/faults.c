/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * faults.c - alarms, and what follows when a disk fails
 *
 * An alarm says that something is wrong which this program cannot mend. It stands in `colo status` until it is
 * mended, and once in the log. Who serves when a disk has failed is the core's to decide.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "daemon/daemon.h"

void faults_alarm(struct daemon *d, enum alarm a, const char *fmt, ...)
{
	char text[sizeof(d->alarms.alarm[a].text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (d->alarms.alarm[a].at_unix_ms && !strcmp(text, d->alarms.alarm[a].text))
		return;
	d->alarms.alarm[a].at_unix_ms = daemon_unix_ms();
	memcpy(d->alarms.alarm[a].text, text, sizeof(text));
	log_error("alarm: %s", text);
	notify_alarm(d, "alarm", text);
}

void faults_mended(struct daemon *d, enum alarm a)
{
	if (!d->alarms.alarm[a].at_unix_ms)
		return;
	log_info("mended: %s", d->alarms.alarm[a].text);
	notify_alarm(d, "mended", d->alarms.alarm[a].text);
	d->alarms.alarm[a].at_unix_ms = 0;
}

json_t *faults_json(const struct daemon *d)
{
	json_t *out = json_array();
	unsigned int a;

	for (a = 0; a < ALARMS; a++)
		if (d->alarms.alarm[a].at_unix_ms)
			json_array_append_new(out, json_pack("{s:I s:s}", "at",
							     (json_int_t)d->alarms.alarm[a].at_unix_ms, "text",
							     d->alarms.alarm[a].text));
	return out;
}

/* --- disks --- */

static bool request_waits(const struct daemon *d)
{
	unsigned int i;

	for (i = 0; i < d->disk.n; i++)
		if (d->disk.disk[i].fault)
			return true;
	return false;
}

void faults_disk(struct daemon *d, const char *disk, const char *why)
{
	faults_alarm(d, ALARM_DISK, "%s of %s failed: %s", disk, config_local(d->cfg)->name, why);
	/* A serving VM is told by the answers to its requests, if the core finds nothing better. */
	if (d->core.role == CORE_SECONDARY || request_waits(d))
		daemon_event(d, (struct core_event){ .type = CORE_EV_DISK_FAILED });
}

/* --- the peer --- */

void faults_goodbye(struct daemon *d, enum core_loss why)
{
	const char *text = "the primary goes on alone";

	if (d->alarms.alarm[ALARM_SILENT].at_unix_ms)
		text = d->alarms.alarm[ALARM_SILENT].text;
	else if (why == CORE_LOSS_DISK || d->alarms.alarm[ALARM_DISK].at_unix_ms)
		text = d->alarms.alarm[ALARM_DISK].text;
	else if (why == CORE_LOSS_CHECKPOINT)
		text = "a checkpoint could not be applied";
	else if (why == CORE_LOSS_WEDGED)
		text = "its VM does not answer";
	else if (why == CORE_LOSS_MANUAL)
		text = "it was told to stop";
	peer_send(d, PEER_GOODBYE, 0, text, strlen(text), NULL, 0);
}

void faults_heard_goodbye(struct daemon *d, const uint8_t *text, size_t n)
{
	char *said = d->alarms.goodbye;
	size_t i;

	n = n < sizeof(d->alarms.goodbye) ? n : sizeof(d->alarms.goodbye) - 1;
	for (i = 0; i < n; i++)
		said[i] = isprint(text[i]) ? (char)text[i] : '?';
	said[n] = 0;
	log_warn("the secondary ends: %s", said);
}

static const char *why_lost(const struct daemon *d)
{
	return *d->alarms.goodbye ? d->alarms.goodbye : core_loss_name(d->core.loss);
}

/* Was there protection, or nearly, that is lost now? A loss is judged where it ends: who serves then? */
static bool ends_protection(enum core_state from, enum core_state to)
{
	return to == CORE_ALONE && (from == CORE_PROTECTED || from == CORE_CLAIMING || from == CORE_TAKEOVER || from == CORE_SEEDING ||
				    from == CORE_SYNCING);
}

void faults_state(struct daemon *d, enum core_state before)
{
	enum core_state now = d->core.state;

	if (now == before)
		return;
	if (now == CORE_PROTECTED) {
		faults_mended(d, ALARM_PROTECTION);
	} else if (now == CORE_ALONE && d->core.paused) {
		log_warn("protection is paused until colo resume");
	} else if (ends_protection(before, now)) {
		faults_alarm(d, ALARM_PROTECTION, "the VM is not protected since %s was lost: %s",
			     config_peer(d->cfg)->name, why_lost(d));
	}
	if (now == CORE_SYNCING)
		d->alarms.goodbye[0] = 0;
	if (before == CORE_PROTECTED)
		verify_cut_off(d);
}
