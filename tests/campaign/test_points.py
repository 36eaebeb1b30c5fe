#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of fail points names those in the sources, all of them, and each once."""
import glob
import os
import re
import sys
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import faults  # noqa: E402
import points  # noqa: E402
import table  # noqa: E402

PASSED = re.compile(r'FAILPOINT(?:_IF|_AFTER)?\((?:[^;]*, )?"([a-z-]+)"\);')

ALTERNATIVES = {"agent-run"}    # steps to which each driver has a way of its own


def in_sources():
    """Names in the order of the files."""
    found = []
    for directory in "agent", "daemon", "disk":
        for path in sorted(glob.glob(os.path.join(ROOT, directory, "*.c"))):
            with open(path, encoding="utf-8") as file:
                found += PASSED.findall(file.read())
    return found


class Points(unittest.TestCase):
    """Names here and there."""

    def test_names(self):
        found = in_sources()
        twice = {name for name in found if found.count(name) > 1}
        self.assertLessEqual(twice, ALTERNATIVES)
        self.assertEqual(sorted(set(found)), sorted(point.name for point in points.POINTS + points.STANDBY))

    def test_words(self):
        for point in points.POINTS:
            self.assertIn(point.host, ("primary", "secondary", "survivor"))
            self.assertIn(point.when, ("checkpoint", "return", "takeover", "switchover", "lonely"))


class Kinds(unittest.TestCase):
    """What a campaign draws from."""

    def test_boots(self):
        self.assertFalse(faults.boots("power-primary"))
        self.assertFalse(faults.boots("at-harvest-kill"))
        self.assertTrue(faults.boots("at-claim-won-power"))
        self.assertFalse(faults.boots("at-claim-won-sleep"))

    def test_every_kind_has_a_weight(self):
        for name, (function, weight) in faults.kinds().items():
            self.assertTrue(callable(function) and weight > 0, name)


class Table(unittest.TestCase):
    """Gaps of rounds in which the guest booted do not count as failovers'."""

    def test_rows(self):
        common = {"ok": True, "not_reached": False, "well_s": 2.0, "notes": []}
        found = [{**common, "kind": "power-primary", "reboot": False, "loads": {"web": {"gap_ms": 500.0}, "web-new": {"gap_ms": 1000.0}}},
                 {**common, "kind": "at-claim-kill", "reboot": True, "loads": {"web": {"gap_ms": 30000.0}}}]
        rows = {row["fault"]: row for row in table.rows(found)}
        self.assertEqual(rows["all"]["gap_ms"]["max"], 500.0)
        self.assertEqual(rows["all"]["new_ms"]["max"], 1000.0)
        self.assertEqual(rows["all"]["count"], 2)
        self.assertIsNone(rows["at a step: kill (both halves lost)"]["gap_ms"]["max"])


if __name__ == "__main__":
    unittest.main()
