/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * config.h - the configuration of one VM: one INI file, the same on both hosts
 *
 * Sections [vm], [net], [net N], [protection], [peer], [tls], [disk], [disk N], [arbiter] and one [host NAME] for each
 * of the two hosts. Keys, their units and defaults stand in the table in config.c and in colo(5).
 */
#ifndef COLO_CONFIG_H
#define COLO_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_NAME_MAX 32
#define CONFIG_TEXT_MAX 1024
#define CONFIG_PATH_MAX 256

#define CONFIG_NICS_MAX 8
#define CONFIG_DISKS_MAX 8

enum config_mode { MODE_COLO, MODE_CHECKPOINT };
enum config_format { FORMAT_RAW, FORMAT_QCOW2 };
enum config_driver { DRIVER_AUTO, DRIVER_DIRECT, DRIVER_STANDBY };
enum config_accel { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG };
enum config_tracking { TRACKING_AUTO, TRACKING_ASYNC, TRACKING_SYNC };
enum config_virtio { VIRTIO_LEGACY, VIRTIO_MODERN };
enum config_vga { VGA_NONE, VGA_STD };

struct config_nic {
	char bridge[CONFIG_NAME_MAX], tap[CONFIG_NAME_MAX], mac[CONFIG_NAME_MAX];
	uint8_t mac_bytes[6];
};

struct config_disk {
	char file[CONFIG_PATH_MAX];
	uint64_t format;               /* enum config_format */
	uint64_t sector;               /* 512 or 4096 */
	uint64_t read_only, cdrom;     /* bool; a CD is read-only */
};

struct config_host {
	char name[CONFIG_NAME_MAX];
	char address[CONFIG_PATH_MAX]; /* of the replication link: IPv4 or IPv6 address or name */
	uint64_t port;
	char disk[CONFIG_DISKS_MAX][CONFIG_PATH_MAX]; /* override [vm] disk and [disk N] file */
	char bridge[CONFIG_NAME_MAX];  /* overrides [net] bridge, of the first NIC */
	char state[CONFIG_PATH_MAX];   /* directory for sockets and QEMU's log */
	char data[CONFIG_PATH_MAX];    /* directory on stable storage: what is known of the disks */
	uint64_t watchdog_us;          /* a daemon that is silent for so long is started again */
};

struct config {
	char path[CONFIG_PATH_MAX];
	/* [vm] */
	char name[CONFIG_NAME_MAX];
	uint64_t memory; /* bytes */
	uint64_t vcpus;
	char machine[CONFIG_NAME_MAX], cpu[CONFIG_NAME_MAX * 4];
	uint64_t driver, accel;         /* enum config_driver, config_accel */
	uint64_t tracking;              /* enum config_tracking */
	uint64_t virtio, vga;           /* enum config_virtio, config_vga */
	uint64_t rng, tablet, root_ports; /* bool */
	char devices[CONFIG_PATH_MAX];  /* further ones, a list; see devices.h */
	char kernel[CONFIG_PATH_MAX], initrd[CONFIG_PATH_MAX], append[CONFIG_TEXT_MAX];
	char qemu[CONFIG_PATH_MAX], nbdkit[CONFIG_PATH_MAX];
	char primary[CONFIG_NAME_MAX];
	uint64_t watchdog_us; /* QEMU or a disk manager that is silent for so long hangs */
	/* [net] and [vm] mac: the first; [net N]: nic[N] */
	struct config_nic nic[CONFIG_NICS_MAX];
	unsigned int nics;
	uint64_t offload; /* bool */
	uint64_t flows;   /* at most, of each NIC */
	uint64_t capture; /* bytes, 0: off */
	/* [protection] */
	uint64_t mode; /* enum config_mode */
	uint64_t interval_us, periodic_us, wait_min_us, wait_max_us, held_max;
	/* [peer] */
	uint64_t heartbeat_us, misses, lag_limit_us, settle_us;
	/* [tls] */
	uint64_t tls_mode; /* enum tls_mode */
	char tls_dir[CONFIG_PATH_MAX], tls_user[CONFIG_NAME_MAX];
	/* [disk] and [vm] disk: the first, which is always writable; [disk N]: disk[N] */
	struct config_disk disk[CONFIG_DISKS_MAX];
	unsigned int disks;
	uint64_t cache_max, journal; /* of each disk, bytes */
	uint64_t sync_rate;          /* of each disk, bytes a second, 0: no limit */
	/* [notify] */
	char notify[CONFIG_PATH_MAX];
	uint64_t notify_limit_us;
	/* [arbiter] */
	char arbiter[CONFIG_NAME_MAX];
	char arbiter_address[CONFIG_TEXT_MAX], arbiter_directory[CONFIG_PATH_MAX];
	char arbiter_tls[CONFIG_NAME_MAX], arbiter_tls_dir[CONFIG_PATH_MAX], arbiter_username[CONFIG_NAME_MAX];
	char arbiter_user[CONFIG_NAME_MAX], arbiter_password[CONFIG_PATH_MAX]; /* a file */

	struct config_host host[2];
	unsigned int nhosts;
	unsigned int local; /* index of this node in host[] */
};

/* Reads and checks the file; node: name of this host's section, NULL: the one whose name is the host's
 * name. 0, or -EINVAL with one line in error ("file:line: [section] key: what is wrong"). */
int config_load(struct config *c, const char *path, const char *node, char *error, size_t error_size);

static inline const struct config_host *config_local(const struct config *c)
{
	return &c->host[c->local];
}

static inline const struct config_host *config_peer(const struct config *c)
{
	return &c->host[!c->local];
}

/* what this host uses, after overrides */
const char *config_disk(const struct config *c, unsigned int disk); /* its file */
const char *config_bridge(const struct config *c, unsigned int nic);
/* names of the sections that are about this NIC, this disk */
const char *config_nic_section(unsigned int nic);
const char *config_disk_section(unsigned int disk);
const char *config_tls_name(const struct config *c); /* psk, x509, off */
static inline bool config_disk_writable(const struct config *c, unsigned int disk)
{
	return !c->disk[disk].read_only;
}
/* Which of QEMU's machines for PCs? Of an unknown name: neither. */
bool config_is_i440fx(const struct config *c);
bool config_is_q35(const struct config *c);
/* Is this node the one that begins as primary? */
bool config_is_primary(const struct config *c);

/* --- config_arbiter.c: [arbiter] --- */

struct arbiter_config;
/* What the helper process needs. 0, or -EINVAL with "[arbiter] key: what is wrong". out: or NULL */
int config_arbiter(const struct config *c, struct arbiter_config *out, char *error, size_t error_size);

#endif
