/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test_config.c - what is wrong with a configuration is said in one line that names file, line and key
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/tls.h"
#include "daemon/config.h"

static char path[] = "/tmp/colo-test-config-XXXXXX";
static struct config config;
static char error[512];

/* the least that is accepted, 11 lines; %s: what a test adds in line 12 */
static const char base[] =
	"[vm]\n"
	"name = web\n"
	"mac = 52:54:00:12:34:56\n"
	"disk = /srv/web.img\n"
	"\n"
	"; hosts\n"
	"[host a]\n"
	"address = 127.0.0.1\n"
	"[host b]\n"
	"address = 127.0.0.2\n"
	"\n";

static int load(const char *text, const char *more, const char *node)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fprintf(f, "%s%s", text, more);
	assert_int_equal(fclose(f), 0);
	*error = 0;
	return config_load(&config, path, node, error, sizeof(error));
}

/* with this address of b */
static int load_address(const char *address, const char *more)
{
	char text[600], *at;

	snprintf(text, sizeof(text), "%s", base);
	at = strstr(text, "127.0.0.2");
	snprintf(at, sizeof(text) - (at - text), "%s\n", address);
	return load(text, more, "a");
}

static void assert_error(const char *text, const char *more, const char *want)
{
	assert_int_equal(load(text, more, "a"), -EINVAL);
	if (strncmp(error, path, strlen(path)) || strcmp(error + strlen(path), want))
		fail_msg("\n  '%s%s'\n  gives  '%s'\n  wanted '%s%s'", text == base ? "..." : text, more, error,
			 path, want);
	assert_null(strchr(error, '\n'));
}

static int setup(void **state)
{
	int fd = mkstemp(path);

	return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
	return unlink(path);
}

static void test_defaults(void **state)
{
	assert_int_equal(load(base, "", "b"), 0);
	assert_string_equal(config.name, "web");
	assert_int_equal(config.memory, 1u << 30);
	assert_int_equal(config.vcpus, 1);
	assert_string_equal(config.machine, "pc");
	assert_int_equal(config.accel, ACCEL_AUTO);
	assert_int_equal(config.driver, DRIVER_AUTO);
	assert_int_equal(config.virtio, VIRTIO_LEGACY);
	assert_int_equal(config.vga, VGA_NONE);
	assert_false(config.rng || config.tablet || config.root_ports);
	assert_string_equal(config.devices, "");
	assert_int_equal(config.mode, MODE_COLO);
	assert_int_equal(config.heartbeat_us, 100000);
	assert_int_equal(config.misses, 5);
	assert_int_equal(config.host[0].port, 7400);
	assert_string_equal(config.primary, "a");
	assert_string_equal(config_local(&config)->name, "b");
	assert_string_equal(config_peer(&config)->name, "a");
	assert_false(config_is_primary(&config));
	assert_string_equal(config_local(&config)->state, "/run/colo/web");
	assert_string_equal(config_local(&config)->data, "/var/lib/colo/web");
	assert_int_equal(config.disks, 1);
	assert_int_equal(config.disk[0].format, FORMAT_RAW);
	assert_int_equal(config.disk[0].sector, 512);
	assert_true(config_disk_writable(&config, 0));
	assert_int_equal(config.journal, 256u << 20);
	assert_int_equal(config.sync_rate, 0);
	assert_memory_equal(config.nic[0].mac_bytes, "\x52\x54\x00\x12\x34\x56", 6);
}

static void test_overrides_and_units(void **state)
{
	assert_int_equal(load(base, "disk = /b.img\nbridge = br7\nport = 7\nstate = /tmp/s\n"
			      "[vm]\nmemory = 512M\nprimary = b\n[net]\nbridge=br0\n"
			      "[protection]\nmode = checkpoint\ninterval=20ms\nperiodic = 2s\nwait-min=1500us\n"
			      "[disk]\ncache-max = 1048576k\n", "b"), 0);
	assert_string_equal(config_disk(&config, 0), "/b.img");
	assert_string_equal(config_bridge(&config, 0), "br7");
	assert_int_equal(config_local(&config)->port, 7);
	assert_string_equal(config_local(&config)->state, "/tmp/s");
	assert_int_equal(config.memory, 512u << 20);
	assert_true(config_is_primary(&config));
	assert_int_equal(config.mode, MODE_CHECKPOINT);
	assert_int_equal(config.interval_us, 20000);
	assert_int_equal(config.periodic_us, 2000000);
	assert_int_equal(config.wait_min_us, 1500);
	assert_int_equal(config.cache_max, 1u << 30);
	assert_int_equal(load(base, "", "a"), 0);
	assert_string_equal(config_disk(&config, 0), "/srv/web.img");
}

static void test_disks(void **state)
{
	assert_int_equal(load(base, "disk2 = /b2.img\ndata = /srv/data\n"
			      "[disk]\nformat = qcow2\nsector = 4096\njournal = 64M\nsync-rate = 10M\n"
			      "[disk 2]\nfile = /2.img\nread-only = yes\n"
			      "[disk 1]\nfile = /1.img\nsector = 4096\n"
			      "[disk 3]\nfile = /cd.iso\ncdrom = yes\n", "b"), 0);
	assert_int_equal(config.disks, 4);
	assert_int_equal(config.disk[0].format, FORMAT_QCOW2);
	assert_int_equal(config.disk[0].sector, 4096);
	assert_int_equal(config.journal, 64u << 20);
	assert_int_equal(config.sync_rate, 10u << 20);
	assert_string_equal(config_disk(&config, 1), "/1.img");
	assert_int_equal(config.disk[1].sector, 4096);
	assert_true(config_disk_writable(&config, 1));
	assert_string_equal(config_disk(&config, 2), "/b2.img");
	assert_int_equal(config.disk[2].sector, 512);
	assert_false(config_disk_writable(&config, 2));
	assert_true(config.disk[3].cdrom);
	assert_false(config_disk_writable(&config, 3)); /* a CD is read-only without saying so */
	assert_string_equal(config_local(&config)->data, "/srv/data");
	assert_string_equal(config_peer(&config)->data, "/var/lib/colo/web");
	assert_string_equal(config_disk_section(3), "disk 3");
}

/* what two names hide is seen on the host where the files are */
static void test_one_file_behind_two_names(void **state)
{
	char more[300], want[300];

	snprintf(more, sizeof(more), "disk = %s\n[disk 1]\nfile = /tmp/../%s\n", path, path);
	snprintf(want, sizeof(want), ": [host b] /tmp/../%s: is the file of [disk], too", path);
	assert_int_equal(load(base, more, "a"), 0);
	assert_int_equal(load(base, more, "b"), -EINVAL);
	assert_string_equal(error + strlen(path), want);
}

static void test_machine(void **state)
{
	assert_int_equal(load(base, "[vm]\nmachine = pc-q35-7.2\nvirtio = modern\nrng = yes\nvga = std\ntablet = yes\n"
			      "root-ports = yes\ndevices = usb-kbd, i6300esb\ndriver = standby\naccel = kvm\ntracking = sync\n", "a"), 0);
	assert_true(config_is_q35(&config) && !config_is_i440fx(&config));
	assert_int_equal(config.virtio, VIRTIO_MODERN);
	assert_int_equal(config.vga, VGA_STD);
	assert_true(config.rng && config.tablet && config.root_ports);
	assert_string_equal(config.devices, "usb-kbd, i6300esb");
	assert_int_equal(config.driver, DRIVER_STANDBY);
	assert_int_equal(config.tracking, TRACKING_SYNC);
	assert_int_equal(config.accel, ACCEL_KVM);
	assert_int_equal(load(base, "[vm]\nmachine = pc-i440fx-5.1\n", "a"), 0);
	assert_true(config_is_i440fx(&config) && !config_is_q35(&config));
	assert_int_equal(load(base, "[vm]\nmachine = pc-of-next-year\n", "a"), 0); /* the self-test judges */
	assert_false(config_is_i440fx(&config) || config_is_q35(&config));
}

/* what each kind of device that cannot be protected is refused with */
static const struct {
	const char *device, *want;
} cannot[] = {
	{ "virtio-balloon-pci", "it takes RAM from the guest behind the tracker's back: leave it out, the guest keeps all of "
				"[vm] memory" },
	{ "virtio-mem-pci", "it changes RAM behind the tracker's back: set [vm] memory to what the guest needs at most" },
	{ "nvdimm", "it is storage that is not replicated: make it a disk, [disk N]" },
	{ "vfio-pci", "its state is in hardware of one host: give the guest disks and network cards that QEMU emulates" },
	{ "ivshmem-plain", "another process or the kernel would write to the guest's RAM, unseen: let the guests talk over "
			   "the network" },
	{ "vhost-user-fs-pci", "another process or the kernel would write to the guest's RAM, unseen: share files over the "
			       "network, as by NFS" },
	{ "vhost-user-blk-pci", "another process or the kernel would write to the guest's RAM, unseen: use [net N] and "
				"[disk N], which QEMU emulates" },
	{ "e1000e", "network cards are [net] and [net N], which are virtio-net: leave it out" },
	{ "virtio-scsi-pci", "disks are [disk] and [disk N], CD drives have cdrom = yes there: leave it out" },
	{ "qxl-vga", "its pixels would be part of each checkpoint: take vga = std" },
	{ "virtserialport", "it leads to a program on one host: use the network, as by ssh" },
	{ "nec-usb-xhci", "the USB controller is qemu-xhci, and comes with the devices that need it: leave it out" },
	{ "tpm-crb", "its secrets are in a process of one host: do without" },
};

static void test_devices_that_cannot_be_protected(void **state)
{
	char more[200], want[500];
	size_t i;

	for (i = 0; i < sizeof(cannot) / sizeof(*cannot); i++) {
		snprintf(more, sizeof(more), "[vm]\ndevices = usb-kbd %s\n", cannot[i].device);
		snprintf(want, sizeof(want), ": [vm] devices: %s cannot be protected: %s", cannot[i].device,
			 cannot[i].want);
		assert_error(base, more, want);
	}
}

static void test_long_line(void **state)
{
	char more[400] = "[vm]\nappend = ";

	memset(more + strlen(more), 'x', 300);
	assert_int_equal(load(base, more, "a"), -EINVAL);
	assert_string_equal(error + strlen(path), ":13: longer than 198 characters");
	more[strlen("[vm]\n") + 190] = 0;
	assert_int_equal(load(base, more, "a"), 0);
	assert_int_equal(strlen(config.append), 190 - strlen("append = "));
}

static const struct {
	const char *more, *want;
} bad[] = {
	{ "[vm]\nspeed = 7\n", ":13: [vm] speed: unknown key" },
	{ "[host b]\nspeed = 7\n", ":13: [host b] speed: unknown key" },
	{ "[wm]\nname = x\n", ":13: [wm]: unknown section" },
	{ "nonsense\n", ":12: neither a [section] nor a key = value" },
	{ "[vm\nmemory = 1G\n", ":12: neither a [section] nor a key = value" },
	{ "[vm]\nname = other\n", ":13: [vm] name: given twice" },
	{ "[host b]\naddress = 10.0.0.3\n", ":13: [host b] address: given twice" },
	{ "[vm]\nmemory = lots\n", ":13: [vm] memory: 'lots' is not a number (a size like 512M or 2G)" },
	{ "[vm]\nmemory = 1M\n", ":13: [vm] memory: '1M' is out of range (a size like 512M or 2G)" },
	{ "[vm]\nmemory = 99999999999999999999G\n",
	  ":13: [vm] memory: '99999999999999999999G' is not a number (a size like 512M or 2G)" },
	{ "[vm]\nmemory = 17179869184G\n",
	  ":13: [vm] memory: '17179869184G' is not a number (a size like 512M or 2G)" },
	{ "[vm]\nvcpus = 0\n", ":13: [vm] vcpus: '0' is out of range" },
	{ "[vm]\nvcpus = -1\n", ":13: [vm] vcpus: '-1' is not a number" },
	{ "[vm]\nvcpus = 2x\n", ":13: [vm] vcpus: '2x' is not a number" },
	{ "[vm]\nvcpus =\n", ":13: [vm] vcpus: '' is not a number" },
	{ "[vm]\nmachine = microvm\n", ": [vm] machine: microvm cannot be protected: it has no PCI bus: take pc or q35" },
	{ "[vm]\nmachine = xenpv\n", ": [vm] machine: xenpv cannot be protected: it needs Xen: take pc or q35" },
	{ "[vm]\nmachine = q35,nvdimm=on\n",
	  ":13: [vm] machine: 'q35,nvdimm=on' may have letters, digits, '-', '_' and '.' only" },
	{ "[vm]\naccel = xen\n", ":13: [vm] accel: 'xen' is none of auto, kvm, tcg" },
	{ "[vm]\ntracking = dirty-log\n", ":13: [vm] tracking: 'dirty-log' is none of auto, async, sync" },
	{ "[vm]\ndriver = x-colo\n", ":13: [vm] driver: 'x-colo' is none of auto, direct, standby" },
	{ "[vm]\nvirtio = no\n", ":13: [vm] virtio: 'no' is neither legacy nor modern" },
	{ "[vm]\nvga = qxl\n", ":13: [vm] vga: 'qxl' is neither none nor std" },
	{ "[vm]\nrng = /dev/random\n", ":13: [vm] rng: '/dev/random' is neither yes nor no" },
	{ "[vm]\nroot-ports = yes\n", ": [vm] root-ports: machine pc has no PCI Express: take q35" },
	{ "[vm]\nmachine = q35\nroot-ports = yes\n", ": [vm] root-ports: needs virtio = modern" },
	{ "[vm]\ncpu = host,+invtsc\n",
	  ": [vm] cpu: with invtsc QEMU refuses to migrate, and the copy on the other host is made by migration: leave it out" },
	{ "[vm]\ndevices = pvpanic\n",
	  ": [vm] devices: it is not known whether pvpanic comes back from a checkpoint; known are i6300esb, usb-kbd, "
	  "usb-mouse, virtio-keyboard-pci, virtio-mouse-pci, virtio-tablet-pci" },
	{ "[vm]\ndevices = usb-kbd,bus=other\n",
	  ": [vm] devices: it is not known whether bus=other comes back from a checkpoint; known are i6300esb, usb-kbd, "
	  "usb-mouse, virtio-keyboard-pci, virtio-mouse-pci, virtio-tablet-pci" },
	{ "[vm]\ndevices = usb-kbd a-device-with-a-name-of-more-than-39-characters\n",
	  ": [vm] devices: a name of more than 39 characters" },
	{ "[vm]\nprimary = c\n", ": [vm] primary: 'c' is none of the two hosts" },
	{ "[vm]\nqemu =\n", ":13: [vm] qemu: empty" },
	{ "[net]\ntap = a/b\n", ":13: [net] tap: 'a/b' may have letters, digits, '-', '_' and '.' only" },
	{ "[net]\ntap = a-name-of-16-chr\n", ": [net] tap: longer than 15 characters" },
	{ "[net]\nbridge = a-name-of-sixteen-characters-twice-over\n",
	  ":13: [net] bridge: longer than 31 characters" },
	{ "[protection]\nmode = remus\n", ":13: [protection] mode: 'remus' is neither colo nor checkpoint" },
	{ "[protection]\ninterval = 50\n",
	  ":13: [protection] interval: '50' is not a number (a time like 50ms or 10s)" },
	{ "[protection]\ninterval = 1us\n",
	  ":13: [protection] interval: '1us' is out of range (a time like 50ms or 10s)" },
	{ "[protection]\nwait-min = 2s\n", ": [protection] wait-min: longer than wait-max" },
	{ "[arbiter]\ntype = quorum\n", ": [arbiter] type: 'quorum' is none of witness, etcd, file, none" },
	{ "[arbiter]\ntype = etcd\n", ": [arbiter] address: missing, for type etcd" },
	{ "[arbiter]\ntype = file\n", ": [arbiter] directory: missing, for type file" },
	{ "[arbiter]\ntype = file\ndirectory = x\n", ": [arbiter] directory: 'x' is not a full path" },
	{ "[arbiter]\ntype = file\naddress = x\n", ": [arbiter] address: type file has no such key" },
	{ "[arbiter]\naddress = 10.0.0.1\n", ": [arbiter] address: type none has no such key" },
	{ "[arbiter]\ntype = witness\naddress = ::1\n",
	  ": [arbiter] address: '::1' is not of the form HOST:PORT, or [IPV6]:PORT" },
	{ "[arbiter]\ntype = witness\naddress = 10.0.0.1:1\n",
	  ": [arbiter] tls: missing: 10.0.0.1 is not this machine. Say psk or x509 with tls-dir, or off to do without keys" },
	{ "[arbiter]\ntype = witness\naddress = 127.0.0.1\ntls = yes\n",
	  ": [arbiter] tls: 'yes' is none of psk, x509, off" },
	{ "[arbiter]\ntype = witness\naddress = w\ntls = psk\n", ": [arbiter] tls-dir: missing, for tls = psk" },
	{ "[arbiter]\ntype = etcd\naddress = 10.0.0.1:2379\n",
	  ": [arbiter] address: '10.0.0.1:2379' is not of the form https://HOST:PORT or http://HOST:PORT" },
	{ "[arbiter]\ntype = etcd\naddress = https://a:1, http://b:1\n",
	  ": [arbiter] tls: missing: b is not this machine. Say psk or x509 with tls-dir, or off to do without keys" },
	{ "[arbiter]\ntype = etcd\naddress = http://localhost:1\nuser = u\n",
	  ": [arbiter] password-file: missing, for user = u" },
	{ "[host c]\naddress = 10.0.0.3\n",
	  ":13: [host c]: a pair has two hosts, 'a' and 'b' are named already" },
	{ "[host ]\naddress = 10.0.0.3\n", ":13: [host ]: not a name" },
	{ "[host a b]\naddress = 10.0.0.3\n", ":13: [host a b]: not a name" },
	{ "[disk]\nformat = vmdk\n", ":13: [disk] format: 'vmdk' is neither raw nor qcow2" },
	{ "[disk]\nsector = 520\n", ":13: [disk] sector: '520' is neither 512 nor 4096" },
	{ "[disk]\njournal = 1M\n", ":13: [disk] journal: '1M' is out of range (a size like 512M or 2G)" },
	{ "[disk]\nsync-rate = fast\n", ":13: [disk] sync-rate: 'fast' is not a number (a size like 512M or 2G)" },
	{ "[disk]\nfile = /x\n", ":13: [disk] file: unknown key" },
	{ "[disk]\nread-only = yes\n", ":13: [disk] read-only: unknown key" },
	{ "[disk 1]\nread-only = maybe\n", ":13: [disk 1] read-only: 'maybe' is neither yes nor no" },
	{ "[disk 1]\nsize = 1G\n", ":13: [disk 1] size: unknown key" },
	{ "[disk 1]\nsector = 512\n", ": [disk 1] file: missing (or give a disk1 in each [host])" },
	{ "disk1 = /x\n[disk 1]\nsector = 512\n", ": [disk 1] file: missing (or give a disk1 in each [host])" },
	{ "[disk 2]\nfile = /x\n", ": [disk 1] file: missing (or give a disk1 in each [host])" },
	{ "[disk 8]\nfile = /x\n", ":13: [disk 8]: further disks are [disk 1] to [disk 7]" },
	{ "[disk 0]\nfile = /x\n", ":13: [disk 0]: further disks are [disk 1] to [disk 7]" },
	{ "[disk 1]\nfile = /x\nfile = /y\n", ":14: [disk 1] file: given twice" },
	{ "[disk 1]\nfile = /srv/web.img\n", ": [host a] /srv/web.img: is the file of [disk], too" },
	{ "disk2 = /x\n[disk 1]\nfile = /x\n[disk 2]\nfile = /y\n",
	  ": [host b] /x: is the file of [disk 1], too" },
	{ "disk1 = /x\n", ": [host b] disk1: there is no section [disk 1]" },
	{ "[disk 1]\nfile = /x\ncdrom = yes\nformat = qcow2\n", ": [disk 1] format: a CD is raw" },
	{ "[host b]\nport = 65536\n", ":13: [host b] port: '65536' is out of range" },
};

static void test_bad(void **state)
{
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_error(base, bad[i].more, bad[i].want);
}

#define HOSTS "[host a]\naddress = x\n[host b]\naddress = y\n"

static void test_bad_whole(void **state)
{
	assert_error("", "", ": [vm] name: missing");
	assert_error("[vm]\nname = w\n", HOSTS, ": [vm] mac: missing");
	assert_error("[vm]\nname =\n", HOSTS, ":2: [vm] name: empty");
	assert_error("[vm]\nname = a b\n", "", ":2: [vm] name: 'a b' may have letters, digits, '-', '_' and '.' only");
	assert_error("[vm]\nmac = 01:00:00:00:00:01\n", "",
		     ":2: [vm] mac: '01:00:00:00:00:01' is not a unicast MAC address like 52:54:00:12:34:56");
	assert_error("[vm]\nmac = 52:54\n", "",
		     ":2: [vm] mac: '52:54' is not a unicast MAC address like 52:54:00:12:34:56");
	assert_error("[vm]\nname=w\nmac=52:54:00:00:00:01\n", "[host a]\naddress = x\n",
		     ": two [host NAME] sections are needed, 1 found");
	assert_error("[vm]\nname=w\nmac=52:54:00:00:00:01\n", HOSTS,
		     ": [vm] disk: missing (or give one in each [host])");
	assert_error("[vm]\nname=w\nmac=52:54:00:00:00:01\ndisk=d\n", "[host a]\naddress=x\n[host b]\nport=1\n",
		     ": [host b] address: missing");
	assert_error("[vm]\nname=w\nmac=52:54:00:00:00:01\ndisk=d\n", "[host a]\naddress=x\n[host b]\naddress=x\n",
		     ": [host b] address: the same as that of [host a]");
	assert_error("name = w\n", "", ":1: []: unknown section");
}

/* no silent default for what others can reach */
static void test_tls(void **state)
{
	static const char *const loopback[] = { "127.9.9.9", "::1", "localhost" };
	static const char *const reached[] = { "10.0.0.1", "fd00::1", "128.0.0.1", "left", "localhost.example" };
	char more[200];
	size_t i;

	assert_int_equal(load(base, "", "a"), 0);
	assert_int_equal(config.tls_mode, TLS_OFF);
	assert_string_equal(config.tls_dir, "/etc/colo/tls");
	assert_string_equal(config.tls_user, "colo");
	assert_int_equal(load(base, "[tls]\nmode = x509\ndir = /k\nusername = eve\n", "a"), 0);
	assert_int_equal(config.tls_mode, TLS_X509);
	assert_string_equal(config.tls_dir, "/k");
	assert_string_equal(config.tls_user, "eve");
	for (i = 0; i < 3; i++) {
		snprintf(more, sizeof(more), "%s", loopback[i]);
		assert_int_equal(load_address(more, ""), 0);
	}
	for (i = 0; i < 5; i++) {
		snprintf(more, sizeof(more), "%s", reached[i]);
		assert_int_equal(load_address(more, ""), -EINVAL);
		assert_non_null(strstr(error, ": [tls] mode: missing: make a key with `psktool -u colo -p "
					      "/etc/colo/tls/keys.psk`"));
		assert_int_equal(load_address(more, "[tls]\nmode = off\n"), 0);
		assert_int_equal(config.tls_mode, TLS_OFF);
		assert_int_equal(load_address(more, "[tls]\nmode = psk\n"), 0);
		assert_int_equal(config.tls_mode, TLS_PSK);
	}
}

static void test_node(void **state)
{
	char want[300];

	snprintf(want, sizeof(want), "%s: no section [host c]; this file has 'a' and 'b' (choose one with "
		 "--node)", path);
	assert_int_equal(load(base, "", "c"), -EINVAL);
	assert_string_equal(error, want);
	assert_int_equal(load(base, "", NULL), -EINVAL); /* this machine is neither a nor b */
	assert_non_null(strstr(error, "choose one with --node"));
}

static void test_no_file(void **state)
{
	assert_int_equal(config_load(&config, "/nonexistent.conf", "a", error, sizeof(error)), -EINVAL);
	assert_string_equal(error, "/nonexistent.conf: No such file or directory");
	assert_int_equal(config_load(&config, "/", "a", error, sizeof(error)), -EINVAL);
	assert_true(!strncmp(error, "/: ", 3));
}

/* any bytes: accepted or refused with one line, nothing worse */
static void test_garbage(void **state)
{
	static char text[4096];
	unsigned int seed = getpid(), i, k, n;

	print_message("seed %u\n", seed);
	srand(seed);
	for (i = 0; i < 3000; i++) {
		n = snprintf(text, sizeof(text), "%s", base);
		for (k = rand() % 8; k; k--)
			text[rand() % n] = "\n[]= \t;#\"a\xff\x01" "9"[rand() % 13];
		if (load(text, "", "a") < 0) {
			assert_true(*error);
			assert_null(strchr(error, '\n'));
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_overrides_and_units),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_one_file_behind_two_names),
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_devices_that_cannot_be_protected),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_bad_whole),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_node),
		cmocka_unit_test(test_no_file),
		cmocka_unit_test(test_garbage),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
