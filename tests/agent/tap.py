# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM's side of a NIC as the daemon makes it (daemon/tap.h): a TAP and a packet socket in a network
namespace of their own."""
import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454ca, 2, 0x1000, 0x4000
SIOCSIFMTU, SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8922, 0x8913, 0x8914, 1
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 3
VNET = 10

_libc = ctypes.CDLL(None, use_errno=True)
_room = []


def _namespace(fd):
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class _Inside:
    """In the namespace of all TAPs."""

    def __enter__(self):
        self.old = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        if _room:
            _namespace(_room[0])
            return
        if _libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w", encoding="ascii") as f:
            f.write("1")
        _room.extend(os.open(p, os.O_RDONLY) for p in ("/proc/thread-self/ns/net", "/proc/thread-self/net/dev"))

    def __exit__(self, *what):
        _namespace(self.old)
        os.close(self.old)


class Nic:
    """The daemon's end, and QEMU's until QEMU has it."""

    def __init__(self):
        with _Inside():
            self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            ifr = fcntl.ioctl(self.tap, TUNSETIFF,
                              struct.pack("16sH22x", b"nic%d", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
            name = ifr[:16].rstrip(b"\0")
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            for option in (PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING):
                self.sock.setsockopt(SOL_PACKET, option, 1)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            fcntl.ioctl(self.sock, SIOCSIFMTU, struct.pack("16si20x", name, 65521))
            fcntl.ioctl(self.sock, SIOCSIFFLAGS, struct.pack("16sH22x", name, IFF_UP))
            self.sock.bind((name.decode(), ETH_P_ALL))
        self.sock.setblocking(False)
        self.counters = _room[1]

    def passed(self):
        """(descriptors for QEMU, argument of the agent)"""
        fds = [self.tap, self.sock.fileno(), self.counters]
        return fds, "nic={}:{}:{}".format(*fds)

    def frames(self):
        """All frames of the VM that are there, without their vnet header."""
        out = []
        try:
            while data := self.sock.recv(1 << 17):
                out.append(data[VNET:])
        except BlockingIOError:
            return out

    def send(self, frame):
        """To the VM."""
        self.sock.send(bytes(VNET) + frame)

    def flood(self):
        """Write as the VM does until the socket takes no more."""
        size = 1 << 20
        for _ in range(4 * size // 1500):
            os.write(self.tap, bytes(VNET + 1500))

    def close(self):
        """QEMU's end has QEMU's life from here on only if this one is closed."""
        os.close(self.tap)
        self.sock.close()
