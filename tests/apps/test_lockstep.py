#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that opens 100 outgoing connections a second stays in lock-step: it costs few checkpoints.

Two programs of the guest open them. The two VMs choose different source ports (the guest's kernel skips
some at random), initial sequence numbers and orders; the data plane pairs the connections. Every byte
that the guest fetches is checked there. Exit status 1 when anything was lost or wrong, or checkpoints
by cause mismatch and missing were more than LIMIT.
"""
import argparse
import json
import os
import sys

from objects import PORT
from test_apps import EVENT_LIMIT, ROOT, Lab, LabError, Program, addresses

PROGRAMS, RATE, SECONDS, BYTES = 2, 50, 10, 4096
LIMIT = 10          # for 1000 connections; the ssh session that starts them costs one or two
SERVER = os.path.join(ROOT, "tests", "apps", "objects.py")


def causes(lab):
    """Checkpoints by cause up to now."""
    return dict(lab.status()["a"]["checkpoints"]["by_cause"])


def fetch(lab, address):
    """What the programs of the guest found, added up."""
    one = f"colo-guest-fetch {address} {PORT} {RATE} {SECONDS} {BYTES} & "
    lines = lab.call("ssh", one * PROGRAMS + "wait", timeout=EVENT_LIMIT).splitlines()
    found = [json.loads(line) for line in lines]
    return {key: (max if key == "longest_ms" else sum)(f[key] for f in found) for key in found[0]}


def run(lab):
    """(what the guest found, checkpoints by cause meanwhile), each for IPv4 and IPv6."""
    results = {}
    where = addresses(lab)
    clients = dict(zip(where[::2], where[1::2]))
    for family, address in (("IPv4", clients["--client"]), ("IPv6", clients["--client6"])):
        before = causes(lab)
        found = fetch(lab, address)
        results[family] = found, {k: v - before[k] for k, v in causes(lab).items()}
    return results


def judge(found, caused):
    """All that must not be."""
    problems = []
    if found["right"] != found["connections"] or found["connections"] != PROGRAMS * RATE * SECONDS:
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
        for family, (found, caused) in run(lab).items():
            print(f"{family}: {found}\n      checkpoints by cause {caused}")
            problems += [f"{family}: {p}" for p in judge(found, caused)]
    print("\n".join(f"PROBLEM {p}" for p in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as err:
        sys.exit(f"PROBLEM {err}")
