# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest downloads: an HTTP server on the client, and the guest's own two clients.

`/object/N/BYTES` has the content that guest/src/fetch.c checks. `/paced/N/BYTES/SECONDS` is the
same, sent evenly over that time.
"""
import asyncio
import hashlib
import json
import re
import time

from sshwork import guest_run
from work import GONE, Work, Wrong, check

PORT = 8000
PIECES_PER_SECOND = 50
LINE = 18
RESULT_LIMIT = 60


def content(number, size):
    """The object's bytes."""
    lines = (b"%08x %08x\n" % (number, line * 2654435761 % 2**32)
             for line in range(size // LINE + 1))
    return b"".join(lines)[:size]


class Server:
    """The server, and the longest time between two requests."""

    def __init__(self):
        self.requests = 0
        self.last = None
        self.longest = 0.0

    async def start(self):
        """Listen on all addresses, both families."""
        await asyncio.start_server(self._serve, None, PORT, backlog=1024)

    def _count(self):
        now = time.monotonic()
        if self.last is not None:
            self.longest = max(self.longest, now - self.last)
        self.last = now
        self.requests += 1

    async def _serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.match(rb"GET /(object|paced)/(\d+)/(\d+)(?:/(\d+))? HTTP/1\.[01]\r\n", head)
            check(found, f"request {head!r}")
            body = content(int(found[2]), int(found[3]))
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
                         b"Content-Length: %d\r\n\r\n" % len(body))
            await self._send(writer, body, int(found[4] or 0))
        except (Wrong, *GONE):
            pass        # the guest's side counts
        finally:
            writer.close()

    async def _send(self, writer, body, seconds):
        if not seconds:
            self._count()
            writer.write(body)
            return await writer.drain()
        pieces = seconds * PIECES_PER_SECOND
        size = len(body) // pieces + 1
        for at in range(0, len(body), size):
            writer.write(body[at:at + size])
            await writer.drain()
            await asyncio.sleep(1 / PIECES_PER_SECOND)
        return None


class GuestWork(Work):
    """A command that runs in the guest by itself; its output is fetched when it has ended."""

    def __init__(self, name, host, key, command):
        super().__init__(name)
        self.host, self.key, self.command = host, key, command
        self.file = "/run/" + re.sub(r"\W", "-", name)

    async def start(self):
        await guest_run(self.host, self.key, f"setsid -f sh -c '{self.command}; echo status $?' "
                                             f">{self.file} 2>&1 </dev/null")

    async def result(self, deadline):
        """Its output without the last line; Wrong when it did not end or not well."""
        limit = max(deadline, time.monotonic()) + RESULT_LIMIT
        while time.monotonic() < limit:
            await asyncio.sleep(0.5)
            text = await guest_run(self.host, self.key, f"cat {self.file}")
            lines = text.splitlines()
            if lines and lines[-1].startswith("status "):
                return "\n".join(lines[:-1]), int(lines[-1].split()[1])
        raise Wrong(f"the guest's `{self.command}` has not ended")


class GuestFetch(GuestWork):
    """colo-guest-fetch: @rate connections a second."""

    def __init__(self, name, host, key, server, server_address, rate, seconds, size):
        super().__init__(name, host, key,
                         f"colo-guest-fetch {server_address} {PORT} {rate} {seconds} {size}")
        self.server = server
        self.seconds = seconds

    async def run(self, deadline):
        await asyncio.sleep(max(0, deadline - time.monotonic()))
        try:
            text, _ = await self.result(time.monotonic() + self.seconds)
            found = json.loads(text)
        except (Wrong, ValueError, *GONE) as err:
            self.account.failed(repr(err))
            return
        self.account.extra.update(found)
        self.account.answered(found["right"])
        bad = found["connections"] - found["right"]
        if bad:
            self.account.failed(text, bad)
            self.account.lost(text, found["cut"] + found["late"])
        self.account.waited(self.server.longest)


class GuestCurl(GuestWork):
    """One download by curl in the guest that takes @seconds, checked by its hash there."""

    def __init__(self, name, host, key, server_address, size, seconds):
        url = f"http://[{server_address}]:{PORT}/paced/7/{size}/{seconds}"
        super().__init__(name, host, key, f"curl -gsS {url} | sha256sum")
        self.wanted = hashlib.sha256(content(7, size)).hexdigest()

    async def run(self, deadline):
        await asyncio.sleep(max(0, deadline - time.monotonic()))
        try:
            text, _ = await self.result(deadline)
        except (Wrong, *GONE) as err:
            self.account.failed(repr(err))
            return
        if text.split()[:1] == [self.wanted]:
            self.account.answered()
        else:
            self.account.failed(f"curl in the guest: {text}")
            self.account.lost(f"curl in the guest: {text}")


async def serve():
    """Only the server, until killed."""
    await Server().start()
    print(json.dumps({"event": "ready"}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
