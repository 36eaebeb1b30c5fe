#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The peer link of real daemons: only the peer is let in, what is wrong is said on both sides, and whoever cuts,
changes or plays back what is on the wire costs protection, never the service.

Usage: test_link.py COLO [NAME...]   (NAME: a part of the names of the tests to run)
Needs root; runs in a network namespace of its own.
"""
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "cli"))
from colonode import Failure, Node, World, closed, dial, run_tests # pylint: disable=wrong-import-position

VALID = "expiration_days = 30"
PAST = 'activation_date = "2020-01-01 00:00:00"\nexpiration_date = "2021-01-01 00:00:00"'


# --- keys ---

def certtool(*words):
    subprocess.run(["certtool", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Keys:
    """Directories with keys, each made once."""

    def __init__(self, base):
        self.base = base

    def _dir(self, name):
        path = os.path.join(self.base, name)
        new = not os.path.isdir(path)
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path, new

    def psk(self, name, user="colo"):
        path, new = self._dir(name)
        if new:
            subprocess.run(["psktool", "-u", user, "-p", os.path.join(path, "keys.psk")], check=True,
                           stdout=subprocess.DEVNULL)
            os.chmod(os.path.join(path, "keys.psk"), 0o600)
        return path

    def ca(self, name):
        path, new = self._dir(name)
        if new:
            template = os.path.join(path, "template")
            with open(template, "w", encoding="utf-8") as f:
                f.write("cn = test CA\nca\ncert_signing_key\nexpiration_days = 90\n")
            key = os.path.join(path, "ca-key.pem")
            certtool("--generate-privkey", "--ecc", "--outfile", key)
            certtool("--generate-self-signed", "--load-privkey", key, "--template", template,
                     "--outfile", os.path.join(path, "ca-cert.pem"))
        return path

    def x509(self, name, host, ca="ca", dates=VALID):
        """What the node @host has in its directory."""
        ca = self.ca(ca)
        path, new = self._dir(name)
        kind = "ip_address" if host[0].isdigit() else "dns_name"
        for end in ("server", "client") if new else ():
            template, key = os.path.join(path, "template"), os.path.join(path, f"{end}-key.pem")
            with open(template, "w", encoding="utf-8") as f:
                f.write(f"cn = {host}\n{kind} = {host}\nsigning_key\ntls_www_{end}\n{dates}\n")
            certtool("--generate-privkey", "--ecc", "--outfile", key)
            os.chmod(key, 0o600)
            certtool("--generate-certificate", "--load-privkey", key, "--template", template,
                     "--load-ca-certificate", os.path.join(ca, "ca-cert.pem"),
                     "--load-ca-privkey", os.path.join(ca, "ca-key.pem"),
                     "--outfile", os.path.join(path, f"{end}-cert.pem"))
        shutil.copy(os.path.join(ca, "ca-cert.pem"), path)
        return path


class Secure(World):
    """And keys."""

    def __init__(self, colo, base):
        super().__init__(colo, base)
        self.keys = Keys(os.path.join(base, "keys"))

    def node(self, name, tls, port=7400, **more): # pylint: disable=arguments-differ,arguments-renamed
        """@tls: (mode, dir), or None for no [tls] section"""
        settings = {("tls", "mode"): tls[0], ("tls", "dir"): tls[1]} if tls else {}
        settings.update({("tls", key): value for key, value in more.items()})
        return super().node(name, settings, port)

    def primary(self, tls, **more):
        a = self.node("a", tls, **more).start()
        a.wait_log("the guest runs")
        a.wait_state("alone")
        return a

    def psk(self, name="one"):
        return "psk", self.keys.psk(name)


def protected(a, b):
    a.wait_state("protected")
    b.wait_state("protected")
    a.assert_guest_runs()


def serves_alone(a):
    if a.process.poll() is not None:
        raise Failure(f"the primary has ended: {a.process.returncode}")
    a.wait_state("alone")
    a.assert_guest_runs()


# --- the two are linked ---

def test_psk(w):
    a = w.primary(w.psk())
    b = w.node("b", w.psk()).start()
    protected(a, b)
    status = a.status()
    if status["link"]["tls"] != "psk":
        raise Failure(f"{status['link']}")
    b.end() # an orderly end is one on each channel
    a.wait_state("alone")
    if "farewell" in a.log() or "broken" in a.log():
        raise Failure(a.log())


def test_x509(w):
    a = w.primary(("x509", w.keys.x509("a", "a")))
    b = w.node("b", ("x509", w.keys.x509("b", "b"))).start()
    protected(a, b)


def test_x509_for_the_address(w):
    a = w.primary(("x509", w.keys.x509("a-address", "127.0.0.1")))
    b = w.node("b", ("x509", w.keys.x509("b", "b"))).start()
    protected(a, b)


def test_failover_is_noticed_at_once(w):
    """The daemon of the primary is killed: the relays and sessions hide that for no heartbeat."""
    a = w.node("a", w.psk(), **{})
    a.start()
    a.wait_log("the guest runs")
    b = w.node("b", w.psk()).start()
    protected(a, b)
    mark = len(b.log())
    begin = time.monotonic()
    a.process.kill()
    a.process.wait()
    b.wait_log(r"state protected -> claiming|closed without a farewell", mark)
    took = time.monotonic() - begin
    print(f"noticed after {1000 * took:.0f} ms")
    if took > 0.3: # five heartbeats of 100 ms are what silence takes
        raise Failure(f"noticed after {took:.3f} s only")


def test_renewed_key(w):
    """New keys count for the next link; the one that stands is not disturbed."""
    path = w.keys.psk("renewed")
    a = w.primary(("psk", path))
    b = w.node("b", ("psk", path)).start()
    protected(a, b)
    shutil.copy(os.path.join(w.keys.psk("renewed-2"), "keys.psk"), path)
    protected(a, b)
    b.end()
    a.wait_state("alone")
    other = w.node("b", w.psk("one")).start()
    a.wait_log("turned away a connection: its key is not ours")
    other.end()
    b = w.node("b", w.psk("renewed-2")).start()
    a.wait_log(r"\[tls\] the files have changed, and count for connections from now on")
    protected(a, b)


# --- who is turned away ---

def turned_away(w, tls_a, tls_b, a_says, b_says, **more):
    a = w.primary(tls_a)
    b = w.node("b", tls_b, **more).start()
    a.wait_log(a_says)
    b.wait_log(b_says)
    serves_alone(a)
    if b.status()["state"] != "connecting":
        raise Failure(f"b is {b.status()['state']}")


def test_wrong_key(w):
    turned_away(w, w.psk("one"), w.psk("two"), "turned away a connection: its key is not ours",
                "cannot be linked with: it refuses us: it has another key for our user")


def test_unknown_user(w):
    turned_away(w, w.psk("one"), ("psk", w.keys.psk("eve", "eve")),
                "turned away a connection: user 'eve' is not in our keys.psk",
                "cannot be linked with: it refuses us: it does not know our user", username="eve")


def test_expired(w):
    turned_away(w, ("x509", w.keys.x509("a", "a")), ("x509", w.keys.x509("b-old", "b", dates=PAST)),
                "turned away a connection: its certificate has expired",
                "client-cert.pem has expired|server-cert.pem has expired")


def test_expired_primary(w):
    """It says so, and serves all the same."""
    turned_away(w, ("x509", w.keys.x509("a-old", "a", dates=PAST)), ("x509", w.keys.x509("b", "b")),
                "server-cert.pem has expired: the peer will refuse it",
                "cannot be linked with: its certificate has expired")


def test_other_ca(w):
    turned_away(w, ("x509", w.keys.x509("a", "a")), ("x509", w.keys.x509("b-other", "b", ca="ca-other")),
                "turned away a connection: ",
                r"cannot be linked with: its certificate is not signed by our CA \(ca-cert.pem\)")


def test_certificate_of_another_host(w):
    turned_away(w, ("x509", w.keys.x509("a", "a")), ("x509", w.keys.x509("c", "c")),
                "turned away: its certificate is for 'c', not for b or 127.0.0.2", "connecting|closed")


def test_kinds_differ(w):
    turned_away(w, w.psk(), ("x509", w.keys.x509("b", "b")), "no kind of credentials in common",
                "no kind of credentials in common")


def test_plain_to_tls(w):
    turned_away(w, w.psk(), ("off", "/nonexistent"),
                r"turned away a connection: it speaks no TLS \(\[tls\] mode = off there\?\)",
                r"refused: this node wants TLS: \[tls\] mode = psk")


def test_tls_to_plain(w):
    turned_away(w, None, w.psk(), r"turned away a connection that begins with TLS: \[tls\] mode = off here",
                r"cannot be linked with: it speaks no TLS \(\[tls\] mode = off there\?\)")


# --- configuration ---

def refused_start(w, name, tls, want, **more):
    n = w.node(name, tls, **more)
    n.start()
    status = n.wait_end()
    if status != 1 or want not in n.log():
        raise Failure(f"exit status {status}, '{want}' is not in\n{n.log()}")
    check = subprocess.run(n.command("check"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if check.returncode != 1 or want not in check.stdout.decode():
        raise Failure(f"colo check: {check.stdout.decode()}")


def test_files(w):
    path = w.keys.psk("open")
    refused_start(w, "a", ("psk", "/nonexistent"), "[tls] /nonexistent/keys.psk: No such file or directory")
    os.chmod(os.path.join(path, "keys.psk"), 0o644)
    refused_start(w, "a", ("psk", path), "keys.psk: others may read or write it (mode 644): chmod 600 it")
    refused_start(w, "a", w.psk(), "keys.psk: there is no user 'bob'", username="bob")
    refused_start(w, "a", ("tsl", path), "[tls] mode: 'tsl' is none of psk, x509, off")


def test_no_silent_default(w):
    n = w.add(Node(w.colo, w.base, "a", {("host b", "address"): "192.0.2.2"}))
    n.start()
    if n.wait_end() != 1 or not re.search(r"\[tls\] mode: missing: make a key with `psktool -u colo -p "
                                          r"/etc/colo/tls/keys.psk`.*mode = off", n.log()):
        raise Failure(n.log())


def test_check_warns(w):
    n = w.node("b", ("x509", w.keys.x509("b-old", "b", dates=PAST)))
    r = subprocess.run(n.command("check"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if r.returncode or b"has expired: the peer will refuse it" not in r.stderr:
        raise Failure(f"{r}")


# --- a hostile wire ---

class Wire:
    """Between the secondary and a's port: carries bytes, remembers them, and does what it is told to."""

    def __init__(self):
        self.links = [] # (down, up) by order of connection: CONTROL, BULK, DISK, SEED
        self.seen = []  # bytes to the primary, of each
        self.flip = None # (connection, to the primary?): the next piece is changed
        self.cut = None  # the same: the next piece is cut, and the connection ends

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for pair in self.links:
            for s in pair:
                self.hang_up(s)

    @staticmethod
    def hang_up(s):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def serve(self):
        while True:
            try:
                down, _ = self.listener.accept()
                up = socket.create_connection(("127.0.0.1", 7400))
            except OSError:
                return
            for s in down, up:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            n = len(self.links)
            self.links.append((down, up))
            self.seen.append(bytearray())
            threading.Thread(target=self.pump, args=(n, down, up, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(n, up, down, False), daemon=True).start()

    def pump(self, n, source, to, to_primary):
        try:
            while data := source.recv(1 << 16):
                if to_primary and len(self.seen[n]) < 1 << 20:
                    self.seen[n] += data
                if self.flip == (n, to_primary):
                    self.flip = None
                    data = data[:-1] + bytes([data[-1] ^ 1])
                if self.cut == (n, to_primary):
                    to.sendall(data[:len(data) // 2])
                    break
                to.sendall(data)
        except OSError:
            pass
        for s in source, to:
            self.hang_up(s)


def test_nothing_in_the_clear(w):
    """Names of the protocol and the guest's memory are not on the wire."""
    a = w.primary(w.psk())
    with Wire() as wire:
        b = w.node("b", w.psk(), port=wire.port).start()
        protected(a, b)
        if len(wire.links) < 4:
            raise Failure(f"{len(wire.links)} connections")
        for n, seen in enumerate(wire.seen):
            if seen[0] != 22 or b"OLOC" in seen or b"COLO" in seen or b"DLOC" in seen or b"QEVM" in seen:
                raise Failure(f"connection {n} is not encrypted: {bytes(seen[:100])}")
        b.end()


def test_replay(w):
    """All that a secondary ever said, said again: the primary does not even get to a hello."""
    a = w.primary(w.psk())
    with Wire() as wire:
        b = w.node("b", w.psk(), port=wire.port).start()
        protected(a, b)
        seen = [bytes(s) for s in wire.seen]
        b.end()
    a.wait_state("alone")
    mark = len(a.log())
    for data in seen:
        with dial(data) as s:
            if not closed(s):
                raise Failure("a replayed session is kept")
        a.wait_log("turned away a connection: ", mark)
    if "linked with" in a.log()[mark:]:
        raise Failure(a.log()[mark:])
    serves_alone(a)


def attacked(w, attack, connection, to_primary, want):
    """The link is lost with clear words of whoever saw it; the primary's guest runs on."""
    a = w.primary(w.psk())
    with Wire() as wire:
        b = w.node("b", w.psk(), port=wire.port).start()
        protected(a, b)
        victim = a if to_primary else b
        mark = len(victim.log())
        setattr(wire, attack, (connection, to_primary))
        if connection:
            subprocess.run(a.command("checkpoint"), check=True, timeout=10)
        victim.wait_log(want, mark)
        serves_alone(a)
    w.kill()


def test_flipped_bit(w):
    broken = "a record is broken or forged"
    attacked(w, "flip", 0, True, broken)
    attacked(w, "flip", 0, False, broken)
    attacked(w, "flip", 1, False, "checkpoint channel: " + broken)
    attacked(w, "flip", 2, False, "disk channel: " + broken)
    attacked(w, "flip", 2, True, "disk channel: " + broken)


def test_truncated(w):
    cut = "closed without a farewell"
    attacked(w, "cut", 0, True, cut)
    attacked(w, "cut", 1, False, "checkpoint channel: " + cut)
    attacked(w, "cut", 2, False, "disk channel: " + cut)


def test_flood(w):
    """Strangers who say nothing, or begin handshakes and leave them: descriptors and time stay bounded, and the peer
    finds its way in between them."""
    a = w.node("a", w.psk()).start(("prlimit", "--nofile=128"))
    a.wait_log("the guest runs")
    hello = bytes.fromhex("160301") + (200).to_bytes(2, "big") + bytes([1, 0, 0, 196]) + os.urandom(196)
    stop = threading.Event()
    strangers = []

    def flood():
        while not stop.is_set():
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", 7400))
            strangers.append(s)
            time.sleep(0.02)
            try:
                s.send(hello[:100] if len(strangers) % 2 else hello)
            except OSError:
                pass
            while len(strangers) > 300:
                strangers.pop(0).close()
    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        a.wait_log("too many connections without a hello|turned away a connection")
        for _ in range(10):
            begin = time.monotonic()
            a.status()
            if time.monotonic() - begin > 1:
                raise Failure("the operator waits for strangers")
            if len(os.listdir(f"/proc/{a.process.pid}/fd")) > 90:
                raise Failure("strangers take up descriptors")
        b = w.node("b", w.psk()).start()
        a.wait_state("protected", 30)
        b.wait_state("protected", 30)
    finally:
        stop.set()
        thread.join()
        for s in strangers:
            s.close()
    a.assert_guest_runs()


# --- the operator's socket ---

def test_control_is_roots(w):
    a = w.primary(None)
    path = os.path.join(a.state_dir, "colo.sock")
    modes = [oct(os.stat(p).st_mode & 0o777) for p in (path, a.state_dir)]
    if modes != ["0o600", "0o700"]:
        raise Failure(f"modes {modes}")
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({path!r}); " \
           "print(s.recv(1000).decode())"
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/usr/bin/python3", "-c", code]
    r = subprocess.run(nobody, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if r.returncode == 0 or b"Permission denied" not in r.stderr:
        raise Failure(f"{r}")
    for p in a.dir, a.state_dir, path: # as if the operator had opened it
        os.chmod(p, 0o777)
    r = subprocess.run(nobody, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if b'"error":"only root may ask"' not in r.stdout:
        raise Failure(f"{r}")
    serves_alone(a)


def test_state_directory_of_all(w):
    n = w.node("a", None)
    os.makedirs(n.state_dir)
    os.chmod(n.state_dir, 0o777)
    n.start()
    if n.wait_end() != 1 or "others than root may write to it (mode 777)" not in n.log():
        raise Failure(n.log())


if __name__ == "__main__":
    sys.exit(run_tests(globals(), Secure, ("certtool", "psktool")))
