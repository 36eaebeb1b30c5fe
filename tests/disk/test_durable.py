#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a disk manager that was killed at some point finds again; bounds of the journal. Power losses: test_model.c."""
import os
import signal
import unittest

import disklib as d

GENERATION = 77


class Durable(d.TestCase):
    def kill(self, disk):
        for n in disk.nbds:
            n.close()
        disk.process.send_signal(signal.SIGKILL)
        disk.process.wait(d.DEADLINE)

    def again(self, disk, **kw):
        """Another one for the same files, not opened yet. Returns it and its HELLO."""
        self.kill(disk)
        new = d.Disk(disk.path, by_hand=True, **kw)
        self.disks.append(new)
        return new, new.hello

    def received(self, **kw):
        """A pair; the secondary has boundaries 1 (committed), 2 and 3 with the content of their names."""
        a, b = self.pair(**kw)
        n = a.nbd()
        for epoch in (2, 3):
            n.write(0, b"%d" % epoch * d.MB)
            a.ask(d.BOUNDARY, epoch)
            b.event(d.EV_BOUNDARY)
        return a, b

    def assertBegins(self, disk, what):
        self.assertEqual(d.content(disk.path)[:len(what)], what)

    def test_secondary_comes_back_with_its_last_boundary(self):
        _, b = self.received()
        self.assertBegins(b, b"base")
        c, hello = self.again(b)
        self.assertEqual((hello.epoch, hello.flags), (3, 0))
        self.assertBegins(c, b"base")  # nothing happens before OPEN
        c.ask(d.OPEN, 3)
        self.assertBegins(c, b"3" * d.MB)
        self.assertEqual(self.again(c)[1].epoch, 3)

    def test_secondary_comes_back_with_what_all_disks_have(self):
        _, b = self.received()
        c, _ = self.again(b)
        c.ask(d.OPEN, 4, status=-61)
        c.ask(d.OPEN, 2)
        self.assertBegins(c, b"2" * d.MB)

    def test_secondary_never_goes_back_behind_its_storage(self):
        _, b = self.received()
        b.ask(d.COMMIT, 3)
        c, _ = self.again(b)
        c.ask(d.OPEN, 0)
        c, hello = self.again(c)
        self.assertEqual(hello.epoch, 3)
        c.ask(d.OPEN, 2, status=-116)

    def test_without_its_journal_a_secondary_is_a_mixture(self):
        for damage in (os.unlink, lambda path: os.truncate(path, 5)):
            _, b = self.received()
            b.ask(d.COMMIT, 2)
            self.kill(b)
            damage(b.data + "/disk0.journal")
            c, hello = self.again(b)
            self.assertEqual(hello.epoch, 0)
            c.ask(d.OPEN, 0)
            self.assertIn("compared", c.event(d.EV_ERROR).text)
            lineage = c.ask(d.STATUS).lineage
            self.assertEqual((lineage.flags & d.CONSISTENT, lineage.base), (0, 0))
            self.tearDown()
            self.setUp()

    def prepared(self):
        _, b = self.received()
        b.ask(d.COMMIT, 2)
        b.nbd().write(d.MB // 2, b"svm" * 1000)
        b.ask(d.FAILOVER, GENERATION)
        return b

    def test_prepared_failover_that_does_not_count(self):
        c, hello = self.again(self.prepared())
        self.assertEqual((hello.epoch, hello.flags, hello.failover), (3, d.HELLO_PREPARED, GENERATION))
        c.ask(d.OPEN, 3)
        self.assertBegins(c, b"3" * d.MB)
        c, hello = self.again(c)
        self.assertEqual((hello.epoch, hello.flags), (3, 0))

    def test_prepared_failover_that_counts(self):
        c, _ = self.again(self.prepared())
        c.ask(d.OPEN, 0, flags=d.OPEN_FAILOVER)
        want = bytearray(b"2" * d.MB)
        want[d.MB // 2:d.MB // 2 + 3000] = b"svm" * 1000
        self.assertBegins(c, bytes(want))
        lineage = c.ask(d.STATUS).lineage
        self.assertEqual(lineage.flags, d.CONSISTENT | d.SERVED)
        self.assertNotEqual(lineage.current, lineage.base)
        _, hello = self.again(c)
        self.assertEqual((hello.epoch, hello.flags, hello.failover), (0, d.HELLO_FAILED_OVER, GENERATION))

    def test_file_that_cannot_be_written(self):
        a, b = self.pair()
        os.mkdir(b.data + "/disk0.writeback")
        n = b.nbd()
        n.write(0, b"svm" * 1000)
        self.assertIn("cannot be saved", b.ask(d.FAILOVER, GENERATION, status=-21).text)
        b.ask(d.SERVE)
        n.flush()
        b.event(d.EV_WRITTEN_BACK)
        self.assertBegins(b, b"svm" * 1000)
        self.assertEqual(b.ask(d.STATUS).lineage.flags, d.CONSISTENT | d.SERVED)

    @unittest.skipUnless(d.SHIM, "COLO_SYNC_SHIM is not set")
    def test_file_that_cannot_be_written_and_a_crash(self):
        a, b = self.disk("a"), self.shimmed("b")
        d.link(a, b)
        d.checkpoint(a, b, 1)
        os.mkdir(b.data + "/disk0.writeback")
        b.nbd().write(0, b"svm" * 1000)
        self.switch("gate", True)
        b.ask(d.FAILOVER, GENERATION, status=-21)
        b.ask(d.SERVE)
        _, hello = self.again(b)
        self.assertEqual(hello.lineage.flags, d.SERVED)

    @unittest.skipUnless(d.SHIM, "COLO_SYNC_SHIM is not set")
    def test_fua_waits_for_the_write_back(self):
        a, b = self.disk("a"), self.shimmed("b")
        d.link(a, b)
        d.checkpoint(a, b, 1)
        n = b.nbd()
        n.write(0, b"svm" * 1000)
        b.ask(d.FAILOVER, GENERATION)
        n.send(d.NBD_WRITE, d.MB, 512, b"x" * 512, flags=d.NBD_FUA)
        n.sock.settimeout(0.3)
        with self.assertRaises(TimeoutError):
            n.wait()  # not before SERVE
        self.switch("gate", True)
        b.ask(d.SERVE)
        with self.assertRaises(TimeoutError):
            n.wait()
        self.switch("gate", False)
        n.sock.settimeout(d.DEADLINE)
        self.assertEqual(n.wait()[1], 0)
        b.event(d.EV_WRITTEN_BACK)
        self.assertBegins(b, b"svm" * 1000)

    def test_survivor_serves_on_after_a_crash_in_the_write_back(self):
        b = self.prepared()
        b.ask(d.SERVE)
        c, hello = self.again(b)
        self.assertEqual(hello.flags, d.HELLO_FAILED_OVER)
        c.ask(d.OPEN, 0, flags=d.OPEN_FAILOVER)
        c.ask(d.SERVE)
        n = c.nbd()
        self.assertEqual(n.read(d.MB // 2, 6), b"svmsvm")
        n.write(0, b"on", fua=True)
        _, hello = self.again(c)
        self.assertEqual((hello.epoch, hello.flags), (0, 0))

    def test_journal_beyond_memory(self):
        a, b = self.pair(cache_max="16M", journal="64M", link_stall_ms=600000)
        n = a.nbd()
        want = bytearray(d.content(a.path))
        for i in range(40):
            data = self.rng.randbytes(d.MB)
            off = self.rng.randrange(0, self.SIZE - d.MB, 512)
            n.write(off, data)
            want[off:off + d.MB] = data
        a.ask(d.BOUNDARY, 2)
        b.event(d.EV_BOUNDARY)
        status = b.status()
        self.assertEqual(status["pvm_cache"], 40 * d.MB)
        self.assertLess(status["memory"], 18 * d.MB)  # with the link's ring
        self.assertGreater(status["journal"], 40 * d.MB)
        b.ask(d.COMMIT, 2)
        self.assertTrue(d.content(b.path) == want, "contents differ")

    def test_journal_gets_its_new_size_when_nothing_in_it_counts(self):
        _, b = self.received()
        path = b.data + "/disk0.journal"
        before = os.path.getsize(path)
        c, hello = self.again(b, journal="40M")
        self.assertEqual((hello.epoch, os.path.getsize(path)), (3, before))
        c.ask(d.OPEN, 3)
        a = self.disk("other", data=b"base" * 5000)
        d.link(a, c)
        d.checkpoint(a, c, 1)
        self.assertTrue(38 * d.MB < os.path.getsize(path) <= 40 * d.MB)


if __name__ == "__main__":
    d.main()
