#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM is the same on both hosts after each checkpoint, under web, database, memory, code and file load.

Then the primary's host loses power, and what the survivor has is looked at: the guest's own checks,
PostgreSQL's (pg_amcheck), the kernel's log, the file system. Arguments: number of checkpoints (200), options of
`lab up`, as for another machine.
"""
import sys

import pairlab

sys.path.insert(0, pairlab.ROOT + "/demo")
import checks  # noqa: E402  pylint: disable=wrong-import-position
from labctl import Lab  # noqa: E402  pylint: disable=wrong-import-position


def verified(pair):
    return pair.status("a")["verified"]


def one_checkpoint(pair, n):
    pair.colo("a", "checkpoint", "--verify")
    result = pair.wait(f"checkpoint {n}", lambda: (lambda v: v if v["checked"] >= n else None)(verified(pair)), 20)
    assert result["mismatched"] == 0, f"RAM differs after checkpoint {n}"


def start_loads(pair):
    url = f"http://{pair.ip}/1k"
    pair.talk(7007, "start mem 32 200 20\nstart code 16 100\nstart file 256 500\n")
    pair.load("wrk", "-t1", "-c4", "-d600", url)
    pair.load("wrk", "-t1", "-c2", "-d600", "-H", "Connection: close", url)
    pair.load("pgbench", "-h", pair.ip, "-U", "postgres", "-n", "-c1", "-T600", "bench")


def guest_found(pair):
    log = pair.talk(7007, "status\nlog\n")
    bad = [l for l in log.splitlines() if "CORRUPT" in l]
    assert not bad, f"the guest's own checks: {bad[:3]}"


def database_checks(pair):
    pair.client("/usr/lib/postgresql/15/bin/pg_amcheck", "-h", pair.ip, "-U", "postgres", "--heapallindexed",
                "bench", timeout=120)


def survivor_checks(pair):
    lab = Lab(pairlab.ROOT, pair.name)
    results, problems = checks.guest_check(lab, "b")
    print(results)
    assert not problems, problems


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with pairlab.Pair("hash", *sys.argv[2:]) as pair:
        start_loads(pair)
        for n in range(1, count + 1):
            one_checkpoint(pair, n)
            if n % 50 == 0:
                guest_found(pair)
                print(f"{n} checkpoints, RAM equal after each", flush=True)
        s = pair.status("a")
        print("checkpoints", s["checkpoints"], "pages p50", s["dirty_pages"]["p50"])
        pair.lab("kill", "a")
        pair.wait("takeover", lambda: pair.status("b")["state"] == "alone", 10)
        guest_found(pair)
        pair.talk(7007, "stop\n")
        database_checks(pair)
        survivor_checks(pair)


if __name__ == "__main__":
    main()
