#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab without a VM: command line, address plan, DHCP answers, configuration file."""
import ipaddress
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import types
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "lab"))

from labkit import cli, dhcp, keys, net, proc, protect, slow, state  # noqa: E402
from labkit.errors import LabError  # noqa: E402

LAB = os.path.join(ROOT, "lab", "lab")
MAC = bytes.fromhex("525400c01001")
LEASE = ipaddress.IPv4Address("192.168.77.100").packed
SERVER = ipaddress.IPv4Address("192.168.77.1").packed


def run(*args, **options):
    """Run lab/lab with the name of a lab that is not there."""
    environment = dict(os.environ, LAB_NAME="unit-test-none")
    return subprocess.run([LAB, *args], capture_output=True, text=True, timeout=20, check=False,
                          env=environment, **options)


class Cpus(unittest.TestCase):
    """Hosts with a guest each share no CPU where that is possible."""

    def check(self, every, vcpus, share, a, b):
        lab = types.SimpleNamespace(data={"share_cpus": share, "vm": {"vcpus": vcpus}})
        self.assertEqual((proc.cpus_of(lab, "a", every), proc.cpus_of(lab, "b", every)), (a, b))
        self.assertEqual(proc.cpus_of(lab, "client", every), every)

    def test_halves(self):
        self.check({0, 1}, 1, False, {0}, {1})
        self.check({2, 3, 5}, 1, False, {2, 5}, {3})
        self.check({0, 1, 2, 3}, 2, False, {0, 2}, {1, 3})

    def test_all(self):
        self.check({4}, 1, False, {4}, {4})
        self.check({0, 1}, 2, False, {0, 1}, {0, 1})
        self.check({0, 1}, 1, True, {0, 1}, {0, 1})


class SlowLine(unittest.TestCase):
    """What lab/labkit/slow.py makes of a line, in invented time."""

    def line(self, delay=0.0, rate=0, loss=0.0, chance=lambda: 0.5):
        line = slow.Line(chance)
        line.delay, line.rate, line.loss = delay, rate, loss
        return line

    @staticmethod
    def frame(size, byte=b"x"):
        return bytes(slow.VNET_HEADER) + byte * size

    def test_delay(self):
        line = self.line(delay=0.02)
        line.put(self.frame(100), 5.0)
        self.assertEqual((list(line.due(5.019)), line.next()), ([], 5.02))
        self.assertEqual(list(line.due(5.021)), [self.frame(100)])
        self.assertIsNone(line.next())

    def test_rate_spaces_frames(self):
        line = self.line(delay=0.5, rate=10000)
        for i in range(3):
            line.put(self.frame(1000, bytes([i])), 1.0)
        self.assertEqual([round(when, 6) for when, _ in line.queue], [1.6, 1.7, 1.8])

    def test_full_queue_loses(self):
        line = self.line(rate=125000)
        for _ in range(100):
            line.put(self.frame(1000), 0.0)
        self.assertEqual((len(line.queue), line.lost), (slow.QUEUE_LEAST // 1000, 100 - slow.QUEUE_LEAST // 1000))
        line.put(self.frame(1000), 1.0)     # it has been sent by then
        self.assertEqual(round(line.queue[-1][0], 6), 1.008)

    def test_loss(self):
        chances = iter([0.009, 0.011])
        line = self.line(loss=0.01, chance=lambda: next(chances))
        line.put(self.frame(1), 0.0)
        line.put(self.frame(2), 0.0)
        self.assertEqual((list(line.due(0.0)), line.lost), ([self.frame(2)], 1))

    def test_order_stays_when_delay_shrinks(self):
        line = self.line(delay=1.0)
        line.put(self.frame(1), 0.0)
        line.delay = 0.0
        line.put(self.frame(2), 0.1)
        self.assertEqual(list(line.due(1.0)), [self.frame(1), self.frame(2)])

    def test_rates(self):
        for text, want in ("1mbit", 125000), ("500k", 62500), ("2.5Gbit", 312500000), ("8000", 1000):
            self.assertEqual(slow.parse_rate(text), want, text)
        for text in "0", "1", "mbit", "-1m", "1x", "nan":
            with self.assertRaises(ValueError, msg=text):
                slow.parse_rate(text)


class CommandLine(unittest.TestCase):
    """What a person sees who gets it wrong."""

    def test_every_verb_has_help(self):
        for verb in cli.VERBS:
            done = run(verb, "--help")
            self.assertEqual(done.returncode, 0, verb)
            self.assertIn("usage: lab " + verb, done.stdout)

    def test_unknown_verb(self):
        done = run("explode")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'explode'", done.stderr)

    def test_unknown_link(self):
        done = run("cut", "wire")
        self.assertEqual(done.returncode, 2)
        self.assertIn("replication", done.stderr)

    def test_verbs_without_a_lab(self):
        for args in (["ip"], ["kill", "a"], ["exec", "a", "--", "true"], ["status", "--json"],
                     ["cut", "lan-a"], ["wait"], ["ssh"]):
            done = run(*args)
            self.assertEqual(done.returncode, 1, args)
            self.assertRegex(done.stderr, r"^lab: (no lab 'unit-test-none' is up|must be run as root)")
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_needs_root(self):
        with tempfile.TemporaryDirectory() as copy:
            os.chmod(copy, 0o755)
            shutil.copytree(os.path.join(ROOT, "lab"), copy + "/lab")
            someone = [] if os.geteuid() else ["setpriv", "--reuid=65534", "--clear-groups"]
            done = subprocess.run([*someone, "/usr/bin/python3", copy + "/lab/lab", "ip"],
                                  capture_output=True, text=True, timeout=20, check=False, cwd="/")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.strip(),
                         "lab: must be run as root (it makes network namespaces)")

    def test_bad_names(self):
        for name in ("", "a/b", "../x", "x" * 40, "-x"):
            with self.assertRaises(LabError):
                state.Lab(name)

    def test_down_without_a_lab(self):
        self.assertEqual(run("down").returncode, 0)
        self.assertFalse(os.path.exists("/run/colo-lab/unit-test-none"))


class Addresses(unittest.TestCase):
    """The LAN around any guest address."""

    def test_all_different_in_one_network(self):
        for guest in ("192.168.77.100", "10.0.0.1", "10.0.0.4", "172.16.5.254", "10.1.2.11"):
            plan = net.plan(guest)
            found = [*plan["guests"], *(plan[host] for host in net.HOST_NUMBERS)]
            self.assertEqual(len(set(found)), len(found), found)
            networks = {ipaddress.ip_interface(address + "/24").network for address in found}
            self.assertEqual(len(networks), 1, found)
            self.assertEqual(plan["guests"][0], guest)

    def test_nonsense(self):
        with self.assertRaises(LabError):
            net.plan("guest")


class Dhcp(unittest.TestCase):
    """The DHCP server's answers."""

    def setUp(self):
        self.server = dhcp.Server("192.168.77.1", {MAC: LEASE})

    @staticmethod
    def packet(kind, mac=MAC, ciaddr=bytes(4), options=b""):
        """A request of a guest."""
        header = dhcp.HEADER.pack(1, 1, 6, 0, 0x1234, 0, 0, ciaddr, bytes(4), bytes(4), bytes(4),
                                  mac, b"", b"", dhcp.COOKIE)
        return header + dhcp.option(dhcp.OPT_TYPE, bytes([kind])) + options + b"\xff"

    def kind(self, packet):
        """Message type and address of the answer."""
        answer = self.server.answer(packet)
        if not answer:
            return None
        reply, unicast = answer
        options = dhcp.parse_options(reply[dhcp.HEADER.size:])
        return options[dhcp.OPT_TYPE][0], dhcp.HEADER.unpack_from(reply)[8], unicast

    def test_discover_is_offered_its_address(self):
        self.assertEqual(self.kind(self.packet(dhcp.DISCOVER)), (dhcp.OFFER, LEASE, None))

    def test_request_is_acknowledged(self):
        wanted = dhcp.option(dhcp.OPT_WANTED, LEASE) + dhcp.option(dhcp.OPT_SERVER, SERVER)
        self.assertEqual(self.kind(self.packet(dhcp.REQUEST, options=wanted)),
                         (dhcp.ACK, LEASE, None))

    def test_renewal_is_answered_to_the_guest(self):
        self.assertEqual(self.kind(self.packet(dhcp.REQUEST, ciaddr=LEASE)),
                         (dhcp.ACK, LEASE, LEASE))

    def test_wrong_address_is_refused(self):
        wanted = dhcp.option(dhcp.OPT_WANTED, SERVER)
        self.assertEqual(self.kind(self.packet(dhcp.REQUEST, options=wanted))[0], dhcp.NAK)

    def test_strangers_and_other_servers_get_nothing(self):
        self.assertIsNone(self.kind(self.packet(dhcp.DISCOVER, mac=b"\2" * 6)))
        other = dhcp.option(dhcp.OPT_SERVER, LEASE)
        self.assertIsNone(self.kind(self.packet(dhcp.REQUEST, options=other)))

    def test_garbage_gets_nothing(self):
        whole = self.packet(dhcp.DISCOVER)
        for length in range(len(whole)):
            self.server.answer(whole[:length])  # must not raise
        self.assertIsNone(self.server.answer(b""))
        self.assertIsNone(self.server.answer(struct.pack("!240x")))


class Configuration(unittest.TestCase):
    """The daemons' file."""

    def write(self, settings, mode="colo"):
        """The text of a configuration file."""
        lab = state.Lab("unit-test-none")
        with tempfile.TemporaryDirectory() as lab.run_dir:
            lab.data = {"vm": {"mem": "1G", "vcpus": 2, "machine": "pc", "qemu": "qemu", "macs":
                               ["52:54:00:c0:10:01"]},
                        "image": {"kernel": "/k", "initrd": None, "append": None}}
            protect.write_config(lab, mode, 50, settings)
            with open(protect.config_path(lab), encoding="utf-8") as file:
                return file.read()

    def test_overrides(self):
        text = self.write(["peer.misses=9", "host b.port=1", "net.tap = t0"])
        self.assertIn("misses = 9\n", text)
        self.assertNotIn("misses = 5\n", text)
        self.assertRegex(text, r"(?s)\[host b\].*port = 1\n")
        self.assertIn("tap = t0\n", text)
        self.assertNotIn("initrd", text)

    def test_interval_belongs_to_mode_checkpoint(self):
        self.assertIn("interval = 50ms\n", self.write([], "checkpoint"))
        self.assertNotIn("interval", self.write([]))

    def test_link_is_encrypted(self):
        self.assertRegex(self.write([]), r"\[tls\]\nmode = psk\ndir = .*/tls\nusername = colo\n")
        self.assertIn("[tls]\nmode = off\n", self.write(["tls.mode=off"]))

    def test_keys(self):
        with tempfile.TemporaryDirectory() as base:
            made = []
            for name in "one", "two":
                path = os.path.join(base, name)
                keys.make(path, "psk", ["a", "b"])
                self.assertEqual(os.stat(path).st_mode & 0o777, 0o700)
                self.assertEqual(os.stat(os.path.join(path, "keys.psk")).st_mode & 0o777, 0o600)
                with open(os.path.join(path, "keys.psk"), encoding="utf-8") as file:
                    made.append(file.read())
                self.assertRegex(made[-1], r"^colo:[0-9a-f]{64}\n$")
            self.assertNotEqual(*made)
            self.assertEqual(keys.make(base, "off", []), {"mode": "off"})

    def test_nonsense(self):
        for setting in ("x", "x=1", ".x=1", "a.=1", "a.b=c\n[vm]"):
            with self.assertRaises(LabError, msg=setting):
                self.write([setting])


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("needs root")
        sys.exit(77)
    unittest.main()
