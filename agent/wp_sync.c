/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * wp_sync.c - synchronous userfaultfd write protection (Linux 5.19 to 6.6)
 *
 * Theory of operation
 *
 * All of RAM is write-protected. Who writes to a protected page waits in the kernel until our thread has
 * noted the page in a bitmap and taken the protection off. A harvest takes the bits and protects those pages
 * again, before it reads them. One lock makes each of these two steps one piece. So of every page one of these holds:
 *   protected, bit clear: clean;
 *   not protected, bit set: written, or about to be.
 *
 * Neither the thread nor who holds the lock touches guest RAM, and the thread waits for nothing else: it
 * serves QEMU's main loop while that waits in a fault, and it is served by nobody.
 *
 * Guests write upwards through memory. The thread frees some pages ahead if those behind were written already. They
 * count as written.
 *
 * What must not happen is that a page becomes writable without its bit: a page lost like that is wrong on the
 * secondary for ever. Where kernels would do so:
 * - Anonymous memory that was never touched has nothing that could be protected (before Linux 6.4): the zero
 *   page is mapped there first. For files, shared or private, the kernel leaves a marker.
 * - Splitting a huge zero page forgot the protection (before Linux 6.3): everything is split beforehand,
 *   by protecting the first page of each huge one for itself. The kernel makes no new ones of it, for where
 *   pages are protected it does not merge them.
 * - Merging of equal pages (KSM) forgets the protection: taken off these mappings.
 * In the end the page map is asked, once, whether each page is protected now.
 */
#include "wp_sync.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uffd.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define HUGE (UINT64_C(2) << 20)
#define AHEAD 16 /* pages to free ahead, at most */
#define BRIDGE 4 /* protecting so many pages again costs less than another call: 0.1 us each, against 0.9 */
#define MESSAGES 16

struct written {
	uint64_t start, pages;
	uint64_t *bits;
};

static struct {
	int fd, stop;
	pthread_t thread;
	pthread_mutex_t lock; /* the bits, and that they agree with the protection */
	unsigned int n;
	struct written block[AGENT_MAX_BLOCKS];
} sync_wp = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool test_bit(const struct written *b, uint64_t page)
{
	return b->bits[page / 64] >> page % 64 & 1;
}

static void set_bits(struct written *b, uint64_t page, uint64_t end)
{
	for (; page < end; page++)
		b->bits[page / 64] |= UINT64_C(1) << page % 64;
}

static void clear_bits(struct written *b, uint64_t page, uint64_t end)
{
	for (; page < end; page++)
		b->bits[page / 64] &= ~(UINT64_C(1) << page % 64);
}

static struct written *find(uint64_t address)
{
	for (unsigned int i = 0; i < sync_wp.n; i++)
		if (address - sync_wp.block[i].start < sync_wp.block[i].pages * PAGE)
			return &sync_wp.block[i];
	return NULL;
}

/* The kernel wants each range within one mapping (ENOENT else, before Linux 6.6): then in two halves. */
static int protect(uint64_t start, uint64_t len, uint64_t mode)
{
	struct uffd_protect p = { start, len, mode };
	uint64_t half = len / PAGE / 2 * PAGE;
	int ret;

	do {
		ret = ioctl(sync_wp.fd, UFFD_PROTECT_IOCTL, &p) < 0 ? -errno : 0;
	} while (ret == -EAGAIN || ret == -EINTR);
	if (ret != -ENOENT || !half)
		return ret;
	ret = protect(start, half, mode);
	return ret < 0 ? ret : protect(start + half, len - half, mode);
}

/* --- the thread --- */

/* As many as were written just below, so that at most half of what is sent was not written. */
static uint64_t ahead(const struct written *b, uint64_t page)
{
	uint64_t n = 0;

	while (n < AHEAD && n < page && n < b->pages - page - 1 && test_bit(b, page - 1 - n))
		n++;
	return n;
}

static void written(uint64_t address)
{
	struct uffd_range woken = { address & ~(uint64_t)(PAGE - 1), PAGE };
	struct written *b = find(address);
	uint64_t page, end;
	int ret = -EFAULT;

	if (b) {
		pthread_mutex_lock(&sync_wp.lock);
		page = (address - b->start) / PAGE;
		end = page + 1 + ahead(b, page);
		set_bits(b, page, end);
		ret = protect(b->start + page * PAGE, (end - page) * PAGE, 0);
		pthread_mutex_unlock(&sync_wp.lock);
	}
	/* It no longer is what was registered: let the writer go, it will fault in another way, or here again. */
	if (ret < 0)
		ioctl(sync_wp.fd, UFFD_WAKE_IOCTL, &woken);
}

static void *serve(void *unused)
{
	struct pollfd p[] = { { .fd = sync_wp.fd, .events = POLLIN }, { .fd = sync_wp.stop, .events = POLLIN } };
	struct uffd_message m[MESSAGES];
	ssize_t n;

	(void)unused;
	setpriority(PRIO_PROCESS, syscall(SYS_gettid), -20); /* a VM waits for each of its faults; best effort */
	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (p[1].revents)
			return NULL;
		n = read(sync_wp.fd, m, sizeof(m));
		for (ssize_t i = 0; i < n / (ssize_t)sizeof(*m); i++)
			if (m[i].event == UFFD_EVENT_PAGEFAULT)
				written(m[i].address);
	}
}

static int start_thread(void)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are QEMU's threads' */
	ret = -pthread_create(&sync_wp.thread, NULL, serve, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

/* --- arming --- */

static void free_bits(void)
{
	for (unsigned int i = 0; i < sync_wp.n; i++)
		free(sync_wp.block[i].bits);
	sync_wp.n = 0;
}

static int make_bits(const struct ram *ram)
{
	for (unsigned int i = 0; i < ram->n; i++) {
		struct written *b = &sync_wp.block[i];

		b->start = (uintptr_t)ram->block[i].host;
		b->pages = ram->block[i].size / PAGE;
		b->bits = calloc(b->pages / 64 + 1, sizeof(*b->bits));
		sync_wp.n = i + 1;
		if (!b->bits)
			return -ENOMEM;
	}
	return 0;
}

int wp_sync_start(int fd, const struct ram *ram, struct errtext *err)
{
	int ret = make_bits(ram);

	sync_wp.fd = fd;
	sync_wp.stop = eventfd(0, EFD_CLOEXEC);
	if (ret == 0 && sync_wp.stop < 0)
		ret = -errno;
	if (ret == 0)
		ret = start_thread();
	if (ret == 0)
		return 0;
	free_bits();
	if (sync_wp.stop >= 0)
		close(sync_wp.stop);
	return agent_fail(err, ret, "cannot track writes: %s", strerror(-ret));
}

void wp_sync_stop(void)
{
	eventfd_write(sync_wp.stop, 1);
	pthread_join(sync_wp.thread, NULL);
	close(sync_wp.stop);
	close(sync_wp.fd); /* takes all protection off and lets everybody go who waits */
	free_bits();
}

static int populate_hole(const struct ram_block *b, uint64_t start, uint64_t end, struct errtext *err)
{
	if (start == end || madvise((void *)(uintptr_t)start, end - start, MADV_POPULATE_READ) == 0)
		return 0;
	return agent_fail(err, -errno, "cannot track RAM block %s, populating it: %s", b->name, strerror(errno));
}

/* Map something protectable everywhere. Where there is something already the kernel need not look again. */
static int populate(const struct ram_block *b, struct errtext *err)
{
	static struct pagemap_iter it;
	uint64_t at = (uintptr_t)b->host;
	int n, ret = 0;

	pagemap_begin(&it, PAGEMAP_MAPPED, b->host, b->size);
	while ((n = pagemap_next(&it, err)) > 0)
		for (int i = 0; i < n; i++) {
			ret = populate_hole(b, at, it.region[i].start, err);
			if (ret < 0)
				return ret;
			at = it.region[i].end;
		}
	return n < 0 ? n : populate_hole(b, at, (uintptr_t)b->host + b->size, err);
}

/* What must not be done to these mappings any more, and what must be done before they can be protected. */
static int prepare(const struct ram_block *b, struct errtext *err)
{
	/* EINVAL: this kernel cannot merge pages */
	if (madvise(b->host, b->size, MADV_UNMERGEABLE) < 0 && errno != EINVAL)
		return agent_fail(err, -errno, "cannot track RAM block %s, whose pages were merged: %s", b->name,
				  strerror(errno));
	return b->anon && !b->image ? populate(b, err) : 0;
}

/* Split huge pages while they are not protected, and protect. */
static int protect_block(const struct ram_block *b)
{
	uint64_t at = (uintptr_t)b->host, end = at + b->size, next;
	int ret = 0;

	if (!b->anon || b->image)
		return protect(at, b->size, UFFD_PROTECT_WP);
	for (; at < end && ret == 0; at = next) {
		next = (at / HUGE + 1) * HUGE;
		if (next > end)
			next = end;
		ret = protect(at, PAGE, UFFD_PROTECT_WP);
		if (ret == 0 && next > at + PAGE)
			ret = protect(at + PAGE, next - at - PAGE, UFFD_PROTECT_WP);
	}
	return ret;
}

static int clean_block(const struct ram_block *b, struct written *w, struct errtext *err)
{
	int ret = prepare(b, err);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&sync_wp.lock);
	memset(w->bits, 0, (w->pages / 64 + 1) * sizeof(*w->bits));
	ret = protect_block(b);
	if (ret < 0)
		agent_fail(err, ret, "cannot write-protect RAM block %s: %s", b->name, strerror(-ret));
	else
		ret = pagemap_check_protected(b->host, b->size, err);
	pthread_mutex_unlock(&sync_wp.lock);
	return ret;
}

int wp_sync_clean(const struct ram *ram, struct errtext *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < ram->n && ret == 0; i++)
		ret = clean_block(&ram->block[i], &sync_wp.block[i], err);
	return ret;
}

/* --- harvest --- */

/* The next run of written pages from *page on; false: none is left. */
static bool next_run(const struct written *b, uint64_t *page, uint64_t *end, uint64_t last)
{
	uint64_t p = *page, word;

	while (p < last) {
		word = b->bits[p / 64] >> p % 64;
		if (word)
			break;
		p = (p / 64 + 1) * 64;
	}
	if (p < last)
		p += __builtin_ctzll(word);
	if (p >= last)
		return false;
	*page = p;
	while (p < last && test_bit(b, p))
		p++;
	*end = p;
	return true;
}

/* Protect the listed pages again, and with them what lies between and is protected anyway. */
static int protect_listed(const struct page_region *r, int n)
{
	int ret = 0;

	for (int i = 0, k; i < n && ret == 0; i = k) {
		for (k = i + 1; k < n && r[k].start - r[k - 1].end <= BRIDGE * PAGE; k++)
			;
		ret = protect(r[i].start, r[k - 1].end - r[i].start, UFFD_PROTECT_WP);
	}
	return ret;
}

static int take(struct written *b, struct pagemap_iter *it)
{
	uint64_t page = (it->at - b->start) / PAGE, last = (it->end - b->start) / PAGE, end;
	int n = 0, ret;

	while (n < PAGEMAP_BATCH && next_run(b, &page, &end, last)) {
		it->region[n++] = (struct page_region){ b->start + page * PAGE, b->start + end * PAGE, 0 };
		clear_bits(b, page, end);
		page = end;
	}
	it->at = n < PAGEMAP_BATCH ? it->end : it->region[n - 1].end;
	ret = protect_listed(it->region, n);
	return ret < 0 ? ret : n;
}

int wp_sync_next(struct pagemap_iter *it, struct errtext *err)
{
	struct written *b = find(it->at);
	int n;

	if (it->at >= it->end)
		return 0;
	if (!b || (it->end - b->start) / PAGE > b->pages)
		return agent_fail(err, -EINVAL, "this RAM is not being tracked");
	pthread_mutex_lock(&sync_wp.lock);
	n = take(b, it);
	pthread_mutex_unlock(&sync_wp.lock);
	if (n < 0)
		return agent_fail(err, n, "cannot write-protect RAM again: %s", strerror(-n));
	return n;
}
