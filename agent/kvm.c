/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * kvm.c - the guest's clocks under KVM, and what KVM writes into guest RAM by itself
 *
 * Theory of operation
 *
 * A guest under KVM reads its time from its time stamp counter (TSC): its own as it is, and kvmclock,
 * which is the counter scaled, plus an offset; both are in a page of guest RAM that KVM fills before a vCPU runs. The
 * counter never stands still. QEMU sets kvmclock back when it runs a VM on, to what it was when the VM
 * stopped. So the two part by each pause, and worse: the guest's user space on all vCPUs reads the page of
 * vCPU 0; a vCPU that runs on before vCPU 0 sees the old page, and later sees time go back.
 *
 * Here the guest's time goes on while the VM stands still, and no clock ever parts from another:
 * - a checkpoint does not stop the VM in QEMU's sense, it only holds its vCPUs (qemu.c);
 * - after other short stops (seeding) kvmclock is put back to where the counter says it should be;
 * - a checkpoint carries what counter and kvmclock showed at one moment, and the SVM is given both again with
 *   the same time added, so that the PVM's page, which is in its RAM, is right for it, too.
 * The SVM's counter cannot be left to QEMU's load: KVM takes a value that is less than a second away from
 * what it expects for an attempt to synchronise, and keeps its own. Timers are armed by the counter, so
 * they are armed anew.
 *
 * All this goes by KVM's documented interface, on the descriptors that QEMU has open.
 *
 * KVM writes the guest's wall clock to guest RAM when the register is set that asks for it, as any
 * load of device state does. So after a seeding one page of the SVM is not what the PVM has; the PVM
 * has KVM write that page as well, while it is tracked, and so it is in the first checkpoint.
 */
#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "util.h"

#ifdef __x86_64__

#include <linux/kvm.h>

#define MSR_TSC 0x10
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_WALL_CLOCK 0x11
#define MSR_WALL_CLOCK_NEW 0x4b564d00
#define KEEP_MAX_NS INT64_C(5000000000) /* a longer stop was meant, and the guest's clock stands meanwhile */
#define CLOSE_NS 500 /* how exactly kvmclock is put back */
#define CLOSE_TRIES 30

static const char magic[8] = "COLO-CLK";

/* One moment: kvmclock, and the host's counter. */
struct moment {
	int64_t clock_ns;
	uint64_t host_tsc;
};

static struct {
	int vm, vcpu[KVM_MAX_VCPUS];
	uint32_t vcpus, khz; /* khz 0: clocks are not to be touched */
	bool looked;
	bool stopped_valid; /* where the clock stood when the VM stopped */
	struct moment stopped;
	bool expecting;
	struct kvm_clocks expected;
	int64_t ran_at_ns;
} kvm = { .vm = -1 };

/* --- KVM's interface --- */

static bool get_msr(int vcpu, uint32_t index, uint64_t *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { .head.nmsrs = 1, .entry.index = index };

	if (ioctl(vcpu, KVM_GET_MSRS, &m) != 1)
		return false;
	*value = m.entry.data;
	return true;
}

static bool set_msr(int vcpu, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };

	return ioctl(vcpu, KVM_SET_MSRS, &m) == 1;
}

static bool tsc_offset(int vcpu, unsigned long request, uint64_t *offset)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset,
	};

	return ioctl(vcpu, request, &attr) == 0;
}

/* What KVM says belongs together; where it does not say, the closest of a few tries. */
static bool read_moment(struct moment *m)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		struct kvm_clock_data data = { 0 };
		uint64_t before = __builtin_ia32_rdtsc(), after;

		if (ioctl(kvm.vm, KVM_GET_CLOCK, &data) < 0)
			return false;
		after = __builtin_ia32_rdtsc();
		if (data.flags & KVM_CLOCK_HOST_TSC) {
			*m = (struct moment){ data.clock, data.host_tsc };
			return true;
		}
		if (after - before < least) {
			least = after - before;
			*m = (struct moment){ data.clock, before + least / 2 };
		}
	}
	return true;
}

static bool set_clock(int64_t clock_ns)
{
	struct kvm_clock_data data = { .clock = clock_ns };

	return ioctl(kvm.vm, KVM_SET_CLOCK, &data) == 0;
}

static int64_t ticks_to_ns(int64_t ticks, uint32_t khz)
{
	return (__int128)ticks * 1000000 / khz;
}

static int64_t ns_to_ticks(int64_t ns, uint32_t khz)
{
	return (__int128)ns * khz / 1000000;
}

/* --- finding it --- */

static void note_descriptor(int fd, const char *target)
{
	unsigned int index;

	if (!strcmp(target, "anon_inode:kvm-vm")) {
		kvm.vm = fd;
	} else if (sscanf(target, "anon_inode:kvm-vcpu:%u", &index) == 1 && index < KVM_MAX_VCPUS) {
		kvm.vcpu[index] = fd;
		if (index >= kvm.vcpus)
			kvm.vcpus = index + 1;
	}
}

static void list_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;

	kvm.vm = -1;
	kvm.vcpus = 0;
	memset(kvm.vcpu, -1, sizeof(kvm.vcpu));
	while (dir && (e = readdir(dir))) {
		char target[64];
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

		if (n > 0) {
			target[n] = '\0';
			note_descriptor(atoi(e->d_name), target);
		}
	}
	if (dir)
		closedir(dir);
}

/* Is the guest's counter the host's, plus an offset? (It is not if KVM scales it.) */
static bool unscaled(int vcpu)
{
	uint64_t offset, before, tsc, after;

	if (!tsc_offset(vcpu, KVM_GET_DEVICE_ATTR, &offset))
		return false;
	before = __builtin_ia32_rdtsc() + offset;
	if (!get_msr(vcpu, MSR_TSC, &tsc))
		return false;
	after = __builtin_ia32_rdtsc() + offset;
	return tsc - before <= after - before;
}

static void look(void)
{
	struct moment m;
	int khz;

	kvm.looked = true;
	list_descriptors();
	if (kvm.vm < 0 || !kvm.vcpus)
		return;
	for (uint32_t i = 0; i < kvm.vcpus; i++)
		if (kvm.vcpu[i] < 0 || !unscaled(kvm.vcpu[i]))
			return;
	khz = ioctl(kvm.vcpu[0], KVM_GET_TSC_KHZ);
	if (khz > 0 && read_moment(&m))
		kvm.khz = khz;
}

bool kvm_usable(void)
{
	if (!kvm.looked)
		look();
	return kvm.khz > 0;
}

/* --- clocks --- */

bool kvm_clocks_read(struct kvm_clocks *now)
{
	uint64_t first, offset;
	struct moment m;

	if (!kvm_usable() || !tsc_offset(kvm.vcpu[0], KVM_GET_DEVICE_ATTR, &first) || !read_moment(&m))
		return false;
	memset(now, 0, sizeof(*now));
	memcpy(now->magic, magic, sizeof(magic));
	now->vcpus = kvm.vcpus;
	now->khz = kvm.khz;
	now->clock_ns = m.clock_ns;
	now->at_ns = now_ns() - ticks_to_ns(__builtin_ia32_rdtsc() - m.host_tsc, kvm.khz);
	now->tsc = m.host_tsc + first;
	for (uint32_t i = 1; i < kvm.vcpus; i++) {
		if (!tsc_offset(kvm.vcpu[i], KVM_GET_DEVICE_ATTR, &offset))
			return false;
		now->ahead[i] = offset - first;
	}
	return true;
}

/* Within what KVM takes for the same rate, and QEMU lets two hosts have. */
static bool alike(int64_t a, int64_t b)
{
	return a > 0 && b > 0 && llabs(a - b) <= a / 4000;
}

/* They came from the peer: what does not fit is not believed, and the clocks are QEMU's matter. */
size_t kvm_clocks_cut(const uint8_t *state, size_t len, struct kvm_clocks *clocks, bool *found)
{
	*found = false;
	if (len < sizeof(*clocks))
		return len;
	memcpy(clocks, state + len - sizeof(*clocks), sizeof(*clocks));
	if (memcmp(clocks->magic, magic, sizeof(magic)))
		return len;
	*found = kvm_usable() && clocks->vcpus == kvm.vcpus && alike(clocks->khz, kvm.khz) && clocks->clock_ns >= 0 &&
		 clocks->clock_ns < INT64_MAX / 2;
	return len - sizeof(*clocks);
}

void kvm_clocks_expect(const struct kvm_clocks *clocks, int64_t ran_at_ns)
{
	kvm.expecting = clocks != NULL;
	if (!clocks)
		return;
	kvm.expected = *clocks;
	kvm.ran_at_ns = ran_at_ns;
	/* what the clock was before the load is of no interest any more */
	kvm.stopped_valid = false;
}

/* Timers that the counter drives were armed by what it showed then. */
static void arm_deadlines(void)
{
	uint64_t deadline;

	for (uint32_t i = 0; i < kvm.vcpus; i++)
		if (get_msr(kvm.vcpu[i], MSR_TSC_DEADLINE, &deadline) && deadline)
			set_msr(kvm.vcpu[i], MSR_TSC_DEADLINE, deadline);
}

/* First kvmclock, roughly; then the counters, exactly by what kvmclock became. */
static void set_expected(void)
{
	const struct kvm_clocks *e = &kvm.expected;
	int64_t since = kvm.ran_at_ns > 0 ? now_ns() - kvm.ran_at_ns : 0;
	struct moment m;
	uint64_t first;

	if (since < 0 || !set_clock(e->clock_ns + since) || !read_moment(&m))
		return;
	first = e->tsc + ns_to_ticks(m.clock_ns - e->clock_ns, e->khz) - m.host_tsc;
	for (uint32_t i = 0; i < kvm.vcpus; i++) {
		uint64_t offset = first + e->ahead[i];

		tsc_offset(kvm.vcpu[i], KVM_SET_DEVICE_ATTR, &offset);
	}
	arm_deadlines();
}

/* How far kvmclock is behind where it would be had it gone on since @then. */
static bool behind(const struct moment *then, struct moment *now, int64_t *ns)
{
	if (!read_moment(now))
		return false;
	*ns = then->clock_ns + ticks_to_ns(now->host_tsc - then->host_tsc, kvm.khz) - now->clock_ns;
	return true;
}

/* Put kvmclock back on its line. Each setting takes effect a little after its value was computed. */
static void go_on_from(const struct moment *then)
{
	int64_t lost, extra = 0;
	struct moment m;

	if (!behind(then, &m, &lost) || lost <= 0 || lost > KEEP_MAX_NS)
		return;
	for (int i = 0; i < CLOSE_TRIES; i++) {
		if (!behind(then, &m, &lost) || !set_clock(m.clock_ns + lost + extra) ||
		    !behind(then, &m, &lost))
			return;
		if (lost <= 0 && lost > -CLOSE_NS)
			return;
		extra += lost + CLOSE_NS / 4;
	}
}

void kvm_state_changed(void *opaque, bool running, int state)
{
	(void)opaque;
	(void)state;
	if (!kvm_usable())
		return;
	if (!running)
		kvm.stopped_valid = read_moment(&kvm.stopped);
	else if (kvm.expecting)
		set_expected();
	else if (kvm.stopped_valid)
		go_on_from(&kvm.stopped);
	if (running)
		kvm.expecting = kvm.stopped_valid = false;
}

void kvm_write_ram(void)
{
	static const uint32_t written[] = { MSR_WALL_CLOCK, MSR_WALL_CLOCK_NEW };
	uint64_t value;

	kvm_usable();
	for (unsigned int i = 0; i < sizeof(written) / sizeof(written[0]); i++)
		if (kvm.vcpus && get_msr(kvm.vcpu[0], written[i], &value) && value)
			set_msr(kvm.vcpu[0], written[i], value);
}

/* QEMU's record of kvmclock: its length and name, instance 0, version 1, then be64 ns. */
void kvm_blank_clocks(uint8_t *state, size_t len)
{
	static const uint8_t id[] = { 8, 'k', 'v', 'm', 'c', 'l', 'o', 'c', 'k', 0, 0, 0, 0, 0, 0, 0, 1 };

	for (size_t i = 0; i + sizeof(id) + 8 <= len; i++)
		if (!memcmp(state + i, id, sizeof(id)))
			memset(state + i + sizeof(id), 0, 8);
}

#else

bool kvm_usable(void)
{
	return false;
}

bool kvm_clocks_read(struct kvm_clocks *now)
{
	(void)now;
	return false;
}

size_t kvm_clocks_cut(const uint8_t *state, size_t len, struct kvm_clocks *clocks, bool *found)
{
	(void)state;
	(void)clocks;
	*found = false;
	return len;
}

void kvm_clocks_expect(const struct kvm_clocks *clocks, int64_t ran_at_ns)
{
	(void)clocks;
	(void)ran_at_ns;
}

void kvm_state_changed(void *opaque, bool running, int state)
{
	(void)opaque;
	(void)running;
	(void)state;
}

void kvm_write_ram(void)
{
}

void kvm_blank_clocks(uint8_t *state, size_t len)
{
	(void)state;
	(void)len;
}

#endif
