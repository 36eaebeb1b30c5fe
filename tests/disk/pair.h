/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pair.h - two hosts of disk managers, and what their daemons ask of them (model_pair.c); the random steps and
 * what must hold are in test_model.c
 */
#ifndef COLO_TESTS_DISK_PAIR_H
#define COLO_TESTS_DISK_PAIR_H

#include "disk/lineage.h"
#include "model.h"

#define IMAGES 32u
#define PATIENCE_MS 60000

struct proc {
	pid_t pid;      /* 0: none */
	int control, guest;
	int cut_fd;     /* a copy of this end of the link, to cut it */
	bool running;   /* a guest's batch */
	int run_status;
	struct disk_message hello, answer, verified;
	bool said_hello, answered, synced, lost, is_verified, want;
	struct lineage lineage;
	uint64_t boundary; /* the last that it said to hold */
};

/* what a host's disks hold */
enum kind {
	OWN,     /* what was last written here; after power loss what ref_allows() */
	COPY,    /* the image of a boundary, the last one it said to hold or a later one */
	MIXTURE, /* a sync has begun and no checkpoint was committed */
	CHANGING,/* SERVE after FAILOVER was asked for: OWN if any disk did it, COPY else */
};
enum activity { OFF, IDLE, SERVING, SECONDARY };

struct host {
	unsigned index;
	struct proc p[DISKS];
	enum activity activity;
	enum kind kind;
	uint64_t lower[DISKS]; /* COPY: the oldest epoch it may come back to */
	unsigned served;       /* CHANGING: disks that answered SERVE */
	bool clean;            /* it ended in an orderly way */
	bool dropping;         /* FAILOVER was asked for: boundaries beyond what was committed are void */
	bool spoilt;           /* disk 0 has differences that no bitmap knows of */
	bool known;            /* MIXTURE: it held `before` when the sync began */
	uint64_t before[DISKS][SECTORS];
};

struct model {
	uint64_t seed, rng;
	unsigned ndisks, cases;
	const char *journal;
	char dir[64];
	struct shared *sh;
	struct host h[HOSTS];
	int serving;        /* host whose VM serves, -1: none */
	unsigned truth;     /* the host whose content counts... */
	bool pair;          /* ...or, no one having served alone since, the other's */
	int sole;           /* the host that serves alone and has said so since the pair last agreed, -1 */
	bool linked, synced, based;
	uint64_t epoch;     /* the last boundary asked for */
	uint64_t received;  /* the last that all of the secondary's disks hold */
	uint64_t committed;
	struct image image[DISKS][IMAGES];
	uint64_t power_losses, failovers, links, checkpoints, verifies, clean_ends, opened[4];
};

extern struct model model;

/* ---- model_pair.c. Functions that return bool: false when a host lost power meanwhile, and is OFF now ---- */
uint64_t pick_random(uint64_t below);
static inline bool one_in(uint64_t n)
{
	return pick_random(n) == 0;
}
__attribute__((format(printf, 1, 2))) void trace(const char *fmt, ...);
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *fmt, ...);

bool host_start(struct host *h, uint64_t cut);
void host_kill(struct host *h);
/* As when the daemon ends: everything written survives. */
bool host_end(struct host *h);
bool host_alive(struct host *h);
/* A request to one disk; the answer is in the proc. */
bool ask(struct host *h, unsigned disk, struct disk_request req, int fd);
/* To all disks; all must agree. */
bool ask_all(struct host *h, struct disk_request req);
void guest_start(struct host *h, struct host_request req);
bool guest_wait(struct host *h);
bool guest_ask(struct host *h, unsigned disk, struct host_request req);
/* Handle messages until done() or a host's loss of power or `ms` are over. True: done(). */
bool pump(bool (*done)(void), int ms);

/* Connect all disks; the verdicts say how. */
bool pair_link(struct host *p, struct host *s);
void pair_cut(void);
/* The next boundary, while the guests of p do not run; and until it is held by s, or the link was lost, as
 * model.received says. */
bool pair_mark(struct host *p);
bool pair_wait(struct host *p, struct host *s);
bool pair_boundary(struct host *p, struct host *s); /* both */
/* `epoch` is held by all disks of s. */
bool pair_commit(struct host *s, uint64_t epoch);
struct image *image_of(unsigned disk, uint64_t epoch);

#endif
