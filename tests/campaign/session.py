# SPDX-License-Identifier: GPL-2.0-or-later
"""One long session of the lab for a campaign: the pair, its loads, the watch on the LAN, and what can be asked of them."""
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "pair"))
sys.path.insert(0, os.path.join(ROOT, "lab"))
import pairlab  # noqa: E402  pylint: disable=wrong-import-position
from labkit import proc, state  # noqa: E402  pylint: disable=wrong-import-position

OTHER = {"a": "b", "b": "a"}
PROGRAMS = {"vm": "qemu-system", "disk": "nbdkit", "daemon": "colo"}


class Violation(Exception):
    """Something happened that must never happen."""


class Talker:
    """A program that answers each line with a line of JSON, and may say more of its own accord."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        self.said = []                  # lines with an `event` that no question asked for
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def answer(self, timeout):
        """The next line that is an answer."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty as err:
                raise Violation(f"{self.process.args[-3:]}: no answer within {timeout} s") from err
            if line is None:
                raise RuntimeError(f"{self.process.args}: has ended")
            if line.get("event") in (None, "watching", "summary"):
                return line
            self.said.append(line)

    def ask(self, question, timeout=20):
        """One question, its answer."""
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self.answer(timeout)

    def stop(self):
        """End it."""
        self.process.kill()
        self.process.wait()


class Session(pairlab.Pair):
    """The pair under load."""

    def __enter__(self):
        subprocess.run([pairlab.LAB, "down", "--name", self.name], timeout=60, check=True)  # what a crash left
        super().__enter__()
        try:
            self.labs = state.Lab(self.name)
            self.watcher = self._talk("watch")
            self.watcher.answer(10)
            self.work = self._talk("exec", "client", "--", sys.executable, os.path.join(HERE, "load.py"), self.ip)
            self.work.answer(90)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _talk(self, verb, *args):
        talker = Talker([pairlab.LAB, verb, "--name", self.name, *args])
        self.loads.append(talker.process)
        return talker

    # ---- what is known ----

    def status(self, host):
        """The daemon's own word, None when it says nothing."""
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(1)
                sock.connect(self.labs.host_file(host, "colo.sock"))
                sock.sendall(b'{"command": "status"}\n')
                with sock.makefile("r") as lines:
                    return json.loads(lines.readline())
        except (OSError, ValueError):
            return None

    def states(self):
        """{host: role and state}"""
        found = {host: self.status(host) for host in OTHER}
        return {host: (s["role"], s["state"]) if s else None for host, s in found.items()}

    def is_protected(self):
        """Do both say so?"""
        return set(self.states().values()) == {("primary", "protected"), ("secondary", "protected")}

    def primary(self):
        """The host that serves."""
        found = [host for host, s in self.states().items() if s and s[0] == "primary" and s[1] != "given-up"]
        if len(found) != 1:
            raise Violation(f"no primary, or two: {self.states()}")
        return found[0]

    def alarms(self, host):
        """What it cannot mend."""
        return [alarm["text"] for alarm in (self.status(host) or {"alarms": []})["alarms"]]

    def log(self, host):
        """What a daemon has written so far."""
        with open(self.labs.host_file(host, "colo.log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    # ---- what can be done to them ----

    def pids(self, host, what):
        """Processes of a host: vm, disk, daemon or all."""
        if what == "daemon":
            answer = self.status(host)
            return [answer["pid"]["colo"]] if answer else []
        found = proc.pids_of(self.labs, host)
        if what == "all":
            return found
        return [pid for pid in found if proc.program_of(pid).startswith(PROGRAMS[what])]

    def stopped(self, host):
        """Processes of a host that stand still."""
        return [pid for pid in self.pids(host, "all") if proc.is_stopped(pid)]

    def signal(self, host, what, number):
        """Send a signal to them; their pids."""
        pids = self.pids(host, what)
        if not pids:
            raise RuntimeError(f"{host}: no {what} runs")
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        return pids

    def stop_all(self, host):
        """The host stands still."""
        return self.signal(host, "all", signal.SIGSTOP)

    def colo(self, host, *args, check=True):
        """A command of colo on a host."""
        config = os.path.join(self.labs.run_dir, "colo.conf")
        return self.lab("exec", host, "--", pairlab.COLO, *args, "--node", host, config, check=check)

    def arm(self, host, point, action, passing=1, ms=300):
        """Let a host fail at a named step."""
        self.lab("failpoint", host, point, action, "--passing", str(passing), "--ms", str(ms))

    def armed(self, host):
        """Is the step still to come?"""
        return os.path.exists(proc.failpoint_file(self.labs, host))

    def disarm(self):
        """No step is armed any more. The hosts on which one was."""
        left = [host for host in OTHER if self.armed(host)]
        for host in left:
            self.lab("failpoint", host, "none")
        return left
