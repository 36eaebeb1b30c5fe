#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ratios, medians, tables and the chart's program of `make bench`."""
import importlib.machinery
import importlib.util
import os
import socket
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../../bench"), os.path.join(HERE, "../../demo")]

import apps
import chart
import labctl
import results
import sampler
import table
from loads import BY_NAME, LOADS, MODES
from work import Wrong

WEB, PING, ECHO = "web-keepalive-1k-c8", "ping", "echo"


def sample(load, mode, value, **more):
    """A sample as bench/bench takes it."""
    return {"load": load, "mode": mode, "vcpus": 1, "value": value, "unit": BY_NAME[load].unit, **more}


def some_runs():
    """Native, twin and colo of two loads."""
    return results.merge([sample(WEB, "colo", 900.0, p50_ms=8.0, p99_ms=20.0,
                                 checkpoints={"mismatch": 3, "periodic": 2},
                                 differences={"payload": 3}, requests=6000, elapsed_s=6.0,
                                 pause_us={"p50": 1900, "p99": 7000}),
                          sample(WEB, "checkpoint", 100.0),
                          sample(ECHO, "native", 0.5), sample(ECHO, "twin", 0.75),
                          sample(ECHO, "colo", 0.875, requests=1000, elapsed_s=8.0),
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

    def test_differences_between(self):
        old = {"net": {"differences": {"payload": 2, "no-ack": 0}}}
        new = {"net": {"differences": {"payload": 3, "no-ack": 0}}}
        self.assertEqual(results.differences_between(old, new), {"payload": 1})
        self.assertEqual(results.differences_between(None, new), {"payload": 3})

    def test_share_of_other_programs(self):
        busy = {"other_cpu_s": 2.0, "client_cpu_s": 1.0, "idle_cpu_s": 3.0,
                "cpu_s": {"a": {"qemu": 1.5}, "b": {"qemu": 0.5}}}
        self.assertEqual(results.other_share([busy, busy]), 0.25)
        self.assertEqual(results.other_share([]), 0.0)

    def test_names_are_unique(self):
        self.assertEqual(len(BY_NAME), len(LOADS))

    def test_every_load_is_run_protected_and_alone(self):
        for load in LOADS:
            self.assertLessEqual({"native", "colo"}, set(load.modes), load.name)
            self.assertLessEqual(set(load.modes), set(MODES), load.name)
            self.assertTrue(not load.lockstep or "twin" in load.modes, load.name)

    def test_old_figures_are_of_loads_that_exist(self):
        self.assertLessEqual(set(table.WITHOUT_OFFLOADS), set(BY_NAME))


class LoadgenTest(unittest.TestCase):
    def setUp(self):
        path = os.path.join(HERE, "../../bench/loadgen")
        loader = importlib.machinery.SourceFileLoader("loadgen", path)
        self.loadgen = importlib.util.module_from_spec(
            importlib.util.spec_from_loader("loadgen", loader))
        loader.exec_module(self.loadgen)

    def test_every_load_can_be_run(self):
        self.assertLessEqual({load.kind for load in LOADS}, set(self.loadgen.KINDS))

    def iperf3(self, *outputs):
        """iperf3_measure() when iperf3 says @outputs in turn."""
        with mock.patch.object(self.loadgen, "run", side_effect=[(out, "") for out in outputs]) as run:
            found = self.loadgen.iperf3_measure(BY_NAME["iperf3-from-8"],
                                                mock.Mock(ip="192.0.2.1"), 1)
        return found, run.call_args.args[0]

    def test_iperf3_counts_what_arrived(self):
        found, args = self.iperf3('{"end": {"sum_sent": {"bits_per_second": 3e9},'
                                  ' "sum_received": {"bits_per_second": 2e9}}}')
        self.assertEqual(found["value"], 2.0)
        self.assertEqual(args[-4:], ["1", "-P", "8", "-R"])

    def test_iperf3_knocks_again(self):
        found, _ = self.iperf3('{"end": {}, "error": "reset by peer"}',
                               '{"end": {"sum_received": {"bits_per_second": 1e9}}}')
        self.assertEqual(found["value"], 1.0)

    def test_iperf3_that_never_answers_is_an_error(self):
        with mock.patch.object(self.loadgen, "IPERF3_DOOR", -2), self.assertRaises(ValueError):
            self.iperf3('{"end": {}, "error": "reset by peer"}')


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

    def test_causes_are_counted_by_time_and_by_request(self):
        rows = "\n".join(table.causes(some_runs(), 1))
        self.assertIn("| web, keepalive, 1k, c8 | 6,000 | mismatch 3, periodic 2 | payload 3 | 30 | 0.5 | "
                      "0.90 | 0.10 |", rows)
        self.assertIn("| echo of 32 bytes, median | 1,000 | none | none | 0 | 0 | 0.57 | - |", rows)

    def test_added_latency_is_beyond_the_later_twin(self):
        (row,) = table.added(some_runs(), 1)[2:]
        self.assertEqual(row, "| echo of 32 bytes, median | 0.5 | 0.75 | 0.875 | 0.12 | 0.38 |")

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


class SmallAnswersTest(unittest.TestCase):
    """Against a guest that is a thread of this process."""

    def serve(self, delay):
        """A fake guest: an echo that is late by @delay; its address."""
        listener = socket.create_server(("127.0.0.1", 0))

        def run():
            with listener, listener.accept()[0] as sock:
                while data := sock.recv(4096):
                    time.sleep(delay)
                    sock.sendall(data)
        threading.Thread(target=run, daemon=True).start()
        return listener.getsockname()

    def guest(self, delay):
        """The client's end of one."""
        _, port = self.serve(delay)
        with mock.patch.object(apps, "ECHO_PORT", port):
            guest = apps.EchoSocket("127.0.0.1")
        self.addCleanup(guest.sock.close)
        return guest

    def test_the_slower_twin_counts(self):
        guests = [self.guest(0.0), self.guest(0.05)]
        for number in range(4):
            self.assertGreaterEqual(apps.ask_all(guests, number), 0.05)
        self.assertLess(apps.ask_all(guests[:1], 4), 0.05)

    def test_a_wrong_answer_is_no_answer(self):
        guest = self.guest(0.0)
        guest.ask(1)
        guest.line = b"another"
        with self.assertRaises(Wrong):
            guest.answer()

    def test_no_answer_at_all_is_an_error(self):
        with self.assertRaises(ValueError):
            apps.latencies([])


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
