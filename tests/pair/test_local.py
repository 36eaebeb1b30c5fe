#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Local failures of a protected pair: QEMU, daemon, disk manager killed, stopped or frozen on either host, agent and
monitor cut off or mute, no memory, no descriptors, full directories. Each ends in service within its time, and
protection comes back by itself.

One connection sends a line each 2 ms throughout (bench/probe.py): its longest silence is the time without service.
Usage: test_local.py [--long] [CASE...]
"""
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import strikes
from pairlab import LAB, ROOT, Pair

NAME = "local"
STATE, DATA = (f"/run/colo-local-{what}-{os.getpid()}" for what in ("state", "data"))
DIRECTORIES = {STATE: "4M", DATA: "160M"}       # of host b; the journal takes 64 MiB of the latter
PROTECTED_LIMIT = 90
STARVED_SECONDS = 5
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
        super().__init__(NAME, "--set", f"host b.state={STATE}", "--set", f"host b.data={DATA}",
                         "--set", "disk.journal=64M", "--set", "peer.settle=100ms")
        self.probe, self.late = None, []
        self.cgroup_root = strikes.cgroup_root()

    def __enter__(self):
        for path, size in DIRECTORIES.items():
            subprocess.run(["mkdir", "-p", path], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "colo-local", path], check=True)
        return super().__enter__()

    def __exit__(self, *args):
        if args and args[0]:
            self.tell(60)
        super().__exit__(*args)
        for path in DIRECTORIES:
            subprocess.run(["umount", path], check=False)
            with contextlib.suppress(OSError):
                os.rmdir(path)

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

    def judge(self, name, gap, limit):
        """Was service away for longer than is stated? Said at the end, with all others."""
        if gap > limit:
            self.tell(60)
            self.late.append(f"{name}: {gap:.1f} s without service, {limit} s are stated")
            print(self.late[-1], flush=True)

    def log(self, host):
        with open(f"/run/colo-lab/{self.name}/{host}/colo.log", encoding="utf-8", errors="replace") as f:
            return f.read()


KILL, STOP = signal.SIGKILL, signal.SIGSTOP
# name: (what is done, on the primary?, seconds without service at most, in the short run?)
# What hangs has [vm] watchdog (3 s), two looks at half a second, and what a failover takes.
CASES = {
    "primary's QEMU killed": (strikes.send_signal("vm", KILL), True, 1.0, False),
    "primary's daemon killed": (strikes.send_signal("daemon", KILL), True, 1.5, False),
    "primary's disk manager killed": (strikes.send_signal("disk", KILL), True, 1.5, False),
    "primary's QEMU stopped": (strikes.send_signal("vm", STOP), True, 6.0, True),
    "primary's daemon stopped": (strikes.send_signal("daemon", STOP), True, 2.0, False),
    "primary's disk manager stopped": (strikes.send_signal("disk", STOP), True, 6.0, False),
    "primary's QEMU frozen": (strikes.freeze("vm"), True, 13.0, False),
    "primary's daemon frozen": (strikes.freeze("daemon"), True, 2.0, False),
    "primary's disk manager frozen": (strikes.freeze("disk"), True, 6.0, False),
    "primary's agent cut off": (strikes.cut_agent, True, 1.5, False),
    "primary's agent held": (strikes.hold_agent, True, 13.0, False),
    "primary's monitor mute": (strikes.mute_monitor, True, 1.0, True),
    "primary's monitor cut off": (strikes.cut_monitor, True, 1.0, False),
    "secondary's QEMU killed": (strikes.send_signal("vm", KILL), False, 1.5, False),
    "secondary's daemon killed": (strikes.send_signal("daemon", KILL), False, 1.5, False),
    "secondary's disk manager killed": (strikes.send_signal("disk", KILL), False, 1.5, False),
    "secondary's QEMU stopped": (strikes.send_signal("vm", STOP), False, 6.5, False),
    "secondary's daemon stopped": (strikes.send_signal("daemon", STOP), False, 2.0, False),
    "secondary's disk manager stopped": (strikes.send_signal("disk", STOP), False, 6.5, False),
    "secondary's QEMU frozen": (strikes.freeze("vm"), False, 6.5, False),
    "secondary's daemon frozen": (strikes.freeze("daemon"), False, 2.0, False),
    "secondary's disk manager frozen": (strikes.freeze("disk"), False, 6.5, False),
    "secondary's agent cut off": (strikes.cut_agent, False, 1.5, False),
    "secondary's agent held": (strikes.hold_agent, False, 6.5, False),
    "secondary's monitor mute": (strikes.mute_monitor, False, 1.0, False),
}


def is_left(pid):
    """Is a process that failed still there?"""
    return os.path.exists(f"/proc/{pid}/exe")


def run_case(pair, name):
    """Strike, see service, see protection come back without a hand."""
    strike, at_primary, limit, _ = CASES[name]
    primary = pair.primary()
    host = primary if at_primary else OTHER[primary]
    before = {h: s["pid"]["colo"] for h, s in pair.states().items()}
    failed = pair.pids_of(host).values()
    pair.probe.longest()
    begin = time.monotonic()
    undo = strike(pair, host)
    # the daemon whose part failed is replaced; that of a daemon that hangs by its supervisor
    pair.wait(f"{name}: another daemon on {host}",
              lambda: pair.states()[host].get("pid", {}).get("colo", before[host]) != before[host], 60)
    back = time.monotonic() - begin
    gap = pair.probe.longest()
    if undo:
        undo()
    if at_primary:
        assert pair.primary() == OTHER[host], f"{name}: {host} still serves"
    assert not any(is_left(pid) for pid in failed), f"{name}: one of the processes {failed} is left"
    pair.protected()
    assert pair.states()[OTHER[host]]["pid"]["colo"] == before[OTHER[host]], f"{name}: the other daemon went, too"
    rest = pair.probe.longest()
    print(f"{name:34} silence {gap * 1000:5.0f} ms, daemon back after {back:4.1f} s, protected after "
          f"{time.monotonic() - begin:5.1f} s (silence meanwhile {rest * 1000:4.0f} ms)", flush=True)
    pair.judge(name, gap, limit)


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
    with strikes.fds.shortage(pid) as free:
        begin, cpu = time.monotonic(), cpu_of(pid)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(free + 3)]
        for c in clients:
            c.connect(f"/run/colo-lab/{pair.name}/a/colo.sock" if host == "a" else f"{STATE}/colo.sock")
        pair.wait("a word of it", lambda: "connections cannot be accepted: Too many open files" in pair.log(host), 10)
        time.sleep(2)  # in which a daemon that spins would
        share = (cpu_of(pid) - cpu) / (time.monotonic() - begin)
        for c in clients:
            c.close()
    pair.wait("answers again", lambda: pair.states()[host].get("state") == "protected", 10)
    pair.wait("the alarm's end", lambda: not pair.status(host)["alarms"], 10)
    gap = pair.probe.longest()
    assert pair.pids_of(host)["daemon"] == pid
    print(f"no descriptors: silence {gap * 1000:.0f} ms, {share:.2f} of a CPU used", flush=True)
    assert share < 0.5, share
    pair.judge("no descriptors", gap, 1.5)


def starve(pair, what, at_primary):
    """One process gets no memory for a while, with new connections and writes of the guest."""
    host = pair.primary() if at_primary else OTHER[pair.primary()]
    name = f"{'primary' if at_primary else 'secondary'}'s {what} without memory"
    pid = pair.pids_of(host)[what]
    pair.probe.longest()
    undo = strikes.no_memory(what)(pair, host)
    end = time.monotonic() + STARVED_SECONDS
    while time.monotonic() < end:
        pair.client(*CONNECT, pair.ip, check=False)
    lives = is_left(pid)
    undo()
    pair.protected()
    gap = pair.probe.longest()
    print(f"{name:34} silence {gap * 1000:5.0f} ms, it {'goes on' if lives else 'has ended'}", flush=True)
    pair.judge(name, gap, 6.5)


def no_memory(pair):
    """A process that gets no memory goes on, or ends: the guest is served, and protected again."""
    pair.ssh(f"setsid sh -c '{WRITES}' >/dev/null 2>&1 </dev/null &")
    try:
        for what, at_primary in (("daemon", True), ("disk", True), ("vm", True), ("daemon", False), ("disk", False)):
            starve(pair, what, at_primary)
    finally:
        pair.lab("ssh", "touch /run/stop", check=False)


@contextlib.contextmanager
def full(path):
    """Within, no byte is free in the file system of a directory."""
    name = os.path.join(path, "full")
    with open(name, "wb", buffering=0) as f:
        with contextlib.suppress(OSError):
            while True:
                f.write(bytes(65536))
        with contextlib.suppress(OSError):
            while True:
                f.write(bytes(512))
    try:
        yield
    finally:
        os.unlink(name)


def make_secondary(pair, host):
    """Roles as the test wants them."""
    if pair.primary() == host:
        pair.colo(host, "switchover")
        pair.wait("the switchover", lambda: pair.states()[OTHER[host]].get("role") == "primary", 20)
        pair.protected()


def state_directory_full(pair):
    """It is an alarm, costs nothing else, and ends with the alarm's end; a daemon that starts meanwhile serves."""
    with full(STATE):
        pair.probe.longest()
        pair.wait("the alarm", lambda: any("is full" in a["text"] for a in pair.status("b")["alarms"]), 15)
        assert pair.is_protected()
        before = pair.pids_of("b")["daemon"]
        os.kill(before, KILL)
        pair.wait("another daemon", lambda: pair.states()["b"].get("pid", {}).get("colo", before) != before, 20)
        pair.protected()
    pair.wait("the alarm's end", lambda: not pair.status("b")["alarms"], 15)
    gap = pair.probe.longest()
    print(f"state directory full: alarm, protected all the same; silence {gap * 1000:.0f} ms", flush=True)
    pair.judge("state directory full", gap, 1.5)


def data_directory_full(pair):
    """It is an alarm; a failover to that host is carried out all the same, with another alarm until it has room."""
    make_secondary(pair, "b")
    pair.lab("ssh", "head -c 3000000 /dev/urandom >/root/new && sync -f /root/new")
    pair.probe.longest()
    with full(DATA):
        pair.wait("the alarm", lambda: any("is full" in a["text"] for a in pair.status("b")["alarms"]), 15)
        assert pair.is_protected()
        os.kill(pair.pids_of("a")["vm"], KILL)
        pair.wait("the failover", lambda: pair.states()["b"].get("role") == "primary", 10)
        told = [a["text"] for a in pair.status("b")["alarms"]]
        pair.protected()
        gap = pair.probe.longest()
    pair.wait("the alarms' end", lambda: not pair.status("b")["alarms"], 15)
    print(f"data directory full: alarm, failover all the same; silence {gap * 1000:.0f} ms; {told}", flush=True)
    pair.judge("data directory full", gap, 1.0)


CONNECT = ["/usr/bin/python3", "-c", "import socket,sys; [socket.create_connection((sys.argv[1], 7), 3).close() "
           "for _ in range(20)]"]
WRITES = "while [ ! -e /run/stop ]; do head -c 300000 /dev/urandom >/root/new; sync -f /root/new; sleep 0.3; done"
OTHERS = {"no descriptors": (no_descriptors, False), "no memory": (no_memory, False),
          "state directory full": (state_directory_full, False), "data directory full": (data_directory_full, False)}


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
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
        late = pair.late
    print("test_local: " + ("; ".join(late) or "ok"))
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
