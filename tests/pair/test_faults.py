#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that fail under load: the secondary's is full, differs, is slow; the primary's fails.

fault_shim.c plays the disks. Usage: test_faults.py
"""
import json
import os
import subprocess
import sys

from pairlab import COLO, LAB, ROOT, Pair

SHIM = os.environ.get("COLO_FAULT_SHIM") or os.path.join(os.path.dirname(COLO), "tests", "pair", "fault_shim.so")
MB = 1 << 20
CACHE = 32 * MB


def write_nbdkit(path, name):
    """What the daemons start as nbdkit: with the shim, which looks at its own host's switch."""
    with open(path, "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\nhost=${COLO_LAB_HOST##*/}\n"
                f"export FAULT_SWITCH={path}.$host FAULT_DIR=/var/tmp/colo-lab/{name}/$host/\n"
                f"export LD_PRELOAD={SHIM}\nexec nbdkit \"$@\"\n")
    os.chmod(path, 0o755)


class FaultPair(Pair):
    """A pair whose disks do as the switches say."""

    def __init__(self, name):
        self.nbdkit = f"/run/colo-fault-{name}"
        write_nbdkit(self.nbdkit, name)
        super().__init__(name, "--set", f"vm.nbdkit={self.nbdkit}", "--set", f"disk.cache-max={CACHE >> 20}M")

    def __exit__(self, *args):
        super().__exit__(*args)
        for host in "a", "b":
            self.fault(host, None)
        for path in self.nbdkit, f"{self.nbdkit}.book":
            if os.path.exists(path):
                os.unlink(path)

    def fault(self, host, word):
        path = f"{self.nbdkit}.{host}"
        if word:
            with open(path, "w", encoding="utf-8") as f:
                f.write(word + "\n")
        elif os.path.exists(path):
            os.unlink(path)

    def state(self, host):
        status = self.status(host)
        return status and status["state"]

    def write_in_guest(self, megabytes, name):
        """A file on the guest's disk; seconds it took until it was stable."""
        return self.ssh("s=$(date +%s%N); dd if=/dev/urandom of=/root/" + name + f" bs=1M count={megabytes} "
                        "conv=fsync 2>/dev/null; e=$(date +%s%N); rm /root/" + name + "; echo $(((e - s) / 1000000))")

    def protected(self, limit=60):
        self.wait("protection", lambda: self.state("a") == "protected" == self.state("b"), limit)


class Clients:
    """The demonstration's clients, with their ledger of acknowledged commits."""

    def __init__(self, pair, seconds):
        self.process = pair.load(sys.executable, os.path.join(ROOT, "demo", "clients"), "--ip", pair.ip,
                                 "--duration", str(seconds), "--book", f"{pair.nbdkit}.book")
        self.event("begin")

    def event(self, name):
        for line in self.process.stdout:
            event = json.loads(line) if line.startswith("{") else {"event": "note", "text": line}
            if event["event"] == name:
                return event
            if event["event"] in ("error", "note"):
                print(event["text"].rstrip())
        raise AssertionError(f"the clients ended before they said {name}")

    def judge(self):
        result = self.event("result")
        ledger, problems = result["ledger"], result["problems"]
        lost = [w for w in result["workloads"] if w["failures"] or w["broken"]]
        assert ledger["acknowledged"] > 10 and not ledger["missing"] and not ledger.get("duplicates"), ledger
        assert not lost and not problems, (lost, problems)
        gap = max(w["max_gap_ms"] for w in result["workloads"])
        print(f"  {ledger['acknowledged']} commits acknowledged, none missing, longest gap {gap:.0f} ms")


def alarms(status):
    return [a["text"] for a in status["alarms"]]


def ended(status, pid):
    """Is this daemon no more? (There may be the next one.)"""
    return status is None or status["pid"]["colo"] != pid


def secondary_full(p):
    """Protection is lost with an alarm, service goes on; mended, the secondary comes back by itself."""
    former = p.status("b")["pid"]["colo"]
    clients = Clients(p, 8)
    p.fault("b", "ENOSPC")
    p.ssh("dd if=/dev/urandom of=/root/full bs=1M count=8 conv=fsync 2>/dev/null")
    p.wait("the primary goes on alone", lambda: p.state("a") == "alone", 20)
    p.wait("the secondary's end", lambda: ended(p.status("b"), former), 10)
    said = alarms(p.status("a"))
    assert len(said) == 1 and "No space left on device" in said[0], said
    print(f"secondary full: {said[0]}")
    clients.judge()
    p.fault("b", None)
    p.protected()
    assert alarms(p.status("a")) == [], p.status("a")["alarms"]
    moved = p.status("a")["disks"][0]["sync"]["moved"]
    print(f"secondary mended: protected again, {moved / MB:.1f} MiB moved")


def verify(p, *options, host="a"):
    """colo verify: (exit status, what it printed)"""
    config = f"/run/colo-lab/{p.name}/colo.conf"
    done = subprocess.run([LAB, "exec", "--name", p.name, host, "--", COLO, "verify", *options, "--node", host,
                           config], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def disks_differ(p):
    """What somebody changed on the secondary's disk is found, said, and repaired."""
    disk = f"/var/tmp/colo-lab/{p.name}/b/disk.raw"
    with open(disk, "r+b") as f:
        f.seek(-MB, os.SEEK_END)
        before = f.read(4096)
        f.seek(-4096, os.SEEK_CUR)
        f.write(bytes(b ^ 0xff for b in before))
    status, said = verify(p)
    assert status == 1 and "4096 of" in said, (status, said)
    print(f"disks differ: {said.strip()}")
    assert any("differ" in text for text in alarms(p.status("a"))), p.status("a")["alarms"]
    status, said = verify(p, "--repair")
    assert status == 0 and "4096 repaired" in said, (status, said)
    assert alarms(p.status("a")) == []
    before_epoch = p.status("b")["epoch"]
    p.colo("a", "checkpoint")
    p.wait("a checkpoint", lambda: p.status("b")["epoch"] > before_epoch, 10)
    with open(disk, "rb") as f:
        f.seek(-MB, os.SEEK_END)
        assert f.read(4096) == before
    print(f"repaired: {said.strip()}")
    assert verify(p, host="b")[0] == 2 # only the primary can


def secondary_slow(p):
    """Back-pressure, no more memory than said, and all is as before when the disk is fast again."""
    p.fault("b", "SLOW")
    p.ssh("dd if=/dev/urandom of=/root/slow bs=1M count=48 conv=fsync 2>/dev/null & "
          "sleep 6; kill $! 2>/dev/null; true")
    used = [p.status(h)["disks"][0]["memory_bytes"] for h in ("a", "b")]
    print(f"secondary slow: {used[0] / MB:.1f} and {used[1] / MB:.1f} MiB of memory in use")
    assert max(used) <= 2 * CACHE + 8 * MB, used  # each of two caches, and what is on its way
    assert p.state("a") == "protected", p.state("a")
    p.fault("b", None)
    took = int(p.write_in_guest(16, "fast"))
    print(f"secondary fast again: 16 MiB stable in the guest after {took} ms")
    assert p.state("a") == "protected"


def primary_fails(p):
    """The secondary takes over; the guest sees no error, and no client loses anything."""
    former = p.status("a")["pid"]["colo"]
    clients = Clients(p, 10)
    p.ssh("(while sleep 0.2; do dd if=/dev/urandom of=/root/load bs=64k count=16 conv=fsync; done) >/dev/null 2>&1 &")
    p.fault("a", "EIO")
    p.wait("takeover", lambda: (lambda s: s and s["role"] == "primary" and s["state"] == "alone")(p.status("b")), 20)
    p.wait("the former primary's end", lambda: ended(p.status("a"), former), 15)
    status = p.status("b")
    assert status["last_failover"]["cause"] == "disk-failed", status["last_failover"]
    clients.judge()
    log = p.ssh("dmesg")
    bad = [l for l in log.splitlines() if "I/O error" in l or "EXT4-fs error" in l or "Remounting" in l]
    assert not bad, bad[:3]
    print(f"primary's disk failed: serving after {status['last_failover']['total_ms']:.0f} ms, "
          "no error in the guest's log")


def main():
    with FaultPair("faults") as p:
        secondary_full(p)
        disks_differ(p)
        secondary_slow(p)
        primary_fails(p)
    print("test_faults: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
