#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Real applications, all at once, across a power loss of the primary's host; every byte checked.

The guest boots unprotected, two connections are opened, then the secondary comes. When every workload
is under way (clients.py) host a loses power. Exit status 1 for any lost or wrong answer, any connection
that broke, any workload that was not under way at the failure. Result: a table, and build/apps.json.
"""
import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(ROOT, "demo"), os.path.join(ROOT, "lab")]

import checks  # noqa: E402  pylint: disable=wrong-import-position
from labctl import Lab, LabError, group_kill  # noqa: E402  pylint: disable=wrong-import-position
from labkit import net, state  # noqa: E402  pylint: disable=wrong-import-position

CLIENTS = os.path.join(ROOT, "tests", "apps", "clients.py")
EVENT_LIMIT = 150   # more than GRACE in work.py and the duration
WAIT_LIMIT = 120


class Program:
    """A program on the client, and the events it reports as lines of JSON."""

    def __init__(self, lab, path, *args):
        read, self.input = os.pipe()
        self.child = lab.start("exec", "client", "--", sys.executable, "-B", path, *args,
                               stdin=read, stdout=subprocess.PIPE)
        os.close(read)
        self.events = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self.events.put(json.loads(line))
        self.events.put({"event": "end"})

    def go(self):
        """Let it load the guest."""
        os.write(self.input, b"go\n")

    def wait(self, kind):
        """The event, which must be the next."""
        try:
            event = self.events.get(timeout=EVENT_LIMIT)
        except queue.Empty as late:
            raise LabError(f"the clients did not come to `{kind}` in {EVENT_LIMIT} s") from late
        if event["event"] != kind:
            raise LabError(f"the clients ended before `{kind}` (their messages are above)")
        return event


def addresses(lab):
    """What clients.py needs to know."""
    data = state.Lab(lab.name).data
    return ["--ip", data["ips"][0], "--ip6", data["ip6s"][0], "--client6", net.CLIENT6,
            "--client", data["addresses"]["client"], "--key", data["image"]["ssh_key"]]


def wait_alone(lab, host):
    """The survivor's status, when it serves alone."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        status = lab.status()[host]
        if status and status.get("state") == "alone":
            return status
        time.sleep(0.1)
    raise LabError(f"host {host} does not serve alone")


def fail(lab):
    """Power loss of host a: (the primary's status before it, its time, the survivor's status)."""
    before = lab.status()["a"]
    at = time.monotonic()
    lab.call("kill", "a")
    return before, at, wait_alone(lab, "b")


def run(lab, options):
    """One run: the content of build/apps.json."""
    lab.up("colo", options.mem, options.vcpus, ["--alone"])
    program = Program(lab, CLIENTS, *addresses(lab), "--duration", str(options.duration),
                      "--seed", str(options.seed))
    try:
        program.wait("ready")
        lab.call("start", "b")
        lab.call("wait", timeout=WAIT_LIMIT, stderr=None)
        program.go()
        program.wait("begin")
        time.sleep(options.duration * 0.4)
        before, at, after = fail(lab)
        workloads = program.wait("result")["workloads"]
    finally:
        group_kill(program.child)
    problems = judge(workloads, before, at)
    problems += checks.kernel_log_check(lab)[1]
    return {"seed": options.seed, "workloads": [shown(w, at) for w in workloads],
            "checkpoints": before["checkpoints"], "pause_us": before["pause_us"],
            "failover": after.get("last_failover"), "net": before.get("net"), "problems": problems}


def judge(workloads, before, at):
    """All that must not be."""
    problems = []
    if before["state"] != "protected":
        problems.append(f"not protected when the failure came, but {before['state']}")
    for w in workloads:
        if w["failures"] or w["broken"]:
            problems.append(f"{w['name']}: {w['failures']} of {w['requests']} failed, "
                            f"{w['broken']} connections broke: {'; '.join(w['notes'][:3])}")
        elif not w["requests"]:
            problems.append(f"{w['name']}: nothing was asked")
        if not w["begin"] < at < w["end"]:
            problems.append(f"{w['name']}: not under way when the failure came")
    return problems


def shown(work, at):
    """A workload as build/apps.json has it: times are relative to the failure."""
    work = dict(work)
    gap_at = work.pop("gap_at")
    work["max_gap_ends_s"] = round(gap_at - at, 2) if gap_at else None
    for key in ("begin", "end"):
        work[key] = round(work[key] - at, 2)
    return work


def table(result):
    """Lines for people."""
    yield f"{'workload':36} {'requests':>8} {'failures':>8} {'broken':>6} {'gap ms':>7}"
    for w in result["workloads"]:
        more = ", ".join(f"{k} {w[k]}" for k in ("alive", "retries", "late") if k in w)
        gap = f"{w['max_gap_ms']:.0f}" if w["max_gap_ms"] else "-"
        yield (f"{w['name']:36} {w['requests']:8} {w['failures']:8} "
               f"{w['broken']:6} {gap:>7}  {more}").rstrip()
    yield f"checkpoints by cause {result['checkpoints']}"
    yield f"failover {result['failover']}"
    for problem in result["problems"]:
        yield f"PROBLEM {problem}"


def main():
    """Boot, load, fail, judge; the lab is stopped whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="apps", help="name of the lab")
    parser.add_argument("--duration", type=int, default=16, help="seconds of load")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100000)
    parser.add_argument("--mem")
    parser.add_argument("--vcpus", type=int)
    parser.add_argument("--json", default=os.path.join(ROOT, "build", "apps.json"))
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root")
        return 77
    print(f"seed {options.seed}", flush=True)
    lab = Lab(ROOT, options.name)
    with lab.session():
        result = run(lab, options)
    os.makedirs(os.path.dirname(options.json), exist_ok=True)
    with open(options.json, "w", encoding="utf-8") as out:
        json.dump(result, out, indent=1)
    print("\n".join(table(result)))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as err:
        sys.exit(f"PROBLEM {err}")
