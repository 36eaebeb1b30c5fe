#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`colo run` as two processes: what the supervisor starts again, and what it does not.

Usage: test_supervise.py COLO [NAME...]   (NAME: a part of the names of the tests to run)
Needs root; runs in a network namespace of its own.
"""
import os
import re
import signal
import subprocess
import sys
import time

from colonode import Failure, Node, World, run_tests, wait_for

FAST = {("host a", "watchdog"): "2s"}


class Supervised(Node):
    """A node with its supervisor, which is the process that was started."""

    def start(self, *options, prefix=()):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*prefix, *self.command("run"), *options], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        return self

    def pids(self):
        """Of the daemon and all it has started."""
        pid = self.status()["pid"]
        return {"colo": pid["colo"], "qemu": pid["qemu"], "disk": pid["disk"]}

    def wait_serving(self, former=None, seconds=20):
        """The daemon's processes, once it serves; not @former."""
        def look():
            try:
                status = self.status()
            except (Failure, subprocess.TimeoutExpired):
                return None
            return status["state"] == "alone" and (not former or status["pid"]["colo"] != former) and status
        status = wait_for("the node serves", look, seconds)
        self.assert_guest_runs()
        if status["pid"]["supervisor"] != self.process.pid:
            raise Failure(f"supervisor {status['pid']['supervisor']}, started was {self.process.pid}")
        return self.pids()


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_gone(pids, seconds=5):
    wait_for(f"{pids} are gone", lambda: all(gone(p) for p in pids.values()), seconds)


def test_refusal_is_final(node):
    """A mistake is told once, and is the last line."""
    for settings, want in (({("vm", "qemu"): "/nonexistent/qemu"}, "/nonexistent/qemu: No such file"),
                           ({("host a", "disk"): "/nonexistent/web.img"}, "/nonexistent/web.img"),
                           ({("host a", "address"): "192.0.2.1", ("tls", "mode"): "off"}, "cannot listen on 192.0.2.1"),
                           ({("net", "bridge"): "br77"}, "cannot put colo0 into bridge 'br77'")):
        a = node(settings).start()
        status = a.wait_end(20)
        last = a.log().splitlines()[-1]
        if status != 1 or want not in last:
            raise Failure(f"{settings}: status {status}, last line: {last}")


def test_killed_daemon_returns(node):
    """Again and again, each time later; with all that died with it."""
    a = node().start()
    first = a.wait_serving()
    os.kill(first["colo"], signal.SIGKILL)
    second = a.wait_serving(first["colo"])
    wait_gone(first)
    os.kill(second["colo"], signal.SIGKILL)
    a.wait_serving(second["colo"])
    delays = re.findall(r"was ended by signal 9 .*started again in (\S+) s", a.log())
    if delays != ["0.5", "1.0"]:
        raise Failure(f"started again after {delays}")


def test_killed_qemu_returns(node):
    a = node().start()
    first = a.wait_serving()
    os.kill(first["qemu"], signal.SIGKILL)
    if a.wait_serving(first["colo"])["qemu"] == first["qemu"]:
        raise Failure("the same QEMU")


def test_stopped_daemon_is_replaced(node):
    a = node(FAST).start()
    first = a.wait_serving()
    begin = time.monotonic()
    os.kill(first["colo"], signal.SIGSTOP)
    a.wait_serving(first["colo"])
    wait_gone(first)
    if "has done nothing for 2 s: killed" not in a.log():
        raise Failure("no word of the watchdog")
    print(f"  back after {time.monotonic() - begin:.1f} s")


def test_stopped_host_is_none_of_it(node):
    """Supervisor and daemon stood still together, as a host does that was suspended: nobody is killed."""
    a = node(FAST).start()
    first = a.wait_serving()
    both = (first["colo"], a.process.pid)
    for pid in both:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4) # that is the event: longer than the watchdog's limit
    for pid in both:
        os.kill(pid, signal.SIGCONT)
    a.wait_log("") # it lives
    time.sleep(1.5) # a turn of the supervisor in which it could err
    if a.pids() != first:
        raise Failure("another daemon")


def test_stop_is_passed_on(node):
    for sign in (signal.SIGTERM, signal.SIGINT):
        a = node().start()
        pids = a.wait_serving()
        a.process.send_signal(sign)
        if a.wait_end() != 0:
            raise Failure(f"ended with {a.process.returncode}")
        wait_gone(pids)


def test_stop_while_waiting(node):
    a = node().start()
    os.kill(a.wait_serving()["colo"], signal.SIGKILL)
    a.wait_log("started again in")
    a.process.send_signal(signal.SIGTERM)
    if a.wait_end(2) != 0:
        raise Failure(f"ended with {a.process.returncode}")


def test_operators_stop(node):
    a = node().start()
    a.wait_serving()
    subprocess.run(a.command("stop"), check=True, timeout=5)
    if a.wait_end() != 0:
        raise Failure(f"ended with {a.process.returncode}")


def test_supervisor_takes_all_along(node):
    a = node().start()
    pids = a.wait_serving()
    a.process.kill()
    a.process.wait()
    wait_gone(pids)


def test_role_is_for_the_first_start(node):
    a = node().start("--role", "secondary")
    wait_for("a answers", lambda: "waiting for b" in a.log())
    first = a.status()["pid"]["colo"]
    os.kill(first, signal.SIGKILL)
    a.wait_serving(first) # disks that nobody ran on, and a is the configured primary


def test_once(node):
    a = node().start("--once")
    a.wait_log("the guest runs")
    if a.status()["pid"]["supervisor"] != 0 or a.pids()["colo"] != a.process.pid:
        raise Failure("there is a supervisor")
    os.kill(a.pids()["qemu"], signal.SIGKILL)
    if a.wait_end() != 1:
        raise Failure(f"ended with {a.process.returncode}")


class Nodes(World):
    """One node at a time: each is made by a call, and ends the one before."""

    def __call__(self, settings=None):
        self.end()
        return self.add(Supervised(self.colo, self.base, "a", settings))


if __name__ == "__main__":
    sys.exit(run_tests(globals(), Nodes))
