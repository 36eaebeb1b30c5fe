# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections to the echo service that exchange numbered lines: a busy one, an idle one, many."""
import asyncio
import time

from work import GONE, TIMEOUT, Gaps, Work, Wrong, check

ECHO = 7
AT_ONCE = 32        # connections being opened


class LineConnection:
    """One connection; a line is sent when the one before has come back."""

    def __init__(self, account, name):
        self.account, self.name = account, name
        self.number = 0
        self.broken = False
        self.reader = self.writer = self.gaps = None

    async def open(self, host):
        """Connect and exchange the first line."""
        try:
            async with asyncio.timeout(TIMEOUT):
                self.reader, self.writer = await asyncio.open_connection(host, ECHO)
        except GONE as err:
            self.account.failed(f"{self.name}: connect: {err!r}")
            self.broken = True
            return
        self.gaps = Gaps(self.account, time.monotonic())
        await self.exchange()

    async def exchange(self):
        """One line to the guest and back."""
        if self.broken:
            return
        line = f"{self.name} {self.number:06d} {self.number * 2654435761 % 2**32:08x}\n".encode()
        self.number += 1
        self.gaps.resume(time.monotonic())
        try:
            async with asyncio.timeout(TIMEOUT):
                self.writer.write(line)
                got = await self.reader.readexactly(len(line))
            check(got == line, f"{got!r} for {line!r}")
            self.gaps.answer(time.monotonic())
            self.account.answered()
        except Wrong as err:
            self.account.failed(f"{self.name}: {err}")
            self.broken = True
        except GONE as err:
            self.gaps.end(time.monotonic(), True)
            self.account.failed(f"{self.name}: line {self.number - 1}: {err!r}")
            self.account.lost(f"{self.name}: {err!r}")
            self.broken = True

    async def every(self, interval, deadline):
        """Exchange a line each @interval, once more after @deadline."""
        while time.monotonic() < deadline and not self.broken:
            await self.exchange()
            await asyncio.sleep(interval)
        await self.exchange()

    def close(self):
        """Give it up."""
        if self.writer:
            self.writer.close()


class Lines(Work):
    """@count connections to @host, each with a line every @interval."""

    def __init__(self, name, host, count=1, interval=0.05):
        super().__init__(name)
        self.host, self.interval = host, interval
        self.open_now = asyncio.Semaphore(AT_ONCE)
        self.all = [LineConnection(self.account, f"c{n}") for n in range(count)]

    async def _open(self, connection):
        async with self.open_now:
            await connection.open(self.host)

    async def start(self):
        await asyncio.gather(*(self._open(c) for c in self.all))

    async def run(self, deadline):
        await asyncio.gather(*(self._use(c, n, deadline) for n, c in enumerate(self.all)))
        self.account.extra["alive"] = sum(not c.broken for c in self.all)
        for connection in self.all:
            connection.close()

    async def _use(self, connection, number, deadline):
        await asyncio.sleep(self.interval * number / len(self.all))
        await connection.every(self.interval, deadline)


class Idle(Lines):
    """A connection that says nothing from its start until the deadline has passed."""

    def __init__(self, name, host):
        super().__init__(name, host)

    async def _use(self, connection, number, deadline):
        await asyncio.sleep(max(0, deadline - time.monotonic()))
        await connection.exchange()


class Old(Lines):
    """Begins to talk at once when started: it lives through the secondary's coming as well."""

    def __init__(self, name, host):
        super().__init__(name, host)
        self.talk = self.enough = None

    async def start(self):
        await super().start()
        self.enough = asyncio.Event()
        self.talk = asyncio.create_task(self._talk())

    async def _talk(self):
        while not self.enough.is_set() and not self.all[0].broken:
            await self.all[0].exchange()
            await asyncio.sleep(self.interval)

    async def run(self, deadline):
        await asyncio.sleep(max(0, deadline - time.monotonic()))
        self.enough.set()
        await self.talk
        await self.all[0].exchange()
        self.all[0].close()
