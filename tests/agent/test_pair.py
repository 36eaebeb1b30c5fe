#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Two stock QEMUs side by side: every checkpoint leaves all of guest RAM equal.

usage: test_pair.py AGENT.so GUEST-PROGRAM [MACHINE [DRIVER [CHECKPOINTS]]]
"""
import errno
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kernel  # noqa: E402
import pair as pairs  # noqa: E402
import vm as qemu  # noqa: E402

RAM = 512 << 20
SLACK = 16 << 20  # firmware, and what the guest wrote since the last look


def check_checkpoints(p, n):
    for i in range(n):
        time.sleep(0.05)
        a, b = p.checkpoint(hashed=i % 2 == 0)
        assert a["hash"] == b["hash"], f"RAM differs after checkpoint {i}: {a} {b}"
        assert b["applied"] == a["pages"], f"{a['pages']} pages harvested, {b['applied']} applied"
    print(p.stats())


def check_failed_checkpoint(p):
    """Nobody reads the NIC's frames: the checkpoint fails, the PVM runs, no page is lost."""
    p.pvm.nic.flood()
    try:
        p.harvest(bytes(16))
        raise AssertionError("a marker went into a socket that is full")
    except qemu.Failed as e:
        assert e.status == -errno.ETIMEDOUT, e
    assert p.pvm.qmp.ask("query-status")["status"] == "running"
    p.pvm.nic.frames()
    a, b = p.checkpoint(hashed=True)
    assert a["hash"] == b["hash"], "pages of a failed checkpoint were lost"


def check_taken(p):
    """The count of frames that the VM took from its TAP is right, none of them waiting."""
    before = p.checkpoint()[0]["taken"][0]
    for _ in range(7):
        p.pvm.nic.send(bytes(60))
    deadline = time.monotonic() + 10
    while (now := p.checkpoint()[0]["taken"][0]) < before + 7:
        assert time.monotonic() < deadline, f"{now - before} of 7 frames taken"
        time.sleep(0.01)
    assert now == before + 7, f"{now - before} frames taken, 7 sent"


def check_hostile(p):
    """A staging area that lies is refused, and the SVM runs on as it was."""
    saved = p.map[:64]
    for at, value in ((0, b"\0"), (8, b"\xff" * 8), (16, b"\xff" * 8), (24, b"\x01"),
                      (32, b"\xff" * 4), (40, b"\xff" * 8), (48, b"\xff" * 8)):
        p.map[at:at + len(value)] = value
        try:
            p.apply({"ran_at": 0}, bytes(16))
            raise AssertionError(f"bytes at {at} were not checked")
        except qemu.Failed as e:
            assert e.status == -errno.EBADMSG, e
        p.map[:len(saved)] = saved
        assert p.svm.qmp.ask("query-status")["status"] == "running"


def check_ended(p):
    """An SVM that shut down on its own is brought back by the next checkpoint."""
    p.svm.nic.power_off()
    qemu.wait_status(p.svm, ("shutdown",))
    a, b = p.checkpoint(hashed=True)
    assert a["hash"] == b["hash"]
    assert p.svm.qmp.ask("query-status")["status"] == "running"


def check_negative(p):
    """A page left out on purpose must be seen, or the hashes prove nothing."""
    nonce = os.urandom(16)
    a = p.harvest(nonce, hashed=True)
    saved = p.skip_page()
    b = p.apply(a, nonce, hashed=True, run=False)
    assert a["hash"] != b["hash"], "a page was left out, and the hash did not see it"
    p.undo(saved)
    p.way.ready()
    b = p.apply(a, nonce, hashed=True)
    assert a["hash"] == b["hash"], "RAM differs after the page was put back"
    p.way.ready()
    p.pvm.nic.frames()
    p.svm.nic.frames()


def clock_difference(p):
    """SVM's clocks minus PVM's, ns and ticks' worth of ns, of the best of many measurements."""
    best = {}
    for v in (p.pvm, p.svm):
        for i in range(30):
            m = v.nic.clocks(1000 + i, 0.5)
            if m and (v not in best or m[3] < best[v][3]):
                best[v] = m
    (h1, c1, _, r1), (h2, c2, _, r2) = best[p.pvm], best[p.svm]
    return (c2 - h2) - (c1 - h1), (r1 + r2) // 2


def check_clocks(p):
    found = []
    for _ in range(8):
        time.sleep(0.1)
        p.checkpoint()
        found.append(clock_difference(p))
    print("guest clocks differ by us (error up to): "
          + " ".join(f"{d / 1000:.0f}({e / 1000:.0f})" for d, e in found))
    near = sorted(abs(d) for d, _ in found)
    assert near[len(near) // 2] < p.way.clock_bound(), f"guest clocks differ: {found}"


def check_failover(p):
    """The PVM dies; the SVM goes on."""
    p.take_over()
    before = p.pvm.counted()
    deadline = time.monotonic() + 20
    while p.pvm.counted() < before + 3:
        assert time.monotonic() < deadline, "the SVM does not go on"
        time.sleep(0.05)
    assert p.pvm.nic.clocks(7), "the SVM does not answer on its NIC"
    for late in p.way.late:
        try:
            late(p.pvm.agent)
            raise AssertionError("a checkpoint was applied to a VM that serves")
        except qemu.Failed as e:
            assert e.status == -errno.EBUSY, e


def check_return(p, n):
    """What was an SVM is seeded from, tracked and harvested: RAM is equal, and does not come to exist twice."""
    p.protect()
    check_checkpoints(p, n)
    deadline = time.monotonic() + 20
    while (now := p.pvm.memory()) > RAM + SLACK:
        assert time.monotonic() < deadline, f"{now >> 20} MiB of memory for {RAM >> 20} MiB of RAM"
        p.checkpoint()
        time.sleep(0.05)
    print(f"{now >> 20} MiB of memory for {RAM >> 20} MiB of RAM that was a view")
    check_checkpoints(p, n)


def check_consoles(p):
    for v in (*p.ended, p.pvm):
        text = v.console()
        for bad in ("CORRUPT", "BUG", "panic", "Oops", "stall"):
            lines = [l for l in text.splitlines() if bad in l]
            assert not lines, f"{v.name}: {lines[:3]}"
    want = "clocksource " + ("tsc" if qemu.ACCEL == "tcg" else "kvm-clock")
    assert want in p.ended[0].console(), f"the guest has no {want}"


def main():
    agent_so, work = sys.argv[1:3]
    machine = sys.argv[3] if len(sys.argv) > 3 else "pc"
    driver = sys.argv[4] if len(sys.argv) > 4 else "direct"
    n = int(sys.argv[5] if len(sys.argv) > 5 else os.environ.get("CHECKPOINTS", "40"))
    append = os.environ.get("GUEST", "dirty_mib=64 dirty_pages=200 dirty_ms=4")
    with pairs.Pair(os.path.abspath(agent_so), work, machine, driver, append=append,
                    smp=int(os.environ.get("SMP", "1"))) as p:
        try:
            p.boot()
            p.protect()
            check_checkpoints(p, n)
            check_failed_checkpoint(p)
            check_taken(p)
            check_hostile(p)
            check_ended(p)
            check_negative(p)
            check_clocks(p)
            for _ in range(2):
                check_failover(p)
                check_return(p, n // 4)
            check_failover(p)
            check_consoles(p)
        except Exception:
            for v in (*p.ended, p.pvm, p.svm):
                if v:
                    print(f"--- {v.name}\n{v.console()[-1500:]}\n{open(v.errors).read()[-1500:]}")
            raise


try:
    main()
except kernel.Missing as e:
    print("skipped:", e)
    sys.exit(77)
except qemu.Failed as e:
    if e.status in (-errno.EOPNOTSUPP, -errno.EPERM):
        print("skipped:", e)
        sys.exit(77)
    raise
