# SPDX-License-Identifier: GPL-2.0-or-later
"""Web load which checks every byte: keep-alive connections, and one connection per request.

wrk makes far more load, but cannot tell which request failed nor how long a connection was silent.
A server may close a keep-alive connection when it has said so (`Connection: close`, nginx does after
keepalive_requests); any other end of a connection counts as broken.
"""
import asyncio
import time

from .account import Gaps

TIMEOUT = 10.0
RETRY_PAUSE = 0.2


class BadAnswer(Exception):
    """An answer arrived, and it is not the right one."""


class Response:
    """Status, body and whether the server will close the connection."""

    def __init__(self, status, body, closing):
        self.status = status
        self.body = body
        self.closing = closing


def request_bytes(host, path, close):
    """The request for @path as it goes over the wire."""
    kind = "close" if close else "keep-alive"
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {kind}\r\n\r\n".encode()


def parse_head(head):
    """Status line and headers of a response: (status, length, closing)."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[1].isdigit():
        raise BadAnswer(f"no status line: {lines[0][:60]!r}")
    fields = {}
    for line in lines[1:]:
        key, colon, value = line.partition(":")
        if colon:
            fields[key.strip().lower()] = value.strip()
    if not fields.get("content-length", "").isdigit():
        raise BadAnswer("no Content-Length")
    closing = fields.get("connection", "").lower() == "close"
    return int(parts[1]), int(fields["content-length"]), closing


async def read_response(reader):
    """Read one whole response."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, length, closing = parse_head(head)
    return Response(status, await reader.readexactly(length), closing)


async def fetch(host, port, path):
    """GET @path over a connection of its own; raises OSError, BadAnswer or TimeoutError."""
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(request_bytes(host, path, True))
            response = await read_response(reader)
        except EOFError as err:
            raise BadAnswer(f"connection ended within {path}") from err
        finally:
            writer.close()
    if response.status != 200:
        raise BadAnswer(f"{path}: status {response.status}")
    return response.body


def check_response(response, reference):
    """Raise BadAnswer unless @response is what the server gave before the load began."""
    if response.status != 200:
        raise BadAnswer(f"status {response.status}")
    if response.body != reference:
        raise BadAnswer(f"body differs: {len(response.body)} bytes, {len(reference)} expected")


class WebLoad:
    """A number of clients, each asking for one page over and over, with a pause in between."""

    def __init__(self, account, host, port, path, reference, close, pause):
        self.account = account
        self.where = (host, port)
        self.request = request_bytes(host, path, close)
        self.reference = reference
        self.close = close
        self.pause = pause

    async def run(self, clients, deadline):
        """Run @clients clients until @deadline (monotonic clock)."""
        await asyncio.gather(*(self._client(deadline) for _ in range(clients)))

    async def _client(self, deadline):
        """One client; with `close`, its gap runs from answer to answer over many connections."""
        gaps = Gaps(self.account, time.monotonic())
        while time.monotonic() < deadline:
            if not await self._connection(gaps, deadline):
                await asyncio.sleep(RETRY_PAUSE)

    async def _connection(self, gaps, deadline):
        """Open a connection and use it as long as it lasts. False when it went wrong."""
        try:
            async with asyncio.timeout(TIMEOUT):
                reader, writer = await asyncio.open_connection(*self.where)
        except (OSError, TimeoutError) as err:
            gaps.end(time.monotonic(), True)
            self.account.failed(f"connect: {err!r}")
            return False
        if not self.close:
            gaps.resume(time.monotonic())
        try:
            return await self._requests(reader, writer, gaps, deadline)
        finally:
            writer.close()

    async def _requests(self, reader, writer, gaps, deadline):
        """Ask until the deadline or the connection's end. False when it went wrong."""
        while time.monotonic() < deadline:
            try:
                async with asyncio.timeout(TIMEOUT):
                    writer.write(self.request)
                    response = await read_response(reader)
                    gaps.answer(time.monotonic())
                    check_response(response, self.reference)
            except BadAnswer as err:
                self.account.failed(f"wrong answer: {err}")
                return False
            except (OSError, EOFError, TimeoutError) as err:
                gaps.end(time.monotonic(), True)
                self.account.failed(f"no answer: {err!r}")
                self.account.lost(f"connection: {err!r}")
                return False
            self.account.answered()
            await asyncio.sleep(self.pause)
            if response.closing:
                return True
        return True
