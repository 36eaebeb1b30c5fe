/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_model.c - nothing is lost: random guests, checkpoints, failovers, link losses and power losses
 *
 * test_model PLUGIN OPERATIONS [SECONDS]: until so many guest operations were done (and so many seconds are over).
 *
 * What must hold (model.h, pair.h say how it is known):
 *   R3  a secondary that lost power comes back with just the content of the last boundary that it said to hold, or
 *       of a later one; all its disks with that of the same one
 *   R5  what was written before a completed flush, or with FUA, is there after a power loss of the host that
 *       serves; so is all that the SVM had written when FAILOVER was answered, once SERVE was asked for and any
 *       disk did it. Any other sector holds what it held then or a later write of this host's
 *   lineage: the host whose content counts may always overwrite the other, never the other way round
 *   bitmaps: after the first checkpoint of a link both hosts hold the same
 *   each read gives the last write; a verify finds just what was spoilt
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "pair.h"

#define STEPS 150

struct model model;

static struct host *other(struct host *h)
{
	return &model.h[!h->index];
}

static uint64_t random_cut(void)
{
	return 1 + pick_random(one_in(2) ? 30 : 400);
}

/* ---- a host comes back ---- */

static bool look(struct host *h)
{
	for (unsigned d = 0; d < model.ndisks; d++)
		if (!guest_ask(h, d, (struct host_request){ .op = HOST_LOOK }))
			return false;
	return true;
}

static void check_image(struct host *h, unsigned d, uint64_t epoch)
{
	struct image *image = image_of(d, epoch);

	for (unsigned i = 0; i < SECTORS; i++)
		if (model.sh->seen[h->index][d][i] != ref_content(image->v[i]))
			fail("host %u disk %u sector %u (at %llu) holds %llx, not %llx as at boundary %llu", h->index, d, i,
			     (unsigned long long)ref_offset(i), (unsigned long long)model.sh->seen[h->index][d][i],
			     (unsigned long long)image->v[i], (unsigned long long)epoch);
}

static bool values_differ(const uint64_t *seen, const uint64_t *values)
{
	for (unsigned i = 0; i < SECTORS; i++)
		if (seen[i] != ref_content(values[i]))
			return true;
	return false;
}

static void check_own(struct host *h, unsigned d)
{
	struct ref *r = &model.sh->ref[h->index][d];

	for (unsigned i = 0; i < SECTORS; i++)
		if (!ref_allows(r, h->index, i, model.sh->seen[h->index][d][i]))
			fail("host %u disk %u sector %u (at %llu) holds %llx; stable was %llx, written last %llx, zeroed %llx, since %llx",
			     h->index, d, i, (unsigned long long)ref_offset(i),
			     (unsigned long long)model.sh->seen[h->index][d][i], (unsigned long long)r->s[i].floor,
			     (unsigned long long)r->s[i].last, (unsigned long long)r->s[i].zeroed,
			     (unsigned long long)r->since);
}

/* What HELLO says against what is known. The epoch to come back to. */
static uint64_t judge_hello(struct host *h, bool *over)
{
	uint64_t epoch = 0;

	*over = false;
	for (unsigned d = 0; d < model.ndisks; d++) {
		uint64_t e = h->p[d].hello.epoch;

		*over |= (h->p[d].hello.hello.flags & DISK_HELLO_FAILED_OVER) != 0;
		if (e && (!epoch || e < epoch))
			epoch = e;
	}
	if (h->kind == CHANGING && !*over && h->served)
		fail("host %u has forgotten the failover that %u of its disks had completed", h->index, h->served);
	if (h->kind == CHANGING)
		h->kind = *over ? OWN : COPY;
	if (h->kind != COPY)
		return epoch;
	for (unsigned d = 0; d < model.ndisks; d++)
		if (h->p[d].hello.epoch < h->lower[d] || h->p[d].hello.epoch > model.epoch)
			fail("host %u disk %u can come back to epoch %llu, but holds %llu, and %llu was the last", h->index,
			     d, (unsigned long long)h->p[d].hello.epoch, (unsigned long long)h->lower[d],
			     (unsigned long long)model.epoch);
	if (*over)
		fail("host %u: a failover that nobody asked to complete was completed", h->index);
	return epoch;
}

/* A sync was cut off. Either nothing of it is there or the metadata say so, or it was over and committed. */
static void check_mixture(struct host *h, unsigned d)
{
	uint64_t *seen = model.sh->seen[h->index][d], epoch = h->p[d].hello.epoch;

	if (!(h->p[d].hello.hello.lineage.flags & LINEAGE_CONSISTENT) || !h->known)
		return;
	if (epoch && model.image[d][epoch % IMAGES].epoch == epoch && !values_differ(seen, image_of(d, epoch)->v))
		return;
	if (values_differ(seen, h->before[d]))
		fail("host %u disk %u is a mixture, and the metadata say that it is not", h->index, d);
}

static void came_back(struct host *h, uint64_t epoch)
{
	model.opened[h->kind]++;
	for (unsigned d = 0; d < model.ndisks; d++) {
		struct ref *r = &model.sh->ref[h->index][d];

		if (h->kind == COPY) {
			check_image(h, d, epoch);
			h->lower[d] = epoch;
			ref_set(r, model.sh, image_of(d, epoch)->v);
		} else if (h->kind == OWN) {
			check_own(h, d);
			ref_set(r, model.sh, model.sh->seen[h->index][d]);
		} else {
			check_mixture(h, d);
		}
	}
}

/* Power on. False: it was lost again. */
static bool come_back(struct host *h)
{
	struct disk_request open = { .op = DISK_OPEN };
	bool over;

	if (!host_start(h, one_in(4) ? random_cut() : 0))
		return false;
	open.epoch = judge_hello(h, &over);
	open.flags = over ? DISK_OPEN_FAILOVER : 0;
	/* some disks may get there, and others lose power before: then this is what all have */
	for (unsigned d = 0; h->kind == COPY && d < model.ndisks; d++)
		h->lower[d] = open.epoch;
	if (!ask_all(h, open) || !look(h))
		return false;
	came_back(h, open.epoch);
	return true;
}

/* ---- who serves ---- */

/* The claim is won: h serves, alone. */
static bool serve(struct host *h)
{
	trace("host %u is to serve", h->index);
	model.truth = h->index;
	model.pair = model.linked = model.synced = model.based = false;
	if (h->activity == SECONDARY)
		h->kind = CHANGING;
	else
		h->kind = OWN;
	h->served = 0;
	for (unsigned d = 0; d < model.ndisks; d++) {
		if (!ask(h, d, (struct disk_request){ .op = DISK_SERVE }, -1))
			return false;
		if (h->p[d].answer.status)
			fail("SERVE refused: %s", h->p[d].answer.text);
		h->served++;
	}
	h->kind = OWN;
	h->activity = SERVING;
	model.serving = (int)h->index;
	model.sole = (int)h->index;
	return true;
}

static void arm(struct host *h)
{
	unsigned d = (unsigned)pick_random(model.ndisks);
	struct host_request req = { .op = HOST_CUT, .count = (uint32_t)random_cut() };

	trace("host %u disk %u loses power at its call %u from now", h->index, d, req.count);
	guest_ask(h, d, req);
}

static void put_off(struct host *h)
{
	if (!host_alive(h))
		return;
	if (one_in(3))
		host_end(h);
	else
		host_kill(h);
}

static struct host_request burst(uint32_t most)
{
	trace("a burst");
	return (struct host_request){ .op = HOST_RUN, .count = 20 + (uint32_t)pick_random(most), .threads = 1,
				      .flags = RUN_BURST };
}

static struct host_request batch(void)
{
	struct host_request req = { .op = HOST_RUN, .count = (uint32_t)pick_random(60) + 1,
				    .threads = (uint32_t)pick_random(2) + 1 };

	if (one_in(3))
		req.count *= 4;
	if (one_in(6))
		req.flags |= RUN_LARGE;
	return one_in(300) ? burst(300) : req;
}

static void run_guest(struct host *h)
{
	struct host_request req = batch();

	trace("guest of host %u: %u by %u", h->index, req.count, req.threads);
	guest_start(h, req);
	guest_wait(h);
}

static void go_on_alone(struct host *s)
{
	struct host_request req = batch();
	bool busy = !one_in(3);

	trace("host %u takes over", s->index);
	if (one_in(2))
		run_guest(s);
	if (one_in(2)) { /* long enough to last beyond the write-back */
		req.flags |= RUN_FLUSHY;
		req.count += (uint32_t)pick_random(500);
	}
	if (one_in(2) && host_alive(s))
		arm(s);
	if (model.received > model.committed && !one_in(3) && !pair_commit(s, model.received))
		return;
	if (busy && host_alive(s))
		guest_start(s, req);
	for (unsigned d = 0; d < model.ndisks; d++) {
		ref_all_stable(&model.sh->ref[s->index][d]);
		s->lower[d] = model.committed;
	}
	s->dropping = true;
	if (!host_alive(s) ||
	    !ask_all(s, (struct disk_request){ .op = DISK_FAILOVER, .epoch = pick_random(UINT64_C(1) << 40) + 1 }))
		return;
	model.failovers++;
	if (one_in(10)) {
		host_kill(s);
		return;
	}
	if (serve(s) && busy)
		guest_wait(s);
}

/* The secondary's VM goes on as the only one. Its peer is dead, or believes otherwise for a moment. */
static void take_over(struct host *s)
{
	go_on_alone(s);
	put_off(other(s));
}

static void recover(void)
{
	struct host *w = &model.h[model.truth];

	model.serving = -1;
	model.linked = model.synced = false;
	if (model.pair && one_in(2))
		w = other(w);
	if (w->activity == SECONDARY && model.pair) {
		put_off(other(w));
		take_over(w);
		return;
	}
	if (other(w)->activity == SECONDARY || w->activity == SECONDARY)
		put_off(other(w)->activity == SECONDARY ? other(w) : w);
	if (!host_alive(w) && !come_back(w))
		return;
	if (one_in(8) && !host_alive(other(w)) && !come_back(other(w)))
		return;
	serve(w);
}

/* ---- the pair ---- */

static bool link_is_lost(void)
{
	bool lost = false;

	for (unsigned i = 0; i < HOSTS; i++)
		for (unsigned d = 0; d < model.ndisks; d++)
			lost |= host_alive(&model.h[i]) && model.h[i].p[d].lost;
	return lost;
}

static void link_gone(struct host *p, struct host *s)
{
	bool based = model.based;

	pair_cut();
	model.linked = model.synced = false;
	if (based && host_alive(s) && one_in(2)) {
		if (one_in(2))
			put_off(p);
		else if (one_in(2))
			run_guest(p); /* it does not know yet, and nothing that it says gets out */
		if (host_alive(s))
			take_over(s);
		else
			put_off(p);
		return;
	}
	if (!ask_all(p, (struct disk_request){ .op = DISK_UNLINK }) || !serve(p))
		return;
	if (!one_in(3))
		put_off(s);
	else if (host_alive(s))
		ask_all(s, (struct disk_request){ .op = DISK_UNLINK });
}

/* Content that is stale must be known as such. */
static void check_stale(struct host *p, struct host *s)
{
	for (unsigned d = 0; d < model.ndisks && model.sole == (int)p->index; d++) {
		enum lineage_verdict v = lineage_judge(&s->p[d].lineage, &p->p[d].lineage);

		if (v == LINEAGE_CHANGED || v == LINEAGE_ALL)
			fail("disk %u: the stale host %u may overwrite host %u, says the lineage (verdict %d)", d, s->index,
			     p->index, v);
	}
}

static void link_up(struct host *p, struct host *s)
{
	check_stale(p, s);
	model.sole = -1;
	model.received = model.committed = 0;
	if (one_in(4))
		arm(s);
	if (one_in(4))
		guest_start(p, batch());
	if (host_alive(s))
		pair_link(p, s);
	if (host_alive(p) && (p->p[0].running || p->p[model.ndisks - 1].running))
		guest_wait(p);
}

static bool is_synced(void)
{
	bool all = true;

	for (unsigned d = 0; d < model.ndisks; d++)
		all &= model.h[model.serving].p[d].synced;
	return all || link_is_lost();
}

static void syncing_step(struct host *p, struct host *s)
{
	switch (pick_random(12)) {
	case 0:
		put_off(s);
		break;
	case 1:
		arm(one_in(2) ? s : p);
		break;
	case 2:
		pair_cut();
		break;
	case 3:
	case 4:
		run_guest(p);
		break;
	default:
		if (pump(is_synced, 20) && !link_is_lost() && host_alive(p) && host_alive(s))
			model.synced = true;
	}
}

static void check_secondary(struct host *s)
{
	if (!look(s))
		return;
	for (unsigned d = 0; d < model.ndisks; d++)
		check_image(s, d, model.committed);
}

static bool never(void)
{
	return false;
}

static void checkpoint(struct host *p, struct host *s)
{
	bool ahead = one_in(3), first = !model.based;
	uint64_t epoch;

	trace("checkpoint %llu", (unsigned long long)model.epoch + 1);
	if (!pair_boundary(p, s) || model.received != model.epoch)
		return;
	epoch = model.epoch;
	if (one_in(5)) { /* the next one is on its way before this one is committed */
		pump(never, (int)pick_random(40));
		guest_start(p, one_in(3) ? burst(60) : batch());
		if (!guest_wait(p) || !pair_mark(p))
			return;
		if (one_in(2)) { /* it may never arrive */
			if (pair_commit(s, epoch))
				pump(never, (int)pick_random(4));
			if (one_in(2))
				put_off(s);
			else
				pair_wait(p, s);
			return;
		}
		if (!pair_wait(p, s))
			return;
	}
	if (ahead)
		guest_start(p, batch()); /* the PVM does not wait for COMMIT */
	if (pair_commit(s, epoch) && (first || one_in(8)))
		check_secondary(s);
	if (ahead && host_alive(p))
		guest_wait(p);
}

static bool is_verified(void)
{
	for (unsigned d = 0; d < model.ndisks; d++)
		if (!host_alive(&model.h[model.serving]))
			return true;
	return link_is_lost() || model.h[model.serving].p[0].is_verified;
}

static bool verify(struct host *p, uint32_t flags, uint64_t expected)
{
	struct proc *disk = &p->p[0];

	disk->is_verified = false;
	if (!ask(p, 0, (struct disk_request){ .op = DISK_VERIFY, .flags = flags }, -1))
		return false;
	if (disk->answer.status == -ENOTCONN || disk->answer.status == -EINVAL)
		return false; /* the link was lost just now */
	if (disk->answer.status)
		fail("VERIFY refused: %s", disk->answer.text);
	if (!pump(is_verified, PATIENCE_MS) && host_alive(p) && host_alive(other(p)))
		fail("the verify does not end");
	if (!disk->is_verified || !host_alive(p))
		return false;
	if (disk->verified.status)
		return false;
	if (disk->verified.verified.differing != expected)
		fail("verify found %llu bytes that differ, %llu do",
		     (unsigned long long)disk->verified.verified.differing, (unsigned long long)expected);
	model.verifies++;
	return true;
}

/* Blocks of DISK_HASH_PART which a run of sectors touches, in bytes of the disk */
static uint64_t parts_bytes(unsigned first, unsigned n)
{
	uint64_t from = ref_offset(first) / DISK_HASH_PART * DISK_HASH_PART;
	uint64_t end = (ref_offset(first + n - 1) / DISK_HASH_PART + 1) * DISK_HASH_PART;

	return (end < DISK_BYTES ? end : DISK_BYTES) - from;
}

static void spoil_and_verify(struct host *p, struct host *s)
{
	unsigned n = (unsigned)pick_random(12) + 1, first;

	first = (unsigned)pick_random(SPOTS) * SPOT_SECTORS + (unsigned)pick_random(SPOT_SECTORS - n);
	checkpoint(p, s);
	if (!host_alive(p) || !host_alive(s) || link_is_lost())
		return;
	guest_wait(p);
	if (!pair_boundary(p, s) || model.received != model.epoch || !pair_commit(s, model.epoch))
		return;
	if (!verify(p, 0, 0))
		return;
	trace("spoil %u sectors from %u of host %u, verify", n, first, s->index);
	s->spoilt = true; /* from here on it may not be used any more, unless it is repaired */
	if (guest_ask(s, 0, (struct host_request){ .op = HOST_INJECT, .count = n, .from = first }) &&
	    verify(p, 0, parts_bytes(first, n)) && verify(p, DISK_VERIFY_REPAIR, parts_bytes(first, n)) &&
	    pair_boundary(p, s) && model.received == model.epoch && pair_commit(s, model.epoch)) {
		check_secondary(s);
		if (host_alive(p) && host_alive(s))
			verify(p, 0, 0);
		return;
	}
	s->kind = MIXTURE;
	s->known = false;
	model.based = model.pair = false;
	model.truth = p->index;
	if (host_alive(s))
		host_kill(s);
}

static void both_guests(struct host *p, struct host *s)
{
	trace("both guests");
	guest_start(p, batch());
	if (one_in(3)) { /* the SVM lags, or differs */
		guest_start(s, batch());
		guest_wait(s);
	}
	if (host_alive(p))
		guest_wait(p);
}

static void protected_step(struct host *p, struct host *s)
{
	uint64_t what = pick_random(100);

	if (what < 38)
		both_guests(p, s);
	else if (what < 76)
		checkpoint(p, s);
	else if (what < 82)
		pair_boundary(p, s);
	else if (what < 84)
		host_kill(p);
	else if (what < 86)
		host_kill(s);
	else if (what < 88)
		put_off(one_in(2) ? p : s);
	else if (what < 90) {
		host_kill(p);
		host_kill(s);
	} else if (what < 94)
		arm(one_in(2) ? p : s);
	else if (what < 96)
		pair_cut();
	else if (what < 98)
		spoil_and_verify(p, s);
	else
		run_guest(s);
}

static void alone_step(struct host *p, struct host *s)
{
	uint64_t what = pick_random(20);

	if (what < 9)
		run_guest(p);
	else if (what < 10)
		put_off(p);
	else if (what < 11)
		arm(p);
	else if (!host_alive(s))
		come_back(s);
	else if (what < 12)
		put_off(s);
	else
		link_up(p, s);
}

static void primary_gone(struct host *s)
{
	model.serving = -1;
	model.linked = model.synced = false;
	if (s->activity == SECONDARY && model.pair && !one_in(4))
		take_over(s);
	else if (host_alive(s) && one_in(2))
		put_off(s);
}

static void step(void)
{
	struct host *p = model.serving >= 0 ? &model.h[model.serving] : NULL, *s = p ? other(p) : NULL;

	if (!p)
		recover();
	else if (!host_alive(p))
		primary_gone(s);
	else if (model.linked && (!host_alive(s) || link_is_lost()))
		link_gone(p, s);
	else if (!model.linked)
		alone_step(p, s);
	else if (!model.synced)
		syncing_step(p, s);
	else if (!model.based && one_in(2))
		run_guest(p);
	else if (!model.based)
		checkpoint(p, s);
	else
		protected_step(p, s);
}

/* ---- cases ---- */

static void path_of(char *path, size_t n, unsigned host, unsigned disk, const char *name)
{
	snprintf(path, n, "%s/%c%u%s", model.dir, "ab"[host], disk, name);
}

static void make_disks(void)
{
	char path[128];

	for (unsigned i = 0; i < HOSTS; i++)
		for (unsigned d = 0; d < model.ndisks; d++) {
			int fd;

			path_of(path, sizeof(path), i, d, "");
			mkdir(path, 0700);
			path_of(path, sizeof(path), i, d, "/disk.raw");
			fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
			if (fd < 0 || ftruncate(fd, (off_t)DISK_BYTES))
				fail("%s: %s", path, strerror(errno));
			close(fd);
		}
}

static void remove_disks(void)
{
	char command[160];

	snprintf(command, sizeof(command), "rm -rf '%s'/a? '%s'/b?", model.dir, model.dir);
	if (system(command))
		fail("cannot clear %s", model.dir);
}

static void compare_files(unsigned d)
{
	static char a[1 << 20], b[1 << 20];
	char path[128];
	int fd[2];

	for (unsigned i = 0; i < HOSTS; i++) {
		path_of(path, sizeof(path), i, d, "/disk.raw");
		fd[i] = open(path, O_RDONLY | O_CLOEXEC);
	}
	for (uint64_t off = 0; off < DISK_BYTES; off += sizeof(a)) {
		ssize_t n = pread(fd[0], a, sizeof(a), (off_t)off), m = pread(fd[1], b, sizeof(b), (off_t)off);

		if (n <= 0 || n != m || memcmp(a, b, (size_t)n))
			fail("disk %u: the hosts' files differ in the MiB at %llu", d, (unsigned long long)off);
	}
	close(fd[0]);
	close(fd[1]);
}

/* Both hosts come to an end with the same content. */
static void finish(void)
{
	unsigned tries = 0;

	trace("the end: until both hold the same");
	while (tries++ < 2000) {
		struct host *p = model.serving >= 0 ? &model.h[model.serving] : NULL;

		if (!p || !host_alive(p) || !model.linked || !model.synced || !host_alive(other(p)) || link_is_lost()) {
			step();
			continue;
		}
		checkpoint(p, other(p));
		if (!host_alive(p) || !host_alive(other(p)) || link_is_lost())
			continue;
		if (!pair_boundary(p, other(p)) || model.received != model.epoch || !pair_commit(other(p), model.epoch))
			continue;
		if (host_end(p) && host_end(other(p))) {
			for (unsigned d = 0; d < model.ndisks; d++)
				compare_files(d);
			return;
		}
	}
	fail("the pair was never protected");
}

static void one_case(void)
{
	struct shared *sh = model.sh;

	model.rng = model.seed * 0x9e3779b97f4a7c15u | 1;
	model.ndisks = one_in(3) ? 2 : 1;
	model.journal = one_in(3) ? "64M" : "16M";
	model.serving = model.sole = -1;
	model.truth = (unsigned)pick_random(2);
	model.pair = model.linked = model.synced = model.based = false;
	model.epoch = model.received = model.committed = 0;
	memset(model.h, 0, sizeof(model.h));
	model.h[1].index = 1;
	memset(sh->ref, 0, sizeof(sh->ref));
	make_disks();
	trace("case %u: seed %llu, disks %u, journal %s", model.cases, (unsigned long long)model.seed, model.ndisks,
	      model.journal);
	for (unsigned i = 0; i < STEPS; i++)
		step();
	finish();
	remove_disks();
	model.cases++;
	model.seed++;
}

static uint64_t first_seed(void)
{
	const char *given = getenv("COLO_SEED");

	return given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) << 20 | (uint64_t)getpid();
}

static void report(void)
{
	printf("%u cases: %llu operations, %llu reads checked, %llu flushes, %llu checkpoints, %llu failovers, %llu links, "
	       "%llu verifies\n%llu power losses, %llu orderly ends; came back: own %llu, copy %llu, mixture %llu\n",
	       model.cases, (unsigned long long)model.sh->ops, (unsigned long long)model.sh->reads,
	       (unsigned long long)model.sh->flushes, (unsigned long long)model.checkpoints,
	       (unsigned long long)model.failovers, (unsigned long long)model.links,
	       (unsigned long long)model.verifies, (unsigned long long)model.power_losses,
	       (unsigned long long)model.clean_ends, (unsigned long long)model.opened[OWN],
	       (unsigned long long)model.opened[COPY], (unsigned long long)model.opened[MIXTURE]);
}

int main(int argc, char **argv)
{
	uint64_t ops = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000000;
	time_t until = time(NULL) + (argc > 3 ? atoi(argv[3]) : 0);

	if (argc < 2) {
		fprintf(stderr, "usage: %s PLUGIN [OPERATIONS [SECONDS]]\n", argv[0]);
		return 2;
	}
	snprintf(model.dir, sizeof(model.dir), "%s/colo-model-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(model.dir))
		return 2;
	model.sh = mmap(NULL, sizeof(*model.sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (model.sh == MAP_FAILED)
		return 2;
	model.sh->next = 1;
	model.seed = first_seed();
	printf("seed %llu\n", (unsigned long long)model.seed);
	fflush(stdout);
	host_load(argv[1]);
	while (model.sh->ops < ops || time(NULL) < until)
		one_case();
	report();
	rmdir(model.dir);
	return 0;
}
