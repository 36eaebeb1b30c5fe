#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""[notify] command: run for each event, in order; one that hangs, fails or is missing harms nobody.

Usage: test_notify.py COLO [NAME...]   Needs root; runs in a network namespace of its own.
"""
import os
import re
import signal
import subprocess
import sys
import time

import test_supervise
from colonode import Failure, run_tests, wait_for
from test_supervise import Nodes

KEYS = ("EVENT VM NODE PEER ROLE STATE FORMER_STATE REASON GENERATION EPOCH").split()


def script(node, body):
    path = os.path.join(node.dir, "hook")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"#!/bin/sh\ncd {node.dir}\n{body}\n")
    os.chmod(path, 0o755)
    return path


def with_hook(node, body, limit="30s"):
    a = node()
    a.write_config({("notify", "command"): script(a, body), ("notify", "limit"): limit}, 7400)
    return a


def events(node):
    """What the script wrote down: [{key: value}]"""
    path = os.path.join(node.dir, "events")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines()
    return [dict(zip(KEYS, line.split("|"))) for line in lines]


NOTE = 'echo "' + "|".join(f"$COLO_{k}" for k in KEYS) + '" >>events'


def test_each_event_in_order(node):
    a = with_hook(node, NOTE)
    a.start()
    first = a.wait_serving()
    os.kill(first["qemu"], signal.SIGKILL)
    a.wait_serving(first["colo"])
    subprocess.run(a.command("stop"), check=True, timeout=5)
    a.wait_end()
    got = [(e["EVENT"], e["FORMER_STATE"], e["STATE"]) for e in events(a)]
    want = [("state", "starting", "alone"), ("state", "alone", "failed"),
            ("state", "starting", "alone"), ("state", "alone", "stopped")]
    if [g for g in got if g[0] == "state"] != want:
        raise Failure(f"events {got}")
    one = events(a)[0]
    if (one["VM"], one["NODE"], one["PEER"], one["ROLE"], one["REASON"], one["EPOCH"]) != (
            "web", "a", "b", "primary", "none", "0") or not one["GENERATION"].isdigit():
        raise Failure(f"{one}")
    logged = re.findall(r"event=state vm=web node=a peer=b role=\w+ state=(\S+) former_state=(\S+) reason=\S+ "
                        r"generation=\d+ epoch=\d+$", a.log(), re.M)
    if [(f, s) for s, f in logged] != [w[1:] for w in want]:
        raise Failure(f"logged {logged}")


def test_one_that_hangs(node):
    """It is killed in the end, and its child with it; nobody waits for it."""
    a = with_hook(node, f"{NOTE}\necho $$ >>pids\nsleep 1000", "2s")
    a.start()
    pids = a.wait_serving()
    wait_for("the hook begins", lambda: events(a))
    begin = time.monotonic()
    a.status()
    if time.monotonic() - begin > 1:
        raise Failure("the daemon is slow while the hook hangs")
    wait_for("the hook is killed", lambda: "has run for 2 s: killed" in a.log(), 10)
    with open(os.path.join(a.dir, "pids"), encoding="utf-8") as f:
        hook = int(f.read())
    wait_for("it is gone", lambda: test_supervise.gone(hook))
    subprocess.run(a.command("stop"), check=True, timeout=5)
    begin = time.monotonic()
    if a.wait_end(15) != 0 or len(events(a)) != 2:
        raise Failure(f"status {a.process.returncode}, events {events(a)}")
    print(f"  the end took {time.monotonic() - begin:.1f} s")
    test_supervise.wait_gone(pids)


def test_one_that_fails(node):
    a = with_hook(node, "exit 3")
    a.start()
    a.wait_serving()
    wait_for("a word of it", lambda: "hook ended with status 3" in a.log())


def test_one_that_is_missing(node):
    a = node()
    for path, want in (("/nonexistent/hook", "[notify] command: /nonexistent/hook: No such file or directory"),
                       ("hook", "[notify] command: 'hook' is no absolute path"),
                       (a.config, f"[notify] command: {a.config}: Permission denied")):
        a.write_config({("notify", "command"): path}, 7400)
        done = subprocess.run(a.command("check"), capture_output=True, text=True, timeout=5, check=False)
        if done.returncode != 1 or want not in done.stderr:
            raise Failure(f"check: {done.returncode} {done.stderr}")
        a.start()
        if a.wait_end() != 1 or want not in a.log().splitlines()[-1]:
            raise Failure("run: " + a.log())


def test_one_that_goes_missing(node):
    """The daemon says so, and lives."""
    a = with_hook(node, NOTE)
    a.start()
    first = a.wait_serving()
    wait_for("the first event", lambda: events(a))
    os.unlink(os.path.join(a.dir, "hook"))
    os.kill(first["qemu"], signal.SIGKILL)
    wait_for("a word of it", lambda: f"{a.dir}/hook: No such file or directory" in a.log())


if __name__ == "__main__":
    sys.exit(run_tests(globals(), Nodes))
