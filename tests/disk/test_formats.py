#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The same disk in a qcow2 image and on block devices with sectors of 512 and of 4096 bytes. Needs root."""
import os
import shutil
import signal
import subprocess
import unittest

import disklib as d

STEPS = 150
LONGEST = 200000


def run(*command):
    """Its output; it must succeed."""
    r = subprocess.run(command, capture_output=True, text=True, check=False)
    assert r.returncode == 0, (command, r.stdout, r.stderr)
    return r.stdout.strip()


def children(pid, name):
    """The pids of the children of that name."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        pids = [int(p) for p in f.read().split()]
    found = []
    for p in pids:
        with open(f"/proc/{p}/comm", encoding="ascii") as f:
            found += [p] if f.read().strip() == name else []
    return found


class Content:
    """What is expected on a disk, and random requests that change both."""

    def __init__(self, data, size, rng):
        self.bytes = bytearray(data.ljust(size, b"\0"))
        self.rng = rng

    def place(self):
        """A range; half of them sector by sector, as a guest's are."""
        unit = self.rng.choice((1, 512))
        length = self.rng.randrange(1, LONGEST // unit) * unit
        return self.rng.randrange(0, (len(self.bytes) - length) // unit) * unit, length

    def step(self, n):
        """One request on the connection n."""
        off, length = self.place()
        kind = self.rng.choice(("write", "write", "fua", "zero", "trim", "flush"))
        if kind == "flush":
            n.flush()
            return
        data = bytes(length)
        if kind in ("write", "fua"):
            data = self.rng.randbytes(64) * (length // 64 + 1)
            data = data[:length]
            n.write(off, data, fua=kind == "fua")
        else:
            getattr(n, kind)(off, length)
        self.bytes[off:off + length] = data


class Formats:
    """The tests; classes below say what a disk is on."""

    config = {}

    def disk(self, name, size=None, data=b"", **kw):
        disk = d.Disk(self.make(name, size or self.SIZE, data), **self.config, **kw)
        self.disks.append(disk)
        return disk

    def stop(self, *disks):
        for disk in disks:
            disk.stop()
            self.disks.remove(disk)

    def assertHolds(self, disk, want):
        """Through the disk manager, with one more connection."""
        n = disk.nbd()
        for off in range(0, self.SIZE, d.MB):
            self.assertTrue(n.read(off, d.MB) == want[off:off + d.MB], f"differs in the MiB at {off}")

    def test_random_requests_on_two_connections(self):
        a = self.disk("a", data=b"base" * 50000)
        want = Content(b"base" * 50000, self.SIZE, self.rng)
        ns = [a.nbd(), a.nbd()]
        for _ in range(STEPS):
            want.step(self.rng.choice(ns))
            off, length = want.place()
            for n in ns:  # what one has written the other sees
                self.assertTrue(n.read(off, length) == want.bytes[off:off + length], (off, length))
        self.assertHolds(a, want.bytes)
        self.stop(a)
        self.assertTrue(self.read(a.path) == want.bytes)

    def test_checkpoints_and_failover(self):
        a, b = self.pair()
        want = Content(b"base" * 5000, self.SIZE, self.rng)
        n, twin = a.nbd(), b.nbd()
        for epoch in range(2, 6):
            for _ in range(STEPS // 10):
                want.step(n)
            twin.write(self.rng.randrange(self.SIZE - 5000), b"twin" * 1000)
            d.checkpoint(a, b, epoch)
            self.assertHolds(b, want.bytes)
        n.write(0, b"LOST" * 5000)
        agreed = Content(bytes(want.bytes), self.SIZE, self.rng)
        for _ in range(10):
            agreed.step(twin)
        b.failover()
        self.assertHolds(b, agreed.bytes)
        b.event(d.EV_WRITTEN_BACK)
        self.assertHolds(b, agreed.bytes)
        self.stop(a, b)
        self.assertTrue(self.read(b.path) == agreed.bytes)

    def test_first_sync_to_and_from_a_raw_file(self):
        data = self.rng.randbytes(d.MB) + bytes(d.MB) + b"x" * 5000
        raw = d.TestCase.disk(self, "raw", data=data)
        other = self.disk("other", data=data)
        self.assertEqual(raw.hello.identity, other.hello.identity)
        raw.nbd().write(3 * d.MB, b"changed" * 1000)
        d.link(raw, other)
        d.checkpoint(raw, other, 1)
        self.assertHolds(other, d.content(raw.path))
        again = d.TestCase.disk(self, "again", data=data)
        other.failover()
        other.event(d.EV_WRITTEN_BACK)
        d.link(other, again, all=True)
        d.checkpoint(other, again, 2)
        self.stop(raw, other, again)
        self.assertTrue(self.read(other.path) == d.content(again.path))

    def test_trim_gives_space_back(self):
        a = self.disk("a", data=self.rng.randbytes(self.SIZE))
        n = a.nbd()
        n.flush()
        before = self.space(a.path)
        n.trim(d.MB + 700, 8 * d.MB)
        n.flush()
        self.assertLess(self.space(a.path), before - 7 * d.MB)
        self.assertEqual(n.read(d.MB, 2 * d.MB)[700:], bytes(2 * d.MB - 700))

    def test_flushed_writes_survive_a_kill(self):
        a = self.disk("a")
        n = a.nbd()
        n.write(5000, b"flushed" * 1000)
        n.flush()
        a.process.send_signal(signal.SIGKILL)
        a.process.wait(d.DEADLINE)
        again = d.Disk(a.path, **self.config)
        self.disks.append(again)
        self.assertEqual(again.nbd().read(5000, 7000), b"flushed" * 1000)

    def test_in_use(self):
        a = self.disk("a")
        self.assertIn(self.in_use, self.refused(a.path))

    def refused(self, path, **config):
        """What nbdkit says."""
        ours, theirs = d.socket.socketpair(d.socket.AF_UNIX, d.socket.SOCK_SEQPACKET)
        os.makedirs(self.dir + "/other", exist_ok=True)
        config = dict(self.config, data=self.dir + "/other", name="x") | config
        with ours, theirs:
            args = [f"file={path}", f"control-fd={theirs.fileno()}"] + [f"{k}={v}" for k, v in config.items()]
            r = subprocess.run(d.command(self.dir + "/s", *args), capture_output=True, text=True, check=False,
                               timeout=d.DEADLINE, pass_fds=[theirs.fileno()], env=d.environment())
        self.assertNotEqual(r.returncode, 0)
        return r.stderr


class Qcow2(Formats, d.TestCase):
    config = {"format": "qcow2"}
    in_use = 'Failed to get "write" lock'

    def make(self, name, size, data):
        raw = d.TestCase.image(self, name, size, data)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, raw + ".new")
        os.rename(raw + ".new", raw)
        return raw

    def read(self, path):
        run("qemu-img", "check", path)
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, path + ".raw")
        run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, path + ".raw")
        return d.content(path + ".raw")

    def space(self, path):
        return os.stat(path).st_blocks * 512

    def test_pair_ends_with_equal_and_clean_images(self):
        a, b = self.pair()
        n = a.nbd()
        for epoch in range(2, 5):
            n.write(epoch * d.MB, b"%d" % epoch * 100000)
            n.trim(epoch * d.MB + 5000, 40000)
            d.checkpoint(a, b, epoch)
        self.stop(a, b)
        for disk in (a, b):
            run("qemu-img", "check", disk.path)
        run("qemu-img", "compare", a.path, b.path)

    def test_taken_for_raw_it_is_refused(self):
        path = self.make("a", self.SIZE, b"")
        self.config = {}
        self.assertIn("begins like a qcow2 image: say format=qcow2", self.refused(path))
        self.assertIn("format=vmdk is neither", self.refused(path, format="vmdk"))
        os.truncate(path, d.MB)
        disk = d.Disk(path, format="raw")  # as it is said so
        self.disks.append(disk)
        self.assertEqual(disk.nbd().read(0, 4), b"QFI\xfb")

    def test_raw_taken_for_qcow2_is_refused(self):
        path = d.TestCase.image(self, "a")
        self.assertIn("Image is not in qcow2 format", self.refused(path))

    def test_nobody_else_gets_in(self):
        a = self.disk("a")
        self.assertEqual(len(children(a.process.pid, "qemu-nbd")), 1)
        with open("/proc/net/unix", encoding="ascii") as f:
            paths = [line.split()[-1] for line in f if "colo-qcow2" in line]
        self.assertTrue(paths)
        for path in paths:
            self.assertFalse(os.path.exists(path), path)

    def test_qemu_nbd_ends_with_the_disk_manager(self):
        a = self.disk("a")
        server, = children(a.process.pid, "qemu-nbd")
        fd = os.pidfd_open(server)
        a.process.send_signal(signal.SIGKILL)
        self.assertTrue(d.select.select([fd], [], [], d.DEADLINE)[0])
        os.close(fd)

    def test_end_of_qemu_nbd_is_a_fault_of_storage(self):
        a, _ = self.pair()
        n = a.nbd()
        n.write(0, b"x" * 4096)
        os.kill(children(a.process.pid, "qemu-nbd")[0], signal.SIGKILL)
        n.send(d.NBD_WRITE, 4096, 4096, b"y" * 4096)
        self.assertIn("Input/output error", a.event(108).text)  # DISK_EV_FAULT
        a.ask(d.UNLINK)
        self.assertEqual(n.wait()[1], 5)
        for call in (lambda: n.read(0, 512), lambda: n.write(0, b"z" * 512), n.flush):
            with self.assertRaises(d.NbdError):
                call()

    def test_read_only(self):
        path = self.make("a", self.SIZE, b"content" * 1000)
        disk = d.Disk(path, format="qcow2", read_only=1)
        self.disks.append(disk)
        n = disk.nbd()
        self.assertEqual(n.read(0, 7000), b"content" * 1000)
        self.assertTrue(n.flags >> 1 & 1)


class Device512(Formats, d.TestCase):
    SECTOR = "512"
    in_use = "is in use"

    def setUp(self):
        super().setUp()
        self.loops = []

    def tearDown(self):
        super().tearDown()
        for loop in self.loops:
            run("losetup", "--detach", loop)

    def make(self, name, size, data):
        back = d.TestCase.image(self, name + ".back", size, data)
        loop = run("losetup", "--find", "--show", "--sector-size", self.SECTOR, back)
        self.loops.append(loop)
        self.assertEqual(run("blockdev", "--getss", loop), self.SECTOR)
        path = f"{self.dir}/{name}"  # a name of our own: beside it is what is kept of the disk
        shutil.rmtree(path + ".data", ignore_errors=True)
        os.symlink(loop, path)
        return path

    def read(self, path):
        run("blockdev", "--flushbufs", path)
        return d.content(path + ".back")

    def space(self, path):
        return os.stat(path + ".back").st_blocks * 512

    def test_what_is_mounted_is_refused(self):
        path = self.make("a", self.SIZE, b"")
        fd = os.open(path, os.O_RDWR | os.O_EXCL)  # as a mount has it
        try:
            self.assertIn("is in use: mounted", self.refused(path))
        finally:
            os.close(fd)


class Device4096(Device512):
    SECTOR = "4096"


if __name__ == "__main__":
    d.main()
