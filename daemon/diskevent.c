/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * diskevent.c - what the disk managers say by themselves
 *
 * What one disk says counts for the pair when all writable ones have said it: that a boundary is here,
 * that the peer has the content. That a cache fills up, a link breaks, or storage fails is said by one.
 *
 * What was said before a LINK or UNLINK is answered is about the link that there was before.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define SAY_EVERY_NS 10000000000ull
#define SAY_PERCENT 10

static unsigned long long mib(uint64_t bytes)
{
	return bytes >> 20;
}

/* --- progress --- */

unsigned int disk_percent(const struct disk_progress *p)
{
	return p->total ? (unsigned int)(p->done * 100.0 / p->total) : 100;
}

/* every 10 percent or 10 seconds, whichever comes first */
static bool worth_saying(struct disk_progress *p)
{
	uint64_t now = clock_now_ns();
	unsigned int percent = disk_percent(p);

	if (percent < p->said_percent + SAY_PERCENT && now - p->said_ns < SAY_EVERY_NS)
		return false;
	p->said_percent = percent;
	p->said_ns = now;
	return true;
}

static void on_progress(struct dm *m, const struct disk_message *msg, const char *what)
{
	struct disk_progress *p = m->synced ? &m->verify : &m->sync;
	char eta[40] = "";

	if (!p->active)
		*p = (struct disk_progress){ .active = true, .said_ns = clock_now_ns() };
	p->done = msg->sync.done;
	p->total = msg->sync.total;
	p->moved = msg->sync.moved;
	p->eta_s = msg->sync.eta_s;
	if (!worth_saying(p))
		return;
	if (p->eta_s != UINT64_MAX)
		snprintf(eta, sizeof(eta), ", %llu s left", (unsigned long long)p->eta_s);
	log_info("%s: %s %u %%: %llu of %llu MiB looked at, %llu MiB moved%s", m->name, what, disk_percent(p),
		 mib(p->done), mib(p->total), mib(p->moved), eta);
}

/* --- what counts when all have said it --- */

static bool all_synced(const struct diskman *all)
{
	unsigned int i;

	for (i = 0; i < all->n; i++)
		if (all->disk[i].writable && !all->disk[i].synced)
			return false;
	return true;
}

static bool all_have_boundary(const struct diskman *all, uint64_t epoch)
{
	unsigned int i;

	for (i = 0; i < all->n; i++)
		if (all->disk[i].writable && all->disk[i].boundary != epoch)
			return false;
	return true;
}

static void on_synced(struct dm *m, const struct disk_message *msg)
{
	struct disk_progress *p = &m->sync;

	p->active = false;
	if (msg->sync.total) { /* else it is an earlier plugin's, without figures */
		p->done = msg->sync.done;
		p->total = msg->sync.total;
		p->moved = msg->sync.moved;
	}
	p->eta_s = 0;
	m->synced = true;
	log_info("%s: the peer has the same content: %llu of %llu MiB looked at, %llu.%llu MiB moved", m->name,
		 mib(p->done), mib(m->size), mib(p->moved), mib((p->moved & 0xfffff) * 10));
	if (all_synced(&m->d->disk))
		daemon_event(m->d, (struct core_event){ .type = CORE_EV_DISK_SYNCED });
}

static void on_boundary(struct dm *m, uint64_t epoch)
{
	m->boundary = epoch;
	if (all_have_boundary(&m->d->disk, epoch))
		checkpoint_disk_boundary(m->d, epoch);
}

/* --- what one says --- */

void diskman_link_lost(struct dm *m, const char *why)
{
	struct daemon *d = m->d;

	m->sync.active = m->verify.active = false;
	m->link_lost = true;
	/* the new primary unlinks its disk from that of a node that has given up */
	if (!d->peer.up || d->core.state == CORE_GIVEN_UP)
		return;
	if (*why)
		log_warn("%s: link: %s", m->name, why);
	peer_side_closed(d, PEER_DISK);
}

static bool all_ready(const struct diskman *all)
{
	unsigned int i;

	for (i = 0; i < all->n; i++)
		if (!all->disk[i].hello.op)
			return false;
	return true;
}

static void on_hello(struct dm *m, const struct disk_message *msg)
{
	struct daemon *d = m->d;

	if (msg->hello.proto != DISK_PROTO_VERSION) {
		daemon_fail_start(d, "the disk plugin is of another version");
		return;
	}
	if (msg->status < 0) {
		daemon_fail_start(d, "disk %s cannot be served: %s", m->file, msg->text);
		return;
	}
	if (msg->hello.size % d->cfg->disk[m->index].sector) {
		daemon_fail_start(d, "disk %s cannot be served: its %llu bytes are no whole sectors of %u", m->file,
				  (unsigned long long)msg->hello.size, (unsigned int)d->cfg->disk[m->index].sector);
		return;
	}
	m->hello = *msg;
	m->size = msg->hello.size;
	m->lineage = msg->hello.lineage;
	m->sync.active = false;
	log_info("%s: %s: %llu MiB%s", m->name, m->file, mib(m->size), m->writable ? "" : ", read-only");
	d->disk.ready = all_ready(&d->disk);
}

static bool of_an_earlier_link(const struct dm *m, uint32_t op)
{
	bool link = op == DISK_EV_BOUNDARY || op == DISK_EV_SYNC || op == DISK_EV_SYNCED || op == DISK_EV_LINK_LOST;

	return link && (m->owes[DISK_LINK] || m->owes[DISK_UNLINK]);
}

static void on_event(struct dm *m, const struct disk_message *msg)
{
	struct daemon *d = m->d;

	if (of_an_earlier_link(m, msg->op))
		return;
	switch (msg->op) {
	case DISK_EV_HELLO: on_hello(m, msg); break;
	case DISK_EV_OPENING: on_progress(m, msg, "reading it for the first time"); break;
	case DISK_EV_BOUNDARY: on_boundary(m, msg->epoch); break;
	case DISK_EV_SYNC: on_progress(m, msg, m->synced ? "verify" : "sync"); break;
	case DISK_EV_SYNCED: on_synced(m, msg); break;
	case DISK_EV_WRITTEN_BACK:
		m->writing_back = false;
		if (!diskman_writes_back(d))
			faults_mended(d, ALARM_FAILOVER);
		log_info("%s: what the SVM had written is on stable storage", m->name);
		break;
	case DISK_EV_WANT_CHECKPOINT:
		daemon_event(d, (struct core_event){ .type = CORE_EV_WANT_CHECKPOINT, .cause = CORE_CAUSE_DISK });
		break;
	case DISK_EV_LINK_LOST: diskman_link_lost(m, msg->text); break;
	case DISK_EV_FAULT:
		m->fault = true;
		faults_disk(d, m->name, msg->text);
		break;
	case DISK_EV_ERROR: faults_disk(d, m->name, msg->text); break;
	case DISK_EV_VERIFIED:
		m->verify.active = false;
		verify_done(d, m->index, msg);
		break;
	default: diskman_answer(m, msg);
	}
}

void diskman_on_message(void *arg, int events)
{
	struct dm *m = arg;
	struct disk_message msg;
	ssize_t n;

	/* one by one: an event may end the disk manager */
	n = recv(m->fd, &msg, sizeof(msg), MSG_DONTWAIT);
	if (n == 0)
		watch_events(m->watch, 0);
	if (n != sizeof(msg))
		return;
	msg.text[sizeof(msg.text) - 1] = 0;
	m->silent = false;
	on_event(m, &msg);
}
