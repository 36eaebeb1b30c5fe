#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The disk manager as a whole: real nbdkits, joined by TCP, driven over their control sockets and NBD.

COLO_DISK_PLUGIN names the plugin, COLO_SYNC_SHIM the LD_PRELOAD library made from sync_shim.c. Random tests
print their seed; COLO_SEED repeats one.
"""
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import disklib as d

MB = 1 << 20
SHIM = os.environ.get("COLO_SYNC_SHIM")
SEED = int(os.environ.get("COLO_SEED", int.from_bytes(os.urandom(4), "big")))


def content(path):
    with open(path, "rb") as f:
        return f.read()


class Base(unittest.TestCase):
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
        with open(path, "wb") as f:
            f.write(data)
            f.truncate(size or self.SIZE)
        return path

    def disk(self, name, size=None, data=b"", **kw):
        disk = d.Disk(self.image(name, size, data), **kw)
        self.disks.append(disk)
        return disk

    def pair(self, data=b"base" * 5000, **kw):
        """Two linked disks whose first checkpoint, epoch 1, is committed."""
        a, b = self.disk("a", data=data, **kw), self.disk("b", data=data, **kw)
        d.link(a, b)
        d.checkpoint(a, b, 1)
        return a, b

    def assertSameContent(self, a, b):
        # not assertEqual: nobody wants to read that difference
        self.assertTrue(content(a.path) == content(b.path), "contents differ")


class Start(Base):
    def refused(self, *args):
        """The error message with which nbdkit refuses to start; {fd} stands for a good control-fd."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            args = [a.format(fd=theirs.fileno()) for a in args]
            r = subprocess.run(d.command(self.dir + "/s", *args), capture_output=True, text=True,
                               timeout=d.DEADLINE, pass_fds=[theirs.fileno()], env=d.environment())
        self.assertNotEqual(r.returncode, 0)
        return r.stderr

    def test_bad_parameters_are_named(self):
        image = self.image("x")
        odd = self.image("odd", 1000)
        self.assertIn("file=DISK is missing", self.refused())
        self.assertIn("control-fd=N is missing", self.refused("file=" + image))
        self.assertIn("control-fd=77", self.refused("file=" + image, "control-fd=77"))
        self.assertIn("boundary-fd=1", self.refused("file=" + image, "boundary-fd=1"))
        self.assertIn("control-fd=1", self.refused("file=" + image, "control-fd=1"))
        self.assertIn("control-fd", self.refused("file=" + image, "control-fd=x"))
        self.assertIn("cache-max=1M", self.refused("file=" + image, "cache-max=1M"))
        self.assertIn("'nonsense'", self.refused("file=" + image, "nonsense=1"))
        with self.subTest("files"):
            for path, why in ((self.dir + "/none", "cannot be opened: No such file"),
                              (odd, "has 1000 bytes"), ("/dev/zero", "is neither a regular file")):
                self.assertIn(f"file={path}: {why}", self.refused("file=" + path, "control-fd={fd}"))

    def test_file_in_use_is_refused(self):
        a = self.disk("a")
        self.assertIn("in use by another process", self.refused("file=" + a.path, "control-fd={fd}"))

    def test_identity(self):
        a = self.disk("a", data=b"x" * MB)
        b = self.disk("b", data=b"x" * MB + bytes(5 * MB))  # zeroes written, not holes
        c = self.disk("c", data=b"x" * (MB - 1) + b"y")
        e = self.disk("e", size=self.SIZE + 512, data=b"x" * MB)
        self.assertEqual(a.hello.size, self.SIZE)
        self.assertEqual(a.hello.identity, b.hello.identity)
        self.assertEqual(len({x.hello.identity for x in (a, b, c, e)}), 3)

    def test_export(self):
        n = self.disk("a").nbd()
        self.assertEqual(n.size, self.SIZE)
        for bit, name in ((2, "flush"), (3, "fua"), (5, "trim"), (6, "zeroes"), (8, "multi-conn")):
            self.assertTrue(n.flags >> bit & 1, name)
        self.assertFalse(n.flags >> 1 & 1, "read-only")

    def test_ends_with_the_daemon(self):
        a = self.disk("a")
        n = a.nbd()
        n.write(0, b"last words" + bytes(502))
        a.control.close()
        self.assertEqual(a.wait(), 0)
        self.assertEqual(content(a.path)[:10], b"last words")


class Alone(Base):
    def test_read_write_trim_zero(self):
        a = self.disk("a", data=b"z" * 100000)
        n = a.nbd()
        n.write(512, b"one" * 512, fua=True)
        n.trim(20000, 5000)
        n.zero(40000, 3)
        n.flush()
        want = bytearray(b"z" * 100000)
        want[512:512 + 1536] = b"one" * 512
        want[20000:25000] = bytes(5000)
        want[40000:40003] = bytes(3)
        self.assertEqual(n.read(0, 100000), want)
        self.assertEqual(content(a.path)[:100000], want)
        s = a.status()
        self.assertEqual((s["text"], s["writes"], s["flushes"], s["changed"]), ("alone", 3, 1, 65536))

    def test_roles_refuse_what_is_not_theirs(self):
        a = self.disk("a")
        self.assertIn("only a primary", a.ask(d.BOUNDARY, 1, status=-22).text)
        self.assertIn("only a secondary", a.ask(d.COMMIT, 1, status=-22).text)
        self.assertIn("only a secondary", a.ask(d.FAILOVER, status=-22).text)
        a.ask(d.UNLINK)
        self.assertIn("without a descriptor", a.ask(d.LINK, role=d.PRIMARY, status=-9).text)
        with open("/dev/null") as f:
            self.assertIn("not a stream", a.ask(d.LINK, role=d.PRIMARY, fd=f.fileno(), status=None).text)
        x, y = d.tcp_pair()
        self.assertIn("role 9", a.ask(d.LINK, role=9, fd=x.fileno(), status=-22).text)
        a.ask(d.LINK, role=d.PRIMARY, fd=x.fileno())
        self.assertIn("already", a.ask(d.LINK, role=d.PRIMARY, fd=y.fileno(), status=-16).text)
        a.ask(d.BOUNDARY, 7)
        self.assertIn("not above", a.ask(d.BOUNDARY, 7, status=-22).text)
        x.close()
        y.close()

    def test_written_disk_may_not_become_secondary(self):
        a = self.disk("a")
        a.nbd().write(0, bytes(512))
        x, y = d.tcp_pair()
        self.assertIn("written to", a.ask(d.LINK, role=d.SECONDARY, fd=x.fileno(), status=-16).text)
        x.close()
        y.close()

    def test_garbage_on_control(self):
        a = self.disk("a")
        for raw in (b"", b"x", b"x" * 15, b"x" * 17, b"x" * 5000):
            if not raw:
                continue  # would be an end of file
            a.control.send(raw)
            m = a.receive(time.monotonic() + d.DEADLINE)
            self.assertEqual(m.status, -74)  # EBADMSG
        for op in (0, 7, 100, 0xFFFFFFFF):
            a.control.send(d.REQUEST.pack(op, 0, 0))
            m = a.receive(time.monotonic() + d.DEADLINE)
            self.assertEqual((m.op & 0xFFFFFFFF, m.status), (op, -95))  # EOPNOTSUPP
        # descriptors that nobody asked for are closed again
        before = len(os.listdir(f"/proc/{a.process.pid}/fd"))
        x, y = d.tcp_pair()
        for op in (d.STATUS, d.UNLINK, d.BOUNDARY, 99):
            a.ask(op, fd=x.fileno(), status=None)
        self.assertEqual(len(os.listdir(f"/proc/{a.process.pid}/fd")), before)
        x.close()
        y.close()
        self.assertEqual(a.nbd().read(0, 512), bytes(512))

    def test_storage_error_reaches_guest_and_daemon(self):
        a = self.disk("a")
        resource.prlimit(a.process.pid, resource.RLIMIT_FSIZE, (8 * MB, 8 * MB))
        n = a.nbd()
        n.write(0, b"x" * 4096)
        # SIGXFSZ is ignored in the disk manager because it is in Python
        with self.assertRaises(d.NbdError):
            n.write(12 * MB, b"x" * 4096)
        m = a.event(d.EV_ERROR)
        self.assertIn("writing failed: File too large", m.text)
        self.assertIn(a.path, m.text)
        self.assertEqual(n.read(0, 4096), b"x" * 4096)


@unittest.skipUnless(SHIM, "COLO_SYNC_SHIM is not set")
class Flush(Base):
    def shimmed(self, name, **kw):
        self.log, self.gate, self.fail = (f"{self.dir}/{x}" for x in ("log", "gate", "fail"))
        return self.disk(name, preload=SHIM, env=dict(SYNC_LOG=self.log, SYNC_GATE=self.gate,
                                                       SYNC_FAIL=self.fail), **kw)

    def count(self):
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def test_flush_and_fua_reach_stable_storage_once(self):
        n = self.shimmed("a").nbd()
        n.flush()
        self.assertEqual(self.count(), 0)  # nothing was written
        n.write(0, b"x" * 512)
        self.assertEqual(self.count(), 0)
        n.flush()
        n.flush()
        self.assertEqual(self.count(), 1)
        n.write(0, b"y" * 512, fua=True)
        self.assertEqual(self.count(), 2)
        n.trim(0, 4096)
        n.flush()
        self.assertEqual(self.count(), 3)

    def test_failed_flush_is_never_forgotten(self):
        a = self.shimmed("a")
        n = a.nbd()
        n.write(0, b"x" * 512)
        open(self.fail, "w").close()
        with self.assertRaises(d.NbdError):
            n.flush()
        self.assertIn("flushing failed", a.event(d.EV_ERROR).text)
        os.unlink(self.fail)
        with self.assertRaises(d.NbdError):
            n.flush()
        self.assertEqual(n.read(0, 512), b"x" * 512)

    def test_secondary_flush_promises_nothing_and_commit_does_not_wait(self):
        a, b = self.disk("a"), self.shimmed("b")
        d.link(a, b)
        a.nbd().write(0, b"x" * 4096)
        open(self.gate, "w").close()  # a flush would hang
        d.checkpoint(a, b, 1)
        n = b.nbd()
        n.write(0, b"y" * 4096, fua=True)
        n.flush()
        deadline = time.monotonic() + d.DEADLINE  # but it is made stable behind its back
        while not self.count():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.002)
        os.unlink(self.gate)

    def test_flush_after_failover_waits_for_the_write_back(self):
        a, b = self.disk("a"), self.shimmed("b")
        d.link(a, b)
        d.checkpoint(a, b, 1)
        n = b.nbd()
        n.write(0, b"svm" * 4096)
        open(self.gate, "w").close()
        b.ask(d.FAILOVER)
        n.send(d.NBD_FLUSH)
        m = b.nbd()
        m.write(8192, b"new" * 100)  # the guest runs on meanwhile
        self.assertEqual(m.read(0, 3), b"svm")
        n.sock.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            n.wait()
        n.sock.settimeout(d.DEADLINE)
        self.assertFalse([e for e in b.events if e.op == d.EV_WRITTEN_BACK])
        os.unlink(self.gate)
        self.assertEqual(n.wait()[1], 0)
        b.event(d.EV_WRITTEN_BACK)
        want = bytearray(b"svm" * 4096)
        want[8192:8492] = b"new" * 100
        self.assertEqual(content(b.path)[:12288], want)


class Pair(Base):
    def test_first_sync_sends_what_changed(self):
        a, b = self.disk("a", data=b"q" * 200000), self.disk("b", data=b"q" * 200000)
        n = a.nbd()
        n.write(70000, b"changed" * 100)
        n.trim(150000, 65536 * 3)
        n.write(self.SIZE - 512, b"e" * 512)
        d.link(a, b)
        self.assertEqual(a.status()["text"], "primary")
        d.checkpoint(a, b, 1)
        self.assertSameContent(a, b)
        s = b.status()
        self.assertLess(s["mirrored"], 7 * 65536)  # not the whole disk

    def test_mirror_and_commit(self):
        a, b = self.pair()
        na, nb = a.nbd(), b.nbd()
        na.write(5000, b"P" * 5000)
        na.zero(0, 700)
        na.trim(MB, MB)
        b.until("all arrived", lambda s: s["mirrored"] >= 5000)
        self.assertEqual(nb.read(5000, 4), b"base"[5000 % 4:] + b"base"[:5000 % 4])  # not before a commit
        d.checkpoint(a, b, 2)
        self.assertEqual(nb.read(5000, 5000), b"P" * 5000)
        self.assertSameContent(a, b)
        self.assertEqual(b.status()["pvm_cache"], 0)

    def test_commit_takes_no_more_than_its_epoch(self):
        a, b = self.pair()
        n = a.nbd()
        for epoch in (2, 3, 4):
            n.write(0, bytes([epoch]) * 4096)
            a.ask(d.BOUNDARY, epoch)
            self.assertEqual(b.event(d.EV_BOUNDARY).epoch, epoch)
        n.write(0, b"after" * 100)
        b.until("all arrived", lambda s: s["mirrored"] >= 3 * 4096 + 500)
        self.assertIn("epoch 9", b.ask(d.COMMIT, 9, status=-2).text)
        b.ask(d.COMMIT, 2)
        self.assertEqual(b.nbd().read(0, 10), bytes([2]) * 10)
        b.ask(d.COMMIT, 4)  # two at once
        self.assertEqual(b.nbd().read(0, 10), bytes([4]) * 10)
        b.ask(d.COMMIT, 4, status=-2)
        self.assertEqual(b.status()["pvm_cache"], 500)

    def test_svm_writes_are_dropped_by_commit(self):
        a, b = self.pair()
        n = b.nbd()
        before = n.read(0, 50000)
        n.write(1000, b"svm" * 3000, fua=True)
        n.trim(20000, 9000)
        n.flush()
        want = bytearray(before)
        want[1000:10000] = b"svm" * 3000
        want[20000:29000] = bytes(9000)
        self.assertEqual(n.read(0, 50000), want)
        self.assertEqual(content(b.path)[:50000], before)  # storage stays
        self.assertGreater(b.status()["svm_cache"], 18000)
        d.checkpoint(a, b, 2)
        self.assertEqual(n.read(0, 50000), before)
        self.assertEqual(b.status()["svm_cache"], 0)

    def test_failover_keeps_svm_writes_and_drops_uncommitted_pvm_writes(self):
        a, b = self.pair()
        na, nb = a.nbd(), b.nbd()
        na.write(0, b"committed" * 1000)
        d.checkpoint(a, b, 2)
        na.write(4000, b"LOST" * 1000)
        a.ask(d.BOUNDARY, 3)  # complete or not: not committed
        b.event(d.EV_BOUNDARY)
        nb.write(5001, b"kept" * 100)
        want = nb.read(0, 65536)
        b.ask(d.FAILOVER)
        self.assertEqual(nb.read(0, 65536), want)
        b.event(d.EV_WRITTEN_BACK)
        self.assertEqual(nb.read(0, 65536), want)
        self.assertEqual(content(b.path)[:65536], want)
        self.assertNotIn(b"LOST", want)
        self.assertIn(b"kept", want)
        s = b.status()
        self.assertEqual((s["text"], s["pvm_cache"], s["svm_cache"]), ("alone", 0, 0))
        self.assertEqual(a.event(d.EV_LINK_LOST).text, "the peer closed the connection")
        na.write(0, b"alone" * 100)  # the other one goes on, too; arbitration is the daemon's

    def test_survivor_becomes_primary_for_a_new_peer(self):
        a, b = self.pair()
        a.nbd().write(0, b"one" * 1000)
        d.checkpoint(a, b, 2)
        nb = b.nbd()
        nb.write(MB, b"two" * 1000)
        b.ask(d.FAILOVER)
        nb.write(2 * MB, b"three" * 1000)
        c = self.disk("c", data=b"base" * 5000)  # as all began
        d.link(b, c)
        d.checkpoint(b, c, 3)
        b.event(d.EV_WRITTEN_BACK)
        self.assertSameContent(b, c)

    def test_no_failover_before_the_first_commit(self):
        a, b = self.disk("a"), self.disk("b")
        d.link(a, b)
        self.assertIn("undefined", b.ask(d.FAILOVER, status=-61).text)
        self.assertIn("undefined", b.status()["text"])
        self.assertIn("undefined", b.ask(d.UNLINK).text)
        self.assertIn("undefined", b.ask(d.FAILOVER, status=-61).text)

    def test_received_checkpoint_survives_the_link(self):
        a, b = self.pair()
        a.nbd().write(0, b"arrived" * 100)
        a.ask(d.BOUNDARY, 2)
        b.event(d.EV_BOUNDARY)
        a.process.kill()
        b.event(d.EV_LINK_LOST)
        b.ask(d.COMMIT, 2)
        b.ask(d.FAILOVER)
        b.event(d.EV_WRITTEN_BACK)
        self.assertEqual(content(b.path)[:700], b"arrived" * 100)

    def test_relink_of_the_same_processes(self):
        a, b = self.pair()
        na, nb = a.nbd(), b.nbd()
        na.write(0, b"1" * 4096)
        a.ask(d.UNLINK)
        b.event(d.EV_LINK_LOST)
        na.write(9000, b"2" * 4096)
        nb.write(9000, b"s" * 9000)
        d.link(a, b)
        d.checkpoint(a, b, 1)  # a new link, epochs start anew
        self.assertSameContent(a, b)
        self.assertEqual(nb.read(0, 65536), na.read(0, 65536))

    def test_failed_commit_can_be_repeated(self):
        a, b = self.pair()
        nb = b.nbd()
        a.nbd().write(0, b"1" * 4096)
        a.nbd().write(12 * MB, b"2" * 4096)
        nb.write(0, b"svm" * 100)
        a.ask(d.BOUNDARY, 2)
        b.event(d.EV_BOUNDARY)
        resource.prlimit(b.process.pid, resource.RLIMIT_FSIZE, (8 * MB, resource.RLIM_INFINITY))
        self.assertIn("File too large", b.ask(d.COMMIT, 2, status=-27).text)
        self.assertIn("half-way", b.ask(d.FAILOVER, status=-61).text)
        resource.prlimit(b.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        b.ask(d.COMMIT, 2)
        self.assertSameContent(a, b)


class Agent(Base):
    """The second socket, for the agent inside QEMU."""

    def ask(self, disk, op, epoch=0):
        disk.agent.settimeout(d.DEADLINE)
        disk.agent.send(d.REQUEST.pack(op, 0, epoch))
        return d.Message(disk.agent.recv(4096))

    def test_marks_boundaries(self):
        a, b = self.pair()
        a.nbd().write(0, b"x" * 4096)
        m = self.ask(a, d.BOUNDARY, 2)
        self.assertEqual((m.op, m.status, m.epoch), (d.BOUNDARY, 0, 2))
        self.assertEqual(b.event(d.EV_BOUNDARY).epoch, 2)
        self.assertEqual(self.ask(a, d.BOUNDARY, 2).status, -22)

    def test_may_do_nothing_else_and_may_end(self):
        a, b = self.pair()
        for op in (d.LINK, d.UNLINK, d.COMMIT, d.FAILOVER, d.STATUS, 99):
            self.assertEqual(self.ask(a, op).status, -1, op)  # EPERM
        a.agent.close()
        a.nbd().write(0, b"x" * 4096)
        d.checkpoint(a, b, 2)
        self.assertSameContent(a, b)


class Bounds(Base):
    def test_want_checkpoint_at_half(self):
        a, b = self.pair(cache_max="4M")
        na, nb = a.nbd(), b.nbd()
        for i in range(9):
            na.write(0, b"x" * (MB // 4))
        b.event(d.EV_WANT_CHECKPOINT)
        d.checkpoint(a, b, 2)
        for i in range(9):
            nb.write(i * MB // 4, b"x" * (MB // 4))
        self.assertIn("SVM", b.event(d.EV_WANT_CHECKPOINT).text)

    def test_svm_cache_spills_and_stays_exact(self):
        a, b = self.pair(cache_max="4M")
        n = b.nbd()
        want = bytearray(content(b.path))
        for i in range(60):
            off, size = self.rng.randrange(self.SIZE - MB), self.rng.randrange(1, MB)
            data = self.rng.randbytes(size)
            n.write(off, data)
            want[off:off + size] = data
        self.assertGreater(b.status()["svm_cache"], 8 * MB)
        self.assertTrue(n.read(0, self.SIZE // 2) + n.read(self.SIZE // 2, self.SIZE // 2) == want)
        b.ask(d.FAILOVER)
        b.event(d.EV_WRITTEN_BACK)
        self.assertTrue(content(b.path) == want)

    def test_full_pvm_cache_holds_the_primary_back_until_the_commit(self):
        a, b = self.pair(cache_max="4M")
        na = a.nbd()
        a.ask(d.BOUNDARY, 2)
        b.event(d.EV_BOUNDARY)
        chunk = b"x" * MB
        for i in range(60):  # more than cache, ring and socket buffers hold
            na.send(d.NBD_WRITE, (i % 8) * MB, MB, chunk)
            na.sock.settimeout(0.5)
            try:
                na.wait()
            except TimeoutError:
                break
        else:
            self.fail("nothing held the writer back")
        self.assertLessEqual(b.status()["pvm_cache"], 4 * MB)
        na.sock.settimeout(d.DEADLINE)
        b.ask(d.COMMIT, 2)
        # Marks sent now queue behind all that; commits let it flow.
        for epoch in range(3, 200):
            a.ask(d.BOUNDARY, epoch)
            self.drain(b)
            if not self.blocked(na):
                break
        self.assertFalse([e for e in a.events if e.op == d.EV_LINK_LOST])

    def blocked(self, n):
        n.sock.settimeout(0.05)
        try:
            n.wait()
            return False
        except TimeoutError:
            return True

    def drain(self, b):
        try:
            while True:
                b.ask(d.COMMIT, b.event(d.EV_BOUNDARY, 0.05).epoch)
        except TimeoutError:
            pass

    def test_stalled_peer_is_given_up(self):
        a = self.disk("a", link_stall_ms=300)
        x, y = d.tcp_pair()
        a.ask(d.LINK, role=d.PRIMARY, fd=x.fileno())
        n = a.nbd()
        for i in range(60):  # nobody reads from y
            n.write((i % 8) * MB, b"x" * MB)
        self.assertIn("took nothing for 300 ms", a.event(d.EV_LINK_LOST).text)
        self.assertEqual(a.status()["text"], "alone")
        x.close()
        y.close()

    def test_unlink_frees_a_waiting_writer(self):
        a = self.disk("a", link_stall_ms=60000)
        x, y = d.tcp_pair()
        a.ask(d.LINK, role=d.PRIMARY, fd=x.fileno())
        n = a.nbd()
        n.sock.settimeout(0.3)
        with self.assertRaises(TimeoutError):
            for i in range(60):
                n.write((i % 8) * MB, b"x" * MB)
        a.ask(d.BOUNDARY, 1)  # never waits
        a.ask(d.UNLINK)
        n.sock.settimeout(d.DEADLINE)
        self.assertEqual(n.wait()[1], 0)
        x.close()
        y.close()


class HostileLink(Base):
    def secondary(self):
        b = self.disk(f"b{len(self.disks)}")
        x, y = d.tcp_pair()
        b.ask(d.LINK, role=d.SECONDARY, fd=x.fileno())
        x.close()
        return b, y

    def refused(self, raw, why):
        b, y = self.secondary()
        y.sendall(raw)
        self.assertIn(why, b.event(d.EV_LINK_LOST).text)
        self.assertTrue(content(b.path) == bytes(self.SIZE))
        b.status()
        y.close()
        b.stop()

    def test_what_is_wrong_is_named(self):
        h = d.HEADER.pack
        for raw, why in (
                (h(1, 1, 0, 512, 0), "bad magic"),
                (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "bad magic"),
                (h(d.MAGIC, 9, 0, 512, 0), "unknown operation (op 9"),
                (h(d.MAGIC, d.LINK_WRITE, 0, 0, 0), "length is zero"),
                (h(d.MAGIC, d.LINK_WRITE, 0, 262145, 0), "length beyond the limit"),
                (h(d.MAGIC, d.LINK_WRITE, 0, 0xFFFFFFFF, 0), "length beyond the limit"),
                (h(d.MAGIC, d.LINK_WRITE, self.SIZE - 511, 512, 0), "beyond the end"),
                (h(d.MAGIC, d.LINK_WRITE, 2**64 - 1, 2, 0), "beyond the end"),
                (h(d.MAGIC, d.LINK_ZERO, 2**63, 512, 0), "beyond the end"),
                (h(d.MAGIC, d.LINK_ZERO, 0, 0xFFFFFFFF, 0), "beyond the end"),
                (h(d.MAGIC, d.LINK_BOUNDARY, 1, 5, 0), "boundary with a length"),
                (h(d.MAGIC, d.LINK_BOUNDARY, 0, 0, 0), "not above"),
                (h(d.MAGIC, d.LINK_BOUNDARY, 5, 0, 0) * 2, "not above"),
                (b"".join(h(d.MAGIC, d.LINK_BOUNDARY, i, 0, 0) for i in range(1, 300)), "too many"),
        ):
            with self.subTest(why):
                self.refused(raw, why)

    def test_cut_off_anywhere(self):
        raw = d.HEADER.pack(d.MAGIC, d.LINK_BOUNDARY, 1, 0, 0)
        raw += d.HEADER.pack(d.MAGIC, d.LINK_WRITE, 4096, 4096, 0) + b"x" * 4096
        for end in (0, 1, 23, 24, 30, 47, 48, 100, 4143):
            b, y = self.secondary()
            y.sendall(raw[:end])
            y.close()
            self.assertIn("closed", b.event(d.EV_LINK_LOST).text)
            if end >= 24:
                b.ask(d.COMMIT, 1)
                b.ask(d.FAILOVER)
                b.event(d.EV_WRITTEN_BACK)
            self.assertTrue(content(b.path) == bytes(self.SIZE))
            b.stop()

    def test_random_garbage(self):
        print("seed", SEED)
        for i in range(20):
            b, y = self.secondary()
            raw = bytearray()
            while len(raw) < 20000:
                op, length = self.rng.randrange(5), self.rng.choice([1, 512, 5000, 2**31])
                raw += d.HEADER.pack(d.MAGIC, op, self.rng.randrange(2 * self.SIZE), length, 0)
                raw += self.rng.randbytes(self.rng.choice([0, min(length, 5000)]))
            try:
                y.sendall(raw)
            except OSError:
                pass  # it hung up in the middle, as it should
            y.close()
            b.event(d.EV_LINK_LOST)
            self.assertEqual(b.stop(), 0)

    def test_primary_wants_no_data(self):
        a = self.disk("a")
        x, y = d.tcp_pair()
        a.ask(d.LINK, role=d.PRIMARY, fd=x.fileno())
        y.sendall(b"hello")
        self.assertIn("a secondary sent data", a.event(d.EV_LINK_LOST).text)
        self.assertEqual(a.status()["text"], "alone")
        x.close()
        y.close()


class Load(Base):
    """Many writers at once, overlapping: the order on both sides must be the same."""
    SIZE = 8 * MB

    def writer(self, disk, seed, stop, size=64 * 1024):
        rng, n, window = random.Random(seed), disk.nbd(), 0
        while not stop.is_set():
            if window == 8:
                self.assertEqual(n.wait()[1], 0)
                window -= 1
            off, length = rng.randrange(256) * 1000, rng.randrange(1, size)
            kind = rng.randrange(10)
            if kind < 8:
                n.send(d.NBD_WRITE, off, length, rng.randbytes(1) * length)
            else:
                n.send(d.NBD_TRIM if kind == 8 else d.NBD_ZERO, off, length)
            window += 1
        while window:
            self.assertEqual(n.wait()[1], 0)
            window -= 1

    def run_writers(self, disk, count=3):
        """Starts writers; the returned function ends them and raises what they raised."""
        stop, failed = threading.Event(), []

        def run(seed):
            try:
                self.writer(disk, seed, stop)
            except Exception as e:  # noqa: BLE001 - handed on
                failed.append(e)

        threads = [threading.Thread(target=run, args=(SEED + i,)) for i in range(count)]
        for t in threads:
            t.start()

        def end():
            stop.set()
            for t in threads:
                t.join()
            self.assertEqual(failed, [])
        return end

    def test_order_is_the_same_on_both(self):
        print("seed", SEED)
        a, b = self.disk("a"), self.disk("b")
        end = self.run_writers(a)  # before, during and after the sync
        a.until("writes before the link", lambda s: s["writes"] > 100)
        d.link(a, b)
        for epoch in range(1, 8):
            target = a.status()["writes"] + 200
            a.until("writes", lambda s: s["writes"] > target)
            end()
            d.checkpoint(a, b, epoch)
            self.assertSameContent(a, b)
            end = self.run_writers(a)
        end()

    def test_guest_writes_win_over_write_back(self):
        print("seed", SEED)
        a, b = self.pair(data=b"")
        n, want = b.nbd(), bytearray(self.SIZE)
        for i in range(0, self.SIZE, MB):
            data = self.rng.randbytes(MB)
            n.write(i, data)
            want[i:i + MB] = data
        b.ask(d.FAILOVER)
        for i in range(2000):  # one at a time, so that the order is known
            off, length = self.rng.randrange(self.SIZE - 9000), self.rng.randrange(1, 9000)
            if self.rng.randrange(4):
                data = self.rng.randbytes(length)
                n.write(off, data)
                want[off:off + length] = data
            else:
                off = self.rng.randrange(self.SIZE - 9000)
                self.assertTrue(n.read(off, length) == want[off:off + length])
        n.flush()
        b.event(d.EV_WRITTEN_BACK)
        self.assertTrue(content(b.path) == want)

    def test_killed_secondary_under_load(self):
        a, b = self.pair()
        end = self.run_writers(a)
        b.until("mirrored", lambda s: s["mirrored"] > MB)
        b.process.kill()
        a.event(d.EV_LINK_LOST)
        target = a.status()["writes"] + 100
        a.until("writes go on", lambda s: s["writes"] > target)
        end()
        self.assertEqual(a.status()["text"], "alone")

    def test_daemon_dies_under_load(self):
        a, b = self.pair()
        n = a.nbd()
        for i in range(50):
            n.send(d.NBD_WRITE, i * 4096, 4096, b"x" * 4096)
        a.control.close()
        self.assertEqual(a.wait(), 0)
        b.event(d.EV_LINK_LOST)


if __name__ == "__main__":
    if not shutil.which("nbdkit"):
        print("nbdkit is not installed")
        sys.exit(77)
    unittest.main()
