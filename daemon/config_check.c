/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * config_check.c - the configuration as a whole: what keys say about each other
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arbiter/witness_proto.h"
#include "daemon/config_priv.h"
#include "daemon/devices.h"

static const char *const nic_sections[CONFIG_NICS_MAX] = {
	"net", "net 1", "net 2", "net 3", "net 4", "net 5", "net 6", "net 7",
};

static const char *const disk_sections[CONFIG_DISKS_MAX] = {
	"disk", "disk 1", "disk 2", "disk 3", "disk 4", "disk 5", "disk 6", "disk 7",
};

struct check {
	struct config *c;
	bool tls_said, failed;
	char *error;
	size_t size;
};

/* the first one counts */
__attribute__((format(printf, 2, 3))) static void fail(struct check *p, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (p->failed)
		return;
	p->failed = true;
	n = snprintf(p->error, p->size, "%s: ", p->c->path);
	va_start(ap, fmt);
	if (n < (int)p->size)
		vsnprintf(p->error + n, p->size - n, fmt, ap);
	va_end(ap);
}

bool config_parse_mac(const char *text, uint8_t mac[6])
{
	int n = 0;

	return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2],
		      &mac[3], &mac[4], &mac[5], &n) == 6 && !text[n] && n == 17 && !(mac[0] & 1);
}

static void pick_local(struct check *p, const char *node)
{
	struct config *c = p->c;
	char self[256];
	unsigned int i;

	if (!node) {
		gethostname(self, sizeof(self));
		self[sizeof(self) - 1] = 0;
		node = self;
	}
	for (i = 0; i < 2; i++)
		if (!strcmp(c->host[i].name, node)) {
			c->local = i;
			return;
		}
	fail(p, "no section [host %s]; this file has '%s' and '%s' (choose one with --node)", node,
	     c->host[0].name, c->host[1].name);
}

static void check_nics(struct check *p)
{
	struct config *c = p->c;
	unsigned int i, k;

	for (i = 0; i < c->nics; i++) {
		config_parse_mac(c->nic[i].mac, c->nic[i].mac_bytes);
		if (strlen(c->nic[i].tap) > 15)
			fail(p, "[%s] tap: longer than 15 characters", nic_sections[i]);
		for (k = 0; k < i; k++) {
			if (!memcmp(c->nic[k].mac_bytes, c->nic[i].mac_bytes, 6))
				fail(p, "[%s] mac: %s is the address of another NIC", nic_sections[i], c->nic[i].mac);
			if (*c->nic[i].tap && !strcmp(c->nic[k].tap, c->nic[i].tap))
				fail(p, "[%s] tap: %s is the TAP of another NIC", nic_sections[i], c->nic[i].tap);
		}
	}
}

static const char *file_of(const struct config *c, unsigned int host, unsigned int disk)
{
	return *c->host[host].disk[disk] ? c->host[host].disk[disk] : c->disk[disk].file;
}

/* On this host also behind links; the other one's files are not here. */
static bool same_file(const char *a, const char *b, bool here)
{
	struct stat sa, sb;

	if (!strcmp(a, b))
		return true;
	return here && stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* two disk managers that write to one file destroy it */
static void check_twice(struct check *p, unsigned int h, unsigned int disk)
{
	const struct config *c = p->c;
	const char *file = file_of(c, h, disk);
	unsigned int k;

	for (k = 0; k < disk; k++)
		if (same_file(file, file_of(c, h, k), h == c->local))
			fail(p, "[host %s] %s: is the file of [%s], too", c->host[h].name, file, disk_sections[k]);
}

static void check_disks(struct check *p)
{
	const struct config *c = p->c;
	unsigned int h, i;

	for (h = 0; h < 2; h++)
		for (i = 0; i < c->disks; i++) {
			if (!*file_of(c, h, i) && i)
				fail(p, "[%s] file: missing (or give a disk%u in each [host])", disk_sections[i], i);
			check_twice(p, h, i);
			if (c->disk[i].cdrom && c->disk[i].format != FORMAT_RAW)
				fail(p, "[%s] format: a CD is raw", disk_sections[i]);
		}
	for (i = 1; i < CONFIG_DISKS_MAX; i++)
		if (i >= c->disks && (*c->host[0].disk[i] || *c->host[1].disk[i]))
			fail(p, "[host %s] disk%u: there is no section [disk %u]",
			     c->host[!*c->host[0].disk[i]].name, i, i);
}

/* Whoever can write to the link owns the guest: no silent default. */
static void check_tls(struct check *p)
{
	const struct config *c = p->c;

	if (!p->tls_said && !(witness_is_loopback(c->host[0].address) && witness_is_loopback(c->host[1].address)))
		fail(p, "[tls] mode: missing: make a key with `psktool -u %s -p %s/keys.psk`, copy it to the other host "
		     "(mode 600 on both), and say mode = psk; or mode = x509 for certificates, or mode = off if nobody "
		     "else reaches the replication link", c->tls_user, c->tls_dir);
}

static void check_machine(struct check *p)
{
	const struct config *c = p->c;
	char why[300];

	if (machine_check(c->machine, why, sizeof(why)) < 0)
		fail(p, "[vm] machine: %s", why);
	if (devices_check(c->devices, why, sizeof(why)) < 0)
		fail(p, "[vm] devices: %s", why);
	if (c->root_ports && !config_is_q35(c))
		fail(p, "[vm] root-ports: machine %s has no PCI Express: take q35", c->machine);
	if (c->root_ports && c->virtio != VIRTIO_MODERN)
		fail(p, "[vm] root-ports: needs virtio = modern");
	if (strstr(c->cpu, "+invtsc") || strstr(c->cpu, "invtsc=on"))
		fail(p, "[vm] cpu: with invtsc QEMU refuses to migrate, and the copy on the other host is made by migration: "
		     "leave it out");
}

static void check_whole(struct check *p, const char *node)
{
	struct config *c = p->c;
	char arbiter[400];
	unsigned int i;

	if (c->nhosts != 2) {
		fail(p, "two [host NAME] sections are needed, %u found", c->nhosts);
		return;
	}
	if (!*c->primary)
		strcpy(c->primary, c->host[0].name);
	if (strcmp(c->primary, c->host[0].name) && strcmp(c->primary, c->host[1].name))
		fail(p, "[vm] primary: '%s' is none of the two hosts", c->primary);
	for (i = 0; i < 2; i++) {
		if (!*file_of(c, i, 0))
			fail(p, "[vm] disk: missing (or give one in each [host])");
		if (!*c->host[i].state)
			snprintf(c->host[i].state, sizeof(c->host[i].state), "/run/colo/%s", c->name);
		if (!*c->host[i].data)
			snprintf(c->host[i].data, sizeof(c->host[i].data), "/var/lib/colo/%s", c->name);
	}
	if (!strcmp(c->host[0].address, c->host[1].address) && c->host[0].port == c->host[1].port)
		fail(p, "[host %s] address: the same as that of [host %s]", c->host[1].name,
		     c->host[0].name);
	if (config_arbiter(c, NULL, arbiter, sizeof(arbiter)) < 0)
		fail(p, "%s", arbiter);
	check_tls(p);
	check_nics(p);
	if (c->wait_min_us > c->wait_max_us)
		fail(p, "[protection] wait-min: longer than wait-max");
	check_machine(p);
	pick_local(p, node);
	check_disks(p);
}

int config_check(struct config *c, const char *node, bool tls_said, char *error, size_t error_size)
{
	struct check p = { .c = c, .tls_said = tls_said, .error = error, .size = error_size };

	check_whole(&p, node);
	return p.failed ? -EINVAL : 0;
}

const char *config_disk(const struct config *c, unsigned int disk)
{
	return file_of(c, c->local, disk);
}

const char *config_bridge(const struct config *c, unsigned int nic)
{
	return nic == 0 && *config_local(c)->bridge ? config_local(c)->bridge : c->nic[nic].bridge;
}

const char *config_nic_section(unsigned int nic)
{
	return nic_sections[nic];
}

const char *config_disk_section(unsigned int disk)
{
	return disk_sections[disk];
}

bool config_is_i440fx(const struct config *c)
{
	return !strcmp(c->machine, "pc") || !strncmp(c->machine, "pc-i440fx-", 10);
}

bool config_is_q35(const struct config *c)
{
	return !strcmp(c->machine, "q35") || !strncmp(c->machine, "pc-q35-", 7);
}
