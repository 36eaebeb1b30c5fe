/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * kvm.h - the guest's clocks under KVM, and what KVM writes into guest RAM by itself
 */
#ifndef COLO_AGENT_KVM_H
#define COLO_AGENT_KVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KVM_MAX_VCPUS 64

/* What the guest's clocks showed at one moment, put behind the device state of a checkpoint. */
struct kvm_clocks {
	char magic[8];
	uint32_t vcpus, khz; /* of the guest's time stamp counter */
	int64_t clock_ns;    /* kvmclock */
	int64_t at_ns;       /* when, in CLOCK_MONOTONIC of the PVM's host */
	uint64_t tsc;        /* of vCPU 0 */
	uint64_t ahead[KVM_MAX_VCPUS]; /* by how many ticks another vCPU's counter is ahead of vCPU 0's */
};

/*
 * Are the clocks of this VM KVM's, and can they be read and set? All this may be asked only while the vCPUs do not
 * run: KVM lets a vCPU be asked when it is out of the guest.
 */
bool kvm_usable(void);

/* Read the guest's clocks. They go on meanwhile, whether the VM runs or not. */
bool kvm_clocks_read(struct kvm_clocks *now);
/* Cut clocks off the end of @state: its new length. No clocks there, or wrong ones: *found is false. */
size_t kvm_clocks_cut(const uint8_t *state, size_t len, struct kvm_clocks *clocks, bool *found);
/*
 * When the VM runs next, its clocks shall show what @clocks tells, and the time since @ran_at_ns on
 * top (0: nothing). NULL: forget it.
 */
void kvm_clocks_expect(const struct kvm_clocks *clocks, int64_t ran_at_ns);
/* To be called by QEMU when the VM has stopped, before kvmclock has noted that, and before it runs, afterwards. */
void kvm_state_changed(void *opaque, bool running, int state);

/* Blank in saved device state what goes on even while the VM is stopped. */
void kvm_blank_clocks(uint8_t *state, size_t len);

/* Have KVM write to guest RAM what it also writes there when device state is loaded. */
void kvm_write_ram(void);

#endif
