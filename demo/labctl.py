# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive lab/lab from Python. Every call has a time limit; what was started is stopped by pid."""
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys

UP_TIMEOUT = 240
CALL_TIMEOUT = 30
STATUS_TIMEOUT = 5
DOWN_TIMEOUT = 60
LOCK_DIR = "/run/lock"


class LabError(Exception):
    """A call of lab/lab failed; the text says which and why."""


def interrupted(signum, _frame):
    """A signal ends the program as Ctrl-C does."""
    raise KeyboardInterrupt(signum)


def group_kill(child):
    """End @child and everything in its process group."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


class Lab:
    """One lab, known by its name, for one program at a time."""

    def __init__(self, root, name):
        self.path = os.path.join(root, "lab", "lab")
        self.name = name
        self.environment = dict(os.environ, LAB_NAME=name)
        self.lock = None

    def claim(self):
        """Make sure that no other program uses this lab, and clear away what a crash left of it."""
        self.lock = open(os.path.join(LOCK_DIR, f"colo-lab-{self.name}.lock"), "w",
                         encoding="ascii")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise LabError(f"another program uses the lab '{self.name}' (--name NAME gives this "
                           "one a lab of its own)") from err
        self.down()

    @contextlib.contextmanager
    def session(self):
        """Claim the lab; on the way out, however that happens, stop all that it runs."""
        self.claim()
        signal.signal(signal.SIGTERM, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.down()

    def start(self, verb, *args, **popen):
        """Start a verb and return the process, a group of its own."""
        popen.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([self.path, verb, *map(str, args)], text=True,
                                start_new_session=True, env=self.environment, **popen)

    def call(self, verb, *args, timeout=CALL_TIMEOUT, stderr=subprocess.PIPE):
        """Run a verb, return its stdout. With @stderr None its progress goes to the user."""
        what = " ".join(["lab", verb, *map(str, args)])
        child = self.start(verb, *args, stdout=subprocess.PIPE, stderr=stderr)
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as late:
            raise LabError(f"{what}: no end after {timeout} s") from late
        finally:
            if child.returncode is None:
                group_kill(child)
        if child.returncode:
            tail = (err or out).strip()[-800:]
            raise LabError(f"{what}: exit status {child.returncode} {tail}".rstrip())
        return out

    def up(self, mode, mem=None, vcpus=None, extra=()):
        """Boot the guest or the pair; ends when it serves and, if it can be, is protected."""
        args = ["--mode", mode]
        args += ["--mem", mem] if mem else []
        args += ["--vcpus", vcpus] if vcpus else []
        self.call("up", *args, *extra, timeout=UP_TIMEOUT, stderr=None)

    def addresses(self):
        """Addresses of the guests."""
        found = self.call("ip").split()
        if not found:
            raise LabError("lab ip: no guest has an address")
        return found

    def status(self):
        """{"a": status or None, "b": ...}; both None when it cannot be had."""
        try:
            answer = json.loads(self.call("status", "--json", timeout=STATUS_TIMEOUT))
        except (LabError, ValueError):
            answer = {}
        return {host: answer.get(host) for host in ("a", "b")}

    def namespace(self, host):
        """Network namespace of a host, as /proc/PID/ns/net reads."""
        return self.call("exec", host, "--", "readlink", "/proc/self/ns/net").strip()

    def runs_vm(self, host):
        """Does a QEMU run on @host?"""
        pids = namespace_pids(self.namespace(host))
        return any(program_of(pid).startswith("qemu") for pid in pids)

    def disk(self, host):
        """Path of a host's disk, where the lab keeps it."""
        sys.path.insert(0, os.path.dirname(self.path))
        from labkit import state  # pylint: disable=import-outside-toplevel
        return state.Lab(self.name).disk(host)

    def down(self):
        """Stop all that the lab runs."""
        self.call("down", timeout=DOWN_TIMEOUT)


def namespace_pids(namespace):
    """Processes in a network namespace (`net:[N]`, as /proc/PID/ns/net reads)."""
    pids = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{entry}/ns/net") == namespace:
                pids.append(int(entry))
        except OSError:
            continue        # it has ended
    return pids


def program_of(pid):
    """Name of a process as the kernel keeps it, empty when it has ended."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return ""


def primary_of(status):
    """Name of the host whose daemon says it is the primary, None when none does."""
    for host, state in status.items():
        if isinstance(state, dict) and state.get("role") == "primary":
            return host
    return None
