/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * wp.c - userfaultfd write protection in asynchronous mode
 *
 * The kernel resolves the write faults by itself and only notes that the page was written;
 * PAGEMAP_SCAN lists those pages and protects them again in the same step. So a page costs one
 * fault per epoch, and nobody has to read events. It sees every write there is: vCPUs, device
 * emulation, system calls into guest RAM. (A device that pins guest memory for long, such as VFIO,
 * would escape it; those cannot be protected anyway.)
 */
#include "wp.h"

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

static int armed = -1; /* the userfaultfd */

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

int wp_clean(const struct ram *ram, struct errtext *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < ram->n && ret == 0; i++)
		ret = pagemap_clean(ram->block[i].host, ram->block[i].size, err);
	return ret;
}

int wp_arm(const struct ram *ram, struct errtext *err)
{
	int ret;

	if (armed >= 0)
		return 0;
	armed = uffd_open(err);
	if (armed < 0)
		return armed;
	ret = register_blocks(armed, ram, err);
	if (ret < 0)
		wp_disarm();
	return ret;
}

void wp_disarm(void)
{
	if (armed >= 0)
		close(armed); /* unregisters everything */
	armed = -1;
}
