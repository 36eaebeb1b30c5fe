#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`colo explain` against a daemon's answers made here: what is shown, what goes into the file, errors.

Usage: test_explain.py COLO
"""
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COLO = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(ROOT, "build", "colo")
CONFIG = """[vm]
name = web
mac = 52:54:00:12:34:56
disk = /srv/web.img
[host a]
address = 127.0.0.1
state = {0}
[host b]
address = 127.0.0.2
"""


class Daemon:
    """Answers lines on the control socket with what a test wants said."""

    def __init__(self, directory, answer):
        self.answer, self.requests = answer, []
        self.path = os.path.join(directory, "colo.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            with s, s.makefile("rw") as f:
                for line in f:
                    self.requests.append(json.loads(line))
                    reply = self.answer(self.requests[-1])
                    if reply is None:
                        break
                    f.write(json.dumps(reply) + "\n")
                    f.flush()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)
        os.unlink(self.path)


def side(before, after, fin=False, rst=False, value=0):
    return {"before": before.hex(), "after": after.hex(), "fin": fin, "rst": rst, "value": value}


def report(kind="payload", cause="mismatch", **more):
    r = {"number": 1, "nic": 0, "at": 1700000000123, "age_ms": 5000, "epoch": 3, "cause": cause, "kind": kind,
         "flow": "tcp 10.0.0.2:80 to 10.0.0.9:4000", "offset": 16, "offset_in": "stream",
         "pvm": side(b"Set-Cookie: sid=", b"k711; Path=/"), "svm": side(b"Set-Cookie: sid=", b"z911; Path=/"),
         "waited_us": 2500, "lag_us": 300, "lag_dev_us": 100, "patience_us": 20000}
    r.update(more)
    return {k: v for k, v in r.items() if v is not ...}


def answer(*reports, **more):
    return {"ok": True, "vm": "web", "node": "a", "state": "protected", "mode": "colo", "captured": 0,
            "differences": {"payload": len(reports), "fin": 0}, "reports": list(reports), **more}


def packet(i, size=60):
    """A pcapng packet block."""
    data = bytes([i & 255]) * size
    body = struct.pack("=IIIII", 0, 0, i, size, size) + data + bytes(-size % 4) + bytes(4)
    return struct.pack("=II", 6, len(body) + 12) + body + struct.pack("=I", len(body) + 12)


class Explain(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="colo-explain-")
        self.addCleanup(shutil.rmtree, self.dir) # the last of the clean-ups
        self.config = os.path.join(self.dir, "web.conf")
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(CONFIG.format(self.dir))
        self.daemon = None
        self.addCleanup(self.serve, None)

    def serve(self, reply):
        """In place of an earlier one; None: no daemon."""
        if self.daemon:
            self.daemon.close()
        self.daemon = Daemon(self.dir, reply if callable(reply) else lambda _: reply) if reply is not None else None

    def colo(self, *words, node="a"):
        return subprocess.run([COLO, "explain", "--node", node, *words, self.config], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=20, check=False,
                              env={**os.environ, "TZ": "UTC"})

    def shown(self, *reports, **more):
        self.serve(answer(*reports, **more))
        r = self.colo()
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        for line in r.stdout.splitlines():
            self.assertLessEqual(len(line), 110, line)
        return r.stdout

    def test_payload(self):
        out = self.shown(report())
        self.assertIn("2023-11-14 22:13:20.123  nic0  mismatch: payload  tcp 10.0.0.2:80 to 10.0.0.9:4000\n", out)
        self.assertIn("first difference at byte 16 of the guest's stream\n", out)
        lines = out.splitlines()
        both = next(i for i, l in enumerate(lines) if " both " in l)
        self.assertRegex(lines[both], r"^ +0  both +53 65 74 .*\|Set-Cookie: sid=\|$")
        self.assertRegex(lines[both + 1], r"^ +16  PVM +6b 37 31 31 .*\|k711; Path=/ +\|$")
        self.assertRegex(lines[both + 2], r"^ +16  SVM +7a 39 31 31 .*\|z911; Path=/ +\|$")
        marks = lines[both + 3]
        hex_at, text_at = lines[both + 1].index("6b"), lines[both + 1].index("k711")
        self.assertEqual(marks.split(), ["^^", "^^", "^^"])
        self.assertEqual(marks.index("^^"), hex_at)
        self.assertEqual(marks.rindex("^^"), text_at)
        self.assertIn("the PVM's packet waited 2.5 ms; the SVM's answers come 0.3 ms behind (deviation 0.1), 20.0 ms",
                      out)
        self.assertIn("session cookie", out)
        self.assertIn("differences   payload 1\n", out)

    def test_unaligned(self):
        """Rows begin at multiples of 16, whatever the difference's place."""
        out = self.shown(report(offset=41, pvm=side(b"b" * 32, b"P" * 32), svm=side(b"b" * 4, b"S" * 32)))
        rows = [l.split("|")[0].split() for l in out.splitlines() if "|" in l]
        self.assertEqual([r[:2] for r in rows], [["0", "both"], ["16", "both"], ["32", "PVM"], ["32", "SVM"],
                                                 ["48", "PVM"], ["48", "SVM"], ["64", "PVM"], ["64", "SVM"]])
        self.assertEqual(len(rows[0]) - 2, 7) # 9 to 15
        self.assertEqual(rows[2][2:], ["62"] * 9 + ["50"] * 7)
        self.assertEqual(rows[3][2:], ["62"] * 4 + ["53"] * 7)
        self.assertEqual(len(rows[6]) - 2, 73 - 64)

    def test_hints(self):
        def hint(want, **more):
            self.assertIn(want, self.shown(report(**more)))
        hint("a time, a duration, a counter", pvm=side(b"at 12:00:0", b"1"), svm=side(b"at 12:00:0", b"2"))
        hint("HTTP's Date: its second", pvm=side(b"OK\r\nDate: Mon, 23 Nov 2026 08:57:3", b"1 GMT"),
             svm=side(b"", b"2 GMT"))
        hint("TLS with the same keys", flow="tcp 10.0.0.2:443 to 10.0.0.9:4000",
             pvm=side(b"ab", b"\x29" + b"x" * 20), svm=side(b"ab", b"\x28" + b"x" * 20))
        hint("TLS: usually the VMs drew", pvm=side(b"\x16\x03\x03\x00\x7a\x02", b"\x81"), svm=side(b"", b"\x44"))
        hint("TLS", flow="tcp 10.0.0.2:443 to 10.0.0.9:4000", pvm=side(b"", b"\x81"), svm=side(b"", b"\x44"))
        hint("ssh", flow="tcp 10.0.0.2:22 to 10.0.0.9:4000", pvm=side(b"", b"\x81"), svm=side(b"", b"\x44"))
        hint("ssh", flow="tcp 10.0.0.2:5000 to 10.0.0.9:22", pvm=side(b"", b"\x81"), svm=side(b"", b"\x44"))
        hint("several threads", pvm=side(b"", b"\x81"), svm=side(b"", b"\x44"))

    def test_fin(self):
        out = self.shown(report("fin", svm=side(b"Set-Cookie: sid=", b"", fin=True)))
        self.assertIn("the SVM ends the stream here\n", out)
        self.assertNotIn("^", out)
        self.assertIn("a time limit", out)

    def test_missing(self):
        out = self.shown(report("no-answer", "missing", svm=None, waited_us=20000))
        self.assertIn("missing: no-answer", out)
        self.assertIn("nothing is known of the SVM\n", out)
        self.assertIn("waited 20.0 ms", out)
        self.assertIn("wait-max", out)

    def test_values(self):
        out = self.shown(report("no-ack", "missing", offset=..., offset_in=..., pvm=side(b"", b"", value=900),
                                svm=side(b"", b"", value=100)),
                         report("held", "full", offset=..., offset_in=..., flow="no flow",
                                pvm=side(b"", b"", value=1000), svm=side(b"", b"", value=1024)))
        self.assertIn("bytes acknowledged: PVM 900, SVM 100\n", out)
        self.assertIn("bytes held, and allowed: 1000, 1024\n", out)
        self.assertNotIn("first difference", out)
        self.assertIn("held-max", out)

    def test_every_kind_is_explained(self):
        with open(os.path.join(ROOT, "net", "net.h"), encoding="utf-8") as f:
            part = f.read().split("#define CM_KINDS(X)")[1].split("enum cm_kind")[0]
        kinds = [line.split('"')[1] for line in part.splitlines() if 'X(' in line and '"' in line]
        self.assertGreater(len(kinds), 10)
        for kind in kinds:
            out = self.shown(report(kind))
            hint = out.split("\n\n")[1].split("differences  ")[0]
            self.assertGreater(len(hint), 30, kind)

    def test_nothing(self):
        self.assertEqual(self.shown(), "differences   none\n")

    def test_not_comparing(self):
        self.assertIn("state alone: nothing is compared now\n", self.shown(state="alone"))

    def test_mode_checkpoint(self):
        self.assertIn("mode checkpoint: nothing is compared\n", self.shown(mode="checkpoint"))

    def test_json_and_last(self):
        self.serve(answer(report()))
        r = self.colo("--json", "--last", "7")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        out = json.loads(r.stdout)
        self.assertNotIn("ok", out)
        self.assertEqual(out["reports"], [report()])
        self.assertEqual(self.daemon.requests, [{"command": "explain", "last": 7}])

    def test_bad_last(self):
        for word in "0", "-1", "x", "", "7x", "1001", "99999999999999999999":
            r = self.colo("--last", word)
            self.assertEqual((r.returncode, r.stdout), (2, ""))
            self.assertEqual(r.stderr, f"colo: --last: '{word}' is not a number from 1 to 1000\n")

    def test_refused(self):
        self.serve({"ok": False, "error": "this node is the secondary: the primary compares, ask there"})
        r = self.colo()
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertEqual(r.stderr, "colo: a: this node is the secondary: the primary compares, ask there\n")

    def test_no_daemon(self):
        r = self.colo()
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertIn("no daemon runs here for this VM", r.stderr)

    def test_daemon_dies(self):
        self.serve(lambda _: None)
        r = self.colo()
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertIn("the daemon does not answer", r.stderr)

    def test_answers_that_make_no_sense(self):
        for odd in ({}, {"ok": True}, {"ok": True, "reports": 7}, {"ok": True, "reports": [7, {}, None]},
                    answer(report(pvm=7, svm="x", flow=None, offset="a", kind=9)),
                    answer(report(pvm={"before": "zz", "after": "0" * 1000}, offset=-5))):
            self.serve(odd)
            self.assertIn(self.colo().returncode, (0, 1))

    # --- the file ---

    def pieces(self, blocks, per_piece, newest=None):
        """Answers of a daemon whose ring has these blocks; `newest` rises while it is read."""
        def reply(request):
            if request["command"] == "explain":
                return answer(report())
            after = request["after"]
            data = b"".join(blocks[after:after + per_piece])
            return {"ok": True, "pcapng": data.hex(), "last": min(after + per_piece, len(blocks)),
                    "newest": newest or len(blocks)}
        return reply

    def test_pcap(self):
        blocks = [packet(i, 60 + i) for i in range(1000)]
        self.serve(self.pieces(blocks, 64))
        path = os.path.join(self.dir, "out.pcapng")
        r = self.colo("--pcap", path)
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertTrue(r.stdout.endswith(f"1000 packets in {path}\n"))
        with open(path, "rb") as f:
            self.assertEqual(f.read(), b"".join(blocks))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600) # clients' data is in it

    def test_pcap_while_more_come(self):
        """Packets that come meanwhile do not keep it from ending."""
        count = [0]
        def reply(request):
            if request["command"] == "explain":
                return answer()
            count[0] += 1
            n = request["after"] + 1
            return {"ok": True, "pcapng": packet(n).hex(), "last": n, "newest": n + 5}
        self.serve(reply)
        r = self.colo("--pcap", os.path.join(self.dir, "out.pcapng"))
        self.assertEqual((r.returncode, r.stderr, count[0]), (0, "", 6))

    def test_pcap_with_json(self):
        self.serve(self.pieces([packet(1)], 5))
        r = self.colo("--json", "--pcap", os.path.join(self.dir, "out.pcapng"))
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertEqual(len(json.loads(r.stdout)["reports"]), 1)

    def test_unwritable(self):
        self.serve(self.pieces([packet(1)], 5))
        for path, why in ("/nonexistent/x.pcapng", "No such file or directory"), (self.dir, "Is a directory"):
            r = self.colo("--pcap", path)
            self.assertEqual((r.returncode, r.stdout), (1, ""))
            self.assertEqual(r.stderr, f"colo: {path}: {why}\n")

    def test_disk_full(self):
        self.serve(self.pieces([packet(1)], 5))
        r = self.colo("--pcap", "/dev/full")
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertEqual(r.stderr, "colo: /dev/full: No space left on device\n")

    def test_no_capture(self):
        """The file of an earlier call stays."""
        def reply(request):
            if request["command"] == "explain":
                return answer()
            return {"ok": False, "error": "nothing is captured: set capture = SIZE in [net], see colo(5)"}
        self.serve(reply)
        path = os.path.join(self.dir, "old.pcapng")
        with open(path, "w", encoding="utf-8") as f:
            f.write("old")
        r = self.colo("--pcap", path)
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertIn("set capture = SIZE in [net]", r.stderr)
        with open(path, encoding="utf-8") as f:
            self.assertEqual(f.read(), "old")

    def test_pcap_that_makes_no_sense(self):
        self.serve(lambda q: answer() if q["command"] == "explain" else
                   {"ok": True, "pcapng": "not hex", "last": 1, "newest": 1})
        r = self.colo("--pcap", os.path.join(self.dir, "out.pcapng"))
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertIn("makes no sense", r.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
