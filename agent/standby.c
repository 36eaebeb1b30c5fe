/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * standby.c - the driver for documented interfaces of QEMU only
 *
 * Theory of operation
 *
 * The daemon stops the VM, saves, loads and runs it over QMP. A checkpoint is an ordinary migration
 * stream of a VM that stands still, and is loaded by a fresh QEMU that was started in advance, the
 * standby. RAM is not in the stream: QEMU has it in a file (a memfd of the daemon's) that it believes to be
 * shared with the other side, and the capability x-ignore-shared leaves such RAM out.
 *
 * What remains for the agent needs nothing of QEMU's: RAM is found in /proc/self/maps by the file's
 * device and inode. A view is made by mapping the same file privately at the same place, so that the
 * file is the image; QEMU goes on believing that it is shared, and so a survivor, whose RAM is
 * a view, can be a primary. What QEMU's main loop does meanwhile does no harm, as it touches no
 * RAM while the VM is stopped: so requests are carried out in the agent's thread.
 *
 * The other RAM blocks (firmware, video memory, ACPI tables) are in the migration stream.
 */
#include "standby.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "wp.h"

static struct {
	int fd; /* an open file of our own: the daemon's and QEMU's have their own position */
	dev_t dev;
	ino_t inode;
	uint64_t size;
	uint8_t *host; /* once found it stays: QEMU does not move its RAM */
} mem = { .fd = -1 };

/* --- finding RAM --- */

struct mapping {
	uint64_t start, end, offset;
	bool writable;
};

/* One line of /proc/self/maps: is it of our file? */
static bool parse_mapping(const char *line, struct mapping *m)
{
	unsigned int major, minor;
	uint64_t inode;
	char perms[5];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &m->start, &m->end, perms,
		   &m->offset, &major, &minor, &inode) != 7)
		return false;
	m->writable = perms[1] == 'w';
	return inode == mem.inode && makedev(major, minor) == mem.dev;
}

/*
 * QEMU's mapping of the whole file. It may be cut into several by what was done to parts of it (madvise()). An image
 * of ours would be found, too, so this is asked only before there is one.
 */
static int find_mapping(uint8_t **host, struct errtext *err)
{
	FILE *f = fopen("/proc/self/maps", "re");
	uint64_t start = 0, len = 0;
	struct mapping m;
	char line[512];

	if (!f)
		return agent_fail(err, -errno, "/proc/self/maps: %s", strerror(errno));
	while (len < mem.size && fgets(line, sizeof(line), f)) {
		if (!parse_mapping(line, &m) || !m.writable)
			continue;
		if (m.offset == 0) {
			start = m.start;
			len = 0;
		} else if (m.offset != len || m.start != start + len) {
			break;
		}
		len += m.end - m.start;
	}
	fclose(f);
	if (len < mem.size)
		return agent_fail(err, -ESTALE, "QEMU does not have its RAM in the file of ram=: "
				  "%" PRIu64 " of %" PRIu64 " bytes found", len, mem.size);
	*host = (uint8_t *)(uintptr_t)start;
	return 0;
}

static int standby_find_ram(struct ram *ram, struct errtext *err)
{
	struct ram_block *b = &ram->block[0];
	int ret = mem.host ? 0 : find_mapping(&mem.host, err);

	if (ret < 0)
		return ret;
	*b = (struct ram_block){ .name = "ram", .host = mem.host, .size = mem.size, .in_file = true,
				  .image_fd = mem.fd };
	ram->n = 1;
	return 0;
}

/* --- what the daemon does instead --- */

static int standby_probe(struct errtext *err)
{
	(void)err;
	return 0;
}

static void standby_call(void (*fn)(void *), void *opaque)
{
	fn(opaque);
}

/* The daemon refuses devices that give RAM back. */
static int standby_pin_ram(bool pin, struct errtext *err)
{
	(void)pin;
	(void)err;
	return 0;
}

/* The daemon has stopped the VM for whatever asks. */
static bool standby_running(void)
{
	return false;
}

static void standby_stop(bool replace)
{
	(void)replace;
}

static bool standby_hold(void)
{
	return false;
}

static int standby_cont(struct errtext *err)
{
	return agent_fail(err, -ENOSYS, "driver standby: the daemon runs the VM over QMP");
}

static int standby_save(int fd, uint64_t *len, struct errtext *err)
{
	(void)fd;
	(void)err;
	*len = 0; /* QEMU gave it to the daemon */
	return 0;
}

static int64_t standby_jit_flushes(void)
{
	return -1;
}

/* The daemon asks for clocks to be set only where it is. */
static bool standby_emulates_tsc(void)
{
#ifdef __x86_64__
	return true;
#else
	return false;
#endif
}

/* Without load(), reset() and QEMU's clock: requests that need them are refused (ops.c). */
static const struct driver standby = {
	.name = "standby",
	.by_qmp = true,
	.probe = standby_probe,
	.attach = standby_probe,
	.call = standby_call,
	.find_ram = standby_find_ram,
	.pin_ram = standby_pin_ram,
	.running = standby_running,
	.stop = standby_stop,
	.hold = standby_hold,
	.cont = standby_cont,
	.save = standby_save,
	.emulates_tsc = standby_emulates_tsc,
	.jit_flushes = standby_jit_flushes,
};

const struct driver *standby_open(int fd, struct errtext *err)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	mem.fd = open(path, O_RDWR | O_CLOEXEC);
	if (mem.fd < 0 || fstat(mem.fd, &st) < 0) {
		agent_fail(err, -errno, "the file of ram=: %s", strerror(errno));
		return NULL;
	}
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size % PAGE) {
		agent_fail(err, -EINVAL, "the file of ram= has %lld bytes", (long long)st.st_size);
		return NULL;
	}
	mem.dev = st.st_dev;
	mem.inode = st.st_ino;
	mem.size = st.st_size;
	return &standby;
}

/* --- SELFTEST --- */

/* Exactly the pages @first and @last of RAM are listed as written. */
static int check_listed(const struct ram_block *b, const uint8_t *first, const uint8_t *last, struct errtext *err)
{
	static struct pagemap_iter it;
	uint64_t pages = 0, want = first == last ? 1 : 2;
	bool right = true;
	int n;

	wp_begin(&it, WP_WRITTEN, b);
	while ((n = wp_next(&it, err)) > 0)
		for (int i = 0; i < n; i++) {
			for (uint64_t at = it.region[i].start; at < it.region[i].end; at += PAGE, pages++)
				right &= at == (uintptr_t)first || at == (uintptr_t)last;
		}
	if (n < 0)
		return n;
	if (pages != want || !right)
		return agent_fail(err, -EILSEQ, "self-test: %" PRIu64 " pages listed as written, %" PRIu64 " were", pages,
				  want);
	return 0;
}

int standby_selftest(struct errtext *err)
{
	static struct ram ram;
	uint8_t *first, *last;
	int ret = standby_find_ram(&ram, err);

	if (ret == 0)
		ret = wp_arm(&ram, err);
	if (ret < 0)
		return ret;
	first = ram.block[0].host;
	last = first + ram.block[0].size - PAGE;
	/* writes that change nothing */
	*(volatile uint8_t *)first = *(volatile uint8_t *)first;
	*(volatile uint8_t *)last = *(volatile uint8_t *)last;
	ret = check_listed(&ram.block[0], first, last, err);
	wp_disarm();
	return ret;
}
