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
static uint64_t machine_digest(const struct config *c)
{
	const char *part[3 + AGENT_MAX_NICS] = { c->cpu, c->accel, c->append };
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
	return h + c->offload;
}

void hello_fill(struct daemon *d, struct peer_hello *h, enum peer_channel channel)
{
	const struct config *c = d->cfg;

	memset(h, 0, sizeof(*h));
	h->magic = htobe32(PEER_MAGIC);
	h->version = htobe16(PEER_VERSION);
	h->channel = htobe16(channel);
	h->session = htobe64(channel == PEER_CONTROL ? 0 : d->peer.session);
	h->memory = htobe64(c->memory);
	h->vcpus = htobe64(c->vcpus);
	h->mode = htobe64(c->mode);
	h->digest = htobe64(machine_digest(c));
	h->disk_size = htobe64(d->disk.disk[0].size);
	h->disk_identity = htobe64(d->disk.disk[0].hello.hello.identity);
	snprintf(h->vm, sizeof(h->vm), "%s", c->name);
	snprintf(h->node, sizeof(h->node), "%s", config_local(c)->name);
	snprintf(h->machine, sizeof(h->machine), "%s", c->machine);
	snprintf(h->qemu, sizeof(h->qemu), "%s", d->qemu_version);
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
	if (be64toh(h->digest) != machine_digest(c))
		return refuse(text, size, "NICs, offload, cpu, accel or append differ from those in %s", c->path);
	if (strcmp(h->qemu, d->qemu_version))
		return refuse(text, size, "QEMU %s there, %s here: a pair needs the same version", h->qemu,
			      d->qemu_version);
	if (be64toh(h->disk_size) != d->disk.disk[0].size)
		return refuse(text, size, "the disk has %llu bytes there, %llu here",
			      (unsigned long long)be64toh(h->disk_size), (unsigned long long)d->disk.disk[0].size);
	if (be64toh(h->disk_identity) != d->disk.disk[0].hello.hello.identity)
		return refuse(text, size, "the disks had different content when they were opened: "
			      "copy %s to the other host while the VM is off", config_disk(c, 0));
	return PEER_OK;
}

enum peer_status hello_check(struct daemon *d, struct peer_hello *h, char *text, size_t size)
{
	unsigned int channel = be16toh(h->channel);

	if (be32toh(h->magic) != PEER_MAGIC)
		return refuse(text, size, "not a colo daemon");
	if (be16toh(h->version) != PEER_VERSION)
		return refuse(text, size, "speaks peer protocol %u, this is colo %s with protocol %u",
			      be16toh(h->version), COLO_VERSION, PEER_VERSION);
	hello_text(h->vm, sizeof(h->vm));
	hello_text(h->node, sizeof(h->node));
	hello_text(h->machine, sizeof(h->machine));
	hello_text(h->qemu, sizeof(h->qemu));
	if (channel >= PEER_NCHANNELS)
		return refuse(text, size, "no channel %u", channel);
	if (channel != PEER_CONTROL) {
		if (d->peer.fd[PEER_CONTROL] < 0 || be64toh(h->session) != d->peer.session)
			return refuse(text, size, "no such session");
		if (d->peer.fd[channel] >= 0)
			return refuse(text, size, "channel %u is connected already", channel);
		return PEER_OK;
	}
	if (d->core.state == CORE_STARTING) { /* neither disk nor QEMU are known yet */
		refuse(text, size, "busy: state %s", core_state_name(d->core.state));
		return PEER_LATER;
	}
	if (check_identity(d, h, text, size) == PEER_REFUSED)
		return PEER_REFUSED;
	if (d->core.state == CORE_ALONE && d->survivor)
		return refuse(text, size, "%s took over and serves. It cannot take a host back before it is started "
			      "again, which ends the VM: shut the guest down, start both", config_local(d->cfg)->name);
	if (d->core.state != CORE_ALONE || d->peer.fd[PEER_CONTROL] >= 0) {
		refuse(text, size, "busy: state %s", core_state_name(d->core.state));
		return PEER_LATER;
	}
	return PEER_OK;
}
