/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * meta.c - what is known of a disk beyond its content: the file, its lock, and the header
 *
 * A header is written to the place of the older one of its two copies, and then synced. Whatever a power
 * loss leaves of that write, the newer one of the intact copies is the state before it or the state after.
 */
#include "disk/meta_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "disk/fdio.h"

/* ---- writing ---- */

static int fail(struct meta *m, int r)
{
	int none = 0;

	atomic_compare_exchange_strong(&m->broken, &none, r);
	return r;
}

int meta_put(struct meta *m, const void *buf, size_t len, uint64_t off)
{
	int r = fdio_write(m->fd, buf, len, off);

	return r ? fail(m, r) : 0;
}

int meta_sync(struct meta *m)
{
	return fdatasync(m->fd) < 0 ? fail(m, -errno) : 0;
}

static uint64_t seal(const struct meta_header *h)
{
	return XXH3_64bits(&h->magic, sizeof(*h) - sizeof(h->hash));
}

static int put_header(struct meta *m, const struct meta_state *state, uint64_t sequence)
{
	struct meta_header h;

	memset(&h, 0, sizeof(h)); /* padding, too */
	h.magic = META_MAGIC;
	h.version = META_VERSION;
	h.bytes = sizeof(h);
	h.sequence = sequence;
	h.state = *state;
	h.state.lineage.flags &= ~(uint32_t)LINEAGE_OVERWRITE; /* is said anew each time */
	h.hash = seal(&h);
	return meta_put(m, &h, sizeof(h), sequence % 2 * META_HEADER);
}

/* with `update` held */
static int change_to(struct meta *m, const struct meta_state *state)
{
	int r = m->broken;

	if (!r)
		r = put_header(m, state, m->sequence + 1);
	if (!r)
		r = meta_sync(m);
	if (r)
		return r;
	pthread_mutex_lock(&m->lock);
	m->state = *state;
	m->sequence++;
	pthread_mutex_unlock(&m->lock);
	return 0;
}

void meta_get(struct meta *m, struct meta_state *state)
{
	pthread_mutex_lock(&m->lock);
	*state = m->state;
	pthread_mutex_unlock(&m->lock);
}

int meta_change(struct meta *m, meta_change_fn *change, void *opaque)
{
	struct meta_state state;
	int r;

	pthread_mutex_lock(&m->update);
	meta_get(m, &state);
	change(&state, opaque);
	r = change_to(m, &state);
	pthread_mutex_unlock(&m->update);
	return r;
}

int meta_update(struct meta *m, const struct meta_state *state)
{
	int r;

	pthread_mutex_lock(&m->update);
	r = change_to(m, state);
	pthread_mutex_unlock(&m->update);
	return r;
}

/* ---- opening ---- */

struct opening {
	char path[PATH_MAX], temporary[PATH_MAX];
	char *why;
	size_t why_size;
};

#define REFUSE(o, r, ...) (snprintf((o)->why, (o)->why_size, __VA_ARGS__), (r))

static int refuse_errno(struct opening *o, const char *path, const char *doing, int r)
{
	return REFUSE(o, r, "%s cannot be %s: %s", path, doing, strerrordesc_np(-r));
}

static int lock_file(struct opening *o, int fd)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return 0; /* a file system without locks */
	return REFUSE(o, -EBUSY, "%s is in use by another process", o->path);
}

/* Its name gets to stable storage, too. */
static int move_into_place(struct opening *o, const char *dir)
{
	return rename(o->temporary, o->path) < 0 ? -errno : fdio_sync_directory(dir);
}

/* Under another name until it is complete, so that no end of this process or host leaves half of it. */
static int make(struct meta *m, struct opening *o, const char *dir)
{
	int r;

	m->fd = open(o->temporary, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (m->fd < 0)
		return refuse_errno(o, o->temporary, "made", -errno);
	r = lock_file(o, m->fd);
	if (r)
		return r;
	if (ftruncate(m->fd, 0) < 0)
		r = -errno;
	if (!r) /* with its space: no write to it may find the file system full */
		r = -posix_fallocate(m->fd, 0, (off_t)meta_map_bytes(m->state.size));
	if (!r)
		r = put_header(m, &m->state, m->sequence);
	if (!r)
		r = meta_map_make(m);
	if (!r && fsync(m->fd) < 0)
		r = -errno;
	if (!r)
		r = move_into_place(o, dir);
	return r ? refuse_errno(o, o->temporary, "made", r) : 0;
}

static bool intact(const struct meta_header *h)
{
	return h->magic == META_MAGIC && h->version == META_VERSION && h->bytes == sizeof(*h) &&
	       h->hash == seal(h);
}

/* The newer one of the intact headers; false when there is none. */
static bool choose_header(struct meta *m, struct meta_header *h)
{
	bool any = false;

	for (int i = 0; i < 2; i++) {
		struct meta_header one;

		if (pread(m->fd, &one, sizeof(one), i * (off_t)META_HEADER) != (ssize_t)sizeof(one))
			continue;
		if (!intact(&one))
			continue;
		if (any && one.sequence < h->sequence)
			continue;
		*h = one;
		any = true;
	}
	return any;
}

static const char *header_fault(struct meta *m)
{
	struct meta_header h;

	if (pread(m->fd, &h, sizeof(h), 0) == (ssize_t)sizeof(h) && h.magic == META_MAGIC &&
	    h.version != META_VERSION)
		return "is of another version of colo";
	return "is damaged: neither copy of its header is intact. If it is removed, the disk is taken for one "
	       "that colo has not seen before";
}

static int load(struct meta *m, struct opening *o, uint64_t size, struct bitmap *changed)
{
	struct meta_header h;
	struct stat sb;
	int r = lock_file(o, m->fd);

	if (r)
		return r;
	if (!choose_header(m, &h))
		return REFUSE(o, -EBADMSG, "%s %s", o->path, header_fault(m));
	if (h.state.size != size)
		return REFUSE(o, -EINVAL, "%s is for a disk of %llu bytes, this one has %llu", o->path,
			      (unsigned long long)h.state.size, (unsigned long long)size);
	if (fstat(m->fd, &sb) < 0 || (uint64_t)sb.st_size != meta_map_bytes(size))
		return REFUSE(o, -EBADMSG, "%s is cut short", o->path);
	m->state = h.state;
	m->sequence = h.sequence;
	r = meta_map_load(m, changed);
	return r ? refuse_errno(o, o->path, "read", r) : 0;
}

static void release(struct meta *m)
{
	if (m->fd >= 0)
		close(m->fd);
	m->fd = -1;
	meta_map_free(m);
	pthread_cond_destroy(&m->done);
	pthread_mutex_destroy(&m->lock);
	pthread_mutex_destroy(&m->settle);
	pthread_mutex_destroy(&m->update);
}

static int init(struct meta *m, uint64_t size)
{
	*m = (struct meta){ .fd = -1, .state = { .size = size },
			    .regions = size / META_REGION + (size % META_REGION != 0) };
	pthread_mutex_init(&m->update, NULL);
	pthread_mutex_init(&m->settle, NULL);
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->done, NULL);
	return meta_map_init(m);
}

static int name_files(struct opening *o, const char *dir, const char *name)
{
	int n = snprintf(o->path, sizeof(o->path), "%s/%s.meta", dir, name);

	if (n < 0 || (size_t)n + 5 > sizeof(o->path))
		return REFUSE(o, -ENAMETOOLONG, "%s: the name is too long", dir);
	memcpy(o->temporary, o->path, (size_t)n);
	memcpy(o->temporary + n, ".new", 5);
	return 0;
}

int meta_open(struct meta *m, const char *dir, const char *name, uint64_t size, struct bitmap *changed,
	      bool *found, char *why, size_t why_size)
{
	struct opening o = { .why = why, .why_size = why_size };
	int r = init(m, size);

	if (r)
		snprintf(why, why_size, "out of memory");
	if (!r)
		r = name_files(&o, dir, name);
	if (!r) {
		m->fd = open(o.path, O_RDWR | O_CLOEXEC);
		if (m->fd >= 0)
			r = load(m, &o, size, changed);
		else if (errno == ENOENT)
			r = make(m, &o, dir);
		else
			r = refuse_errno(&o, o.path, "opened", -errno);
	}
	*found = !r && m->state.lineage.current != 0;
	if (r)
		release(m);
	return r;
}

void meta_close(struct meta *m, meta_blocks_fn *blocks, void *opaque)
{
	if (m->fd < 0)
		return;
	/* the first makes what was just used hot, the second cools it */
	if (blocks && meta_settle(m, blocks, opaque) == 0 && meta_settle(m, blocks, opaque) == 0)
		meta_sync(m);
	release(m);
}
