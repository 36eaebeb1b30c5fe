/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pagemap.c - PAGEMAP_SCAN (Linux 6.7), and the choice of what takes its place where it is missing. The
 * definitions are repeated here because distributions' headers are older than the kernels they are
 * used with.
 */
#include "pagemap_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

_Static_assert(sizeof(struct scan_arg) == 96, "struct pm_scan_arg of the kernel");

#define SCAN _IOWR('f', 16, struct scan_arg)
#define SCAN_WP_MATCHING 1u
#define SCAN_CHECK_WPASYNC 2u

#define IS_WRITTEN (1u << 1)
#define IS_FILE (1u << 2)
#define IS_PRESENT (1u << 3)
#define IS_SWAPPED (1u << 4)
#define IS_PFNZERO (1u << 5)

/* WRITTEN must stay alone in mask and return mask: the kernel has a fast path for just that. */
static const struct scan_arg conditions[] = {
	[PAGEMAP_DIRTY] = {
		.flags = SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC,
		.category_mask = IS_WRITTEN, .return_mask = IS_WRITTEN,
	},
	[PAGEMAP_PRIVATE] = {
		.category_mask = IS_FILE, .category_inverted = IS_FILE,
		.category_anyof_mask = IS_PRESENT, .return_mask = IS_PRESENT,
	},
	[PAGEMAP_MAPPED] = {
		.category_mask = IS_PFNZERO, .category_inverted = IS_PFNZERO,
		.category_anyof_mask = IS_PRESENT | IS_SWAPPED, .return_mask = IS_PRESENT,
	},
};

static bool avoid_scan;

void pagemap_avoid_scan(void)
{
	avoid_scan = true;
}

int pagemap_fd(struct errtext *err)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return agent_fail(err, -errno, "cannot open /proc/self/pagemap: %s",
				  strerror(errno));
	return fd;
}

static int scan(struct scan_arg *arg, struct errtext *err)
{
	int fd = pagemap_fd(err);
	int n;

	if (fd < 0)
		return fd;
	do {
		n = ioctl(fd, SCAN, arg);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == ENOTTY)
		return agent_fail(err, -ENOTTY, "the kernel has no PAGEMAP_SCAN");
	return agent_fail(err, -errno, "PAGEMAP_SCAN failed: %s", strerror(errno));
}

void pagemap_begin(struct pagemap_iter *it, enum pagemap_what what, const void *addr, uint64_t len)
{
	it->what = what;
	it->at = (uintptr_t)addr;
	it->end = it->at + len;
}

static int scan_next(struct pagemap_iter *it, struct errtext *err)
{
	/* A call may end early without a match (it->at has moved on then): go on until the end. */
	while (it->at < it->end) {
		struct scan_arg arg = conditions[it->what];
		int n;

		arg.size = sizeof(arg);
		arg.start = it->at;
		arg.end = it->end;
		arg.vec = (uintptr_t)it->region;
		arg.vec_len = PAGEMAP_BATCH;
		n = scan(&arg, err);
		if (n < 0)
			return n;
		if (n == 0 && arg.walk_end <= it->at)
			return agent_fail(err, -EIO, "PAGEMAP_SCAN does not advance");
		it->at = arg.walk_end;
		/* The kernel (6.7 to 6.18 at least) fills its own buffer of 512 regions; if it had to empty it, the
		 * end it tells may be where it did so last, and not the end of what it has looked at. */
		if (n > 0 && it->region[n - 1].end > it->at)
			it->at = it->region[n - 1].end;
		if (n > 0)
			return n;
	}
	return 0;
}

int pagemap_next(struct pagemap_iter *it, struct errtext *err)
{
	if (!avoid_scan && it->what != PAGEMAP_COPIED) {
		int n = scan_next(it, err);

		if (n != -ENOTTY)
			return n;
		avoid_scan = true;
	}
	return pagemap_read_next(it, err);
}

int pagemap_clean(const void *addr, uint64_t len, struct errtext *err)
{
	uint64_t at = (uintptr_t)addr, end = at + len;

	while (at < end) {
		struct scan_arg arg = conditions[PAGEMAP_DIRTY];
		int n;

		arg.size = sizeof(arg);
		arg.start = at;
		arg.end = end;
		n = scan(&arg, err);
		if (n < 0)
			return n;
		if (arg.walk_end <= at)
			return agent_fail(err, -EIO, "PAGEMAP_SCAN does not advance");
		at = arg.walk_end;
	}
	return 0;
}
