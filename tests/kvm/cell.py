#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A pair under real KVM: checkpoints with RAM hashed and without, failover, return, failover.

The guest (tests/agent/guest.c) checks its memory, code it rewrites, registers and clocks. Runs inside the
nested machine (tests/kvm/run); the last line is the result in JSON.

usage: cell.py AGENT.so GUEST-PROGRAM [--machine pc|q35] [--vcpus N] [--driver direct|standby] [--hashed N] [--timed N]
"""
import argparse
import itertools
import json
import os
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "agent"))
import pair as pairs  # noqa: E402
import vm as qemu  # noqa: E402

RAM_MIB = 128
SIGNS = "CORRUPT", "BUG", "panic", "Oops", "stall", "segfault", "unstable"
LOAD = "dirty_mib=16 dirty_pages=40 dirty_ms=40"
READINGS = 10
EVERY = 10  # checkpoints between two looks at the consoles


def check_consoles(p):
    for v in (*p.ended, p.pvm, p.svm):
        for line in v.console().splitlines() if v else ():
            assert not any(s in line for s in SIGNS), f"{v.name}: {line}"


def check_checkpoint(p, i, hashed):
    a, b = p.checkpoint(hashed=hashed)
    assert not hashed or a["hash"] == b["hash"], f"RAM differs after checkpoint {i}: {a} and {b}"
    assert a["pages"] == b["applied"], f"checkpoint {i}: {a['pages']} pages harvested, {b['applied']} applied"


def check_checkpoints(p, hashed, timed, report):
    """The two kinds take turns, as long as there are both."""
    step = max(hashed, timed)
    for i in range(step):
        if i < hashed:
            check_checkpoint(p, i, True)
            report["hashed"] += 1
        time.sleep(0.02)
        if i < timed:
            check_checkpoint(p, i, False)
            report["timed"] += 1
        if i % EVERY == 0:
            check_consoles(p)
            print(f"at {i} of {step}: {report}")
    check_consoles(p)


def check_failover(p):
    p.take_over()
    before, end = p.pvm.counted(), time.monotonic() + 30 * qemu.SLOWER
    while p.pvm.counted() < before + 3:
        assert time.monotonic() < end, "the SVM does not go on"
        time.sleep(0.1)
    assert p.pvm.nic.clocks(7, 5 * qemu.SLOWER), "the SVM does not answer on its NIC"
    check_consoles(p)


def wait_for_checks(p):
    """The guest's own checks are under way."""
    for word in ("clocksource kvm-clock", "fpu: ", "clock: CPU"):
        p.pvm.wait_console(word)


def median_ms(rows, key):
    return round(statistics.median(r[key] for r in rows) / 1e6, 2) if rows else None


def run(o, report):
    with pairs.Pair(os.path.abspath(o.agent), o.guest, o.machine, o.driver, mem=RAM_MIB, smp=o.vcpus,
                    append=LOAD) as p:
        try:
            p.boot()
            p.protect()
            print("at protected: RAM is equal after seeding")
            check_checkpoints(p, o.hashed, o.timed, report)
            report["clocks_us"] = clock_differences(p, 5)
            wait_for_checks(p)
            check_failover(p)
            p.protect()
            check_checkpoints(p, o.hashed // 10, o.timed // 10, report)
            check_failover(p)
            report["pause_ms"], report["apply_ms"] = median_ms(p.pauses, "pause"), median_ms(p.applies, "total")
        except BaseException:
            for v in (*p.ended, p.pvm, p.svm):
                if v:
                    print(f"--- {v.name}\n{v.console()[-1500:]}\n{open(v.errors, encoding='utf-8').read()[-800:]}")
            raise


def clock_differences(p, n):
    """[(by how many us the SVM's clock is ahead of the PVM's after a checkpoint, that may be off by)]"""
    found, ids = [], itertools.count(1000)  # no number twice: a late answer may come, even from the other VM
    for _ in range(n):
        p.checkpoint()
        best = []
        for v in (p.pvm, p.svm):
            read = [m for m in (v.nic.clocks(next(ids), 1) for _ in range(READINGS)) if m]
            if read:
                best.append(min(read, key=lambda m: m[3]))
        if len(best) == 2:
            (h1, c1, _, r1), (h2, c2, _, r2) = best
            found.append((((c2 - h2) - (c1 - h1)) // 1000, (r1 + r2) // 2000))
    return found


def main():
    p = argparse.ArgumentParser()
    p.add_argument("agent")
    p.add_argument("guest")
    p.add_argument("--machine", default="pc")
    p.add_argument("--vcpus", type=int, default=1)
    p.add_argument("--driver", default="direct")
    p.add_argument("--hashed", type=int, default=100)
    p.add_argument("--timed", type=int, default=100)
    o = p.parse_args()
    report = {"machine": o.machine, "vcpus": o.vcpus, "driver": o.driver, "hashed": 0, "timed": 0}
    begin = time.monotonic()
    try:
        run(o, report)
    finally:
        report["seconds"] = round(time.monotonic() - begin)
        print(json.dumps(report))


if __name__ == "__main__":
    main()
