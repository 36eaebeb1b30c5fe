/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tls_creds.c - keys and certificates from their files, and what is asked of the peer's
 *
 * A file with a key is opened, and then looked at through its descriptor: it must be a file of ours or root's
 * that nobody else may read.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/tls_priv.h"

#define FILE_MAX (1u << 20)
#define KEY_MIN 16 /* bytes */
#define SOON_S (30 * 86400)

/* AES-128 first: it is the fastest here, and a key agreed anew for each connection gives forward secrecy, with a
 * pre-shared key as well. */
#define PRIORITY_BASE "SECURE128:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"
#define PRIORITY_PSK PRIORITY_BASE ":-KX-ALL:+ECDHE-PSK:+DHE-PSK"

struct load {
	struct tls_creds *c;
	const char *dir;
	char *error;
	size_t size;
};

__attribute__((format(printf, 3, 4))) static int fail(struct load *l, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(l->error, l->size, fmt, ap);
	va_end(ap);
	return r;
}

static int check_file(struct load *l, int fd, const char *path, bool secret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(l, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return fail(l, -EINVAL, "%s: not a file of keys or certificates", path);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return fail(l, -EPERM, "%s: belongs to user %u, not to root", path, (unsigned int)st.st_uid);
	if (st.st_mode & (secret ? 077 : 022))
		return fail(l, -EPERM, "%s: others may %s it (mode %03o): chmod %s it", path,
			    secret ? "read or write" : "write", (unsigned int)st.st_mode & 0777, secret ? "600" : "644");
	return 0;
}

/* The whole file, ended by 0. out->data is to be freed. */
static int read_file(struct load *l, const char *name, bool secret, gnutls_datum_t *out)
{
	char path[512];
	ssize_t n = 0;
	int fd, r;

	snprintf(path, sizeof(path), "%s/%s", l->dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return fail(l, -errno, "%s: %s", path, strerror(errno));
	r = check_file(l, fd, path, secret);
	out->data = r ? NULL : malloc(FILE_MAX + 1);
	if (!r && !out->data)
		r = -ENOMEM;
	if (!r)
		n = read(fd, out->data, FILE_MAX);
	if (n < 0)
		r = fail(l, -errno, "%s: %s", path, strerror(errno));
	close(fd);
	if (r < 0) {
		free(out->data);
		return r;
	}
	out->data[n] = 0;
	out->size = n;
	return 0;
}

static void free_secret(gnutls_datum_t *d)
{
	if (d->data)
		gnutls_memset(d->data, 0, d->size);
	free(d->data);
	d->data = NULL;
}

/* --- psk --- */

static const struct tls_user *find_user(const struct tls_creds *c, const char *name)
{
	unsigned int i;

	for (i = 0; i < c->users; i++)
		if (!strcmp(c->user[i].name, name))
			return &c->user[i];
	return NULL;
}

static int add_user(struct load *l, char *line, unsigned int number)
{
	char *hex = strchr(line, ':');
	struct tls_user *u;
	gnutls_datum_t text;

	u = realloc(l->c->user, (l->c->users + 1) * sizeof(*u));
	if (!u)
		return fail(l, -ENOMEM, "no memory");
	l->c->user = u;
	u += l->c->users;
	memset(u, 0, sizeof(*u));
	if (!hex || hex == line || hex - line >= TLS_PEER_MAX)
		return fail(l, -EINVAL, "%s/keys.psk:%u: not user:hexkey", l->dir, number);
	memcpy(u->name, line, hex - line);
	text = (gnutls_datum_t){ (unsigned char *)hex + 1, strlen(hex + 1) };
	if (gnutls_hex_decode2(&text, &u->key) < 0)
		return fail(l, -EINVAL, "%s/keys.psk:%u: the key is not hexadecimal", l->dir, number);
	l->c->users++;
	if (u->key.size < KEY_MIN)
		return fail(l, -EINVAL, "%s/keys.psk:%u: a key has at least %u bytes (psktool makes one of 32)",
			    l->dir, number, KEY_MIN);
	return 0;
}

static int add_users(struct load *l, char *text)
{
	unsigned int number = 1;
	char *line;
	int r = 0;

	for (; !r && (line = strsep(&text, "\n")); number++) {
		line[strcspn(line, "\r")] = 0;
		if (*line)
			r = add_user(l, line, number);
	}
	if (!r && !l->c->users)
		r = fail(l, -EINVAL, "%s/keys.psk: there is no key in it", l->dir);
	return r;
}

/* GnuTLS' own file reader invents a key for an unknown user, so that the log would say "wrong key". */
static int on_user(gnutls_session_t s, const char *name, gnutls_datum_t *key)
{
	struct tls *t = gnutls_session_get_ptr(s);
	const struct tls_user *u = find_user(t->creds, name);

	if (!u) {
		snprintf(t->hint, sizeof(t->hint), "user '%.40s' is not in our keys.psk", name);
		t->unknown_user = true;
		return -1;
	}
	key->data = gnutls_malloc(u->key.size);
	if (!key->data)
		return -1;
	memcpy(key->data, u->key.data, u->key.size);
	key->size = u->key.size;
	return 0;
}

static int psk_client(struct load *l, const char *name)
{
	const struct tls_user *u = find_user(l->c, name);

	if (!u)
		return fail(l, -ENOENT, "%s/keys.psk: there is no user '%s'", l->dir, name);
	snprintf(l->c->client_user, sizeof(l->c->client_user), "%s", name);
	if (gnutls_psk_allocate_client_credentials(&l->c->psk_client) < 0 ||
	    gnutls_psk_set_client_credentials(l->c->psk_client, name, &u->key, GNUTLS_PSK_KEY_RAW) < 0)
		return fail(l, -ENOMEM, "no memory");
	return 0;
}

static int load_psk(struct load *l, unsigned int ends, const char *user)
{
	gnutls_datum_t text;
	int r = read_file(l, "keys.psk", true, &text);

	if (r < 0)
		return r;
	r = add_users(l, (char *)text.data);
	free_secret(&text);
	if (!r && (ends & TLS_CLIENT))
		r = psk_client(l, user);
	if (!r && (ends & TLS_SERVER)) {
		if (gnutls_psk_allocate_server_credentials(&l->c->psk_server) < 0)
			return fail(l, -ENOMEM, "no memory");
		gnutls_psk_set_server_credentials_function(l->c->psk_server, on_user);
	}
	return r;
}

/* --- x509 --- */

static const char *certificate_fault(unsigned int status)
{
	if (status & GNUTLS_CERT_EXPIRED)
		return "has expired";
	if (status & GNUTLS_CERT_NOT_ACTIVATED)
		return "is not valid yet";
	if (status & GNUTLS_CERT_SIGNER_NOT_FOUND)
		return "is not signed by our CA (ca-cert.pem)";
	if (status & GNUTLS_CERT_SIGNER_NOT_CA)
		return "is signed by something that is no CA";
	if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
		return "is made for another purpose";
	if (status & GNUTLS_CERT_REVOKED)
		return "is revoked";
	if (status & GNUTLS_CERT_INSECURE_ALGORITHM)
		return "uses an algorithm that is no longer safe";
	return "cannot be verified";
}

static int on_certificate(gnutls_session_t s)
{
	struct tls *t = gnutls_session_get_ptr(s);
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (void *)(t->end == TLS_SERVER ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER),
	};
	unsigned int status = 0;
	int r = gnutls_certificate_verify_peers(s, &purpose, 1, &status);

	if (r == GNUTLS_E_NO_CERTIFICATE_FOUND)
		snprintf(t->hint, sizeof(t->hint), "it has no certificate ([tls] mode = psk there?)");
	else if (r < 0)
		snprintf(t->hint, sizeof(t->hint), "its certificate: %s", gnutls_strerror(r));
	else if (status)
		snprintf(t->hint, sizeof(t->hint), "its certificate %s", certificate_fault(status));
	return r < 0 || status ? GNUTLS_E_CERTIFICATE_ERROR : 0;
}

static int set_trust(struct load *l, gnutls_certificate_credentials_t x)
{
	gnutls_datum_t ca;
	int n, r = read_file(l, "ca-cert.pem", false, &ca);

	if (r < 0)
		return r;
	n = gnutls_certificate_set_x509_trust_mem(x, &ca, GNUTLS_X509_FMT_PEM);
	free(ca.data);
	return n > 0 ? 0 : fail(l, -EINVAL, "%s/ca-cert.pem: %s", l->dir, n < 0 ? gnutls_strerror(n) : "no certificate");
}

/* end: "server" or "client" */
static int set_own(struct load *l, gnutls_certificate_credentials_t x, const char *end)
{
	gnutls_datum_t cert, key;
	char name[32];
	int r;

	snprintf(name, sizeof(name), "%s-cert.pem", end);
	r = read_file(l, name, false, &cert);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%s-key.pem", end);
	r = read_file(l, name, true, &key);
	if (!r) {
		r = gnutls_certificate_set_x509_key_mem2(x, &cert, &key, GNUTLS_X509_FMT_PEM, NULL, 0);
		r = r < 0 ? fail(l, -EINVAL, "%s/%s-cert.pem, %s-key.pem: %s", l->dir, end, end, gnutls_strerror(r)) : 0;
		free_secret(&key);
	}
	free(cert.data);
	return r;
}

static int load_certificates(struct load *l, gnutls_certificate_credentials_t *x, const char *end)
{
	int r;

	if (gnutls_certificate_allocate_credentials(x) < 0)
		return fail(l, -ENOMEM, "no memory");
	r = set_trust(l, *x);
	if (!r)
		r = set_own(l, *x, end);
	gnutls_certificate_set_verify_function(*x, on_certificate);
	return r;
}

static int load_x509(struct load *l, unsigned int ends)
{
	int r = 0;

	if (ends & TLS_SERVER)
		r = load_certificates(l, &l->c->x509_server, "server");
	if (!r && (ends & TLS_CLIENT))
		r = load_certificates(l, &l->c->x509_client, "client");
	return r;
}

static bool certificate_warning(gnutls_certificate_credentials_t x, const char *file, char *text, size_t size)
{
	gnutls_x509_crt_t *list = NULL;
	time_t now = time(NULL), from, until;
	unsigned int n = 0, i;

	if (!x || gnutls_certificate_get_x509_crt(x, 0, &list, &n) < 0 || !n)
		return false;
	from = gnutls_x509_crt_get_activation_time(list[0]);
	until = gnutls_x509_crt_get_expiration_time(list[0]);
	for (i = 0; i < n; i++)
		gnutls_x509_crt_deinit(list[i]);
	gnutls_free(list);
	if (from > now)
		snprintf(text, size, "%s is not valid yet: the peer will refuse it", file);
	else if (until < now)
		snprintf(text, size, "%s has expired: the peer will refuse it", file);
	else if (until - now < SOON_S)
		snprintf(text, size, "%s expires in %ld days", file, (long)(until - now) / 86400);
	return from > now || until - now < SOON_S;
}

bool tls_creds_warning(const struct tls_creds *c, char *text, size_t size)
{
	return c && c->mode == TLS_X509 && (certificate_warning(c->x509_server, "server-cert.pem", text, size) ||
					    certificate_warning(c->x509_client, "client-cert.pem", text, size));
}

/* --- both --- */

/* Not secure, nor need it be: whoever can change the files can also touch them. */
static uint64_t stamp_of(const char *dir)
{
	static const char *const names[] = { "keys.psk", "ca-cert.pem", "server-cert.pem", "server-key.pem",
					     "client-cert.pem", "client-key.pem" };
	uint64_t h = 0;
	char path[512];
	struct stat st;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		if (stat(path, &st) < 0)
			continue;
		h = h * 1000003 + st.st_ino;
		h = h * 1000003 + (uint64_t)st.st_mtim.tv_sec;
		h = h * 1000003 + (uint64_t)st.st_mtim.tv_nsec;
		h = h * 1000003 + (uint64_t)st.st_size + st.st_mode;
	}
	return h;
}

int tls_creds_renew(struct tls_creds **c, char *error, size_t error_size)
{
	struct tls_creds *old = *c, *fresh;
	uint64_t stamp;
	int r;

	if (!old)
		return 0;
	stamp = stamp_of(old->dir);
	if (stamp == old->stamp)
		return 0;
	r = tls_creds_load(&fresh, old->mode, old->ends, old->dir, old->user_name, error, error_size);
	if (r < 0) {
		old->stamp = stamp;
		return r;
	}
	*c = fresh;
	tls_creds_free(old);
	return 1;
}

struct tls_creds *tls_creds_keep(const struct tls_creds *c)
{
	struct tls_creds *kept = (struct tls_creds *)c;

	if (kept)
		kept->users_of_it++;
	return kept;
}

int tls_creds_load(struct tls_creds **out, enum tls_mode mode, unsigned int ends, const char *dir,
		   const char *user, char *error, size_t error_size)
{
	struct load l = { .dir = dir, .error = error, .size = error_size };
	int r;

	*out = NULL;
	if (mode == TLS_OFF)
		return 0;
	l.c = calloc(1, sizeof(*l.c));
	if (!l.c)
		return fail(&l, -ENOMEM, "no memory");
	l.c->mode = mode;
	l.c->ends = ends;
	l.c->users_of_it = 1;
	snprintf(l.c->dir, sizeof(l.c->dir), "%s", dir);
	snprintf(l.c->user_name, sizeof(l.c->user_name), "%s", user ? user : "");
	l.c->stamp = stamp_of(dir); /* before they are read: a change meanwhile is seen the next time */
	r = mode == TLS_PSK ? load_psk(&l, ends, user) : load_x509(&l, ends);
	if (!r && gnutls_priority_init(&l.c->priority, mode == TLS_PSK ? PRIORITY_PSK : PRIORITY_BASE, NULL) < 0)
		r = fail(&l, -ENOTSUP, "this GnuTLS has no TLS 1.3");
	if (r < 0)
		tls_creds_free(l.c);
	else
		*out = l.c;
	return r;
}

void tls_creds_free(struct tls_creds *c)
{
	unsigned int i;

	if (!c || --c->users_of_it)
		return;
	for (i = 0; i < c->users; i++) {
		gnutls_memset(c->user[i].key.data, 0, c->user[i].key.size);
		gnutls_free(c->user[i].key.data);
	}
	free(c->user);
	if (c->psk_server)
		gnutls_psk_free_server_credentials(c->psk_server);
	if (c->psk_client)
		gnutls_psk_free_client_credentials(c->psk_client);
	if (c->x509_server)
		gnutls_certificate_free_credentials(c->x509_server);
	if (c->x509_client)
		gnutls_certificate_free_credentials(c->x509_client);
	if (c->priority)
		gnutls_priority_deinit(c->priority);
	free(c);
}

int tls_creds_use(struct tls *t)
{
	const struct tls_creds *c = t->creds;
	bool server = t->end == TLS_SERVER;
	void *x = server ? c->x509_server : c->x509_client;
	int r;

	if (c->mode == TLS_PSK)
		x = server ? (void *)c->psk_server : (void *)c->psk_client;
	if (!x) /* not loaded for this end */
		return -EINVAL;
	r = gnutls_priority_set(t->s, c->priority);
	if (r >= 0)
		r = gnutls_credentials_set(t->s, c->mode == TLS_PSK ? GNUTLS_CRD_PSK : GNUTLS_CRD_CERTIFICATE, x);
	if (r >= 0 && server && c->mode == TLS_X509)
		gnutls_certificate_server_set_request(t->s, GNUTLS_CERT_REQUIRE);
	return r < 0 ? -EINVAL : 0;
}
