/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_disk.c - what the other disk manager says over the DISK channel
 *
 * Storage and cache are stubs that judge what would be written: never beyond the disk.
 */
#include "disk/link_recv.c"

#include <unistd.h>

#define CHECK(cond) do { if (!(cond)) abort(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DISK = 1 << 20 };

static bool failed;
static void *reserved;
static uint64_t last_mark;

static void check_range(uint64_t off, uint64_t len)
{
	CHECK(len && off <= DISK && len <= DISK - off);
}

void link_fail(struct disk *d, const char *fmt, ...)
{
	(void)d, (void)fmt;
	failed = true;
}

void link_poll(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	poll(&p, 1, 10);
}

int control_event(struct disk *d, uint32_t op, uint64_t epoch, bool wait, const char *text)
{
	(void)d, (void)op, (void)epoch, (void)wait, (void)text;
	return 0;
}

void disk_storage_error(struct disk *d, int r, const char *doing)
{
	(void)d, (void)r, (void)doing;
}

const char *disk_strerror(int r)
{
	(void)r;
	return "";
}

void bitmap_note(struct bitmap *b, uint64_t off, uint64_t len)
{
	(void)b;
	check_range(off, len);
}

int storage_write(struct storage *s, const void *buf, size_t len, uint64_t off)
{
	const volatile char *p = buf;

	(void)s;
	check_range(off, len);
	for (size_t i = 0; i < len; i++)
		(void)p[i];
	return 0;
}

int storage_zero(struct storage *s, uint64_t len, uint64_t off, bool punch)
{
	(void)s, (void)punch;
	check_range(off, len);
	return 0;
}

int pvm_cache_reserve(struct pvm_cache *c, uint32_t len, void **data)
{
	(void)c;
	free(reserved);
	*data = reserved = malloc(len ? len : 1);
	return reserved ? 0 : -ENOMEM;
}

bool pvm_cache_append(struct pvm_cache *c, uint64_t off, uint32_t len, bool with_data)
{
	(void)c, (void)with_data;
	check_range(off, len);
	return false;
}

int pvm_cache_mark(struct pvm_cache *c, uint64_t epoch)
{
	(void)c;
	if (epoch <= last_mark)
		return -EPROTO;
	last_mark = epoch;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct disk d;
	int fd[2];

	if (!size || size > 100000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		return 0;
	d.storage.size = DISK;
	d.link.fd = fd[0];
	d.link.direct = data[0] & 1;
	failed = false;
	last_mark = 0;
	if (send(fd[1], data + 1, size - 1, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size - 1)
		CHECK(size == 1);
	close(fd[1]);
	link_receiver(&d);
	CHECK(failed);
	close(fd[0]);
	free(reserved);
	reserved = NULL;
	return 0;
}
