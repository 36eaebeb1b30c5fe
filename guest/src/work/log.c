// SPDX-License-Identifier: GPL-2.0-or-later
/* The log of colo-guest-work: a ring of lines, readable over the control port. */
#include <stdarg.h>
#include <string.h>

#include "work.h"

#define LOG_LINES 256
#define LOG_WIDTH 200

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_ring[LOG_LINES][LOG_WIDTH];
static unsigned long log_next;

static void log_line(const char *line)
{
	pthread_mutex_lock(&log_lock);
	snprintf(log_ring[log_next++ % LOG_LINES], LOG_WIDTH, "%s", line);
	pthread_mutex_unlock(&log_lock);
	fprintf(stderr, "%s\n", line);
}

void work_log(const char *fmt, ...)
{
	char line[LOG_WIDTH];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	log_line(line);
}

void work_corrupt(struct worker *w, const char *fmt, ...)
{
	char line[LOG_WIDTH];
	va_list ap;
	int n = snprintf(line, sizeof(line), "CORRUPT %s round %lu: ", w->kind->name,
			 atomic_load(&w->rounds));

	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	/* Every fault counts, but one bad page must not push everything else out of the ring. */
	if (atomic_fetch_add(&w->corrupt, 1) < 20)
		log_line(line);
}

void work_log_write(FILE *out)
{
	pthread_mutex_lock(&log_lock);
	unsigned long first = log_next > LOG_LINES ? log_next - LOG_LINES : 0;

	for (unsigned long i = first; i < log_next; i++)
		fprintf(out, "%s\n", log_ring[i % LOG_LINES]);
	pthread_mutex_unlock(&log_lock);
}

uint64_t work_mix(uint64_t a, uint64_t b)
{
	uint64_t x = a * 0x9e3779b97f4a7c15u ^ (b + 0x7f4a7c159e3779b9u);

	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93u;
	x ^= x >> 32;
	return x;
}

uint64_t work_random(struct worker *w)
{
	w->rng ^= w->rng >> 12;
	w->rng ^= w->rng << 25;
	w->rng ^= w->rng >> 27;
	return w->rng * 0x2545f4914f6cdd1du;
}
