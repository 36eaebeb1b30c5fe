# SPDX-License-Identifier: GPL-2.0-or-later
"""DNS queries over UDP, every answer checked. Queries are repeated as resolvers do it, and counted."""
import asyncio
import ipaddress
import random
import socket
import struct
import time

from work import Gaps, Work, Wrong, check

DNS = 53
RETRY = 1.0
TRIES = 15
NAMES = 1000
A, AAAA = 1, 28
INTERVAL = 0.05


def name_bytes(number):
    """host-N.colo.test as DNS writes it."""
    labels = (f"host-{number}", "colo", "test")
    return b"".join(bytes([len(l)]) + l.encode() for l in labels) + b"\0"


def right_address(number, kind):
    """What guest/customize gave host-N."""
    if kind == A:
        return ipaddress.IPv4Address(f"10.53.{number // 256}.{number % 256}").packed
    return ipaddress.IPv6Address(f"fd77:c010:53::{number:x}").packed


def query(ident, number, kind):
    """A query for the address of host-@number."""
    head = struct.pack("!6H", ident, 0x100, 1, 0, 0, 0)
    return head + name_bytes(number) + struct.pack("!2H", kind, 1)


def check_answer(packet, number, kind):
    """Raise Wrong unless @packet is the one right answer."""
    asked = query(0, number, kind)[12:]
    check(len(packet) > 12 + len(asked), "short answer")
    _, flags, questions, answers, _, _ = struct.unpack_from("!6H", packet)
    check(flags & 0x800f == 0x8000 and (questions, answers) == (1, 1),
          f"flags {flags:04x}, {questions} questions, {answers} answers")
    check(packet[12:12 + len(asked)] == asked, "another question")
    address = right_address(number, kind)
    record = struct.pack("!HHHIH", 0xc00c, kind, 1, 60, len(address)) + address
    check(packet[12 + len(asked):][:len(record)] == record, "another address")


class Dns(Work):
    """One socket that asks again and again."""

    def __init__(self, name, host, seed):
        super().__init__(name)
        self.host, self.random = host, random.Random(seed)
        self.asked, self.ident = {}, 0
        self.account.extra.update(retries=0, late=0)
        self.sock = None

    async def run(self, deadline):
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as self.sock:
            self.sock.setblocking(False)
            self.sock.connect((self.host, DNS))
            gaps = Gaps(self.account, time.monotonic())
            while time.monotonic() < deadline:
                gaps.resume(time.monotonic())
                await self._ask(gaps)
                await asyncio.sleep(INTERVAL)

    async def _ask(self, gaps):
        number, kind = self.random.randrange(NAMES), self.random.choice((A, AAAA))
        self.ident = (self.ident + 1) & 0xffff
        self.asked[self.ident] = (number, kind)
        packet = query(self.ident, number, kind)
        for attempt in range(TRIES):
            self.account.extra["retries"] += attempt > 0
            try:
                self.sock.send(packet)
                async with asyncio.timeout(RETRY):
                    await self._answer()
                gaps.answer(time.monotonic())
                self.account.answered()
                return
            except (OSError, TimeoutError):
                continue
            except Wrong as err:
                self.account.failed(f"host-{number} type {kind}: {err}")
                return
        gaps.end(time.monotonic(), True)
        self.account.failed(f"host-{number} type {kind}: no answer to {TRIES} queries")

    async def _answer(self):
        """Wait for the answer to the newest query; answers to earlier ones are checked as well."""
        while True:
            packet = await asyncio.get_running_loop().sock_recv(self.sock, 4096)
            check(len(packet) >= 12, "short answer")
            ident, = struct.unpack_from("!H", packet)
            check(ident in self.asked, f"an answer to nothing that was asked ({ident})")
            check_answer(packet, *self.asked[ident])
            if ident == self.ident:
                return
            self.account.extra["late"] += 1
