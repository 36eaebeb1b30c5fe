# SPDX-License-Identifier: GPL-2.0-or-later
"""
A replication link that is slow, far away, or loses frames.

Theory of operation. The link's two ends meet in a bridge of the switch's namespace. This process takes both ports out
of the bridge and carries the frames itself, from one packet socket to the other, each when its time has come: behind
the frames before it at the rate of the line, then the delay. What does not fit into the line's queue is lost, as is by
chance the share that is asked for. (Kernels built for small virtual machines have no netem.) Whoever ends this
process puts the ports back into the bridge: net.join_replication().

Frames keep the virtio header that says which work was left to a network card, so TCP's large segments need not be
cut where only delay is asked for. With a rate or losses the hosts cut them (net.set_segments()).

Run in the namespace of the switch: python3 -m labkit.slow BRIDGE PORT PORT FILE. FILE has JSON, {"delay": seconds,
"rate": bytes per second or 0, "loss": share}, and is read again at each SIGHUP.
"""
import collections
import json
import random
import select
import signal
import socket
import subprocess
import sys
import time

ETH_P_ALL = 3
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
SO_RCVBUFFORCE = 33
VNET_HEADER = 10
FRAME_MAX = VNET_HEADER + 14 + 65536
RECEIVE_BUFFER = 16 << 20
QUEUE_S, QUEUE_LEAST = 0.2, 32 << 10    # what a line of some rate may have waiting
BURST = 64


class Line:
    """One direction: frames in with their time, frames out when they are due. No socket, no clock."""

    def __init__(self, chance=random.random):
        self.delay, self.rate, self.loss = 0.0, 0, 0.0
        self.queue = collections.deque()    # (when it is due, frame)
        self.free = 0.0                     # when the line has sent all it got
        self.lost = 0
        self.chance = chance

    def put(self, frame, now):
        """A frame that comes at @now."""
        size = len(frame) - VNET_HEADER
        self.free = max(self.free, now)
        full = self.rate and (self.free - now) * self.rate + size > max(QUEUE_LEAST, QUEUE_S * self.rate)
        if full or self.chance() < self.loss:
            self.lost += 1
            return
        if self.rate:
            self.free += size / self.rate
        # a delay that was made shorter lets no frame overtake another
        due = max(self.free + self.delay, self.queue[-1][0] if self.queue else 0)
        self.queue.append((due, frame))

    def due(self, now):
        """The frames whose time has come."""
        while self.queue and self.queue[0][0] <= now:
            yield self.queue.popleft()[1]

    def next(self):
        """When there is one again, None: nothing waits."""
        return self.queue[0][0] if self.queue else None


def parse_rate(text):
    """Bytes per second of a rate as tc(8) writes it: bits per second, with k, m or g and perhaps `bit`."""
    plain = text.lower().removesuffix("bit")
    factor = {"k": 10**3, "m": 10**6, "g": 10**9}.get(plain[-1:], 1)
    bits = float(plain.rstrip("kmg")) * factor
    if not 1000 <= bits <= 1e11:
        raise ValueError("a rate from 1kbit to 100gbit")
    return int(bits / 8)


def _port(device):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    sock.bind((device, ETH_P_ALL))
    sock.setblocking(False)
    return sock


def _receive(sock):
    for _ in range(BURST):
        try:
            yield sock.recv(FRAME_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            return  # the host has set its end down


def _send(sock, frame):
    try:
        sock.send(frame)
    except OSError:
        pass        # as on any line


def _read_settings(path, lines):
    with open(path, encoding="ascii") as file:
        settings = json.load(file)
    for line in lines:
        line.delay, line.rate, line.loss = settings["delay"], settings["rate"], settings["loss"]


def _carry(ports, lines, changed):
    while not changed:
        times = [line.next() for line in lines if line.next() is not None]
        wait = max(0.0, min(times) - time.monotonic()) if times else 1.0
        ready, _, _ = select.select(ports, [], [], wait)
        now = time.monotonic()
        for port in ready:
            for frame in _receive(port):
                lines[ports.index(port)].put(frame, now)
        for line, port in zip(lines, reversed(ports)):
            for frame in line.due(time.monotonic()):
                _send(port, frame)


def main():
    """The process: until it is killed."""
    bridge, *devices, path = sys.argv[1:]
    changed = []
    signal.signal(signal.SIGHUP, lambda *_: changed.append(True))
    ports, lines = [_port(device) for device in devices], [Line(), Line()]
    for device in devices:
        subprocess.run(["ip", "link", "set", device, "nomaster"], check=True)
    for port in ports:  # what the bridge, too, has carried
        for _ in _receive(port):
            pass
    print(f"took {' and '.join(devices)} out of {bridge}", flush=True)
    while True:
        changed.clear()
        _read_settings(path, lines)
        _carry(ports, lines, changed)


if __name__ == "__main__":
    main()
