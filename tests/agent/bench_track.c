/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * bench_track.c - what it costs to notice writes: the first write to a page, the harvest, the drop of a view
 *
 * Arguments: how writes are noticed (auto, async, sync), MiB of RAM (512), all of it in use. Each figure is the
 * median of ROUNDS rounds.
 */
#include "jit.h"
#include "track.h"
#include "view.h"
#include "wp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>

#define ROUNDS 15

static struct ram ram;
static uint64_t pages;
static uint8_t *stage;

void jit_changed(const struct ram_block *b, uint64_t offset, uint64_t len)
{
	(void)b;
	(void)offset;
	(void)len;
}

static void check(int ret, const struct errtext *err, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s\n", what, err->text);
		exit(ret == -EOPNOTSUPP || ret == -EPERM ? 77 : 1);
	}
}

static void *map(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

static int by_value(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return d < 0 ? -1 : d > 0;
}

static double median(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), by_value);
	return v[ROUNDS / 2];
}

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

/* Write to @n pages, each @step from the one before. */
static double write_ns(uint64_t n, uint64_t step)
{
	int64_t t = now_ns();
	volatile uint8_t *host = ram.block[0].host;

	for (uint64_t i = 0; i < n; i++)
		host[i * step % pages * PAGE]++;
	return (double)(now_ns() - t) / n;
}

static uint64_t harvest(struct track_times *times)
{
	struct stage_writer w;
	struct errtext err;

	check(stage_begin(&w, stage, stage_size(pages), pages), &err, "staging area");
	check(track_harvest(&ram, &w, times, &err), &err, "harvest");
	return w.harvested;
}

static void writes(const char *name, uint64_t n, uint64_t step)
{
	double first[ROUNDS], second[ROUNDS], cpu[ROUNDS], scan[ROUNDS], copy[ROUNDS], all[ROUNDS];
	struct track_times times;
	uint64_t found = 0;

	for (int i = 0; i < ROUNDS; i++) {
		double c = cpu_ns();

		first[i] = write_ns(n, step);
		cpu[i] = (cpu_ns() - c) / n;
		second[i] = write_ns(n, step);
		c = cpu_ns();
		found = harvest(&times);
		all[i] = (cpu_ns() - c) / 1e3;
		scan[i] = times.scan_ns / 1e3;
		copy[i] = times.copy_ns / 1e3;
	}
	printf("%-22s %6llu pages: first write %6.0f ns (CPU %6.0f), again %3.0f; harvest lists %6llu in %6.0f us, "
	       "copies in %6.0f us (CPU, both %6.0f)\n", name, (unsigned long long)n, median(first), median(cpu), median(second),
	       (unsigned long long)found, median(scan), median(copy), median(all));
}

static void nothing_written(void)
{
	struct track_times times;
	double scan[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		harvest(&times);
		scan[i] = times.scan_ns / 1e3;
	}
	printf("nothing written: harvest %.0f us\n", median(scan));
}

static void drops(uint64_t n)
{
	double first[ROUNDS], cpu[ROUNDS], drop[ROUNDS], empty[ROUNDS];
	uint64_t dropped = 0;
	struct errtext err;

	for (int i = 0; i < ROUNDS; i++) {
		double c = cpu_ns();

		first[i] = write_ns(n, pages / n);
		cpu[i] = (cpu_ns() - c) / n;
		dropped = 0;
		c = cpu_ns();
		check(view_drop(&ram, &dropped, &err), &err, "drop");
		drop[i] = (cpu_ns() - c) / 1e3;
		c = cpu_ns();
		check(view_drop(&ram, &dropped, &err), &err, "drop");
		empty[i] = (cpu_ns() - c) / 1e3;
	}
	printf("view, %6llu pages: first write %.0f ns (CPU %.0f); drop %llu in %.0f us of CPU, nothing in %.0f\n", (unsigned long long)n,
	       median(first), median(cpu), (unsigned long long)dropped, median(drop), median(empty));
}

int main(int argc, char **argv)
{
	uint64_t mib = argc > 2 ? strtoull(argv[2], NULL, 0) : 512;
	struct ram_block *b = &ram.block[0];
	struct errtext err;
	struct utsname u;
	double c;

	if (mib < 64 || (argc > 1 && wp_choose(argv[1]) < 0))
		return 2;
	check(wp_probe(&err), &err, "probe");
	uname(&u);
	printf("Linux %s, %s, %llu MiB\n", u.release, wp_way(), (unsigned long long)mib);
	pages = mib << 8;
	stage = map(stage_size(pages));
	ram.n = 1;
	*b = (struct ram_block){ .name = "ram", .host = map(pages * PAGE), .size = pages * PAGE, .anon = true,
				  .image_fd = -1 };
	memset(b->host, 1, b->size);
	c = cpu_ns();
	check(track_start(&ram, &err), &err, "track");
	printf("tracking begins in %.1f ms of CPU\n", (cpu_ns() - c) / 1e6);
	nothing_written();
	writes("upwards", 2000, 1);
	writes("every second one", 2000, 2);
	writes("here and there", 100, pages / 100 | 1);
	writes("here and there", 2000, 4099);
	writes("here and there", 12000, 4099);
	track_stop();
	check(view_create(&ram, &err), &err, "view");
	memset(b->image, 2, b->size);
	for (uint64_t i = 0; i < pages; i++)
		*(volatile uint8_t *)(b->host + i * PAGE);
	drops(100);
	drops(2000);
	return 0;
}
