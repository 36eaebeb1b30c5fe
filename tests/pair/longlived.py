#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that are opened at once and talk for as long as they are let: longlived.py STATE ADDRESS...

To each address of the guest: its echo service asked every 60 ms, or seldom, or sent a stream; and the
same over connections that the guest opens itself (GUEST, which start_guest() runs there). Every byte that comes
back is checked. STATE is a JSON object of what has become of them, written twice a second: open, broken (texts),
rounds (of the slowest), gap (longest time in seconds from sending to the answer), and all of that by kind.
"""
import asyncio
import json
import os
import socket
import sys
import time

ECHO, GUEST_PORT = 7, 9999
TALKERS, IDLERS, STREAMS, CALLS = 6, 3, 1, 4
KINDS = {"talk": 0.06, "idle": 3.0, "stream": 0.0, "call": 0.1}  # seconds between two rounds
CHUNK = 16384
STREAM_RATE = 40  # chunks a second

GUEST = """
use strict; use IO::Socket::IP; $SIG{CHLD} = "IGNORE";
my $l = IO::Socket::IP->new(LocalHost => "::", LocalPort => %d, Listen => 50, ReuseAddr => 1, V6Only => 0) or die;
while (1) {
	my $c = $l->accept or next;
	next if fork;
	my ($host, $port) = split " ", <$c>;
	my $o = IO::Socket::IP->new(PeerHost => $host, PeerPort => $port) or exit 1;
	while (sysread($o, my $b, 65536)) { print $o $b; $o->flush }
	exit;
}
""" % GUEST_PORT


def start_guest(pair):
    """Lets the guest open connections where it is asked to; the program goes there over ssh."""
    pair.ssh(f"cat >/tmp/calls.pl <<'END'\n{GUEST}\nEND\nsetsid perl /tmp/calls.pl >/tmp/calls.log 2>&1 </dev/null &\n"
             f"until grep -q ':{GUEST_PORT:04X} ' /proc/net/tcp6; do sleep 0.1; done")


class Connection:
    def __init__(self, kind, name):
        self.kind, self.name = kind, name
        self.rounds, self.gap, self.asked, self.broken = 0, 0.0, 0.0, None

    def content(self, i):
        size = CHUNK if self.kind == "stream" else 20 + i * 131 % 2900
        return (b"%s %d " % (self.name.encode(), i) * (size // 8))[:size]

    def answered(self, since):
        self.rounds += 1
        self.gap = max(self.gap, time.monotonic() - since)

    def pending(self):
        return time.monotonic() - self.asked if self.asked else 0.0

    async def talk(self, reader, writer):
        while True:
            data = self.content(self.rounds)
            self.asked = time.monotonic()
            writer.write(data)
            if await reader.readexactly(len(data)) != data:
                raise ValueError(f"wrong answer in round {self.rounds}")
            self.answered(self.asked)
            self.asked = 0.0
            await asyncio.sleep(KINDS[self.kind])

    async def stream(self, reader, writer):
        """Sends on while answers are under way, 1 MiB of them at most."""
        sent = asyncio.Queue(64)

        async def send():
            for i in range(1 << 30):
                await sent.put(time.monotonic())
                writer.write(self.content(i))
                await writer.drain()
                await asyncio.sleep(1 / STREAM_RATE)

        sender = asyncio.create_task(send())
        try:
            while True:
                if await reader.readexactly(CHUNK) != self.content(self.rounds):
                    raise ValueError(f"wrong answer in round {self.rounds}")
                self.answered(await sent.get())
        finally:
            sender.cancel()

    async def run(self, reader, writer):
        try:
            await (self.stream if self.kind == "stream" else self.talk)(reader, writer)
        except (OSError, EOFError, ValueError) as error:
            self.broken = f"{self.name}, round {self.rounds}: {error!r}"


class Client:
    def __init__(self, addresses):
        self.addresses, self.all, self.tasks, self.calls = addresses, [], [], []

    def begin(self, kind, name, streams):
        self.all.append(Connection(kind, name))
        self.tasks.append(asyncio.create_task(self.all[-1].run(*streams)))

    async def called(self, reader, writer):
        name = f"call-{len([c for c in self.all if c.kind == 'call'])}-{writer.get_extra_info('peername')[0]}"
        self.begin("call", name, (reader, writer))

    async def ask_for_calls(self, address):
        """The guest opens connections to us; the one that asks for it stays open, too."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = await asyncio.start_server(self.called, None, 0, family=family)
        port = server.sockets[0].getsockname()[1]
        for _ in range(CALLS):
            self.calls.append(await asyncio.open_connection(address, GUEST_PORT))
            writer = self.calls[-1][1]
            writer.write(f"{writer.get_extra_info('sockname')[0]} {port}\n".encode())

    async def open_all(self):
        for address in self.addresses:
            for kind, count in (("talk", TALKERS), ("idle", IDLERS), ("stream", STREAMS)):
                for i in range(count):
                    self.begin(kind, f"{kind}-{i}-{address}", await asyncio.open_connection(address, ECHO))
            await self.ask_for_calls(address)
        while len([c for c in self.all if c.kind == "call"]) < CALLS * len(self.addresses):
            await asyncio.sleep(0.02)

    def summary(self, which):
        return {"open": len([c for c in which if not c.broken]), "broken": [c.broken for c in which if c.broken],
                "rounds": min((c.rounds for c in which), default=0),
                "gap": round(max((max(c.gap, c.pending()) for c in which), default=0.0), 3)}

    def write_state(self, path):
        state = self.summary(self.all)
        state["kinds"] = {k: self.summary([c for c in self.all if c.kind == k]) for k in KINDS}
        state["asking"] = len(self.calls)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(state, file)
        os.rename(path + ".new", path)

    async def run(self, path):
        await asyncio.wait_for(self.open_all(), 20)
        while True:
            self.write_state(path)
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(Client(sys.argv[2:]).run(sys.argv[1]))
