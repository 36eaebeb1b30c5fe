# SPDX-License-Identifier: GPL-2.0-or-later
"""A real daemon of one node, the peer protocol spoken by hand, and what runs the tests that use them.

The guest is a boot sector that writes a dot to the serial line at each timer tick: it costs nothing, and
whether the VM runs shows in the size of its console log.
"""
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

BOOT_SECTOR = bytes.fromhex("31c08ed8fbbaf803b02eeef4ebfa").ljust(510, b"\0") + b"\x55\xaa"
DISK_SIZE = 4 << 20
MAGIC = 0x434f4c4f
CONTROL, BULK, DISK, SEED = range(4)
OK, REFUSED, LATER = range(3)
(HEARTBEAT, SEED_START, SEED_READY, INPUT, PVM_SYN, OUTPUT, BOUNDARY, HELD, APPLIED, HANDOVER, ASK, TAKEN,
 DISMISS, GUEST_OFF, SYNCED, GOODBYE) = range(1, 17)
VERSION = 5
HELLO = struct.Struct("!IHHQHHHHQQQQ32s32s32s32s768sQ16s8s32s")
HELLO_FIELDS = ("magic version channel session disk flags version_min pad memory vcpus mode digest vm node machine "
                "qemu disks generation driver accel spare").split()
PEER_DISK = struct.Struct("!QQIIQQ48sII") # one of eight
DISK_FIELDS = "size identity flags sector current base history lineage_flags pad".split()
PRESENT, READ_ONLY, CDROM = 1, 2, 4
CONSISTENT, SERVED = 1, 2 # of lineage_flags
ANSWER = struct.Struct("!IHHQ240s768sQ56s")
HEADER = struct.Struct("!IHHQ")
LINK_MAGIC = 0x434f4c44
LINK_HEADER = struct.Struct("!IIQII") # disk/disk_proto.h: magic, op, offset, length, pad
(LINK_WRITE, LINK_ZERO, LINK_BOUNDARY, LINK_HASH, LINK_SYNCED, LINK_HELLO, LINK_HOLE) = range(1, 8)
LINK_TARGET, LINK_SAME, LINK_DIFFERS, LINK_BUSY, LINK_SYNC_STABLE = range(32, 37)


class Failure(Exception):
    """The test has failed."""


def wait_for(what, predicate, seconds=15):
    """The first true value of @predicate."""
    end = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"waited {seconds} s in vain: {what}")
        time.sleep(0.01)


class Node:
    """Directory, disk, configuration and daemon of one node."""

    def __init__(self, colo, base, node, settings=None, port=7400):
        self.colo, self.node, self.process = colo, node, None
        self.dir = os.path.join(base, node)
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.dir)
        self.log_path = os.path.join(self.dir, "log")
        self.state_dir = os.path.join(self.dir, "state")
        self.disk = os.path.join(self.dir, "disk.img")
        self.config = os.path.join(self.dir, "colo.conf")
        with open(self.disk, "wb") as f:
            f.write(BOOT_SECTOR)
            f.truncate(DISK_SIZE)
        self.write_config(settings or {}, port)

    def write_config(self, settings, port):
        """settings: {(section, key): value}; None leaves a key out"""
        keys = {("vm", "name"): "web", ("vm", "mac"): "52:54:00:12:34:56", ("vm", "memory"): "32M",
                ("vm", "accel"): "tcg",
                ("peer", "heartbeat"): "100ms", ("peer", "settle"): "100ms",
                ("host a", "address"): "127.0.0.1", ("host a", "port"): port,
                ("host b", "address"): "127.0.0.2",
                (f"host {self.node}", "disk"): self.disk, (f"host {self.node}", "state"): self.state_dir,
                (f"host {self.node}", "data"): os.path.join(self.dir, "data"),
                ("host b" if self.node == "a" else "host a", "disk"): "/elsewhere"}
        keys.update(settings)
        with open(self.config, "w", encoding="utf-8") as f:
            for section in sorted({s for s, _ in keys}):
                f.write(f"[{section}]\n")
                f.writelines(f"{k} = {v}\n" for (s, k), v in keys.items() if s == section and v is not None)

    def command(self, *words):
        return [self.colo, *words, "--node", self.node, self.config]

    def start(self, prefix=()):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*prefix, *self.command("run", "--once")], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        return self

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_log(self, pattern, after=0, seconds=15):
        """Waits for @pattern behind the first @after characters of the log."""
        def look():
            if self.process.poll() is not None and not re.search(pattern, self.log()[after:]):
                raise Failure(f"{self.node} ended ({self.process.returncode}) before it said '{pattern}'")
            return re.search(pattern, self.log()[after:])
        return wait_for(f"{self.node} says '{pattern}'", look, seconds)

    def status(self):
        r = subprocess.run(self.command("status", "--json"), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=5, check=False)
        if r.returncode:
            raise Failure(f"colo status: {r.stderr.decode()}")
        return json.loads(r.stdout)

    def wait_state(self, state, seconds=15):
        return wait_for(f"{self.node} is {state}", lambda: self.status()["state"] == state, seconds)

    def wait_end(self, seconds=10):
        """Waits for the daemon's end; returns its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.node} does not end") from None

    def assert_guest_runs(self, seconds=5):
        path = os.path.join(self.state_dir, "console.log")
        size = os.path.getsize(path)
        wait_for("the guest runs", lambda: os.path.getsize(path) > size, seconds)

    def end(self):
        """Ends the daemon if it runs."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise Failure(f"{self.node} does not end when asked to") from None


# --- the peer protocol ---

def hello_unpack(data):
    return dict(zip(HELLO_FIELDS, HELLO.unpack(data)))


def hello_pack(fields, **changes):
    fields = {**fields, **changes}
    return HELLO.pack(*(fields[k].encode() if isinstance(fields[k], str) else fields[k]
                        for k in HELLO_FIELDS))


def disk_of(disks, i):
    """Fields of the disk @i in a hello or an answer."""
    return dict(zip(DISK_FIELDS, PEER_DISK.unpack_from(disks, i * PEER_DISK.size)))


def with_disk(disks, i, **changes):
    """The same disks, but for the disk @i."""
    fields = {**disk_of(disks, i), **changes}
    at = i * PEER_DISK.size
    return disks[:at] + PEER_DISK.pack(*(fields[k] for k in DISK_FIELDS)) + disks[at + PEER_DISK.size:]


def message(kind, epoch=0, payload=b"", length=None):
    return HEADER.pack(len(payload) if length is None else length, kind, 0, epoch) + payload


def receive(sock, n):
    """Exactly @n bytes, or fewer at the end of the connection."""
    data = b""
    while len(data) < n:
        try:
            piece = sock.recv(n - len(data))
        except ConnectionResetError:
            break
        if not piece:
            break
        data += piece
    return data


def closed(sock):
    """Reads what is left; does the other side close the connection?"""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except socket.timeout:
        return False
    return True


def dial(data=b"", port=7400, seconds=10):
    s = socket.create_connection(("127.0.0.1", port), timeout=seconds)
    if data:
        s.sendall(data)
    return s


def answer(sock):
    """(status, session, text)"""
    data = receive(sock, ANSWER.size)
    if len(data) != ANSWER.size:
        raise Failure(f"an answer of {len(data)} bytes")
    magic, _, status, session, text, *_ = ANSWER.unpack(data)
    if magic != MAGIC:
        raise Failure("an answer without magic")
    return status, session, text.rstrip(b"\0").decode()


def hang_up(sock):
    """Closes it, whether or not a thread reads from it."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass # closed already
    sock.close()


def disk_secondary(sock):
    """Answers a primary's disk manager on the DISK channel until that is closed."""
    def say(op, offset=0):
        sock.sendall(LINK_HEADER.pack(LINK_MAGIC, op, offset, 0, 0))

    try:
        while head := receive(sock, LINK_HEADER.size):
            _, op, offset, length, _ = LINK_HEADER.unpack(head)
            receive(sock, {LINK_WRITE: length, LINK_HASH: 16}.get(op, 0))
            if op == LINK_HELLO:
                say(LINK_TARGET)
            elif op in (LINK_HASH, LINK_HOLE):
                say(LINK_SAME, offset)
            elif op == LINK_SYNCED:
                say(LINK_SYNC_STABLE)
    except (OSError, struct.error):
        pass # closed: what that does is the test's concern


class Link:
    """All channels to a primary, dialled as a secondary does."""

    def __init__(self, hello, channels=(CONTROL, BULK, DISK)):
        self.hello, self.session, self.channel = hello, 0, {}
        for c in channels:
            self.open(c)

    def open(self, c):
        """Dials again as a daemon does: one that lost its peer a moment ago says LATER."""
        end = time.monotonic() + 20
        while True:
            self.channel[c] = dial(hello_pack(self.hello, channel=c, session=self.session))
            status, session, text = answer(self.channel[c])
            if status == OK:
                break
            self.channel[c].close()
            if status != LATER or time.monotonic() > end:
                raise Failure(f"channel {c} is refused: {text}")
            time.sleep(0.05)
        self.session = session

    def send(self, data, c=CONTROL):
        try:
            self.channel[c].sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass # what is being tested may have ended it already

    def receive_disk(self):
        """The secondary's side of the disk link, in a thread: nothing has changed, every block is the same."""
        threading.Thread(target=disk_secondary, args=(self.channel[DISK],), daemon=True).start()

    def wait_message(self, kind, seconds=15):
        """Reads control messages, with heartbeats of our own, until one of @kind."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            head = receive(self.channel[CONTROL], HEADER.size)
            if len(head) < HEADER.size:
                raise Failure(f"the link ended before message {kind}")
            length, got, _, epoch = HEADER.unpack(head)
            payload = receive(self.channel[CONTROL], length)
            self.send(message(HEARTBEAT, 0, bytes(32)))
            if got == kind:
                return epoch, payload
        raise Failure(f"waited {seconds} s in vain for message {kind}")

    def close(self):
        for s in self.channel.values():
            hang_up(s)


# --- running tests ---

class World:
    """What the tests of a program share: colo, a directory, the nodes made so far."""

    def __init__(self, colo, base):
        self.colo, self.base, self.nodes = colo, base, []

    def add(self, node):
        self.nodes.append(node)
        return node

    def node(self, name, settings=None, port=7400):
        return self.add(Node(self.colo, self.base, name, settings, port))

    def end(self):
        """Each node ends when asked to."""
        for n in self.nodes:
            n.end()
        self.nodes = []

    def kill(self):
        for n in self.nodes:
            if n.process and n.process.poll() is None:
                n.process.kill()
                n.process.wait()
        self.nodes = []


def _logs(world):
    return "".join(f"\n--- log of {n.node}\n{n.log()}" for n in world.nodes if os.path.exists(n.log_path))


def _run(world, tests):
    """Names of those that failed."""
    failed = []
    for name, test in tests:
        begin = time.monotonic()
        try:
            test(world)
            world.end()
            result = "ok"
        except Exception as e: # pylint: disable=broad-except
            failed.append(name)
            result = f"FAILED: {type(e).__name__}: {e}{_logs(world)}"
        world.kill()
        print(f"{time.monotonic() - begin:6.1f} s {name}: {result}", flush=True)
    return failed


def run_tests(functions, make_world=World, tools=()):
    """Run those of @functions that are tests, or that the command line (COLO [NAME...]) names a part of, in a network
    namespace of their own. Returns the exit status."""
    missing = [t for t in tools if not shutil.which(t)]
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun") or missing:
        print("needs root and /dev/net/tun", *tools)
        return 77
    if os.environ.get("COLO_TEST_NETNS") != "1":
        os.environ["COLO_TEST_NETNS"] = "1"
        os.execvp("unshare", ["unshare", "-n", "--", sys.executable] + sys.argv)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    names = sys.argv[2:]
    tests = [(n[5:], f) for n, f in functions.items()
             if n.startswith("test_") and callable(f) and (not names or any(x in n for x in names))]
    base = tempfile.mkdtemp(prefix="colo-test-")
    os.chmod(base, 0o755) # a test is not root
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    world = make_world(os.path.abspath(sys.argv[1]), base)
    try:
        failed = _run(world, tests)
    finally:
        world.kill()
        shutil.rmtree(base)
    print(f"{len(tests)} tests, {len(failed)} failed {' '.join(failed)}")
    return 1 if failed else 0
