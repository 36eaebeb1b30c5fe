#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The hosts lose each other while both live, with each arbiter: at most one serves, and the other one returns.

A connection sends a line each 2 ms throughout (bench/probe.py), and `lab watch` sees on the LAN who serves.
Usage: test_partition.py [--rounds N] [ARBITER...]: witness, etcd, file, none; default: witness
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time

from pairlab import LAB, ROOT, Pair

sys.path.insert(0, os.path.join(ROOT, "lab"))
from labkit import state  # noqa: E402  pylint: disable=wrong-import-position

NAME = "partition"
OTHER = {"a": "b", "b": "a"}
LATE_S = 10
QUIET_S = 6
PROTECTED_LIMIT = 90


class Talker:
    """A program that answers a line with a line of JSON."""

    def __init__(self, pair, *command):
        self.process = subprocess.Popen([LAB, command[0], "--name", pair.name, *command[1:]], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        pair.loads.append(self.process)
        self.events = []

    def read(self, wanted):
        """The next line that has the key or event @wanted."""
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError("ended: the open connection broke, or the watch did")
            said = json.loads(line)
            if wanted in said or said.get("event") == wanted:
                return said
            self.events.append(said)

    def ask(self, wanted):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read(wanted)


class Partition(Pair):
    """A pair, the watch, the probe."""

    def __enter__(self):
        super().__enter__()
        self.watch = Talker(self, "watch")
        self.watch.read("watching")
        self.probe = Talker(self, "exec", "client", "--", "/usr/bin/python3", os.path.join(ROOT, "bench", "probe.py"), self.ip)
        self.probe.read("ready")
        return self

    def states(self):
        status = json.loads(self.lab("status", "--json"))
        return {host: (status[host] or {}) for host in ("a", "b")}

    def serving(self, states=None):
        """Hosts that serve alone, by their own word."""
        return [h for h, s in (states or self.states()).items() if s.get("role") == "primary" and
                s.get("state") in ("alone", "syncing", "seeding")]

    def primary(self):
        return next(h for h, s in self.states().items() if s.get("role") == "primary")

    def is_protected(self):
        return all(s.get("state") == "protected" for s in self.states().values())

    def protected(self):
        self.wait("protection", self.is_protected, PROTECTED_LIMIT)

    def one_serves(self, limit):
        """Wait until one host serves; then see that the other one does not, for a while."""
        winner = self.wait("a host that serves", self.serving, limit)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert self.serving() == winner, f"{self.serving()} serve, {winner} did"
        return winner[0]

    def nobody_serves(self, seconds):
        """The guest says nothing on the LAN, and both hosts say that they wait."""
        self.wait("claims without an answer",
                  lambda: [s.get("state") for s in self.states().values()] == ["claiming"] * 2, 5)
        self.watch.ask("summary")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            states = self.states()
            assert [s.get("state") for s in states.values()] == ["claiming"] * 2, states
        frames = self.watch.ask("summary")["frames"]
        assert all(s["waits_for"] for s in states.values()), [s["waits_for"] for s in states.values()]
        assert sum(frames.values()) < 20, f"while nobody may serve the guest is heard: {frames}"
        return states

    def heard(self):
        """What the client and the LAN saw since the last time. One server at a time, every byte right."""
        time.sleep(0.1)
        said, summary = self.probe.ask("silences"), self.watch.ask("summary")
        assert not said["wrong"], f"{said['wrong']} of {said['lines']} lines are wrong"
        assert not summary["violation_count"], summary["violations"]
        return max((length for _, length in said["silences"]), default=0.0)

    def report(self, name, kind, before, winner, gap, seconds):
        print(f"{kind:8} {name:28} {before} was primary, {winner} serves; silence {gap * 1000:6.0f} ms; protected "
              f"{seconds:4.1f} s after the link was back", flush=True)

    def back(self):
        self.lab("heal", "replication")
        begin = time.monotonic()
        self.protected()
        return time.monotonic() - begin


def cut(pair, kind):
    """The link goes; one serves, and takes the other one back."""
    before, _ = pair.primary(), pair.heard()
    generation = pair.status(before)["generation"]
    pair.lab("cut", "replication")
    winner = pair.one_serves(15)
    assert pair.status(winner)["generation"] > generation
    gap = pair.heard()
    assert gap < 3, f"{gap:.1f} s without service"
    pair.report("cut", kind, before, winner, gap, pair.back())
    if kind != "none":
        records = {(s["arbiter"]["generation"], s["arbiter"]["owner"]) for s in pair.states().values()}
        assert any(owner == winner for _, owner in records), records


def unreachable(pair, kind):
    """The arbiter is away, too: nobody serves until it is back, then one."""
    before, _ = pair.primary(), pair.heard()
    pair.lab("cut", "arbiter")
    pair.lab("cut", "replication")
    states = pair.nobody_serves(QUIET_S)
    print(f"{kind:8} unanswered: {states['a']['waits_for']}", flush=True)
    pair.lab("heal", "arbiter")
    winner = pair.one_serves(15)
    pair.report("cut, arbiter away", kind, before, winner, pair.heard(), pair.back())


def arbiter_pids(pair):
    return [recorded["pid"] for recorded in state.Lab(pair.name).data["arbiter_main"].values()]


def late(pair, kind):
    """The arbiter's answer comes ten seconds late: as good as an early one."""
    before, _ = pair.primary(), pair.heard()
    for pid in arbiter_pids(pair):
        os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    pair.lab("cut", "replication")
    pair.nobody_serves(LATE_S - 2)
    time.sleep(max(0, LATE_S - (time.monotonic() - begin)))
    for pid in arbiter_pids(pair):
        os.kill(pid, signal.SIGCONT)
    winner = pair.one_serves(20)
    pair.report("cut, answer after 10 s", kind, before, winner, pair.heard(), pair.back())


def witness_dies(pair, kind):
    """The witness is killed with the link, and started again: what it had granted it knows."""
    before, _ = pair.primary(), pair.heard()
    known = pair.status(before)["arbiter"]["generation"]
    for pid in arbiter_pids(pair):
        os.kill(pid, signal.SIGKILL)
    pair.lab("cut", "replication")
    pair.nobody_serves(2)
    pair.lab("start-arbiter")
    winner = pair.one_serves(15)
    assert pair.status(winner)["arbiter"]["generation"] > known
    pair.report("cut, witness killed", kind, before, winner, pair.heard(), pair.back())


def none_cut(pair, kind):
    """Without an arbiter the primary serves on, the secondary waits for the operator; heal: it returns."""
    before, _ = pair.primary(), pair.heard()
    other = OTHER[before]
    pair.lab("cut", "replication")
    assert pair.one_serves(15) == before
    said = pair.status(other)
    assert said["state"] == "claiming" and "failover --force" in said["waits_for"], said
    pair.report("cut", kind, before, before, pair.heard(), pair.back())


def none_power_loss(pair, kind):
    """The primary is off: nobody serves, until the operator says so."""
    before, _ = pair.primary(), pair.heard()
    other = OTHER[before]
    pair.lab("kill", before)
    pair.wait("a claim", lambda: pair.states()[other].get("state") == "claiming", 10)
    deadline = time.monotonic() + QUIET_S
    while time.monotonic() < deadline:
        assert not pair.serving(), "it serves, and nobody said that it may"
    pair.colo(other, "failover", "--force")
    assert pair.one_serves(5) == other
    gap = pair.heard()
    pair.lab("start", before)
    begin = time.monotonic()
    pair.protected()
    pair.report("power loss, --force", kind, before, other, gap, time.monotonic() - begin)


CASES = {"witness": [cut, unreachable, late, witness_dies], "etcd": [cut, unreachable, late],
         "file": [cut, unreachable], "none": [none_cut, none_power_loss]}


def run(kind, rounds):
    with Partition(NAME, "--arbiter", kind) as pair:
        for _ in range(rounds):
            for case in CASES[kind]:
                case(pair, kind)
                pair.heard()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("arbiter", nargs="*")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)) # a time limit clears away, too
    for kind in options.arbiter or ["witness"]:
        run(kind, options.rounds)
    print("test_partition: ok")


if __name__ == "__main__":
    main()
