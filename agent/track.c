/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * track.c - dirty tracking by userfaultfd write protection in asynchronous mode
 *
 * The kernel resolves the write faults by itself and only notes that the page was written;
 * PAGEMAP_SCAN lists those pages and protects them again in the same step. So a page costs one
 * fault per epoch, and nobody has to read events. It sees every write there is: vCPUs, device
 * emulation, system calls into guest RAM.
 */
#include "track.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pagemap.h"

struct uffd_api {
	uint64_t api, features, ioctls;
};

struct uffd_register {
	uint64_t start, len, mode, ioctls;
};

#define UFFD_API_MAGIC 0xAA
#define UFFD_API_IOCTL _IOWR(0xAA, 0x3F, struct uffd_api)
#define UFFD_REGISTER_IOCTL _IOWR(0xAA, 0x00, struct uffd_register)
#define UFFD_REGISTER_WP 2
#define UFFD_USER_MODE 1
#define FEATURE_WP (1ull << 0)
#define FEATURE_WP_SHMEM (1ull << 12)
#define FEATURE_WP_UNPOPULATED (1ull << 13)
#define FEATURE_WP_ASYNC (1ull << 15)

static struct {
	int fd;
	bool all_dirty; /* a harvest failed half way: what was written is no longer known */
	struct pagemap_iter it;
} track = { .fd = -1 };

static int uffd_open(struct errtext *err)
{
	struct uffd_api api = {
		.api = UFFD_API_MAGIC,
		.features = FEATURE_WP | FEATURE_WP_SHMEM | FEATURE_WP_UNPOPULATED |
			    FEATURE_WP_ASYNC,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	/* Unprivileged processes may have the user-mode kind; asynchronous faults never leave
	 * the kernel, so that one sees all writes, too. */
	if (fd < 0 && errno == EPERM)
		fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE);
	if (fd < 0 && errno == ENOSYS)
		return pagemap_too_old(err, "userfaultfd");
	if (fd < 0)
		return agent_fail(err, -errno, "userfaultfd: %s", strerror(errno));
	if (ioctl(fd, UFFD_API_IOCTL, &api) < 0) {
		close(fd);
		return pagemap_too_old(err, "asynchronous userfaultfd write protection");
	}
	return fd;
}

static int register_blocks(int fd, const struct ram *ram, struct errtext *err)
{
	for (unsigned int i = 0; i < ram->n; i++) {
		struct uffd_register reg = {
			.start = (uintptr_t)ram->block[i].host,
			.len = ram->block[i].size,
			.mode = UFFD_REGISTER_WP,
		};

		if (ioctl(fd, UFFD_REGISTER_IOCTL, &reg) < 0)
			return agent_fail(err, -errno, "cannot track RAM block %s: %s",
					  ram->block[i].name, strerror(errno));
	}
	return 0;
}

static int clean_all(const struct ram *ram, struct errtext *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < ram->n && ret == 0; i++)
		ret = pagemap_clean(ram->block[i].host, ram->block[i].size, err);
	return ret;
}

int track_start(const struct ram *ram, struct errtext *err)
{
	bool fresh = track.fd < 0;
	int ret;

	if (fresh) {
		int fd = uffd_open(err);

		if (fd < 0)
			return fd;
		track.fd = fd;
		ret = register_blocks(fd, ram, err);
		if (ret < 0) {
			track_stop();
			return ret;
		}
	}
	ret = clean_all(ram, err);
	track.all_dirty = ret < 0;
	if (ret < 0 && fresh)
		track_stop();
	return ret;
}

void track_stop(void)
{
	if (track.fd >= 0)
		close(track.fd); /* unregisters everything */
	track.fd = -1;
}

bool track_active(void)
{
	return track.fd >= 0;
}

static int harvest_block(const struct ram_block *b, uint32_t index, struct stage_writer *w,
			 struct track_times *times, struct errtext *err)
{
	struct pagemap_iter *it = &track.it;
	int64_t t = now_ns();
	int n;

	pagemap_begin(it, PAGEMAP_DIRTY, b->host, b->size);
	while ((n = pagemap_next(it, err)) > 0) {
		int64_t scanned = now_ns();

		for (int i = 0; i < n; i++) {
			const uint8_t *from = (const uint8_t *)(uintptr_t)it->region[i].start;

			if (stage_add(w, index, from - b->host, from,
				      (it->region[i].end - it->region[i].start) / PAGE) < 0)
				return agent_fail(err, -ENOSPC, "staging area full");
		}
		times->scan_ns += scanned - t;
		t = now_ns();
		times->copy_ns += t - scanned;
	}
	times->scan_ns += now_ns() - t;
	return n;
}

static int harvest_all(const struct ram *ram, struct stage_writer *w, struct track_times *times,
		       struct errtext *err)
{
	int64_t t = now_ns();
	int ret = clean_all(ram, err);

	times->scan_ns = now_ns() - t;
	for (unsigned int i = 0; i < ram->n && ret == 0; i++) {
		const struct ram_block *b = &ram->block[i];

		ret = stage_add(w, i, 0, b->host, b->size / PAGE);
	}
	times->copy_ns = now_ns() - t - times->scan_ns;
	return ret;
}

int track_harvest(const struct ram *ram, struct stage_writer *w, struct track_times *times,
		  struct errtext *err)
{
	int ret = 0;

	*times = (struct track_times){ 0 };
	if (track.all_dirty)
		ret = harvest_all(ram, w, times, err);
	else
		for (unsigned int i = 0; i < ram->n && ret == 0; i++)
			ret = harvest_block(&ram->block[i], i, w, times, err);
	track.all_dirty = ret < 0;
	return ret;
}
