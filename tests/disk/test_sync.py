#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sync, resync and verify: what they move, how fast, that they are right while the disk is written to, that they can
be cut off and begun again."""
import errno
import os
import random
import threading
import time
import unittest

import disklib as d

GB = 1 << 30
BLOCK = 65536


def same(a, b):
    """Compares two files without reading what is a hole in both."""
    with open(a, "rb", buffering=0) as x, open(b, "rb", buffering=0) as y:
        off, end = 0, os.fstat(x.fileno()).st_size
        if end != os.fstat(y.fileno()).st_size:
            return False
        while (off := min(seek(f, off, end, os.SEEK_DATA) for f in (x, y))) < end:
            # to the next place where either begins or ends to have data
            stop = min(max(seek(f, off, end, how) for how in (os.SEEK_DATA, os.SEEK_HOLE)) for f in (x, y))
            stop = min(stop, off + d.MB)
            if os.pread(x.fileno(), stop - off, off) != os.pread(y.fileno(), stop - off, off):
                return False
            off = stop
        return True


def seek(f, off, end, how):
    try:
        return os.lseek(f.fileno(), off, how)
    except OSError as e:
        if e.errno != errno.ENXIO:
            raise
        return end


def flip(path, *offsets):
    """Another value for these bytes, behind the disk manager's back."""
    with open(path, "r+b") as f:
        for off in offsets:
            f.seek(off)
            old = f.read(1)
            f.seek(off)
            f.write(bytes([old[0] ^ 0x55]))


class Base(d.TestCase):
    def assertSame(self, a, b):
        self.assertTrue(same(a.path, b.path), "contents differ")

    def unlink(self, a, b):
        a.ask(d.UNLINK)
        b.event(d.EV_LINK_LOST)

    def writer(self, disk, area=None, size=2000, pause=0.0):
        """Writes until the returned function is called, which raises what went wrong."""
        stop, failed = threading.Event(), []
        n, rng = disk.nbd(), random.Random(d.SEED)

        def run():
            try:
                while not stop.wait(pause):
                    n.write(rng.randrange(area or self.SIZE - size), rng.randbytes(rng.randrange(1, size)))
            except Exception as e:  # noqa: BLE001 - handed on
                failed.append(e)
        thread = threading.Thread(target=run)
        thread.start()

        def end():
            stop.set()
            thread.join()
            self.assertEqual(failed, [])
        self.addCleanup(stop.set)
        return end


class Resync(Base):
    def test_moves_what_differs(self):
        """4 GiB of disk, 100 MiB of it changed, in pieces of 4 KiB all over it: at most 110 MiB go over the link."""
        a, b = self.disk("a", size=4 * GB, data=b"base" * d.MB), self.disk("b", size=4 * GB, data=b"base" * d.MB)
        d.link(a, b)
        d.checkpoint(a, b, 1)
        self.unlink(a, b)
        n, data = a.nbd(), self.rng.randbytes(d.MB)
        for i, place in enumerate(self.rng.sample(range(GB // 1024), 25600)):
            n.send(d.NBD_WRITE, place * 4096, 4096, data[i % 4096 * 128:][:4096])
            if i >= 64:
                self.assertEqual(n.wait()[1], 0)
        for _ in range(64):
            self.assertEqual(n.wait()[1], 0)
        for all_of_it in (False, True):
            m = d.link(a, b, all=all_of_it)
            print(f"all={all_of_it}:", m.text, flush=True)
            if all_of_it:
                self.assertEqual(m.total, 4 * GB)
                self.assertLess(m.moved, 8 * d.MB)  # nothing but hashes
            else:
                self.assertGreater(m.moved, 100 * d.MB)
                self.assertLessEqual(m.moved, 110 * d.MB)
                self.assertLess(m.total, 25600 * BLOCK + 128 * d.MB)
            self.assertIn(f"{(m.moved + 1023) // 1024} KiB went over the link", m.text)
            d.checkpoint(a, b, 1)
            self.assertSame(a, b)
            self.unlink(a, b)

    def test_holes_cost_nothing(self):
        a, b = self.disk("a", size=64 * GB), self.disk("b", size=64 * GB)
        a.nbd().write(40 * GB + 5, b"data")
        before = time.monotonic()
        m = d.link(a, b, all=True)
        self.assertLess(time.monotonic() - before, 5)
        self.assertEqual((m.done, m.total, m.eta), (64 * GB, 64 * GB, 0))
        self.assertLess(m.moved, 2 * d.MB)
        self.assertSame(a, b)
        self.assertLess(os.stat(b.path).st_blocks * 512, d.MB)

    def test_zeroes_replace_what_the_target_had(self):
        a, b = self.disk("a"), self.disk("b", data=self.rng.randbytes(3 * d.MB + 4096))
        m = d.link(a, b, all=True)
        self.assertLess(m.moved, 200 << 10)
        self.assertSame(a, b)
        self.assertLess(os.stat(b.path).st_blocks * 512, d.MB)

    def test_last_block_may_be_short(self):
        size = 3 * BLOCK + 4096 + 512
        data = self.rng.randbytes(size)
        a, b = self.disk("a", size=size, data=data), self.disk("b", size=size, data=data[:size - 1])
        d.link(a, b, all=True)
        self.assertSame(a, b)
        d.checkpoint(a, b, 1)
        flip(b.path, size - 1)
        a.ask(d.VERIFY)
        self.assertIn(f"{size - 512}", a.event(d.EV_VERIFIED).text)

    def test_what_only_the_target_changed(self):
        a, b = self.pair()
        b.nbd().write(5 * d.MB, b"svm" * 1000)
        a.nbd().write(2 * d.MB, b"lost" * 1000)
        b.ask(d.FAILOVER)
        b.ask(d.SERVE)
        b.event(d.EV_WRITTEN_BACK)
        b.nbd().write(9 * d.MB, b"alone" * 1000)
        a.event(d.EV_LINK_LOST)
        a.nbd().write(7 * d.MB, b"more" * 1000)
        m = d.link(b, a)  # the other way round, and only what either wrote
        self.assertLess(m.total, d.MB)
        d.checkpoint(b, a, 1)
        self.assertSame(a, b)
        self.assertIn(b"alone", d.content(a.path))
        self.assertNotIn(b"lost", d.content(a.path))

    def test_write_back_may_be_given_up(self):
        """A survivor becomes a secondary again while it still writes back."""
        a, b = self.disk("a", size=64 * d.MB), self.shimmed("b", size=64 * d.MB)
        d.link(a, b)
        d.checkpoint(a, b, 1)
        n = b.nbd()
        for i in range(32):
            n.write(i * d.MB, self.rng.randbytes(d.MB))
        self.switch("crawl", True)
        b.ask(d.FAILOVER)
        b.ask(d.SERVE)
        a.event(d.EV_LINK_LOST)
        d.link(a, b, all=True)
        self.switch("crawl", False)
        d.checkpoint(a, b, 1)
        self.assertSame(a, b)
        self.assertEqual(b.status()["svm_cache"], 0)

    def test_a_link_that_brings_nothing_takes_nothing(self):
        """Not before the first byte of another content does a copy cease to be one, across a crash, too."""
        a, b = self.pair()
        lineage = a.ask(d.STATUS).lineage
        b.ask(d.UNLINK)
        x, y = d.tcp_pair()
        b.ask(d.LINK, role=d.SECONDARY, fd=x.fileno(), lineage=lineage)
        x.close()
        b.process.kill()
        b.wait()
        self.disks.remove(b)
        y.close()
        b = d.Disk(b.path)
        self.disks.append(b)
        self.assertTrue(b.hello.lineage.flags & d.CONSISTENT)
        self.assertEqual((b.hello.lineage.current, b.hello.epoch), (lineage.current, 1))
        a.event(d.EV_LINK_LOST)
        a.nbd().write(0, b"new" * 100)
        d.link(a, b)  # now something came, and no checkpoint
        b.process.kill()
        b.wait()
        self.disks.remove(b)
        b = d.Disk(b.path)
        self.disks.append(b)
        self.assertFalse(b.hello.lineage.flags & d.CONSISTENT)

    def test_order_and_content_under_load(self):
        """Links that come and go while the disk is written to, in blocks that differ."""
        a, b = self.shimmed("a", data=b"x" * 4 * d.MB), self.disk("b")
        self.switch("dawdle", True)
        end = self.writer(a, area=4 * d.MB)
        for epoch in range(3):
            d.link(a, b, all=epoch != 1)
            end()
            d.checkpoint(a, b, 1)
            self.assertSame(a, b)
            end = self.writer(a, area=4 * d.MB)
            self.unlink(a, b)
            flip(b.path, 5000, 70000, 3 * d.MB)
            a.nbd().write(5001, b"y")  # so that the bitmap has these blocks
            a.nbd().write(70001, b"y")
            a.nbd().write(3 * d.MB + 1, b"y")
        end()

    def test_interrupted_and_resumed(self):
        size = 64 * d.MB
        a, b = self.disk("a", size=size, data=self.rng.randbytes(size)), self.disk("b", size=size)
        a.ask(d.RATE, 32 * d.MB)
        d.begin_link(a, b, all=True)
        while a.event(d.EV_SYNC).done < size // 3:
            pass
        b.until("a third", lambda s: s["mirrored"] > size // 3)
        self.unlink(a, b)
        self.assertIn("undefined", b.status()["text"])
        a.events.clear()
        a.ask(d.RATE, 0)
        m = d.link(a, b, all=True)
        self.assertLess(m.moved, size * 3 // 4)
        self.assertSame(a, b)

    def test_rate(self):
        size = 24 * d.MB
        a, b = self.disk("a", size=size, data=self.rng.randbytes(size)), self.disk("b", size=size)
        a.ask(d.RATE, 8 * d.MB)
        before = time.monotonic()
        m = d.link(a, b, all=True)
        took = time.monotonic() - before
        self.assertGreater(took, 2.6)  # a tenth of a second's worth may go at once
        self.assertLess(took, 6)
        told = [e for e in a.events if e.op == d.EV_SYNC]
        self.assertGreater(len(told), 8)
        self.assertEqual(sorted(e.done for e in told), [e.done for e in told])
        self.assertTrue(all(e.total == size and e.moved for e in told if e.done))
        self.assertTrue(all(e.eta <= 8 for e in told[4:]), told)
        self.assertEqual((m.done, m.total), (size, size))

    def test_rate_can_be_changed_on_the_way(self):
        size = 24 * d.MB
        a, b = self.disk("a", size=size, data=self.rng.randbytes(size)), self.disk("b", size=size)
        a.ask(d.RATE, 65536)  # six minutes
        d.begin_link(a, b, all=True)
        a.event(d.EV_SYNC)
        a.ask(d.RATE, 0)
        a.event(d.EV_SYNCED)
        self.assertSame(a, b)

    @unittest.skipUnless(d.SHIM, "COLO_SYNC_SHIM is not set")
    def test_synced_means_stable(self):
        a, b = self.disk("a", data=b"x" * d.MB), self.shimmed("b")
        self.switch("gate", True)
        d.begin_link(a, b, all=True)
        b.until("all arrived", lambda s: s["mirrored"] >= d.MB)
        with self.assertRaises(TimeoutError):
            a.event(d.EV_SYNCED, deadline=0.5)
        a.ask(d.BOUNDARY, 1, status=-16)
        self.switch("gate", False)
        a.event(d.EV_SYNCED)
        d.checkpoint(a, b, 1)
        self.assertSame(a, b)


class Verify(Base):
    def verify(self, a, repair=False):
        a.ask(d.VERIFY, flags=d.VERIFY_REPAIR if repair else 0)
        return a.event(d.EV_VERIFIED)

    def test_clean_pair(self):
        a, b = self.pair(data=self.rng.randbytes(self.SIZE - 9 * d.MB))
        m = self.verify(a)
        self.assertEqual((m.status, m.checked, m.differing, m.repaired, m.text), (0, self.SIZE, 0, 0, ""))
        a.ask(d.RATE, d.MB)
        a.ask(d.VERIFY)
        self.assertIn("under way", a.ask(d.VERIFY, status=-16).text)
        self.assertTrue(a.event(d.EV_SYNC).total == self.SIZE)
        a.ask(d.RATE, 0)
        self.assertEqual(a.event(d.EV_VERIFIED).differing, 0)

    def test_needs_a_peer(self):
        a, b = self.disk("a", data=b"x" * d.MB), self.disk("b")
        a.ask(d.VERIFY, status=-107)
        a.ask(d.RATE, 65536)
        d.begin_link(a, b, all=True)
        self.assertIn("sync is not over", a.ask(d.VERIFY, status=-16).text)
        b.ask(d.VERIFY, status=-107)

    def test_finds_and_repairs(self):
        a, b = self.pair(data=self.rng.randbytes(self.SIZE - 4 * d.MB))
        places = [0, 4095, 4096, d.MB + 9, self.SIZE - 1]
        flip(b.path, *places)
        m = self.verify(a)
        self.assertEqual((m.checked, m.differing, m.repaired), (self.SIZE, 4 * 4096, 0))
        for place in places:
            self.assertIn(str(place // 4096 * 4096), m.text)
        m = self.verify(a, repair=True)
        self.assertEqual((m.differing, m.repaired), (4 * 4096, 4 * 4096))
        d.checkpoint(a, b, 2)
        self.assertSame(a, b)
        self.assertEqual(self.verify(a).differing, 0)

    def test_many_differences_are_summed_up(self):
        a, b = self.pair(data=b"x" * self.SIZE)
        flip(b.path, *range(0, d.MB, 4096))
        m = self.verify(a)
        self.assertEqual(m.differing, d.MB)
        self.assertEqual(m.text, "differs at byte 0, 4096, 8192, 12288 and elsewhere")

    def test_under_load_across_checkpoints(self):
        """Exact while the disk is written to: finds what is there, nothing else, and it is mended."""
        a, b = self.pair(data=self.rng.randbytes(self.SIZE))
        end = self.writer(a, area=12 * d.MB, pause=0.001)
        stop, epoch = threading.Event(), [1]

        def checkpoints():
            while not stop.wait(0.02):
                epoch[0] += 1
                a.agent.send(d.REQUEST.pack(d.BOUNDARY, 0, epoch[0], 0, 0, b""))
                a.agent.recv(4096)
                b.event(d.EV_BOUNDARY)
                b.ask(d.COMMIT, epoch[0])
        thread = threading.Thread(target=checkpoints)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(stop.set)
        for repair in (False, True, True, False):
            place = self.rng.randrange(12 * d.MB, self.SIZE)
            if repair:
                flip(b.path, place)
            m = self.verify(a, repair)
            self.assertEqual((m.status, m.differing, m.repaired), (0, 4096 * repair, 4096 * repair), (place, m))
            if repair:
                self.assertEqual(m.text.split(";")[0], f"differs at byte {place // 4096 * 4096}")
            self.assertGreater(m.checked, self.SIZE * 3 // 4)
        end()
        stop.set()
        thread.join()
        d.checkpoint(a, b, epoch[0] + 1)
        self.assertSame(a, b)

    def test_busy_blocks_want_a_checkpoint(self):
        a, b = self.pair(data=self.rng.randbytes(d.MB))
        a.nbd().write(70000, b"uncommitted")
        flip(b.path, 5)
        a.ask(d.VERIFY)
        self.assertIn("verify", a.event(d.EV_WANT_CHECKPOINT).text)
        self.assertEqual([e for e in a.events if e.op == d.EV_VERIFIED], [])
        d.checkpoint(a, b, 2)
        m = a.event(d.EV_VERIFIED)
        self.assertEqual((m.checked, m.differing), (self.SIZE, 4096))

    def test_what_is_always_written_is_left_out(self):
        a, b = self.pair(data=self.rng.randbytes(d.MB))
        n = a.nbd()
        n.write(70000, b"1")
        a.ask(d.VERIFY)
        epoch = 1
        while not [e for e in a.events if e.op == d.EV_VERIFIED]:
            a.event(d.EV_WANT_CHECKPOINT)
            epoch += 1
            a.ask(d.BOUNDARY, epoch)
            n.write(70000, b"2")
            b.until("it is there", lambda s: s["mirrored"] >= epoch)
            b.event(d.EV_BOUNDARY)
            b.ask(d.COMMIT, epoch)
            a.until("it looked", lambda s: any(e.op in (d.EV_WANT_CHECKPOINT, d.EV_VERIFIED) for e in a.events))
        m = a.event(d.EV_VERIFIED)
        self.assertEqual((m.status, m.differing), (0, 0))
        self.assertIn("left out", m.text)
        self.assertTrue(self.SIZE - 8 * d.MB <= m.checked < self.SIZE, m.checked)

    def test_unreadable_here_is_said_and_costs_no_link(self):
        a, b = self.pair(data=self.rng.randbytes(self.SIZE))
        before = d.content(b.path)
        flip(b.path, 5)
        os.truncate(a.path, 8 * d.MB + 512)
        m = self.verify(a, repair=True)
        self.assertEqual((m.status, m.differing, m.repaired), (-5, 4096, 4096))
        self.assertIn(f"cannot be read at byte {8 * d.MB}", m.text)
        self.assertEqual(m.checked, 8 * d.MB)
        d.checkpoint(a, b, 2)
        self.assertTrue(d.content(b.path) == before)

    def test_ends_with_the_link(self):
        a, b = self.pair(data=self.rng.randbytes(self.SIZE))
        a.ask(d.RATE, 65536)
        a.ask(d.VERIFY)
        a.event(d.EV_SYNC)
        b.process.kill()
        self.assertEqual(a.event(d.EV_VERIFIED).status, -107)
        a.event(d.EV_LINK_LOST)

    def test_does_not_hold_the_guest_up(self):
        """At its own rate a verify of 16 MiB takes a sixth of a second; writes go on meanwhile."""
        a, b = self.pair(data=self.rng.randbytes(self.SIZE))
        n = a.nbd()
        a.ask(d.VERIFY)
        before, writes = time.monotonic(), 0
        while not [e for e in a.events if e.op == d.EV_VERIFIED]:
            n.write(0, b"x" * 4096)
            a.status()
            writes += 1
            if [e for e in a.events if e.op == d.EV_WANT_CHECKPOINT]:
                break
        self.assertGreater(time.monotonic() - before, 0.1)
        self.assertGreater(writes, 100)


if __name__ == "__main__":
    d.main()
