/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_arbiter.c - what a witness, its client, an etcd server, or a file say of a record
 *
 * The first byte chooses the parser. For etcd the rest is a series of answers, each after ANSWER: one byte for how the
 * request went, and the body. Whatever comes, a claim counts as won only if the record is (generation, this host).
 */
#include <curl/curl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

/* libcurl is what would bring the answers */
#undef curl_easy_setopt
#undef curl_easy_getinfo
#define curl_easy_init() ((CURL *)&answers)
#define curl_easy_cleanup(c) ((void)(c))
#define curl_easy_perform(c) answer_next()
#define curl_easy_setopt note_option
#define curl_easy_getinfo(c, what, out) (*(out) = answers.status, CURLE_OK)

static struct {
	const char *p, *end;
	void *reply;
	long status;
} answers;

static CURLcode note_option(CURL *c, CURLoption o, ...)
{
	va_list ap;

	(void)c;
	va_start(ap, o);
	if (o == CURLOPT_WRITEDATA)
		answers.reply = va_arg(ap, void *);
	va_end(ap);
	return CURLE_OK;
}

static CURLcode answer_next(void);

#include "arbiter/etcd.c"

#include "arbiter/witness_proto.h"

#define ANSWER 0x1e
#define ME "b"
#define CHECK(cond)              \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* in two pieces, as they may come */
static CURLcode answer_next(void)
{
	const char *end = answers.p < answers.end ? memchr(answers.p + 1, ANSWER, answers.end - answers.p - 1) : NULL;
	const char *body = answers.p + 1;
	size_t n, half;
	bool cut;

	if (answers.p >= answers.end)
		return CURLE_OPERATION_TIMEDOUT;
	end = end ? end : answers.end;
	n = end - body;
	half = n / 2;
	answers.status = *answers.p == 'u' ? 401 : *answers.p == 'e' ? 500 : 200;
	cut = *answers.p == 't';
	answers.p = end + 1;
	if (cut)
		return CURLE_COULDNT_CONNECT;
	if (on_data((char *)body, 1, half, answers.reply) != half ||
	    on_data((char *)body + half, 1, n - half, answers.reply) != n - half)
		return CURLE_WRITE_ERROR;
	return CURLE_OK;
}

static bool is_record(const struct arbiter_record *r)
{
	return memchr(r->owner, 0, sizeof(r->owner)) && r->generation && record_is_name(r->owner);
}

static void judge(int status, const struct arbiter_record *r, uint64_t generation)
{
	if (status == ARBITER_WON)
		CHECK(r->generation == generation && !strcmp(r->owner, ME));
	else if (status == ARBITER_LOST)
		CHECK(is_record(r) && record_judge(r, generation, ME) == ARBITER_LOST);
	else
		CHECK(status < 0);
}

static void etcd(const char *p, size_t n, bool user)
{
	static struct arbiter_config cfg = { .type = ARBITER_ETCD, .vm = "vm", .node = ME,
					     .address = "http://127.0.0.1:1,http://127.0.0.1:2" };
	struct arbiter a = { .cfg = &cfg, .deadline_ms = arbiter_now_ms() + 10000 };
	struct arbiter_record r;
	static int password = -1;
	int s;

	if (password < 0) {
		password = memfd_create("password", MFD_CLOEXEC);
		CHECK(pwrite(password, "secret\n", 7, 0) == 7);
		snprintf(cfg.password_file, sizeof(cfg.password_file), "/proc/self/fd/%d", password);
	}
	snprintf(cfg.user, sizeof(cfg.user), "%s", user ? "colo" : "");
	*e.token = 0;
	answers.p = p;
	answers.end = p + n;
	s = arbiter_etcd.read(&a, &r);
	CHECK(s < 0 ? *a.error != 0 : s == 0 && (!r.generation || is_record(&r)));
	answers.p = p;
	*a.error = 0;
	s = arbiter_etcd.claim(&a, 5, &r);
	CHECK(s >= 0 || *a.error);
	judge(s, &r, 5);
}

static void file(const char *p, size_t n, const char *vm)
{
	struct arbiter_record r, again;
	char text[RECORD_TEXT_MAX];

	if (record_parse(p, n, vm, &r) < 0) {
		CHECK(!r.generation);
		return;
	}
	CHECK(is_record(&r));
	CHECK(record_parse(text, record_format(&r, vm, text), vm, &again) == 0);
	CHECK(again.generation == r.generation && !strcmp(again.owner, r.owner));
}

static void request(const char *line)
{
	char again[WITNESS_LINE_MAX];
	struct witness_request q;

	if (!witness_parse_request(line, &q))
		return;
	CHECK(record_is_name(q.vm));
	if (q.op == ARBITER_READ) {
		snprintf(again, sizeof(again), WITNESS_HELLO "read %s", q.vm);
		CHECK(!strcmp(again, line));
		return;
	}
	CHECK(q.op == ARBITER_CLAIM && record_is_name(q.host) && q.generation);
}

static void answer(const char *line)
{
	struct arbiter_record r;
	const char *text = NULL;
	char kind[8];

	if (!witness_parse_answer(line, kind, &r, &text))
		return;
	if (!strcmp(kind, "refused"))
		CHECK(text >= line && text <= line + strlen(line) && !r.generation);
	else if (!strcmp(kind, "none"))
		CHECK(!r.generation);
	else
		CHECK(is_record(&r));
}

static void address(const char *where)
{
	char host[256];
	const char *port;

	if (!witness_split(where, host, &port))
		return;
	CHECK(*host && strlen(host) < sizeof(host) && *port);
	witness_is_loopback(host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	text = malloc(size); /* exactly, so that the sanitizer sees a byte too many */
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	switch (*data) {
	case 'E': etcd(text, size - 1, false); break;
	case 'U': etcd(text, size - 1, true); break;
	case 'F': file(text, size - 1, "vm"); break;
	case 'R': file(text, size - 1, NULL); break;
	case 'Q': request(text); break;
	case 'A': answer(text); break;
	case 'W': address(text); break;
	}
	free(text);
	return 0;
}
