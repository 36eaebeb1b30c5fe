# SPDX-License-Identifier: GPL-2.0-or-later
"""Disk managers under test: start nbdkit with the plugin, speak its control protocol, and NBD.

COLO_DISK_PLUGIN names the plugin, COLO_SYNC_SHIM the LD_PRELOAD library made from sync_shim.c. Random tests
print their seed; COLO_SEED repeats one.
"""
import array
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

MB = 1 << 20
PLUGIN = os.environ.get("COLO_DISK_PLUGIN", "./nbdkit-colo-plugin.so")
SHIM = os.environ.get("COLO_SYNC_SHIM")
SEED = int(os.environ.get("COLO_SEED", int.from_bytes(os.urandom(4), "big")))
DEADLINE = float(os.environ.get("COLO_TEST_DEADLINE", "20"))
# for a plugin built with a sanitizer: its library, and words to put before nbdkit
PRELOAD = os.environ.get("COLO_DISK_PRELOAD", "")
WRAPPER = os.environ.get("COLO_DISK_WRAPPER", "").split()

ALONE, PRIMARY, SECONDARY = 0, 1, 2
LINK, UNLINK, BOUNDARY, COMMIT, FAILOVER, STATUS, OPEN, SERVE, VERIFY, FAULT, RATE = range(1, 12)
(EV_HELLO, EV_BOUNDARY, EV_SYNC, EV_SYNCED, EV_WRITTEN_BACK, EV_WANT_CHECKPOINT, EV_LINK_LOST,
 EV_ERROR, EV_FAULT, EV_VERIFIED, EV_OPENING) = range(100, 111)
LINK_ALL, OPEN_FAILOVER, VERIFY_REPAIR = 1, 2, 4
HELLO_READ_ONLY, HELLO_PREPARED, HELLO_FAILED_OVER = 1, 2, 4
CONSISTENT, SERVED, SHARED, NEW, BLANK, OVERWRITE = 1, 2, 4, 8, 16, 32
STATUS_KEYS = ("pvm_cache", "svm_cache", "memory", "mirrored", "changed", "reads", "writes", "flushes",
               "journal")
REQUEST = struct.Struct("=IIQII72s")
MESSAGE_SIZE = 16 + 144 + 200
HEADER = struct.Struct(">IIQII")
MAGIC = 0x434F4C44
LINK_WRITE, LINK_ZERO, LINK_BOUNDARY, LINK_HASH, LINK_SYNCED, LINK_HELLO, LINK_HOLE = range(1, 8)
LINK_TARGET, LINK_SAME, LINK_DIFFERS, LINK_BUSY, LINK_SYNC_STABLE, LINK_COMMITTED = range(32, 38)

NBD_READ, NBD_WRITE, NBD_DISC, NBD_FLUSH, NBD_TRIM, NBD_ZERO = 0, 1, 2, 3, 4, 6
NBD_FUA, NBD_NO_HOLE = 1, 2


class Message:
    def __init__(self, raw):
        self.op, self.status, self.epoch = struct.unpack_from("=IiQ", raw)
        self.numbers = struct.unpack_from("=9Q", raw, 16)
        self.size, self.identity = self.numbers[1:3]
        self.done, self.total, self.moved, self.eta = self.numbers[0:4]
        self.checked, self.differing, self.repaired = self.numbers[0:3]
        self.counters = dict(zip(STATUS_KEYS, self.numbers))
        # of HELLO, and of the answers that have one
        self.flags, = struct.unpack_from("=I", raw, 20)
        self.failover = self.numbers[3]
        at = 16 + (32 if self.op == EV_HELLO else 72)
        self.lineage = Lineage(raw[at:at + Lineage.LAYOUT.size])
        self.text = raw[160:].split(b"\0")[0].decode()

    def __repr__(self):
        return f"<op {self.op} status {self.status} epoch {self.epoch} {self.text!r}>"


class Lineage:
    """struct lineage"""
    LAYOUT = struct.Struct("=8QII")

    def __init__(self, raw):
        self.raw = raw
        self.current, self.base, *self.history, self.flags, _ = self.LAYOUT.unpack(raw)

    def __repr__(self):
        return f"<lineage {self.current:x} base {self.base:x} flags {self.flags:#x}>"


class NbdError(Exception):
    pass


class Nbd:
    """Just enough of the protocol; requests one at a time, or pipelined with send() and wait()."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(path)
        magic, option, flags = struct.unpack(">8s8sH", self._get(18))
        assert magic == b"NBDMAGIC" and option == b"IHAVEOPT" and flags & 1
        self.sock.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))  # NBD_OPT_EXPORT_NAME, no zeroes
        self.size, self.flags = struct.unpack(">QH", self._get(10))
        self.cookie = 0
        self.reading = {}

    def _get(self, n):
        data = bytearray()
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise NbdError("connection closed")
            data += part
        return bytes(data)

    def send(self, op, off=0, length=0, data=b"", flags=0):
        self.cookie += 1
        if op == NBD_READ:
            self.reading[self.cookie] = length
        self.sock.sendall(struct.pack(">IHHQQI", 0x25609513, flags, op, self.cookie, off, length) + data)
        return self.cookie

    def wait(self):
        """The next answer: (cookie, error, data)."""
        magic, error, cookie = struct.unpack(">IIQ", self._get(16))
        assert magic == 0x67446698
        length = self.reading.pop(cookie, 0)
        return cookie, error, self._get(length) if length and not error else b""

    def call(self, *args, **kw):
        cookie = self.send(*args, **kw)
        answered, error, data = self.wait()
        assert answered == cookie
        if error:
            raise NbdError(os.strerror(error))
        return data

    def read(self, off, length):
        return self.call(NBD_READ, off, length)

    def write(self, off, data, fua=False):
        self.call(NBD_WRITE, off, len(data), data, NBD_FUA if fua else 0)

    def zero(self, off, length):
        self.call(NBD_ZERO, off, length)

    def trim(self, off, length):
        self.call(NBD_TRIM, off, length)

    def flush(self):
        self.call(NBD_FLUSH)

    def close(self):
        self.sock.close()


def command(socket_path, *args):
    """nbdkit with the plugin, in the foreground."""
    return WRAPPER + ["nbdkit", "-f", "--exit-with-parent", "-U", socket_path, PLUGIN, *args]


def environment(preload="", **variables):
    libraries = ":".join(p for p in (PRELOAD, preload) if p)
    return dict(os.environ, **variables, **({"LD_PRELOAD": libraries} if libraries else {}))


class Disk:
    """One nbdkit with the plugin. Says OPEN at once, and SERVE before it is first used as anything but a
    secondary, unless by_hand."""

    def __init__(self, path, env=None, preload="", by_hand=False, **config):
        self.path, self.events, self.nbds = path, [], []
        self.served = by_hand
        self.read_only = "read_only" in config
        self.data = path + ".data"
        os.makedirs(self.data, exist_ok=True)
        if not self.read_only:
            config = dict(data=self.data, name="disk0", journal="64M") | config
        self.dir = tempfile.mkdtemp(prefix="colo-disk-")
        self.sock_path = self.dir + "/nbd"
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.agent, agents = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        args = [f"file={path}", f"control-fd={theirs.fileno()}", f"boundary-fd={agents.fileno()}"]
        args += [f"{k.replace('_', '-')}={v}" for k, v in config.items()]
        self.process = subprocess.Popen(
            command(self.sock_path, *args),
            pass_fds=[theirs.fileno(), agents.fileno()], env=environment(preload, **(env or {})),
            restore_signals=False)  # SIGXFSZ stays ignored: tests make storage fail by RLIMIT_FSIZE
        theirs.close()
        agents.close()
        self.hello = self.event(EV_HELLO)
        if not by_hand:
            self.ask(OPEN, self.hello.epoch)

    def receive(self, deadline):
        left = max(0, deadline - time.monotonic())
        if not select.select([self.control], [], [], left)[0]:
            raise TimeoutError(f"no message within the deadline; had {self.events}")
        raw = self.control.recv(4096)
        if not raw:
            raise EOFError(f"disk manager of {self.path} has ended")
        assert len(raw) == MESSAGE_SIZE, len(raw)
        return Message(raw)

    def event(self, op, deadline=None):
        """The next event of this kind; others stay in self.events."""
        deadline = time.monotonic() + (deadline or DEADLINE)
        while True:
            for i, m in enumerate(self.events):
                if m.op == op:
                    return self.events.pop(i)
            self.events.append(self.receive(deadline))

    def serve(self):
        """Unless it does already."""
        if not self.served:
            self.served = True
            self.ask(SERVE)

    def failover(self, generation=0):
        self.ask(FAILOVER, generation or SEED)
        self.ask(SERVE)

    def send(self, op, epoch=0, role=0, fd=None, flags=0, lineage=None):
        if op == LINK and role == PRIMARY:
            self.serve()
        if op == LINK and role == SECONDARY:
            self.served = True  # it never will by itself
        raw = REQUEST.pack(op, role, epoch, flags, 0, lineage.raw if lineage else b"")
        fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        self.control.sendmsg([raw], fds)

    def ask(self, op, epoch=0, role=0, fd=None, status=0, flags=0, lineage=None):
        """Send a request, return its answer, whose status must be as given (None: any)."""
        self.send(op, epoch, role, fd, flags, lineage)
        answer = self.answer(op)
        assert status is None or answer.status == status, (answer, status)
        return answer

    def answer(self, op):
        deadline = time.monotonic() + DEADLINE
        while True:
            m = self.receive(deadline)
            if m.op == op:
                return m
            self.events.append(m)

    def status(self):
        m = self.ask(STATUS)
        return dict(m.counters, text=m.text)

    def until(self, what, test):
        """Poll the status until test(status) holds."""
        deadline = time.monotonic() + DEADLINE
        while not test(status := self.status()):
            assert time.monotonic() < deadline, (what, status)
            time.sleep(0.002)
        return status

    def nbd(self):
        if not self.read_only:
            self.serve()
        n = Nbd(self.sock_path)
        self.nbds.append(n)
        return n

    def stop(self):
        """End as when the daemon goes away. Returns the exit status."""
        for n in self.nbds:
            n.close()
        self.agent.close()
        self.control.close()
        return self.wait()

    def wait(self):
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        shutil.rmtree(self.dir, ignore_errors=True)
        return status


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        b = server.accept()[0]
    return a, b


def begin_link(primary, secondary, all=False):  # noqa: A002 - as the flag is called
    """Join two disk managers by TCP over loopback."""
    a, b = tcp_pair()
    primary.serve()
    if primary.ask(STATUS).lineage.flags & SHARED:
        primary.ask(SERVE)  # the last link's end
    secondary.ask(LINK, role=SECONDARY, fd=b.fileno(), lineage=primary.ask(STATUS).lineage)
    primary.ask(LINK, role=PRIMARY, fd=a.fileno(), flags=LINK_ALL if all else 0)
    a.close()
    b.close()


def link(primary, secondary, all=False):  # noqa: A002
    """The same; returns when the first sync is over and stable, with its figures."""
    begin_link(primary, secondary, all)
    return primary.event(EV_SYNCED)


def checkpoint(primary, secondary, epoch):
    primary.ask(BOUNDARY, epoch)
    assert secondary.event(EV_BOUNDARY).epoch == epoch
    secondary.ask(COMMIT, epoch)


def content(path):
    with open(path, "rb") as f:
        return f.read()


class TestCase(unittest.TestCase):
    SIZE = 16 * MB

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="colo-test-")
        self.disks = []
        self.rng = random.Random(SEED)

    def tearDown(self):
        for disk in self.disks:
            disk.stop()
        shutil.rmtree(self.dir)

    def image(self, name, size=None, data=b""):
        path = f"{self.dir}/{name}"
        shutil.rmtree(path + ".data", ignore_errors=True)  # of another disk of that name
        with open(path, "wb") as f:
            f.write(data)
            f.truncate(size or self.SIZE)
        return path

    def disk(self, name, size=None, data=b"", **kw):
        disk = Disk(self.image(name, size, data), **kw)
        self.disks.append(disk)
        return disk

    def pair(self, data=b"base" * 5000, **kw):
        """Two linked disks whose first checkpoint, epoch 1, is committed."""
        a, b = self.disk("a", data=data, **kw), self.disk("b", data=data, **kw)
        link(a, b)
        checkpoint(a, b, 1)
        return a, b

    def assertSameContent(self, a, b):
        # not assertEqual: nobody wants to read that difference
        self.assertTrue(content(a.path) == content(b.path), "contents differ")

    def shimmed(self, name, **kw):
        """A disk with sync_shim.c; what switch() creates and removes acts on it."""
        env = {f"SYNC_{x.upper()}": f"{self.dir}/{x}" for x in ("log", "gate", "fail", "crawl", "dawdle")}
        env["SYNC_FILE"] = f"{self.dir}/{name}"
        return self.disk(name, preload=SHIM, env=env, **kw)

    def switch(self, name, on):
        if on:
            open(f"{self.dir}/{name}", "w").close()
        else:
            os.unlink(f"{self.dir}/{name}")

    def fdatasyncs(self):
        log = f"{self.dir}/log"
        return os.path.getsize(log) if os.path.exists(log) else 0


def main():
    if not shutil.which("nbdkit"):
        print("nbdkit is not installed")
        sys.exit(77)
    print("seed", SEED, flush=True)
    unittest.main()
