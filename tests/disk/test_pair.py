#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Two disk managers, joined by TCP: sync, mirror, boundaries, commit, failover; bounds; hostile peers; load."""
import os
import random
import resource
import threading
import time
import unittest

import disklib as d


class Pair(d.TestCase):
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
        na.trim(d.MB, d.MB)
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
        self.assertEqual(d.content(b.path)[:50000], before)  # storage stays
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
        b.failover()
        self.assertEqual(nb.read(0, 65536), want)
        b.event(d.EV_WRITTEN_BACK)
        self.assertEqual(nb.read(0, 65536), want)
        self.assertEqual(d.content(b.path)[:65536], want)
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
        nb.write(d.MB, b"two" * 1000)
        b.failover()
        nb.write(2 * d.MB, b"three" * 1000)
        c = self.disk("c", data=b"base" * 5000)  # as all began
        d.link(b, c, all=True)  # as the lineages say: c's is in b's past, before the base of b's map
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
        b.failover()
        b.event(d.EV_WRITTEN_BACK)
        self.assertEqual(d.content(b.path)[:700], b"arrived" * 100)

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
        a.nbd().write(12 * d.MB, b"2" * 4096)
        nb.write(0, b"svm" * 100)
        a.ask(d.BOUNDARY, 2)
        b.event(d.EV_BOUNDARY)
        resource.prlimit(b.process.pid, resource.RLIMIT_FSIZE, (8 * d.MB, resource.RLIM_INFINITY))
        self.assertIn("File too large", b.ask(d.COMMIT, 2, status=-27).text)
        self.assertIn("half-way", b.ask(d.FAILOVER, status=-61).text)
        resource.prlimit(b.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        b.ask(d.COMMIT, 2)
        self.assertSameContent(a, b)


class Agent(d.TestCase):
    """The second socket, for the agent inside QEMU."""

    def ask(self, disk, op, epoch=0):
        disk.agent.settimeout(d.DEADLINE)
        disk.agent.send(d.REQUEST.pack(op, 0, epoch, 0, 0, b""))
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


class Bounds(d.TestCase):
    def test_want_checkpoint_at_half(self):
        a, b = self.pair(cache_max="16M")
        na, nb = a.nbd(), b.nbd()
        for i in range(9):
            na.write(0, b"x" * d.MB)
        self.assertIn("PVM", b.event(d.EV_WANT_CHECKPOINT).text)
        d.checkpoint(a, b, 2)
        for i in range(9):
            nb.write(i * d.MB, b"x" * d.MB)
        self.assertIn("SVM", b.event(d.EV_WANT_CHECKPOINT).text)

    def test_svm_cache_spills_and_stays_exact(self):
        a, b = self.pair(cache_max="16M", size=64 * d.MB)
        n = b.nbd()
        want = bytearray(d.content(b.path))
        for i in range(80):
            off, size = self.rng.randrange(63 * d.MB), self.rng.randrange(1, d.MB)
            data = self.rng.randbytes(size)
            n.write(off, data)
            want[off:off + size] = data
        self.assertGreater(b.status()["svm_cache"], 20 * d.MB)
        for off in range(0, 64 * d.MB, 8 * d.MB):
            self.assertTrue(n.read(off, 8 * d.MB) == want[off:off + 8 * d.MB])
        b.failover()
        b.event(d.EV_WRITTEN_BACK)
        self.assertTrue(d.content(b.path) == want)

    def test_full_pvm_cache_holds_the_primary_back_until_the_commit(self):
        a, b = self.pair(cache_max="16M", journal="16M", link_stall_ms=600000)
        n = a.nbd()
        for i in range(1, 17):
            n.write(0, b"x" * d.MB)
            b.until("it arrived", lambda s: s["mirrored"] >= i * d.MB)  # collects events
            if b.events:
                break
        self.assertEqual(b.events.pop().op, d.EV_WANT_CHECKPOINT)
        a.ask(d.BOUNDARY, 2)
        b.event(d.EV_BOUNDARY)
        n.sock.settimeout(0.5)
        with self.assertRaises(TimeoutError):
            for i in range(100):  # more than cache, ring and socket buffers hold
                n.write((i % 8) * d.MB, b"y" * d.MB)
        full = b.status()["pvm_cache"]
        self.assertTrue(13 * d.MB < full <= 16 * d.MB, full)
        b.ask(d.COMMIT, 2)
        n.sock.settimeout(d.DEADLINE)
        self.assertEqual(n.wait()[1], 0)
        self.assertEqual(d.content(b.path)[:100], b"x" * 100)

    def test_stalled_peer_is_given_up(self):
        a = self.disk("a", link_stall_ms=300)
        x, y = d.tcp_pair()
        a.ask(d.LINK, role=d.PRIMARY, fd=x.fileno())
        n = a.nbd()
        for i in range(60):  # nobody reads from y
            n.write((i % 8) * d.MB, b"x" * d.MB)
        self.assertIn("waited 300 ms for the peer", a.event(d.EV_LINK_LOST).text)
        self.assertEqual(a.status()["text"], "alone")
        x.close()
        y.close()

    def test_slow_peer_is_given_up(self):
        """It takes something all the time, and yet a write would wait for longer than the guest may."""
        a = self.disk("a", link_stall_ms=1000)
        x, y = d.tcp_pair()
        a.ask(d.LINK, role=d.PRIMARY, fd=x.fileno())
        done = threading.Event()

        def trickle():
            while not done.wait(0.05):
                y.recv(10000)

        reader = threading.Thread(target=trickle)
        reader.start()
        try:
            n, longest = a.nbd(), 0
            for i in range(60):
                begin = time.monotonic()
                n.write((i % 8) * d.MB, b"x" * d.MB)
                longest = max(longest, time.monotonic() - begin)
            self.assertIn("waited 1000 ms for the peer", a.event(d.EV_LINK_LOST).text)
            self.assertTrue(0.9 < longest < 3, longest)
        finally:
            done.set()
            reader.join()
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
                n.write((i % 8) * d.MB, b"x" * d.MB)
        a.ask(d.BOUNDARY, 1, status=-16)  # never waits
        a.ask(d.UNLINK)
        n.sock.settimeout(d.DEADLINE)
        self.assertEqual(n.wait()[1], 0)
        x.close()
        y.close()


class Load(d.TestCase):
    """Many writers at once, overlapping: the order on both sides must be the same."""
    SIZE = 8 * d.MB

    def disk(self, *args, **kw):
        # the writers do not wait for checkpoints: a journal that is full without one ends the link
        return super().disk(*args, **dict({"journal": "128M"}, **kw))

    def writer(self, disk, seed, stop, area, size):
        rng, n, window = random.Random(seed), disk.nbd(), 0
        while not stop.is_set():
            if window == 8:
                self.assertEqual(n.wait()[1], 0)
                window -= 1
            off, length = rng.randrange(area), rng.randrange(1, size)
            kind = rng.randrange(10)
            if kind < 8:
                n.send(d.NBD_WRITE, off, length, rng.randbytes(1) * length)
            else:
                n.send(d.NBD_TRIM if kind == 8 else d.NBD_ZERO, off, length)
            window += 1
        while window:
            self.assertEqual(n.wait()[1], 0)
            window -= 1

    def run_writers(self, disk, area=256000, size=65536):
        """Starts writers; the returned function ends them and raises what they raised."""
        stop, failed = threading.Event(), []
        disk.serve()

        def run(seed):
            try:
                self.writer(disk, seed, stop, area, size)
            except Exception as e:  # noqa: BLE001 - handed on
                failed.append(e)

        threads = [threading.Thread(target=run, args=(d.SEED + i,)) for i in range(3)]
        for t in threads:
            t.start()

        def end():
            stop.set()
            for t in threads:
                t.join()
            self.assertEqual(failed, [])
        return end

    def test_order_is_the_same_on_both(self):
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

    @unittest.skipUnless(d.SHIM, "COLO_SYNC_SHIM is not set")
    def test_sync_under_load(self):
        """Small writes in a large area, so that later ones do not hide what the sync did wrong."""
        a, b = self.shimmed("a"), self.disk("b")
        a.nbd().write(0, b"1" * 4 * d.MB)
        self.switch("dawdle", True)
        end = self.run_writers(a, area=4 * d.MB, size=2000)
        target = a.status()["writes"] + 100
        a.until("writes", lambda s: s["writes"] > target)
        d.link(a, b)
        end()
        d.checkpoint(a, b, 1)
        self.assertSameContent(a, b)

    @unittest.skipUnless(d.SHIM, "COLO_SYNC_SHIM is not set")
    def test_guest_writes_win_over_write_back(self):
        size = 32 * d.MB
        a, b = self.disk("a", size=size), self.shimmed("b", size=size)
        d.link(a, b)
        d.checkpoint(a, b, 1)
        n, want = b.nbd(), bytearray(size)
        for i in range(0, size, d.MB):
            want[i:i + d.MB] = self.rng.randbytes(d.MB)
            n.write(i, want[i:i + d.MB])
        self.switch("crawl", True)  # 512 pieces of 64 KiB, 2 ms each
        b.failover()
        writes = 0
        while b.status()["svm_cache"]:  # one request at a time, so that the order is known
            off, length = self.rng.randrange(size - 9000), self.rng.randrange(1, 9000)
            data = self.rng.randbytes(length)
            n.write(off, data)
            want[off:off + length] = data
            for _ in range(3):
                off = self.rng.randrange(size - 9000)
                self.assertTrue(n.read(off, length) == want[off:off + length])
            writes += 1
        self.assertGreater(writes, 10)
        self.switch("crawl", False)
        n.flush()
        b.event(d.EV_WRITTEN_BACK)
        self.assertTrue(d.content(b.path) == want)

    def test_killed_secondary_under_load(self):
        a, b = self.pair()
        end = self.run_writers(a)
        b.until("mirrored", lambda s: s["mirrored"] > d.MB)
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
    d.main()
