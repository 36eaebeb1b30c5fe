# SPDX-License-Identifier: GPL-2.0-or-later
"""WebSocket (RFC 6455): messages echoed, and messages that the guest sends by itself."""
import asyncio
import base64
import hashlib
import os
import random
import struct
import time

from work import GONE, TIMEOUT, Gaps, Work, Wrong, check

PORT = 8080
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Socket:
    """One WebSocket connection, as a client."""

    def __init__(self):
        self.reader = self.writer = None

    async def open(self, host, path):
        """Connect and shake hands."""
        async with asyncio.timeout(TIMEOUT):
            self.reader, self.writer = await asyncio.open_connection(host, PORT)
            key = base64.b64encode(os.urandom(16))
            self.writer.write(b"GET %s HTTP/1.1\r\nHost: guest\r\n"
                              b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
                              b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
                              % (path.encode(), key))
            head = await self.reader.readuntil(b"\r\n\r\n")
        accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
        check(head.startswith(b"HTTP/1.1 101 ") and accept in head, f"handshake: {head!r}")

    def send(self, kind, data):
        """One masked frame."""
        mask = os.urandom(4)
        head = bytes([0x80 | kind, 0x80 | len(data)]) if len(data) < 126 else \
            struct.pack("!BBH", 0x80 | kind, 0x80 | 126, len(data))
        body = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self.writer.write(head + mask + body)

    async def receive(self):
        """(kind, data) of the next frame."""
        async with asyncio.timeout(TIMEOUT):
            kind, length = await self.reader.readexactly(2)
            if length == 126:
                length, = struct.unpack("!H", await self.reader.readexactly(2))
            check(kind & 0xf0 == 0x80 and length < 65536, f"frame {kind:02x}, length {length}")
            return kind & 15, await self.reader.readexactly(length)

    async def end(self):
        """Say good-bye, take what still comes, and be answered."""
        self.send(CLOSE, b"\x03\xe8")
        kind = None
        while kind != CLOSE:
            kind, _ = await self.receive()
        self.writer.close()


class WsWork(Work):
    """A workload on one WebSocket connection."""

    path = None

    def __init__(self, name, host):
        super().__init__(name)
        self.host, self.socket = host, Socket()
        self.gaps = None

    async def start(self):
        await self.socket.open(self.host, self.path)

    async def run(self, deadline):
        self.gaps = Gaps(self.account, time.monotonic())
        try:
            await self.talk(deadline)
            await self.socket.end()
        except Wrong as err:
            self.account.failed(str(err))
        except GONE as err:
            self.gaps.end(time.monotonic(), True)
            self.account.failed(repr(err))
            self.account.lost(repr(err))

    async def talk(self, deadline):
        """What is done until @deadline."""
        raise NotImplementedError


class WsEcho(WsWork):
    """Messages of 1 to 4000 bytes, each of which comes back, and pings."""

    path = "/echo"

    async def talk(self, deadline):
        numbers = random.Random(8080)
        while time.monotonic() < deadline:
            kind = numbers.choice((TEXT, BINARY, PING))
            data = numbers.randbytes(numbers.randrange(1, 120 if kind == PING else 4000))
            data = data.hex().encode()[:len(data)] if kind == TEXT else data
            self.gaps.resume(time.monotonic())
            self.socket.send(kind, data)
            back = await self.socket.receive()
            check(back == (PONG if kind == PING else kind, data),
                  f"message of {len(data)} bytes: {back!r}")
            self.gaps.answer(time.monotonic())
            self.account.answered()
            await asyncio.sleep(0.03)


class WsPush(WsWork):
    """Numbered messages that the guest sends on its own: none may be missing, none come twice."""

    path = "/push"
    number = 0

    async def talk(self, deadline):
        while time.monotonic() < deadline:
            kind, data = await self.socket.receive()
            want = f"tick {self.number:08d} {self.number * 2654435761 % 2**32:08x}".encode()
            check((kind, data) == (TEXT, want), f"{data!r} instead of {want!r}")
            self.number += 1
            self.gaps.answer(time.monotonic())
            self.account.answered()
