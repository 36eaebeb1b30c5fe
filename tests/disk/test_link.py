#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The link between two disk managers, one of them played by the test: order, bounds, and whatever a broken
peer may say in either direction."""
import struct
import unittest

import disklib as d

SEED = 0x1234567890


def message(op, offset=0, length=0, data=b""):
    return d.HEADER.pack(d.MAGIC, op, offset, length, 0) + data


def runs(*pairs, more=0):
    data = b"".join(struct.pack(">QQ", *p) for p in pairs)
    return message(d.LINK_TARGET, more, len(data), data)


HELLO = message(d.LINK_HELLO, SEED)
SYNCED = message(d.LINK_SYNCED)
STABLE = message(d.LINK_SYNC_STABLE)
BLOCK = 65536


class Peer(d.TestCase):
    def peer(self, role, **kw):
        """A disk manager in this role, and the test's end of its link."""
        disk = self.disk(f"{'abs'[role]}{len(self.disks)}", **kw)
        x, y = d.tcp_pair()
        y.settimeout(d.DEADLINE)
        disk.ask(d.LINK, role=role, fd=x.fileno())
        x.close()
        self.addCleanup(y.close)
        return disk, y

    def get(self, y, n):
        data = b""
        while len(data) < n:
            part = y.recv(n - len(data))
            self.assertTrue(part, "closed")
            data += part
        return data

    def hear(self, y):
        """The next message: op, offset, length and data."""
        magic, op, offset, length, _ = d.HEADER.unpack(self.get(y, d.HEADER.size))
        self.assertEqual(magic, d.MAGIC)
        size = {d.LINK_WRITE: length, d.LINK_HASH: 16, d.LINK_TARGET: length, d.LINK_DIFFERS: length}.get(op, 0)
        return op, offset, length, self.get(y, size)

    def expect(self, y, op):
        m = self.hear(y)
        self.assertEqual(m[0], op, m)
        return m

    def greeted(self, **kw):
        """A secondary that was greeted and has said what it changed."""
        b, y = self.peer(d.SECONDARY, **kw)
        y.sendall(HELLO)
        self.expect(y, d.LINK_TARGET)
        return b, y

    def stable(self, **kw):
        """A secondary that has the first sync."""
        b, y = self.greeted(**kw)
        y.sendall(SYNCED)
        self.expect(y, d.LINK_SYNC_STABLE)
        return b, y

    def asking(self, **kw):
        """A primary that asks about its first block, which has data."""
        a, y = self.peer(d.PRIMARY, **kw)
        self.expect(y, d.LINK_HELLO)
        y.sendall(runs((0, BLOCK)))
        self.expect(y, d.LINK_HASH)
        return a, y

    def synced(self, **kw):
        """A primary whose sync is over."""
        a, y = self.peer(d.PRIMARY, **kw)
        self.expect(y, d.LINK_HELLO)
        y.sendall(runs())
        self.expect(y, d.LINK_SYNCED)
        y.sendall(STABLE)
        a.event(d.EV_SYNCED)
        return a, y

    def refused(self, disk, y, raw, why):
        y.sendall(raw)
        self.assertIn(why, disk.event(d.EV_LINK_LOST).text)
        disk.status()
        y.close()
        self.disks.remove(disk)
        self.assertEqual(disk.stop(), 0)


class HostilePrimary(Peer):
    def test_what_is_wrong_is_named(self):
        h = d.HEADER.pack
        for raw, why in (
                (h(1, 1, 0, 512, 0), "bad magic"),
                (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "bad magic"),
                (message(9, 0, 512), "unknown operation (op 9"),
                (message(d.LINK_SAME), "unknown operation"),
                (message(d.LINK_WRITE, 0, 0), "length is zero"),
                (message(d.LINK_WRITE, 0, 262145), "length beyond the limit"),
                (message(d.LINK_WRITE, 0, 0xFFFFFFFF), "length beyond the limit"),
                (message(d.LINK_WRITE, self.SIZE - 511, 512), "beyond the end"),
                (message(d.LINK_WRITE, 2**64 - 1, 2), "beyond the end"),
                (message(d.LINK_ZERO, 2**63, 512), "beyond the end"),
                (message(d.LINK_ZERO, 0, 0xFFFFFFFF), "beyond the end"),
                (message(d.LINK_BOUNDARY, 1, 5), "boundary with a length"),
                (message(d.LINK_BOUNDARY, 1), "a boundary before the sync is stable"),
                (message(d.LINK_HASH, 512, BLOCK), "not a block of the disk"),
                (message(d.LINK_HASH, self.SIZE, BLOCK), "not a block of the disk"),
                (message(d.LINK_HASH, 2**64 - BLOCK, BLOCK), "not a block of the disk"),
                (message(d.LINK_HASH, 0, 512), "not one block"),
                (message(d.LINK_HASH, 0, 2 * BLOCK), "not one block"),
                (message(d.LINK_HOLE, 0, 0), "not whole blocks"),
                (message(d.LINK_HOLE, 0, 512), "not whole blocks"),
                (message(d.LINK_HOLE, 0, 65 * BLOCK), "or too many"),
                (message(d.LINK_HOLE, self.SIZE - BLOCK, 2 * BLOCK), "not whole blocks"),
                (HELLO, "a second hello"),
                (message(d.LINK_SYNCED, 0, 1), "synced with a length"),
                (SYNCED + SYNCED, "synced twice"),
        ):
            with self.subTest(why=why, raw=raw):
                b, y = self.greeted()
                path = b.path
                self.refused(b, y, raw, why)
                self.assertTrue(d.content(path) == bytes(self.SIZE))

    def test_order(self):
        b, y = self.peer(d.SECONDARY)
        self.refused(b, y, message(d.LINK_WRITE, 0, 512, bytes(512)), "no hello")
        b, y = self.peer(d.SECONDARY)
        self.refused(b, y, message(d.LINK_HELLO, SEED, 7), "not understood")
        for raw, why in ((message(d.LINK_BOUNDARY), "not above"),
                         (message(d.LINK_BOUNDARY, 5) * 2, "not above"),
                         (b"".join(message(d.LINK_BOUNDARY, i) for i in range(1, 300)), "too many")):
            self.refused(*self.stable(), raw, why)

    def test_cut_off_anywhere(self):
        raw = message(d.LINK_BOUNDARY, 1) + message(d.LINK_WRITE, 4096, 4096, b"x" * 4096)
        for end in (0, 1, 23, 24, 30, 47, 48, 100, 4143):
            b, y = self.stable()
            y.sendall(raw[:end])
            y.close()
            self.assertIn("closed", b.event(d.EV_LINK_LOST).text)
            if end >= 24:
                b.ask(d.COMMIT, 1)
                b.failover()
                b.event(d.EV_WRITTEN_BACK)
            self.assertTrue(d.content(b.path) == bytes(self.SIZE))

    def test_random_garbage(self):
        ops = list(range(9)) + [32, 33, 2**31]
        for i in range(20):
            b, y = self.rng.choice((self.greeted, self.stable))()
            raw = bytearray()
            while len(raw) < 20000:
                op, length = self.rng.choice(ops), self.rng.choice([1, 512, 5000, BLOCK, 2**31])
                raw += message(op, self.rng.randrange(2 * self.SIZE), length)
                raw += self.rng.randbytes(self.rng.choice([0, 16, min(length, 5000)]))
            try:
                y.sendall(raw)
            except OSError:
                pass  # it hung up in the middle, as it should
            y.close()
            b.event(d.EV_LINK_LOST)
            self.disks.remove(b)
            self.assertEqual(b.stop(), 0)

    def test_questions_are_answered_in_order(self):
        data = self.rng.randbytes(BLOCK)
        b, y = self.greeted(data=data)
        y.sendall(message(d.LINK_HOLE, BLOCK, 3 * BLOCK) + message(d.LINK_HOLE, 0, 2 * BLOCK) +
                  message(d.LINK_HASH, 0, BLOCK, bytes(16)))
        self.assertEqual(self.hear(y)[:3], (d.LINK_SAME, BLOCK, 0))
        self.assertEqual(self.hear(y)[:3], (d.LINK_DIFFERS, 0, 0))
        op, offset, length, parts = self.hear(y)
        self.assertEqual((op, offset, length), (d.LINK_DIFFERS, 0, 16 * 8))
        self.assertEqual(len(set(struct.unpack(">16Q", parts))), 16)

    def test_what_is_not_committed_is_busy(self):
        b, y = self.stable()
        y.sendall(message(d.LINK_BOUNDARY, 1) + message(d.LINK_WRITE, 70000, 512, b"x" * 512) +
                  message(d.LINK_HASH, BLOCK, BLOCK, bytes(16)) + message(d.LINK_HOLE, 2 * BLOCK, BLOCK) +
                  message(d.LINK_BOUNDARY, 2))
        self.assertEqual(self.hear(y)[:2], (d.LINK_BUSY, BLOCK))
        self.assertEqual(self.hear(y)[:2], (d.LINK_SAME, 2 * BLOCK))
        for epoch in (1, 2):
            self.assertEqual(b.event(d.EV_BOUNDARY).epoch, epoch)
        b.ask(d.COMMIT, 1)
        self.assertEqual(self.hear(y)[:2], (d.LINK_COMMITTED, 1))
        y.sendall(message(d.LINK_HASH, BLOCK, BLOCK, bytes(16)))
        self.assertEqual(self.hear(y)[:2], (d.LINK_BUSY, BLOCK))
        b.ask(d.COMMIT, 2)
        self.assertEqual(self.hear(y)[:2], (d.LINK_COMMITTED, 2))
        y.sendall(message(d.LINK_HASH, BLOCK, BLOCK, bytes(16)))
        self.assertEqual(self.hear(y)[:2], (d.LINK_DIFFERS, BLOCK))


class HostileSecondary(Peer):
    DATA = b"primary" * 9000

    def test_what_it_says_about_its_blocks(self):
        for raw, why in (
                (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "bad magic"),
                (message(d.LINK_WRITE, 0, 512), "not an answer"),
                (message(d.LINK_TARGET, 0, 17), "runs that are not understood"),
                (message(d.LINK_TARGET, 0, 16 * 16385), "runs that are not understood"),
                (message(d.LINK_TARGET, 2, 0), "runs that are not understood"),
                (message(d.LINK_TARGET, 1, 0), "no runs, but more to come"),
                (runs((0, 0)), "not blocks of the disk"),
                (runs((512, BLOCK)), "not blocks of the disk"),
                (runs((self.SIZE, BLOCK)), "not blocks of the disk"),
                (runs((2**64 - BLOCK, 2 * BLOCK)), "not blocks of the disk"),
                (runs((0, 512)), "not whole blocks"),
                (runs((BLOCK, BLOCK), (0, BLOCK)), "runs out of order"),
                (runs((0, BLOCK), more=1) + runs((0, BLOCK)), "runs out of order"),
                (message(d.LINK_SAME), "an answer without a question"),
                (STABLE, "stable without a sync"),
                (message(d.LINK_COMMITTED, 1), "a commit of what was not sent"),
        ):
            with self.subTest(why=why, raw=raw[:64]):
                a, y = self.peer(d.PRIMARY)
                self.expect(y, d.LINK_HELLO)
                self.refused(a, y, raw, why)

    def test_what_it_answers(self):
        same = struct.pack(">Q", 1) * 16
        for raw, why in (
                (runs(), "said twice"),
                (message(d.LINK_SAME, BLOCK), "another question"),
                (message(d.LINK_SAME, 0, 8), "an answer with a length"),
                (message(d.LINK_BUSY, 0, 0), "busy before the first boundary"),
                (message(d.LINK_DIFFERS, 0, 120), "too many or too few"),
                (message(d.LINK_DIFFERS, 0, 136), "too many or too few"),
                (message(d.LINK_DIFFERS, 0, 0), "too many or too few"),
                (message(d.LINK_DIFFERS, 0, 2**32 - 1), "too many or too few"),
                (message(d.LINK_SAME) * 2, "an answer without a question"),
                (message(d.LINK_DIFFERS, 0, 128, same) * 2, "an answer without a question"),
                (STABLE, "stable without a sync"),
        ):
            with self.subTest(why=why, raw=raw[:64]):
                self.refused(*self.asking(data=self.DATA), raw, why)

    def test_afterwards(self):
        for raw, why in ((STABLE, "stable without a sync"), (message(d.LINK_SAME), "without a question"),
                         (runs(), "said twice"), (message(d.LINK_COMMITTED, 1), "a commit of what was not sent")):
            self.refused(*self.synced(), raw, why)
        for raw in (message(d.LINK_COMMITTED, 8), message(d.LINK_COMMITTED, 7) * 2,
                    message(d.LINK_COMMITTED, 7, 1)):
            a, y = self.synced()
            a.ask(d.BOUNDARY, 7)
            self.expect(y, d.LINK_BOUNDARY)
            self.refused(a, y, raw, "a commit of what was not sent")

    def test_no_checkpoint_before_the_sync_is_over(self):
        a, y = self.asking(data=self.DATA)
        self.assertIn("whole disk", a.ask(d.BOUNDARY, 1, status=-16).text)
        y.sendall(message(d.LINK_SAME))
        self.expect(y, d.LINK_SYNCED)
        a.ask(d.BOUNDARY, 1, status=-16)
        y.sendall(STABLE)
        a.event(d.EV_SYNCED)
        a.ask(d.BOUNDARY, 1)

    def test_random_garbage(self):
        ops = [0, 1, 3] + list(range(32, 39))
        for i in range(20):
            a, y = self.rng.choice((self.asking, self.synced))(data=self.DATA)
            raw = bytearray()
            while len(raw) < 20000:
                op, length = self.rng.choice(ops), self.rng.choice([0, 0, 1, 16, 128, 2**31])
                raw += message(op, self.rng.choice([0, 1, BLOCK]), length)
                raw += self.rng.randbytes(self.rng.choice([0, 16, 128]))
            try:
                y.sendall(raw)
            except OSError:
                pass  # it hung up in the middle, as it should
            y.close()
            a.event(d.EV_LINK_LOST)
            self.assertEqual(a.status()["text"], "alone")
            a.nbd().write(0, b"goes on")
            self.disks.remove(a)
            self.assertEqual(a.stop(), 0)

    def test_window(self):
        """No more questions than agreed are under way, however many blocks there are."""
        a, y = self.peer(d.PRIMARY, data=self.rng.randbytes(self.SIZE))
        self.expect(y, d.LINK_HELLO)
        y.sendall(runs((0, self.SIZE)))
        asked = [self.expect(y, d.LINK_HASH)[1] for _ in range(128)]
        y.settimeout(0.3)
        with self.assertRaises(TimeoutError):
            y.recv(1)
        y.settimeout(d.DEADLINE)
        for offset in asked:
            y.sendall(message(d.LINK_SAME, offset))
        self.assertEqual(self.expect(y, d.LINK_HASH)[1], 128 * BLOCK)


if __name__ == "__main__":
    d.main()
