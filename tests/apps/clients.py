#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""All application workloads at once, in one program inside the client's namespace.

Lines of JSON on stdout say how far it is: `ready` when the connections that are to be older than
protection are open (it then waits for a line on stdin), `begin` when every workload serves,
`result` at the end. test_apps.py starts it, causes the failure after `begin`, and judges.
"""
import argparse
import asyncio
import hashlib
import json
import os
import sys
import tempfile
import time

import curlwork
import dns
import lines
import objects
import sshwork
import websocket
from work import Work

from load import web  # pylint: disable=wrong-import-order
from load.wire import Wire  # pylint: disable=wrong-import-order

HTTP, HTTPS, SSH = 80, 443, 22
BULK = 50 << 20
MANY = 500
START_LIMIT = 90
# what the guest sends as down.bin: 10m.bin five times, each time begun elsewhere
SHIFT = 4099
MAKE_DOWN = (f"cd /var/www/html; for i in 0 1 2 3 4; do tail -c +$((i*{SHIFT}+1)) 10m.bin; "
             f"head -c $((i*{SHIFT})) 10m.bin; done >/root/down.bin; sync")


def say(event, **values):
    """Report to test_apps.py."""
    print(json.dumps({"event": event, **values}), flush=True)


class Web(Work):
    """Keep-alive HTTP by demo/load."""

    def __init__(self, name, host, reference, clients):
        super().__init__(name)
        self.clients = clients
        self.load = web.WebLoad(self.account, host, HTTP, "/1k", reference, False, 0.05)

    async def run(self, deadline):
        await self.load.run(self.clients, deadline)


class Clients:
    """The workloads, in the order in which they start."""

    def __init__(self, options, scratch):
        self.o = options
        self.scratch = scratch
        self.old = [lines.Old("opened before protection", options.ip),
                    lines.Idle("opened before protection, idle", options.ip)]
        self.reference = self.big = self.down = None
        self.works = []

    async def prepare(self):
        """Before protection: what answers are compared with, files, and the old connections."""
        o = self.o
        self.reference = await web.fetch(o.ip, HTTP, "/1k")
        self.big = await web.fetch(o.ip, HTTP, "/10m.bin")
        await sshwork.guest_run(o.ip, o.key, MAKE_DOWN)
        down = hashlib.sha256()
        for i in range(5):
            down.update(self.big[i * SHIFT:] + self.big[:i * SHIFT])
        self.down = down.hexdigest()
        with open(self.file("up"), "wb") as file:
            file.write(objects.content(1, BULK))
        for work in self.old:
            await work.start()

    def file(self, name):
        """Path of a scratch file."""
        return os.path.join(self.scratch, name)

    def _ssh(self, wire):
        o = self.o
        rate = int(BULK / (o.duration * 0.8))
        return [sshwork.Session("ssh session", o.ip, o.key),
                sshwork.Upload("scp 50 MiB up", o.ip, o.key, self.file("up"), rate, wire),
                sshwork.Fetch("scp 50 MiB down", o.ip, o.key, self.file("down"), rate, wire,
                              self.down)]

    def _curl(self):
        o = self.o
        sha, count = hashlib.sha256(self.big).hexdigest(), o.duration * 10
        return [curlwork.Download("curl IPv6, download", curlwork.url_of(o.ip6, "/10m.bin"),
                                  len(self.big), o.duration * 0.9, sha),
                curlwork.Requests("curl IPv6, keep-alive", curlwork.url_of(o.ip6, "/1k"), count, 10,
                                  self.reference),
                curlwork.Cookies("curl TLS, random cookies",
                                 curlwork.url_of(o.ip, "/cookie", "https"), count, 10)]

    def _guest(self, server):
        o, seconds = self.o, self.o.duration
        return [objects.GuestFetch("guest downloads, new connections", o.ip, o.key, server,
                                   o.client, 10, seconds + 4, 65536),
                objects.GuestCurl("guest downloads, one (IPv6)", o.ip, o.key, o.client6, 2 << 20,
                                  seconds + 4)]

    async def load(self):
        """All at once."""
        o = self.o
        wire, server = Wire(SSH), objects.Server()
        wire.start()
        await server.start()
        await curlwork.window_limit()
        works = [*self._ssh(wire), Web("HTTP keep-alive", o.ip, self.reference, 8), *self._curl(),
                 dns.Dns("DNS over UDP, IPv4", o.ip, o.seed),
                 dns.Dns("DNS over UDP, IPv6", o.ip6, o.seed + 1),
                 websocket.WsEcho("WebSocket, echo", o.ip),
                 websocket.WsPush("WebSocket, push", o.ip),
                 lines.Lines(f"{MANY} connections", o.ip, MANY, 2.0), *self._guest(server)]
        async with asyncio.timeout(START_LIMIT):
            for work in works:
                await work.start()
        self.works = [*self.old, *works]
        say("begin", at=time.monotonic())
        deadline = time.monotonic() + o.duration
        await asyncio.gather(*(work.whole(deadline) for work in self.works))
        wire.stop()


async def main(options):
    """Prepare, wait for protection, load, report."""
    with tempfile.TemporaryDirectory(prefix="colo-apps-") as scratch:
        clients = Clients(options, scratch)
        await clients.prepare()
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        await clients.load()
        say("result", workloads=[work.report() for work in clients.works])


def options_parse():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("ip", "ip6", "client", "client6", "key"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--duration", type=int, default=16, help="seconds of load")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(options_parse()))
