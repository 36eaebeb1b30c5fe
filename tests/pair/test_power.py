#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Power losses of the secondary, of the survivor while it writes back, and of both at once, under load.

What was not flushed is gone (lab up --volatile-disks). After each round every acknowledged commit is in the ledger,
PostgreSQL's checksums and indexes are right, and what a power loss would leave of the serving host's disk just
now passes e2fsck. Argument: number of rounds (3). COLO_SEED repeats a run's choices.
"""
import os
import random
import shutil
import subprocess
import sys
import time

import pairlab

SEED = int(os.environ.get("COLO_SEED", int.from_bytes(os.urandom(4), "big")))
AMCHECK = "/usr/lib/postgresql/15/bin/pg_amcheck"
HERE = os.path.dirname(os.path.realpath(__file__))
DISKS = "/var/tmp/colo-lab"
# in short runs, so that it can pause while the database is checked
PGBENCH = "while :; do [ -e $1 ] || pgbench -h $0 -U postgres -n -c2 -T2 bench >/dev/null 2>&1; sleep 0.5; done"
TABLES = ["ledger", "pgbench_branches", "pgbench_tellers", "pgbench_history"]
# what TPC-B keeps equal; reading all of it checks all checksums of pages that are not in memory
SUMS = """select (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers) and
	(select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)"""
OTHER = {"a": "b", "b": "a"}


class Rounds:
    def __init__(self, pair, rng):
        self.pair, self.rng = pair, rng
        self.book = f"/run/colo-lab/{pair.name}/book"
        self.pause = f"/run/colo-lab/{pair.name}/pause"

    def start_load(self):
        script = os.path.join(HERE, "ledger_load.py")
        self.pair.load(sys.executable, script, self.pair.ip, self.book)
        self.pair.load("/bin/sh", "-c", PGBENCH, self.pair.ip, self.pause)
        self.pair.wait("the first commits", lambda: os.path.exists(self.book) and os.path.getsize(self.book), 30)

    def some_time(self, most):
        """A moment that nobody can foresee."""
        time.sleep(self.rng.uniform(0, most))

    def states(self):
        return {host: self.pair.status(host) or {} for host in OTHER}

    def host_in(self, state):
        found = [host for host, status in self.states().items() if status.get("state") == state]
        return found[0] if len(found) == 1 else None

    def primary(self):
        found = [host for host, status in self.states().items() if status.get("role") == "primary"]
        assert len(found) == 1, self.states()
        return found[0]

    def protected(self, limit=120):
        def is_so():
            return all(s.get("state") == "protected" for s in self.states().values())
        self.pair.wait("protection", is_so, limit)

    def database(self):
        """Wait for it: a guest may have to boot and to recover."""
        def answers():
            return "accepting" in self.pair.client("/usr/lib/postgresql/15/bin/pg_isready", "-h", self.pair.ip,
                                                   check=False)
        self.pair.wait("the database", answers, 120)

    def kill(self, *hosts):
        print(f"    power loss of {' and '.join(hosts)}", flush=True)
        self.pair.lab("kill", *hosts)

    def start(self, host):
        print(f"    {host} starts", flush=True)
        self.pair.lab("start", host)

    # ---- the kinds of rounds ----

    def secondary_dies(self):
        primary = self.primary()
        self.some_time(3)
        self.kill(OTHER[primary])
        self.pair.wait("going alone", lambda: self.host_in("alone") == primary, 20)
        self.some_time(2)
        self.start(OTHER[primary])

    def survivor_dies(self):
        primary = self.primary()
        survivor = OTHER[primary]
        self.some_time(3)
        self.kill(primary)
        self.pair.wait("the takeover", lambda: self.host_in("alone") == survivor, 20)
        self.some_time(1)
        self.kill(survivor)
        self.both_start(survivor)

    def both_die(self):
        primary = self.primary()
        self.some_time(3)
        self.kill(*self.rng.sample(["a", "b"], 2))
        # the primary's content counts: clients know of what it alone had acknowledged
        self.both_start(primary)

    def both_start(self, expected):
        for host in self.rng.sample(["a", "b"], 2):
            self.start(host)
            self.some_time(2)
        self.protected()
        assert expected == self.primary(), f"{self.primary()} serves, not {expected}"

    # ---- what must hold ----

    def check_ledger(self):
        done = self.pair.client(sys.executable, os.path.join(HERE, "ledger_load.py"), self.pair.ip, self.book,
                                "--audit", check=False)
        print(f"    ledger {done.strip()}", flush=True)
        assert '"missing": 0' in done, f"acknowledged commits are missing: {done}"

    def psql(self, query):
        return self.pair.client("psql", "-h", self.pair.ip, "-U", "postgres", "-Atc", query, "bench",
                                timeout=120).strip()

    def check_database(self):
        assert self.psql("show data_checksums") == "on"
        assert self.psql(SUMS) == "t", "the TPC-B tables do not agree"
        tables = [word for table in TABLES for word in ("-t", table)]
        self.pair.client(AMCHECK, "-h", self.pair.ip, "-U", "postgres", "--heapallindexed", *tables, "bench",
                         timeout=120)
        found = self.psql("select coalesce(sum(checksum_failures), 0) from pg_stat_database")
        assert found == "0", f"{found} pages with wrong checksums"

    def check_disk(self, host):
        """The disk as a power loss at this moment would leave it: a copy, taken while the disk manager stands still."""
        disk = f"{DISKS}/{self.pair.name}/{host}/disk.raw"
        copy = f"{DISKS}/{self.pair.name}/copy.raw"
        pids = self.pair.pids(host, "nbdkit")
        assert pids, f"no disk manager on {host}"
        try:
            for pid in pids:
                os.kill(pid, 19)
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", disk, copy], check=True)
        finally:
            for pid in pids:
                os.kill(pid, 18)
        tool = shutil.which("e2fsck", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        replay = subprocess.run([tool, "-E", "journal_only", "-y", copy], capture_output=True, text=True, check=False)
        check = subprocess.run([tool, "-f", "-n", copy], capture_output=True, text=True, check=False)
        os.unlink(copy)
        assert replay.returncode in (0, 1) and check.returncode == 0, \
            f"e2fsck: {replay.stdout[-500:]} {check.stdout[-1500:]}"

    def check(self):
        self.protected()
        self.database()
        with open(self.pause, "w", encoding="ascii"):
            self.check_ledger()
            self.check_database()
            self.check_disk(self.primary())
        os.unlink(self.pause)

    def run(self, count):
        kinds = [self.secondary_dies, self.survivor_dies, self.both_die]
        for n in range(count):
            kind = kinds[n % 3] if n < 3 else self.rng.choice(kinds)
            begin = time.monotonic()
            print(f"round {n + 1}: {kind.__name__}", flush=True)
            kind()
            self.check()
            print(f"  well after {time.monotonic() - begin:.1f} s", flush=True)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("seed", SEED, flush=True)
    with pairlab.Pair("power", "--volatile-disks", "--mem", "384M") as pair:
        rounds = Rounds(pair, random.Random(SEED))
        rounds.start_load()
        rounds.run(count)


if __name__ == "__main__":
    main()
