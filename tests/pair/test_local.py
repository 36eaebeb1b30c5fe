#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Local failures of a protected pair: QEMU, daemon, disk manager killed or stopped on either host, agent cut off, no
descriptors, full directory. Each ends in service within its time, and protection comes back by itself.

One connection sends a line each 2 ms throughout (bench/probe.py): its longest silence is the time without service.
Usage: test_local.py [--long] [CASE...]
"""
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time

from pairlab import LAB, ROOT, Pair

NAME = "local"
STATE = f"/run/colo-local-{os.getpid()}"
PROTECTED_LIMIT = 90
SYS_PIDFD_GETFD = 438
AGENT_FD = 4                # of QEMU, daemon/vm.c
OTHER = {"a": "b", "b": "a"}


class Probe:
    """Looks for silences of the guest."""

    def __init__(self, pair):
        self.process = subprocess.Popen(
            [LAB, "exec", "--name", pair.name, "client", "--", "/usr/bin/python3", os.path.join(ROOT, "bench", "probe.py"),
             pair.ip], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        pair.loads.append(self.process)
        self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the open connection broke")
        return json.loads(line)

    def longest(self):
        """Seconds of the longest silence since the last question. Every byte was right."""
        time.sleep(0.1)  # so that a silence that has just ended is known
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        said = self._read()
        assert not said["wrong"], f"{said['wrong']} of {said['lines']} lines are wrong"
        return max((length for _, length in said["silences"]), default=0.0)


class Local(Pair):
    """A pair whose parts fail."""

    def __init__(self):
        # the state directory of b is small; both hosts take each other back at once, however often that is
        subprocess.run(["mkdir", "-p", STATE], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M,mode=700", "colo-local", STATE], check=True)
        super().__init__(NAME, "--set", f"host b.state={STATE}")
        self.probe = None

    def __exit__(self, *args):
        super().__exit__(*args)
        subprocess.run(["umount", STATE], check=False)
        os.rmdir(STATE)

    def states(self):
        status = json.loads(self.lab("status", "--json"))
        return {host: (status[host] or {}) for host in ("a", "b")}

    def primary(self):
        states = self.states()
        return next(h for h in ("a", "b") if states[h].get("role") == "primary")

    def is_protected(self):
        return all(s.get("state") == "protected" for s in self.states().values())

    def protected(self, limit=PROTECTED_LIMIT):
        begin = time.monotonic()
        self.wait("protection", self.is_protected, limit)
        return time.monotonic() - begin

    def pids_of(self, host):
        pid = self.status(host)["pid"]
        return {"vm": pid["qemu"], "daemon": pid["colo"], "disk": pid["disk"]}

    def log(self, host):
        with open(f"/run/colo-lab/{self.name}/{host}/colo.log", encoding="utf-8", errors="replace") as f:
            return f.read()


def send_signal(what, signum):
    def strike(pair, host):
        pid = pair.pids_of(host)[what]
        os.kill(pid, signum)
        return [pid] if signum == signal.SIGSTOP else []
    return strike


def pidfd_getfd(pid, fd):
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.syscall(SYS_PIDFD_GETFD, os.pidfd_open(pid), fd, 0)
    if got < 0:
        raise OSError(ctypes.get_errno(), f"pidfd_getfd of {pid}")
    return got


def cut_agent(pair, host):
    """The agent's socket closes while QEMU lives."""
    with socket.socket(fileno=pidfd_getfd(pair.pids_of(host)["vm"], AGENT_FD)) as agent:
        agent.shutdown(socket.SHUT_RDWR)
    return []


KILL, STOP = signal.SIGKILL, signal.SIGSTOP
# name: (what is done, on the primary?, seconds without service at most, in the short run?)
# Stopped parts have [vm] watchdog (3 s), two looks a second apart, and what a failover takes.
CASES = {
    "primary's QEMU killed": (send_signal("vm", KILL), True, 1.0, False),
    "primary's daemon killed": (send_signal("daemon", KILL), True, 1.5, False),
    "primary's disk manager killed": (send_signal("disk", KILL), True, 1.0, True),
    "primary's QEMU stopped": (send_signal("vm", STOP), True, 6.5, True),
    "primary's daemon stopped": (send_signal("daemon", STOP), True, 2.0, False),
    "primary's disk manager stopped": (send_signal("disk", STOP), True, 6.5, True),
    "primary's agent cut off": (cut_agent, True, 1.5, True),
    "secondary's QEMU killed": (send_signal("vm", KILL), False, 1.5, False),
    "secondary's daemon killed": (send_signal("daemon", KILL), False, 1.5, False),
    "secondary's disk manager killed": (send_signal("disk", KILL), False, 1.5, False),
    "secondary's QEMU stopped": (send_signal("vm", STOP), False, 6.5, True),
    "secondary's daemon stopped": (send_signal("daemon", STOP), False, 2.0, False),
    "secondary's disk manager stopped": (send_signal("disk", STOP), False, 6.5, False),
    "secondary's agent cut off": (cut_agent, False, 1.5, False),
}


def run_case(pair, name):
    """Strike, see service, see protection come back without a hand."""
    strike, at_primary, limit, _ = CASES[name]
    primary = pair.primary()
    host = primary if at_primary else OTHER[primary]
    before = {h: s["pid"]["colo"] for h, s in pair.states().items()}
    pair.probe.longest()
    begin = time.monotonic()
    stopped = strike(pair, host)
    # the daemon whose part failed is replaced; that of a stopped daemon by its supervisor
    pair.wait(f"{name}: another daemon on {host}",
              lambda: pair.states()[host].get("pid", {}).get("colo", before[host]) != before[host], 40)
    back = time.monotonic() - begin
    gap = pair.probe.longest()
    if at_primary:
        assert pair.primary() == OTHER[host], f"{name}: {host} still serves"
    for pid in stopped:
        assert not os.path.exists(f"/proc/{pid}/exe"), f"{name}: process {pid} is left"
    pair.protected()
    assert pair.states()[OTHER[host]]["pid"]["colo"] == before[OTHER[host]], f"{name}: the other daemon went, too"
    rest = pair.probe.longest()
    print(f"{name:34} silence {gap * 1000:5.0f} ms, daemon back after {back:4.1f} s, protected after "
          f"{time.monotonic() - begin:5.1f} s (silence meanwhile {rest * 1000:4.0f} ms)", flush=True)
    assert gap <= limit, f"{name}: {gap:.1f} s without service, {limit} s are stated"


def cpu_of(pid):
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def no_descriptors(pair):
    """A daemon that gets none any more goes on, says so, and does not spin."""
    host = pair.primary()
    pid = pair.pids_of(host)["daemon"]
    pair.probe.longest()
    used = max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd")) + 1
    old = subprocess.run(["prlimit", "--pid", str(pid), "--nofile", "--output", "SOFT,HARD", "--noheadings"], check=True,
                         capture_output=True, text=True).stdout.split()
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={used}:{old[1]}"], check=True)
    free = used - len(os.listdir(f"/proc/{pid}/fd"))
    begin, cpu = time.monotonic(), cpu_of(pid)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(free + 3)]
    for c in clients:
        c.connect(f"/run/colo-lab/{pair.name}/a/colo.sock" if host == "a" else f"{STATE}/colo.sock")
    pair.wait("a word of it", lambda: "connections cannot be accepted: Too many open files" in pair.log(host), 10)
    time.sleep(2)  # in which a daemon that spins would
    share = (cpu_of(pid) - cpu) / (time.monotonic() - begin)
    for c in clients:
        c.close()
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={old[0]}:{old[1]}"], check=True)
    pair.wait("answers again", lambda: pair.states()[host].get("state") == "protected", 10)
    pair.wait("the alarm's end", lambda: not pair.status(host)["alarms"], 10)
    gap = pair.probe.longest()
    assert pair.pids_of(host)["daemon"] == pid
    print(f"no descriptors: silence {gap * 1000:.0f} ms, {share:.2f} of a CPU used", flush=True)
    assert share < 0.5 and gap < 1.5, (share, gap)


def state_directory_full(pair):
    """It is an alarm, costs nothing else, and ends with the alarm's end; a daemon that starts meanwhile serves."""
    with open(f"{STATE}/full", "wb") as f:
        try:
            while True:
                f.write(bytes(65536))
                f.flush()
        except OSError:
            pass
    pair.probe.longest()
    pair.wait("the alarm", lambda: any("is full" in a["text"] for a in pair.status("b")["alarms"]), 15)
    assert pair.is_protected()
    before = pair.pids_of("b")["daemon"]
    os.kill(before, KILL)
    pair.wait("another daemon", lambda: pair.states()["b"].get("pid", {}).get("colo", before) != before, 20)
    pair.protected()
    os.unlink(f"{STATE}/full")
    pair.wait("the alarm's end", lambda: not pair.status("b")["alarms"], 15)
    print(f"state directory full: alarm, protected all the same; silence {pair.probe.longest() * 1000:.0f} ms", flush=True)


OTHERS = {"no descriptors": (no_descriptors, True), "state directory full": (state_directory_full, False)}


def main():
    arguments = sys.argv[1:]
    everything = "--long" in arguments
    wanted = [a for a in arguments if a != "--long"]

    def chosen(name, short):
        return any(w in name for w in wanted) if wanted else everything or short
    with Local() as pair:
        pair.probe = Probe(pair)
        for name, row in CASES.items():
            if chosen(name, row[3]):
                run_case(pair, name)
        for name, (test, short) in OTHERS.items():
            if chosen(name, short):
                test(pair)
    print("test_local: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
