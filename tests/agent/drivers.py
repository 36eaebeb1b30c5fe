# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between the agent's drivers: how a pair is seeded, and a checkpoint taken and brought in.

Both are used by pair.Pair only. `ram` is the descriptor of the file that a VM has its RAM in, None with direct.
"""
import os
import socket
import statistics
import time

import vm as qemu


class Direct:
    """The agent does all, by functions of QEMU's own."""

    # requests that bring a checkpoint in
    late = [lambda agent: agent.apply(qemu.STAGED | qemu.LOAD | qemu.RUN), lambda agent: agent.apply(qemu.LOAD)]

    def __init__(self, pair):
        self.pair = pair

    def boot(self):
        return self.pair.vm("pvm")

    def seed(self):
        """Make the SVM, stopped, a view of the PVM's RAM; the PVM is stopped, too."""
        p = self.pair
        ours, theirs = socket.socketpair()
        p.svm = p.vm(p.svm_name(), incoming=theirs)
        theirs.close()
        p.svm.agent.hello()
        blocks, size = p.track()
        qemu.seed(p.pvm, ours)
        ours.close()
        qemu.wait_status(p.svm, ("paused", "prelaunch"))
        other, _ = p.svm.agent.setup(os.dup(p.pvm.agent.staging))
        assert blocks == other, f"RAM differs: {blocks} and {other}"
        p.svm.agent.ask(qemu.VIEW)
        return size

    def checkpoint(self, flags, nonce, epoch):
        return self.pair.pvm.agent.checkpoint(qemu.RUN | flags, nonce, epoch)

    def clock_bound(self):
        """How near the guests' clocks are, ns."""
        return 1_000_000

    def state(self, length):
        return os.pread(self.pair.pvm.agent.state, length, 0)

    def apply(self, flags, nonce, ran_at, run):
        p = self.pair
        p.svm.agent.put_state(p.state)
        p.before_apply()
        return p.svm.agent.apply(qemu.STAGED | qemu.LOAD | flags | (qemu.RUN if run else 0), nonce, ran_at)

    def ready(self):
        """Before the next checkpoint may come."""

    def end(self):
        """What there is besides PVM and SVM."""


class Standby:
    """Documented interfaces: a migration without RAM from the PVM into a QEMU that waits for it."""

    late = [lambda agent: agent.apply(qemu.STAGED), lambda agent: agent.loaded(0, bytes(16))]

    def __init__(self, pair):
        self.pair = pair
        self.stream = b""
        self.image = None  # of the SVM's RAM
        self.next = None  # the standby
        self.rests = [10_000_000]  # ns from APPLY until the SVM ran, the last times
        self.lags = []  # ns the SVM ran later than the PVM did

    def new_ram(self):
        fd = os.memfd_create("guest-ram")
        os.ftruncate(fd, self.pair.options.get("mem", qemu.MEM) << 20)
        return fd

    def boot(self):
        return self.pair.vm("pvm", ram=self.new_ram())

    def seed(self):
        p = self.pair
        self.image = self.new_ram()
        ours, theirs = socket.socketpair()
        first = p.vm("seed", ram=self.image, incoming=theirs)
        theirs.close()
        first.agent.hello()
        p.pvm.ignore_ram(False)
        _, size = p.track()
        qemu.seed(p.pvm, ours)
        ours.close()
        qemu.wait_status(first, ("paused", "prelaunch"))
        first.end()
        p.pvm.ignore_ram(True)
        self.ready()
        return size

    def ready(self):
        """Start a standby."""
        p = self.pair
        v = p.vm(p.svm_name(), ram=self.image, incoming="defer")
        self.next = v
        _, _, driver = v.agent.hello()
        assert driver == "standby", driver
        v.ignore_ram(True)
        v.qmp.ask("migrate-set-parameters", **{"announce-rounds": 1})
        blocks, _ = v.agent.setup(os.dup(p.pvm.agent.staging))
        assert blocks == [("ram", os.fstat(self.image).st_size)], blocks
        v.agent.ask(qemu.VIEW)

    def checkpoint(self, flags, nonce, epoch):
        """Stop, save, CHECKPOINT, run: whatever fails, the PVM runs."""
        p = self.pair
        q = p.pvm.qmp
        reader = q.give_pipe()
        began = time.monotonic_ns()
        q.ask("stop")
        try:
            stopped = time.monotonic_ns()
            self.stream = q.save(reader)
            saved = time.monotonic_ns()
            a = p.pvm.agent.checkpoint(flags, nonce, epoch)
        finally:
            marked = time.monotonic_ns()
            q.ask("cont")
            ran = time.monotonic_ns()
        a.update(stop=stopped - began, save=saved - stopped, cont=ran - marked, pause=ran - began, ran_at=ran,
                 device_bytes=len(self.stream))
        return a

    def clock_bound(self):
        """Half of what they were apart if they were not set. (What is left to do is guessed before QEMU loads.)"""
        return statistics.median(self.lags) // 2

    def state(self, length):
        return self.stream[:length]

    def load(self):
        """The standby takes the place of the old SVM."""
        p = self.pair
        p.svm, self.next = self.next, None
        p.svm.qmp.load(os.pread(p.svm.agent.state, len(p.state), 0))

    def apply(self, flags, nonce, ran_at, run):
        p = self.pair
        old = p.svm
        self.next.agent.put_state(p.state)
        began = time.monotonic_ns()
        if old:
            old.qmp.ask("stop")
        p.before_apply()
        stopped = time.monotonic_ns()
        try:
            b = self.next.agent.apply(qemu.STAGED, ran_at=max(ran_at - int(statistics.median(self.rests)), 0))
        except qemu.Failed:
            if old:
                old.qmp.ask("cont")
            raise
        applied = time.monotonic_ns()
        self.load()
        loaded = time.monotonic_ns()
        c = p.svm.agent.loaded(flags, nonce)
        dropped = time.monotonic_ns()
        if run:
            p.svm.qmp.ask("cont")
        ran = time.monotonic_ns()
        if old:
            old.end()
        if run and not flags:
            self.rests = [*self.rests[-6:], ran - applied]
            self.lags.append(ran - ran_at)
        b.update(stop=stopped - began, drop=b["drop"] + c["drop"], load=loaded - applied, cont=ran - dropped,
                 total=ran - began, hash=c["hash"])
        return b

    def end(self):
        if self.next:
            self.next.end()
        self.next = None


WAYS = {"direct": Direct, "standby": Standby}
