/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fold.c - give back what a VM that serves for good no longer needs of its image
 *
 * An SVM that has taken over writes for good: no checkpoint drops its private pages any more. The image's page
 * below a private one is never seen again, so that in the end RAM would exist twice. A thread looks
 * again and again for such pages and punches them out of the image, which leaves private pages alone
 * (the kernel unmaps only what is the file's). A page that is private stays so, and what the guest
 * does meanwhile can only make more of them: so nothing has to stand still.
 *
 * Only what the image still holds is looked at, in slices, so that neither the kernel's lock on the
 * address space nor a CPU is taken for long.
 */
#include "fold.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pagemap.h"

#define SLICE (UINT64_C(64) << 20)
#ifndef ROUND_NS /* a test sets it */
#define ROUND_NS INT64_C(2000000000)
#endif
#define REST_LEAST_NS INT64_C(1000000)
#define REST_TIMES 9 /* as long as the work took */

static struct {
	struct ram ram;
	struct pagemap_iter it;
	pthread_t thread;
	bool runs;
} fold;

static void rest(int64_t ns)
{
	const struct timespec t = { ns / 1000000000, ns % 1000000000 };

	nanosleep(&t, NULL);
}

/* Without what is not private, or swapped out: that is for a later round. */
static int punch_private(const struct ram_block *b, uint64_t at, uint64_t end)
{
	struct pagemap_iter *it = &fold.it;
	struct errtext err;
	int n;

	pagemap_begin(it, PAGEMAP_PRIVATE, b->host + at, end - at);
	while ((n = pagemap_next(it, &err)) > 0)
		for (int i = 0; i < n; i++)
			if (fallocate(b->image_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      it->region[i].start - (uintptr_t)b->host,
				      it->region[i].end - it->region[i].start) < 0)
				return -errno;
	return n;
}

/* What the image holds from @at on, up to a slice; returns where to go on. */
static uint64_t fold_slice(const struct ram_block *b, uint64_t at)
{
	off_t from = lseek(b->image_fd, at, SEEK_DATA), to;
	uint64_t end;

	if (from < 0)
		return b->size;
	from &= ~(off_t)(PAGE - 1);
	to = lseek(b->image_fd, from, SEEK_HOLE);
	end = to < 0 || (uint64_t)to > b->size ? b->size : (uint64_t)to;
	if (end - from > SLICE)
		end = from + SLICE;
	/* a range that could not be looked at, or punched, exists twice a while longer */
	punch_private(b, from, end);
	return end;
}

static void fold_block(const struct ram_block *b)
{
	uint64_t at = 0, done;
	int64_t t, took;

	while (at < b->size) {
		t = now_ns();
		/* small pieces of data count together as a slice */
		for (done = at; at < b->size && at - done < SLICE && now_ns() - t < REST_LEAST_NS;)
			at = fold_slice(b, at);
		took = (now_ns() - t) * REST_TIMES;
		rest(took > REST_LEAST_NS ? took : REST_LEAST_NS);
	}
}

static void *serve(void *unused)
{
	(void)unused;
	setpriority(PRIO_PROCESS, syscall(SYS_gettid), 10);
	for (;;) {
		for (unsigned int i = 0; i < fold.ram.n; i++)
			if (fold.ram.block[i].image)
				fold_block(&fold.ram.block[i]);
		rest(ROUND_NS);
	}
	return NULL;
}

int fold_start(const struct ram *ram, struct errtext *err)
{
	int ret;

	if (fold.runs)
		return 0;
	fold.ram = *ram;
	ret = -pthread_create(&fold.thread, NULL, serve, NULL);
	if (ret < 0)
		return agent_fail(err, ret, "a thread: %s", strerror(-ret));
	pthread_detach(fold.thread);
	fold.runs = true;
	return 0;
}
