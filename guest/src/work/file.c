// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * File writer: in each round one of a few files is read back from the disk, not from the page
 * cache, checked against what was written last, and then written anew and synced.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "work.h"

#define DIRECTORY "/var/lib/colo-guest-work"
#define FILES 8
#define BLOCK 4096
#define WORDS (BLOCK / sizeof(uint64_t))

struct files {
	uint32_t seqs[FILES];	/* 0: not written yet */
	long blocks;
};

static void block_fill(uint64_t *words, unsigned int file, long block, uint32_t seq)
{
	for (size_t i = 0; i < WORDS; i++)
		words[i] = work_mix((uint64_t)file << 48 | (uint64_t)block << 16 | i, seq);
}

static int file_open(unsigned int file, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), DIRECTORY "/%u", file);
	return open(path, flags | O_CLOEXEC, 0644);
}

static void file_check(struct worker *w, struct files *f, unsigned int file)
{
	uint64_t want[WORDS], got[WORDS];
	int fd = file_open(file, O_RDONLY);

	if (fd < 0) {
		work_corrupt(w, "file %u cannot be opened: %s", file, strerror(errno));
		return;
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	for (long block = 0; block < f->blocks; block++) {
		ssize_t n = pread(fd, got, BLOCK, block * BLOCK);

		block_fill(want, file, block, f->seqs[file]);
		if (n == BLOCK && !memcmp(got, want, BLOCK))
			continue;
		work_corrupt(w, "file %u block %ld seq %u: read %zd, first word %016lx, "
			     "expected %016lx", file, block, f->seqs[file], n, got[0], want[0]);
		break;
	}
	close(fd);
}

static int file_write(struct files *f, unsigned int file)
{
	uint64_t words[WORDS];
	int fd = file_open(file, O_WRONLY | O_CREAT);
	int ret = fd < 0 ? -errno : 0;

	for (long block = 0; !ret && block < f->blocks; block++) {
		block_fill(words, file, block, f->seqs[file] + 1);
		if (pwrite(fd, words, BLOCK, block * BLOCK) != BLOCK)
			ret = -EIO;
	}
	if (!ret && fdatasync(fd))
		ret = -errno;
	if (!ret)
		f->seqs[file]++;
	if (fd >= 0)
		close(fd);
	return ret;
}

static int file_setup(struct worker *w)
{
	struct files *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	w->priv = f;
	f->blocks = w->args[0] * 1024 / BLOCK;
	if (mkdir(DIRECTORY, 0755) && errno != EEXIST)
		return -errno;
	return 0;
}

static void file_round(struct worker *w)
{
	struct files *f = w->priv;
	unsigned int file = work_random(w) % FILES;
	int ret;

	if (f->seqs[file])
		file_check(w, f, file);
	ret = file_write(f, file);
	if (ret)
		work_corrupt(w, "file %u cannot be written: %s", file, strerror(-ret));
}

static void file_cleanup(struct worker *w)
{
	free(w->priv);
}

const struct work_kind work_file = {
	.name = "file",
	.args = "KIB PERIOD-MS",
	.nargs = 2,
	.defaults = { 256, 100 },
	.setup = file_setup,
	.round = file_round,
	.cleanup = file_cleanup,
};
