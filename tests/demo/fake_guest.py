# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest made of Python: web, echo and a database that keeps a ledger, with faults on demand.

Faults, set on the instance while it runs:
stall      seconds to wait before the next answer (once)
wrong      number of answers still to be given with a wrong byte
cut        number of answers after which the connection is aborted instead of answered (once)
"""
import asyncio
import hashlib
import re
import struct

PAGE = bytes(range(256)) * 4
BIG = bytes((i * 7) & 255 for i in range(256)) * 512


class FakeGuest:
    """Servers on free ports of the loopback device."""

    def __init__(self, keepalive_requests=1000):
        self.keepalive_requests = keepalive_requests
        self.stall = 0
        self.wrong = 0
        self.cut = None
        self.tokens = []
        self.servers = []

    async def __aenter__(self):
        self.http = await self._serve(self._http)
        self.echo = await self._serve(self._echo)
        self.pg = await self._serve(self._pg)
        return self

    async def __aexit__(self, *_):
        for server in self.servers:
            server.close()

    async def _serve(self, handler):
        async def guarded(reader, writer):
            try:
                await handler(reader, writer)
            except (EOFError, ConnectionError):
                pass
            finally:
                writer.close()
        server = await asyncio.start_server(guarded, "127.0.0.1", 0)
        self.servers.append(server)
        return server.sockets[0].getsockname()[1]

    async def _answer(self, writer, data):
        """Send @data, with the faults which are due. A wrong byte is the one before the last."""
        if self.cut is not None:
            self.cut -= 1
            if self.cut < 0:
                self.cut = None
                writer.transport.abort()
                raise ConnectionAbortedError
        if self.stall:
            pause, self.stall = self.stall, 0
            await asyncio.sleep(pause)
        if self.wrong:
            self.wrong -= 1
            data = data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]
        writer.write(data)
        await writer.drain()

    async def _http(self, reader, writer):
        for number in range(1, self.keepalive_requests + 1):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = request.split()[1]
            closing = "connection: close" in request.lower() or number == self.keepalive_requests
            body = {"/1k": PAGE, "/10m.bin": BIG,
                    "/10m.bin.sha256": hashlib.sha256(BIG).hexdigest().encode() + b"  10m.bin\n"}
            await self._answer(writer, http_answer(body.get(path), closing))
            if closing:
                return

    async def _echo(self, reader, writer):
        while line := await reader.readline():
            await self._answer(writer, line)

    async def _pg(self, reader, writer):
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        await reader.readexactly(length - 4)
        writer.write(b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05I")
        while True:
            kind, length = struct.unpack("!ci", await reader.readexactly(5))
            body = await reader.readexactly(length - 4)
            if kind == b"X":
                return
            await self._answer(writer, self._pg_query(body[:-1].decode()) + b"Z\0\0\0\x05I")

    def _pg_query(self, sql):
        """Answer to the two statements which the ledger uses."""
        found = re.fullmatch(r"INSERT INTO ledger\(token\) VALUES \('([\w-]+)'\)", sql)
        if found:
            self.tokens.append(found[1])
            return pg_message(b"C", b"INSERT 0 1\0")
        if sql.startswith("SELECT token"):
            rows = [pg_message(b"D", pg_row(token)) for token in self.tokens]
            return b"".join(rows) + pg_message(b"C", b"SELECT\0")
        return pg_message(b"E", b"SERROR\0C42601\0Msyntax error\0\0")


def http_answer(body, closing):
    """A response; 404 when there is no @body."""
    status = "404 Not Found" if body is None else "200 OK"
    body = body or b""
    return (f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'close' if closing else 'keep-alive'}\r\n\r\n").encode() + body


def pg_message(kind, body):
    """A message of PostgreSQL's protocol."""
    return kind + struct.pack("!i", len(body) + 4) + body


def pg_row(text):
    """A DataRow of one column."""
    data = text.encode()
    return struct.pack("!Hi", 1, len(data)) + data
