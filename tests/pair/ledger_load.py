#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The ledger of the demonstration for as long as it is let run: ledger_load.py ADDRESS BOOK. With --audit: are all
tokens in BOOK in the table? Prints JSON, exit status 1 when one is missing."""
import asyncio
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "demo"))
from load import ledger, pgwire  # noqa: E402  pylint: disable=wrong-import-position
from load.account import Account  # noqa: E402  pylint: disable=wrong-import-position


async def audit(where, book):
    with open(book, encoding="ascii") as file:
        lines = file.read().split("\n")[:-1]     # the last one may be cut short: not acknowledged then
    session = await pgwire.Connection.open(*where)
    rows = await session.query("SELECT token FROM ledger")
    session.close()
    return ledger.compare(lines, [row[0] for row in rows])


def main():
    address, book = sys.argv[1:3]
    where = (address, 5432, "postgres", "bench")
    if "--audit" in sys.argv:
        found = asyncio.run(audit(where, book))
        print(json.dumps(found))
        sys.exit(1 if found["missing"] or not found["acknowledged"] else 0)
    work = ledger.Ledger(Account("ledger", True), where, f"power{time.time_ns()}", book)
    asyncio.run(work.run(time.monotonic() + 86400))


if __name__ == "__main__":
    main()
