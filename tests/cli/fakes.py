# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers that are not what they seem: a fake primary, and a proxy that changes checkpoints on their way."""
import socket
import struct
import threading

from colonode import (ANSWER, BULK, CONSISTENT, HELLO, MAGIC, OK, PRESENT, SERVED, VERSION, disk_of, hello_unpack,
                      receive, with_disk)

BULK_HEADER = struct.Struct("=IIQQQQ") # as the daemon sends it: in its host's byte order
RECORD = struct.Struct("=IIQQ")
LIMIT = 15


def answer(status, session, text, version=VERSION, disks=b""):
    return ANSWER.pack(MAGIC, version, status, session, text.encode(), disks, 0, b"")


def newer(disks):
    """Those of a primary that went on from what the secondary has."""
    for i in range(8):
        d = disk_of(disks, i)
        if d["flags"] == PRESENT:
            disks = with_disk(disks, i, current=0x77 + i, base=d["current"], lineage_flags=CONSISTENT | SERVED)
    return disks


def bulk_header(magic=MAGIC, flags=0, epoch=1, nrec=0, npages=0, device_bytes=0):
    return BULK_HEADER.pack(magic, flags, epoch, nrec, npages, device_bytes)


class Primary:
    """Listens where node a would."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 7400), backlog=64)
        self.listener.settimeout(LIMIT)
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        s, _ = self.listener.accept()
        s.settimeout(LIMIT)
        return s

    def hello(self):
        """The hello of the next one that dials, which is then left."""
        with self.accept() as s:
            return hello_unpack(receive(s, HELLO.size))

    def link(self):
        """Lets a secondary open its channels: {channel: socket}"""
        channel = {}
        while len(channel) < 3:
            s = self.accept()
            hello = hello_unpack(receive(s, HELLO.size))
            s.sendall(answer(OK, 42, "", disks=newer(hello["disks"])))
            channel[hello["channel"]] = s
        return channel


def frames(rnd, count, source, destination):
    """Frames that are nearly right: IPv4 with TCP, UDP, ICMP, fragments; ARP; any bytes. A vnet header first."""
    for _ in range(count):
        payload = rnd.randbytes(rnd.choice((0, 1, 20, 100, 1400)))
        kind = rnd.choice((6, 6, 6, 17, 1, 2))
        inner = struct.pack("!HHIIBBHHH", rnd.choice((22, 80, rnd.randrange(65536))), rnd.randrange(65536),
                            rnd.getrandbits(32), rnd.getrandbits(32), rnd.choice((5, 8, rnd.randrange(16))) << 4,
                            rnd.choice((2, 18, 16, 24, 17, 4, rnd.randrange(256))), 1000, 0, 0) + payload
        length = rnd.choice((20 + len(inner), 20 + len(inner), rnd.randrange(65536)))
        ip = struct.pack("!BBHHHBBH4s4s", rnd.choice((0x45, 0x45, 0x45, rnd.randrange(256))), 0, length, 1,
                         rnd.choice((0, 0, 0, 0x2000, rnd.randrange(65536))), 64, kind, 0,
                         b"\x0a\0\0\x01", b"\x0a\0\0\x02")
        kind = rnd.choice((b"\x08\x00", b"\x08\x00", b"\x08\x00", b"\x08\x06", b"\x81\x00", b"\x86\xdd"))
        frame = destination + source + kind + ip + inner
        frame = rnd.choice((bytes(10), bytes(10), rnd.randbytes(10))) + frame
        yield rnd.choice((frame, frame, frame[:rnd.randrange(len(frame) + 1)], rnd.randbytes(rnd.randrange(2000))))


# --- checkpoints changed on their way ---

class Checkpoint:
    """One on the BULK channel; header fields and the first record can be set."""

    FIELDS = "magic flags epoch nrec npages device_bytes".split()
    RECORD_FIELDS = "block flags offset npages".split()

    def __init__(self, sock):
        head = receive(sock, BULK_HEADER.size)
        self.header = dict(zip(self.FIELDS, BULK_HEADER.unpack(head)))
        h = self.header
        self.records = receive(sock, RECORD.size * h["nrec"])
        self.rest = receive(sock, 4096 * h["npages"] + h["device_bytes"] + 8)
        self.device_at = 4096 * h["npages"]

    def set_header(self, **fields):
        self.header.update(fields)

    def set_record(self, **fields):
        first = dict(zip(self.RECORD_FIELDS, RECORD.unpack_from(self.records)))
        first.update(fields)
        self.records = RECORD.pack(*first.values()) + self.records[RECORD.size:]

    def spoil_device_state(self):
        n = self.header["device_bytes"]
        self.rest = self.rest[:self.device_at] + b"\xff" * n + self.rest[self.device_at + n:]

    def cut(self):
        self.rest = self.rest[:5000]

    def pack(self):
        return BULK_HEADER.pack(*self.header.values()) + self.records + self.rest


BULK_CHANGES = [
    ("checkpoint channel: not a checkpoint", lambda c: c.set_header(magic=1)),
    ("checkpoint channel: too many records", lambda c: c.set_header(nrec=1 << 40)),
    ("checkpoint channel: device state of impossible size", lambda c: c.set_header(device_bytes=0)),
    ("checkpoint channel: device state of impossible size", lambda c: c.set_header(device_bytes=1 << 60)),
    ("checkpoint channel: more than the staging area holds", lambda c: c.set_header(npages=1 << 52)),
    ("checkpoint channel: page counts that do not add up",
     lambda c: c.set_header(npages=c.header["npages"] + 1)),
    ("checkpoint channel: a RAM block that does not exist", lambda c: c.set_record(block=64)),
    ("checkpoint channel: a RAM block that does not exist", lambda c: c.set_record(block=0xffffffff)),
    ("checkpoint channel: pages outside their RAM block", lambda c: c.set_record(offset=1)),
    ("checkpoint channel: pages outside their RAM block", lambda c: c.set_record(offset=1 << 63)),
    ("checkpoint channel: pages outside their RAM block", lambda c: c.set_record(npages=0)),
    ("checkpoint channel: pages outside their RAM block", lambda c: c.set_record(npages=(1 << 64) - 1)),
    ("checkpoint channel: closed|closed the link", lambda c: c.cut()),
    ("checkpoint of epoch [0-9]+ cannot be applied", lambda c: c.spoil_device_state()),
]


class Proxy:
    """Between a real secondary and a real primary; changes the first checkpoint."""

    def __init__(self, change):
        self.change, self.sockets, self.pair = change, [], {}

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.end()

    def end(self):
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def serve(self):
        while True:
            try:
                down, _ = self.listener.accept()
            except OSError:
                return
            hello = receive(down, HELLO.size)
            if len(hello) < HELLO.size:
                down.close()
                continue
            up = socket.create_connection(("127.0.0.1", 7400))
            up.sendall(hello)
            self.sockets += [down, up]
            channel = hello_unpack(hello)["channel"]
            self.pair[channel] = down, up
            bulk = channel == BULK
            threading.Thread(target=self.pump, args=(down, up, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(up, down, bulk), daemon=True).start()

    def say(self, channel, data, to_primary):
        """What the other side never said."""
        self.pair[channel][to_primary].sendall(data)

    def pump(self, source, to, bulk):
        """Forwards until the end, and then ends the other side, too."""
        try:
            if bulk:
                to.sendall(receive(source, ANSWER.size))
                checkpoint = Checkpoint(source)
                self.change(checkpoint)
                to.sendall(checkpoint.pack())
                if len(checkpoint.rest) == 5000:
                    raise OSError("cut")
            while data := source.recv(1 << 20):
                to.sendall(data)
        except (OSError, struct.error):
            pass
        for s in source, to:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
