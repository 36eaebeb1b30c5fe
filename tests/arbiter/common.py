# SPDX-License-Identifier: GPL-2.0-or-later
"""What every arbiter must do, whatever is behind it. A class with this and unittest.TestCase gives helper(node)."""
import os
import shutil
import signal
import struct
import time

import arblib
from arblib import CLAIM, LOST, PULSE, READ, WON, wait_until


class Rules:
    ROUNDS = 150

    def setUp(self):
        self.dir = arblib.temporary()
        self.addCleanup(shutil.rmtree, self.dir, True)
        self.prepare()

    def ask(self, node, **settings):
        helper = self.helper(node, **settings)
        self.addCleanup(helper.close)
        return helper

    def test_claims(self):
        """First wins, again wins, the other loses, lower ones lose, higher ones win."""
        a, b = self.ask("a"), self.ask("b")
        self.assertEqual((a.read().status, a.read().record()), (0, (0, "")))
        for _ in range(3):
            answer = a.claim(1)
            self.assertEqual((answer.status, answer.record(), answer.error), (WON, (1, "a"), ""))
        self.assertEqual((b.claim(1).status, b.claim(1).record()), (LOST, (1, "a")))
        self.assertEqual(b.claim(2).status, WON)
        for claim in (a.claim(1), a.claim(2), b.claim(1)):
            self.assertEqual((claim.status, claim.record()), (LOST, (2, "b")))
        self.assertEqual((b.claim(2).status, b.read().record(), a.read().record()), (WON, (2, "b"), (2, "b")))
        self.assertEqual((a.claim(7).status, b.claim(6).status, b.claim(7).status), (WON, LOST, LOST))
        self.assertEqual(a.claim(2**53 + 1).status, WON)
        self.assertEqual(b.read().record(), (2**53 + 1, "a"))

    def test_vms_are_apart(self):
        a, other = self.ask("a"), self.ask("b", vm="web.2")
        self.assertEqual((a.claim(5).status, other.read().record()), (WON, (0, "")))
        self.assertEqual((other.claim(1).status, a.read().record()), (WON, (5, "a")))

    def test_race(self):
        a, b = self.ask("a"), self.ask("b")
        winners = arblib.race(a, b, range(1, self.ROUNDS + 1))
        self.assertEqual(len(winners), self.ROUNDS)
        print(f"{type(self).__name__}: {self.ROUNDS} races, a won {sum(w == 'a' for w in winners.values())}", flush=True)

    def test_race_of_different_generations(self):
        """Of g and g+1, g+1 always wins; g may have been there before."""
        a, b = self.ask("a"), self.ask("b")
        for g in range(1, self.ROUNDS, 2):
            a.send(CLAIM, g)
            b.send(CLAIM, g + 1)
            low, high = a.answer(), b.answer()
            self.assertEqual(high.status, WON)
            self.assertIn(low.status, (WON, LOST))
            self.assertEqual((a.claim(g).status, a.read().record()), (LOST, (g + 1, "b")))

    def test_helper_ends_with_its_daemon(self):
        helper = self.ask("a")
        helper.read()
        helper.sock.close()
        self.assertEqual(helper.process.wait(5), 0)

    def test_pulse(self):
        """Also while nothing is asked; a stopped helper has none."""
        helper = self.ask("a")
        helper.sock.settimeout(5)
        self.assertEqual(struct.unpack_from("I", helper.sock.recv(4096))[0], PULSE)
        helper.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        helper.sock.setblocking(False)
        try:
            while helper.sock.recv(4096):
                pass
        except BlockingIOError:
            pass
        helper.sock.settimeout(1.5)
        self.assertRaises(TimeoutError, helper.sock.recv, 4096)
        helper.process.send_signal(signal.SIGCONT)

    def check_unknown(self, helper, text, limit_ms=3000):
        """Neither read nor claim are anything but unknown, and the error says so."""
        for op in (READ, CLAIM):
            helper.send(op, 9, limit_ms)
            answer = helper.answer()
            self.assertLess(answer.status, 0, answer)
            self.assertRegex(answer.error, text)
