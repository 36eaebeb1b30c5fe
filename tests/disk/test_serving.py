#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One disk manager: parameters, export, requests, control messages, what a flush promises."""
import os
import resource
import socket
import subprocess
import time
import unittest

import disklib as d


class Start(d.TestCase):
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
        self.assertIn("data=DIR and name=NAME", self.refused("file=" + image, "control-fd={fd}"))
        self.assertIn("journal=1M", self.refused("file=" + image, "journal=1M"))
        self.assertIn("name=a/b", self.refused("file=" + image, "name=a/b"))
        self.assertIn("cache-max=1M", self.refused("file=" + image, "cache-max=1M"))
        self.assertIn("'nonsense'", self.refused("file=" + image, "nonsense=1"))
        with self.subTest("files"):
            keep = ("data=" + self.dir, "name=x")
            for path, why in ((self.dir + "/none", "cannot be opened: No such file"),
                              (odd, "has 1000 bytes"), ("/dev/zero", "is neither a regular file")):
                self.assertIn(f"file={path}: {why}", self.refused("file=" + path, "control-fd={fd}", *keep))

    def test_file_in_use_is_refused(self):
        a = self.disk("a")
        self.assertIn("in use by another process", self.refused("file=" + a.path, "control-fd={fd}",
                                                                 "data=" + self.dir, "name=x"))

    def test_identity(self):
        a = self.disk("a", data=b"x" * d.MB)
        b = self.disk("b", data=b"x" * d.MB + bytes(5 * d.MB))  # zeroes written, not holes
        c = self.disk("c", data=b"x" * (d.MB - 1) + b"y")
        e = self.disk("e", size=self.SIZE + 512, data=b"x" * d.MB)
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
        self.assertEqual(d.content(a.path)[:10], b"last words")


class Alone(d.TestCase):
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
        self.assertEqual(d.content(a.path)[:100000], want)
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
        self.assertIn("whole disk yet", a.ask(d.BOUNDARY, 7, status=-16).text)
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
        for op in (0, 50, 100, 0xFFFFFFFF):
            a.control.send(d.REQUEST.pack(op, 0, 0, 0, 0, b""))
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
        resource.prlimit(a.process.pid, resource.RLIMIT_FSIZE, (8 * d.MB, 8 * d.MB))
        n = a.nbd()
        n.write(0, b"x" * 4096)
        # SIGXFSZ is ignored in the disk manager because it is in Python
        with self.assertRaises(d.NbdError):
            n.write(12 * d.MB, b"x" * 4096)
        m = a.event(d.EV_ERROR)
        self.assertIn("writing failed: File too large", m.text)
        self.assertIn(a.path, m.text)
        self.assertEqual(n.read(0, 4096), b"x" * 4096)


@unittest.skipUnless(d.SHIM, "COLO_SYNC_SHIM is not set")
class Flush(d.TestCase):
    def test_flush_and_fua_reach_stable_storage_once(self):
        n = self.shimmed("a").nbd()
        n.flush()
        self.assertEqual(self.fdatasyncs(), 0)  # nothing was written
        n.write(0, b"x" * 512)
        self.assertEqual(self.fdatasyncs(), 0)
        n.flush()
        n.flush()
        self.assertEqual(self.fdatasyncs(), 1)
        n.write(0, b"y" * 512, fua=True)
        self.assertEqual(self.fdatasyncs(), 2)
        n.trim(0, 4096)
        n.flush()
        self.assertEqual(self.fdatasyncs(), 3)

    def test_failed_flush_is_never_forgotten(self):
        a = self.shimmed("a")
        n = a.nbd()
        n.write(0, b"x" * 512)
        self.switch("fail", True)
        with self.assertRaises(d.NbdError):
            n.flush()
        self.assertIn("flushing failed", a.event(d.EV_ERROR).text)
        self.switch("fail", False)
        with self.assertRaises(d.NbdError):
            n.flush()
        self.assertEqual(n.read(0, 512), b"x" * 512)

    def test_secondary_flush_promises_nothing_and_commit_does_not_wait(self):
        a, b = self.disk("a"), self.shimmed("b")
        d.link(a, b)
        d.checkpoint(a, b, 1)  # the first one does wait
        a.nbd().write(0, b"x" * 4096)
        self.switch("gate", True)  # a flush of storage would hang
        before = self.fdatasyncs()
        d.checkpoint(a, b, 2)
        n = b.nbd()
        n.write(0, b"y" * 4096, fua=True)
        n.flush()
        deadline = time.monotonic() + d.DEADLINE  # but it is made stable behind its back
        while self.fdatasyncs() == before:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.002)
        self.switch("gate", False)

    def test_flush_after_failover_waits_for_the_write_back(self):
        a, b = self.disk("a"), self.shimmed("b")
        d.link(a, b)
        d.checkpoint(a, b, 1)
        n = b.nbd()
        n.write(0, b"svm" * 4096)
        self.switch("gate", True)
        b.failover()
        n.send(d.NBD_FLUSH)
        m = b.nbd()
        m.write(8192, b"new" * 100)  # the guest runs on meanwhile
        self.assertEqual(m.read(0, 3), b"svm")
        n.sock.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            n.wait()
        n.sock.settimeout(d.DEADLINE)
        self.assertFalse([e for e in b.events if e.op == d.EV_WRITTEN_BACK])
        self.switch("gate", False)
        self.assertEqual(n.wait()[1], 0)
        b.event(d.EV_WRITTEN_BACK)
        want = bytearray(b"svm" * 4096)
        want[8192:8492] = b"new" * 100
        self.assertEqual(d.content(b.path)[:12288], want)


if __name__ == "__main__":
    d.main()
