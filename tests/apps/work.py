# SPDX-License-Identifier: GPL-2.0-or-later
"""What the application workloads share.

A workload is an object with an `account` (demo/load/account.py), `await start()`, which brings it to
where it serves, and `await run(deadline)`, which uses it until then (monotonic clock) and counts what
it finds wrong. Nobody opens a lost connection again: losing one is what the test is about.
"""
import asyncio
import os
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "demo"))

from load.account import Account, Gaps  # noqa: E402,F401  pylint: disable=wrong-import-position

TIMEOUT = 30.0      # for one answer; far above any gap expected, so that a gap shows as a gap
GRACE = 80.0        # after the deadline, for what is still under way
GONE = (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError)


class Wrong(Exception):
    """An answer came, and it is not the right one."""


def check(right, what):
    """Raise Wrong unless @right."""
    if not right:
        raise Wrong(what)


class Work:
    """A workload with one account. `spans` says that it must be under way when the host fails."""

    spans = True

    def __init__(self, name):
        self.account = Account(name)
        self.begin = self.end = None

    async def start(self):
        """Nothing to prepare."""

    async def run(self, deadline):
        """Use it until @deadline."""
        raise NotImplementedError

    async def whole(self, deadline):
        """run(), its times noted; what it did not foresee is a failure of this workload only."""
        self.begin = time.monotonic()
        try:
            async with asyncio.timeout(deadline + GRACE - time.monotonic()):
                await self.run(deadline)
        except TimeoutError:
            self.account.failed(f"{self.account.name}: not through {GRACE:.0f} s after the load")
        except Exception as err:  # pylint: disable=broad-except
            self.account.failed(f"{self.account.name}: {err!r}")
        self.end = self.end or time.monotonic()

    def report(self):
        """The account, and when the workload ran."""
        return {**self.account.as_dict(), "begin": self.begin, "end": self.end, "spans": self.spans}


class Program:
    """Another program's stdin and stdout, with a time limit on each read, killed at the end."""

    limit = 1 << 16     # bytes of output kept when nobody reads

    def __init__(self, *args):
        self.args = args
        self.child = None

    async def __aenter__(self):
        pipe = asyncio.subprocess.PIPE
        self.child = await asyncio.create_subprocess_exec(
            *self.args, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, limit=self.limit)
        return self

    async def __aexit__(self, *_):
        # kill() reaps a child that has just ended, and then nobody knows its exit status
        try:
            async with asyncio.timeout(1):
                await self.child.wait()
        except TimeoutError:
            self.child.kill()
            await self.child.wait()

    async def line(self, timeout=TIMEOUT):
        """The next line of output; EOFError at its end."""
        async with asyncio.timeout(timeout):
            text = await self.child.stdout.readline()
        if not text.endswith(b"\n"):
            raise EOFError(f"{self.args[0]} ended: {text[-200:]!r}")
        return text.decode("utf-8", "replace").rstrip("\r\n")

    async def some(self, timeout=TIMEOUT):
        """Some bytes of output, b"" at its end."""
        async with asyncio.timeout(timeout):
            return await self.child.stdout.read(65536)

    def say(self, text):
        """Write to its input."""
        self.child.stdin.write(text.encode())


async def output(args, timeout):
    """Run a program to its end: (exit status, stdout and stderr)."""
    async with Program(*args) as program:
        program.child.stdin.close()
        async with asyncio.timeout(timeout):
            text = await program.child.stdout.read()
            await program.child.wait()
        return program.child.returncode, text.decode("utf-8", "replace")
