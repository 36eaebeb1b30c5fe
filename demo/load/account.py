# SPDX-License-Identifier: GPL-2.0-or-later
"""What a workload asked for, what it got, and how long it ever had to wait.

Terms, used alike by every workload and in build/demo.json:

request   one thing asked of the guest (a page, a message, a transaction), answered or not
failure   a request without a right answer: none in time, connection lost, wrong status or bytes
broken    a connection which ended though neither side had said that it would
gap       time between two answers on one connection; the time from the last answer to the end
          counts as well when an answer is still awaited, so that a hang cannot hide
"""

MAX_NOTES = 8


class Account:
    """Totals of one workload, over all its connections."""

    def __init__(self, name, open_connection=True):
        self.name = name
        self.open_connection = open_connection
        self.requests = 0
        self.failures = 0
        self.broken = 0
        self.max_gap = 0.0
        self.gap_at = None
        self.notes = []
        self.extra = {}

    def answered(self, count=1):
        """Count requests which were answered rightly."""
        self.requests += count

    def failed(self, why, count=1):
        """Count requests which were not, and remember the first few reasons."""
        self.requests += count
        self.failures += count
        self.note(why)

    def lost(self, why, count=1):
        """Count connections which broke."""
        self.broken += count
        self.note(why)

    def note(self, why):
        """Remember a reason, the first few only."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(str(why))

    def waited(self, gap, at=None):
        """Take a gap into account; @at is the time at which it ended."""
        if gap > self.max_gap:
            self.max_gap = gap
            self.gap_at = at

    def as_dict(self):
        """The workload's entry in build/demo.json."""
        return {"name": self.name, "requests": self.requests, "failures": self.failures,
                "broken": self.broken, "max_gap_ms": round(self.max_gap * 1000, 1),
                "gap_at": self.gap_at,
                "open_connection": self.open_connection, "notes": self.notes, **self.extra}


class Gaps:
    """Longest gap of one connection, reported to its workload's Account."""

    def __init__(self, account, now):
        self.account = account
        self.last = now

    def answer(self, now):
        """An answer has just arrived."""
        self.account.waited(now - self.last, now)
        self.last = now

    def resume(self, now):
        """Start afresh, after a time in which nothing was asked."""
        self.last = now

    def end(self, now, waiting):
        """The connection is given up; @waiting tells whether an answer was still due."""
        if waiting:
            self.account.waited(now - self.last, now)


def percentile(values, percent):
    """Nearest-rank percentile of @values, None when there are none."""
    if not values:
        return None
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]
