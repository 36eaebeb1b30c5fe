# SPDX-License-Identifier: GPL-2.0-or-later
"""Longest gaps of connections which some other program holds, seen on the wire.

pgbench logs transactions, each of seven answers; what its connections had to wait for an answer only
the packets tell. A packet socket sees what arrives from one TCP port of the guest. New bytes are an
answer; a repetition of old ones is not. A connection which the guest has closed is done with; one that
was reset is counted.
"""
import asyncio
import ctypes
import socket
import struct
import time

ETH_P_IP = 0x0800
SO_ATTACH_FILTER = 26
SNAP = 128
BURST = 64
FIN, SYN, RST = 1, 2, 4
# BPF: protocol is TCP and the source port is the last operand (set in port_filter()).
LOAD_PROTOCOL, IS_TCP, HEADER_LENGTH, LOAD_PORT, IS_PORT, TAKE, DROP = (
    (0x30, 0, 0, 9), (0x15, 0, 4, 6), (0xb1, 0, 0, 0), (0x48, 0, 0, 0), (0x15, 0, 1, 0),
    (0x06, 0, 0, SNAP), (0x06, 0, 0, 0))


def port_filter(sock, port):
    """Let only TCP from @port through to @sock."""
    program = (LOAD_PROTOCOL, IS_TCP, HEADER_LENGTH, LOAD_PORT, (*IS_PORT[:3], port), TAKE, DROP)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                    struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))


def segment_parse(packet):
    """(client's port, flags, number of the byte after the payload) of an IPv4 TCP packet, or None."""
    if len(packet) < 20:
        return None
    at = (packet[0] & 15) * 4
    if len(packet) < at + 20:
        return None
    length, = struct.unpack_from("!H", packet, 2)
    port, sequence = struct.unpack_from("!HI", packet, at + 2)
    payload = length - at - (packet[at + 12] >> 4) * 4
    flags = packet[at + 13]
    return port, flags, (sequence + payload + bool(flags & SYN)) & 0xffffffff


class Flow:
    """One connection: how far the guest's stream has come, and when it last moved."""

    def __init__(self, now, upto):
        self.last = now
        self.upto = upto
        self.gap = 0.0
        self.ended = False

    def move(self, now, upto):
        """A segment arrived which ends at @upto."""
        if 0 < (upto - self.upto) & 0xffffffff < 1 << 31:
            self.gap = max(self.gap, now - self.last)
            self.last, self.upto = now, upto


class Wire:
    """All connections to one port of the guest, from start() to stop()."""

    def __init__(self, port):
        self.flows = {}
        self.port = port
        self.resets = 0
        self.sock = None

    def start(self):
        """Listen; PermissionError without root."""
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self.sock.setblocking(False)
        port_filter(self.sock, self.port)
        asyncio.get_running_loop().add_reader(self.sock, self._read)

    def stop(self):
        """Listen no more."""
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()

    def longest(self, without=()):
        """Longest gap of all connections but those from the client's ports @without."""
        now = time.monotonic()
        return max((max(flow.gap, 0 if flow.ended else now - flow.last)
                    for port, flow in self.flows.items() if port not in without), default=0.0)

    def _read(self):
        for _ in range(BURST):
            try:
                packet = self.sock.recv(SNAP)
            except BlockingIOError:
                return
            found = segment_parse(packet)
            if found:
                self._segment(time.monotonic(), *found)

    def _segment(self, now, port, flags, upto):
        flow = self.flows.get(port)
        if flow is None or flags & SYN:
            flow = self.flows[port] = Flow(now, upto)
        flow.move(now, upto)
        self.resets += bool(flags & RST)
        flow.ended = flow.ended or bool(flags & (FIN | RST))
