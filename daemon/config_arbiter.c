/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * config_arbiter.c - the section [arbiter], checked, and as the helper process wants it
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "arbiter/witness_proto.h"
#include "daemon/config.h"

static const char *const types[] = {
	[ARBITER_NONE] = "none", [ARBITER_WITNESS] = "witness", [ARBITER_ETCD] = "etcd", [ARBITER_FILE] = "file",
};
static const char *const tls_modes[] = {
	[ARBITER_TLS_OFF] = "off", [ARBITER_TLS_PSK] = "psk", [ARBITER_TLS_X509] = "x509",
};

struct report {
	char *text;
	size_t size;
};

__attribute__((format(printf, 2, 3))) static int fail(struct report *e, const char *fmt, ...)
{
	int n = snprintf(e->text, e->size, "[arbiter] ");
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e->text + n, e->size - n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int find(const char *const *names, unsigned int n, const char *name)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (!strcmp(names[i], name))
			return (int)i;
	return -1;
}

/* Whoever can answer in the arbiter's place decides who serves. */
static int check_open(const struct config *c, const char *host, struct report *e)
{
	if (*c->arbiter_tls || witness_is_loopback(host))
		return 0;
	return fail(e, "tls: missing: %s is not this machine. Say psk or x509 with tls-dir, or off to do without keys", host);
}

static int check_witness(const struct config *c, struct report *e)
{
	const char *port;
	char host[256];

	if (!witness_split(c->arbiter_address, host, &port))
		return fail(e, "address: '%s' is not of the form HOST:PORT, or [IPV6]:PORT", c->arbiter_address);
	if ((!strcmp(c->arbiter_tls, "psk") || !strcmp(c->arbiter_tls, "x509")) && !*c->arbiter_tls_dir)
		return fail(e, "tls-dir: missing, for tls = %s", c->arbiter_tls);
	return check_open(c, host, e);
}

static int check_url(const struct config *c, const char *url, struct report *e)
{
	char host[256], place[256];
	const char *port;

	if (!strncmp(url, "https://", 8))
		return 0;
	if (strncmp(url, "http://", 7))
		return fail(e, "address: '%s' is not of the form https://HOST:PORT or http://HOST:PORT", url);
	snprintf(place, sizeof(place), "%.*s", (int)strcspn(url + 7, "/"), url + 7);
	if (!witness_split(place, host, &port))
		return fail(e, "address: '%s' is not of the form https://HOST:PORT or http://HOST:PORT", url);
	return check_open(c, host, e);
}

static int check_etcd(const struct config *c, struct report *e)
{
	char list[CONFIG_TEXT_MAX], *url, *save;
	int r = 0, n = 0;

	if (!strcmp(c->arbiter_tls, "psk"))
		return fail(e, "tls: etcd has no psk; use URLs with https, and x509 or nothing here");
	if (*c->arbiter_user && !*c->arbiter_password)
		return fail(e, "password-file: missing, for user = %s", c->arbiter_user);
	snprintf(list, sizeof(list), "%s", c->arbiter_address);
	for (url = strtok_r(list, ", ", &save); url && !r; url = strtok_r(NULL, ", ", &save), n++)
		r = check_url(c, url, e);
	return r || (n > 0 && n <= 16) ? r : fail(e, "address: one to 16 URLs are needed");
}

static int check_file(const struct config *c, struct report *e)
{
	return *c->arbiter_directory == '/' ? 0 : fail(e, "directory: '%s' is not a full path", c->arbiter_directory);
}

/* keys that this type does not know are a mistake in the type, or in them */
static int check_unused(const struct config *c, int type, struct report *e)
{
	const struct {
		const char *key, *value;
		unsigned int types; /* that know it */
	} keys[] = {
		{ "address", c->arbiter_address, 1 << ARBITER_WITNESS | 1 << ARBITER_ETCD },
		{ "directory", c->arbiter_directory, 1 << ARBITER_FILE },
		{ "tls", c->arbiter_tls, 1 << ARBITER_WITNESS | 1 << ARBITER_ETCD },
		{ "tls-dir", c->arbiter_tls_dir, 1 << ARBITER_WITNESS | 1 << ARBITER_ETCD },
		{ "username", c->arbiter_username, 1 << ARBITER_WITNESS },
		{ "user", c->arbiter_user, 1 << ARBITER_ETCD },
		{ "password-file", c->arbiter_password, 1 << ARBITER_ETCD },
	};
	unsigned int i;

	for (i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		if (*keys[i].value && !(keys[i].types & 1 << type))
			return fail(e, "%s: type %s has no such key", keys[i].key, types[type]);
	if (type != ARBITER_NONE && type != ARBITER_FILE && !*c->arbiter_address)
		return fail(e, "address: missing, for type %s", types[type]);
	if (type == ARBITER_FILE && !*c->arbiter_directory)
		return fail(e, "directory: missing, for type file");
	return 0;
}

static int check(const struct config *c, int type, struct report *e)
{
	int r = check_unused(c, type, e);

	if (r < 0)
		return r;
	if (*c->arbiter_tls && find(tls_modes, 3, c->arbiter_tls) < 0)
		return fail(e, "tls: '%s' is none of psk, x509, off", c->arbiter_tls);
	switch (type) {
	case ARBITER_WITNESS: return check_witness(c, e);
	case ARBITER_ETCD: return check_etcd(c, e);
	case ARBITER_FILE: return check_file(c, e);
	default: return 0;
	}
}

static void fill(const struct config *c, int type, struct arbiter_config *out)
{
	memset(out, 0, sizeof(*out));
	out->type = type;
	out->tls = *c->arbiter_tls ? find(tls_modes, 3, c->arbiter_tls) : ARBITER_TLS_OFF;
	snprintf(out->vm, sizeof(out->vm), "%s", c->name);
	snprintf(out->node, sizeof(out->node), "%s", config_local(c)->name);
	snprintf(out->address, sizeof(out->address), "%s", c->arbiter_address);
	snprintf(out->directory, sizeof(out->directory), "%s", c->arbiter_directory);
	snprintf(out->tls_dir, sizeof(out->tls_dir), "%s", c->arbiter_tls_dir);
	snprintf(out->username, sizeof(out->username), "%s", *c->arbiter_username ? c->arbiter_username : c->name);
	snprintf(out->user, sizeof(out->user), "%s", c->arbiter_user);
	snprintf(out->password_file, sizeof(out->password_file), "%s", c->arbiter_password);
}

int config_arbiter(const struct config *c, struct arbiter_config *out, char *error, size_t error_size)
{
	struct report e = { error, error_size };
	int type = find(types, sizeof(types) / sizeof(*types), c->arbiter), r;

	if (type < 0)
		return fail(&e, "type: '%s' is none of witness, etcd, file, none", c->arbiter);
	r = check(c, type, &e);
	if (!r && out)
		fill(c, type, out);
	return r;
}
