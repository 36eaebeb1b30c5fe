/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * colo-guest-work: load with its own checks, run inside a test guest.
 *
 * A worker does one round of work every period and checks in each round what earlier rounds left
 * behind. What it finds wrong it reports as a line that begins with CORRUPT (work_corrupt()).
 */
#ifndef COLO_GUEST_WORK_H
#define COLO_GUEST_WORK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#define WORK_ARGS 3

struct worker;

/* What a kind of worker is; the last argument of every kind is the period in milliseconds. */
struct work_kind {
	const char *name;
	const char *args;			/* for the usage line */
	int nargs;
	long defaults[WORK_ARGS];
	int (*setup)(struct worker *w);		/* 0 or -errno; allocates w->priv */
	void (*round)(struct worker *w);
	void (*cleanup)(struct worker *w);
};

struct worker {
	const struct work_kind *kind;
	long args[WORK_ARGS];
	atomic_ulong rounds;
	atomic_ulong corrupt;
	atomic_bool running;
	atomic_bool stop;
	pthread_t thread;
	uint64_t rng;
	void *priv;
};

extern const struct work_kind work_mem, work_code, work_file;

/* xorshift64*; the state is w->rng, seeded and logged by the runner */
uint64_t work_random(struct worker *w);

/* Mixes two numbers into one that looks random: expected contents are computed, not stored. */
uint64_t work_mix(uint64_t a, uint64_t b);

/* The log: the last lines in memory, each also on stderr (the journal and the console). */
void work_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void work_corrupt(struct worker *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void work_log_write(FILE *out);

#endif
