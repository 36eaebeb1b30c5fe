/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * redo.c - the secondary's journal: its file, its records, and reading it after a power loss
 *
 * What makes recovery exact (redo.h has the layout):
 *   - Records are only ever appended. A block of 4 KiB is written once per lap, in one piece with its
 *     neighbours, so whatever a power loss does to writes that were not synced yet - none, some, torn, in any
 *     order - it does to blocks after the last stable boundary.
 *   - A reader goes on from one whole record to the next and from one whole chunk to the next. A
 *     boundary it gets to therefore has all its records. One it gets to though it was never synced is
 *     as good: all it depends on has been read and is whole.
 *   - What an earlier lap or session left in a slot has another seed, which no guest knows and so none
 *     can imitate by what it writes to its disk.
 *   - The tail in the metadata moves before the slots behind it are used again.
 */
#include "disk/redo.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/fdio.h"
#include "disk/xxh.h"

/* ---- the file ---- */

static int fill_with_zeroes(int fd, uint64_t from, uint64_t to)
{
	static const char zeroes[65536];
	int r = 0;

	for (; from < to && !r; from += sizeof(zeroes)) {
		uint64_t rest = to - from;

		r = fdio_write(fd, zeroes, rest < sizeof(zeroes) ? (size_t)rest : sizeof(zeroes), from);
	}
	return r;
}

/* Real blocks, so that a sync at a boundary finds nothing to do but to write them. */
static int allocate(int fd, uint64_t bytes)
{
	int r;

	do {
		r = fallocate(fd, 0, 0, (off_t)bytes);
	} while (r < 0 && errno == EINTR);
	if (r < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		return fill_with_zeroes(fd, 0, bytes);
	return r < 0 ? -errno : 0;
}

static int set_size(struct redo *j, uint64_t slots)
{
	int r;

	r = allocate(j->fd, slots * REDO_SLOT);
	if (!r && ftruncate(j->fd, (off_t)(slots * REDO_SLOT)) < 0)
		r = -errno;
	if (!r && fsync(j->fd) < 0) /* the size, too */
		r = -errno;
	if (!r)
		j->slots = slots;
	return r;
}

/* A file that is no journal yet, or whose making was cut off, is made anew: nothing can count on it. */
static int adopt_size(struct redo *j, const char *dir)
{
	struct stat sb;
	int r;

	if (fstat(j->fd, &sb) < 0)
		return -errno;
	j->slots = (uint64_t)sb.st_size / REDO_SLOT;
	if (j->slots >= REDO_SLOTS_LEAST && (uint64_t)sb.st_size % REDO_SLOT == 0)
		return 0;
	r = set_size(j, j->want);
	return r ? r : fdio_sync_directory(dir);
}

int redo_open(struct redo *j, const char *dir, const char *name, uint64_t bytes, char *why, size_t why_size)
{
	char path[PATH_MAX];
	int r = 0;

	*j = (struct redo){ .fd = -1, .want = bytes / REDO_SLOT };
	if (j->want < REDO_SLOTS_LEAST)
		j->want = REDO_SLOTS_LEAST;
	if (snprintf(path, sizeof(path), "%s/%s.journal", dir, name) >= (int)sizeof(path))
		r = -ENAMETOOLONG;
	if (!r)
		j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (!r)
		r = j->fd < 0 ? -errno : adopt_size(j, dir);
	if (r) {
		snprintf(why, why_size, "%s/%s.journal: %s", dir, name, strerrordesc_np(-r));
		redo_close(j);
	}
	return r;
}

void redo_close(struct redo *j)
{
	if (j->fd >= 0)
		close(j->fd);
	j->fd = -1;
}

int redo_reset(struct redo *j)
{
	uint64_t old = j->slots;
	int r = old == j->want ? 0 : set_size(j, j->want);

	if (!r)
		return 0;
	/* no room to grow: go on with what there is */
	j->slots = old;
	return ftruncate(j->fd, (off_t)(old * REDO_SLOT)) < 0 ? -errno : 0;
}

static uint64_t place(const struct redo *j, uint64_t chunk)
{
	return chunk % j->slots * REDO_SLOT;
}

int redo_write(struct redo *j, uint64_t chunk, uint32_t from, const void *data, uint32_t length)
{
	uint64_t at = place(j, chunk) + from;
	int r = fdio_write(j->fd, data, length, at);

	if (!r) /* a head start for redo_sync(), which reports the errors */
		(void)sync_file_range(j->fd, (off_t)at, length, SYNC_FILE_RANGE_WRITE);
	return r;
}

int redo_read(struct redo *j, uint64_t chunk, void *image)
{
	uint64_t at = place(j, chunk);
	size_t got = 0;

	while (got < REDO_SLOT) {
		ssize_t n = pread(j->fd, (char *)image + got, REDO_SLOT - got, (off_t)(at + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO; /* somebody cut the file short */
		got += (size_t)n;
	}
	return 0;
}

int redo_sync(struct redo *j)
{
	return fdatasync(j->fd) < 0 ? -errno : 0;
}

/* ---- records ---- */

uint64_t redo_seed(uint64_t session, uint64_t chunk)
{
	uint64_t name[2] = { session, chunk };

	return XXH3_64bits(name, sizeof(name));
}

static uint64_t hash(const struct redo_record *rec, uint32_t pos, uint64_t seed)
{
	size_t rest = sizeof(*rec) - offsetof(struct redo_record, offset);

	return XXH3_64bits_withSeed(&rec->offset, rest + redo_stored(rec), seed + pos);
}

uint32_t redo_next(uint32_t pos, uint32_t kind, uint32_t stored)
{
	uint32_t align = kind == REDO_BOUNDARY ? REDO_BLOCK : 8;

	return (pos + (uint32_t)sizeof(struct redo_record) + stored + align - 1) / align * align;
}

void redo_put(void *image, uint32_t pos, uint64_t seed, uint32_t kind, uint64_t offset, uint32_t length)
{
	struct redo_record *rec = (struct redo_record *)((char *)image + pos);

	rec->offset = offset;
	rec->length = length;
	rec->kind = kind;
	rec->hash = hash(rec, pos, seed);
}

const struct redo_record *redo_at(const void *image, uint32_t pos, uint64_t seed)
{
	const struct redo_record *rec = (const struct redo_record *)((const char *)image + pos);

	if (!redo_room(pos) || rec->kind < REDO_WRITE || rec->kind > REDO_END)
		return NULL;
	if (redo_stored(rec) > REDO_SLOT - sizeof(*rec) - pos)
		return NULL;
	return hash(rec, pos, seed) == rec->hash ? rec : NULL;
}

/* ---- recovery ---- */

/* 0: go on, 1: enough, -errno */
typedef int visit_fn(void *opaque, const struct redo_record *rec);

/* All records of one chunk. 0: it is whole, the next one follows; 1: that was all; -errno */
static int visit_chunk(const void *image, uint64_t seed, visit_fn *fn, void *opaque)
{
	uint32_t pos = 0;

	while (redo_room(pos)) {
		const struct redo_record *rec = redo_at(image, pos, seed);
		int r;

		if (!rec)
			return 1;
		if (rec->kind == REDO_END)
			return 0;
		r = fn(opaque, rec);
		if (r)
			return r;
		pos = redo_next(pos, rec->kind, redo_stored(rec));
	}
	return 0;
}

static int visit(struct redo *j, uint64_t session, uint64_t tail, visit_fn *fn, void *opaque)
{
	void *image = malloc(REDO_SLOT);
	int r = image ? 0 : -ENOMEM;

	for (uint64_t n = tail; !r && n < tail + j->slots; n++) {
		r = redo_read(j, n, image);
		if (!r)
			r = visit_chunk(image, redo_seed(session, n), fn, opaque);
	}
	free(image);
	return r < 0 ? r : 0;
}

static int note_epoch(void *opaque, const struct redo_record *rec)
{
	uint64_t *epoch = opaque;

	if (rec->kind == REDO_BOUNDARY)
		*epoch = rec->offset;
	return 0;
}

int redo_last_epoch(struct redo *j, uint64_t session, uint64_t tail, uint64_t *epoch)
{
	*epoch = 0;
	return visit(j, session, tail, note_epoch, epoch);
}

struct replay {
	uint64_t epoch;
	redo_apply_fn *fn; /* NULL: only look whether the boundary is there */
	void *opaque;
	bool found;
};

static int replay_one(void *opaque, const struct redo_record *rec)
{
	struct replay *re = opaque;

	if (rec->kind == REDO_BOUNDARY) {
		re->found = rec->offset == re->epoch;
		return re->found;
	}
	if (!re->fn)
		return 0;
	return re->fn(re->opaque, rec->offset, rec->kind == REDO_WRITE ? rec + 1 : NULL, rec->length);
}

int redo_replay(struct redo *j, uint64_t session, uint64_t tail, uint64_t epoch, redo_apply_fn *fn,
		void *opaque)
{
	struct replay look = { .epoch = epoch }, apply = { .epoch = epoch, .fn = fn, .opaque = opaque };
	int r = visit(j, session, tail, replay_one, &look);

	if (r || !look.found)
		return r ? r : -ENODATA;
	return visit(j, session, tail, replay_one, &apply);
}
