#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The demonstration's verdict: every kind of harm must be a problem, and only harm."""
import io
import os
import sys
import types
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../demo"))

import checks
import report
from monitor import Monitor
from view import View

PRIMARY = {"role": "primary", "state": "protected", "epoch": 7,
           "checkpoints": {"total": 5, "by_cause": {"periodic": 3, "mismatch": 2}},
           "pause_us": {"p50": 1900, "p99": 6000, "max": 9000}}
KEYS = ("workloads", "ledger", "checkpoints", "pause_us", "failover_ms")


def a_workload(**changes):
    """A workload as demo/clients reports it."""
    return {"name": "echo", "requests": 10, "failures": 0, "broken": 0, "max_gap_ms": 700.0,
            "gap_at": 105.0, "open_connection": True, "notes": [], **changes}


def a_report(workload=None, ledger=None, problems=(), kill="power"):
    """The report of a run with these results."""
    ledger = {"acknowledged": 9, "missing": 0, "duplicates": 0, "unacknowledged": 0, **(ledger or {})}
    return report.build(types.SimpleNamespace(
        result={"workloads": [a_workload(**(workload or {}))], "ledger": ledger, "problems": []},
        before=PRIMARY, failover={"detect_ms": 512, "total_ms": 540},
        failovers=[{"serves": "b", "detect_ms": 512, "total_ms": 540}], returns=[{"host": "a", "protected_s": 2.0}], begin=100.0, mode="colo",
        kill=kill, kill_at=4.0, checks={}, problems=list(problems)))


class ReportTest(unittest.TestCase):
    def test_clean(self):
        result = a_report()
        self.assertEqual(result["problems"], [])
        self.assertEqual(result["late"], [])
        self.assertEqual([key for key in KEYS if key in result], list(KEYS))
        self.assertEqual(result["checkpoints"], {"periodic": 3, "mismatch": 2})
        self.assertEqual(result["failover_ms"], {"detect": 512, "total": 540})
        self.assertEqual(result["workloads"][0]["max_gap_at_s"], 5.0)
        self.assertTrue(any(line.startswith("PASSED") for line in report.summary(result)))

    def test_harm_is_a_problem(self):
        for workload in ({"failures": 1}, {"broken": 1}, {"requests": 0}):
            self.assertEqual(len(a_report(workload)["problems"]), 1, workload)
        for ledger in ({"missing": 1}, {"duplicates": 1}, {"acknowledged": 0}, {"error": "gone"}):
            self.assertEqual(len(a_report(ledger=ledger)["problems"]), 1, ledger)
        result = a_report(problems=["no take-over"])
        self.assertEqual(result["problems"], ["no take-over"])
        self.assertTrue(any(line.startswith("FAILED") for line in report.summary(result)))

    def test_gaps_are_held_against_the_failure_that_came(self):
        self.assertEqual(len(a_report({"max_gap_ms": 1001.0})["late"]), 1)
        self.assertEqual(len(a_report({"max_gap_ms": 301.0}, kill="vm")["late"]), 1)
        self.assertEqual(a_report({"max_gap_ms": 5000.0}, kill="none")["late"], [])
        self.assertEqual(a_report({"max_gap_ms": 5000.0, "open_connection": False})["late"], [])

    def test_kernel_log(self):
        self.assertEqual(checks.kernel_log_bad("[0.1] Linux version\n[0.2] EXT4-fs (vda): mounted"), [])
        self.assertEqual(checks.kernel_log_bad("no good estimate for loops_per_jiffy"), [])
        self.assertEqual(len(checks.kernel_log_bad("[9.0] Internal error: Oops: 0002 [#1]")), 1)
        self.assertEqual(len(checks.kernel_log_bad("[9.0] EXT4-fs error (device vda)")), 1)


class FakeLab:
    """A lab whose status is whatever it was given last."""

    def __init__(self):
        self.now = {"a": PRIMARY, "b": None}

    def status(self):
        """As Lab.status()."""
        return self.now


class MonitorTest(unittest.TestCase):
    def test_keeps_the_last_look_before_the_failure(self):
        lab = FakeLab()
        monitor = Monitor(lab)
        monitor.freeze()
        lab.now = {"a": None, "b": dict(PRIMARY, epoch=8, last_failover={"detect_ms": 1})}
        monitor.sample()
        self.assertEqual(monitor.before["epoch"], 7)
        self.assertEqual(monitor.wait_failover("b", 0), {"detect_ms": 1})

    def test_no_failover(self):
        self.assertIsNone(Monitor(FakeLab()).wait_failover("b", 0))


class Terminal(io.StringIO):
    """A stream which says that it is a terminal."""

    def isatty(self):
        return True


class ViewTest(unittest.TestCase):
    def show(self, out):
        """Show two ticks, with and without a daemon that answers."""
        view, monitor = View("demo", out), Monitor(FakeLab())
        view.load_begin = 0
        for number, status in enumerate(({"a": None, "b": None}, {"a": PRIMARY, "b": None})):
            monitor.latest = status
            monitor.before = status["a"]
            view.clients({"at": float(number), "requests": {"web keep-alive": number * 50},
                          "echo_rtt_ms": 1.5, "ledger": 3, "failures": 0, "broken": 0})
            view.last_line = 0
            view.show(monitor)
        view.event("something happened")
        return out.getvalue()

    def test_terminal_and_plain(self):
        for out in (Terminal(), io.StringIO()):
            text = self.show(out)
            self.assertIn("50 checked requests/s", text)
            self.assertIn("mismatch 2", text)
            self.assertEqual("\x1b[" in text, out.isatty())


if __name__ == "__main__":
    unittest.main()
