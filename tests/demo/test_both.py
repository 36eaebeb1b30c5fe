#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""demo/demo --both against a lab that only says what a lab would: both hosts fail, and what goes wrong is a problem."""
import importlib.machinery
import importlib.util
import os
import sys
import time
import types
import unittest

sys.dont_write_bytecode = True
DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../demo")
sys.path.insert(0, DEMO)
loader = importlib.machinery.SourceFileLoader("demo_program", os.path.join(DEMO, "demo"))
demo = importlib.util.module_from_spec(importlib.util.spec_from_loader("demo_program", loader))
loader.exec_module(demo)
OTHER = {"a": "b", "b": "a"}


class FakeLab:
    """Two hosts of which one serves; what failed is protected again when it is started, if it @returns."""

    def __init__(self, returns=True, takes_over=True):
        self.returns, self.takes_over = returns, takes_over
        self.calls, self.primary, self.off, self.failover = [], "a", None, None

    def status(self):
        """As Lab.status()."""
        state = "alone" if self.off else "protected"
        serves = {"role": "primary", "state": state, "epoch": 1, "last_failover": self.failover}
        follows = {"role": "secondary", "state": state, "epoch": 1, "last_failover": None}
        return {self.primary: serves, OTHER[self.primary]: None if self.off else follows}

    def call(self, verb, host):
        """As Lab.call()."""
        self.calls.append((verb, host))
        if verb == "start":
            self.off = None if self.returns else self.off
        elif self.takes_over:
            self.off, self.primary = host, OTHER[host]
            self.failover = {"cause": "peer-silent", "detect_ms": 500.0, "total_ms": 510.0}
        else:
            self.off = host


class BothTest(unittest.TestCase):
    def run_it(self, lab, both=True):
        """What a run of 6 s has to say after its failures."""
        run = demo.Run(types.SimpleNamespace(mode="colo", kill="power", both=both, duration=6, name="test-both"))
        run.lab = run.monitor.lab = lab
        run.view.event = lambda text: None
        run.begin = time.monotonic() - 4
        demo.RETURN_TIMEOUT, demo.FAILOVER_TIMEOUT, demo.OFF = 1, 1, 0
        run._fail()  # pylint: disable=protected-access
        return run

    def test_both_fail(self):
        lab = FakeLab()
        run = self.run_it(lab)
        self.assertEqual(lab.calls, [("kill", "a"), ("start", "a"), ("kill", "b")])
        self.assertEqual(run.problems, [])
        self.assertEqual([(f["failed"], f["serves"]) for f in run.failovers], [("a", "b"), ("b", "a")])
        self.assertEqual([back["host"] for back in run.returns], ["a"])
        self.assertEqual((run.survivor(), run.failover["total_ms"]), ("a", 510.0))

    def test_one_fails(self):
        lab = FakeLab()
        run = self.run_it(lab, both=False)
        self.assertEqual((lab.calls, run.problems, run.survivor()), ([("kill", "a")], [], "b"))

    def test_no_return_is_a_problem(self):
        lab = FakeLab(returns=False)
        run = self.run_it(lab)
        self.assertEqual(lab.calls, [("kill", "a"), ("start", "a")])
        self.assertEqual(len(run.problems), 1)

    def test_no_take_over_is_a_problem(self):
        run = self.run_it(FakeLab(takes_over=False))
        self.assertEqual((len(run.problems), run.failovers), (1, []))


if __name__ == "__main__":
    unittest.main()
