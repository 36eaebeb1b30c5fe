#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of a lone primary that hang: an alarm in time, and its end when they answer again; no word in between.

The guest serves nobody else's clients here: what a pair does is in tests/pair/test_local.py.
Usage: test_watchdog.py COLO [NAME...]   Needs root; runs in a network namespace of its own.
"""
import os
import signal
import socket
import sys
import time

import fds
import test_supervise
from colonode import Failure, run_tests, wait_for
from test_supervise import Nodes

LIMIT = {("vm", "watchdog"): "2s"}
AGENT_FD = 4 # of QEMU, daemon/vm.c


def alarm(a, text):
    return any(text in x["text"] for x in a.status()["alarms"])


def stopped(node, what, text):
    a = node(LIMIT).start()
    pid = a.wait_serving()[what]
    time.sleep(3) # longer than the limit: a part that answers is left in peace
    if "alarm:" in a.log():
        raise Failure("an alarm for nothing")
    begin = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for("the alarm", lambda: alarm(a, text), 10)
        took = time.monotonic() - begin
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("its end", lambda: not a.status()["alarms"], 10)
    a.assert_guest_runs()
    if a.log().count("alarm:") != 1 or not 2 <= took < 6:
        raise Failure(f"after {took:.1f} s; {a.log().count('alarm:')} alarms")
    print(f"  alarm after {took:.1f} s")


def test_qemu_stopped(node):
    stopped(node, "qemu", "its main loop does not answer")


def test_disk_manager_stopped(node):
    stopped(node, "disk", "its disk manager")


def test_end_with_disk_manager_stopped(node):
    """The daemon does not wait for what hangs."""
    a = node(LIMIT).start()
    pids = a.wait_serving()
    os.kill(pids["disk"], signal.SIGSTOP)
    wait_for("the alarm", lambda: alarm(a, "its disk manager"), 10)
    a.process.send_signal(signal.SIGTERM)
    if a.wait_end(5) != 0:
        raise Failure(f"ended with {a.process.returncode}")
    test_supervise.wait_gone(pids)


def test_agent_cut_off(node):
    """It is told at once, and stays: such a QEMU cannot be protected any more."""
    a = node().start()
    begin = time.monotonic()
    with socket.socket(fileno=fds.take(a.wait_serving()["qemu"], AGENT_FD)) as agent:
        begin = time.monotonic()
        agent.shutdown(socket.SHUT_RDWR)
    wait_for("the alarm", lambda: alarm(a, "the agent in it has ended"), 10)
    if time.monotonic() - begin > 1:
        raise Failure(f"after {time.monotonic() - begin:.1f} s")
    a.assert_guest_runs()


def cpu_of(pid):
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_descriptors(node):
    """A daemon that gets none any more goes on, says so, and does not spin."""
    a = node().start()
    pid = a.wait_serving()["colo"]
    with fds.shortage(pid) as free:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(free + 2)]
        for c in clients:
            c.connect(os.path.join(a.state_dir, "colo.sock"))
        wait_for("a word of it", lambda: "connections cannot be accepted: Too many open files" in a.log())
        begin, cpu = time.monotonic(), cpu_of(pid)
        time.sleep(2) # in which one that spins would
        share = (cpu_of(pid) - cpu) / (time.monotonic() - begin)
        a.assert_guest_runs()
        for c in clients:
            c.close()
    wait_for("the alarm's end", lambda: "mended: connections" in a.log())
    if a.pids()["colo"] != pid or share > 0.3:
        raise Failure(f"{share:.2f} of a CPU used")


if __name__ == "__main__":
    sys.exit(run_tests(globals(), Nodes))
