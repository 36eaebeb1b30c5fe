# SPDX-License-Identifier: GPL-2.0-or-later
"""For the tests of the arbiters: the helper process as the daemon uses it, a witness, an etcd cluster."""
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COLO = os.environ.get("COLO_BIN") or os.path.join(ROOT, "build", "colo")
HELPER = os.path.join(os.path.dirname(COLO), "arbiter", "colo-arbiter")

sys.path.insert(0, os.path.join(ROOT, "lab"))
from labkit import keys  # noqa: E402  pylint: disable=wrong-import-position

# arbiter_proto.h
WITNESS, ETCD, FILE = 1, 2, 3
TLS = {"off": 0, "psk": 1, "x509": 2}
CONFIG = struct.Struct("II32s32s1024s256s256s64s64s256s")
REQUEST = struct.Struct("IIQ")
ANSWER = struct.Struct("IiQQ32s240s")
READ, CLAIM, PULSE = 1, 2, 3
WON, LOST = 0, 1


def wait_until(condition, seconds=10, what="it"):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def free_port(address="127.0.0.1"):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, 0))
        return s.getsockname()[1]


def certificates(directory, owner="web", hosts=("127.0.0.1",)):
    """A directory with a CA of its own, and @owner's certificates."""
    os.makedirs(directory)
    keys.certificates(directory, hosts, owner)
    return directory


class Answer:
    def __init__(self, data):
        _, self.status, self.asked, self.generation, owner, error = ANSWER.unpack(data)
        self.owner = owner.split(b"\0")[0].decode()
        self.error = error.split(b"\0")[0].decode()

    def __repr__(self):
        return f"<{self.status} {self.generation} {self.owner} '{self.error}'>"

    def record(self):
        return (self.generation, self.owner)


class Helper:
    """A colo-arbiter process, asked as by the daemon of host @node."""

    def __init__(self, kind, node, vm="web", preload=None, **settings):
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = dict(os.environ)
        if preload:
            environment.update(preload)
        self.process = subprocess.Popen(["bash", "-c", f'exec "$0" 3<&{theirs.fileno()}', HELPER],
                                        pass_fds=[theirs.fileno()], env=environment)
        theirs.close()
        text = {key: settings.get(key, "").encode() for key in ("address", "directory", "tls_dir", "username", "user",
                                                                "password_file")}
        self.sock.send(CONFIG.pack(kind, TLS[settings.get("tls", "off")], vm.encode(), node.encode(), *text.values()))
        self.pulses = 0

    def send(self, op, generation=0, limit_ms=5000):
        self.sock.send(REQUEST.pack(op, limit_ms, generation))

    def answer(self, seconds=20):
        """The next one that is no pulse."""
        deadline = time.monotonic() + seconds
        while True:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            data = self.sock.recv(4096)
            if not data:
                raise AssertionError("the helper has ended")
            if struct.unpack_from("I", data)[0] != PULSE:
                return Answer(data)
            self.pulses += 1

    def read(self, limit_ms=5000):
        self.send(READ, 0, limit_ms)
        return self.answer()

    def claim(self, generation, limit_ms=5000):
        self.send(CLAIM, generation, limit_ms)
        return self.answer()

    def close(self):
        self.sock.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Witness:
    """A `colo witness` on loopback."""

    def __init__(self, directory, *options, port=None, new=True):
        self.directory, self.port = directory, port or free_port()
        self.log = directory + ".log"
        self.options = options
        self.process = None
        self.start(new)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self, new=False):
        command = [COLO, "witness", "--listen", self.address, "--state", self.directory, *self.options]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command + (["--new"] if new else []), stderr=log)
        wait_until(self.listens, 10, "the witness listens")

    def listens(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the witness ended: {self.said()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self, sig=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.send_signal(signal.SIGCONT)
        return self.process.wait(15)


# A member that gets no CPU for a second, as may be while other tests run, is not dead yet: without a leader nothing is
# certain, and claims are rightly refused.
CALM = "--heartbeat-interval", "300", "--election-timeout", "3000"


class Etcd:
    """A cluster of @n members on loopback; with @tls_dir clients speak TLS, with certificates of theirs."""

    def __init__(self, directory, n=3, extra=(), tls_dir=""):
        self.directory, self.extra, self.tls_dir = directory, extra, tls_dir
        self.scheme = "https" if tls_dir else "http"
        if tls_dir:
            self.extra = ("--client-cert-auth", "--trusted-ca-file", f"{tls_dir}/ca-cert.pem", "--cert-file",
                          f"{tls_dir}/server-cert.pem", "--key-file", f"{tls_dir}/server-key.pem", *extra)
        self.ports = [(free_port(), free_port()) for _ in range(n)]
        self.members = [None] * n
        for i in range(n):
            self.start(i)
        wait_until(self.works, 30, "etcd works")

    @property
    def urls(self):
        return [f"{self.scheme}://127.0.0.1:{client}" for client, _ in self.ports]

    def start(self, i):
        client, peer = self.urls[i], f"http://127.0.0.1:{self.ports[i][1]}"
        cluster = ",".join(f"m{k}=http://127.0.0.1:{port}" for k, (_, port) in enumerate(self.ports))
        with open(f"{self.directory}/etcd{i}.log", "ab") as log:
            self.members[i] = subprocess.Popen(
                ["etcd", "--name", f"m{i}", "--data-dir", f"{self.directory}/etcd{i}", "--listen-client-urls", client,
                 "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                 "--initial-cluster", cluster, *CALM, *self.extra], stdout=log, stderr=log)

    def works(self):
        helper = Helper(ETCD, "probe", vm="probe", address=",".join(self.urls),
                        tls="x509" if self.tls_dir else "off", tls_dir=self.tls_dir)
        try:
            return helper.read(3000).status == 0
        finally:
            helper.close()

    def stop(self, i, sig=signal.SIGKILL):
        self.members[i].send_signal(sig)
        self.members[i].wait(15)

    def close(self):
        for member in self.members:
            if member.poll() is None:
                member.kill()
            member.wait()


class Fake:
    """A server that says @answer(request bytes) after @delay, or forwards to @to with that delay."""

    def __init__(self, answer=None, delay=0, to=None):
        self.say, self.delay, self.to = answer, delay, to
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.forward if self.to else self.reply, args=(conn,), daemon=True).start()

    def reply(self, conn):
        try:
            request = conn.recv(65536)
            time.sleep(self.delay)
            conn.sendall(self.say(request))
            conn.shutdown(socket.SHUT_WR)
            conn.recv(1)
        except OSError:
            pass
        conn.close()

    def forward(self, conn):
        """What the client says goes at once, what it is told late."""
        try:
            with socket.create_connection(("127.0.0.1", self.to)) as server:
                server.sendall(conn.recv(65536))
                answer = server.recv(65536)
                time.sleep(self.delay)
                conn.sendall(answer)
        except OSError:
            pass
        conn.close()

    def close(self):
        self.sock.close()


def race(a, b, generations):
    """Both claim each of @generations at the same moment: {generation: winner}, an error if not exactly one."""
    winners = {}
    for g in generations:
        a.send(CLAIM, g)
        b.send(CLAIM, g)
        answers = {"a": a.answer(), "b": b.answer()}
        won = [node for node, answer in answers.items() if answer.status == WON]
        unknown = [node for node, answer in answers.items() if answer.status < 0]
        if len(won) + len(unknown) == 0 or len(won) > 1:
            raise AssertionError(f"generation {g}: {answers}")
        if unknown:
            raise AssertionError(f"generation {g} unknown: {answers}")
        if any(answer.record() != (g, won[0]) for answer in answers.values()):
            raise AssertionError(f"generation {g}: {answers}")
        winners[g] = won[0]
    return winners


def temporary():
    return tempfile.mkdtemp(prefix="colo-arbiter-", dir=os.environ.get("COLO_TMP", "/var/tmp"))


def need(*programs):
    missing = [p for p in programs if not shutil.which(p)]
    if missing:
        print(f"skipped: {', '.join(missing)} not installed")
        sys.exit(77)
