#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ratios, medians, tables and the chart's program of `make bench`."""
import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../../bench"), os.path.join(HERE, "../../demo")]

import chart
import labctl
import results
import sampler
import table
from loads import BY_NAME, LOADS

WEB, PING = "web-keepalive-1k-c8", "ping"


def sample(load, mode, value, **more):
    """A sample as bench/bench takes it."""
    return {"load": load, "mode": mode, "vcpus": 1, "value": value, "unit": BY_NAME[load].unit, **more}


def some_runs():
    """Native, twin and colo of two loads."""
    return results.merge([sample(WEB, "colo", 900.0, p50_ms=8.0, p99_ms=20.0,
                                 checkpoints={"mismatch": 3}, pause_us={"p50": 1900, "p99": 7000}),
                          sample(WEB, "native", 1000.0), sample(WEB, "twin", 950.0),
                          sample(PING, "native", 0.5), sample(PING, "colo", 1.0)])


class ResultsTest(unittest.TestCase):
    def test_ratio_below_one_is_always_worse(self):
        runs = {(run["load"], run["mode"]): run for run in some_runs()}
        self.assertEqual(runs[WEB, "colo"]["ratio_native"], 0.9)
        self.assertEqual(runs[WEB, "colo"]["ratio_twin"], 0.947)
        self.assertEqual(runs[PING, "colo"]["ratio_native"], 0.5)
        self.assertIsNone(runs[PING, "colo"]["ratio_twin"])
        self.assertEqual(runs[WEB, "native"]["ratio_native"], 1.0)

    def test_median_of_rounds_ignores_failed_ones(self):
        samples = [sample(WEB, "native", value) for value in (10.0, None, 30.0, 11.0)]
        (run,) = results.merge(samples)
        self.assertEqual((run["value"], run["rounds"]), (11.0, [10.0, 30.0, 11.0]))

    def test_a_load_that_always_failed_has_no_value(self):
        (run,) = results.merge([sample(WEB, "colo", None, error="x")])
        self.assertIsNone(run["value"])
        self.assertIsNone(run["ratio_native"])

    def test_checkpoints_between(self):
        old = {"checkpoints": {"by_cause": {"periodic": 2, "mismatch": 1}}}
        new = {"checkpoints": {"by_cause": {"periodic": 5, "mismatch": 1, "missing": 1}}}
        self.assertEqual(results.by_cause_between(old, new), {"periodic": 3, "missing": 1})
        self.assertEqual(results.by_cause_between(None, None), {})

    def test_share_of_other_programs(self):
        busy = {"other_cpu_s": 2.0, "client_cpu_s": 1.0, "idle_cpu_s": 3.0,
                "cpu_s": {"a": {"qemu": 1.5}, "b": {"qemu": 0.5}}}
        self.assertEqual(results.other_share([busy, busy]), 0.25)
        self.assertEqual(results.other_share([]), 0.0)

    def test_names_are_unique(self):
        self.assertEqual(len(BY_NAME), len(LOADS))


class OutputTest(unittest.TestCase):
    def content(self):
        return {"date": "2026-01-01", "machine": {"cpus": 2, "cpu": "x", "kernel": "6"},
                "seconds": 5, "rounds": 1, "mem": "512M", "other_share": 0.0, "command": "bench/bench",
                "runs": some_runs()}

    def test_table_replaces_only_what_is_between_the_markers(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "RESULTS.md")
            with open(path, "w", encoding="utf-8") as out:
                out.write(f"above\n{table.BEGIN}\nold\n{table.END}\nbelow\n")
            table.update(path, self.content())
            table.update(path, self.content())
            with open(path, encoding="utf-8") as done:
                text = done.read()
        self.assertTrue(text.startswith("above\n"))
        self.assertTrue(text.endswith("\nbelow\n"))
        self.assertNotIn("old", text)
        self.assertEqual(text.count("| web, keepalive, 1k, c8 | requests/s | 1,000 | 950 | 900 |"), 1)
        self.assertIn("mismatch 3", text)

    def test_missing_markers_are_refused(self):
        with tempfile.NamedTemporaryFile("w", suffix=".md") as file:
            file.write("written by hand")
            file.flush()
            with self.assertRaises(ValueError):
                table.update(file.name, self.content())

    def test_chart_has_a_column_per_mode(self):
        program = chart.script(some_runs(), "x.png", 1)
        self.assertIn('"web, keepalive, 1k, c8" 0.950 0.900', program)
        self.assertIn('"ping, median" NaN 0.500', program)
        self.assertIsNone(chart.script([], "x.png", 1))


class SamplerTest(unittest.TestCase):
    def test_finds_this_process(self):
        namespace = os.readlink("/proc/self/ns/net")
        self.assertIn(os.getpid(), labctl.namespace_pids(namespace))
        name, seconds = sampler.process_cpu(os.getpid())
        self.assertTrue(name)
        self.assertGreaterEqual(seconds, 0)
        self.assertGreater(sampler.process_memory(os.getpid())[0], 1000)

    def test_meter_sees_own_work_and_not_that_of_others(self):
        meter = sampler.Meter({"a": os.readlink("/proc/self/ns/net")})
        while sampler.machine_cpu()[0] - meter.machine[0] < 0.3:
            sum(range(10000))
        found = meter.read(0.0)
        self.assertGreater(sum(found["cpu_s"]["a"].values()), 0.05)
        self.assertGreaterEqual(found["other_cpu_s"], 0)

    def test_difference(self):
        before = {"a": {1: ("qemu", 2.0)}}
        after = {"a": {1: ("qemu", 3.5), 2: ("colo", 0.5)}}
        self.assertEqual(sampler.cpu_between(before, after), {"a": {"qemu": 1.5, "colo": 0.5}})


if __name__ == "__main__":
    unittest.main()
