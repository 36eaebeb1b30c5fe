# SPDX-License-Identifier: GPL-2.0-or-later
"""A protected pair without a daemon: seed, view, track, checkpoints, all hashed."""
import mmap
import os
import statistics
import struct
import tempfile

import drivers
import initramfs
import kernel
import vm as qemu

HEADER = struct.Struct("=IIQQQ")
RECORD = struct.Struct("=IIQQ")
PAGE = qemu.PAGE
MARKER = bytes(12) + b"\x88\xb5COLO-MRK"


class Pair:
    """PVM and SVM; the staging area is shared, so nothing needs to be sent."""

    def __init__(self, agent_so, work, machine="pc", driver="direct", **options):
        self.dir = tempfile.TemporaryDirectory(prefix="colo-agent-")
        kdir = kernel.get()
        initrd = self.dir.name + "/initrd"
        initramfs.make(initrd, work, kdir)
        self.options = dict(machine=machine, kernel=kdir + "/vmlinuz", initrd=initrd, **options)
        self.agent_so = agent_so
        self.way = drivers.WAYS[driver](self)
        self.state = b""  # of the devices, at the last checkpoint
        self.pvm = self.svm = None
        self.ended = []
        self.epoch = 0
        self.pauses, self.applies = [], []
        self.map = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.way.end()
        for v in (self.pvm, self.svm):
            if v:
                v.kill()
        self.dir.cleanup()

    # what a pair with disks has more (tests/matrix)

    def vm(self, name, **more):
        """Start a QEMU."""
        return qemu.VM(name, self.dir.name, self.agent_so, **self.options, **more)

    def before_apply(self):
        """The PVM runs on from a checkpoint, the SVM has not begun with it. (With standby it stands still.)"""

    def boot(self):
        self.pvm = self.way.boot()
        self.pvm.agent.hello()
        self.pvm.wait_console("READY")

    def svm_name(self):
        return f"svm{len(self.ended)}"

    def take_over(self):
        """The PVM dies, the SVM serves for good."""
        self.pvm.kill()
        self.way.end()
        self.ended.append(self.pvm)
        self.pvm, self.svm = self.svm, None
        self.pvm.agent.ask(qemu.SERVE)

    def track(self):
        """Before RAM is copied: under TCG a live migration may miss a page that the guest writes while it goes on
        (a vCPU that loses the CPU between noting the page as dirty and allowing further writes undoes what the migration
        has done in between). What was written since is in the first checkpoint."""
        blocks = self.pvm.agent.setup()
        self.pvm.agent.ask(qemu.TRACK)
        return blocks

    def protect(self):
        """From a guest that serves to two VMs that run side by side."""
        size = self.way.seed()
        self.map = mmap.mmap(self.pvm.agent.staging, size)
        self.pvm.qmp.ask("cont")
        a, b = self.checkpoint(hashed=True, run_svm=False)
        assert a["hash"] == b["hash"], "RAM differs after seeding"
        self.svm.qmp.ask("cont")

    def harvest(self, nonce, hashed=False):
        """The PVM's part: self.state and the staging area hold a checkpoint, and it runs on."""
        self.epoch += 1
        a = self.way.checkpoint(qemu.HASH if hashed else 0, nonce, self.epoch)
        self.state = self.way.state(a["device_bytes"])
        return a

    def apply(self, a, nonce, hashed=False, run=True):
        """The SVM's part."""
        return self.way.apply(qemu.HASH if hashed else 0, nonce, a["ran_at"], run)

    def checkpoint(self, hashed=False, run_svm=True):
        nonce = os.urandom(16)
        a = self.harvest(nonce, hashed)
        b = self.apply(a, nonce, hashed, run_svm)
        for v in (self.pvm, self.svm):
            count_markers(v, nonce)
            v.qmp.drain()
        self.way.ready()
        if not hashed:
            self.pauses.append(a)
            self.applies.append(b)
        return a, b

    def skip_page(self):
        """Falsify what is staged: leave out the first page of the longest run. Returns what undoes
        it. (A page of a short run may hold what it held before: nothing would be missed. Nor would
        the last one be, if it is there only because others before it were written.)"""
        magic, version, nrec, npages, data_off = HEADER.unpack_from(self.map)
        end = data_off + npages * PAGE
        saved = self.map[:HEADER.size + nrec * RECORD.size], data_off, self.map[data_off:end]
        longest, at, data = (0, 0, 0), HEADER.size, data_off
        for _ in range(nrec):
            _, flags, _, n = RECORD.unpack_from(self.map, at)
            if not flags:
                data += n * PAGE
                longest = max(longest, (n, at, data))
            at += RECORD.size
        n, at, data = longest
        assert n > 1, "no run of two pages"
        block, flags, offset, _ = RECORD.unpack_from(self.map, at)
        RECORD.pack_into(self.map, at, block, flags, offset + PAGE, n - 1)
        HEADER.pack_into(self.map, 0, magic, version, nrec, npages - 1, data_off)
        first = data - n * PAGE
        self.map.move(first, first + PAGE, end - first - PAGE)
        return saved

    def undo(self, saved):
        records, data_off, data = saved
        self.map[:len(records)] = records
        self.map[data_off:data_off + len(data)] = data

    def stats(self):
        def line(name, rows, total, keys):
            ms = sorted(r[total] / 1e6 for r in rows)
            parts = " ".join(f"{k}={statistics.median(r[k] for r in rows) / 1e6:.2f}" for k in keys)
            return (f"{name} ms: p50={statistics.median(ms):.2f} p99={ms[int(len(ms) * .99)]:.2f} "
                    f"{parts}")

        pages = statistics.median(r["pages"] for r in self.pauses)
        return (f"{len(self.pauses)} checkpoints, median {pages:.0f} pages\n"
                + line("pause", self.pauses, "pause", ("stop", "save", "scan", "copy", "cont"))
                + "\n" + line("apply", self.applies, "total",
                              ("stop", "reset", "drop", "apply", "load", "cont")))


def count_markers(v, nonce):
    """Exactly one marker, with our nonce, whole, on the NIC's stream."""
    found = [f for f in v.nic.frames() if f.startswith(MARKER)]
    assert found == [MARKER + nonce], f"{v.name}: markers {found}"
