# SPDX-License-Identifier: GPL-2.0-or-later
"""The ledger: every commit the database acknowledged is written down, and looked for at the end.

One connection, one row per transaction, each with a token of its own. A token whose transaction was
under way when a connection broke has an unknown fate and is not counted as acknowledged.
"""
import asyncio
import time
from collections import Counter

from . import pgwire
from .account import Gaps

TIMEOUT = 10.0
RETRY_PAUSE = 0.2
GONE = (OSError, EOFError, TimeoutError, pgwire.ProtocolError)


class Ledger:
    """Writes tokens until told to stop, then audits the table."""

    def __init__(self, account, where, run, path, pause=0.005):
        """@where is (host, port, user, database), @path a file for the acknowledged tokens."""
        self.account = account
        self.where = where
        self.run_id = run
        self.path = path
        self.pause = pause
        self.number = 0
        self.acknowledged = []
        self.ports = set()

    async def run(self, deadline):
        """Commit tokens until @deadline."""
        with open(self.path, "w", encoding="ascii") as book:
            gaps = Gaps(self.account, time.monotonic())
            while time.monotonic() < deadline:
                if not await self._connection(book, gaps, deadline):
                    await asyncio.sleep(RETRY_PAUSE)

    async def _connection(self, book, gaps, deadline):
        """Commit over one connection. False when it broke."""
        try:
            async with asyncio.timeout(TIMEOUT):
                session = await pgwire.Connection.open(*self.where)
        except (*GONE, pgwire.PgError) as err:
            gaps.end(time.monotonic(), True)
            self.account.failed(f"connect: {err!r}")
            return False
        self.ports.add(session.local_port())
        gaps.resume(time.monotonic())
        try:
            while time.monotonic() < deadline:
                if not await self._commit(session, book, gaps):
                    return False
                await asyncio.sleep(self.pause)
            return True
        finally:
            session.close()

    async def _commit(self, session, book, gaps):
        """One transaction. False when the connection is gone."""
        token = f"{self.run_id}-{self.number}"
        self.number += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                await session.query(f"INSERT INTO ledger(token) VALUES ('{token}')")
        except pgwire.PgError as err:
            self.account.failed(f"commit refused: {err}")
            return True
        except GONE as err:
            gaps.end(time.monotonic(), True)
            self.account.failed(f"no answer to a commit: {err!r}")
            self.account.lost(f"connection: {err!r}")
            return False
        self.acknowledged.append(token)
        book.write(token + "\n")
        book.flush()
        gaps.answer(time.monotonic())
        self.account.answered()
        return True

    async def audit(self):
        """Look for every acknowledged token: {acknowledged, missing, duplicates, unacknowledged}."""
        try:
            async with asyncio.timeout(TIMEOUT):
                session = await pgwire.Connection.open(*self.where)
                rows = await session.query(
                    f"SELECT token FROM ledger WHERE token LIKE '{self.run_id}-%'")
                session.close()
        except (*GONE, pgwire.PgError) as err:
            return {**compare(self.acknowledged, []), "error": f"the table cannot be read: {err!r}"}
        return compare(self.acknowledged, [row[0] for row in rows])


def compare(acknowledged, found):
    """Compare the tokens acknowledged with the tokens @found in the table."""
    count = Counter(found)
    known = set(acknowledged)
    return {"acknowledged": len(acknowledged),
            "missing": sum(1 for token in acknowledged if count[token] == 0),
            "duplicates": sum(1 for times in count.values() if times > 1),
            "unacknowledged": sum(1 for token in count if token not in known)}
