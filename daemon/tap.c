/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tap.c - see tap.h
 *
 * The VM's side. A TAP hands what QEMU writes to the kernel's network stack; a packet socket bound to the
 * device takes it from there before write() returns, in order, and what is sent on the socket goes into
 * the queue that QEMU reads. The kernel takes VLAN tags off on that way; they are put back here.
 *
 * The device has no address, no IPv6 and is in no bridge, so the stack drops everything after the socket
 * had it. Its namespace holds nothing else: a guest that asks for the host's address gets no answer here.
 */
#include "daemon/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/net.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
/* As much as the guest's TCP connections may have under way; more is dropped, as by a NIC's full ring. */
#define SOCKET_BYTES (64 << 20)
#define MTU_MAX 65521
#define VLAN_TAG 4
#define MACS 12

/* --- any TAP --- */

static int new_tap(const char *name, short flags, struct ifreq *ifr)
{
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	*ifr = (struct ifreq){ .ifr_flags = IFF_TAP | IFF_NO_PI | flags };
	snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%.15s", name);
	if (ioctl(fd, TUNSETIFF, ifr) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

static int set_up(int sock, const char *name)
{
	struct ifreq ifr = { 0 };

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%.15s", name);
	if (ioctl(sock, SIOCGIFFLAGS, &ifr) < 0)
		return -errno;
	ifr.ifr_flags |= IFF_UP;
	return ioctl(sock, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
}

/* --- uplink --- */

static int add_to_bridge(const char *tap, const char *bridge)
{
	struct ifreq ifr = { 0 };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (s < 0)
		return -errno;
	r = set_up(s, tap);
	if (r == 0 && *bridge) {
		ifr.ifr_ifindex = if_nametoindex(tap);
		snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%.15s", bridge);
		if (ioctl(s, SIOCBRADDIF, &ifr) < 0)
			r = -errno;
	}
	close(s);
	return r;
}

int tap_uplink(const char *name, const char *bridge, char *text, size_t text_size)
{
	struct ifreq ifr;
	int fd = new_tap(*name ? name : "colo%d", IFF_VNET_HDR, &ifr), r;

	if (fd < 0) {
		snprintf(text, text_size, "tap: cannot make TAP %.15s: %s", *name ? name : "colo%d",
			 strerror(-fd));
		return fd;
	}
	tap_set_offloads(fd, false, false);
	r = add_to_bridge(ifr.ifr_name, bridge);
	if (r == 0)
		return fd;
	snprintf(text, text_size, "bridge: cannot put %.15s into bridge '%s': %s", ifr.ifr_name, bridge,
		 strerror(-r));
	close(fd);
	return r;
}

void tap_set_offloads(int tap, bool csum, bool tso)
{
	unsigned long flags = csum ? TUN_F_CSUM : 0;

	if (csum && tso)
		flags |= TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	ioctl(tap, TUNSETOFFLOAD, flags); /* without, frames come as on the wire */
}

/* --- the room for the VM's side --- */

static void no_ipv6(void)
{
	int fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return; /* the kernel has none */
	if (write(fd, "1", 1) < 0)
		perror("disable_ipv6");
	close(fd);
}

static int enter(int ns)
{
	int old = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), r;

	if (old < 0)
		return -errno;
	if ((ns < 0 ? unshare(CLONE_NEWNET) : setns(ns, CLONE_NEWNET)) == 0)
		return old;
	r = -errno;
	close(old);
	return r;
}

/* not to come back would be to lose the host's network: that is worth ending for */
static int leave(int old)
{
	int r = setns(old, CLONE_NEWNET) < 0 ? -errno : 0;

	close(old);
	return r;
}

int tap_room_open(struct tap_room *r)
{
	int old = enter(-1), e;

	*r = (struct tap_room){ -1, -1 };
	if (old < 0)
		return old;
	no_ipv6();
	r->ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	r->counters = open("/proc/thread-self/net/dev", O_RDONLY | O_CLOEXEC);
	e = r->ns < 0 || r->counters < 0 ? -errno : 0;
	if (leave(old) < 0)
		e = -EIO;
	if (e < 0)
		tap_room_close(r);
	return e;
}

void tap_room_close(struct tap_room *r)
{
	if (r->ns >= 0)
		close(r->ns);
	if (r->counters >= 0)
		close(r->counters);
	*r = (struct tap_room){ -1, -1 };
}

/* --- the VM's side --- */

static int set_mtu(int sock, const char *name)
{
	struct ifreq ifr = { .ifr_mtu = MTU_MAX };

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%.15s", name);
	return ioctl(sock, SIOCSIFMTU, &ifr) < 0 ? -errno : 0;
}

static int set_option(int sock, int level, int option, int value)
{
	return setsockopt(sock, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int bind_to(int sock, const char *name)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = __builtin_bswap16(ETH_P_ALL) };

	a.sll_ifindex = if_nametoindex(name);
	if (!a.sll_ifindex || bind(sock, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -errno;
	return 0;
}

static int packet_socket(const char *name)
{
	int s = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

	if (s < 0)
		return -errno;
	r = set_option(s, SOL_PACKET, PACKET_VNET_HDR, 1);
	r = r < 0 ? r : set_option(s, SOL_PACKET, PACKET_AUXDATA, 1);
	r = r < 0 ? r : set_option(s, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
	r = r < 0 ? r : set_option(s, SOL_PACKET, PACKET_QDISC_BYPASS, 1);
	r = r < 0 ? r : set_option(s, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BYTES);
	r = r < 0 ? r : set_option(s, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BYTES);
	r = r < 0 ? r : set_mtu(s, name);
	r = r < 0 ? r : set_up(s, name);
	r = r < 0 ? r : bind_to(s, name);
	if (r == 0)
		return s;
	close(s);
	return r;
}

int vmtap_open(struct vmtap *t, const struct tap_room *room, unsigned int number, bool offload)
{
	struct ifreq ifr;
	int old = enter(room->ns), r = 0;

	*t = (struct vmtap){ .sock = -1, .tap = -1 };
	if (old < 0)
		return old;
	/* one of an earlier QEMU may not be gone yet */
	snprintf(t->name, sizeof(t->name), "nic%u.%%d", number % 100);
	t->tap = new_tap(t->name, offload ? IFF_VNET_HDR : 0, &ifr);
	if (t->tap < 0)
		r = t->tap;
	if (r == 0) {
		snprintf(t->name, sizeof(t->name), "%.15s", ifr.ifr_name);
		t->sock = packet_socket(t->name);
		r = t->sock < 0 ? t->sock : 0;
	}
	if (leave(old) < 0)
		r = -EIO;
	if (r < 0)
		vmtap_close(t);
	return r;
}

void vmtap_close(struct vmtap *t)
{
	if (t->tap >= 0)
		close(t->tap);
	if (t->sock >= 0)
		close(t->sock);
	t->tap = t->sock = -1;
}

int vmtap_send(const struct vmtap *t, const uint8_t *frame, size_t len)
{
	return send(t->sock, frame, len, MSG_DONTWAIT) < 0 ? -errno : 0;
}

static const struct tpacket_auxdata *auxdata(struct msghdr *h)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
		if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA)
			return (const void *)CMSG_DATA(c);
	return NULL;
}

static void put16(uint8_t *p, unsigned int v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* there is room for the tag before the frame */
static uint8_t *put_vlan_tag(uint8_t *frame, const struct tpacket_auxdata *a)
{
	uint8_t *to = frame - VLAN_TAG;
	struct virtio_net_hdr vnet;

	memmove(to, frame, VNET_HLEN + MACS);
	put16(to + VNET_HLEN + MACS,
	      a->tp_status & TP_STATUS_VLAN_TPID_VALID ? a->tp_vlan_tpid : ETH_P_8021Q);
	put16(to + VNET_HLEN + MACS + 2, a->tp_vlan_tci);
	memcpy(&vnet, to, sizeof(vnet));
	if (vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		vnet.csum_start += VLAN_TAG;
	if (vnet.hdr_len)
		vnet.hdr_len += VLAN_TAG;
	memcpy(to, &vnet, sizeof(vnet));
	return to;
}
_Static_assert(sizeof(struct virtio_net_hdr) == VNET_HLEN, "vnet header");

static void one_frame(struct mmsghdr *m, vmtap_fn *fn, void *arg)
{
	const struct tpacket_auxdata *a = auxdata(&m->msg_hdr);
	uint8_t *frame = m->msg_hdr.msg_iov->iov_base;
	size_t len = m->msg_len;

	if (len < VNET_HLEN + MACS || m->msg_hdr.msg_flags & MSG_TRUNC)
		return;
	if (a && a->tp_status & TP_STATUS_VLAN_VALID) {
		frame = put_vlan_tag(frame, a);
		len += VLAN_TAG;
	}
	fn(arg, frame, len);
}

int vmtap_receive(const struct vmtap *t, vmtap_fn *fn, void *arg)
{
	static uint8_t frames[TAP_BATCH][VLAN_TAG + NET_FRAME_MAX];
	static _Alignas(struct cmsghdr) uint8_t
		control[TAP_BATCH][CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	struct mmsghdr m[TAP_BATCH];
	struct iovec iov[TAP_BATCH];
	int i, n;

	for (i = 0; i < TAP_BATCH; i++) {
		iov[i] = (struct iovec){ frames[i] + VLAN_TAG, NET_FRAME_MAX };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1,
			.msg_control = control[i], .msg_controllen = sizeof(control[i]) };
	}
	n = recvmmsg(t->sock, m, TAP_BATCH, MSG_DONTWAIT, NULL);
	for (i = 0; i < n; i++)
		one_frame(&m[i], fn, arg);
	return n < 0 ? 0 : n;
}

static bool feature(const struct vmtap *t, uint32_t command)
{
	struct ethtool_value v = { .cmd = command };
	struct ifreq ifr = { .ifr_data = (void *)&v };

	memcpy(ifr.ifr_name, t->name, sizeof(t->name));
	return ioctl(t->sock, SIOCETHTOOL, &ifr) == 0 && v.data;
}

void vmtap_offloads(const struct vmtap *t, bool *csum, bool *tso)
{
	*csum = feature(t, ETHTOOL_GTXCSUM);
	*tso = feature(t, ETHTOOL_GTSO);
}
