# SPDX-License-Identifier: GPL-2.0-or-later
"""
Who serves, as the LAN sees it: from which host frames with the guest's MAC address come.

Theory of operation. One packet socket in the switch's namespace sees what comes in at every port, in the order of
arrival; a filter in the kernel leaves only frames of the guest's MAC, and only those that come in. Host X serves
from its first frame on. A frame of the other host means one of two things:

  takeover   the other host announces itself: it sends an announcement (RARP, ARP or a neighbour advertisement that
             nobody asked for) first, or at most LATE_S after its first frame;
  late       it does not, is the host that served before, and is silent again within LATE_S of the takeover or of its
             first late frame, once for each takeover. A host that was only slow still has frames in its queues that both
             VMs had agreed upon before; no lease could keep it from sending them, and they say what the new one says.
  boots      it does not, but the host that served has said nothing for SILENT_S: both had failed, and the guest boots.
  violation  anything else. Two hosts serve, or one that had lost goes on.

An announcement explains one change only, and a host that serves on does not announce itself again, so two hosts that
serve by turns are found. What the switch cannot tell is a host that announces itself and should not; for that compare
`takeovers` with what the daemons say.

Run in the namespace of the switch: python3 -m labkit.watch MAC PORT=HOST...; one JSON object a line on stdout, for
each change; on each line that stdin gives, a summary since the last one.
"""
import ctypes
import json
import select
import socket
import struct
import sys

ETH_P_ALL = 3
SO_ATTACH_FILTER, SO_TIMESTAMPNS, SO_RCVBUFFORCE = 26, 35, 33
PACKET_OUTGOING = 4
SNAP = 96
RECEIVE_BUFFER = 16 << 20
ANNOUNCE_S = 0.3
LATE_S = 0.1
SILENT_S = 2
SHOWN = 20
ARP, RARP, IP4, IP6, VLAN = 0x0806, 0x8035, 0x0800, 0x86dd, (0x8100, 0x88a8)
ICMP6, NEIGHBOUR_ADVERTISEMENT, SOLICITED = 58, 136, 0x40


def frame_kind(frame):
    """ip, announcement, or other (ARP that is none, and what else a guest may say)."""
    at, kind = 14, int.from_bytes(frame[12:14], "big")
    while kind in VLAN and len(frame) >= at + 4:
        kind, at = int.from_bytes(frame[at + 2:at + 4], "big"), at + 4
    if kind == RARP:
        return "announcement"
    if kind == ARP:
        own, asked = frame[at + 14:at + 18], frame[at + 24:at + 28]
        return "announcement" if own == asked and len(asked) == 4 else "other"
    if kind == IP6 and frame[at + 6:at + 7] == bytes([ICMP6]) and len(frame) > at + 44:
        if frame[at + 40] == NEIGHBOUR_ADVERTISEMENT:
            return "other" if frame[at + 44] & SOLICITED else "announcement"
        return "ip" if frame[at + 40] < 133 or frame[at + 40] > 137 else "other"
    return "ip" if kind in (IP4, IP6) else "other"


class Watch:
    """The rule, fed with frames; no socket, no clock."""

    def __init__(self):
        self.server = None
        self.announced = {}             # host: time of an announcement that explains no takeover yet
        self.last = 0.0                 # frame of the server
        self.late_since = None          # first frame since the takeover of the host that serves no more
        self.reset()

    def reset(self):
        """Begin a new summary; who serves is kept."""
        self.frames, self.late, self.late_ms = {}, 0, 0.0
        self.takeovers, self.violations, self.violation_count = [], [], 0

    def frame(self, now, host, kind):
        """A frame of the guest's MAC came in from @host. Returns what it meant, or None."""
        self.frames[host] = self.frames.get(host, 0) + 1
        if kind == "announcement" and host != self.server:
            self.announced[host] = now
        if self.server is None:
            self.server, self.last = host, now
            return {"event": "serves", "host": host, "at": now}
        if host == self.server:
            self.last = now
            return None
        if now - self.announced.get(host, -1e9) <= ANNOUNCE_S:
            return self._takeover(now, host, "takeover")
        if now - self.last > SILENT_S:
            return self._takeover(now, host, "boots")
        return self._late(now, host, kind)

    def _takeover(self, now, host, event):
        before, self.server, self.last = self.server, host, now
        self.announced.clear()
        self.late_since = None
        self.takeovers.append({"event": event, "host": host, "from": before, "at": now})
        return self.takeovers[-1]

    def _late(self, now, host, kind):
        if self.late_since is None:
            self.late_since = now
        if now - self.late_since <= LATE_S:
            self.late += 1
            self.late_ms = max(self.late_ms, round((now - self.late_since) * 1000, 1))
            return None
        self.violation_count += 1
        said = {"event": "violation", "host": host, "kind": kind, "at": now}
        if len(self.violations) < SHOWN:
            self.violations.append(said)
        return said

    def summary(self):
        """What happened since the last reset()."""
        return {"event": "summary", "server": self.server, "frames": self.frames, "takeovers": self.takeovers,
                "late": self.late, "late_ms": self.late_ms,
                "violations": self.violations, "violation_count": self.violation_count}


def mac_filter(sock, mac):
    """Let only frames that come in from @mac through to @sock."""
    high, low = struct.unpack("!HI", mac)
    program = [(0x28, 0, 0, 0xfffff004),            # ldh  packet type
               (0x15, 5, 0, PACKET_OUTGOING),       # jeq  outgoing: drop
               (0x20, 0, 0, 8),                     # ld   last four bytes of the source address
               (0x15, 0, 3, low),
               (0x28, 0, 0, 6),                     # ldh  first two
               (0x15, 0, 1, high),
               (0x06, 0, 0, SNAP), (0x06, 0, 0, 0)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                    struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))


def open_socket(mac):
    """A packet socket on all devices of the namespace, in order of arrival, with the kernel's time."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    mac_filter(sock, mac)
    try:
        while True:
            sock.recv(1, socket.MSG_DONTWAIT)   # what came before the filter was there
    except BlockingIOError:
        return sock


def receive(sock, ports):
    """(time, host, kind) of the next frame, None when it came in at no host's port."""
    frame, control, _, address = sock.recvmsg(SNAP, 64, socket.MSG_DONTWAIT)
    host = ports.get(address[0])
    if host is None:
        return None
    seconds, nanoseconds = struct.unpack("qq", control[0][2])
    return seconds + nanoseconds / 1e9, host, frame_kind(frame)


def follow(sock, ports, watch, say):
    """Until stdin ends: feed @watch, say() what it finds; a line on stdin asks for a summary."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(sys.stdin, select.POLLIN)
    while True:
        ready = dict(poll.poll(1000))
        while True:                     # all that has come, before a summary is given
            try:
                found = receive(sock, ports)
            except BlockingIOError:
                break
            said = found and watch.frame(*found)
            if said:
                say(said)
        if sys.stdin.fileno() in ready:
            if not sys.stdin.readline():
                return
            say({**watch.summary(), "dropped": dropped(sock)})
            watch.reset()


def dropped(sock):
    """Frames that did not fit in the socket's buffer since the last question."""
    return struct.unpack("II", sock.getsockopt(263, 6, 8))[1]     # SOL_PACKET, PACKET_STATISTICS


def main(args):
    """Command line: MAC PORT=HOST..."""
    sock = open_socket(bytes.fromhex(args[0].replace(":", "")))
    ports = dict(pair.split("=") for pair in args[1:])
    print(json.dumps({"event": "watching"}), flush=True)
    follow(sock, ports, Watch(), lambda said: print(json.dumps(said), flush=True))


if __name__ == "__main__":
    main(sys.argv[1:])
