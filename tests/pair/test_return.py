#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The hosts fail in turn, and each comes back to the one that serves, which takes it back by itself.

Under load: an echo session that must outlive every failure of one host, a ledger of acknowledged commits,
pgbench, web. After each return RAM is compared several times, hashed on both hosts. At the end, PostgreSQL's
own checks and e2fsck on what a power loss would leave of the disks.

Arguments: rounds by name (all), or --long N: N of them by chance. COLO_SEED repeats a run's choices.
"""
import json
import os
import random
import sys
import time

import pairlab
from test_power import DISKS, OTHER, SEED, Rounds

HERE = os.path.dirname(os.path.realpath(__file__))
HASHED = 5
SHORT = ["power", "new_host", "vm", "power", "both_gone"]


class Returns(Rounds):
    def __init__(self, pair, rng):
        super().__init__(pair, rng)
        self.echo_file = f"/run/colo-lab/{pair.name}/echo"

    # ---- loads ----

    def start_echo(self):
        if os.path.exists(self.echo_file):
            os.unlink(self.echo_file)
        self.pair.load(sys.executable, os.path.join(HERE, "echo_load.py"), self.pair.ip, self.echo_file)
        self.pair.wait("the echo session", lambda: os.path.exists(self.echo_file), 30)

    def start_all(self):
        self.start_load()
        self.pair.load("wrk", "-t1", "-c4", "-d3600", f"http://{self.pair.ip}/1k")
        self.start_echo()

    def echo(self):
        with open(self.echo_file, encoding="ascii") as file:
            return json.load(file)

    def check_echo(self):
        """The session lives: what is asked now is answered."""
        before = self.echo()
        assert not before["error"], f"the echo session broke: {before}"
        self.pair.wait("the echo session", lambda: self.echo()["answers"] > before["answers"], 20)
        after = self.echo()
        assert not after["error"], f"the echo session broke: {after}"
        print(f"    echo: {after['answers']} answers, longest gap {max(after['gaps'], default=0)} ms", flush=True)

    # ---- what must hold after a return ----

    def verified(self, host):
        return self.pair.status(host)["verified"]

    def check_ram(self):
        host = self.primary()
        for _ in range(HASHED):
            before = self.verified(host)
            self.pair.colo(host, "checkpoint", "--verify")
            self.pair.wait("a hashed checkpoint", lambda: self.verified(host)["checked"] > before["checked"], 20)
        assert self.verified(host)["mismatched"] == 0, "RAM differs after a return"

    def returned(self):
        begin = time.monotonic()
        self.protected()
        print(f"    protected {time.monotonic() - begin:.1f} s later", flush=True)
        self.check_ram()

    def taken_over(self, by):
        def serves():
            status = self.pair.status(by) or {}
            return status.get("role") == "primary" and status.get("last_failover")
        self.pair.wait("the takeover", serves, 20)
        assert self.pair.status(by)["role"] == "primary"

    # ---- rounds ----

    def power(self):
        """Power loss of the primary; it comes back."""
        primary = self.primary()
        self.some_time(2)
        self.kill(primary)
        self.taken_over(OTHER[primary])
        self.some_time(1)
        self.start(primary)
        self.returned()
        self.check_echo()

    def vm(self):
        """The primary's QEMU dies; its host is taken back, by itself where there is a supervisor."""
        primary = self.primary()
        self.some_time(2)
        print(f"    QEMU of {primary} dies", flush=True)
        self.pair.lab("kill-vm", primary)
        self.taken_over(OTHER[primary])
        self.returned()
        self.check_echo()

    def new_host(self):
        """The primary's host is lost for good; another one with an empty disk takes its place."""
        primary = self.primary()
        self.some_time(1)
        self.kill(primary)
        self.taken_over(OTHER[primary])
        where = f"{DISKS}/{self.pair.name}/{primary}"
        size = os.path.getsize(f"{where}/disk.raw")
        os.unlink(f"{where}/disk.raw")
        for name in os.listdir(f"{where}/data"):
            os.unlink(f"{where}/data/{name}")
        with open(f"{where}/disk.raw", "wb") as disk:
            disk.truncate(size)
        self.start(primary)
        self.returned()
        self.check_echo()

    def older_alone(self, older):
        """It says what it knows and which command decides, and does not serve."""
        begin = os.path.getsize(self.log(older))
        self.start(older)
        self.pair.wait(f"{older} to be undecided, or to wait", lambda: self.waits(older, begin), 30)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            status = self.pair.status(older) or {}
            assert status.get("role") != "primary", f"{older} serves an older copy: {status}"
            time.sleep(0.1)

    def log(self, host):
        return f"/run/colo-lab/{self.pair.name}/{host}/colo.log"

    def waits(self, host, begin):
        status = self.pair.status(host) or {}
        if status.get("role") == "secondary":
            return True
        with open(self.log(host), encoding="utf-8", errors="replace") as log:
            log.seek(begin)
            said = log.read().splitlines()
        # it says first that it waits for the arbiter
        return any("undecided: " in line and "--role primary" in line and OTHER[host] in line for line in said)

    def both_gone(self):
        """The survivor goes, too. Whichever starts first, the survivor's content is served."""
        older = self.primary()
        newer = OTHER[older]
        self.kill(older)
        self.taken_over(newer)
        self.some_time(2)
        self.kill(newer)
        if self.rng.random() < 0.5:
            self.start(newer)
            self.some_time(3)
            self.start(older)
        else:
            self.older_alone(older)
            self.start(newer)
        self.returned()
        assert self.primary() == newer, f"{older} serves an older copy"
        self.database()
        self.start_echo()

    def go(self, names):
        for n, name in enumerate(names):
            begin = time.monotonic()
            print(f"round {n + 1}: {name}", flush=True)
            getattr(self, name)()
            self.check_ledger()
            print(f"  well after {time.monotonic() - begin:.1f} s", flush=True)
        self.check()


def main():
    rng = random.Random(SEED)
    names = sys.argv[1:] or SHORT
    if names[0] == "--long":
        names = SHORT + [rng.choice(sorted(set(SHORT))) for _ in range(int(names[1]) - len(SHORT))]
    print("seed", SEED, flush=True)
    with pairlab.Pair("return", "--volatile-disks", "--mem", "384M") as pair:
        rounds = Returns(pair, rng)
        try:
            rounds.start_all()
            rounds.go(names)
        except BaseException:
            pair.tell()
            raise


if __name__ == "__main__":
    main()
