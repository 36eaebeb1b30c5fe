#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""One cell of the matrix: a pair of one QEMU, machine type, number of vCPUs and driver, under load.

Two of three checkpoints are hashed: all RAM of both VMs must be equal. The ones between are timed. The guest
(tests/agent/guest.c) checks its memory, code that it rewrites, its registers, its clocks, and a disk that two
of this project's disk managers replicate. Then the PVM is killed, and the SVM must go on with all of it.

The result is one object in JSON, on the last line. Exit status 77: something that is needed is not there.
"""
import argparse
import errno
import json
import os
import random
import socket
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for part in "agent", "disk":
    sys.path.insert(0, os.path.join(os.path.dirname(HERE), part))
os.environ.setdefault("SLOWER", "3")  # a boot on a busy machine; vm.py reads it
import disklib  # noqa: E402
import kernel  # noqa: E402
import pair as pairs  # noqa: E402
import vm as qemu  # noqa: E402

DISK = 8 << 20
RAM_MIB = 256
LOAD = "dirty_mib=32 dirty_pages=200 dirty_ms=4"
SIGNS = "CORRUPT", "BUG", "panic", "Oops", "stall", "segfault"
NEEDED = "fpu: avx", "clocksource tsc", "disk: written"  # what the guest says about itself


class Fault(Exception):
    """What a cell is there to find; `kind` says which check found it."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class Pair(pairs.Pair):
    """A pair whose VMs have a replicated disk each."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.direct = options.get("driver", "direct") == "direct"
        self.disks = []

    def __exit__(self, *exc):
        super().__exit__(*exc)
        for disk in self.disks:
            disk.process.kill()
            disk.stop()

    def add_disk(self, name):
        path = f"{self.dir.name}/{name}.img"
        with open(path, "wb") as f:
            f.truncate(DISK)
        self.disks.append(disklib.Disk(path))
        return self.disks[-1]

    def vm(self, name, **more):
        disk = self.disks[0 if name == "pvm" else 1]
        with socket.socket(socket.AF_UNIX) as nbd:  # connected here, since the disk manager lets nobody else
            nbd.connect(disk.sock_path)
            extra = ["-blockdev", f"driver=nbd,node-name=disk0,server.type=fd,server.str={nbd.fileno()}",
                     "-device", "virtio-blk-pci,drive=disk0,disable-modern=on,disable-legacy=off"]
            return super().vm(name, disk_fds=[disk.agent.fileno()], fds=[nbd.fileno()], extra=extra, **more)

    def boot(self):
        self.add_disk("a").serve()
        super().boot()
        self.pvm.wait_console("disk: written")

    def protect(self):
        disklib.link(self.disks[0], self.add_disk("b"))
        super().protect()

    def before_apply(self):
        primary, secondary = self.disks
        if secondary.event(disklib.EV_BOUNDARY).epoch != self.epoch:
            raise Fault("disk", f"a boundary that is not epoch {self.epoch}'s")
        if self.direct:  # with standby it stands still
            self.svm.agent.ask(qemu.STOP)
        secondary.ask(disklib.COMMIT, self.epoch)
        primary.events.clear()

    def take_over(self):
        self.pvm.kill()
        self.disks[1].failover()
        super().take_over()


# --- checks ---

def check_consoles(p):
    for v in (*p.ended, p.pvm, p.svm):
        for line in v.console().splitlines() if v else ():
            sign = next((s for s in SIGNS if s in line), None)
            if sign:
                words = line[line.index(sign):].replace(":", " ").split()
                raise Fault("guest " + words[1] if sign == "CORRUPT" and len(words) > 1 else "guest",
                            f"{v.name}: {line.strip()}")


def check_alive(p):
    for v in (p.pvm, p.svm):
        if v and v.process.poll() is not None:
            with open(v.errors, errors="replace", encoding="utf-8") as f:
                said = f.read().strip().splitlines()
            raise Fault("qemu ended", f"{v.name} ended with {v.process.returncode}: {' '.join(said[-1:])}")


def checkpoint(p, i, hashed):
    try:
        a, b = p.checkpoint(hashed=hashed)
    except qemu.Failed as e:
        raise Fault("agent", f"checkpoint {i}: {e}") from e
    except (EOFError, ConnectionError, BrokenPipeError):
        time.sleep(0.2)
        check_alive(p)
        raise
    if hashed and a["hash"] != b["hash"]:
        raise Fault("hash", f"RAM differs after checkpoint {i}: {a} and {b}")
    if a["pages"] != b["applied"]:
        raise Fault("pages", f"checkpoint {i}: {a['pages']} pages harvested, {b['applied']} applied")


def check_checkpoints(p, count, rng, report):
    """@count hashed checkpoints, and half as many that are timed."""
    for i in range(count * 3 // 2):
        time.sleep(rng.uniform(0.005, 0.05))
        checkpoint(p, i, hashed=i % 3 != 2)
        report["hashed"] += i % 3 != 2
        if i % 10 == 0:
            check_consoles(p)


def check_goes_on(v, since, seconds):
    """The guest counts the seconds, and answers on its NIC."""
    end = time.monotonic() + 30
    while v.counted() < since + seconds:
        if v.process.poll() is not None or time.monotonic() > end:
            raise Fault("failover", f"{v.name} does not go on after the failover")
        time.sleep(0.02)
    if not v.nic.clocks(7, 5):
        raise Fault("failover", f"{v.name} does not answer on its NIC after the failover")


def check_failover(p, report):
    before = p.svm.counted()
    start = time.monotonic()
    p.take_over()
    check_goes_on(p.pvm, before, 1)
    report["failover_s"] = round(time.monotonic() - start, 2)
    check_goes_on(p.pvm, before, 4)
    check_consoles(p)


def check_needed(p):
    """The guest does all of the checks that the cell stands for."""
    said = p.pvm.console()
    missing = [s for s in NEEDED if s not in said]
    if missing:
        raise Fault("guest", f"the guest does not say {missing}")


# --- the cell ---

def percentiles(ns):
    us = sorted(n // 1000 for n in ns)
    return {"p50": us[len(us) // 2], "p99": us[len(us) * 99 // 100]} if us else None


def arm(path, name):
    with open(path, "w", encoding="ascii") as f:
        f.write(f"{name} 1 skip\n")


def play(options, report):
    rng = random.Random(options.seed)
    with Pair(options.agent, options.guest, options.machine, smp=options.vcpus, mem=RAM_MIB,
              append=LOAD, **({"driver": options.driver} if options.driver != "direct" else {})) as p:
        try:
            p.boot()
            report["version"] = p.pvm.qmp.ask("query-version")["qemu"]
            p.protect()
            check_needed(p)
            if options.skip:
                arm(os.environ["COLO_FAILPOINT"], options.skip)
            check_checkpoints(p, options.checkpoints, rng, report)
            check_failover(p, report)
        finally:
            report["pause_us"] = percentiles(r["pause"] for r in p.pauses)
            report["svm_us"] = percentiles(r["total"] for r in p.applies)
            report["pages"] = sorted(r["pages"] for r in p.pauses)[len(p.pauses) // 2] if p.pauses else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--agent", required=True)
    add("--guest", required=True, help="program of tests/agent/guest.c")
    add("--machine", default="pc")
    add("--vcpus", type=int, default=1)
    add("--driver", default="direct", choices=("direct", "standby"))
    add("--checkpoints", type=int, default=100, help="hashed ones; half as many are timed")
    add("--skip", help="leave out this step of the SVM's (agent with fail points)")
    add("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    return parser.parse_args()


def main():
    options = parse()
    report = {"seed": options.seed, "hashed": 0, "fault": None, "text": ""}
    try:
        play(options, report)
    except kernel.Missing as e:
        report.update(fault="missing", text=str(e))
    except qemu.Failed as e:
        missing = e.status in (-errno.EOPNOTSUPP, -errno.EPERM)
        report.update(fault="missing" if missing else "agent", text=str(e))
    except Fault as e:
        report.update(fault=e.kind, text=str(e))
    except Exception as e:  # pylint: disable=broad-except - whatever it is, it is this cell's result
        report.update(fault="error", text=f"{type(e).__name__}: {e}")
        sys.excepthook(*sys.exc_info())
    print(json.dumps(report))
    return {None: 0, "missing": 77}.get(report["fault"], 1)


if __name__ == "__main__":
    sys.exit(main())
