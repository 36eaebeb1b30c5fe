# SPDX-License-Identifier: GPL-2.0-or-later
"""A paced download which is under way when the host fails, checked by its hash.

The receive buffer is kept small, so that the bytes come from the guest all the time and not from the
client's own kernel: a stall longer than RECEIVE_BUFFER / rate shows as a gap.
"""
import asyncio
import hashlib
import socket
import time

from .account import Gaps
from .web import TIMEOUT, BadAnswer, parse_head, request_bytes

RECEIVE_BUFFER = 32 * 1024
TICK = 0.02
MAX_HEAD = 16 * 1024


class Download:
    """One download at @rate bytes a second."""

    def __init__(self, account, host, port, path, sha256, rate):
        self.account = account
        self.where = (host, port)
        self.request = request_bytes(host, path, True)
        self.sha256 = sha256
        self.rate = rate
        self.received = 0
        self.length = None

    async def run(self):
        """Do it, and say how it ended."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setblocking(False)
        gaps = Gaps(self.account, time.monotonic())
        try:
            digest = await self._transfer(sock, gaps)
            if digest != self.sha256:
                raise BadAnswer(f"sha256 {digest}, expected {self.sha256}")
            self.account.answered()
        except BadAnswer as err:
            self.account.failed(f"wrong answer: {err}")
        except (OSError, EOFError, TimeoutError) as err:
            gaps.end(time.monotonic(), True)
            self.account.failed(f"stopped at {self.received} of {self.length} bytes: {err!r}")
            self.account.lost(f"connection: {err!r}")
        finally:
            sock.close()
            self.account.extra["bytes"] = self.received

    async def _transfer(self, sock, gaps):
        """Ask, take the head, take the body at the pace; returns the body's sha256."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(TIMEOUT):
            await loop.sock_connect(sock, self.where)
            await loop.sock_sendall(sock, self.request)
        gaps.resume(time.monotonic())
        rest = await self._head(sock, gaps)
        digest = hashlib.sha256(rest)
        self.received = len(rest)
        begin = time.monotonic()
        while self.received < self.length:
            ahead = self.received / self.rate - (time.monotonic() - begin)
            if ahead > 0:
                await asyncio.sleep(max(TICK, ahead))
            want = min(self.length - self.received, max(1460, int(self.rate * TICK)))
            data = await self._receive(sock, want, gaps)
            digest.update(data)
            self.received += len(data)
        return digest.hexdigest()

    async def _head(self, sock, gaps):
        """Read up to the end of the head; returns what of the body came with it."""
        data = b""
        while b"\r\n\r\n" not in data:
            if len(data) > MAX_HEAD:
                raise BadAnswer("no end of the head")
            data += await self._receive(sock, 4096, gaps)
        head, _, rest = data.partition(b"\r\n\r\n")
        status, self.length, _ = parse_head(head + b"\r\n")
        if status != 200:
            raise BadAnswer(f"status {status}")
        return rest

    async def _receive(self, sock, want, gaps):
        """Some bytes, at most @want."""
        async with asyncio.timeout(TIMEOUT):
            data = await asyncio.get_running_loop().sock_recv(sock, want)
        if not data:
            raise EOFError("connection ended")
        gaps.answer(time.monotonic())
        return data
