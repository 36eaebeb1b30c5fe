#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One open connection to the echo service, a line each INTERVAL: probe.py ADDRESS. Runs until stdin ends.

On each line from stdin it says, as JSON, the silences longer than LONG since the last question: [begin, length], in
seconds (CLOCK_REALTIME). A line is sent whether or not the one before has come back, so a silence is one of the guest,
and bytes are checked: `wrong` counts lines that are not what was sent.
"""
import json
import select
import socket
import sys
import time

INTERVAL, LONG = 0.002, 0.01
ECHO = 7
LINE = 10


class Probe:
    """The connection, and what it has seen."""

    def __init__(self, address):
        self.sock = socket.create_connection((address, ECHO), 10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.sent = self.got = self.wrong = 0
        self.rest = b""
        self.last = time.time()
        self.silences = []

    def send(self):
        """The next line, unless the socket is full."""
        try:
            self.sock.send(b"%09d\n" % (self.sent % 10 ** 9))
            self.sent += 1
        except BlockingIOError:
            pass

    def receive(self):
        """Check what has come back."""
        now = time.time()
        data = self.rest + self.sock.recv(65536)
        if len(data) == len(self.rest):
            raise ConnectionError("the guest closed the connection")
        if now - self.last >= LONG:
            self.silences.append((round(self.last, 6), round(now - self.last, 6)))
        self.last = now
        for at in range(0, len(data) - LINE + 1, LINE):
            self.wrong += data[at:at + LINE] != b"%09d\n" % (self.got % 10 ** 9)
            self.got += 1
        self.rest = data[len(data) // LINE * LINE:]

    def run(self):
        """Until stdin ends."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.register(sys.stdin, select.POLLIN)
        due = time.monotonic()
        while True:
            ready = dict(poll.poll(max(0, (due - time.monotonic()) * 1000)))
            if self.sock.fileno() in ready:
                self.receive()
            if time.monotonic() >= due:
                self.send()
                due = max(due + INTERVAL, time.monotonic())
            if sys.stdin.fileno() in ready:
                if not sys.stdin.readline():
                    return
                print(json.dumps({"silences": self.silences, "lines": self.got, "wrong": self.wrong}), flush=True)
                self.silences = []


if __name__ == "__main__":
    print(json.dumps({"ready": True}), flush=True)
    Probe(sys.argv[1]).run()
