#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The LAN watch on made-up frames: it accepts takeovers, and finds two hosts that serve."""
import os
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "lab"))

from labkit.watch import ANNOUNCE_S, Watch, frame_kind  # noqa: E402

ETHERNET = bytes(12)
ADDRESS, OTHER = bytes([192, 168, 77, 100]), bytes([192, 168, 77, 1])


def arp(own, asked):
    """An ARP request as a frame."""
    return ETHERNET + b"\x08\x06" + bytes(14) + own + bytes(6) + asked


def icmp6(kind, flags=0):
    """An ICMPv6 message as a frame."""
    return ETHERNET + b"\x86\xdd" + bytes(6) + bytes([58]) + bytes(33) + bytes([kind, 0, 0, 0, flags]) + bytes(20)


class Kinds(unittest.TestCase):
    """What is an announcement and what is payload."""

    def test_kinds(self):
        self.assertEqual(frame_kind(ETHERNET + b"\x80\x35" + bytes(28)), "announcement")
        self.assertEqual(frame_kind(arp(ADDRESS, ADDRESS)), "announcement")
        self.assertEqual(frame_kind(arp(ADDRESS, OTHER)), "other")
        self.assertEqual(frame_kind(ETHERNET + b"\x08\x00" + bytes(40)), "ip")
        self.assertEqual(frame_kind(ETHERNET + b"\x81\x00\0\7\x08\x00" + bytes(40)), "ip")
        self.assertEqual(frame_kind(ETHERNET + b"\x81\x00\0\7" + arp(ADDRESS, ADDRESS)[12:]), "announcement")
        self.assertEqual(frame_kind(icmp6(136)), "announcement")
        self.assertEqual(frame_kind(icmp6(136, 0x40)), "other")
        self.assertEqual(frame_kind(icmp6(129)), "ip")
        for length in range(60):
            frame_kind(arp(ADDRESS, ADDRESS)[:length])
            frame_kind(icmp6(136)[:length])


class Rule(unittest.TestCase):
    """One host serves at a time."""

    def play(self, *frames):
        """Frames as (time in ms, host, first letter of the kind)."""
        watch = Watch()
        kinds = {"i": "ip", "a": "announcement", "o": "other"}
        for ms, host, kind in frames:
            watch.frame(ms / 1000, host, kinds[kind])
        return watch.summary()

    def expect(self, summary, takeovers, late, violations):
        self.assertEqual("".join(t["host"] for t in summary["takeovers"]), takeovers)
        self.assertEqual("".join(v["host"] for v in summary["violations"]), violations)
        self.assertEqual(summary["late"], late)

    def test_one_host(self):
        self.expect(self.play((0, "a", "i"), (1, "a", "a"), (2, "a", "i")), "", 0, "")

    def test_takeover(self):
        self.expect(self.play((0, "a", "i"), (9, "b", "a"), (10, "b", "i"), (60, "b", "a"), (70, "b", "i")), "b", 0, "")

    def test_announcement_after_the_first_answer(self):
        self.expect(self.play((0, "a", "i"), (9, "b", "i"), (60, "b", "a"), (70, "b", "i")), "b", 1, "")

    def test_there_and_back(self):
        self.expect(self.play((0, "a", "i"), (9, "b", "a"), (60, "b", "a"), (5000, "a", "a"), (5001, "a", "i")), "ba", 0, "")

    def test_late_frames_of_the_former_host(self):
        self.expect(self.play((0, "a", "i"), (9, "b", "a"), (10, "b", "i"), (11, "a", "i"), (12, "b", "i"), (90, "a", "o"),
                              (99, "b", "i")), "b", 2, "")

    def test_thawed_and_silent(self):
        self.expect(self.play((0, "a", "i"), (9, "b", "a"), (2900, "b", "i"), (3000, "a", "i"), (3050, "a", "i")), "b", 2, "")

    def test_goes_on_after_the_takeover(self):
        for kind in "io":
            self.expect(self.play((0, "a", "i"), (9, "b", "a"), (10, "b", "i"), (11, "a", kind), (300, "a", kind)), "b", 1, "a")

    def test_speaks_again_later(self):
        self.expect(self.play((0, "a", "i"), (9, "b", "a"), (10, "a", "i"), (5000, "b", "i"), (5001, "a", "i")), "b", 1, "a")

    def test_takes_over_unannounced(self):
        self.expect(self.play((0, "a", "i"), (9, "b", "i"), (200, "b", "i"), (201, "b", "i")), "", 1, "bb")

    def test_two_serve_by_turns(self):
        frames = [(0, "a", "i"), (9, "b", "a")]
        for ms in range(10, 400, 2):
            frames += [(ms, "a", "i"), (ms + 1, "b", "i")]
        self.assertGreater(self.play(*frames)["violation_count"], 100)

    def test_old_announcement_explains_nothing(self):
        ms = 20 + 1000 * ANNOUNCE_S
        self.expect(self.play((0, "a", "a"), (9, "b", "a"), (10, "b", "i"), (ms, "a", "i"), (ms + 500, "a", "i")), "b", 1, "a")

    def test_boots_after_both_failed(self):
        said = self.play((0, "a", "i"), (9, "b", "a"), (10, "b", "i"), (5000, "a", "o"), (5001, "a", "i"))
        self.expect(said, "ba", 0, "")
        self.assertEqual([t["event"] for t in said["takeovers"]], ["takeover", "boots"])

    def test_summaries(self):
        watch = Watch()
        watch.frame(0, "a", "ip")
        watch.frame(1, "b", "announcement")
        self.assertEqual(len(watch.summary()["takeovers"]), 1)
        watch.reset()
        watch.frame(2, "b", "ip")
        self.assertEqual(watch.summary()["takeovers"], [])
        self.assertEqual(watch.summary()["server"], "b")


if __name__ == "__main__":
    unittest.main()
