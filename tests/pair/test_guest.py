#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest does to itself: reboot, panic, hang, suspend, power off. The pair follows as one QEMU would.

No failover, no other daemon, protected all the time or again by itself, and after each reboot RAM hashes are alike.
Usage: test_guest.py [NAME...]
"""
import json
import os
import signal
import subprocess
import sys
import time

from pairlab import Pair

SERVES_LIMIT = 90
HUNG_SECONDS = 6        # longer than heartbeats, watchdogs and what the secondary may be late


class Guest(Pair):
    """A pair whose guest misbehaves."""

    def __exit__(self, *args):
        if args and args[0]:
            self.tell(60)
        super().__exit__(*args)

    def states(self):
        status = json.loads(self.lab("status", "--json"))
        return {host: (status[host] or {}) for host in ("a", "b")}

    def order(self, command):
        """A command that may end the connection it came by."""
        self.lab("ssh", f"nohup sh -c 'sleep 0.3; {command}' >/dev/null 2>&1 &", check=False)

    def boot_id(self):
        try:
            return self.ssh("cat /proc/sys/kernel/random/boot_id", timeout=6).strip()
        except (AssertionError, OSError, subprocess.TimeoutExpired): # a connection that the guest forgot
            return None

    def wait_boot(self, former):
        """Until another kernel answers."""
        def look():
            now = self.boot_id()
            return now and now != former
        self.wait("another boot", look, SERVES_LIMIT)

    def protected(self):
        self.wait("protection", lambda: all(s.get("state") == "protected" for s in self.states().values()), 60)

    def same(self, before):
        """The same QEMU serves, on the same host: nobody took anything for a failure of it."""
        now = self.states()
        was, is_now = ({k: s["a"].get(k) for k in ("role", "pid", "last_failover")} for s in (before, now))
        assert was == is_now, f"{was}, now {is_now}"
        if before["a"]["generation"] != now["a"]["generation"]:
            print("  (the secondary was left behind, and came back)", flush=True)
            self.tell(30)

    def same_ram(self):
        """All RAM of both VMs is alike at a checkpoint."""
        before = self.states()["a"]["verified"]
        self.colo("a", "checkpoint", "--verify")
        after = self.wait("hashes", lambda: (lambda v: v["checked"] > before["checked"] and v)(
            self.states()["a"]["verified"]), 30)
        assert after["mismatched"] == 0, after

    def reboots_by(self, command):
        before, boot = self.states(), self.boot_id()
        begin = time.monotonic()
        self.order(command)
        self.wait_boot(boot)
        took = time.monotonic() - begin
        self.protected()
        self.same(before)
        self.same_ram()
        longest = {h: s["send_us" if h == "a" else "apply_us"]["max"] / 1000 for h, s in self.states().items()}
        print(f"  longest checkpoint so far: sent in {longest['a']:.0f} ms, applied in {longest['b']:.0f} ms", flush=True)
        return took


def reboot(p):
    """Shut down and started again, in order."""
    print(f"reboot: serves again after {p.reboots_by('systemctl reboot'):.0f} s, hashes alike", flush=True)


def reset(p):
    """At once, as by the reset button."""
    print(f"reset: serves again after {p.reboots_by('echo b >/proc/sysrq-trigger'):.0f} s, hashes alike", flush=True)


def panic_that_reboots(p):
    """kernel.panic=1"""
    took = p.reboots_by("echo 1 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger")
    print(f"panic, with panic=1: serves again after {took:.0f} s, hashes alike", flush=True)


def busy(p):
    """The CPU's time goes to a real-time loop: late answers, no failover."""
    before = p.states()
    # what is to end the loop needs a higher priority than the loop
    p.order("chrt -f 60 timeout 5 chrt -f 50 sh -c \"while :; do :; done\"")
    time.sleep(6.5)  # that is the event
    p.protected()
    p.same(before)
    p.wait("an answer of the guest", p.boot_id, SERVES_LIMIT)
    print("busy guest: protected, same roles", flush=True)


def hangs(p, command, what):
    """Silence, as of any QEMU with such a guest, and both hosts stay what they are."""
    before = p.states()
    p.order(command)
    p.wait("silence", lambda: p.client("ping", "-c1", "-W1", p.ip, check=False).find("1 received") < 0, 30)
    end = time.monotonic() + HUNG_SECONDS
    while time.monotonic() < end:
        assert all(s.get("state") == "protected" for s in p.states().values()), p.states()
        time.sleep(0.5)
    p.same(before)
    p.same_ram()
    print(f"{what}, protected for {HUNG_SECONDS} s more, hashes alike", flush=True)


def panic_that_hangs(p):
    """kernel.panic=0"""
    hangs(p, "echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger", "panic, with panic=0: the guest hangs")


def suspend(p):
    """To RAM is not offered; from idle QEMU has no clock that wakes a guest, with or without colo."""
    assert "mem" not in p.ssh("cat /sys/power/state").split() or "deep" not in p.ssh("cat /sys/power/mem_sleep")
    hangs(p, "echo freeze >/sys/power/state", "guest suspended to idle: it sleeps on")


def power_off(p):
    """Both daemons end, and nothing starts them again."""
    supervisors = [p.states()[h]["pid"]["supervisor"] for h in ("a", "b")]
    p.order("systemctl poweroff")
    p.wait("the end of both", lambda: not any(os.path.exists(f"/proc/{s}/exe") for s in supervisors), 60)
    for host in ("a", "b"):
        with open(f"/run/colo-lab/{p.name}/{host}/colo.log", encoding="utf-8") as f:
            log = f.read()
        assert "started again" not in log and "alarm:" not in log.rsplit("the guest has powered itself off", 1)[-1], log
    print("power off: both hosts ended, nothing was started again", flush=True)


FIRST, LAST = [reboot, reset, panic_that_reboots, busy], [power_off, panic_that_hangs, suspend]


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = sys.argv[1:]

    def chosen(tests):
        return [t for t in tests if not names or any(n in t.__name__ for n in names)]
    # what ends the guest needs a pair each; the first of them has that which the others left
    first, last = chosen(FIRST), chosen(LAST)
    for tests in [first + last[:1]] + [[t] for t in last[1:]]:
        with Guest("guest") as p:
            for test in tests:
                test(p)
    print("test_guest: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
