#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The arbiter `file`: the rules, damaged files, directories that are not there, link(2) as NFS may answer it."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import arblib
import common
from arblib import FILE, LOST, WON

SHIM = os.path.join(os.path.dirname(arblib.COLO), "tests", "arbiter", "link_shim.so")


class File(common.Rules, unittest.TestCase):
    ROUNDS = 400

    def prepare(self):
        self.shared = os.path.join(self.dir, "shared")
        os.mkdir(self.shared)

    def helper(self, node, **settings):
        return arblib.Helper(FILE, node, **{"directory": self.shared, **settings})

    def files(self):
        return sorted(os.listdir(self.shared))

    def test_files(self):
        a = self.ask("a")
        a.claim(1)
        a.claim(12)
        self.assertEqual(self.files(), ["web.00000000000000000001", "web.00000000000000000012"])

    def test_no_directory(self):
        os.rmdir(self.shared)
        self.check_unknown(self.ask("a"), "shared/: cannot be opened: No such file")

    def test_damaged(self):
        """The highest one counts: as long as it cannot be read nobody wins."""
        a = self.ask("a")
        a.claim(1)
        name = os.path.join(self.shared, "web.%020d" % 2)
        good = '{"generation":2,"owner":"b","vm":"web"}'
        for text in ("", "{}", good, '{"generation":2', "x" * 1000):
            with open(name, "w", encoding="ascii") as f:
                f.write(text)
            self.check_unknown(a, r"web\.0*2 is damaged")
        os.unlink(name)
        self.assertEqual((a.read().record(), a.claim(2).status), ((1, "a"), WON))

    def test_wrong_content_for_name(self):
        a = self.ask("a")
        a.claim(1)
        os.link(os.path.join(self.shared, "web.%020d" % 1), os.path.join(self.shared, "web.%020d" % 3))
        self.check_unknown(a, r"web\.0*3 is damaged")

    def test_other_files(self):
        """What others have there, and what a host left that died in a claim, is no record."""
        for name in ("web", "web.1", "web.0000000000000000000x", ".tmp.web.b.1.0", "webber.%020d" % 9):
            with open(os.path.join(self.shared, name), "w", encoding="ascii"):
                pass
        a = self.ask("a")
        self.assertEqual((a.read().record(), a.claim(1).status), ((0, ""), WON))

    def shim(self, how):
        if not os.path.exists(SHIM):
            self.fail(f"{SHIM} is not built")
        return self.ask("a", preload={"LD_PRELOAD": SHIM, "LINK_SHIM": how})

    def test_link_done_but_failed(self):
        """An NFS client that sends link() again because the answer was lost gets an error for what it did."""
        a, b = self.shim("done"), self.ask("b")
        for g in range(1, 20):
            self.assertEqual(a.claim(g).status, WON)
            self.assertEqual(b.claim(g).status, LOST)

    def test_link_not_done(self):
        a = self.shim("fails")
        a.send(arblib.CLAIM, 1)
        answer = a.answer()
        self.assertLess(answer.status, 0)
        self.assertIn("cannot be created", answer.error)
        self.assertEqual((self.ask("b").claim(1).status, self.files()), (WON, ["web.%020d" % 1]))

    def test_link_not_done_but_said_to_be(self):
        """Said to be done and not there: not won."""
        a = self.shim("lies")
        answer = a.claim(1)
        self.assertLess(answer.status, 0)
        self.assertIn("is not there", answer.error)

    def test_full(self):
        """A claim that cannot be written is unknown, and leaves nothing that looks like one."""
        a = self.ask("a", preload={"LD_PRELOAD": SHIM, "LINK_SHIM": "nospace"})
        answer = a.claim(1)
        self.assertLess(answer.status, 0)
        self.assertIn("No space left", answer.error)
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    unittest.main()
