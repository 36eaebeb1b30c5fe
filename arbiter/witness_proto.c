/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * witness_proto.c - see witness_proto.h
 */
#include "arbiter/witness_proto.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "arbiter/arbiter.h"

#define WORDS_MAX 6

/* Splits at single spaces; more than max words: max + 1. */
static int split(char *s, char **word, int max)
{
	int n = 0;

	while (s && n < max)
		word[n++] = strsep(&s, " ");
	return s ? max + 1 : n;
}

static bool number(const char *s, uint64_t *out)
{
	*out = 0;
	if (!*s || strlen(s) > 18 || strspn(s, "0123456789") != strlen(s))
		return false;
	for (; *s; s++)
		*out = *out * 10 + (uint64_t)(*s - '0');
	return *out > 0;
}

static bool name(const char *s, char out[ARBITER_NAME_MAX])
{
	if (!record_is_name(s))
		return false;
	strcpy(out, s);
	return true;
}

/* the words behind the hello; < 0: no line of this protocol */
static int words(const char *line, char copy[WITNESS_LINE_MAX], char **word)
{
	if (strncmp(line, WITNESS_HELLO, strlen(WITNESS_HELLO)) || strlen(line) >= WITNESS_LINE_MAX)
		return -1;
	strcpy(copy, line + strlen(WITNESS_HELLO));
	return split(copy, word, WORDS_MAX);
}

bool witness_parse_request(const char *line, struct witness_request *r)
{
	char copy[WITNESS_LINE_MAX], *word[WORDS_MAX];
	int n = words(line, copy, word);

	memset(r, 0, sizeof(*r));
	if (n == 2 && !strcmp(word[0], "read")) {
		r->op = ARBITER_READ;
		return name(word[1], r->vm);
	}
	if (n != 4 || strcmp(word[0], "claim"))
		return false;
	r->op = ARBITER_CLAIM;
	return name(word[1], r->vm) && name(word[2], r->host) && number(word[3], &r->generation);
}

bool witness_parse_answer(const char *line, char kind[8], struct arbiter_record *r, const char **text)
{
	char copy[WITNESS_LINE_MAX], *word[WORDS_MAX];
	int n = words(line, copy, word);

	memset(r, 0, sizeof(*r));
	if (n < 1 || strlen(word[0]) > 7)
		return false;
	strcpy(kind, word[0]);
	if (!strcmp(kind, "refused")) {
		*text = line + strlen(WITNESS_HELLO) + strlen("refused");
		*text += **text == ' ';
		return true;
	}
	if (n == 1)
		return !strcmp(kind, "none");
	return n == 3 && (!strcmp(kind, "record") || !strcmp(kind, "won") || !strcmp(kind, "lost")) &&
	       number(word[1], &r->generation) && name(word[2], r->owner);
}

bool witness_split(const char *where, char host[256], const char **port)
{
	const char *end = *where == '[' ? strchr(where, ']') : strrchr(where, ':');
	const char *from = where + (*where == '[');
	size_t n;

	if (!end && *where == '[')
		return false;
	end = end ? end : where + strlen(where);
	n = end - from;
	if (!n || n >= 256)
		return false;
	memcpy(host, from, n);
	host[n] = 0;
	end += *where == '[';
	*port = *end == ':' ? end + 1 : WITNESS_PORT;
	/* more than one colon outside of brackets is an IPv6 address without them */
	return (!*end || *end == ':') && (*where == '[' || !strchr(host, ':')) && **port &&
	       strspn(*port, "0123456789") == strlen(*port);
}

bool witness_is_loopback(const char *host)
{
	struct in6_addr v6;
	struct in_addr v4;

	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	if (inet_pton(AF_INET6, host, &v6) == 1)
		return IN6_IS_ADDR_LOOPBACK(&v6);
	return !strcmp(host, "localhost");
}

int witness_resolve(const char *where, bool to_listen, char host[256], struct addrinfo **out, char *error,
		    size_t error_size)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = to_listen ? AI_PASSIVE : 0 };
	const char *port;
	int r;

	if (!witness_split(where, host, &port)) {
		snprintf(error, error_size, "'%s' is not of the form HOST:PORT, or [IPV6]:PORT", where);
		return -EINVAL;
	}
	r = getaddrinfo(host, port, &hints, out);
	if (!r)
		return 0;
	snprintf(error, error_size, "%s: %s", where, r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
	return -EHOSTUNREACH;
}
