/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * wp.c - userfaultfd write protection: which way, and the asynchronous one
 *
 * Asynchronous (Linux 6.7): the kernel resolves the write faults by itself and only notes that the page was
 * written; PAGEMAP_SCAN lists those pages and protects them again in the same step. So a page costs one
 * fault per epoch, and nobody has to read events.
 *
 * Synchronous (Linux 5.19): each first write waits until a thread of ours has noted it, see wp_sync.c.
 *
 * Both see every write there is: vCPUs, device emulation, system calls into guest RAM. (A device that
 * pins guest memory for long, such as VFIO, would escape; those cannot be protected anyway.)
 *
 * An SVM's view needs no protection to be dropped, as the page map tells which pages are private. That takes
 * a look at every page, so that where protection is cheap (asynchronous) it is what tells; where each
 * first write has its price, the look at all pages is the cheaper one, and the guest runs unhindered.
 */
#include "wp.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "uffd.h"
#include "wp_sync.h"

enum way { AUTO, ASYNC, SYNC };

static const char *const names[] = { "auto", "async", "sync" };
static const uint64_t features[] = {
	[ASYNC] = UFFD_WP | UFFD_WP_SHMEM | UFFD_WP_UNPOPULATED | UFFD_WP_ASYNC,
	[SYNC] = UFFD_WP | UFFD_WP_SHMEM,
};

static struct {
	enum way wanted, way;
	int fd; /* armed, asynchronous */
	bool sync; /* armed, synchronous */
} wp = { .fd = -1 };

int wp_choose(const char *name)
{
	for (int i = 0; i < 3; i++)
		if (!strcmp(name, names[i])) {
			wp.wanted = i;
			return 0;
		}
	return -EINVAL;
}

const char *wp_way(void)
{
	return names[wp.way];
}

static int too_old(struct errtext *err, const char *missing)
{
	const char *version = wp.wanted == ASYNC ? "6.7" : "5.19";
	struct utsname u;

	uname(&u);
	return agent_fail(err, -EOPNOTSUPP, "the kernel has no %s: Linux %s or later is needed, this is %s %s",
			  missing, version, u.sysname, u.release);
}

/*
 * Privileged or, if @user_mode, the kind that is for everybody and sees no system calls' faults. An asynchronous fault
 * never leaves the kernel, so that kind is enough there.
 */
static int uffd_open(bool user_mode)
{
	int flags = O_CLOEXEC | O_NONBLOCK | (user_mode ? UFFD_USER_MODE : 0);
	int fd = syscall(SYS_userfaultfd, flags), dev;

	if (fd >= 0 || errno != EPERM || user_mode)
		return fd < 0 ? -errno : fd;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -EPERM;
	fd = ioctl(dev, UFFD_NEW_IOCTL, flags);
	close(dev);
	return fd < 0 ? -EPERM : fd;
}

static int uffd_with(uint64_t wanted, bool user_mode)
{
	struct uffd_api api = { .api = UFFD_API_MAGIC, .features = wanted };
	int fd = uffd_open(user_mode);

	if (fd < 0 || ioctl(fd, UFFD_API_IOCTL, &api) == 0)
		return fd;
	close(fd);
	return -EOPNOTSUPP;
}

/* Asynchronous where it is possible; wp.way is how it went. */
static int uffd_any(void)
{
	int fd = -EOPNOTSUPP;

	wp.way = ASYNC;
	if (wp.wanted != SYNC)
		fd = uffd_with(features[ASYNC], false);
	if (fd == -EPERM)
		fd = uffd_with(features[ASYNC], true);
	if (fd >= 0 || wp.wanted == ASYNC)
		return fd;
	wp.way = SYNC;
	return uffd_with(features[SYNC], false);
}

static int uffd_chosen(struct errtext *err)
{
	int fd = uffd_any();

	if (fd == -ENOSYS)
		return too_old(err, "userfaultfd");
	if (fd == -EOPNOTSUPP)
		return too_old(err, wp.wanted == ASYNC ? "asynchronous userfaultfd write protection"
						       : "userfaultfd write protection of shared memory");
	if (fd == -EPERM)
		return agent_fail(err, fd, "userfaultfd: not permitted. Before Linux 6.7 QEMU must run as root, or may "
				  "open /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd is 1");
	if (fd < 0)
		return agent_fail(err, fd, "userfaultfd: %s", strerror(-fd));
	if (wp.way == SYNC)
		pagemap_avoid_scan();
	return fd;
}

int wp_probe(struct errtext *err)
{
	int fd = uffd_chosen(err);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
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

int wp_clean(const struct ram *ram, struct errtext *err)
{
	int ret = 0;

	if (wp.sync)
		return wp_sync_clean(ram, err);
	for (unsigned int i = 0; wp.fd >= 0 && i < ram->n && ret == 0; i++)
		ret = pagemap_clean(ram->block[i].host, ram->block[i].size, err);
	return ret;
}

static int arm(const struct ram *ram, struct errtext *err)
{
	int fd = uffd_chosen(err), ret;

	if (fd < 0)
		return fd;
	ret = register_blocks(fd, ram, err);
	if (ret == 0 && wp.way == SYNC) {
		ret = wp_sync_start(fd, ram, err);
		wp.sync = ret == 0;
	} else if (ret == 0) {
		wp.fd = fd;
	}
	if (ret < 0)
		close(fd); /* unregisters everything */
	return ret;
}

int wp_arm(const struct ram *ram, struct errtext *err)
{
	bool armed = wp.fd >= 0 || wp.sync;
	int ret = armed ? 0 : arm(ram, err);

	if (ret == 0)
		ret = wp_clean(ram, err);
	if (ret < 0 && !armed)
		wp_disarm();
	return ret;
}

int wp_arm_view(const struct ram *ram, struct errtext *err)
{
	int ret = wp_probe(err);

	return ret < 0 || wp.way == SYNC ? ret : wp_arm(ram, err);
}

void wp_disarm(void)
{
	if (wp.sync)
		wp_sync_stop();
	if (wp.fd >= 0)
		close(wp.fd);
	wp.sync = false;
	wp.fd = -1;
}

void wp_begin(struct pagemap_iter *it, enum wp_list list, const struct ram_block *b)
{
	pagemap_begin(it, wp.way == SYNC && list == WP_COPIED ? PAGEMAP_COPIED : PAGEMAP_DIRTY, b->host, b->size);
}

int wp_next(struct pagemap_iter *it, struct errtext *err)
{
	return wp.sync && it->what == PAGEMAP_DIRTY ? wp_sync_next(it, err) : pagemap_next(it, err);
}
