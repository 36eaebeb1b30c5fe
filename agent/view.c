/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * view.c - guest RAM as a private mapping of an image
 *
 * Each block gets a memfd, the image, which holds RAM as of the last checkpoint. It is mapped
 * twice: shared, where checkpoints are applied, and private, at the very address QEMU knows the block by,
 * where the guest runs. A page the guest writes is copied and stays private; dropping it
 * (MADV_DONTNEED) brings the image's page back. A page it never wrote *is* the image's, so what is
 * applied there needs no copy into the guest. RAM therefore exists once, plus the divergence. With driver
 * standby RAM is in a file from the beginning, and that file is the image.
 *
 * Which pages are private is told by write protection (wp.c) if that is asynchronous, because asking the kernel
 * for pages that are not the file's looks at every mapped page's descriptor: 40 ns a page against 2. The
 * slow question then serves tests, to check that the answer is the same.
 */
#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "jit.h"
#include "pagemap.h"
#include "wp.h"

#define PUNCH_MIN 64 /* zero runs of this many pages are punched, shorter ones written */

static struct {
	struct pagemap_iter it;
	struct iovec iov[1024];
	bool one_by_one; /* process_madvise() cannot drop pages here (Linux before 6.13) */
} view;

static bool page_is_zero(const uint8_t *p)
{
	return p[0] == 0 && memcmp(p, p + 1, PAGE - 1) == 0;
}

static int write_image(int fd, const uint8_t *from, uint64_t len, uint64_t at)
{
	while (len) {
		ssize_t n = pwrite(fd, from, len, at);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		from += n;
		at += n;
		len -= n;
	}
	return 0;
}

/* copy a range of a block into its image, zero pages left out */
static int copy_range(const struct ram_block *b, uint64_t at, uint64_t end)
{
	while (at < end) {
		uint64_t from = at;
		int ret;

		while (at < end && !page_is_zero(b->host + at))
			at += PAGE;
		if (at > from) {
			ret = write_image(b->image_fd, b->host + from, at - from, from);
			if (ret < 0)
				return ret;
		}
		while (at < end && page_is_zero(b->host + at))
			at += PAGE;
	}
	return 0;
}

static int copy_block(const struct ram_block *b, struct errtext *err)
{
	struct pagemap_iter *it = &view.it;
	int ret = 0, n;

	if (!b->anon) {
		ret = copy_range(b, 0, b->size);
		if (ret < 0)
			agent_fail(err, ret, "image of %s: %s", b->name, strerror(-ret));
		return ret;
	}
	pagemap_begin(it, PAGEMAP_MAPPED, b->host, b->size);
	while ((n = pagemap_next(it, err)) > 0)
		for (int i = 0; i < n; i++) {
			ret = copy_range(b, it->region[i].start - (uintptr_t)b->host,
					 it->region[i].end - (uintptr_t)b->host);
			if (ret < 0)
				return agent_fail(err, ret, "image of %s: %s", b->name,
						  strerror(-ret));
		}
	return n;
}

static int make_image(struct ram_block *b, struct errtext *err)
{
	void *image;

	if (!b->in_file)
		b->image_fd = memfd_create(b->name, MFD_CLOEXEC);
	if (b->image_fd < 0 || (!b->in_file && ftruncate(b->image_fd, b->size) < 0))
		return agent_fail(err, -errno, "image of %s: %s", b->name, strerror(errno));
	image = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_SHARED, b->image_fd, 0);
	if (image == MAP_FAILED)
		return agent_fail(err, -errno, "image of %s: %s", b->name, strerror(errno));
	b->image = image;
	return b->in_file ? 0 : copy_block(b, err);
}

static int map_view(const struct ram_block *b, struct errtext *err)
{
	void *p = mmap(b->host, b->size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, b->image_fd, 0);

	if (p != b->host)
		return agent_fail(err, -errno, "view of %s: %s", b->name, strerror(errno));
	madvise(p, b->size, MADV_DONTFORK); /* as QEMU does for guest RAM; failure is harmless */
	return 0;
}

static void drop_image(struct ram_block *b)
{
	if (b->image)
		munmap(b->image, b->size);
	if (b->image_fd >= 0 && !b->in_file)
		close(b->image_fd);
	b->image = NULL;
	if (!b->in_file)
		b->image_fd = -1;
}

/* Block by block, so that at no time two copies of all RAM exist. */
int view_create(struct ram *ram, struct errtext *err)
{
	int ret;

	for (unsigned int i = 0; i < ram->n; i++) {
		struct ram_block *b = &ram->block[i];

		if (b->image)
			continue; /* an earlier attempt got this far */
		ret = make_image(b, err);
		if (ret == 0)
			ret = map_view(b, err);
		if (ret < 0) {
			drop_image(b);
			return ret;
		}
	}
	return wp_arm_view(ram, err);
}

static int drop_one_by_one(const struct iovec *iov, int n, struct errtext *err)
{
	for (int i = 0; i < n; i++)
		if (madvise(iov[i].iov_base, iov[i].iov_len, MADV_DONTNEED) < 0)
			return agent_fail(err, -errno, "cannot drop private pages: %s",
					  strerror(errno));
	return 0;
}

static size_t total(const struct iovec *iov, int n)
{
	size_t len = 0;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

static int drop_batch(const struct iovec *iov, int n, struct errtext *err)
{
	static int pidfd = -1;

	if (pidfd < 0)
		pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	if (pidfd < 0)
		view.one_by_one = true;
	if (!view.one_by_one) {
		ssize_t done = syscall(SYS_process_madvise, pidfd, iov, n, MADV_DONTNEED, 0);

		if (done >= 0 && (size_t)done == total(iov, n))
			return 0;
		if (done < 0)
			view.one_by_one = true;
	}
	/* dropping what was dropped already does no harm */
	return drop_one_by_one(iov, n, err);
}

static int drop_block(const struct ram_block *b, uint64_t *dropped, struct errtext *err)
{
	struct pagemap_iter *it = &view.it;
	int n;

	wp_begin(it, WP_COPIED, b);
	while ((n = wp_next(it, err)) > 0)
		for (int i = 0; i < n; ) {
			int k = 0, ret;

			for (; i < n && k < 1024; i++, k++) {
				view.iov[k].iov_base = (void *)(uintptr_t)it->region[i].start;
				view.iov[k].iov_len = it->region[i].end - it->region[i].start;
				jit_changed(b, (uint8_t *)view.iov[k].iov_base - b->host,
					    view.iov[k].iov_len);
			}
			ret = drop_batch(view.iov, k, err);
			if (ret < 0)
				return ret;
			*dropped += total(view.iov, k) / PAGE;
		}
	return n;
}

int view_drop(const struct ram *ram, uint64_t *dropped, struct errtext *err)
{
	int ret = 0;

	if (FAILPOINT_SKIP("skip-drop"))
		return 0;
	for (unsigned int i = 0; i < ram->n && ret == 0; i++)
		ret = drop_block(&ram->block[i], dropped, err);
	return ret;
}

int view_check(const struct ram *ram, struct errtext *err)
{
	for (unsigned int i = 0; i < ram->n; i++) {
		const struct ram_block *b = &ram->block[i];
		int n;

		pagemap_begin(&view.it, PAGEMAP_PRIVATE, b->host, b->size);
		n = pagemap_next(&view.it, err);
		if (n < 0)
			return n;
		if (n > 0)
			return agent_fail(err, -EILSEQ, "%s: page at %#llx is private, not dropped",
					  b->name, (unsigned long long)(view.it.region[0].start -
					  (uintptr_t)b->host));
	}
	return 0;
}

/*
 * A standby is a process that has just begun: each page of its mapping of the image would cost a fault, which writing
 * to the file does not.
 */
static int write_run(const struct ram_block *b, const struct stage_run *run)
{
	static const uint8_t zeroes[PUNCH_MIN * PAGE];
	uint64_t len = run->npages * PAGE, done = 0;
	int ret = 0;

	if (run->data)
		return write_image(b->image_fd, run->data, len, run->offset);
	if (run->npages >= PUNCH_MIN &&
	    fallocate(b->image_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, run->offset, len) == 0)
		return 0;
	for (; done < len && ret == 0; done += sizeof(zeroes))
		ret = write_image(b->image_fd, zeroes, len - done < sizeof(zeroes) ? len - done : sizeof(zeroes),
				  run->offset + done);
	return ret;
}

static void zero_run(const struct ram_block *b, uint64_t offset, uint64_t len)
{
	if (len >= PUNCH_MIN * PAGE &&
	    fallocate(b->image_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len) == 0)
		return;
	memset(b->image + offset, 0, len);
}

int view_apply(const struct ram *ram, struct stage_reader *r, uint64_t *applied, struct errtext *err)
{
	struct stage_run run;
	int ret = 0;

	while (stage_next(r, &run)) {
		const struct ram_block *b = &ram->block[run.block];

		if (b->in_file)
			ret = write_run(b, &run);
		else if (run.data)
			memcpy(b->image + run.offset, run.data, run.npages * PAGE);
		else
			zero_run(b, run.offset, run.npages * PAGE);
		if (ret < 0)
			return agent_fail(err, ret, "image of %s: %s", b->name, strerror(-ret));
		jit_changed(b, run.offset, run.npages * PAGE);
		*applied += run.npages;
	}
	return 0;
}
