/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tap.h - TAP devices: the uplink on the host's bridge, and the VM's side of a NIC
 *
 * Frames are net.h's, with their vnet header.
 */
#ifndef COLO_DAEMON_TAP_H
#define COLO_DAEMON_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A TAP with the name `name` ("": a free one of colo0, colo1, ...), up, and in `bridge` unless that is "".
 * The descriptor, or -errno; `text` says what failed. */
int tap_uplink(const char *name, const char *bridge, char *text, size_t text_size);
/* What may come from it: frames whose checksum is left to do, and TCP frames larger than the MTU. */
void tap_set_offloads(int tap, bool csum, bool tso);

/*
 * The VM's side. QEMU has a TAP as its NIC; what QEMU writes to it comes out of a packet socket, and the
 * other way round. Both are in a network namespace of their own, where nobody else hears or answers.
 */
struct vmtap {
	int sock;
	int tap;             /* QEMU's end: to be closed when QEMU has it */
	char name[16];
};

struct tap_room {
	int ns;              /* the namespace */
	int counters;        /* its /proc/net/dev */
};

/* -errno; needs CAP_SYS_ADMIN. Call it before there are threads. */
int tap_room_open(struct tap_room *r);
void tap_room_close(struct tap_room *r);

/* offload: let the guest leave checksums and segmentation to others. -errno. */
int vmtap_open(struct vmtap *t, const struct tap_room *r, unsigned int number, bool offload);
void vmtap_close(struct vmtap *t);
/* Give a frame to the VM, in one piece. -ENOBUFS: its queue is full, or the frame is larger than the MTU and the
 * guest does not take that; -EINVAL: the vnet header makes no sense. */
int vmtap_send(const struct vmtap *t, const uint8_t *frame, size_t len);
/* Take frames of the VM; the frame may be written to. Returns how many there were, at most TAP_BATCH. */
#define TAP_BATCH 32
typedef void vmtap_fn(void *arg, uint8_t *frame, size_t len);
int vmtap_receive(const struct vmtap *t, vmtap_fn *fn, void *arg);
/* what the guest's driver takes now */
void vmtap_offloads(const struct vmtap *t, bool *csum, bool *tso);

#endif
