#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that a primary's storage fails: parked until the daemon has decided, and never after that."""
import os
import resource
import unittest

import disklib as d

SERVE, FAULT, EV_FAULT = 8, 10, 108
LIMIT = 8 * d.MB
BEYOND = 12 * d.MB
PATIENCE = 0.3  # an answer that must not come would have come by then


class Faults(d.TestCase):
    def limited_pair(self):
        """A pair whose primary cannot write beyond LIMIT."""
        a, b = self.pair()
        resource.prlimit(a.process.pid, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
        return a, b

    def failing_write(self, disk, off=BEYOND):
        """A connection on which a write was sent that storage fails."""
        n = disk.nbd()
        n.send(d.NBD_WRITE, off, 4096, b"x" * 4096)
        return n

    def assertParked(self, n):
        n.sock.settimeout(PATIENCE)
        with self.assertRaises(TimeoutError):
            n.wait()
        n.sock.settimeout(d.DEADLINE)

    def assertFails(self, n):
        self.assertNotEqual(n.wait()[1], 0)

    def faults(self, disk):
        disk.status()  # what was sent before is in disk.events now
        return [e for e in disk.events if e.op == EV_FAULT]

    def test_failed_writes_wait_for_the_daemon(self):
        a, b = self.limited_pair()
        n = self.failing_write(a)
        m = a.event(EV_FAULT)
        self.assertIn("writing failed: File too large", m.text)
        self.assertEqual(m.status, -27)
        other = self.failing_write(a, BEYOND + 4096)
        self.assertParked(n)
        self.assertParked(other)
        self.assertEqual(self.faults(a), [])  # once
        fine = a.nbd()
        fine.write(0, b"fine" * 128)
        self.assertEqual(fine.read(0, 4), b"fine")
        a.ask(FAULT)
        self.assertFails(n)
        self.assertFails(other)
        d.checkpoint(a, b, 2)
        self.assertEqual(d.content(b.path)[BEYOND:BEYOND + 4096], bytes(4096))  # never mirrored
        self.assertEqual(d.content(b.path)[:4], b"fine")

    def test_each_decision_is_for_once(self):
        a, _ = self.limited_pair()
        for _ in range(3):
            n = self.failing_write(a)
            a.event(EV_FAULT)
            a.ask(FAULT)
            self.assertFails(n)
        a.ask(FAULT)  # with none parked
        n = self.failing_write(a)
        a.event(EV_FAULT)
        self.assertParked(n)

    def test_failed_read_is_parked(self):
        a, _ = self.pair()
        n = a.nbd()
        os.truncate(a.path, LIMIT)  # by whoever
        n.send(d.NBD_READ, BEYOND, 512)
        self.assertIn("reading", a.event(EV_FAULT).text)
        a.ask(FAULT)
        self.assertEqual(n.wait()[1], 5)

    @unittest.skipUnless(d.SHIM, "COLO_SYNC_SHIM is not set")
    def test_failed_flush_is_parked(self):
        a, b = self.shimmed("a"), self.disk("b")
        d.link(a, b)
        d.checkpoint(a, b, 1)
        n = a.nbd()
        n.write(0, b"x" * 512)
        self.switch("fail", True)
        n.send(d.NBD_FLUSH)
        self.assertIn("flushing failed", a.event(EV_FAULT).text)
        self.switch("fail", False)
        self.assertParked(n)
        a.ask(FAULT)
        self.assertFails(n)

    def test_unlink_releases(self):
        a, _ = self.limited_pair()
        n = self.failing_write(a)
        a.event(EV_FAULT)
        a.ask(d.UNLINK)
        self.assertFails(n)
        self.assertFails(self.failing_write(a))  # alone: at once
        self.assertEqual(self.faults(a), [])

    def test_lost_link_releases_nothing_before_the_claim_is_won(self):
        a, b = self.limited_pair()
        n = self.failing_write(a)
        a.event(EV_FAULT)
        b.stop()
        a.event(d.EV_LINK_LOST)
        self.assertParked(n)
        a.ask(SERVE)
        self.assertFails(n)

    def test_all_threads_may_be_parked(self):
        a, _ = self.limited_pair()
        n = a.nbd()
        for i in range(24):
            n.send(d.NBD_WRITE, BEYOND + 512 * i, 512, b"x" * 512)
        a.event(EV_FAULT)
        self.assertEqual(a.nbd().read(0, 4), b"base")  # another connection has threads of its own
        a.ask(d.UNLINK)
        for _ in range(24):
            self.assertFails(n)

    def test_ends_with_the_daemon(self):
        a, _ = self.limited_pair()
        n = self.failing_write(a)
        a.event(EV_FAULT)
        a.control.close()
        self.assertFails(n)
        a.wait()

    def test_peer_takes_over(self):
        a, b = self.limited_pair()
        a.nbd().write(0, b"agreed" * 100)
        d.checkpoint(a, b, 2)
        twin = b.nbd()
        twin.write(BEYOND, b"x" * 4096)
        n = self.failing_write(a)
        a.event(EV_FAULT)
        b.failover()
        self.assertParked(n)
        self.assertEqual(twin.read(BEYOND, 4096), b"x" * 4096)
        self.assertEqual(twin.read(0, 6), b"agreed")


if __name__ == "__main__":
    d.main()
