#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A peer that is slow, far away, lossy, or there by turns, under load: it costs performance or protection, never service.

In each case no request fails, the longest gap is bounded, the LAN sees one host serve, and the pair is protected again
when the link is good, without a hand. The roles stay, but where only what the primary says is lost: then it does not
notice, and the secondary takes over. Usage: test_slow.py [CASE...]
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "campaign"))
from session import OTHER, Session  # noqa: E402  pylint: disable=wrong-import-position

LAG_LIMIT_MS, SETTLE_S = 1000, 1
# what a client may wait once: the lag limit, the wait for the SVM's answer before it, silence and claim; twice for
# the load of the machine
GAP_MS = 2 * (LAG_LIMIT_MS + 500 + 500)
RETURN_S = 60
SETTINGS = ("--set", f"peer.lag-limit={LAG_LIMIT_MS}ms", "--set", f"peer.settle={SETTLE_S}s")


class Slow(Session):
    """The pair, and what one case saw."""

    host = None     # that serves

    def begin(self):
        """Of a case."""
        self.work.ask("mark")
        self.watcher.ask("summary")
        assert self.is_protected(), self.states()
        self.host = self.primary()

    def follow(self, seconds):
        """The states that the primary goes through in some time; it stays the primary."""
        seen, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status(self.host)
            assert status and status["role"] == "primary", f"{self.host} is no primary: {self.states()}"
            if not seen or seen[-1] != status["state"]:
                seen.append(status["state"])
            time.sleep(0.05)
        return seen

    def judge(self, what, seen, takeovers=0):
        """Bounded gaps, nothing lost, roles as before unless one takeover is due, protected again."""
        marks = self.work.ask("mark")
        begin = time.monotonic()
        self.wait("protection again", self.is_protected, RETURN_S)
        back = time.monotonic() - begin
        after = self.work.ask("mark")
        gaps = {name: max(m["gap_ms"], after[name]["gap_ms"]) for name, m in marks.items()}
        answers = {name: m["answers"] for name, m in marks.items()}
        worst = max(gaps, key=gaps.get)
        print(f"{what}: {' -> '.join(seen)}; {sum(answers.values())} answers, longest gap {gaps[worst]:.0f} ms "
              f"({worst}), protected again {back:.1f} s after", flush=True)
        for name in marks:
            for m in (marks[name], after[name]):
                assert not m["failures"] and not m["broken"], (what, name, m)
        assert all(answers.values()), (what, answers)
        assert max(gaps.values()) < GAP_MS, (what, gaps)
        assert (self.primary() == self.host) == (not takeovers), self.states()
        lan = self.watcher.ask("summary")
        assert not lan["violations"] and len(lan["takeovers"]) == takeovers, lan
        found = self.work.ask("audit", 60)
        assert found["acknowledged"] and not (found["missing"] or found["twice"] or found["vanished"]), found


def tenfold(p):
    """Ten times the round trip of a LAN: the pair stays."""
    p.lab("slow", "--delay", "2")
    seen = p.follow(6)
    assert seen == ["protected"], seen
    p.lab("slow", "off")
    p.judge("4 ms of round trip", seen)


def far(p):
    """A round trip of 40 ms: performance or protection."""
    p.lab("slow", "--delay", "20")
    seen = p.follow(6)
    p.lab("slow", "off")
    p.judge("40 ms of round trip", seen)


def narrow(p):
    """1 Mbit/s cannot carry what the guest says, and what changes in its memory: protection ends."""
    p.lab("slow", "--rate", "1mbit")
    seen = p.follow(12)
    assert "alone" in seen, seen
    p.lab("slow", "off")
    p.judge("1 Mbit/s", seen)


def narrow_disk(p):
    """The same with a guest that writes to its disk more than the link takes."""
    p.lab("slow", "--rate", "1mbit")
    p.ssh("(dd if=/dev/urandom of=/root/slow bs=1M count=24 conv=fsync; rm /root/slow) >/dev/null 2>&1 &")
    seen = p.follow(12)
    assert "alone" in seen, seen
    p.lab("slow", "off")
    p.judge("1 Mbit/s, disk writes", seen)


def lossy(p):
    """3 % of the frames are lost."""
    p.lab("slow", "--delay", "1", "--loss", "3")
    seen = p.follow(8)
    p.lab("slow", "off")
    p.judge("3 % of loss", seen)


def flapping(p):
    """Down for longer than a peer may be silent, and up again, six times: few pairs are formed, the roles stay."""
    before, seen = p.log(p.host).count("state seeding -> protected"), []
    for _ in range(6):
        p.lab("cut", "replication")
        seen += p.follow(0.8)
        p.lab("heal", "replication")
        seen += p.follow(1.2)
    formed = p.log(p.host).count("state seeding -> protected") - before
    print(f"flapping: {formed} pairs formed in 6 rounds")
    assert formed <= 3, formed
    p.judge("a flapping link", [s for i, s in enumerate(seen) if not i or s != seen[i - 1]])


def to_primary(p):
    """What the secondary says is lost: the primary serves alone."""
    link = f"replication-{OTHER[p.host]}{p.host}"
    p.lab("cut", link)
    seen = p.follow(2)
    assert "alone" in seen, seen
    p.lab("heal", link)
    p.judge("the way to the primary cut", seen)


def to_secondary(p):
    """What the primary says is lost: the secondary takes over, once."""
    link = f"replication-{p.host}{OTHER[p.host]}"
    p.lab("cut", link)
    p.wait("a takeover", lambda: (p.status(OTHER[p.host]) or {}).get("role") == "primary", 10)
    time.sleep(1)   # the former primary comes back, and must not serve
    p.lab("heal", link)
    p.judge("the way to the secondary cut", ["taken over"], 1)


CASES = {c.__name__: c for c in (tenfold, far, lossy, narrow, narrow_disk, flapping, to_primary, to_secondary)}


def attempt(p, name):
    """One case; did it go well? The next one begins with a good link and a pair, however it ended."""
    try:
        p.begin()
        CASES[name](p)
        return True
    except AssertionError as err:
        print(f"{name}: FAILED: {err}", flush=True)
    p.lab("slow", "off")
    p.lab("heal", "replication")
    p.wait("protection", p.is_protected, 2 * RETURN_S)
    return False


def main():
    with Slow("slow", *SETTINGS) as p:
        failed = [name for name in sys.argv[1:] or CASES if not attempt(p, name)]
    print(f"test_slow: {'failed: ' + ' '.join(failed) if failed else 'ok'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
