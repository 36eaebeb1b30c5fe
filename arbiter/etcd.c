/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * etcd.c - the arbiter `etcd`: the key /colo/VM in an etcd cluster, by its JSON gateway
 *
 * Theory of operation: read is a linearizable range request. A claim reads, and then puts the new record in a
 * transaction that only happens if the key is still as it was read (its mod_revision; for a key that was
 * not there its create_revision, 0). If it is not, another one was faster: read again.
 *
 * The members of the cluster are tried in turn, from the one that answered last. All but the last one of a round get
 * SHARE_MS each, so that one that is hung does not use up the time of all; a claim that a member
 * did not answer may have been carried out, which the next look at the record shows.
 *
 * Only what is an answer of etcd's is believed: status 200, a JSON object with a header that has a revision,
 * a value that is a record. An empty object of some other server is not "nobody ever claimed".
 *
 * What a server sends is bounded; redirections are not followed, and proxies of the environment not used.
 */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arbiter/arbiter.h"
#include "arbiter/base64.h"

#define CONNECT_MS 1500
#define SHARE_MS 4000
#define ANSWER_MAX (64u << 10)
#define ATTEMPTS 5
#define ENDPOINTS_MAX 16
#define TOKEN_MAX 512
#define KEY_MAX (ARBITER_NAME_MAX + 8)

static struct {
	char list[sizeof(((struct arbiter_config *)0)->address)];
	const char *endpoint[ENDPOINTS_MAX];
	unsigned int n, first;
	char token[TOKEN_MAX];
} e;

struct reply {
	char data[ANSWER_MAX];
	size_t len;
};

/* a member, for one look at the record and one change of it */
struct member {
	struct arbiter *a;
	const char *url;
	uint64_t until_ms;
	bool no_token; /* the one there was is not taken */
};

static size_t on_data(char *p, size_t size, size_t n, void *arg)
{
	struct reply *r = arg;

	if (n > sizeof(r->data) - r->len)
		return 0;
	memcpy(r->data + r->len, p, n);
	r->len += n;
	return n;
}

/* What nobody acknowledges is not waited for as long as an answer. */
static int on_socket(void *arg, curl_socket_t fd, curlsocktype type)
{
	unsigned int ms = CONNECT_MS;

	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	return CURL_SOCKOPT_OK;
}

static void file_option(CURL *c, CURLoption option, const struct arbiter_config *cfg, const char *name)
{
	char path[sizeof(cfg->tls_dir) + 32];

	snprintf(path, sizeof(path), "%s/%s", cfg->tls_dir, name);
	if (access(path, F_OK) == 0)
		curl_easy_setopt(c, option, path);
}

/* Without that file the system's authorities would do, of whom any may speak for any host; and curl does not name it. */
static int check_authority(struct arbiter *a)
{
	char path[sizeof(a->cfg->tls_dir) + 32];

	snprintf(path, sizeof(path), "%s/ca-cert.pem", a->cfg->tls_dir);
	if (!*a->cfg->tls_dir || access(path, R_OK) == 0)
		return 0;
	return arbiter_unknown(a, -errno, "[arbiter] tls-dir: %s: %s", path, strerror(errno));
}

static void set_options(CURL *c, const struct member *m, struct reply *reply, char error[CURL_ERROR_SIZE])
{
	const struct arbiter_config *cfg = m->a->cfg;
	uint64_t now = arbiter_now_ms();

	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, m->until_ms > now ? (long)(m->until_ms - now) : 1L);
	curl_easy_setopt(c, CURLOPT_SOCKOPTFUNCTION, on_socket);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, reply);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error);
	if (!*cfg->tls_dir)
		return;
	file_option(c, CURLOPT_CAINFO, cfg, "ca-cert.pem");
	file_option(c, CURLOPT_SSLCERT, cfg, "client-cert.pem");
	file_option(c, CURLOPT_SSLKEY, cfg, "client-key.pem");
}

static struct curl_slist *headers(const struct member *m)
{
	struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json");
	char line[TOKEN_MAX + 32];

	snprintf(line, sizeof(line), "Authorization: %s", e.token);
	return *e.token ? curl_slist_append(list, line) : list;
}

/* for a person; from a stranger */
static void printable(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 32 || (unsigned char)*s > 126)
			*s = '?';
}

/* etcd's own words if there are any. NULL */
static json_t *refused(struct member *m, long status, const struct reply *reply)
{
	json_t *o = json_loadb(reply->data, reply->len, 0, NULL);
	const char *why = json_string_value(json_object_get(o, "message"));
	char text[120];

	why = why ? why : json_string_value(json_object_get(o, "error"));
	snprintf(text, sizeof(text), "%s", why ? why : "no reason given");
	printable(text);
	json_decref(o);
	m->no_token = status == 401;
	arbiter_unknown(m->a, -EPROTO, "%s answers with HTTP status %ld: %s", m->url, status, text);
	return NULL;
}

static json_t *parse(struct member *m, const struct reply *reply)
{
	json_t *o = json_loadb(reply->data, reply->len, JSON_REJECT_DUPLICATES, NULL);

	if (json_object_get(json_object_get(o, "header"), "revision"))
		return o;
	json_decref(o);
	arbiter_unknown(m->a, -EPROTO, "%s: what answers there is not etcd (its answer makes no sense)", m->url);
	return NULL;
}

static json_t *perform(struct member *m, CURL *c, const char *url, const char *body, struct reply *reply)
{
	struct curl_slist *list = headers(m);
	char error[CURL_ERROR_SIZE] = "";
	json_t *answer = NULL;
	long status = 0;
	CURLcode r;

	set_options(c, m, reply, error);
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
	r = curl_easy_perform(c);
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	if (r != CURLE_OK)
		arbiter_unknown(m->a, -EIO, "%s: %s", m->url, *error ? error : curl_easy_strerror(r));
	else
		answer = status == 200 ? parse(m, reply) : refused(m, status, reply);
	curl_slist_free_all(list);
	return answer;
}

/* Takes body. The answer, or NULL with the reason in m->a->error */
static json_t *post(struct member *m, const char *path, json_t *body)
{
	struct reply *reply = calloc(1, sizeof(*reply));
	char *text = json_dumps(body, JSON_COMPACT);
	char url[1100];
	json_t *answer = NULL;
	CURL *c = curl_easy_init();

	snprintf(url, sizeof(url), "%s/v3/%s", m->url, path);
	if (c && text && reply)
		answer = perform(m, c, url, text, reply);
	else
		arbiter_unknown(m->a, -ENOMEM, "no memory");
	curl_easy_cleanup(c);
	json_decref(body);
	free(text);
	free(reply);
	return answer;
}

/* --- a user with a password --- */

static int read_password(struct arbiter *a, char *out, size_t size)
{
	FILE *f = fopen(a->cfg->password_file, "re");
	bool good = f && fgets(out, size, f);

	if (f)
		fclose(f);
	if (!good)
		return arbiter_unknown(a, -ENOENT, "[arbiter] password-file: %s cannot be read", a->cfg->password_file);
	out[strcspn(out, "\r\n")] = 0;
	return 0;
}

static int log_in(struct member *m)
{
	char password[256];
	const char *token;
	json_t *o;
	int r = read_password(m->a, password, sizeof(password));

	if (r < 0)
		return r;
	*e.token = 0;
	o = post(m, "auth/authenticate", json_pack("{s:s s:s}", "name", m->a->cfg->user, "password", password));
	explicit_bzero(password, sizeof(password));
	token = json_string_value(json_object_get(o, "token"));
	if (token && strlen(token) < sizeof(e.token))
		strcpy(e.token, token);
	else if (o)
		arbiter_unknown(m->a, -EPROTO, "%s gives no token to user %s", m->url, m->a->cfg->user);
	json_decref(o);
	return *e.token ? 0 : -EACCES;
}

static json_t *ask(struct member *m, const char *path, json_t *body)
{
	json_t *o = NULL;

	if (*m->a->cfg->user && !*e.token && log_in(m) < 0) {
		json_decref(body);
		return NULL;
	}
	o = post(m, path, json_incref(body));
	if (!o && m->no_token && *m->a->cfg->user && log_in(m) == 0) /* tokens do not last */
		o = post(m, path, json_incref(body));
	json_decref(body);
	return o;
}

/* --- the record --- */

static void key_of(const struct arbiter *a, char out[BASE64_SIZE(KEY_MAX)])
{
	char key[KEY_MAX];

	base64_encode(key, snprintf(key, sizeof(key), "/colo/%s", a->cfg->vm), out);
}

/* numbers of 64 bits are strings in etcd's JSON; 0: none */
static uint64_t number(const json_t *v)
{
	if (json_is_integer(v) && json_integer_value(v) > 0)
		return json_integer_value(v);
	return json_is_string(v) ? strtoull(json_string_value(v), NULL, 10) : 0;
}

static int nonsense(struct member *m, const char *what)
{
	return arbiter_unknown(m->a, -EBADMSG, "%s: %s", m->url, what);
}

static int take_value(struct member *m, const json_t *kv, struct arbiter_record *r, uint64_t *revision)
{
	const char *value = json_string_value(json_object_get(kv, "value"));
	char text[RECORD_TEXT_MAX];
	ssize_t n = value ? base64_decode(value, text, sizeof(text)) : -EBADMSG;

	*revision = number(json_object_get(kv, "mod_revision"));
	if (n < 0 || record_parse(text, n, NULL, r) < 0)
		return arbiter_unknown(m->a, -EBADMSG, "the value of /colo/%s in etcd is damaged: who claimed last cannot be "
				       "told. See on both hosts who serves; when none of them does, delete the key",
				       m->a->cfg->vm);
	return *revision ? 0 : nonsense(m, "etcd's answer has no mod_revision");
}

/* revision: 0 without a record */
static int look(struct member *m, struct arbiter_record *r, uint64_t *revision)
{
	char key[BASE64_SIZE(KEY_MAX)];
	const json_t *kvs, *kv;
	json_t *o;
	int s = 0;

	memset(r, 0, sizeof(*r));
	*revision = 0;
	key_of(m->a, key);
	o = ask(m, "kv/range", json_pack("{s:s}", "key", key));
	if (!o)
		return -EIO;
	kvs = json_object_get(o, "kvs");
	kv = json_array_get(kvs, 0);
	if (kvs && (json_array_size(kvs) != 1 || !json_is_string(json_object_get(kv, "key")) ||
		    strcmp(json_string_value(json_object_get(kv, "key")), key)))
		s = nonsense(m, "etcd's answer is about another key");
	else if (kvs)
		s = take_value(m, kv, r, revision);
	else if (json_object_get(o, "count"))
		s = nonsense(m, "etcd's answer has a count of keys and no key");
	json_decref(o);
	return s;
}

static json_t *condition(const char *key, uint64_t revision)
{
	char number_text[24];

	snprintf(number_text, sizeof(number_text), "%" PRIu64, revision);
	if (revision)
		return json_pack("{s:s s:s s:s s:s}", "key", key, "target", "MOD", "result", "EQUAL", "mod_revision",
				 number_text);
	return json_pack("{s:s s:s s:s s:s}", "key", key, "target", "CREATE", "result", "EQUAL", "create_revision", "0");
}

/* 1: done, 0: the record is not as of `revision` any more */
static int swap(struct member *m, const struct arbiter_record *r, uint64_t revision)
{
	char key[BASE64_SIZE(KEY_MAX)], text[RECORD_TEXT_MAX], value[BASE64_SIZE(RECORD_TEXT_MAX)];
	json_t *o;
	int done;

	key_of(m->a, key);
	base64_encode(text, record_format(r, NULL, text), value);
	o = ask(m, "kv/txn", json_pack("{s:[o] s:[{s:{s:s s:s}}]}", "compare", condition(key, revision), "success",
				       "request_put", "key", key, "value", value));
	if (!o)
		return -EIO;
	done = json_is_true(json_object_get(o, "succeeded"));
	json_decref(o);
	return done;
}

static int claim_there(struct member *m, uint64_t generation, struct arbiter_record *r)
{
	struct arbiter_record mine = { .generation = generation };
	uint64_t revision;
	int i, s;

	snprintf(mine.owner, sizeof(mine.owner), "%s", m->a->cfg->node);
	for (i = 0; i < ATTEMPTS; i++) {
		s = look(m, r, &revision);
		if (s < 0)
			return s;
		s = record_judge(r, generation, m->a->cfg->node);
		if (s != ARBITER_OPEN)
			return s;
		s = swap(m, &mine, revision);
		if (s < 0)
			return s;
		if (s) {
			*r = mine;
			return ARBITER_WON;
		}
	}
	return nonsense(m, "the record changes all the time");
}

/* --- members --- */

static void split(const char *address)
{
	char *s, *save;

	if (e.n)
		return;
	curl_global_init(CURL_GLOBAL_DEFAULT);
	snprintf(e.list, sizeof(e.list), "%s", address);
	for (s = strtok_r(e.list, ", ", &save); s && e.n < ENDPOINTS_MAX; s = strtok_r(NULL, ", ", &save)) {
		s[strlen(s) - (s[strlen(s) - 1] == '/')] = 0;
		e.endpoint[e.n++] = s;
	}
}

/* generation 0: only read */
static int each_member(struct arbiter *a, uint64_t generation, struct arbiter_record *r)
{
	uint64_t revision;
	unsigned int i, k;
	uint64_t limit;
	int s = check_authority(a);

	if (s < 0)
		return s;
	s = -ETIMEDOUT;
	split(a->cfg->address);
	arbiter_unknown(a, s, "no time was left to ask etcd");
	for (i = 0; i < e.n; i++) {
		struct member m = { .a = a };

		k = (e.first + i) % e.n;
		m.url = e.endpoint[k];
		limit = arbiter_left_ms(a, i + 1 < e.n ? SHARE_MS : UINT32_MAX);
		if (!limit)
			break;
		m.until_ms = arbiter_now_ms() + limit;
		s = generation ? claim_there(&m, generation, r) : look(&m, r, &revision);
		if (s >= 0) {
			e.first = k;
			return s;
		}
	}
	return s;
}

static int etcd_read(struct arbiter *a, struct arbiter_record *r)
{
	return each_member(a, 0, r);
}

static int etcd_claim(struct arbiter *a, uint64_t generation, struct arbiter_record *r)
{
	return generation ? each_member(a, generation, r) : arbiter_unknown(a, -EINVAL, "generation 0");
}

const struct arbiter_backend arbiter_etcd = { etcd_read, etcd_claim };
