/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * config.c - see config.h
 *
 * The INI syntax is inih's; keys are declared in a table of name, type, limits and default.
 */
#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/tls.h"
#include "daemon/config_priv.h"

enum key_type {
	KEY_TEXT, KEY_NAME, KEY_MAC, KEY_NUMBER, KEY_SIZE, KEY_TIME, /* one of two words: */ KEY_MODE, KEY_BOOL,
	KEY_FORMAT, KEY_SECTOR, KEY_VIRTIO, KEY_VGA, /* of three */ KEY_TLS, KEY_DRIVER, KEY_ACCEL, KEY_TRACKING,
};

static const struct {
	const char *name[3];
	uint64_t value[3];
} words[] = {
	[KEY_MODE] = { { "colo", "checkpoint" }, { MODE_COLO, MODE_CHECKPOINT } },
	[KEY_BOOL] = { { "yes", "no" }, { 1, 0 } },
	[KEY_FORMAT] = { { "raw", "qcow2" }, { FORMAT_RAW, FORMAT_QCOW2 } },
	[KEY_SECTOR] = { { "512", "4096" }, { 512, 4096 } },
	[KEY_VIRTIO] = { { "legacy", "modern" }, { VIRTIO_LEGACY, VIRTIO_MODERN } },
	[KEY_VGA] = { { "none", "std" }, { VGA_NONE, VGA_STD } },
	[KEY_TRACKING] = { { "auto", "async", "sync" }, { TRACKING_AUTO, TRACKING_ASYNC, TRACKING_SYNC } },
	[KEY_DRIVER] = { { "auto", "direct", "standby" }, { DRIVER_AUTO, DRIVER_DIRECT, DRIVER_STANDBY } },
	[KEY_ACCEL] = { { "auto", "kvm", "tcg" }, { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG } },
	[KEY_TLS] = { { "psk", "x509", "off" }, { TLS_PSK, TLS_X509, TLS_OFF } },
};

struct key {
	const char *section, *name;
	enum key_type type;
	size_t offset, size; /* of the field */
	uint64_t min, max;
	const char *def;
};

#define FIELD(f) offsetof(struct config, f), sizeof(((struct config *)0)->f)
#define MIB (1ull << 20)
#define GIB (1ull << 30)

static const struct key keys[] = {
	{ "vm", "name", KEY_NAME, FIELD(name), 0, 0, NULL },
	{ "vm", "memory", KEY_SIZE, FIELD(memory), 16 * MIB, 1024 * GIB, "1G" },
	{ "vm", "vcpus", KEY_NUMBER, FIELD(vcpus), 1, 64, "1" },
	{ "vm", "machine", KEY_NAME, FIELD(machine), 0, 0, "pc" },
	{ "vm", "driver", KEY_DRIVER, FIELD(driver), 0, 0, "auto" },
	{ "vm", "tracking", KEY_TRACKING, FIELD(tracking), 0, 0, "auto" },
	{ "vm", "accel", KEY_ACCEL, FIELD(accel), 0, 0, "auto" },
	{ "vm", "cpu", KEY_TEXT, FIELD(cpu), 0, 0, "" },
	{ "vm", "virtio", KEY_VIRTIO, FIELD(virtio), 0, 0, "legacy" },
	{ "vm", "rng", KEY_BOOL, FIELD(rng), 0, 0, "no" },
	{ "vm", "vga", KEY_VGA, FIELD(vga), 0, 0, "none" },
	{ "vm", "tablet", KEY_BOOL, FIELD(tablet), 0, 0, "no" },
	{ "vm", "root-ports", KEY_BOOL, FIELD(root_ports), 0, 0, "no" },
	{ "vm", "devices", KEY_TEXT, FIELD(devices), 0, 0, "" },
	{ "vm", "disk", KEY_TEXT, FIELD(disk[0].file), 0, 0, "" },
	{ "vm", "mac", KEY_MAC, FIELD(nic[0].mac), 0, 0, NULL },
	{ "vm", "kernel", KEY_TEXT, FIELD(kernel), 0, 0, "" },
	{ "vm", "initrd", KEY_TEXT, FIELD(initrd), 0, 0, "" },
	{ "vm", "append", KEY_TEXT, FIELD(append), 0, 0, "" },
	{ "vm", "qemu", KEY_TEXT, FIELD(qemu), 0, 0, "qemu-system-x86_64" },
	{ "vm", "nbdkit", KEY_TEXT, FIELD(nbdkit), 0, 0, "nbdkit" },
	{ "vm", "primary", KEY_NAME, FIELD(primary), 0, 0, "" },
	{ "vm", "watchdog", KEY_TIME, FIELD(watchdog_us), 1000000, 3600000000, "3s" },
	{ "net", "bridge", KEY_NAME, FIELD(nic[0].bridge), 0, 0, "" },
	{ "net", "tap", KEY_NAME, FIELD(nic[0].tap), 0, 0, "" },
	{ "net", "offload", KEY_BOOL, FIELD(offload), 0, 0, "yes" },
	{ "net", "flows", KEY_NUMBER, FIELD(flows), 1024, 4194304, "131072" },
	{ "net", "capture", KEY_SIZE, FIELD(capture), 0, GIB, "0" },
	{ "protection", "mode", KEY_MODE, FIELD(mode), 0, 0, "colo" },
	{ "protection", "interval", KEY_TIME, FIELD(interval_us), 5000, 60000000, "50ms" },
	{ "protection", "periodic", KEY_TIME, FIELD(periodic_us), 100000, 3600000000, "10s" },
	{ "protection", "wait-min", KEY_TIME, FIELD(wait_min_us), 1000, 10000000, "100ms" },
	{ "protection", "wait-max", KEY_TIME, FIELD(wait_max_us), 1000, 10000000, "500ms" },
	{ "protection", "held-max", KEY_SIZE, FIELD(held_max), MIB, GIB, "64M" },
	{ "peer", "heartbeat", KEY_TIME, FIELD(heartbeat_us), 5000, 60000000, "100ms" },
	{ "peer", "misses", KEY_NUMBER, FIELD(misses), 1, 1000, "5" },
	{ "peer", "lag-limit", KEY_TIME, FIELD(lag_limit_us), 500000, 3600000000, "5s" },
	{ "peer", "settle", KEY_TIME, FIELD(settle_us), 100000, 600000000, "3s" },
	{ "tls", "mode", KEY_TLS, FIELD(tls_mode), 0, 0, "off" },
	{ "tls", "dir", KEY_TEXT, FIELD(tls_dir), 0, 0, "/etc/colo/tls" },
	{ "tls", "username", KEY_NAME, FIELD(tls_user), 0, 0, "colo" },
	{ "disk", "cache-max", KEY_SIZE, FIELD(cache_max), 16 * MIB, 256 * GIB, "1G" },
	{ "disk", "format", KEY_FORMAT, FIELD(disk[0].format), 0, 0, "raw" },
	{ "disk", "sector", KEY_SECTOR, FIELD(disk[0].sector), 0, 0, "512" },
	{ "disk", "journal", KEY_SIZE, FIELD(journal), 16 * MIB, 256 * GIB, "256M" },
	{ "disk", "sync-rate", KEY_SIZE, FIELD(sync_rate), 0, 1024 * GIB, "0" },
	{ "notify", "command", KEY_TEXT, FIELD(notify), 0, 0, "" },
	{ "notify", "limit", KEY_TIME, FIELD(notify_limit_us), 1000000, 3600000000, "30s" },
	{ "arbiter", "type", KEY_NAME, FIELD(arbiter), 0, 0, "none" },
	{ "arbiter", "address", KEY_TEXT, FIELD(arbiter_address), 0, 0, "" },
	{ "arbiter", "directory", KEY_TEXT, FIELD(arbiter_directory), 0, 0, "" },
	{ "arbiter", "tls", KEY_NAME, FIELD(arbiter_tls), 0, 0, "" },
	{ "arbiter", "tls-dir", KEY_TEXT, FIELD(arbiter_tls_dir), 0, 0, "" },
	{ "arbiter", "username", KEY_NAME, FIELD(arbiter_username), 0, 0, "" },
	{ "arbiter", "user", KEY_NAME, FIELD(arbiter_user), 0, 0, "" },
	{ "arbiter", "password-file", KEY_TEXT, FIELD(arbiter_password), 0, 0, "" },
};
#define NKEYS (sizeof(keys) / sizeof(*keys))

#define HOST(f) offsetof(struct config_host, f), sizeof(((struct config_host *)0)->f)
static const struct key host_keys[] = {
	{ "host", "address", KEY_TEXT, HOST(address), 0, 0, NULL },
	{ "host", "port", KEY_NUMBER, HOST(port), 1, 65535, "7400" },
	{ "host", "disk", KEY_TEXT, HOST(disk[0]), 0, 0, "" },
	{ "host", "disk1", KEY_TEXT, HOST(disk[1]), 0, 0, "" },
	{ "host", "disk2", KEY_TEXT, HOST(disk[2]), 0, 0, "" },
	{ "host", "disk3", KEY_TEXT, HOST(disk[3]), 0, 0, "" },
	{ "host", "disk4", KEY_TEXT, HOST(disk[4]), 0, 0, "" },
	{ "host", "disk5", KEY_TEXT, HOST(disk[5]), 0, 0, "" },
	{ "host", "disk6", KEY_TEXT, HOST(disk[6]), 0, 0, "" },
	{ "host", "disk7", KEY_TEXT, HOST(disk[7]), 0, 0, "" },
	{ "host", "bridge", KEY_NAME, HOST(bridge), 0, 0, "" },
	{ "host", "state", KEY_TEXT, HOST(state), 0, 0, "" },
	{ "host", "data", KEY_TEXT, HOST(data), 0, 0, "" },
	{ "host", "watchdog", KEY_TIME, HOST(watchdog_us), 2000000, 3600000000, "10s" },
};
#define NHOST_KEYS (sizeof(host_keys) / sizeof(*host_keys))

#define NIC(f) offsetof(struct config_nic, f), sizeof(((struct config_nic *)0)->f)
static const struct key nic_keys[] = {
	{ "net N", "mac", KEY_MAC, NIC(mac), 0, 0, NULL },
	{ "net N", "bridge", KEY_NAME, NIC(bridge), 0, 0, "" },
	{ "net N", "tap", KEY_NAME, NIC(tap), 0, 0, "" },
};
#define NNIC_KEYS (sizeof(nic_keys) / sizeof(*nic_keys))

#define DISK(f) offsetof(struct config_disk, f), sizeof(((struct config_disk *)0)->f)
static const struct key disk_keys[] = {
	{ "disk N", "file", KEY_TEXT, DISK(file), 0, 0, "" },
	{ "disk N", "format", KEY_FORMAT, DISK(format), 0, 0, "raw" },
	{ "disk N", "sector", KEY_SECTOR, DISK(sector), 0, 0, "512" },
	{ "disk N", "read-only", KEY_BOOL, DISK(read_only), 0, 0, "no" },
	{ "disk N", "cdrom", KEY_BOOL, DISK(cdrom), 0, 0, "no" },
};
#define NDISK_KEYS (sizeof(disk_keys) / sizeof(*disk_keys))

struct parser {
	struct config *c;
	FILE *f;
	int line, failed_line;
	bool failed;
	bool seen[NKEYS];
	bool host_seen[2][NHOST_KEYS];
	bool nic_seen[CONFIG_NICS_MAX][NNIC_KEYS];
	bool disk_seen[CONFIG_DISKS_MAX][NDISK_KEYS];
	char *error;
	size_t error_size;
};

__attribute__((format(printf, 2, 3))) static int fail(struct parser *p, const char *fmt, ...)
{
	int n = 0;
	va_list ap;

	if (p->failed)
		return 0;
	p->failed = true;
	p->failed_line = p->line;
	n = snprintf(p->error, p->error_size, "%s:", p->c->path);
	if (p->line && n < (int)p->error_size)
		n += snprintf(p->error + n, p->error_size - n, "%d:", p->line);
	va_start(ap, fmt);
	if (n + 1 < (int)p->error_size) {
		p->error[n++] = ' ';
		vsnprintf(p->error + n, p->error_size - n, fmt, ap);
	}
	va_end(ap);
	return 0;
}

struct unit {
	const char *name;
	uint64_t factor;
};

static bool parse_unit(const char *text, const struct unit *units, const char *bare, uint64_t *out)
{
	char *end;
	unsigned long long v;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return false;
	while (*end == ' ')
		end++;
	if (!*end)
		end = (char *)bare;
	for (; units->name; units++)
		if (!strcasecmp(end, units->name))
			return !__builtin_mul_overflow(v, units->factor, out);
	return false;
}

static bool is_name(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("-_.", *s))
			return false;
	return true;
}

static int set_number(struct parser *p, const struct key *k, const char *where, const char *text,
		      uint64_t *out)
{
	static const struct unit none[] = { { "", 1 }, { 0 } };
	static const struct unit sizes[] = { { "k", 1 << 10 }, { "M", MIB }, { "G", GIB }, { "", 1 }, { 0 } };
	static const struct unit times[] = { { "us", 1 }, { "ms", 1000 }, { "s", 1000000 }, { 0 } };
	const char *hint = k->type == KEY_SIZE ? " (a size like 512M or 2G)" :
			   k->type == KEY_TIME ? " (a time like 50ms or 10s)" : "";

	if (!parse_unit(text, k->type == KEY_SIZE ? sizes : k->type == KEY_TIME ? times : none,
			k->type == KEY_TIME ? "?" : "", out))
		return fail(p, "[%s] %s: '%s' is not a number%s", where, k->name, text, hint);
	if (*out < k->min || *out > k->max)
		return fail(p, "[%s] %s: '%s' is out of range%s", where, k->name, text, hint);
	return 1;
}

static int set_text(struct parser *p, const struct key *k, const char *where, const char *text,
		    char *out)
{
	uint8_t mac[6];

	/* only what is empty by default may be empty */
	if (!*text && (!k->def || *k->def))
		return fail(p, "[%s] %s: empty", where, k->name);
	if (strlen(text) >= k->size)
		return fail(p, "[%s] %s: longer than %zu characters", where, k->name, k->size - 1);
	if (k->type == KEY_NAME && *text && !is_name(text))
		return fail(p, "[%s] %s: '%s' may have letters, digits, '-', '_' and '.' only", where,
			    k->name, text);
	if (k->type == KEY_MAC && !config_parse_mac(text, mac))
		return fail(p, "[%s] %s: '%s' is not a unicast MAC address like 52:54:00:12:34:56", where,
			    k->name, text);
	strcpy(out, text);
	return 1;
}

static int set_word(struct parser *p, const struct key *k, const char *where, const char *text, uint64_t *out)
{
	const char *const *name = words[k->type].name;
	unsigned int i;

	for (i = 0; i < 3 && name[i]; i++)
		if (!strcmp(text, name[i])) {
			*out = words[k->type].value[i];
			return 1;
		}
	if (name[2])
		return fail(p, "[%s] %s: '%s' is none of %s, %s, %s", where, k->name, text, name[0], name[1], name[2]);
	return fail(p, "[%s] %s: '%s' is neither %s nor %s", where, k->name, text, name[0], name[1]);
}

static int set_value(struct parser *p, const struct key *k, void *base, const char *where,
		     const char *text)
{
	void *field = (char *)base + k->offset;

	switch (k->type) {
	case KEY_TEXT:
	case KEY_NAME:
	case KEY_MAC:
		return set_text(p, k, where, text, field);
	case KEY_NUMBER:
	case KEY_SIZE:
	case KEY_TIME:
		return set_number(p, k, where, text, field);
	default:
		return set_word(p, k, where, text, field);
	}
}

static struct config_host *find_host(struct parser *p, const char *name)
{
	struct config *c = p->c;
	unsigned int i;

	for (i = 0; i < c->nhosts; i++)
		if (!strcmp(c->host[i].name, name))
			return &c->host[i];
	if (!is_name(name) || strlen(name) >= CONFIG_NAME_MAX) {
		fail(p, "[host %s]: not a name", name);
		return NULL;
	}
	if (c->nhosts == 2) {
		fail(p, "[host %s]: a pair has two hosts, '%s' and '%s' are named already", name,
		     c->host[0].name, c->host[1].name);
		return NULL;
	}
	strcpy(c->host[c->nhosts].name, name);
	return &c->host[c->nhosts++];
}

static int on_host_key(struct parser *p, const char *section, const char *name, const char *value)
{
	struct config_host *h = find_host(p, section + 5);
	size_t i;

	if (!h)
		return 0;
	for (i = 0; i < NHOST_KEYS; i++)
		if (!strcmp(name, host_keys[i].name)) {
			if (p->host_seen[h - p->c->host][i])
				return fail(p, "[%s] %s: given twice", section, name);
			p->host_seen[h - p->c->host][i] = true;
			return set_value(p, &host_keys[i], h, section, value);
		}
	return fail(p, "[%s] %s: unknown key", section, name);
}

/* number of a section like [net 3], by its name; 0: none of these */
_Static_assert(CONFIG_NICS_MAX == 8 && CONFIG_DISKS_MAX == 8, "sections with numbers");
static unsigned int section_number(const char *name(unsigned int), const char *section)
{
	unsigned int n = 1;

	while (n < 8 && strcmp(section, name(n)))
		n++;
	return n < 8 ? n : 0;
}

static int on_nic_key(struct parser *p, const char *section, const char *name, const char *value)
{
	unsigned int n = section_number(config_nic_section, section);
	size_t i;

	if (!n)
		return fail(p, "[%s]: further NICs are [net 1] to [net %u]", section, CONFIG_NICS_MAX - 1);
	for (i = 0; i < NNIC_KEYS; i++)
		if (!strcmp(name, nic_keys[i].name)) {
			if (p->nic_seen[n][i])
				return fail(p, "[%s] %s: given twice", section, name);
			p->nic_seen[n][i] = true;
			if (n >= p->c->nics)
				p->c->nics = n + 1;
			return set_value(p, &nic_keys[i], &p->c->nic[n], section, value);
		}
	return fail(p, "[%s] %s: unknown key", section, name);
}

static int on_disk_key(struct parser *p, const char *section, const char *name, const char *value)
{
	unsigned int n = section_number(config_disk_section, section);
	size_t i;

	if (!n)
		return fail(p, "[%s]: further disks are [disk 1] to [disk %u]", section, CONFIG_DISKS_MAX - 1);
	for (i = 0; i < NDISK_KEYS; i++)
		if (!strcmp(name, disk_keys[i].name)) {
			if (p->disk_seen[n][i])
				return fail(p, "[%s] %s: given twice", section, name);
			p->disk_seen[n][i] = true;
			if (n >= p->c->disks)
				p->c->disks = n + 1;
			return set_value(p, &disk_keys[i], &p->c->disk[n], section, value);
		}
	return fail(p, "[%s] %s: unknown key", section, name);
}

static int on_key(void *user, const char *section, const char *name, const char *value)
{
	struct parser *p = user;
	bool known = false;
	size_t i;

	if (!strncmp(section, "host ", 5))
		return on_host_key(p, section, name, value);
	if (!strncmp(section, "net ", 4))
		return on_nic_key(p, section, name, value);
	if (!strncmp(section, "disk ", 5))
		return on_disk_key(p, section, name, value);
	for (i = 0; i < NKEYS; i++) {
		if (strcmp(section, keys[i].section))
			continue;
		known = true;
		if (strcmp(name, keys[i].name))
			continue;
		if (p->seen[i])
			return fail(p, "[%s] %s: given twice", section, name);
		p->seen[i] = true;
		return set_value(p, &keys[i], p->c, section, value);
	}
	if (!known)
		return fail(p, "[%s]: unknown section", section);
	return fail(p, "[%s] %s: unknown key", section, name);
}

static char *read_line(char *s, int n, void *stream)
{
	struct parser *p = stream;
	char *r = fgets(s, n, p->f);

	p->line++;
	if (r && strlen(s) == (size_t)n - 1 && s[n - 2] != '\n')
		fail(p, "longer than %d characters", n - 2);
	return r;
}

static void set_nic_defaults(struct parser *p, unsigned int n)
{
	size_t i;

	for (i = 0; i < NNIC_KEYS; i++)
		if (!p->nic_seen[n][i] && nic_keys[i].def)
			set_value(p, &nic_keys[i], &p->c->nic[n], config_nic_section(n), nic_keys[i].def);
		else if (!p->nic_seen[n][i])
			fail(p, "[%s] %s: missing", config_nic_section(n), nic_keys[i].name);
}

static void set_disk_defaults(struct parser *p, unsigned int n)
{
	size_t i;

	for (i = 0; i < NDISK_KEYS; i++)
		if (!p->disk_seen[n][i])
			set_value(p, &disk_keys[i], &p->c->disk[n], config_disk_section(n), disk_keys[i].def);
	if (p->c->disk[n].cdrom)
		p->c->disk[n].read_only = true;
}

static void set_defaults(struct parser *p)
{
	size_t i, h;

	for (i = 0; i < NKEYS; i++)
		if (!p->seen[i] && keys[i].def)
			set_value(p, &keys[i], p->c, keys[i].section, keys[i].def);
		else if (!p->seen[i])
			fail(p, "[%s] %s: missing", keys[i].section, keys[i].name);
	for (h = 0; h < p->c->nhosts; h++)
		for (i = 0; i < NHOST_KEYS; i++)
			if (!p->host_seen[h][i] && host_keys[i].def)
				set_value(p, &host_keys[i], &p->c->host[h], "host", host_keys[i].def);
			else if (!p->host_seen[h][i])
				fail(p, "[host %s] %s: missing", p->c->host[h].name, host_keys[i].name);
	for (i = 1; i < p->c->nics; i++)
		set_nic_defaults(p, i);
	for (i = 1; i < p->c->disks; i++)
		set_disk_defaults(p, i);
}

/* Is the key in the file? */
static bool said(const struct parser *p, const char *section, const char *name)
{
	size_t i = 0;

	while (strcmp(keys[i].section, section) || strcmp(keys[i].name, name))
		i++;
	return p->seen[i];
}

int config_load(struct config *c, const char *path, const char *node, char *error, size_t error_size)
{
	struct parser p = { .c = c, .error = error, .error_size = error_size };
	int r;

	memset(c, 0, sizeof(*c));
	c->nics = c->disks = 1;
	snprintf(c->path, sizeof(c->path), "%s", path);
	p.f = fopen(path, "re");
	if (!p.f) {
		snprintf(error, error_size, "%s: %s", path, strerror(errno));
		return -EINVAL;
	}
	r = ini_parse_stream(read_line, &p, on_key, &p);
	fclose(p.f);
	if (r > 0 && (!p.failed || r < p.failed_line)) {
		p.failed = false;
		p.line = r;
		fail(&p, "neither a [section] nor a key = value");
	}
	p.line = 0;
	if (!p.failed)
		set_defaults(&p);
	return p.failed ? -EINVAL : config_check(c, node, said(&p, "tls", "mode"), error, error_size);
}

const char *config_tls_name(const struct config *c)
{
	unsigned int i = 0;

	while (words[KEY_TLS].value[i] != c->tls_mode)
		i++;
	return words[KEY_TLS].name[i];
}

bool config_is_primary(const struct config *c)
{
	return !strcmp(config_local(c)->name, c->primary);
}
