/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hello.c - who may link: what the dialler says of itself, checked against our own configuration
 */
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/daemon.h"

/* What the guest sees of its machine beyond what has a field of its own: must be alike. Paths are not
 * part of it; kernel and initrd come with the seed. FNV-1a, 64 bits. */
static uint64_t devices_digest(const struct config *c, uint64_t h)
{
	const uint64_t choice[] = { c->virtio, c->rng, c->vga, c->tablet, c->root_ports };
	const char *s;
	size_t i;

	for (i = 0; i < sizeof(choice) / sizeof(*choice); i++)
		if (choice[i]) /* an older colo knows none of them */
			h = (h ^ (0x100 + 16 * i + choice[i])) * 0x100000001b3;
	for (s = c->devices; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3;
	return h;
}

static uint64_t machine_digest(const struct daemon *d)
{
	const struct config *c = d->cfg;
	const char *part[3 + AGENT_MAX_NICS] = { c->cpu, d->accel, c->append };
	uint64_t h = 0xcbf29ce484222325;
	const char *s;
	size_t i;

	for (i = 0; i < c->nics; i++)
		part[3 + i] = c->nic[i].mac;
	for (i = 0; i < 3 + c->nics; i++) {
		for (s = part[i]; *s; s++)
			h = (h ^ (unsigned char)*s) * 0x100000001b3;
		h = (h ^ 0xff) * 0x100000001b3;
	}
	for (i = 0; i < c->disks; i++)
		h = (h ^ (c->disk[i].sector + 2 * c->disk[i].read_only + c->disk[i].cdrom)) * 0x100000001b3;
	return devices_digest(c, h) + c->offload;
}

unsigned int hello_newest(const struct daemon *d)
{
	return d->options.peer_version ? d->options.peer_version : PEER_VERSION;
}

unsigned int hello_version(const struct daemon *d, unsigned int min, unsigned int max)
{
	unsigned int v = max < hello_newest(d) ? max : hello_newest(d);

	return v < min || v < PEER_VERSION_MIN ? 0 : v;
}

bool hello_is_claiming(const struct daemon *d)
{
	return d->core.role == CORE_SECONDARY && d->core.state == CORE_CLAIMING;
}

void hello_fill(struct daemon *d, struct peer_hello *h, enum peer_channel channel, unsigned int disk)
{
	const struct config *c = d->cfg;

	memset(h, 0, sizeof(*h));
	h->magic = htobe32(PEER_MAGIC);
	h->version = htobe16(hello_newest(d));
	h->version_min = htobe16(PEER_VERSION_MIN);
	h->generation = htobe64(d->core.generation);
	h->channel = htobe16(channel);
	h->session = htobe64(channel == PEER_CONTROL ? 0 : d->peer.session);
	h->memory = htobe64(c->memory);
	h->vcpus = htobe64(c->vcpus);
	h->mode = htobe64(c->mode);
	h->digest = htobe64(machine_digest(d));
	h->disk = htobe16(disk);
	h->flags = htobe16((start_is_undecided(d) ? PEER_HELLO_UNDECIDED : 0) |
			   (hello_is_claiming(d) ? PEER_HELLO_CLAIMING : 0));
	hello_disks_fill(d, h->disks);
	snprintf(h->vm, sizeof(h->vm), "%s", c->name);
	snprintf(h->node, sizeof(h->node), "%s", config_local(c)->name);
	snprintf(h->machine, sizeof(h->machine), "%s", c->machine);
	snprintf(h->qemu, sizeof(h->qemu), "%s", d->qemu_version);
	if (hello_newest(d) >= 5) {
		snprintf(h->driver, sizeof(h->driver), "%s", d->driver);
		snprintf(h->accel, sizeof(h->accel), "%s", d->accel);
	}
}

static enum peer_status refuse(char *text, size_t size, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, size, fmt, ap);
	va_end(ap);
	return PEER_REFUSED;
}

void hello_text(char *s, size_t size)
{
	s[size - 1] = 0;
	for (; *s; s++)
		if ((unsigned char)*s < 32 || (unsigned char)*s > 126)
			*s = '?';
}

/* What each host finds out by itself, unless the configuration says it, must come out alike. */
static enum peer_status check_found_out(struct daemon *d, const struct peer_hello *h, char *text, size_t size)
{
	const char *its = *h->driver ? h->driver : "direct", *me = config_local(d->cfg)->name;

	if (strcmp(its, d->driver))
		return refuse(text, size, "driver %s on %s, %s on %s: set [vm] driver = standby", its, h->node, d->driver,
			      me);
	if (*h->accel && strcmp(h->accel, d->accel))
		return refuse(text, size, "accelerator %s on %s, %s on %s: set [vm] accel = tcg", h->accel, h->node,
			      d->accel, me);
	return PEER_OK;
}

static enum peer_status check_identity(struct daemon *d, struct peer_hello *h, char *text, size_t size)
{
	const struct config *c = d->cfg;

	if (strcmp(h->vm, c->name))
		return refuse(text, size, "this is VM '%s', not '%s'", c->name, h->vm);
	if (strcmp(h->node, config_peer(c)->name))
		return refuse(text, size, "node '%s' is expected, not '%s'", config_peer(c)->name, h->node);
	if (be64toh(h->memory) != c->memory || be64toh(h->vcpus) != c->vcpus ||
	    be64toh(h->mode) != c->mode || strcmp(h->machine, c->machine))
		return refuse(text, size, "memory, vcpus, machine or mode differ from those in %s", c->path);
	if (strcmp(h->qemu, d->qemu_version))
		return refuse(text, size, "QEMU %s there, %s here: a pair needs the same version", h->qemu,
			      d->qemu_version);
	return check_found_out(d, h, text, size);
}

/* after what names more precisely what differs */
static enum peer_status check_digest(struct daemon *d, const struct peer_hello *h, char *text, size_t size)
{
	if (be64toh(h->digest) == machine_digest(d))
		return PEER_OK;
	return refuse(text, size, "NICs, offload, cpu, append or devices differ from those in %s", d->cfg->path);
}

/* CONTROL is there already */
static enum peer_status check_side(struct daemon *d, const struct peer_hello *h, char *text, size_t size)
{
	unsigned int channel = be16toh(h->channel), disk = be16toh(h->disk);
	const struct peer *p = &d->peer;

	if (p->fd[PEER_CONTROL] < 0 || be64toh(h->session) != p->session)
		return refuse(text, size, "no such session");
	if (channel != PEER_DISK)
		return p->fd[channel] < 0 ? PEER_OK : refuse(text, size, "channel %u is connected already", channel);
	if (disk >= d->cfg->disks || !config_disk_writable(d->cfg, disk))
		return refuse(text, size, "no writable disk %u", disk);
	return p->disk[disk].fd < 0 ? PEER_OK : refuse(text, size, "disk %u is connected already", disk);
}

static enum peer_status later(struct daemon *d, char *text, size_t size)
{
	refuse(text, size, "busy: state %s", core_state_name(d->core.state));
	return PEER_LATER;
}

/* this node does not know its role: the peer's disks may decide */
static enum peer_status check_undecided(struct daemon *d, const struct peer_hello *h, char *text, size_t size)
{
	struct lineage its[CONFIG_DISKS_MAX];
	unsigned int i, n = 0;

	for (i = 0; i < d->cfg->disks; i++)
		if (config_disk_writable(d->cfg, i))
			hello_disk_lineage(&h->disks[i], &its[n++]);
	return start_hello(d, be16toh(h->flags) & PEER_HELLO_UNDECIDED, its, n, text, size);
}

/* The dialler has a VM, and waits to hear who may serve. */
static enum peer_status check_claiming(struct daemon *d, char *text, size_t size)
{
	/* which of the two generations counts is the dialler's core to judge */
	if (d->core.role != CORE_PRIMARY || d->core.state != CORE_ALONE)
		return later(d, text, size);
	refuse(text, size, "%s serves, in generation %llu", config_local(d->cfg)->name,
	       (unsigned long long)d->core.generation);
	return PEER_SERVES;
}

static enum peer_status check_control(struct daemon *d, struct peer_hello *h, char *text, size_t size)
{
	if (d->core.state == CORE_STARTING && !start_is_undecided(d)) /* neither disk nor QEMU are known yet */
		return later(d, text, size);
	if (check_identity(d, h, text, size) == PEER_REFUSED ||
	    hello_disks_check(d, h->disks, HELLO_UNJUDGED, text, size) == PEER_REFUSED ||
	    check_digest(d, h, text, size) == PEER_REFUSED)
		return PEER_REFUSED;
	if (be16toh(h->flags) & PEER_HELLO_CLAIMING)
		return check_claiming(d, text, size);
	if (d->core.state == CORE_STARTING)
		return check_undecided(d, h, text, size);
	if (d->peer.former) /* the process that gave up has ended: it does not dial */
		daemon_event(d, (struct core_event){ .type = CORE_EV_PEER_LOST, .loss = CORE_LOSS_CLOSED });
	if (d->core.state != CORE_ALONE || d->peer.fd[PEER_CONTROL] >= 0 || !diskman_settled(d) || d->taking_over)
		return later(d, text, size);
	if (!core_may_pair(&d->core, daemon_now_us())) {
		refuse(text, size, d->core.paused ? "protection is paused (colo resume)" :
		       "the last pair was lost a short while ago: [peer] settle");
		return PEER_LATER;
	}
	if (diskman_writes_back(d)) {
		refuse(text, size, "busy: what the guest wrote before the takeover is on its way to storage");
		return PEER_LATER;
	}
	return hello_disks_check(d, h->disks, HELLO_SOURCE, text, size);
}

void hello_answer_fill(struct daemon *d, struct peer_answer *a)
{
	hello_disks_fill(d, a->disks);
	a->generation = htobe64(d->core.generation);
}

enum peer_status hello_answer_check(struct daemon *d, const struct peer_answer *a, char *text, size_t size)
{
	return hello_disks_check(d, a->disks, HELLO_TARGET, text, size);
}

enum peer_status hello_check(struct daemon *d, struct peer_hello *h, char *text, size_t size)
{
	unsigned int channel = be16toh(h->channel);

	if (be32toh(h->magic) != PEER_MAGIC)
		return refuse(text, size, "not a colo daemon");
	/* version 2 and before had no version_min */
	if (be16toh(h->version) < PEER_VERSION_MIN || !hello_version(d, be16toh(h->version_min), be16toh(h->version)))
		return refuse(text, size, "speaks peer protocol %u, this is colo %s with protocols %u to %u",
			      be16toh(h->version), COLO_VERSION, PEER_VERSION_MIN, hello_newest(d));
	hello_text(h->vm, sizeof(h->vm));
	hello_text(h->node, sizeof(h->node));
	hello_text(h->machine, sizeof(h->machine));
	hello_text(h->qemu, sizeof(h->qemu));
	hello_text(h->driver, sizeof(h->driver));
	hello_text(h->accel, sizeof(h->accel));
	if (channel >= PEER_NCHANNELS)
		return refuse(text, size, "no channel %u", channel);
	return channel == PEER_CONTROL ? check_control(d, h, text, size) : check_side(d, h, text, size);
}
