#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The arbiter `etcd`, against Debian's etcd-server: the rules, members that die and hang, answers that are none."""
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import arblib
import common
from arblib import CLAIM, ETCD, LOST, WON, wait_until


def http(body, status="200 OK"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def b64(text):
    return base64.b64encode(text.encode()).decode()


HEADER = {"cluster_id": "1", "member_id": "2", "revision": "3", "raft_term": "4"}


def kv(value, key="/colo/web"):
    return {"header": HEADER, "kvs": [{"key": b64(key), "value": b64(value), "create_revision": "2", "mod_revision": "3",
                                       "version": "1"}], "count": "1"}


class Cluster(common.Rules, unittest.TestCase):
    N = 3

    @classmethod
    def setUpClass(cls):
        cls.home = arblib.temporary()
        cls.etcd = arblib.Etcd(cls.home, cls.N)
        cls.serial = 0

    @classmethod
    def tearDownClass(cls):
        cls.etcd.close()
        subprocess.run(["rm", "-rf", cls.home], check=False)

    def prepare(self):
        type(self).serial += 1
        self.prefix = f"vm{self.serial}."

    def helper(self, node, vm="web", address=None, **settings):
        return arblib.Helper(ETCD, node, vm=self.prefix + vm, address=address or ",".join(self.etcd.urls), **settings)

    def test_order_of_members(self):
        """What one member was told the others know."""
        urls = self.etcd.urls
        a, b = self.ask("a", address=urls[0]), self.ask("b", address=",".join(reversed(urls)))
        for g in range(1, 30):
            self.assertEqual((a.claim(g).status, b.claim(g).record()), (WON, (g, "a")))

    def test_damaged_value(self):
        a = self.ask("a")
        a.claim(1)
        key = b64(f"/colo/{self.prefix}web")
        for value in ("", "{}", '{"generation":0,"owner":"a"}', '{"generation":"1","owner":"a"}',
                      '{"generation":1,"owner":"a b"}'):
            subprocess.run(["curl", "-sf", "--noproxy", "*", f"{self.etcd.urls[0]}/v3/kv/put", "-d",
                            json.dumps({"key": key, "value": b64(value)})], check=True, stdout=subprocess.DEVNULL)
            self.check_unknown(a, "is damaged")

    def test_z_members_die(self):
        """One of three may be gone, two may not; what was won stays, also over a restart of all."""
        a, b = self.ask("a"), self.ask("b")
        self.assertEqual(a.claim(1).status, WON)
        self.etcd.stop(0)
        wait_until(lambda: a.claim(2, 4000).status == WON, 20, "a claim with two of three members")
        self.assertEqual(b.claim(2).status, LOST)
        self.etcd.stop(1)
        self.check_unknown(b, "127.0.0.1")
        self.etcd.stop(2)
        self.check_unknown(b, "127.0.0.1", 2000)
        for i in range(3):
            self.etcd.start(i)
        wait_until(lambda: b.read(3000).status == 0, 30, "etcd is back")
        self.assertEqual((b.read().record(), b.claim(2).status, b.claim(3).status), ((2, "a"), LOST, WON))

    def test_z_hung_member(self):
        """A member that takes connections and says nothing costs some seconds, once."""
        self.etcd.members[0].send_signal(signal.SIGSTOP)
        try:
            a = self.ask("a")
            wait_until(lambda: a.claim(1, 15000).status == WON, 40, "a claim with a hung member")
            begin = time.monotonic()
            self.assertEqual(a.claim(2, 15000).status, WON)
            self.assertLess(time.monotonic() - begin, 2)
        finally:
            self.etcd.members[0].send_signal(signal.SIGCONT)


class Password(unittest.TestCase):
    """A cluster that wants a user."""

    def setUp(self):
        self.dir = arblib.temporary()
        self.addCleanup(subprocess.run, ["rm", "-rf", self.dir], check=False)
        self.etcd = arblib.Etcd(self.dir, 1)
        self.addCleanup(self.etcd.close)
        self.password = os.path.join(self.dir, "password")
        with open(self.password, "w", encoding="ascii") as f:
            f.write("secret\n")
        for path, body in (("auth/user/add", {"name": "root", "password": "secret"}),
                           ("auth/role/add", {"name": "root"}),
                           ("auth/user/grant", {"user": "root", "role": "root"}), ("auth/enable", {})):
            subprocess.run(["curl", "-sf", "--noproxy", "*", f"{self.etcd.urls[0]}/v3/{path}", "-d", json.dumps(body)],
                           check=True, stdout=subprocess.DEVNULL)

    def ask(self, **settings):
        helper = arblib.Helper(ETCD, "a", address=self.etcd.urls[0], **settings)
        self.addCleanup(helper.close)
        return helper

    def test_user(self):
        self.assertEqual(self.ask(user="root", password_file=self.password).claim(1).status, WON)
        for settings, text in (({}, "HTTP status"), ({"user": "nobody", "password_file": self.password}, "HTTP status"),
                               ({"user": "root", "password_file": self.password + "x"}, "password-file")):
            answer = self.ask(**settings).claim(2)
            self.assertLess(answer.status, 0)
            self.assertRegex(answer.error, text)

    def test_token_expires(self):
        """A member that was started again knows no tokens: a new one is asked for."""
        a = self.ask(user="root", password_file=self.password)
        self.assertEqual(a.claim(1).status, WON)
        self.etcd.stop(0)
        self.etcd.start(0)
        wait_until(lambda: a.claim(2, 3000).status == WON, 20, "a claim with a new token")


class Https(unittest.TestCase):
    """A cluster that speaks TLS and wants certificates of its clients."""

    def setUp(self):
        self.dir = arblib.temporary()
        self.addCleanup(subprocess.run, ["rm", "-rf", self.dir], check=False)
        self.keys = arblib.certificates(f"{self.dir}/keys")
        self.etcd = arblib.Etcd(self.dir, 1, tls_dir=self.keys)
        self.addCleanup(self.etcd.close)

    def claim(self, generation, tls_dir, tls="x509", scheme="https"):
        helper = arblib.Helper(ETCD, "a", address=self.etcd.urls[0].replace("https", scheme), tls=tls, tls_dir=tls_dir)
        self.addCleanup(helper.close)
        return helper.claim(generation, 3000)

    def without(self, *names):
        directory = f"{self.dir}/without-{'-'.join(names)}"
        shutil.copytree(self.keys, directory)
        for name in names:
            os.remove(os.path.join(directory, name))
        return directory

    def test_certificates(self):
        self.assertEqual(self.claim(1, self.keys).status, WON)
        stranger = arblib.certificates(f"{self.dir}/stranger")
        other_host = arblib.certificates(f"{self.dir}/other-host", hosts=("localhost",))
        no_client = self.without("client-cert.pem", "client-key.pem")
        for said in (self.claim(2, stranger), self.claim(2, other_host), self.claim(2, no_client), self.claim(2, "", "off"),
                     self.claim(2, self.keys, scheme="http")):
            self.assertLess(said.status, 0)
            self.assertRegex(said.error, "127.0.0.1")
        self.assertEqual(self.claim(2, self.keys).status, WON)

    def test_no_authority(self):
        """The system's authorities are no substitute for a file that is missing."""
        said = self.claim(1, self.without("ca-cert.pem"))
        self.assertLess(said.status, 0)
        self.assertRegex(said.error, "ca-cert.pem")


class Nonsense(unittest.TestCase):
    """Whatever answers in etcd's place."""

    def unknown(self, answer, text, vm="web", limit_ms=2000):
        fake = arblib.Fake(answer)
        helper = arblib.Helper(ETCD, "a", vm=vm, address=f"http://127.0.0.1:{fake.port}")
        try:
            for op in (arblib.READ, CLAIM):
                helper.send(op, 9, limit_ms)
                got = helper.answer()
                self.assertLess(got.status, 0, got)
                self.assertRegex(got.error, text)
                self.assertTrue(got.error.isprintable())
        finally:
            helper.close()
            fake.close()

    def test_answers(self):
        record = '{"generation":9,"owner":"a"}'
        for answer, text in (
                (b"", "127.0.0.1"), (b"\0\1\2" * 50, "127.0.0.1"), (http(b""), "makes no sense"), (http({}), "makes no sense"),
                (http(b"<html>"), "makes no sense"), (http([1]), "makes no sense"), (http({"header": {}}), "makes no sense"),
                (http({"kvs": []}), "makes no sense"), (http({"header": HEADER, "kvs": []}), "another key"),
                (http(kv(record, "/colo/db")), "another key"), (http(kv(record + "x")), "is damaged"),
                (http({"header": HEADER, "count": "1"}), "count of keys and no key"),
                (http({"header": HEADER, "kvs": [{"key": b64("/colo/web")}]}), "is damaged"),
                (http({"header": HEADER, "kvs": [7]}), "another key"),
                (http({"header": HEADER, "kvs": [{"key": b64("/colo/web"), "value": b64(record)}]}), "mod_revision"),
                (http({"message": "no \x1b[31m leader"}, "503 Service Unavailable"), "status 503: no .*leader"),
                (http(b"", "302 Found\r\nLocation: http://127.0.0.1:1/"), "status 302"),
                (http(b"x" * 200000), "127.0.0.1"), (http(kv(record))[:-9], "127.0.0.1")):
            with self.subTest(answer=answer[:60], text=text):
                self.unknown(lambda request, a=answer: a, text)

    def test_swap_unanswered(self):
        """The range is answered, the transaction is not: unknown."""
        def answer(request):
            return http({"header": HEADER}) if b"/range" in request.split(b"\r\n")[0] else b""
        fake = arblib.Fake(answer)
        helper = arblib.Helper(ETCD, "a", address=f"http://127.0.0.1:{fake.port}")
        self.addCleanup(helper.close)
        self.assertLess(helper.claim(1).status, 0)
        fake.close()

    def test_swap_never_succeeds(self):
        fake = arblib.Fake(lambda request: http({"header": HEADER}))
        helper = arblib.Helper(ETCD, "a", address=f"http://127.0.0.1:{fake.port}")
        self.addCleanup(helper.close)
        got = helper.claim(1)
        self.assertLess(got.status, 0)
        self.assertIn("changes all the time", got.error)

    def test_nobody_there(self):
        helper = arblib.Helper(ETCD, "a", address=f"http://127.0.0.1:{arblib.free_port()},http://127.0.0.1:1")
        self.addCleanup(helper.close)
        self.assertLess(helper.claim(1).status, 0)

    def test_environment_proxy(self):
        """A proxy of the environment is not asked who serves."""
        fake = arblib.Fake(lambda request: http(kv('{"generation":1,"owner":"a"}')))
        helper = arblib.Helper(ETCD, "a", address=f"http://127.0.0.1:{arblib.free_port()}",
                               preload={"http_proxy": f"http://127.0.0.1:{fake.port}", "no_proxy": ""})
        self.addCleanup(helper.close)
        self.assertLess(helper.claim(1).status, 0)
        fake.close()

    def test_late(self):
        """Ten seconds late is good enough."""
        fake = arblib.Fake(lambda request: http(kv('{"generation":1,"owner":"a"}')), delay=10)
        helper = arblib.Helper(ETCD, "a", address=f"http://127.0.0.1:{fake.port}")
        self.addCleanup(helper.close)
        self.assertEqual(helper.claim(1, 15000).status, WON)
        self.assertGreater(helper.pulses, 10)
        fake.close()


if __name__ == "__main__":
    arblib.need("etcd", "curl")
    unittest.main()
