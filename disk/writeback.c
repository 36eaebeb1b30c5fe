/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * writeback.c - the file in which a failover puts what the SVM wrote
 *
 * Why a file. The survivor's disk is the last committed checkpoint with the SVM's writes on top.
 * Writing these to the disk takes a while and a power loss in the middle of it would leave neither
 * the one nor the other. So they are first written here, in one sequential write whose size the SVM
 * cache bounds by asking for checkpoints (svm_cache.h), and only then does the failover count;
 * writing them to the disk can then be repeated as often as it takes. commit.c and recover.c say in
 * which order.
 */
#include "disk/writeback.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/fdio.h"
#include "disk/range.h"
#include "disk/xxh.h"

#define PIECE (1u << 20)
#define MAGIC 0x6b63616265746972ull

struct header {
	uint64_t magic, disk_size;
};

struct record {
	uint64_t offset, length;
	uint32_t zero, pad;
};
_Static_assert(sizeof(struct record) == 24, "write-back layout");

/* Either way through the file, hashing what passes. */
struct stream {
	int fd;
	uint64_t at;
	XXH3_state_t *hash;
	char *buf; /* PIECE */
};

static int name_file(char *path, const char *dir, const char *name)
{
	return snprintf(path, PATH_MAX, "%s/%s.writeback", dir, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int open_stream(struct stream *s, const char *dir, const char *name, int flags)
{
	char path[PATH_MAX];
	int r = name_file(path, dir, name);

	*s = (struct stream){ .fd = -1 };
	if (r)
		return r;
	s->fd = open(path, flags | O_CLOEXEC, 0600);
	if (s->fd < 0)
		return -errno;
	s->hash = XXH3_createState();
	s->buf = malloc(PIECE);
	if (!s->hash || !s->buf)
		return -ENOMEM;
	XXH3_64bits_reset(s->hash);
	return 0;
}

static void close_stream(struct stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	if (s->hash)
		XXH3_freeState(s->hash);
	free(s->buf);
}

/* ---- saving ---- */

static int put(struct stream *s, const void *data, size_t len)
{
	int r = fdio_write(s->fd, data, len, s->at);

	XXH3_64bits_update(s->hash, data, len);
	s->at += len;
	return r;
}

/* A record and its data in one write: that is most of what scattered blocks cost. */
static int put_run(struct stream *s, struct svm_cache *c, uint64_t off, uint64_t len, bool zero)
{
	struct record rec = { .offset = off, .length = len, .zero = zero };
	int r;

	memcpy(s->buf, &rec, sizeof(rec));
	if (zero)
		return put(s, s->buf, sizeof(rec));
	r = svm_cache_read(c, s->buf + sizeof(rec), (size_t)len, off);
	return r ? r : put(s, s->buf, sizeof(rec) + (size_t)len);
}

static int put_all(struct stream *s, struct svm_cache *c)
{
	struct header h = { MAGIC, c->storage->size };
	uint64_t off = 0, len;
	bool zero;
	int r = put(s, &h, sizeof(h));

	while (!r && svm_cache_next_run(c, off, PIECE - DISK_BLOCK, &off, &len, &zero)) {
		r = put_run(s, c, off, len, zero);
		off += len;
	}
	return r;
}

int writeback_save(const char *dir, const char *name, struct svm_cache *c, struct writeback_seal *seal)
{
	struct stream s;
	int r = open_stream(&s, dir, name, O_RDWR | O_CREAT | O_TRUNC);

	if (!r)
		r = put_all(&s, c);
	if (!r && fsync(s.fd) < 0)
		r = -errno;
	if (!r)
		r = fdio_sync_directory(dir);
	if (!r)
		*seal = (struct writeback_seal){ s.at, XXH3_64bits_digest(s.hash) };
	close_stream(&s);
	if (r) /* what there is of it only takes space, which may be what was short */
		writeback_remove(dir, name);
	return r;
}

/* ---- loading ---- */

static int get(struct stream *s, void *data, size_t len)
{
	char *p = data;

	while (len) {
		ssize_t n = pread(s->fd, p, len, (off_t)s->at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		XXH3_64bits_update(s->hash, p, (size_t)n);
		p += n;
		s->at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int verify(struct stream *s, const struct writeback_seal *seal)
{
	struct stat sb;
	int r = 0;

	if (fstat(s->fd, &sb) < 0)
		return -errno;
	if ((uint64_t)sb.st_size != seal->bytes)
		return -EBADMSG;
	while (!r && s->at < seal->bytes) {
		uint64_t rest = seal->bytes - s->at;

		r = get(s, s->buf, rest < PIECE ? (size_t)rest : PIECE);
	}
	if (!r && XXH3_64bits_digest(s->hash) != seal->hash)
		r = -EBADMSG;
	s->at = 0;
	return r;
}

static int load_run(struct stream *s, uint64_t disk_size, writeback_fn *fn, void *opaque)
{
	struct record rec;
	int r = get(s, &rec, sizeof(rec));

	if (r)
		return r;
	if (!range_ok(rec.offset, rec.length, disk_size) || (!rec.zero && rec.length > PIECE))
		return -EBADMSG;
	if (rec.zero)
		return fn(opaque, rec.offset, NULL, rec.length);
	r = get(s, s->buf, (size_t)rec.length);
	return r ? r : fn(opaque, rec.offset, s->buf, rec.length);
}

static int load_all(struct stream *s, uint64_t disk_size, uint64_t bytes, writeback_fn *fn, void *opaque)
{
	struct header h;
	int r = get(s, &h, sizeof(h));

	if (!r && (h.magic != MAGIC || h.disk_size != disk_size))
		r = -EBADMSG;
	while (!r && s->at < bytes)
		r = load_run(s, disk_size, fn, opaque);
	return r;
}

int writeback_load(const char *dir, const char *name, uint64_t disk_size, const struct writeback_seal *seal,
		   writeback_fn *fn, void *opaque)
{
	struct stream s;
	int r = open_stream(&s, dir, name, O_RDONLY);

	if (r == -ENOENT)
		r = -EBADMSG;
	if (!r)
		r = verify(&s, seal);
	if (!r)
		r = load_all(&s, disk_size, seal->bytes, fn, opaque);
	close_stream(&s);
	return r;
}

void writeback_remove(const char *dir, const char *name)
{
	char path[PATH_MAX];

	if (name_file(path, dir, name) == 0)
		unlink(path);
}
