#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The demonstration's clients against a guest made of Python: what goes wrong must be counted."""
import asyncio
import hashlib
import os
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../demo"))

from fake_guest import BIG, PAGE, FakeGuest
from load import pgbench, pgwire, web, wrk
from load.account import Account, Gaps, percentile
from load.download import Download
from load.echo import EchoSession
from load.ledger import Ledger, compare
from load.wire import Flow, Wire, segment_parse

HOST = "127.0.0.1"
SECONDS = 0.6


def guest_run(coroutine, faults=None, **guest_options):
    """Run coroutine(guest); faults(guest) is called a third of SECONDS later."""
    async def body():
        async with FakeGuest(**guest_options) as guest:
            work = asyncio.create_task(coroutine(guest))
            await asyncio.sleep(SECONDS / 3)
            if faults:
                faults(guest)
            return await asyncio.wait_for(work, 15)
    return asyncio.run(body())


def fault(**values):
    """A function which sets faults on a guest."""
    def apply(guest):
        for key, value in values.items():
            setattr(guest, key, value)
    return apply


class GapsTest(unittest.TestCase):
    def test_longest_gap_over_connections(self):
        account = Account("x")
        first, second = Gaps(account, 0), Gaps(account, 0)
        for now in (1, 2, 5):
            first.answer(now)
        second.answer(2.5)
        self.assertEqual(account.max_gap, 3)
        self.assertEqual(account.gap_at, 5)

    def test_silence_at_the_end_counts_only_when_waiting(self):
        account = Account("x")
        gaps = Gaps(account, 0)
        gaps.answer(1)
        gaps.end(9, False)
        self.assertEqual(account.max_gap, 1)
        gaps.end(9, True)
        self.assertEqual(account.max_gap, 8)

    def test_resume_forgets_the_time_in_between(self):
        account = Account("x")
        gaps = Gaps(account, 0)
        gaps.resume(10)
        gaps.answer(10.5)
        self.assertEqual(account.max_gap, 0.5)

    def test_percentile(self):
        self.assertEqual(percentile([], 50), None)
        self.assertEqual(percentile(range(1, 101), 99), 99)
        self.assertEqual(percentile([3, 1, 2], 50), 2)

    def test_notes_are_bounded(self):
        account = Account("x")
        for number in range(100):
            account.failed(number)
        self.assertEqual(account.failures, 100)
        self.assertLess(len(account.notes), 20)


def web_run(close, faults=None, **guest_options):
    """The account of a short web load."""
    account = Account("web", not close)

    async def work(guest):
        load = web.WebLoad(account, HOST, guest.http, "/1k", PAGE, close, 0.002)
        await load.run(2, time.monotonic() + SECONDS)
    guest_run(work, faults, **guest_options)
    return account


class WebTest(unittest.TestCase):
    def test_clean(self):
        for close in (False, True):
            account = web_run(close)
            self.assertGreater(account.requests, 20)
            self.assertEqual((account.failures, account.broken), (0, 0), account.notes)
            self.assertLess(account.max_gap, 0.5)

    def test_announced_close_is_not_broken(self):
        account = web_run(False, keepalive_requests=7)
        self.assertGreater(account.requests, 20)
        self.assertEqual((account.failures, account.broken), (0, 0), account.notes)

    def test_wrong_bytes_are_failures(self):
        account = web_run(False, fault(wrong=3))
        self.assertEqual((account.failures, account.broken), (3, 0), account.notes)

    def test_reset_is_broken_once(self):
        account = web_run(False, fault(cut=0))
        self.assertEqual((account.failures, account.broken), (1, 1), account.notes)

    def test_stall_is_a_gap_and_no_failure(self):
        account = web_run(False, fault(stall=0.7))
        self.assertEqual((account.failures, account.broken), (0, 0), account.notes)
        self.assertGreater(account.max_gap, 0.69)
        self.assertLess(account.max_gap, 1.2)

    def test_nobody_listens(self):
        account = Account("web")

        async def work(_guest):
            load = web.WebLoad(account, HOST, 1, "/1k", PAGE, False, 0)
            await load.run(1, time.monotonic() + 0.3)
        guest_run(work)
        self.assertGreater(account.failures, 0)


def echo_run(faults=None):
    """The account of a short echo session."""
    account = Account("echo")

    async def work(guest):
        await EchoSession(account, HOST, guest.echo).run(time.monotonic() + SECONDS)
    guest_run(work, faults)
    return account


class EchoTest(unittest.TestCase):
    def test_clean(self):
        account = echo_run()
        self.assertGreaterEqual(account.requests, 20)
        self.assertEqual((account.failures, account.broken), (0, 0), account.notes)
        self.assertIsNotNone(account.extra["rtt_p50_ms"])

    def test_stall(self):
        account = echo_run(fault(stall=0.8))
        self.assertEqual((account.failures, account.broken), (0, 0), account.notes)
        self.assertGreater(account.max_gap, 0.79)

    def test_wrong_byte(self):
        account = echo_run(fault(wrong=1))
        self.assertEqual((account.failures, account.broken), (1, 0), account.notes)

    def test_reset(self):
        account = echo_run(fault(cut=0))
        self.assertEqual(account.broken, 1, account.notes)
        self.assertGreater(account.failures, 0)


def download_run(faults=None, sha256=hashlib.sha256(BIG).hexdigest()):
    """The account of a download of about 0.8 s."""
    account = Account("download")

    async def work(guest):
        await Download(account, HOST, guest.http, "/10m.bin", sha256, len(BIG) / 0.8).run()
    guest_run(work, faults)
    return account


class DownloadTest(unittest.TestCase):
    def test_clean_and_paced(self):
        begin = time.monotonic()
        account = download_run()
        self.assertEqual((account.requests, account.failures, account.broken), (1, 0, 0),
                         account.notes)
        self.assertGreater(time.monotonic() - begin, 0.6)
        self.assertEqual(account.extra["bytes"], len(BIG))

    def test_wrong_hash(self):
        account = download_run(sha256="0" * 64)
        self.assertEqual((account.failures, account.broken), (1, 0), account.notes)


def ledger_run(faults=None):
    """Account and audit of a short ledger run."""
    account = Account("ledger")
    with tempfile.NamedTemporaryFile("r") as book:
        async def work(guest):
            ledger = Ledger(account, (HOST, guest.pg, "postgres", "bench"), "t", book.name, 0.002)
            await ledger.run(time.monotonic() + SECONDS)
            if faults == "forget":
                del guest.tokens[3:5]
            return await ledger.audit()
        audit = guest_run(work, None if faults == "forget" else faults)
        lines = book.read().split()
    return account, audit, lines


class LedgerTest(unittest.TestCase):
    def test_clean(self):
        account, audit, lines = ledger_run()
        self.assertGreater(account.requests, 20)
        self.assertEqual((account.failures, account.broken), (0, 0), account.notes)
        self.assertEqual(len(lines), account.requests)
        self.assertEqual(audit, {"acknowledged": account.requests, "missing": 0, "duplicates": 0,
                                 "unacknowledged": 0})

    def test_lost_commits_are_missing(self):
        _, audit, _ = ledger_run("forget")
        self.assertEqual(audit["missing"], 2)

    def test_reset_is_broken_and_its_token_not_acknowledged(self):
        account, audit, _ = ledger_run(fault(cut=0))
        self.assertEqual((account.failures, account.broken), (1, 1), account.notes)
        self.assertEqual((audit["missing"], audit["unacknowledged"]), (0, 1))

    def test_compare_counts_duplicates(self):
        self.assertEqual(compare(["a", "b"], ["a", "a", "c"]),
                         {"acknowledged": 2, "missing": 1, "duplicates": 1, "unacknowledged": 1})

    def test_server_error_is_told_in_its_words(self):
        async def work(guest):
            session = await pgwire.Connection.open(HOST, guest.pg, "postgres", "bench")
            with self.assertRaisesRegex(pgwire.PgError, "syntax error"):
                await session.query("no SQL")
            session.close()
        guest_run(work)


def wire_run(faults=None):
    """(longest gap on the wire, the ledger's account, gap without the ledger's connection)."""
    account = Account("ledger")

    async def work(guest):
        wire = Wire(guest.pg)
        wire.start()
        ledger = Ledger(account, (HOST, guest.pg, "postgres", "bench"), "t", os.devnull, 0.002)
        await ledger.run(time.monotonic() + SECONDS)
        result = wire.longest(), wire.longest(ledger.ports)
        wire.stop()
        return result
    return (*guest_run(work, faults), account)


@unittest.skipUnless(os.geteuid() == 0, "packet sockets need root")
class WireTest(unittest.TestCase):
    def test_sees_the_gap_that_the_client_saw(self):
        longest, others, account = wire_run(fault(stall=0.7))
        self.assertAlmostEqual(longest, account.max_gap, delta=0.15)
        self.assertGreater(longest, 0.69)
        self.assertEqual(others, 0)

    def test_clean(self):
        longest, _, account = wire_run()
        self.assertGreater(account.requests, 20)
        self.assertLess(longest, 0.5)

    def test_repeated_bytes_are_no_answer(self):
        flow = Flow(0.0, 100)
        flow.move(1.0, 150)
        flow.move(4.0, 150)
        flow.move(5.0, 120)
        flow.move(6.0, 0xffffff00)
        self.assertEqual((flow.gap, flow.last), (1.0, 1.0))
        flow.move(7.0, 151)
        self.assertEqual(flow.gap, 6.0)

    def test_short_packets_are_ignored(self):
        for length in range(40):
            self.assertIsNone(segment_parse(bytes([0x45]) * length))


WRK = """Running 2s test @ http://10.0.0.9/1k
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.77ms    1.33ms   1.05s    94.11%
    Req/Sec     2.95k   316.11     3.33k    76.19%
  Latency Distribution
     50%    2.55ms
     75%    2.75ms
     90%    3.51ms
     99%  850.00us
  6162 requests in 2.10s, 7.77MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 5
Requests/sec:   2934.12
Transfer/sec:      3.70MB
"""

PGBENCH = """pgbench (15.20)
number of transactions actually processed: 812
number of failed transactions: 1 (0.123%)
latency average = 4.926 ms
initial connection time = 5.5 ms
tps = 406.000000 (without initial connection time)
"""


class ReportsTest(unittest.TestCase):
    def test_wrk(self):
        account = Account("wrk")
        wrk.fill(account, wrk.parse(WRK), 8)
        self.assertEqual((account.requests, account.failures, account.broken), (6162, 15, 5))
        self.assertAlmostEqual(account.max_gap, 1.05)
        self.assertEqual(wrk.parse(WRK)["p99_ms"], 0.85)
        with self.assertRaises(ValueError):
            wrk.parse("unable to connect to 10.0.0.9:80 Connection refused")

    def test_wrk_that_hangs(self):
        account = Account("wrk")
        wrk.fill(account, wrk.parse(WRK + "Silence: 5000000 us, at the end 4000000 us\n"), 8)
        self.assertEqual((account.failures, account.broken), (23, 13))
        self.assertEqual(account.max_gap, 5.0)

    def test_pgbench(self):
        account = Account("pgbench")
        err = "pgbench: error: client 1 aborted in command 4 (SQL) of script 0; perhaps ..."
        pgbench.fill(account, pgbench.parse(PGBENCH, err))
        self.assertEqual((account.requests, account.failures, account.broken), (814, 2, 1))
        with self.assertRaises(ValueError):
            pgbench.parse("", "pgbench: error: connection to server failed")

    def test_sums(self):
        self.assertEqual(pgbench.sums_check(("7", "7", "7", "7", "12"), 2, 10), [])
        self.assertEqual(len(pgbench.sums_check(("7", "7", "7", "8", "12"), 2, 10)), 1)
        self.assertEqual(len(pgbench.sums_check(("7", "7", "7", "7", "11"), 2, 10)), 1)


if __name__ == "__main__":
    unittest.main()
