#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operator does to a pair that is well: switchover there and back, pause and resume.

One connection is open all the time and answers to each line; how long it is silent at a switchover is shown.
"""
import json
import sys

from pairlab import Pair

ECHO_PORT = 7
LIMIT_MS = 2000 # of a shared machine; bench/ measures

# lines over one connection, 10 ms apart; prints the longest wait for an answer
ECHO = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
s.settimeout(20)
f, end, worst, n = s.makefile('rb'), time.monotonic() + float(sys.argv[3]), 0, 0
while time.monotonic() < end:
    begin = time.monotonic()
    s.sendall(b'%d\\n' % n)
    assert f.readline() == b'%d\\n' % n
    worst = max(worst, time.monotonic() - begin)
    n += 1
    time.sleep(0.01)
print(n, round(worst * 1000))
"""


class Planned(Pair):
    def states(self):
        status = json.loads(self.lab("status", "--json"))
        return {host: status[host] or {} for host in ("a", "b")}

    def protected(self, primary):
        secondary = "ab".replace(primary, "")

        def look():
            s = self.states()
            return (s[primary].get("role"), s[secondary].get("role")) == ("primary", "secondary") and \
                all(v.get("state") == "protected" for v in s.values())
        self.wait(f"{primary} is primary of a protected pair", look, 90)

    def silence_at(self, host, command, seconds=4):
        """The longest wait of an open connection while @host is told @command."""
        load = self.load("/usr/bin/python3", "-c", ECHO, self.ip, str(ECHO_PORT), str(seconds))
        self.wait("the load", lambda: self.states()["a"].get("flows") or self.states()["b"].get("flows"), 10)
        self.colo(host, command)
        out = load.communicate(timeout=60)[0]
        assert load.returncode == 0, out
        lines, worst = map(int, out.split())
        assert lines > 20, f"only {lines} lines were answered"
        assert worst <= LIMIT_MS, f"{command}: an open connection was silent for {worst} ms"
        return worst


def refused(p, host, command, why):
    try:
        p.colo(host, command)
    except AssertionError as e:
        assert why in str(e), e
        return
    raise AssertionError(f"{command} on {host} was not refused")


def run(p):
    p.protected("a")
    refused(p, "b", "pause", "not the primary")
    refused(p, "a", "resume", "not paused")
    boot = p.ssh("cat /proc/sys/kernel/random/boot_id")
    print(f"  switchover, told to the primary: silent for {p.silence_at('a', 'switchover')} ms")
    p.protected("b")
    assert p.states()["b"]["last_failover"]["cause"] == "manual", p.states()["b"]["last_failover"]
    print(f"  switchover, told to the secondary: silent for {p.silence_at('a', 'switchover')} ms")
    p.protected("a")
    print(f"  pause: silent for {p.silence_at('a', 'pause')} ms")
    assert p.states()["a"]["state"] == "alone" and p.states()["a"]["paused"]
    refused(p, "a", "switchover", "not protected")
    p.colo("a", "resume")
    p.protected("a")
    assert p.ssh("cat /proc/sys/kernel/random/boot_id") == boot, "the guest was booted again"


def main():
    with Planned("planned") as p:
        run(p)
    print("PASSED")


if __name__ == "__main__":
    sys.exit(main())
