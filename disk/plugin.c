/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * plugin.c - the disk manager as an nbdkit plugin
 *
 * nbdkit -f --exit-with-parent -U SOCKET ./nbdkit-colo-plugin.so file=DISK data=DIR name=disk0 control-fd=N
 *	boundary-fd=M
 *
 * The socket exists and DISK_EV_HELLO was sent before the first NBD request is served.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "disk/disk.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define CACHE_MAX_DEFAULT (256u << 20)
#define CACHE_MAX_LEAST   (16u << 20)
#define JOURNAL_DEFAULT   (256u << 20)
#define REQUEST_MAX       (32u << 20)

static struct disk disk = {
	.config = { .control_fd = -1, .boundary_fd = -1, .cache_max = CACHE_MAX_DEFAULT,
		    .journal = JOURNAL_DEFAULT, .link_stall_ms = 5000 },
};

static int set_path(char **to, const char *value)
{
	free(*to);
	*to = nbdkit_absolute_path(value);
	return *to ? 0 : -1;
}

static int set_cache_max(const char *value)
{
	int64_t size = nbdkit_parse_size(value);

	if (size < 0)
		return -1;
	if (size < (int64_t)CACHE_MAX_LEAST || size > INT64_C(1) << 40) {
		nbdkit_error("cache-max=%s: must be between 16M and 1T", value);
		return -1;
	}
	disk.config.cache_max = (uint64_t)size;
	return 0;
}

static int set_journal(const char *value)
{
	int64_t size = nbdkit_parse_size(value);

	if (size < 0)
		return -1;
	if (size < (int64_t)REDO_SLOTS_LEAST * REDO_SLOT || size > INT64_C(1) << 40) {
		nbdkit_error("journal=%s: must be between 16M and 1T", value);
		return -1;
	}
	disk.config.journal = (uint64_t)size;
	return 0;
}

static int set_name(const char *value)
{
	if (!*value || strchr(value, '/') || strlen(value) > 64) {
		nbdkit_error("name=%s: must be a name for files, without '/' and not too long", value);
		return -1;
	}
	free(disk.config.name);
	disk.config.name = strdup(value);
	return disk.config.name ? 0 : -1;
}

/* What it may be is storage.c's to say. */
static int set_format(const char *value)
{
	free(disk.config.format);
	disk.config.format = strdup(value);
	return disk.config.format ? 0 : -1;
}

static int set_flag(const char *value, bool *out)
{
	int b = nbdkit_parse_bool(value);

	*out = b > 0;
	return b < 0 ? -1 : 0;
}

static int set_socket(const char *key, const char *value, int *out)
{
	int type = 0, fd;
	socklen_t n = sizeof(type);

	if (nbdkit_parse_int(key, value, &fd) < 0)
		return -1;
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_SEQPACKET) {
		nbdkit_error("%s=%s: is not an inherited SOCK_SEQPACKET socket", key, value);
		return -1;
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	*out = fd;
	return 0;
}

static int colo_config(const char *key, const char *value)
{
	if (!strcmp(key, "file"))
		return set_path(&disk.config.file, value);
	if (!strcmp(key, "format"))
		return set_format(value);
	if (!strcmp(key, "data"))
		return set_path(&disk.config.data, value);
	if (!strcmp(key, "name"))
		return set_name(value);
	if (!strcmp(key, "journal"))
		return set_journal(value);
	if (!strcmp(key, "read-only"))
		return set_flag(value, &disk.config.read_only);
	if (!strcmp(key, "spill-dir"))
		return set_path(&disk.config.spill_dir, value);
	if (!strcmp(key, "control-fd"))
		return set_socket(key, value, &disk.config.control_fd);
	if (!strcmp(key, "boundary-fd"))
		return set_socket(key, value, &disk.config.boundary_fd);
	if (!strcmp(key, "cache-max"))
		return set_cache_max(value);
	if (!strcmp(key, "link-stall-ms"))
		return nbdkit_parse_unsigned("link-stall-ms", value, &disk.config.link_stall_ms);
	nbdkit_error("unknown parameter '%s'", key);
	return -1;
}

/* Next to the disk, whose file system has room for as much; for a block device where large files go. */
static char *default_spill_dir(const char *file)
{
	const char *slash = strrchr(file, '/');
	struct stat sb;

	if (stat(file, &sb) == 0 && S_ISBLK(sb.st_mode))
		return strdup("/var/tmp");
	return strndup(file, slash && slash > file ? (size_t)(slash - file) : 1);
}

static int colo_config_complete(void)
{
	if (!disk.config.file) {
		nbdkit_error("file=DISK is missing: the raw file or block device to serve");
		return -1;
	}
	if (disk.config.control_fd < 0) {
		nbdkit_error("control-fd=N is missing: the socket to the colo daemon");
		return -1;
	}
	if (!disk.config.read_only && (!disk.config.data || !disk.config.name)) {
		nbdkit_error("data=DIR and name=NAME are missing: where to keep what is known of the disk");
		return -1;
	}
	if (!disk.config.link_stall_ms) {
		nbdkit_error("link-stall-ms must not be 0");
		return -1;
	}
	if (!disk.config.spill_dir)
		disk.config.spill_dir = default_spill_dir(disk.config.file);
	return disk.config.spill_dir ? 0 : -1;
}

#define colo_config_help \
	"file=DISK           (required) File or block device.\n" \
	"format=FORMAT       raw or qcow2 (default raw, but not for what looks like qcow2).\n" \
	"control-fd=N        (required) Inherited SOCK_SEQPACKET socket to the colo daemon.\n" \
	"data=DIR            (required) Directory on stable storage for metadata and journal.\n" \
	"name=NAME           (required) What their names begin with.\n" \
	"journal=SIZE        Size of the journal (default 256M).\n" \
	"read-only=BOOL      Serve a disk that nobody changes: no metadata, no link.\n" \
	"boundary-fd=N       Another one, for the agent in QEMU.\n" \
	"cache-max=SIZE      Memory for each of the two caches (default 256M).\n" \
	"spill-dir=DIR       Where the SVM cache may spill to (default: next to the disk).\n" \
	"link-stall-ms=N     Give up a peer that lets a write wait so long (default 5000)."

static int colo_get_ready(void)
{
	char why[512];

	if (disk_init(&disk, why, sizeof(why)) == 0)
		return 0;
	nbdkit_error("%s", why);
	return -1;
}

/* Also called before the first connection is accepted, so that nobody writes while the disk is hashed. */
static int colo_after_fork(void)
{
	int r = disk_find(&disk);

	if (r) {
		nbdkit_error("file=%s: reading it, or writing its metadata: %s", disk.config.file,
			     disk_strerror(-r));
		return -1;
	}
	r = settle_start(&disk);
	if (!r)
		r = control_start(&disk);
	if (r)
		nbdkit_error("cannot start: %s", disk_strerror(-r));
	return r ? -1 : 0;
}

/* nbdkit was told to end; its connections have ended. */
static void colo_cleanup(void)
{
	control_stop(&disk);
	link_close(&disk);
	settle_stop(&disk);
	pthread_rwlock_wrlock(&disk.io);
	disk.closing = true;
	pthread_rwlock_unlock(&disk.io);
	disk_close_clean(&disk);
}

/* Whoever can open the socket's file is not enough: only the daemon, which hands the connection to its QEMU. */
static int colo_preconnect(int readonly)
{
	int64_t pid = nbdkit_peer_pid();

	if (pid == getppid())
		return 0;
	nbdkit_error("a connection of process %lld is refused: it is not the colo daemon", (long long)pid);
	return -1;
}

static void colo_unload(void)
{
	if (disk.ready)
		disk_destroy(&disk);
	free(disk.config.file);
	free(disk.config.format);
	free(disk.config.spill_dir);
	free(disk.config.data);
	free(disk.config.name);
}

static void *colo_open(int readonly)
{
	return &disk;
}

static int64_t colo_get_size(void *handle)
{
	return (int64_t)disk.storage.size;
}

static int colo_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	*minimum = 512;
	*preferred = DISK_BLOCK;
	*maximum = REQUEST_MAX;
	return 0;
}

static int yes(void *handle)
{
	return 1;
}

static int can_write(void *handle)
{
	return !disk.config.read_only;
}

static int colo_can_fua(void *handle)
{
	return disk.config.read_only ? NBDKIT_FUA_NONE : NBDKIT_FUA_NATIVE;
}

static int report(int r)
{
	if (!r)
		return 0;
	if (r != -ESHUTDOWN) /* the last requests after the daemon's end are not worth a line each */
		nbdkit_error("%s: %s", disk.config.file, disk_strerror(-r));
	nbdkit_set_error(-r);
	return -1;
}

static int colo_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	return report(disk_read(&disk, buf, count, offset));
}

static int colo_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	return report(disk_write(&disk, buf, count, offset, flags & NBDKIT_FLAG_FUA));
}

static int colo_flush(void *handle, uint32_t flags)
{
	return report(disk_flush(&disk));
}

static int colo_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return report(disk_zero(&disk, count, offset, true, flags & NBDKIT_FLAG_FUA));
}

static int colo_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return report(disk_zero(&disk, count, offset, flags & NBDKIT_FLAG_MAY_TRIM,
				flags & NBDKIT_FLAG_FUA));
}

static struct nbdkit_plugin plugin = {
	.name = "colo",
	.longname = "colo disk manager",
	.version = COLO_VERSION,
	.description = "one disk of a protected virtual machine",
	.config = colo_config,
	.config_complete = colo_config_complete,
	.config_help = colo_config_help,
	.magic_config_key = "file",
	.get_ready = colo_get_ready,
	.after_fork = colo_after_fork,
	.cleanup = colo_cleanup,
	.unload = colo_unload,
	.open = colo_open,
	.get_size = colo_get_size,
	.block_size = colo_block_size,
	.preconnect = colo_preconnect,
	.can_write = can_write,
	.can_flush = can_write,
	.can_trim = can_write,
	.can_zero = can_write,
	.can_multi_conn = yes,
	.can_fua = colo_can_fua,
	.pread = colo_pread,
	.pwrite = colo_pwrite,
	.flush = colo_flush,
	.trim = colo_trim,
	.zero = colo_zero,
};

NBDKIT_REGISTER_PLUGIN(plugin)
