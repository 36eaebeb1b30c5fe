# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive lab/lab from Python. Every call has a time limit; what was started is stopped by pid."""
import json
import os
import signal
import subprocess

UP_TIMEOUT = 240
WAIT_TIMEOUT = 120
CALL_TIMEOUT = 30
STATUS_TIMEOUT = 5
DOWN_TIMEOUT = 60


class LabError(Exception):
    """A call of lab/lab failed; the text says which and why."""


def group_kill(child):
    """End @child and everything in its process group."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


class Lab:
    """One lab, known by its name."""

    def __init__(self, root, name=None):
        self.path = os.path.join(root, "lab", "lab")
        self.name = name

    def arguments(self, verb, *args):
        """The command line of a verb."""
        named = ["--name", self.name] if self.name and verb in ("up",) else []
        return [self.path, verb, *named, *map(str, args)]

    def environment(self):
        """Environment of the calls: the lab's name, if it is not the usual one."""
        return dict(os.environ, **({"LAB_NAME": self.name} if self.name else {}))

    def start(self, verb, *args, **popen):
        """Start a verb and return the process, a group of its own."""
        return subprocess.Popen(self.arguments(verb, *args), stdin=subprocess.DEVNULL, text=True,
                                start_new_session=True, env=self.environment(), **popen)

    def call(self, verb, *args, timeout=CALL_TIMEOUT):
        """Run a verb, return its stdout."""
        what = " ".join(["lab", verb, *map(str, args)])
        child = self.start(verb, *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as late:
            raise LabError(f"{what}: no end after {timeout} s") from late
        finally:
            if child.returncode is None:
                group_kill(child)
        if child.returncode:
            tail = (err.strip() or out.strip())[-800:]
            raise LabError(f"{what}: exit status {child.returncode}: {tail}")
        return out

    def up(self, mode, mem=None, vcpus=None, extra=()):
        """Boot the guest or the pair."""
        args = ["--mode", mode]
        args += ["--mem", mem] if mem else []
        args += ["--vcpus", vcpus] if vcpus else []
        self.call("up", *args, *extra, timeout=UP_TIMEOUT)

    def wait_protected(self):
        """Wait until the pair is protected."""
        self.call("wait", "--state", "protected", "--timeout", WAIT_TIMEOUT,
                  timeout=WAIT_TIMEOUT + 10)

    def addresses(self):
        """Addresses of the guests."""
        found = self.call("ip").split()
        if not found:
            raise LabError("lab ip: no guest has an address")
        return found

    def status(self):
        """{"a": status or None, "b": ...}; both None when it cannot be had."""
        try:
            return json.loads(self.call("status", "--json", timeout=STATUS_TIMEOUT))
        except (LabError, ValueError):
            return {"a": None, "b": None}

    def down(self):
        """Stop all that the lab runs."""
        self.call("down", timeout=DOWN_TIMEOUT)


def primary_of(status):
    """Name of the host whose daemon says it is the primary, None when none does."""
    for host, state in status.items():
        if isinstance(state, dict) and state.get("role") == "primary":
            return host
    return None
