# SPDX-License-Identifier: GPL-2.0-or-later
"""curl as people use it: a download, and many requests over one kept connection."""
import asyncio
import hashlib
import time

from work import GONE, Gaps, Program, Work, Wrong, check, output

STALL = 30      # seconds; curl's own limit is set as well


def url_of(host, path, scheme="http"):
    """URL of a path on a guest, whose address may be an IPv6 one."""
    return f"{scheme}://[{host}]{path}" if ":" in host else f"{scheme}://{host}{path}"


class Curl(Work):
    """One run of curl, its output looked at as it comes."""

    def __init__(self, name, *args):
        super().__init__(name)
        self.program = Program("curl", "-sS", "--no-buffer", "--connect-timeout", str(STALL), *args)
        self.gaps = None

    async def run(self, deadline):
        self.gaps = Gaps(self.account, time.monotonic())
        async with self.program:
            try:
                await self.take()
                status = await self.program.child.wait()
                if status:
                    self.account.lost(f"curl: exit status {status}")
                check(status == 0, f"curl: exit status {status}")
            except Wrong as err:
                self.account.failed(str(err))
            except GONE as err:
                self.gaps.end(time.monotonic(), True)
                self.account.failed(repr(err))
                self.account.lost(repr(err))

    async def take(self):
        """Take all output."""
        raise NotImplementedError


class Download(Curl):
    """A file of @size bytes in about @seconds, checked by its hash.

    curl's own --limit-rate reads a megabyte at a time and then pauses for long. Here the pipe is
    read at an even pace, and curl waits. (window_limit() bounds what the kernel keeps for curl.)
    """

    def __init__(self, name, url, size, seconds, wanted):
        super().__init__(name, url)
        self.rate, self.wanted = size / seconds, wanted

    async def take(self):
        digest, size, begin = hashlib.sha256(), 0, time.monotonic()
        while data := await self.program.some(STALL):
            digest.update(data)
            size += len(data)
            self.gaps.answer(time.monotonic())
            await asyncio.sleep(max(0, begin + size / self.rate - time.monotonic()))
        check(digest.hexdigest() == self.wanted, f"sha256 of {size} bytes differs")
        self.account.answered()


async def window_limit():
    """IPv6 connections of this host get a small receive window: a silence of the guest is seen."""
    status, text = await output(["ip", "-6", "route", "replace", "fd77:c010:77::/64", "dev", "lan0",
                                 "proto", "kernel", "metric", "256", "window", "32768"], STALL)
    check(status == 0, f"ip route: {text}")


class Requests(Curl):
    """@count requests for a page without a newline, @rate a second, over one connection."""

    def __init__(self, name, url, count, rate, reference, *args):
        mark = "\n%{http_code} %{num_connects}\n"
        super().__init__(name, "--rate", f"{rate}/s", "-w", mark, *args, f"{url}?[1-{count}]")
        self.count, self.reference = count, reference

    async def take(self):
        connects = 0
        for number in range(self.count):
            body = await self.program.line(STALL)
            code, new = (await self.program.line(STALL)).split()
            check(code == "200" and self.right(body),
                  f"request {number}: {code}, {len(body)} bytes")
            connects += int(new)
            self.gaps.answer(time.monotonic())
            self.account.answered()
        if connects != 1:
            self.account.lost(f"{connects} connections were needed", connects - 1)

    def right(self, body):
        """Is it the page?"""
        return body.encode() == self.reference


class Cookies(Requests):
    """A page of which no two are the same (nginx writes a random number and a newline)."""

    def __init__(self, name, url, count, rate):
        super().__init__(name, url, count, rate, None, "-k")
        self.seen = set()

    async def take(self):
        # the page ends with a newline, the mark begins with one: an empty line between them
        connects = 0
        for number in range(self.count):
            body, empty = await self.program.line(STALL), await self.program.line(STALL)
            code, new = (await self.program.line(STALL)).split()
            word = body.removeprefix("hello ")
            check(code == "200" and len(word) == 32 and not empty and word not in self.seen,
                  f"request {number}: {code}, {body!r}")
            int(word, 16)
            self.seen.add(word)
            connects += int(new)
            self.gaps.answer(time.monotonic())
            self.account.answered()
        if connects != 1:
            self.account.lost(f"{connects} connections were needed", connects - 1)
