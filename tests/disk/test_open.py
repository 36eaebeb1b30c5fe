#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""From start into service and back: lineage and bitmap across clean ends, kills, other people's writes."""
import os
import shutil
import socket
import subprocess
import sys
import time
import unittest

import disklib as d

KNOCK = ("import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1]); "
         "sys.exit(3 if s.recv(1) else 0)")


class Lives(d.TestCase):
    def again(self, disk, kill=False, **kw):
        """The same disk's next process."""
        if kill:
            disk.process.kill()
        disk.stop()
        self.disks.remove(disk)
        disk = d.Disk(disk.path, **kw)
        self.disks.append(disk)
        return disk

    def written(self, data=b"z" * 100000):
        """A disk that served and was written to once, in its second MiB."""
        a = self.disk("a", data=data)
        a.nbd().write(d.MB, b"x" * 4096)
        return a


class Life(Lives):
    def test_new_disk(self):
        a = self.disk("a", data=b"z" * 100000, by_hand=True)
        l = a.hello.lineage
        self.assertEqual((l.flags, l.current, l.base), (d.NEW | d.CONSISTENT, a.hello.identity, a.hello.identity))
        b = self.disk("b", by_hand=True)
        self.assertEqual(b.hello.lineage.flags, d.NEW | d.CONSISTENT | d.BLANK)
        a.ask(d.OPEN)
        s = a.ask(d.SERVE).lineage
        self.assertEqual((s.flags, s.base), (d.CONSISTENT | d.SERVED, l.current))
        self.assertNotIn(s.current, (0, l.current))

    @unittest.skipUnless(d.SHIM, "COLO_SYNC_SHIM is not set")
    def test_progress_before_hello(self):
        size = 256 * d.MB
        self.switch("dawdle", True)  # 2 ms for each MiB
        a = self.shimmed("a", size=size, data=b"z" * size)
        told = [e for e in a.events if e.op == d.EV_OPENING]
        self.assertGreater(len(told), 0)
        for e in told:
            self.assertEqual(e.total, size)
            self.assertTrue(0 < e.done <= size, e.done)
        self.assertEqual([e.done for e in told], sorted(e.done for e in told))

    def test_nothing_before_its_time(self):
        a = self.disk("a", by_hand=True)
        n = a.nbd()
        for call in (lambda: n.read(0, 512), lambda: n.write(0, bytes(512)), lambda: n.trim(0, 512), n.flush):
            with self.assertRaises(d.NbdError):
                call()
        self.assertIn("OPEN comes before", a.ask(d.SERVE, status=-22).text)
        a.ask(d.OPEN)
        self.assertIn("open already", a.ask(d.OPEN, status=-114).text)
        self.assertEqual(n.read(0, 512), bytes(512))
        with self.assertRaises(d.NbdError):
            n.write(0, b"x" * 512)
        a.ask(d.SERVE)
        n.write(0, b"x" * 512)
        self.assertEqual(d.content(a.path)[:512], b"x" * 512)

    def test_a_new_disk_that_never_served_is_new_again(self):
        a = self.disk("a", data=b"1" * 5000, by_hand=True)
        for kill in (False, True):
            with open(a.path, "r+b") as f:
                f.write(b"2" if kill else b"3")
            was = a.hello.identity
            a = self.again(a, kill=kill, by_hand=True)
            self.assertEqual(a.hello.lineage.flags, d.NEW | d.CONSISTENT)
            self.assertNotEqual(a.hello.identity, was)
            self.assertEqual(a.hello.lineage.current, a.hello.identity)

    def test_clean_end_keeps_all_and_exactly(self):
        a = self.written()
        lineage = a.ask(d.STATUS).lineage
        a = self.again(a, by_hand=True)
        self.assertEqual(a.hello.lineage.raw, lineage.raw)
        self.assertEqual(a.hello.identity, 0)  # nothing was hashed
        self.assertEqual(a.status()["changed"], 65536)
        a.ask(d.OPEN)
        self.assertEqual(a.ask(d.SERVE).lineage.current, lineage.current)  # nobody else can have it

    def test_kill_keeps_lineage_and_more_than_was_changed(self):
        a = self.written()
        lineage = a.ask(d.STATUS).lineage
        a = self.again(a, kill=True)
        self.assertEqual(a.hello.lineage.raw, lineage.raw)
        self.assertEqual(a.status()["changed"], self.SIZE)  # its region and the neighbours
        a = self.again(a)
        self.assertEqual(a.hello.lineage.raw, lineage.raw)

    def test_bits_settle_while_it_runs(self):
        a = self.written()
        deadline = time.monotonic() + d.DEADLINE
        meta = a.data + "/disk0.meta"
        coarse = 8192 + 8
        while any(d.content(meta)[coarse:coarse + 504]):  # until no region is hot
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        a = self.again(a, kill=True)
        self.assertEqual(a.status()["changed"], 65536)

    def test_a_write_by_somebody_else_is_noticed(self):
        a = self.written()
        lineage = a.ask(d.STATUS).lineage
        a.stop()
        with open(a.path, "r+b") as f:
            f.write(b"restored")
        self.disks.remove(a)
        a = d.Disk(a.path)
        self.disks.append(a)
        self.assertIn("somebody else", a.event(d.EV_ERROR).text)
        l = a.hello.lineage
        self.assertEqual((l.base, l.history[0], l.flags), (0, lineage.current, lineage.flags))
        self.assertNotIn(l.current, (0, lineage.current))

    def test_lost_metadata(self):
        a = self.written()
        a.stop()
        shutil.rmtree(a.data)
        self.disks.remove(a)
        a = d.Disk(a.path)
        self.disks.append(a)
        self.assertEqual(a.hello.lineage.flags, d.NEW | d.CONSISTENT)

    def start_fails(self, a, *more):
        """Its next process refuses to start; the message."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            r = subprocess.run(d.command(a.dir + "-s", "file=" + a.path, f"control-fd={theirs.fileno()}",
                                         "data=" + a.data, "name=disk0", "journal=16M", *more), text=True,
                               capture_output=True, timeout=d.DEADLINE, pass_fds=[theirs.fileno()],
                               env=d.environment())
        self.assertNotEqual(r.returncode, 0)
        return r.stderr

    def test_damage_is_named(self):
        a = self.written()
        a.stop()
        self.disks.remove(a)
        with open(a.data + "/disk0.meta", "r+b") as f:
            f.write(bytes(8192))
        self.assertIn("disk0.meta is damaged: neither copy", self.start_fails(a))
        os.truncate(a.path, 2 * self.SIZE)
        with open(a.data + "/disk0.meta", "r+b") as f:
            f.truncate(0)
        self.assertIn("disk0.meta is damaged", self.start_fails(a))

    def test_another_size_is_named(self):
        a = self.written()
        a.stop()
        self.disks.remove(a)
        os.truncate(a.path, 2 * self.SIZE)
        self.assertIn(f"is for a disk of {self.SIZE} bytes, this one has {2 * self.SIZE}", self.start_fails(a))


class Pair(Lives):
    def test_generations(self):
        a, b = self.pair()
        deadline = time.monotonic() + d.DEADLINE
        while (l := a.ask(d.STATUS).lineage).base != l.current:  # until it has heard of the commit
            self.assertLess(time.monotonic(), deadline)
        one, two = (x.ask(d.STATUS).lineage for x in (a, b))
        self.assertEqual(one.flags, d.CONSISTENT | d.SERVED | d.SHARED)
        self.assertEqual(two.flags, d.CONSISTENT)
        self.assertEqual({one.current, one.base, two.current, two.base}, {one.current})
        a.ask(d.UNLINK)
        b.event(d.EV_LINK_LOST)
        alone = a.ask(d.SERVE).lineage
        self.assertEqual((alone.base, alone.flags), (one.current, d.CONSISTENT | d.SERVED))
        b.failover()
        other = b.ask(d.STATUS).lineage
        self.assertEqual((other.base, other.flags), (one.current, d.CONSISTENT | d.SERVED))
        self.assertEqual(len({alone.current, other.current, one.current}), 3)

    def test_bits_leave_in_rounds(self):
        a, b = self.pair()
        a.until("first round", lambda s: s["changed"] == 0)
        n, deadline, epoch = a.nbd(), time.monotonic() + d.DEADLINE, 2
        n.write(0, b"x" * 512)
        self.assertEqual(a.status()["changed"], 65536)
        while a.status()["changed"]:  # a round begins a second after the one before
            self.assertLess(time.monotonic(), deadline)
            d.checkpoint(a, b, epoch)
            epoch += 1
            time.sleep(0.02)
        n.write(d.MB, b"x" * 512)
        a.ask(d.BOUNDARY, epoch)
        n.write(2 * d.MB, b"x" * 512)
        b.event(d.EV_BOUNDARY)
        self.assertEqual(a.status()["changed"], 2 * 65536)  # not committed
        a.ask(d.UNLINK)
        self.assertEqual(a.status()["changed"], 2 * 65536)

    def resync(self, a, b, epoch=1):
        """Link with what their lineages say; the bytes that moved."""
        moved = d.link(a, b).moved
        d.checkpoint(a, b, epoch)
        self.assertSameContent(a, b)
        return moved

    def test_killed_primary_returns_as_secondary(self):
        a, b = self.pair(data=self.rng.randbytes(4 * d.MB))
        a.nbd().write(5 * d.MB, b"lost" * 1024)
        a.process.kill()
        b.event(d.EV_LINK_LOST)
        b.failover()
        b.nbd().write(9 * d.MB, b"new" * 1000)
        a = self.again(a, kill=True)
        self.assertEqual(a.hello.lineage.flags, d.CONSISTENT | d.SERVED | d.SHARED)
        self.assertEqual(a.hello.lineage.current, b.ask(d.STATUS).lineage.base)
        self.assertLess(self.resync(b, a), d.MB)
        self.assertNotIn(b"lost", d.content(a.path))

    def test_killed_secondary_returns(self):
        a, b = self.pair(data=self.rng.randbytes(4 * d.MB))
        a.nbd().write(5 * d.MB, b"more" * 1024)
        d.checkpoint(a, b, 2)
        b.process.kill()
        a.event(d.EV_LINK_LOST)
        a.ask(d.SERVE)
        a.nbd().write(9 * d.MB, b"new" * 1000)
        b = self.again(b, kill=True)
        self.assertEqual(b.hello.epoch, 2)
        self.assertEqual(b.hello.lineage.flags, d.CONSISTENT)
        self.assertEqual(b.hello.lineage.current, a.ask(d.STATUS).lineage.base)
        self.assertLess(self.resync(a, b), d.MB)

    @unittest.skipUnless(d.SHIM, "COLO_SYNC_SHIM is not set")
    def test_a_cut_off_recovery_is_ours(self):
        """Storage is written to before OPEN is answered; that is no write by somebody else."""
        a, b = self.disk("a"), self.disk("b")
        d.link(a, b)
        d.checkpoint(a, b, 1)
        a.nbd().write(0, b"held" * 1024)
        a.ask(d.BOUNDARY, 2)
        b.event(d.EV_BOUNDARY)
        lineage = b.ask(d.STATUS).lineage
        self.switch("gate", True)
        env = {"SYNC_FILE": b.path, "SYNC_GATE": self.dir + "/gate"}
        b = self.again(b, by_hand=True, preload=d.SHIM, env=env)
        self.assertEqual(b.hello.epoch, 2)
        b.send(d.OPEN, 2)
        deadline = time.monotonic() + d.DEADLINE
        while d.content(b.path)[:4] != b"held":
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        b = self.again(b, kill=True)
        self.assertEqual(b.hello.lineage.raw, lineage.raw)
        self.assertEqual([e for e in b.events if e.op == d.EV_ERROR], [])
        self.assertEqual(d.content(b.path)[:4], b"held")

    def test_a_cut_off_sync_leaves_a_mixture(self):
        a = self.disk("a", data=self.rng.randbytes(8 * d.MB))
        b = self.disk("b", data=self.rng.randbytes(8 * d.MB))
        d.begin_link(a, b, all=True)
        b.until("some arrived", lambda s: s["mirrored"] > d.MB)
        b = self.again(b, kill=True)
        if b.hello.lineage.flags & d.CONSISTENT:
            self.skipTest("all of it had arrived")
        self.assertEqual(b.hello.lineage.flags, 0)
        self.assertEqual(b.ask(d.SERVE, status=-61).lineage.flags, 0)
        a.event(d.EV_LINK_LOST)
        d.link(a, b, all=True)
        d.checkpoint(a, b, 1)
        self.assertSameContent(a, b)


class ReadOnly(d.TestCase):
    def test_read_only(self):
        path = self.image("cd", data=b"c" * 5000)
        a = d.Disk(path, read_only=1)
        self.disks.append(a)
        self.assertEqual(a.hello.flags, d.HELLO_READ_ONLY)
        self.assertNotEqual(a.hello.identity, 0)
        n = a.nbd()
        self.assertTrue(n.flags >> 1 & 1)
        self.assertEqual(n.read(4996, 8), b"cccc" + bytes(4))
        with self.assertRaises(d.NbdError):
            n.write(0, b"x" * 512)
        x, y = d.tcp_pair()
        self.assertIn("read-only", a.ask(d.LINK, role=d.PRIMARY, fd=x.fileno(), status=None).text)
        x.close()
        y.close()
        self.assertEqual(os.listdir(a.data), [])
        self.assertEqual(a.status()["writes"], 0)
        self.assertEqual(a.stop(), 0)
        self.disks.remove(a)
        self.assertEqual(d.content(path)[:5000], b"c" * 5000)

    def test_two_may_read(self):
        path = self.image("cd", data=b"c" * 5000)
        os.chmod(path, 0o400)
        for _ in range(2):
            self.disks.append(d.Disk(path, read_only=1))
        self.assertEqual(self.disks[1].nbd().read(0, 512), b"c" * 512)


class Access(d.TestCase):
    def test_only_the_daemon_connects(self):
        a = self.disk("a")
        a.nbd().write(0, b"x" * 512)
        r = subprocess.run([sys.executable, "-c", KNOCK, a.sock_path], timeout=d.DEADLINE)
        self.assertEqual(r.returncode, 0)  # the connection ended without a word
        self.assertEqual(a.nbd().read(0, 512), b"x" * 512)


if __name__ == "__main__":
    d.main()
