/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hello_disk.c - what two daemons say of their disks, and whether those may become a pair
 *
 * Number, kind, sector and size must be alike. Read-only disks must have the same content, which nobody
 * copies. Of writable disks that of the node that serves is copied to the other one, if their lineages
 * allow it (disk/lineage.h): both nodes judge, so that neither depends on the other's word alone.
 */
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"

_Static_assert(PEER_MAX_DISKS == CONFIG_DISKS_MAX, "each disk has a place in the hello");

static void put_lineage(const struct lineage *l, bool overwrite, struct peer_disk *out)
{
	unsigned int i;

	out->current = htobe64(l->current);
	out->base = htobe64(l->base);
	for (i = 0; i < LINEAGE_HISTORY; i++)
		out->history[i] = htobe64(l->history[i]);
	out->lineage_flags = htobe32(l->flags | (overwrite ? LINEAGE_OVERWRITE : 0));
}

void hello_disk_lineage(const struct peer_disk *in, struct lineage *out)
{
	unsigned int i;

	memset(out, 0, sizeof(*out));
	out->current = be64toh(in->current);
	out->base = be64toh(in->base);
	for (i = 0; i < LINEAGE_HISTORY; i++)
		out->history[i] = be64toh(in->history[i]);
	out->flags = be32toh(in->lineage_flags);
}

static uint32_t flags_of(const struct config_disk *k)
{
	return PEER_DISK_PRESENT | (k->read_only ? PEER_DISK_READ_ONLY : 0) | (k->cdrom ? PEER_DISK_CDROM : 0);
}

void hello_disks_fill(struct daemon *d, struct peer_disk *out)
{
	unsigned int i;

	memset(out, 0, PEER_MAX_DISKS * sizeof(*out));
	for (i = 0; i < d->cfg->disks; i++) {
		const struct dm *m = &d->disk.disk[i];

		out[i].size = htobe64(m->size);
		out[i].flags = htobe32(flags_of(&d->cfg->disk[i]));
		out[i].sector = htobe32((uint32_t)d->cfg->disk[i].sector);
		if (d->cfg->disk[i].read_only)
			out[i].identity = htobe64(m->hello.hello.identity);
		else
			put_lineage(&m->lineage, d->options.overwrite, &out[i]);
	}
}

__attribute__((format(printf, 4, 5)))
static enum peer_status refuse(const struct dm *m, char *text, size_t size, const char *fmt, ...)
{
	int n = snprintf(text, size, "%s (%s): ", m->name, m->file);
	va_list ap;

	va_start(ap, fmt);
	if (n >= 0 && (size_t)n < size)
		vsnprintf(text + n, size - n, fmt, ap);
	va_end(ap);
	return PEER_REFUSED;
}

static const char *kind(uint32_t flags)
{
	return flags & PEER_DISK_CDROM ? "a CD" : flags & PEER_DISK_READ_ONLY ? "read-only" : "writable";
}

/* May one become a copy of the other? Notes how far they may differ. */
static enum peer_status judge(struct daemon *d, const struct dm *m, bool source, char *text, size_t size)
{
	const char *here = config_local(d->cfg)->name, *there = config_peer(d->cfg)->name;
	struct diskman_peer *p = &d->peer.disk[m->index];
	struct lineage ours = m->lineage;
	enum lineage_verdict v;
	char why[200];

	ours.flags |= d->options.overwrite ? LINEAGE_OVERWRITE : 0;
	v = source ? lineage_judge(&ours, &p->lineage) : lineage_judge(&p->lineage, &ours);
	p->all = v == LINEAGE_ALL;
	if (v == LINEAGE_CHANGED || v == LINEAGE_ALL)
		return PEER_OK;
	lineage_explain(v, source ? here : there, source ? there : here, why, sizeof(why));
	return refuse(m, text, size, "%s", why);
}

static enum peer_status check_one(struct daemon *d, const struct peer_disk *theirs, unsigned int i,
				  enum hello_side side, char *text, size_t size)
{
	const struct dm *m = &d->disk.disk[i];
	const struct config_disk *k = &d->cfg->disk[i];
	uint32_t flags = be32toh(theirs->flags);

	if (!(flags & PEER_DISK_PRESENT))
		return refuse(m, text, size, "%s has no such disk", config_peer(d->cfg)->name);
	if (flags != flags_of(k))
		return refuse(m, text, size, "%s on %s, %s on %s", kind(flags), config_peer(d->cfg)->name,
			      kind(flags_of(k)), config_local(d->cfg)->name);
	if (be32toh(theirs->sector) != k->sector)
		return refuse(m, text, size, "sectors of %u bytes on %s, of %u on %s", be32toh(theirs->sector),
			      config_peer(d->cfg)->name, (unsigned int)k->sector, config_local(d->cfg)->name);
	if (be64toh(theirs->size) != m->size)
		return refuse(m, text, size, "%llu bytes on %s, %llu on %s",
			      (unsigned long long)be64toh(theirs->size), config_peer(d->cfg)->name,
			      (unsigned long long)m->size, config_local(d->cfg)->name);
	if (k->read_only && be64toh(theirs->identity) != m->hello.hello.identity)
		return refuse(m, text, size, "the content on %s is another; a read-only disk is not copied",
			      config_peer(d->cfg)->name);
	if (k->read_only)
		return PEER_OK;
	hello_disk_lineage(theirs, &d->peer.disk[i].lineage);
	return side == HELLO_UNJUDGED ? PEER_OK : judge(d, m, side == HELLO_SOURCE, text, size);
}

enum peer_status hello_disks_check(struct daemon *d, const struct peer_disk *theirs, enum hello_side side,
				   char *text, size_t size)
{
	enum peer_status s = PEER_OK;
	unsigned int i;

	for (i = 0; s == PEER_OK && i < d->cfg->disks; i++)
		s = check_one(d, &theirs[i], i, side, text, size);
	for (; s == PEER_OK && i < PEER_MAX_DISKS; i++)
		if (theirs[i].flags) {
			snprintf(text, size, "disk%u: only %s has such a disk", i, config_peer(d->cfg)->name);
			s = PEER_REFUSED;
		}
	return s;
}
