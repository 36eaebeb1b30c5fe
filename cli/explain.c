/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * explain.c - see explain.h
 *
 * What is known of a difference is the daemon's; what usually makes such a difference, and what helps, is
 * said here, from its kind and from how the bytes look. That part is a guess, and worded as one.
 */
#include "cli/explain.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/hex.h"

#define EXCERPT 64
#define ROW 16
#define PACKET_BLOCK 6u

static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static long long number(json_t *o, const char *key)
{
	return (long long)json_integer_value(json_object_get(o, key));
}

/* --- both sides' bytes --- */

/* byte[EXCERPT + i]: at the difference + i */
struct side {
	bool known, fin, rst;
	int from, to; /* relative to the difference */
	uint8_t byte[2 * EXCERPT];
};

static void load_side(struct side *s, json_t *o)
{
	uint8_t before[EXCERPT];
	ssize_t nb = hex_decode(before, sizeof(before), text(o, "before"));
	ssize_t na = hex_decode(s->byte + EXCERPT, EXCERPT, text(o, "after"));

	s->known = json_is_object(o);
	s->fin = json_is_true(json_object_get(o, "fin"));
	s->rst = json_is_true(json_object_get(o, "rst"));
	s->from = nb > 0 ? (int)-nb : 0;
	s->to = na > 0 ? (int)na : 0;
	memcpy(s->byte + EXCERPT + s->from, before, (size_t)-s->from);
}

static bool has(const struct side *s, int i)
{
	return i >= s->from && i < s->to;
}

static uint8_t at(const struct side *s, int i)
{
	return s->byte[EXCERPT + i];
}

static bool differ(const struct side *a, const struct side *b, int i)
{
	return has(a, i) && has(b, i) && at(a, i) != at(b, i);
}

static bool has_row(const struct side *s, int row)
{
	return s->from < row + ROW && s->to > row && s->from < s->to;
}

static void show_row(const char *who, const struct side *s, int row, long long offset)
{
	int i;

	printf("  %10lld  %-4s ", offset + row, who);
	for (i = row; i < row + ROW; i++)
		has(s, i) ? printf(" %02x", at(s, i)) : printf("   ");
	printf("  |");
	for (i = row; i < row + ROW; i++)
		putchar(!has(s, i) ? ' ' : at(s, i) < 0x7f && isprint(at(s, i)) ? at(s, i) : '.');
	printf("|\n");
}

static void show_marks(const struct side *a, const struct side *b, int row)
{
	int i, last = row + ROW;

	while (last > row && !differ(a, b, last - 1))
		last--;
	if (last == row)
		return;
	printf("  %10s  %-4s ", "", "");
	for (i = row; i < row + ROW; i++)
		printf(differ(a, b, i) ? " ^^" : "   ");
	printf("   ");
	for (i = row; i < last; i++)
		putchar(differ(a, b, i) ? '^' : ' ');
	printf("\n");
}

/* What comes before the difference both said: where only one of them is known so far back, it is shown. */
static void show_bytes(const struct side *p, const struct side *s, const char *other, long long offset)
{
	int row = -2 * ROW - (int)(offset % ROW);

	for (; row < 2 * ROW; row += ROW) {
		if (row + ROW <= 0) {
			const struct side *longer = p->from <= s->from ? p : s;

			if (has_row(longer, row))
				show_row("both", longer, row, offset);
			continue;
		}
		if (has_row(p, row))
			show_row("PVM", p, row, offset);
		if (has_row(s, row))
			show_row(other, s, row, offset);
		show_marks(p, s, row);
	}
}

/* --- what usually makes such a difference --- */

enum hint {
	HINT_PAYLOAD, HINT_TLS, HINT_TLS_CONTENT, HINT_SSH, HINT_DATE, HINT_NUMBER, HINT_TOKEN, HINT_FIN, HINT_SYN, HINT_DATAGRAM,
	HINT_REPEAT, HINT_URGENT,
	HINT_NO_ANSWER, HINT_NO_ACK, HINT_WINDOW, HINT_RESET, HINT_HELD, HINT_AHEAD, HINT_FLOWS, HINT_NONE,
};

static const char *const hints[HINT_NONE] = {
	[HINT_PAYLOAD] = "Different bytes: usually random numbers, times, or answers in another order because\n"
		"  several threads work on them. What helps: fewer of these in what is answered.",
	[HINT_TLS] = "TLS: usually the VMs drew different random numbers for a new connection, which costs a\n"
		"  checkpoint; from there on it is alike. What helps: connections that are kept open, or a proxy\n"
		"  outside the guest that ends TLS.",
	[HINT_TLS_CONTENT] = "TLS with the same keys in both VMs, and a few bytes of the content differ: usually a\n"
		"  time, as in HTTP's Date when its second changes between the two answers.",
	[HINT_SSH] = "ssh: usually the VMs drew different random numbers for a new connection, which costs a\n"
		"  checkpoint or two; from there on it is alike. What helps: connections that are kept open.",
	[HINT_DATE] = "HTTP's Date: its second changed between the two answers. That can happen once a second,\n"
		"  and the rarer the less the SVM's answers are behind.",
	[HINT_NUMBER] = "A number differs: usually a time, a duration, a counter or a process id in the answer.\n"
		"  What helps: leave it out, or make it coarser (seconds instead of microseconds).",
	[HINT_TOKEN] = "A word of letters and digits differs: usually a random token, as a session cookie, an\n"
		"  ETag or a request id. What helps: one for a session and not for a request, or one made from\n"
		"  the request.",
	[HINT_FIN] = "One VM ended the stream where the other has more to say: usually a time limit, or a\n"
		"  program that was killed or failed in one of them.",
	[HINT_SYN] = "The VMs offer different TCP options: usually SYN cookies, which one of them sends when\n"
		"  its backlog is full, or a setting (ECN, window scale) that was just changed.",
	[HINT_DATAGRAM] = "A packet differs: usually a random id (DNS), a time, or packets in another order.",
	[HINT_REPEAT] = "The PVM contradicts itself, which TCP forbids: usually a fault, or a program that makes\n"
		"  packets of its own.",
	[HINT_URGENT] = "Only one VM marked a byte as urgent: usually a program there was interrupted.",
	[HINT_NO_ANSWER] = "The SVM had not said it in time: usually it is slower just now, waits for its disk,\n"
		"  or works in another order. What helps, when it comes often: a secondary as fast as the\n"
		"  primary, fewer VMs beside it, a larger wait-min and wait-max (colo(5)).",
	[HINT_NO_ACK] = "The SVM's stack has not acknowledged what the PVM's has: usually it is slower just now,\n"
		"  or lost a segment and waits for its repetition.",
	[HINT_WINDOW] = "The SVM takes no more data, the PVM does: usually the program there is stuck or slow.",
	[HINT_RESET] = "One VM reset the connection and the other did not: usually a program that ended with\n"
		"  data unread in one of them, or a time limit.",
	[HINT_HELD] = "Too much output was held. What helps: a larger held-max (colo(5)), a faster secondary.",
	[HINT_AHEAD] = "The SVM is far ahead of the PVM in one flow: usually the PVM is slower just now.",
	[HINT_FLOWS] = "More connections at a time than the table has room for: a flood, or a very busy server.",
};

static const struct {
	const char *kind;
	enum hint hint;
} kind_hints[] = {
	{ "payload", HINT_PAYLOAD },     { "fin", HINT_FIN },       { "syn-options", HINT_SYN },
	{ "datagram", HINT_DATAGRAM },   { "fragment", HINT_DATAGRAM }, { "no-answer", HINT_NO_ANSWER },
	{ "no-syn", HINT_NO_ANSWER },    { "no-fin", HINT_NO_ANSWER },  { "no-ack", HINT_NO_ACK },
	{ "repeat", HINT_REPEAT },       { "urgent", HINT_URGENT },
	{ "window", HINT_WINDOW },       { "reset", HINT_RESET },   { "held", HINT_HELD },
	{ "ahead", HINT_AHEAD },         { "flows", HINT_FLOWS },
};

/* a record's type and version 3.x, in what came before or at the difference */
static bool looks_like_tls(const struct side *s, const char *flow)
{
	int i;

	for (i = s->from; i + 2 < s->to && i <= 0; i++)
		if (at(s, i) >= 0x14 && at(s, i) <= 0x17 && at(s, i + 1) == 3 && at(s, i + 2) <= 4)
			return true;
	return strstr(flow, ":443 ") != NULL;
}

/* a few bytes, and the same again behind them */
static bool few_differ(const struct side *p, const struct side *s)
{
	int i, n = 0, end = p->to < s->to ? p->to : s->to;

	for (i = 0; i < end; i++)
		n += differ(p, s, i);
	return n <= 3 && end >= 8 && !differ(p, s, end - 1) && !differ(p, s, end - 2);
}

static bool follows(const struct side *s, const char *word)
{
	return s->from < 0 && memmem(s->byte + EXCERPT + s->from, (size_t)-s->from, word, strlen(word));
}

static bool looks_like_ssh(const char *flow)
{
	return strstr(flow, ":22 ") || (strlen(flow) > 3 && !strcmp(flow + strlen(flow) - 3, ":22"));
}

static enum hint payload_hint(const struct side *p, const struct side *s, const char *flow)
{
	if (looks_like_tls(p, flow))
		return few_differ(p, s) ? HINT_TLS_CONTENT : HINT_TLS;
	if (looks_like_ssh(flow))
		return HINT_SSH;
	if (!has(p, 0) || !has(s, 0))
		return HINT_PAYLOAD;
	if (follows(p, "\nDate: ") || follows(s, "\nDate: "))
		return HINT_DATE;
	if (isdigit(at(p, 0)) && isdigit(at(s, 0)) && (!has(p, -1) || !isalpha(at(p, -1))))
		return HINT_NUMBER;
	if (isalnum(at(p, 0)) && isalnum(at(s, 0)))
		return HINT_TOKEN;
	return HINT_PAYLOAD;
}

static enum hint hint_for(json_t *r, const struct side *p, const struct side *s)
{
	size_t i;

	for (i = 0; i < sizeof(kind_hints) / sizeof(*kind_hints); i++)
		if (!strcmp(kind_hints[i].kind, text(r, "kind")))
			return kind_hints[i].hint == HINT_PAYLOAD ? payload_hint(p, s, text(r, "flow")) :
								     kind_hints[i].hint;
	return HINT_NONE;
}

/* --- a report --- */

static void show_heading(json_t *r)
{
	time_t at = (time_t)(number(r, "at") / 1000);
	char when[32];
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", localtime_r(&at, &tm));
	printf("%s.%03lld  nic%lld  %s: %s  %s\n", when, number(r, "at") % 1000, number(r, "nic"),
	       text(r, "cause"), text(r, "kind"), text(r, "flow"));
}

static void show_place(json_t *r)
{
	const char *in = text(r, "offset_in");

	if (!*in)
		return;
	printf("  first difference at byte %lld of the %s\n", number(r, "offset"),
	       !strcmp(in, "stream") ? "guest's stream" :
	       !strcmp(in, "first-seen") ? "guest's stream, counted from where protection first saw it" :
	       !strcmp(in, "options") ? "TCP options" : "packet's content");
}

static void show_end(const char *who, const struct side *s, bool syn)
{
	if (s->fin)
		printf("  the %s ends the stream here\n", who);
	if (s->rst)
		printf("  the %s reset the connection\n", who);
	if (!s->known && syn)
		printf("  the %s's options were not kept\n", who);
	else if (!s->known)
		printf("  nothing is known of the %s\n", who);
}

/* what `value` means is the kind's */
static void show_values(json_t *r)
{
	static const struct {
		const char *kind, *what;
	} values[] = {
		{ "datagram", "bytes in the packet" }, { "fragment", "bytes in the fragment" },
		{ "no-ack", "bytes acknowledged" },    { "window", "bytes of receive window" },
		{ "held", "bytes held, and allowed" }, { "ahead", "bytes ahead, and allowed" },
		{ "flows", "connections, and allowed" },
	};
	json_t *p = json_object_get(r, "pvm"), *s = json_object_get(r, "svm");
	bool full = !strcmp(text(r, "cause"), "full");
	size_t i;

	for (i = 0; i < sizeof(values) / sizeof(*values); i++)
		if (!strcmp(values[i].kind, text(r, "kind")) && json_is_object(p) && json_is_object(s))
			printf(full ? "  %s: %lld, %lld\n" : "  %s: PVM %lld, SVM %lld\n", values[i].what,
			       number(p, "value"), number(s, "value"));
}

static void show_waiting(json_t *r)
{
	if (!strcmp(text(r, "cause"), "full") || !strcmp(text(r, "kind"), "repeat"))
		return;
	if (number(r, "waited_us"))
		printf("  the PVM's packet waited %.1f ms", number(r, "waited_us") / 1e3);
	else
		printf("  the SVM was first");
	printf("; the SVM's answers come %.1f ms behind (deviation %.1f), %.1f ms are allowed\n",
	       number(r, "lag_us") / 1e3, number(r, "lag_dev_us") / 1e3, number(r, "patience_us") / 1e3);
}

static enum hint show_report(json_t *r)
{
	struct side p = { 0 }, s = { 0 };
	bool full = !strcmp(text(r, "cause"), "full"), syn = !strcmp(text(r, "kind"), "syn-options");
	bool repeat = !strcmp(text(r, "kind"), "repeat");

	load_side(&p, json_object_get(r, "pvm"));
	load_side(&s, json_object_get(r, "svm"));
	show_heading(r);
	show_place(r);
	show_bytes(&p, &s, repeat ? "1st" : "SVM", number(r, "offset"));
	if (!full && !repeat) {
		show_end("PVM", &p, syn);
		show_end("SVM", &s, syn);
	}
	show_values(r);
	show_waiting(r);
	printf("\n");
	return hint_for(r, &p, &s);
}

static void show_counts(json_t *differences)
{
	const char *key;
	json_t *v;
	bool any = false;

	printf("differences  ");
	json_object_foreach(differences, key, v) {
		if (!json_integer_value(v))
			continue;
		printf("%s %s %lld", any ? "," : "", key, (long long)json_integer_value(v));
		any = true;
	}
	printf("%s\n", any ? "" : " none");
}

void explain_show(json_t *answer)
{
	json_t *reports = json_object_get(answer, "reports"), *r;
	bool used[HINT_NONE + 1] = { false };
	size_t i;

	json_array_foreach(reports, i, r)
		used[show_report(r)] = true;
	for (i = 0; i < HINT_NONE; i++)
		if (used[i])
			printf("%s\n", hints[i]);
	show_counts(json_object_get(answer, "differences"));
	if (!strcmp(text(answer, "mode"), "checkpoint"))
		printf("mode checkpoint: nothing is compared\n");
	else if (strcmp(text(answer, "state"), "protected"))
		printf("state %s: nothing is compared now\n", text(answer, "state"));
}

/* --- the file --- */

static long packets_in(const uint8_t *p, size_t n)
{
	uint32_t type, len;
	long packets = 0;

	for (; n >= 12; p += len, n -= len) {
		memcpy(&type, p, 4);
		memcpy(&len, p + 4, 4);
		if (len < 12 || len > n)
			return packets;
		packets += type == PACKET_BLOCK;
	}
	return packets;
}

/* One piece of the capture: number of packets in it, or -1 after a message. The file is made with the first. */
static long save_piece(json_t *answer, FILE **f, const char *path)
{
	const char *hex = text(answer, "pcapng");
	size_t size = strlen(hex) / 2 + 1;
	uint8_t *bytes = malloc(size);
	ssize_t n = bytes ? hex_decode(bytes, size, hex) : -1;
	long packets = -1;

	if (n >= 0 && !*f) {
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		*f = fd < 0 ? NULL : fdopen(fd, "w");
	}
	if (n < 0)
		ask_fail(path, "the daemon's answer makes no sense");
	else if (!*f || fwrite(bytes, 1, (size_t)n, *f) != (size_t)n)
		ask_fail(path, strerror(errno));
	else
		packets = packets_in(bytes, (size_t)n);
	free(bytes);
	return packets;
}

long explain_save(struct ask *a, const char *path)
{
	long long after = 0, newest = -1;
	long packets = 0, n;
	json_t *answer;
	FILE *f = NULL;

	do {
		answer = ask(a, json_pack("{s:s s:I}", "command", "pcap", "after", (json_int_t)after));
		n = answer ? save_piece(answer, &f, path) : -1;
		packets = n < 0 ? -1 : packets + n;
		after = number(answer, "last");
		newest = newest < 0 ? number(answer, "newest") : newest; /* as of the beginning */
		json_decref(answer);
	} while (n > 0 && after < newest);
	if (f && fclose(f) != 0 && packets >= 0) {
		ask_fail(path, strerror(errno));
		packets = -1;
	}
	return packets;
}
