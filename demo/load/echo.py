# SPDX-License-Identifier: GPL-2.0-or-later
"""One TCP session to the echo service, a numbered line every 20 ms.

Lines are sent on time whether or not earlier ones have come back, as a person typing would: a stall
of the guest shows as a gap, and as lines which come back late, not as fewer lines asked.
"""
import asyncio
import time

from .account import Gaps, percentile

INTERVAL = 0.02
GRACE = 10.0
CONNECT_TIMEOUT = 5.0


def line_number(number):
    """The line with sequence number @number, content derived from it."""
    return f"{number:08d} {number * 2654435761 % 2**32:08x}\n".encode()


class EchoSession:
    """The session, its account and the round-trip times seen."""

    def __init__(self, account, host, port):
        self.account = account
        self.where = (host, port)
        self.sent = []
        self.received = 0
        self.rtts = []
        self.gaps = None

    async def run(self, deadline):
        """Connect, talk until @deadline, wait for what is still due. One session, no second try."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(*self.where)
        except (OSError, TimeoutError) as err:
            self.account.failed(f"connect: {err!r}")
            return
        self.gaps = Gaps(self.account, time.monotonic())
        sender = asyncio.create_task(self._send(writer, deadline))
        try:
            await self._receive(reader, sender, deadline)
        finally:
            sender.cancel()
            writer.close()
            self._settle()

    async def _send(self, writer, deadline):
        """Send a line every INTERVAL, on a fixed time table."""
        due = time.monotonic()
        while due < deadline:
            self.sent.append(time.monotonic())
            writer.write(line_number(len(self.sent) - 1))
            due += INTERVAL
            await asyncio.sleep(max(0, due - time.monotonic()))

    async def _receive(self, reader, sender, deadline):
        """Read lines until all that were sent are back, or the grace after @deadline is over."""
        try:
            async with asyncio.timeout(deadline + GRACE - time.monotonic()):
                while not (sender.done() and self.received == len(self.sent)):
                    line = await self._line(reader, sender)
                    if line is not None:
                        self._take(line)
        except TimeoutError:
            self.account.lost(f"{len(self.sent) - self.received} lines never came back")
        except OSError as err:
            self.account.lost(f"session: {err!r}")

    async def _line(self, reader, sender):
        """The next line; None when the sender has ended and nothing is due any more."""
        get = asyncio.ensure_future(reader.readline())
        tasks = {get} if sender.done() else {get, sender}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not get.done() and self.received == len(self.sent):
            get.cancel()
            return None
        line = await get
        if not line.endswith(b"\n"):
            raise ConnectionError("the guest closed the session")
        return line

    def _take(self, line):
        """Check one line which came back and count it."""
        now = time.monotonic()
        self.gaps.answer(now)
        number = self.received
        self.received += 1
        if number >= len(self.sent):
            self.account.failed(f"a line too many: {line[:40]!r}")
        elif line != line_number(number):
            self.account.failed(f"line {number}: got {line[:40]!r}")
        else:
            self.account.answered()
            self.rtts.append(now - self.sent[number])

    def _settle(self):
        """Count the lines which never came back, and the silence at the end."""
        missing = len(self.sent) - self.received
        if missing > 0:
            self.account.failed(f"{missing} lines without an echo", missing)
            self.gaps.end(time.monotonic(), True)
        for key, percent in (("rtt_p50_ms", 50), ("rtt_p99_ms", 99), ("rtt_max_ms", 100)):
            value = percentile(self.rtts, percent)
            self.account.extra[key] = None if value is None else round(value * 1000, 2)
