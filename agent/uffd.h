/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * uffd.h - userfaultfd's interface, as far as write protection needs it
 *
 * Repeated here because distributions' headers are older than the kernels they are used with.
 */
#ifndef COLO_AGENT_UFFD_H
#define COLO_AGENT_UFFD_H

#include <assert.h>
#include <stdint.h>
#include <sys/ioctl.h>

struct uffd_api {
	uint64_t api, features, ioctls;
};

struct uffd_register {
	uint64_t start, len, mode, ioctls;
};

struct uffd_range {
	uint64_t start, len;
};

struct uffd_protect {
	uint64_t start, len, mode;
};

struct uffd_message {
	uint8_t event, reserved[7];
	uint64_t flags, address, thread;
};

static_assert(sizeof(struct uffd_message) == 32, "struct uffd_msg of the kernel");

#define UFFD_API_MAGIC 0xAA
#define UFFD_NEW_IOCTL _IO(0xAA, 0x00) /* on /dev/userfaultfd, Linux 6.1 */
#define UFFD_API_IOCTL _IOWR(0xAA, 0x3F, struct uffd_api)
#define UFFD_REGISTER_IOCTL _IOWR(0xAA, 0x00, struct uffd_register)
#define UFFD_WAKE_IOCTL _IOR(0xAA, 0x02, struct uffd_range)
#define UFFD_PROTECT_IOCTL _IOWR(0xAA, 0x06, struct uffd_protect)
#define UFFD_REGISTER_WP 2
#define UFFD_PROTECT_WP 1
#define UFFD_USER_MODE 1
#define UFFD_EVENT_PAGEFAULT 0x12

#define UFFD_WP (1ull << 0)
#define UFFD_WP_SHMEM (1ull << 12)       /* Linux 5.19 */
#define UFFD_WP_UNPOPULATED (1ull << 13) /* Linux 6.4 */
#define UFFD_WP_ASYNC (1ull << 15)       /* Linux 6.7 */

#endif
