# SPDX-License-Identifier: GPL-2.0-or-later
"""Just enough of PostgreSQL's wire protocol (version 3) for a client which must know what happened.

Start-up without password, the simple query protocol, text results. A commit is acknowledged when
CommandComplete *and* ReadyForQuery have arrived; that is the moment query() returns.
Source: PostgreSQL documentation, "Frontend/Backend Protocol".
"""
import asyncio
import struct

PROTOCOL = 196608
MAX_MESSAGE = 64 << 20


class PgError(Exception):
    """The server answered with an error."""


class ProtocolError(Exception):
    """The server answered with something this client does not understand."""


def fields_parse(body):
    """Fields of an ErrorResponse as {code letter: text}."""
    fields = {}
    for part in body.split(b"\0"):
        if part:
            fields[chr(part[0])] = part[1:].decode("utf-8", "replace")
    return fields


def row_parse(body):
    """Columns of a DataRow, None for NULL."""
    (count,) = struct.unpack_from("!H", body)
    row, at = [], 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        if length < 0:
            row.append(None)
            continue
        if at + length > len(body):
            raise ProtocolError("column longer than its row")
        row.append(body[at:at + length].decode())
        at += length
    return tuple(row)


class Connection:
    """One session. OSError and EOFError tell that the connection is gone."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, host, port, user, database):
        """Connect and log in."""
        self = cls(*await asyncio.open_connection(host, port))
        try:
            await self._startup(user, database)
        except BaseException:
            self.close()
            raise
        return self

    def local_port(self):
        """The client's own port."""
        return self.writer.get_extra_info("sockname")[1]

    def close(self):
        """Close the socket; a Terminate message is sent if it can be."""
        self.writer.write(b"X\0\0\0\4")
        self.writer.close()

    async def query(self, sql):
        """Run @sql, return the rows of all its results. Raises PgError with the server's words."""
        body = sql.encode() + b"\0"
        self.writer.write(b"Q" + struct.pack("!i", len(body) + 4) + body)
        return await self._until_ready()

    async def _startup(self, user, database):
        params = b"".join(text.encode() + b"\0" for text in ("user", user, "database", database))
        body = struct.pack("!i", PROTOCOL) + params + b"\0"
        self.writer.write(struct.pack("!i", len(body) + 4) + body)
        await self._until_ready()

    async def _message(self):
        """The next message: (type, body)."""
        kind, length = struct.unpack("!ci", await self.reader.readexactly(5))
        if not 4 <= length <= MAX_MESSAGE:
            raise ProtocolError(f"message {kind!r} of {length} bytes")
        return kind, await self.reader.readexactly(length - 4)

    async def _until_ready(self):
        """Take messages up to ReadyForQuery."""
        rows, error = [], None
        while True:
            kind, body = await self._message()
            if kind == b"D":
                rows.append(row_parse(body))
            elif kind == b"E":
                error = fields_parse(body)
                if error.get("S") in ("FATAL", "PANIC"):
                    break
            elif kind == b"R" and body[:4] != b"\0\0\0\0":
                raise ProtocolError("the server wants a password")
            elif kind == b"Z":
                break
        if error:
            raise PgError(f"{error.get('C')}: {error.get('M')}")
        return rows
