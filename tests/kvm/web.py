#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The real daemons under KVM, a host each in the lab: a web server is protected, fails over, and is taken back.

Runs inside the nested machine. One HTTP connection and one echo session must outlive the primary's power loss;
all RAM is hashed on both hosts before it and after the return. The last line is the result in JSON.
"""
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "pair"))
import pairlab  # noqa: E402

HASHED = 5
SLOW = ["peer.heartbeat=1s", "peer.misses=8"]  # two hosts, a client and an arbiter share two emulated CPUs


class Web:
    def __init__(self, pair):
        self.pair = pair
        self.files = {name: f"/run/colo-lab/{pair.name}/{name}" for name in ("web", "echo")}
        self.hashed = 0

    def account(self, name):
        with open(self.files[name], encoding="ascii") as file:
            found = json.load(file)
        assert not found["error"], f"{name}: {found}"
        return found.get("requests", found.get("answers"))

    def start_loads(self):
        load = os.path.join(os.path.dirname(HERE), "pair", "echo_load.py")
        self.pair.load(sys.executable, os.path.join(HERE, "web_load.py"), self.pair.ip, self.files["web"])
        self.pair.load(sys.executable, load, self.pair.ip, self.files["echo"])
        for path in self.files.values():
            self.pair.wait("the first answers", lambda path=path: os.path.exists(path), 60)

    def go_on(self, limit):
        """Both connections live: more is answered than before."""
        for name in self.files:
            before = self.account(name)
            self.pair.wait(f"more answers ({name})", lambda name=name, before=before: self.account(name) > before + 2,
                           limit)

    def status(self, host):
        return self.pair.status(host) or {}

    def protected(self, limit):
        self.pair.wait("protection", lambda: all(self.status(h).get("state") == "protected" for h in "ab"), limit)

    def check_ram(self, host):
        for _ in range(HASHED):
            before = self.status(host)["verified"]["checked"]
            self.pair.colo(host, "checkpoint", "--verify")
            self.pair.wait("a hashed checkpoint",
                           lambda before=before: self.status(host)["verified"]["checked"] > before, 60)
        verified = self.status(host)["verified"]
        assert verified["mismatched"] == 0, f"RAM differs: {verified}"
        self.hashed += HASHED

    def failover(self):
        begin = time.monotonic()
        self.pair.lab("kill", "a")
        self.pair.wait("the takeover", lambda: self.status("b").get("role") == "primary", 60)
        self.go_on(90)
        return round(time.monotonic() - begin, 1)


def accelerator(pair):
    """What the primary's QEMU really runs with."""
    for pid in pair.pids("a", "qemu-system-x86"):
        with open(f"/proc/{pid}/cmdline", encoding="ascii", errors="replace") as file:
            words = file.read().split("\0")
        if "-accel" in words:
            return words[words.index("-accel") + 1]
    return None


def run(pair, report):
    web = Web(pair)
    assert str(accelerator(pair)).startswith("kvm"), f"QEMU runs with {accelerator(pair)}"
    report["driver"] = web.status("a")["qemu"]["driver"]
    web.start_loads()
    web.go_on(60)
    web.check_ram("a")
    report["failover_s"] = web.failover()
    pair.lab("start", "a", timeout=120)
    web.protected(180)
    web.check_ram("b")
    web.go_on(60)
    report["requests"], report["answers"] = web.account("web"), web.account("echo")
    report["hashed"] = web.hashed


def main():
    sets = [word for s in ["vm.accel=kvm", *SLOW] for word in ("--set", s)]
    report = {}
    with pairlab.Pair("kvm", "--mem", "256M", "--share-cpus", "--timeout", "240", *sets) as pair:
        try:
            run(pair, report)
        except BaseException:
            pair.tell(60)
            raise
    print(json.dumps(report))


if __name__ == "__main__":
    main()
