# SPDX-License-Identifier: GPL-2.0-or-later
"""ssh: an interactive session, and scp of large files in both directions."""
import asyncio
import hashlib
import time

from work import GONE, Gaps, Program, Work, Wrong, check, output

SHELL = 'stty -echo; echo ready; while read -r l; do echo "you said $l"; done; echo bye'
COPY_LIMIT = 120


def options(key):
    """ssh's and scp's alike."""
    return ["-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=30"]


async def guest_run(host, key, command, timeout=60):
    """stdout and stderr of a command in the guest; Wrong if it fails."""
    status, text = await output(["ssh", *options(key), f"root@{host}", command], timeout)
    check(status == 0, f"{command[:40]}: status {status}, {text[-200:]}")
    return text


class Session(Work):
    """Somebody who types a line, waits for the answer, types the next."""

    def __init__(self, name, host, key):
        super().__init__(name)
        self.program = Program("ssh", "-tt", *options(key), f"root@{host}", SHELL)
        self.gaps = None

    async def start(self):
        await self.program.__aenter__()
        while await self.program.line() != "ready":
            pass

    async def run(self, deadline):
        self.gaps = Gaps(self.account, time.monotonic())
        try:
            await self._talk(deadline)
            self.program.say("\x04")
            check(await self.program.line() == "bye", "no good-bye")
        except Wrong as err:
            self.account.failed(str(err))
        except GONE as err:
            self.gaps.end(time.monotonic(), True)
            self.account.failed(repr(err))
            self.account.lost(repr(err))
        finally:
            await self.program.__aexit__()

    async def _talk(self, deadline):
        number = 0
        while time.monotonic() < deadline:
            self.gaps.resume(time.monotonic())
            self.program.say(f"line {number}\n")
            got = await self.program.line()
            check(got == f"you said line {number}", f"{got!r} to line {number}")
            self.gaps.answer(time.monotonic())
            self.account.answered()
            number += 1
            await asyncio.sleep(0.1)


class Copy(Work):
    """scp of one file at @rate bytes a second; its silences are seen on the wire."""

    one_opens = asyncio.Lock()

    def __init__(self, name, source, target, key, rate, wire):
        super().__init__(name)
        self.args = ["scp", "-q", *options(key), "-l", str(rate * 8 // 1000), source, target]
        self.wire, self.port = wire, None

    async def copy(self):
        """Run scp; Wrong or one of GONE when it does not end well."""
        async with self.one_opens:
            known = set(self.wire.flows)
            child = asyncio.create_task(output(self.args, COPY_LIMIT))
            while not child.done() and not self.port:
                self.port = next(iter(set(self.wire.flows) - known), None)
                await asyncio.sleep(0.01)
        while not child.done():
            await asyncio.wait([child], timeout=0.05)
            gap = self.wire.longest(set(self.wire.flows) - {self.port})
            self.account.waited(gap, time.monotonic())
        status, text = await child
        if status:
            self.account.lost(f"scp: {text[-200:]}")
        check(status == 0, f"scp: status {status}")

    async def run(self, deadline):
        try:
            await self.copy()
            self.end = time.monotonic()
            await self.verify()
            self.account.answered()
        except (Wrong, *GONE) as err:
            self.account.failed(repr(err))

    async def verify(self):
        """Wrong unless the content is."""
        raise NotImplementedError


class Upload(Copy):
    """The guest counts the checksum."""

    def __init__(self, name, host, key, path, rate, wire):
        super().__init__(name, path, f"root@{host}:/root/up.bin", key, rate, wire)
        self.host, self.key, self.path = host, key, path

    async def verify(self):
        text = await guest_run(self.host, self.key, "sha256sum /root/up.bin")
        check(text.split()[0] == file_hash(self.path), f"sha256 of what was sent: {text}")


class Fetch(Copy):
    """The client does."""

    def __init__(self, name, host, key, path, rate, wire, wanted):
        super().__init__(name, f"root@{host}:/root/down.bin", path, key, rate, wire)
        self.path, self.wanted = path, wanted

    async def verify(self):
        check(file_hash(self.path) == self.wanted, "sha256 of what came")


def file_hash(path):
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
