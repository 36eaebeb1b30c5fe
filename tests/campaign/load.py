#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The loads of a fault campaign, on the client, for as long as stdin is open: load.py ADDRESS.

Each line on stdin is a question, its answer one line of JSON on stdout:

mark     what each workload saw since the last mark: answers, failures, broken connections, longest gap
counts   answers of each workload so far
audit    is every commit that was acknowledged in the database, once, and nothing that nobody asked for?

Web, echo and ledger are the demonstration's (demo/load). The counter shows what a ledger cannot: one row, one more
with each commit, which says its new value. A commit that is lost or applied twice makes a jump, at once.
"""
import asyncio
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "demo"))
from load import echo, ledger, pgwire, web  # noqa: E402  pylint: disable=wrong-import-position
from load.account import Account, Gaps  # noqa: E402  pylint: disable=wrong-import-position

HTTP, PG, ECHO = 80, 5432, 7
EVER = 1e9
RETRY_PAUSE = 0.2
LONG = 0.05
PREPARE_TIMEOUT = 60
AUDIT_TIMEOUT = 30
COUNTER = "CREATE TABLE IF NOT EXISTS campaign (n bigint); DELETE FROM campaign; INSERT INTO campaign VALUES (0)"


class Timed(Account):
    """An account that knows when its long gaps ended."""

    def __init__(self, name):
        super().__init__(name)
        self.gaps = []

    def waited(self, gap, at=None):
        super().waited(gap, at)
        if gap >= LONG:
            self.gaps.append((time.time(), round(gap * 1000, 1)))


class Counter:
    """Adds one, over and over, and knows what must come back."""

    def __init__(self, account, where, pause):
        self.account, self.where, self.pause = account, where, pause
        self.value, self.unknown = 0, 0     # acknowledged; commits without an answer since

    async def run(self):
        """Connect, count, connect again when that broke."""
        gaps = Gaps(self.account, time.monotonic())
        while True:
            try:
                session = await asyncio.wait_for(pgwire.Connection.open(*self.where), ledger.TIMEOUT)
            except (*ledger.GONE, pgwire.PgError) as err:
                self.account.failed(f"connect: {err!r}")
            else:
                gaps.resume(time.monotonic())
                await self._count(session, gaps)
                session.close()
            await asyncio.sleep(RETRY_PAUSE)

    async def _count(self, session, gaps):
        while True:
            self.unknown += 1
            try:
                async with asyncio.timeout(ledger.TIMEOUT):
                    rows = await session.query("UPDATE campaign SET n = n + 1 RETURNING n")
            except (*ledger.GONE, pgwire.PgError) as err:
                gaps.end(time.monotonic(), True)
                self.account.lost(f"connection: {err!r}")
                return
            gaps.answer(time.monotonic())
            self._take(int(rows[0][0]))
            await asyncio.sleep(self.pause)

    def _take(self, value):
        """An answer: one more than the last, or as many more as have an unknown fate."""
        if self.value < value <= self.value + self.unknown:
            self.account.answered()
        else:
            self.account.failed(f"counted to {value} after {self.value}, {self.unknown} without an answer")
        self.value, self.unknown = value, 0


class Loads:
    """All workloads and their accounts."""

    def __init__(self, address):
        self.address = address
        self.database = (address, PG, "postgres", "bench")
        self.accounts = {name: Timed(name) for name in ("web", "web-new", "echo", "ledger", "counter")}
        self.answers = dict.fromkeys(self.accounts, 0)
        self.book = ledger.Ledger(self.accounts["ledger"], self.database, f"campaign{time.time_ns()}", os.devnull,
                                  pause=0.02)
        self.counter = Counter(self.accounts["counter"], self.database, 0.02)
        self.found, self.last_id = {}, 0     # token: id of all rows seen so far

    async def prepare(self):
        """What answers are compared with."""
        self.reference = await web.fetch(self.address, HTTP, "/1k")
        session = await pgwire.Connection.open(*self.database)
        await session.query(COUNTER)
        self.last_id = int((await session.query("SELECT coalesce(max(id), 0) FROM ledger"))[0][0])
        session.close()

    def start(self):
        """Begin all of them."""
        def pages(name, close, pause):
            return web.WebLoad(self.accounts[name], self.address, HTTP, "/1k", self.reference, close, pause)
        return [asyncio.create_task(work) for work in (
            pages("web", False, 0.01).run(2, EVER), pages("web-new", True, 0.03).run(1, EVER),
            self._echo(), self.book.run(EVER), self.counter.run())]

    async def _echo(self):
        while True:                     # one session, and another when it broke: its account says so
            await echo.EchoSession(self.accounts["echo"], self.address, ECHO).run(EVER)
            await asyncio.sleep(RETRY_PAUSE)

    def counts(self):
        """Answers so far, those before the last mark included."""
        return {name: self.answers[name] + a.requests - a.failures for name, a in self.accounts.items()}

    def mark(self):
        """Each workload's account since the last mark."""
        said = {name: {"answers": a.requests - a.failures, "failures": a.failures, "broken": a.broken,
                       "gap_ms": round(a.max_gap * 1000, 1), "gaps": sorted(a.gaps, key=lambda g: -g[1])[:6], "notes": list(a.notes)}
                for name, a in self.accounts.items()}
        for name, a in self.accounts.items():
            self.answers[name] += a.requests - a.failures
            a.requests = a.failures = a.broken = 0
            a.max_gap = 0.0
            a.notes.clear()
            a.gaps.clear()
        return said

    async def audit(self):
        """Rows that came since the last audit, and the number of all rows, against what was acknowledged."""
        acknowledged = list(self.book.acknowledged)
        async with asyncio.timeout(AUDIT_TIMEOUT):
            session = await pgwire.Connection.open(*self.database)
            rows = await session.query(f"SELECT id, token FROM ledger WHERE id > {self.last_id} ORDER BY id")
            total = int((await session.query(
                f"SELECT count(*) FROM ledger WHERE token LIKE '{self.book.run_id}-%'"))[0][0])
            session.close()
        twice = 0
        for number, token in rows:
            twice += token in self.found
            self.found[token] = int(number)
            self.last_id = max(self.last_id, int(number))
        missing = [token for token in acknowledged if token not in self.found]
        return {"acknowledged": len(acknowledged), "missing": len(missing), "twice": twice,
                "vanished": max(0, len(self.found) - total), "examples": missing[:5]}


async def answer(loads, line):
    """One question."""
    if line == "mark":
        return loads.mark()
    if line == "counts":
        return loads.counts()
    try:
        return await loads.audit()
    except (*ledger.GONE, pgwire.PgError) as err:
        return {"error": repr(err)}


async def main():
    """Load until stdin ends."""
    loads = Loads(sys.argv[1])
    await asyncio.wait_for(loads.prepare(), PREPARE_TIMEOUT)
    tasks = loads.start()
    print(json.dumps({"ready": True}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        dead = [task for task in tasks if task.done()]
        said = {"error": repr(dead[0].exception())} if dead else await answer(loads, line.decode().strip())
        print(json.dumps(said), flush=True)
    os._exit(0)


if __name__ == "__main__":
    echo.INTERVAL = 0.01
    asyncio.run(main())
