#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The arbiter `witness`: the rules, its state over crashes, keys, strangers, answers that are none or late."""
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import arblib
import common
from arblib import CLAIM, LOST, WITNESS, WON, wait_until

KILLS = int(os.environ.get("COLO_WITNESS_KILLS", "12"))
SEED = int(os.environ.get("COLO_SEED", str(int(time.time()))))


class Base(common.Rules):
    OPTIONS = ()

    def prepare(self):
        self.state = os.path.join(self.dir, "state")
        self.witness = arblib.Witness(self.state, *self.OPTIONS)
        self.addCleanup(lambda: self.witness.stop())

    def helper(self, node, vm="web", **settings):
        return arblib.Helper(WITNESS, node, vm=vm, **{"address": self.witness.address, **settings})


class Plain(Base, unittest.TestCase):
    def test_restart(self):
        a, b = self.ask("a"), self.ask("b", vm="db")
        self.assertEqual((a.claim(3).status, b.claim(8).status), (WON, WON))
        for sig, status in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
            self.assertEqual(self.witness.stop(sig), status)
            self.check_unknown(a, "cannot be reached: Connection refused")
            self.witness.start()
            self.assertEqual((a.read().record(), b.read().record()), ((3, "a"), (8, "b")))
        self.assertEqual(self.ask("b").claim(3).status, LOST)

    def test_killed_during_claims(self):
        """What was answered as won stays won; no generation ever has two owners."""
        print(f"seed {SEED}", flush=True)
        rnd = random.Random(SEED)
        helpers = {node: self.ask(node) for node in "ab"}
        owner, stop, errors = {}, threading.Event(), []

        def claims(node):
            g = 1
            while not stop.is_set():
                answer = helpers[node].claim(g, 3000)
                if answer.status >= 0 and owner.setdefault(answer.generation, answer.owner) != answer.owner:
                    errors.append(f"generation {answer.generation}: {owner[answer.generation]} and {answer.owner}")
                    return
                g = answer.generation + 1 if answer.status >= 0 else g

        threads = [threading.Thread(target=claims, args=(node,)) for node in helpers]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            time.sleep(rnd.uniform(0.05, 0.3))
            known = max(owner, default=0)
            self.witness.stop()
            self.witness.start()
            record = self.ask("probe").read()
            self.assertEqual(record.status, 0)
            self.assertGreaterEqual(record.generation, known)
        stop.set()
        for thread in threads:
            thread.join(20)
        self.assertEqual(errors, [])
        self.assertGreater(len(owner), KILLS)
        print(f"{KILLS} kills, {len(owner)} generations", flush=True)

    def refuses(self, *options):
        r = subprocess.run([arblib.COLO, "witness", "--listen", f"127.0.0.1:{arblib.free_port()}", "--state", self.state,
                            *options], capture_output=True, text=True, timeout=10, check=False)
        self.assertEqual(r.returncode, 1)
        return r.stderr

    def test_damaged_state(self):
        self.ask("a").claim(3)
        self.witness.stop(signal.SIGTERM)
        path = os.path.join(self.state, "web.record")
        with open(path, encoding="ascii") as f:
            good = f.read()
        for text in ("", good[:-9], good.replace("3", "4", 1), good.replace('"a"', '"b"'), "\0" * len(good)):
            with open(path, "w", encoding="ascii") as f:
                f.write(text)
            said = self.refuses()
            self.assertIn("web.record is damaged", said)
            self.assertIn("VM web", said)
        with open(path, "w", encoding="ascii") as f:
            f.write(good)
        os.rename(path, os.path.join(self.state, "db.record")) # a record of another VM
        self.assertIn("db.record is damaged", self.refuses())

    def test_half_written(self):
        """What a crash leaves of a change that was not answered is nothing."""
        self.ask("a").claim(3)
        self.witness.stop()
        with open(os.path.join(self.state, "web.new"), "w", encoding="ascii") as f:
            f.write('{"gen')
        self.witness.start()
        self.assertEqual((self.ask("a").read().record(), self.ask("b").claim(4).status), ((3, "a"), WON))

    def test_forgotten_state(self):
        """A disk that is not mounted is not the beginning of a new state."""
        self.ask("a").claim(3)
        self.witness.stop()
        os.rename(self.state, self.state + ".away")
        os.mkdir(self.state)
        self.assertIn("--new", self.refuses())
        os.rmdir(self.state)
        self.assertIn("No such file", self.refuses())
        os.rename(self.state + ".away", self.state)
        os.rename(os.path.join(self.state, "colo-witness"), os.path.join(self.state, "x"))
        self.assertIn("--new", self.refuses())
        self.assertIn("is missing", self.refuses("--new"))

    def test_one_at_a_time(self):
        self.assertIn("in use by another witness", self.refuses())

    def test_full_disk(self):
        """A claim that cannot be stored is unknown, to whoever asks, and nothing is forgotten."""
        a = self.ask("a")
        a.claim(1)
        os.mkdir(os.path.join(self.state, "web.new")) # so that it cannot be written
        self.check_unknown_claim(a, 2, "cannot be stored")
        self.assertEqual(a.read().record(), (1, "a"))
        os.rmdir(os.path.join(self.state, "web.new"))
        self.assertEqual(self.ask("b").claim(2).status, WON)

    def check_unknown_claim(self, helper, generation, text):
        answer = helper.claim(generation)
        self.assertLess(answer.status, 0)
        self.assertIn(text, answer.error)

    def test_stopped_for_ten_seconds(self):
        """A late answer is an answer; meanwhile the helper has a pulse."""
        a, b = self.ask("a"), self.ask("b")
        self.witness.process.send_signal(signal.SIGSTOP)
        a.send(CLAIM, 1, 15000)
        b.send(CLAIM, 1, 15000)
        time.sleep(10)
        self.witness.process.send_signal(signal.SIGCONT)
        self.assertEqual(sorted((a.answer().status, b.answer().status)), [WON, LOST])
        self.assertGreater(a.pulses, 10)

    def test_too_late(self):
        """Who does not wait so long does not know; asked again it is as it was."""
        a = self.ask("a")
        self.witness.process.send_signal(signal.SIGSTOP)
        answer = a.claim(1, 1000)
        self.assertLess(answer.status, 0)
        self.assertIn("does not answer", answer.error)
        self.witness.process.send_signal(signal.SIGCONT)
        self.assertEqual(a.claim(1).status, WON)

    def test_proxy_with_delay(self):
        proxy = arblib.Fake(to=self.witness.port, delay=10)
        a, b = self.ask("a", address=f"127.0.0.1:{proxy.port}"), self.ask("b", address=f"127.0.0.1:{proxy.port}")
        a.send(CLAIM, 1, 15000)
        b.send(CLAIM, 1, 15000)
        self.assertEqual(sorted((a.answer().status, b.answer().status)), [WON, LOST])
        proxy.close()

    # --- strangers ---

    def say(self, data, wait=True):
        with socket.create_connection(("127.0.0.1", self.witness.port), 10) as s:
            s.sendall(data)
            return s.makefile("rb").read() if wait else b""

    def test_bad_requests(self):
        good = b"colo-witness 1 claim web a 5\n"
        for line in (b"\n", b"GET / HTTP/1.1\n", b"colo-witness 2 read web\n", good[:-1] + b" \n", good[:-1] + b" 1\n",
                     b"colo-witness 1 claim web a -5\n", b"colo-witness 1 claim web a 0\n", b"colo-witness 1 read ../x\n",
                     b"colo-witness 1 claim web a 99999999999999999999\n", b"colo-witness 1 read " + b"x" * 33 + b"\n",
                     b"colo-witness 1 claim web a/b 5\n", b"colo-witness 1 read\n", b"colo-witness 1 read  web\n",
                     b"colo-witness 1 read web\0\n", b"x" * 300, b"\0" * 256):
            self.assertRegex(self.say(line), rb"\Acolo-witness 1 refused .*\n\Z", line)
        self.assertEqual(self.ask("a").read().record(), (0, ""))

    def test_cut_off_request(self):
        """A line without its end is no claim."""
        with socket.create_connection(("127.0.0.1", self.witness.port), 10) as s:
            s.sendall(b"colo-witness 1 claim web a 5")
        with socket.create_connection(("127.0.0.1", self.witness.port), 10) as s:
            s.sendall(b"colo-witness 1 claim web a 5")
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(s.recv(100), b"")
        self.assertEqual(self.ask("a").read().record(), (0, ""))

    def test_piecemeal(self):
        with socket.create_connection(("127.0.0.1", self.witness.port), 10) as s:
            for byte in b"colo-witness 1 claim web a 5\n":
                s.sendall(bytes([byte]))
                time.sleep(0.005)
            self.assertEqual(s.makefile("rb").read(), b"colo-witness 1 won 5 a\n")

    def test_silent_connections(self):
        """Who connects and says nothing is thrown out, and keeps nobody else out for longer than that."""
        idle = []
        for _ in range(300):
            idle.append(socket.create_connection(("127.0.0.1", self.witness.port), 10))
        begin = time.monotonic()
        wait_until(lambda: self.ask("a").claim(1, 1000).status == WON, 15, "a claim among silent connections")
        print(f"300 silent connections: a claim after {time.monotonic() - begin:.1f} s", flush=True)
        for s in idle:
            s.settimeout(10)
            try:
                self.assertEqual(s.recv(1), b"")
            except ConnectionResetError:
                pass
            s.close()
        self.assertIn("too many connections", self.witness.said())
        self.assertLess(self.witness.said().count("\n"), 250)

    def test_term_lets_answers_out(self):
        with socket.create_connection(("127.0.0.1", self.witness.port), 10) as s:
            s.sendall(b"colo-witness 1 claim web")
            wait_until(lambda: self.ask("b").read().status == 0) # so it has taken the connection before, too
            self.witness.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "stopping" in self.witness.said())
            s.sendall(b" a 5\n")
            self.assertEqual(s.makefile("rb").read(), b"colo-witness 1 won 5 a\n")
        self.assertEqual(self.witness.process.wait(10), 0)


def write_keys(directory, keys):
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "keys.psk")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as f:
        f.writelines(f"{name}:{key}\n" for name, key in keys.items())
    return directory


class Keys(Base, unittest.TestCase):
    """All of the rules again with pre-shared keys, and what keys are for."""
    ROUNDS = 40

    def prepare(self):
        self.keys = {name: secrets.token_hex(32) for name in ("web", "web.2", "db", "ops")}
        access = os.path.join(self.dir, "access")
        with open(access, "w", encoding="ascii") as f:
            f.write("# the operator's\nops web db # both\n\n")
        self.state = os.path.join(self.dir, "state")
        self.witness = arblib.Witness(self.state, "--tls", "psk", "--tls-dir", write_keys(self.dir + "/keys", self.keys),
                                      "--access", access)
        self.addCleanup(lambda: self.witness.stop())

    def helper(self, node, vm="web", **settings):
        return super().helper(node, vm, **{"tls": "psk", "tls_dir": self.dir + "/keys", "username": vm, **settings})

    def test_key_of_another_vm(self):
        self.check_unknown(self.ask("a", vm="web", username="db"), "refuses: the key of 'db' is not for VM web")
        self.assertEqual(self.ask("a").read().record(), (0, ""))
        self.assertIn("the key of 'db' is not for VM web", self.witness.said())

    def test_access_list(self):
        self.assertEqual(self.ask("a", username="ops").claim(1).status, WON)
        self.check_unknown(self.ask("a", vm="web.2", username="ops"), "is not for VM web.2")

    def test_wrong_key(self):
        other = write_keys(self.dir + "/other", {**self.keys, "web": secrets.token_hex(32)})
        self.check_unknown(self.ask("a", tls_dir=other), "the witness 127.0.0.1")
        stranger = write_keys(self.dir + "/stranger", {"nobody": secrets.token_hex(32)})
        self.check_unknown(self.ask("a", tls_dir=stranger, username="nobody"), "the witness 127.0.0.1")
        self.check_unknown(self.ask("a", tls_dir=self.dir + "/none"), "tls-dir")
        self.assertEqual(self.ask("a").read().record(), (0, ""))

    def test_without_tls(self):
        """Neither a client nor a witness without keys is dealt with."""
        self.check_unknown(self.ask("a", tls="off"), "127.0.0.1")
        plain = arblib.Witness(os.path.join(self.dir, "plain"))
        self.check_unknown(self.ask("a", address=plain.address), "the witness 127.0.0.1")
        plain.stop()
        with socket.create_connection(("127.0.0.1", self.witness.port), 10) as s:
            s.sendall(b"colo-witness 1 claim web a 5\n")
            try:
                self.assertNotIn(b"won", s.recv(4096))
            except ConnectionResetError:
                pass
        self.assertEqual(self.ask("a").read().record(), (0, ""))

    def through(self, cut=None):
        """A proxy that keeps what the client says, and lets only @cut bytes of the answer through."""
        kept = []
        listener = socket.create_server(("127.0.0.1", 0))

        def pump(source, target, limit, keep):
            try:
                while data := source.recv(65536):
                    if keep:
                        kept.append(data)
                    if limit is not None:
                        data, limit = data[:limit], limit - len(data)
                    target.sendall(data)
                    if limit is not None and limit <= 0:
                        break
            except OSError:
                pass
            for s in (source, target):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

        def serve():
            while True:
                try:
                    conn, _ = listener.accept()
                except OSError:
                    return
                server = socket.create_connection(("127.0.0.1", self.witness.port))
                threading.Thread(target=pump, args=(conn, server, None, True), daemon=True).start()
                threading.Thread(target=pump, args=(server, conn, cut, False), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        self.addCleanup(listener.close)
        return listener.getsockname()[1], kept

    def test_cut_session(self):
        """However much of the answer comes: what is cut off is unknown, though it may have been won."""
        whole, _ = self.through()
        self.assertEqual(self.ask("a", address=f"127.0.0.1:{whole}").claim(1).status, WON)
        unknown = 0
        for n in range(0, 400, 23):
            port, _ = self.through(n)
            answer = self.ask("a", address=f"127.0.0.1:{port}").claim(n + 2, 2000)
            self.assertIn(answer.status < 0 or answer.record() == (n + 2, "a"), (True,))
            unknown += answer.status < 0
        self.assertGreater(unknown, 5)

    def test_replay(self):
        """What a client once said claims nothing when somebody says it again."""
        port, kept = self.through()
        self.assertEqual(self.ask("a", address=f"127.0.0.1:{port}").claim(1).status, WON)
        self.assertEqual(self.ask("b").claim(2).status, WON)
        for chunks in (kept, [b"".join(kept)]):
            with socket.create_connection(("127.0.0.1", self.witness.port), 10) as s:
                try:
                    for data in chunks:
                        s.sendall(data)
                        time.sleep(0.1)
                    s.shutdown(socket.SHUT_WR)
                    s.makefile("rb").read()
                except OSError:
                    pass
        self.assertEqual(self.ask("b").read().record(), (2, "b"))
        self.assertNotIn("a does not get", self.witness.said())



class Certificates(Base, unittest.TestCase):
    """All of the rules again with certificates, and what they are for."""
    ROUNDS = 40

    def prepare(self):
        self.keys = arblib.certificates(f"{self.dir}/keys")
        access = os.path.join(self.dir, "access")
        with open(access, "w", encoding="ascii") as f:
            f.write("web web.2\n")
        self.witness = arblib.Witness(os.path.join(self.dir, "state"), "--tls", "x509", "--tls-dir", self.keys,
                                      "--access", access)
        self.addCleanup(lambda: self.witness.stop())

    def helper(self, node, vm="web", **settings):
        return super().helper(node, vm, **{"tls": "x509", "tls_dir": self.keys, **settings})

    def test_owner(self):
        self.check_unknown(self.ask("a", vm="db"), "refuses: the key of 'web' is not for VM db")

    def test_strangers(self):
        """Another authority, no authority, another host's name, no certificate."""
        for name, hosts in (("stranger", ("127.0.0.1",)), ("elsewhere", ("localhost",))):
            self.check_unknown(self.ask("a", tls_dir=arblib.certificates(f"{self.dir}/{name}", hosts=hosts)), "the witness 127.0.0.1")
        os.remove(f"{self.dir}/stranger/ca-cert.pem")
        self.check_unknown(self.ask("a", tls_dir=f"{self.dir}/stranger"), "tls-dir.*ca-cert.pem")
        self.check_unknown(self.ask("a", tls="off"), "127.0.0.1")
        self.assertEqual(self.ask("a").read().record(), (0, ""))

    def test_witness_elsewhere(self):
        """A witness whose certificate is another's is not believed."""
        keys = arblib.certificates(f"{self.dir}/localhost", hosts=("localhost",))
        other = arblib.Witness(os.path.join(self.dir, "other"), "--tls", "x509", "--tls-dir", keys)
        self.addCleanup(lambda: other.stop())
        self.check_unknown(self.ask("a", address=other.address, tls_dir=keys), "certificate")


class Nonsense(unittest.TestCase):
    """Whatever answers in the witness' place is not won."""

    def test_answers(self):
        for answer in (b"", b"\n", b"won\n", b"HTTP/1.1 200 OK\r\n\r\n", b"colo-witness 1 won 9 a", b"colo-witness 1 won 8 a\n",
                       b"colo-witness 1 won 9 b\n", b"colo-witness 1 won 10 a\n", b"colo-witness 1 lost 9 a\n",
                       b"colo-witness 1 lost 8 b\n", b"colo-witness 2 won 9 a\n", b"colo-witness 1 won 9 a\nx",
                       b"colo-witness 1 won 9\n", b"colo-witness 1 none\n", b"colo-witness 1 record 9 a\n",
                       b"colo-witness 1 refused because\x1b[1m\n", b"colo-witness 1 won 9 " + b"a" * 40 + b"\n", b"\xff" * 1000):
            fake = arblib.Fake(lambda request, a=answer: a)
            helper = arblib.Helper(WITNESS, "a", address=f"127.0.0.1:{fake.port}")
            got = helper.claim(9, 2000)
            self.assertLess(got.status, 0, (answer, got))
            self.assertTrue(got.error and got.error.isprintable(), got)
            helper.close()
            fake.close()

    def test_nobody_there(self):
        """Refused at once; and one who never answers a SYN within two seconds."""
        helper = arblib.Helper(WITNESS, "a", address=f"127.0.0.1:{arblib.free_port()}")
        self.assertIn("Connection refused", helper.claim(1).error)
        helper.close()
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            clients = [socket.socket() for _ in range(4)]
            for c in clients:
                c.setblocking(False)
                c.connect_ex(full.getsockname())
                self.addCleanup(c.close)
            helper = arblib.Helper(WITNESS, "a", address=f"127.0.0.1:{full.getsockname()[1]}")
            begin = time.monotonic()
            got = helper.claim(1, 15000)
            self.assertLess(got.status, 0)
            self.assertIn("cannot be reached", got.error)
            self.assertLess(time.monotonic() - begin, 3)
            helper.close()

    def test_no_such_name(self):
        helper = arblib.Helper(WITNESS, "a", address="no-such-host.invalid:7440")
        self.assertLess(helper.claim(1).status, 0)
        helper.close()


class Usage(unittest.TestCase):
    def run_it(self, *options):
        r = subprocess.run([arblib.COLO, "witness", *options], capture_output=True, text=True, timeout=10, check=False)
        self.assertIn(r.returncode, (1, 2))
        return r.stderr

    def test_options(self):
        listen = f"127.0.0.1:{arblib.free_port()}"
        self.assertIn("needs --listen and --state", self.run_it("--listen", listen))
        self.assertIn("takes no CONFIG", self.run_it("x.conf"))
        for where in ("0.0.0.0:7440", "[::]:7440", "192.0.2.1"):
            self.assertIn("--tls psk or --tls x509", self.new("--listen", where))
        self.assertIn("not of the form HOST:PORT", self.new("--listen", "::1"))
        self.assertIn("none of psk, x509, off", self.new("--listen", listen, "--tls", "yes"))
        self.assertIn("needs --tls-dir", self.new("--listen", listen, "--tls", "psk"))
        self.assertIn("keys.psk", self.new("--listen", listen, "--tls", "psk", "--tls-dir", "/nonexistent"))

    def new(self, *options):
        directory = arblib.temporary()
        try:
            return self.run_it("--state", os.path.join(directory, "s"), "--new", *options)
        finally:
            subprocess.run(["rm", "-rf", directory], check=False)


if __name__ == "__main__":
    unittest.main()
