#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that opens 100 outgoing connections a second stays in lock-step: it costs few checkpoints.

Initial sequence numbers differ between the VMs, and at times the source ports that their kernels choose.
With `any port` the program chooses the ports itself, of the clock's nanoseconds: no two VMs choose the
same. Every byte that the guest fetches is checked there. Exit status 1 when anything was lost or wrong,
or checkpoints by cause mismatch and missing were more than LIMIT.

One program opens them all. Of two, the VMs may do this one's connection first or that one's, and then the
same port or place in the order carries another request: that differs by nature.
"""
import argparse
import json
import os
import sys

from objects import PORT
from test_apps import EVENT_LIMIT, ROOT, Lab, LabError, Program, addresses

RATE, SECONDS, BYTES = 100, 10, 4096
LIMIT = 20          # for 1000 connections; the ssh session that starts them costs one or two
# name, family, option of colo-guest-fetch
CASES = [("IPv4", "--client", ""), ("IPv6", "--client6", ""),
         ("IPv4, any port", "--client", "any-port"), ("IPv6, any port", "--client6", "any-port")]
SERVER = os.path.join(ROOT, "tests", "apps", "objects.py")


def causes(lab):
    """Checkpoints by cause up to now."""
    return dict(lab.status()["a"]["checkpoints"]["by_cause"])


def fetch(lab, address, option):
    """What the guest found."""
    command = f"colo-guest-fetch {address} {PORT} {RATE} {SECONDS} {BYTES} {option} || true"
    return json.loads(lab.call("ssh", command, timeout=EVENT_LIMIT))


def run(lab):
    """(case, what the guest found, checkpoints by cause meanwhile) of each case."""
    where = addresses(lab)
    clients = dict(zip(where[::2], where[1::2]))
    for name, which, option in CASES:
        before = causes(lab)
        found = fetch(lab, clients[which], option)
        yield name, found, {k: v - before[k] for k, v in causes(lab).items()}


def judge(found, caused):
    """All that must not be."""
    problems = []
    if found["right"] != found["connections"] or found["connections"] != RATE * SECONDS:
        problems.append(f"connections: {found}")
    if caused["mismatch"] + caused["missing"] > LIMIT:
        problems.append(f"{caused['mismatch']} checkpoints by mismatch and {caused['missing']} by a "
                        f"missing answer, at most {LIMIT} together are allowed")
    return problems


def main():
    """Boot, load, judge; the lab is stopped whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="lockstep", help="name of the lab")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root")
        return 77
    lab, problems = Lab(ROOT, options.name), []
    with lab.session():
        lab.up("colo")
        Program(lab, SERVER).wait("ready")
        for name, found, caused in run(lab):
            print(f"{name}: {found}\n      checkpoints by cause {caused}", flush=True)
            problems += [f"{name}: {p}" for p in judge(found, caused)]
    print("\n".join(f"PROBLEM {p}" for p in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as err:
        sys.exit(f"PROBLEM {err}")
