#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input for a real daemon: an error a person can act on, no crash, no hang, service kept.

Usage: test_bad_input.py COLO [NAME...]   (NAME: a part of the names of the tests to run)
Needs root; runs in a network namespace of its own.
"""
import datetime
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time

import fakes
from colonode import (APPLIED, ASK, BULK, CDROM, CONTROL, DISK, GUEST_OFF, HANDOVER, HELD, HELLO, INPUT, LATER, OK,
                      OUTPUT, PRESENT, PVM_SYN, READ_ONLY, REFUSED, SEED, SEED_READY, SEED_START, SERVED, TAKEN,
                      Failure, Link, World, answer, closed, dial, disk_of, hello_pack, message, receive, run_tests,
                      wait_for, with_disk)


class Both(World):
    """And a secondary's hello."""

    def __init__(self, colo, base):
        super().__init__(colo, base)
        self._hello = None

    def primary(self, settings=None):
        """A primary whose guest runs."""
        a = self.node("a", settings).start()
        a.wait_log("the guest runs")
        a.wait_state("alone")
        a.assert_guest_runs()
        return a

    def hello(self):
        """What a real secondary of this configuration says first."""
        if not self._hello:
            with fakes.Primary() as p:
                b = self.node("b").start()
                self._hello = p.hello()
            b.end()
        return self._hello


AGAIN = 75 # exit status of a node that has lost its part, and may get one again

# --- what stops a daemon before it serves ---

def refused_start(w, settings, want, prepare=None, prefix=()):
    """colo run ends with an error that says @want."""
    a = w.node("a", settings)
    if prepare:
        prepare(a)
    a.start(prefix)
    status = a.wait_end()
    if status != 1 or want not in a.log():
        raise Failure(f"exit status {status}, '{want}' is not in\n{a.log()}")
    return a


def append(text):
    def prepare(node):
        with open(node.config, "a", encoding="utf-8") as f:
            f.write(text)
    return prepare


def lines(node):
    with open(node.config, encoding="utf-8") as f:
        return len(f.readlines())


def test_config_syntax(w):
    a = refused_start(w, {}, "neither a [section] nor a key = value", append("what is this\n"))
    if f"colo: {a.config}:{lines(a)}: " not in a.log():
        raise Failure(f"no file and line in {a.log()}")


def test_config_unknown_key(w):
    a = refused_start(w, {}, "[vm] memroy: unknown key", append("[vm]\nmemroy = 1G\n"))
    if f"colo: {a.config}:{lines(a)}: " not in a.log():
        raise Failure(f"no file and line in {a.log()}")


def test_config_missing(w):
    refused_start(w, {}, "colo.conf: No such file or directory", lambda a: os.unlink(a.config))


def test_not_root(w):
    a = w.node("a")
    a.start(("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"))
    if a.wait_end() != 1 or "must be root" not in a.log():
        raise Failure(a.log())


def disk_log(node):
    with open(os.path.join(node.state_dir, "disk0.log"), encoding="utf-8") as f:
        return f.read()


def test_image_missing(w):
    a = refused_start(w, {("host a", "disk"): "/nonexistent/web.img"},
                      "disk /nonexistent/web.img cannot be served; see ")
    if "No such file" not in disk_log(a):
        raise Failure(disk_log(a))


def test_image_empty(w):
    a = refused_start(w, {}, "cannot be served", lambda a: os.truncate(a.disk, 0))
    if "has 0 bytes" not in disk_log(a):
        raise Failure(disk_log(a))


def test_image_is_a_directory(w):
    refused_start(w, {("host a", "disk"): "/"}, "disk / cannot be served")


def test_image_is_qcow2(w):
    def prepare(node):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", node.disk, "4M"], check=True)
    refused_start(w, {}, "disk.img is a qcow2 image: [disk] needs format = qcow2", prepare)


def test_image_of_part_of_a_sector(w):
    refused_start(w, {("disk", "sector"): "4096"}, "its 4195328 bytes are no whole sectors of 4096",
                  lambda a: os.truncate(a.disk, (4 << 20) + 1024))


def test_qemu_is_another_program(w):
    refused_start(w, {("vm", "qemu"): "/bin/true"}, "/bin/true did not start; see ")


def test_qemu_missing(w):
    refused_start(w, {("vm", "qemu"): "/nonexistent/qemu"}, "/nonexistent/qemu: No such file or directory")


def test_nbdkit_missing(w):
    refused_start(w, {("vm", "nbdkit"): "/nonexistent/nbdkit"}, "/nonexistent/nbdkit: No such file")


def test_kernel_missing(w):
    a = refused_start(w, {("vm", "kernel"): "/nonexistent/vmlinuz"}, "did not start; see ")
    with open(os.path.join(a.state_dir, "qemu.log"), encoding="utf-8") as f:
        if "could not open kernel file" not in f.read():
            raise Failure("qemu.log does not name the kernel")


def test_bridge_missing(w):
    refused_start(w, {("net", "bridge"): "br77"}, "[net] bridge: cannot put colo0 into bridge 'br77'")


def test_port_busy(w):
    with socket.create_server(("127.0.0.1", 7400)):
        refused_start(w, {}, "[host a] address: cannot listen on 127.0.0.1 port 7400: Address already in use")


def test_address_of_another_host(w):
    refused_start(w, {("host a", "address"): "192.0.2.1", ("tls", "mode"): "off"}, "cannot listen on 192.0.2.1 port 7400")


def test_state_directory_impossible(w):
    refused_start(w, {("host a", "state"): "/proc/nowhere"}, "[host] state: /proc/nowhere: ")


def test_second_daemon(w):
    a = w.primary()
    again = subprocess.run(a.command("run"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10,
                           check=False)
    if again.returncode != 1 or b"VM 'web' runs here already" not in again.stdout:
        raise Failure(again.stdout.decode())
    unharmed(a)


def test_commands_without_daemon(w):
    a = w.node("a")
    for command in "status", "checkpoint", "explain", "failover", "stop":
        r = subprocess.run(a.command(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10,
                           check=False)
        if r.returncode != 1 or b"no daemon runs here for this VM" not in r.stdout:
            raise Failure(f"{command}: {r.returncode} {r.stdout.decode()}")


def test_commands_that_cannot_be_done(w):
    a = w.primary()
    for command, why in ("checkpoint", b"not protected"), ("failover", b"this node is primary already"):
        r = subprocess.run(a.command(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10,
                           check=False)
        if r.returncode != 1 or why not in r.stdout:
            raise Failure(f"{command}: {r.returncode} {r.stdout.decode()}")
    unharmed(a)


def keys(value):
    """All keys of a JSON value."""
    return {k for k in value} | {x for v in value.values() for x in keys(v)} if isinstance(value, dict) else set()


def test_status_is_documented(w):
    a = w.primary()
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "docs", "colo.1.md"), encoding="utf-8") as f:
        words = set(re.findall(r"[\w-]+", f.read()))
    missing = keys(a.status()) - words
    if missing:
        raise Failure(f"docs/colo.1.md does not say what these are: {', '.join(sorted(missing))}")


def test_control_socket(w):
    """Root's own socket; still, nonsense on it is answered, and ends nothing."""
    a = w.primary()
    path = os.path.join(a.state_dir, "colo.sock")
    for data in b"\n", b"{}\n", b'{"command": 7}\n', b'{"command": "fly"}\n', b"[]\n", b"\xff\xfe\n", b"x" * 5000:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(path)
            s.sendall(data)
            if b'"ok":false' not in s.recv(4096):
                raise Failure(f"{data[:20]} is not refused")
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    for s in waiting:
        s.connect(path)
    for s in waiting:
        s.close()
    unharmed(a)


def explain(node, *words):
    return subprocess.run(node.command("explain", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=10, check=False)


def test_explain_alone(w):
    """Nothing to explain is no error; a capture that is off is one."""
    a = w.primary()
    path = os.path.join(w.base, "out.pcapng")
    r = explain(a)
    if r.returncode or r.stdout != b"differences   none\nstate alone: nothing is compared now\n":
        raise Failure(f"{r}")
    r = explain(a, "--pcap", path)
    if r.returncode != 1 or b"nothing is captured: set capture = SIZE in [net]" not in r.stderr:
        raise Failure(f"{r}")
    if os.path.exists(path):
        raise Failure("a file without packets is made")
    unharmed(a)


def test_explain_empty_capture(w):
    a = w.primary({("net", "capture"): "1M", ("net 1", "mac"): "52:54:00:12:34:57"})
    path = os.path.join(w.base, "out.pcapng")
    r = explain(a, "--pcap", path)
    if r.returncode or not r.stdout.endswith(f"0 packets in {path}\n".encode()):
        raise Failure(f"{r}")
    with open(path, "rb") as f:
        data = f.read()
    if data[:4] != b"\x0a\x0d\x0d\x0a" or b"PVM1" not in data or b"SVM1" not in data:
        raise Failure(f"{data}")
    unharmed(a)


def test_explain_on_secondary(w):
    a = w.primary()
    b = w.node("b").start()
    a.wait_state("protected")
    r = explain(b)
    if r.returncode != 1 or b"this node is the secondary: the primary compares, ask there" not in r.stderr:
        raise Failure(f"{r}")
    r = explain(a)
    if r.returncode or r.stdout != b"differences   none\n":
        raise Failure(f"{r}")


def test_slow_operator(w):
    """Who asks and does not read the answers waits; all of them come, in order, when he does."""
    a = w.primary()
    count = 2000
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(os.path.join(a.state_dir, "colo.sock"))
        def ask():
            for i in range(count):
                s.sendall(b'{"command": "%s"}\n' % (b"status" if i % 2 else b"no%d" % i))
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        wait_for("the operator is kept waiting", lambda: not asking.join(0.3) and asking.is_alive(), 5)
        unharmed(a) # and others are not
        with s.makefile("rb") as f:
            for i in range(count):
                answer_ = json.loads(f.readline())
                if answer_["ok"] != bool(i % 2):
                    raise Failure(f"answer {i}: {answer_}")
        asking.join(5)
    unharmed(a)


# --- a primary and those who dial it ---

def unharmed(a):
    """The daemon lives and answers, the guest runs, and the next peer would be welcome."""
    if a.process.poll() is not None:
        raise Failure(f"the daemon has ended: {a.process.returncode}")
    a.wait_state("alone")
    a.assert_guest_runs()


def turned_away(hello, want, a, **changes):
    with dial(hello_pack(hello, **changes)) as s:
        status, _, text = answer(s)
        if status != REFUSED or want not in text or not closed(s):
            raise Failure(f"{changes}: answer {status} '{text}'")
    a.wait_log("turned away: " + re.escape(want))


def test_hello_of_a_stranger(w):
    h = w.hello()
    a = w.primary()
    turned_away(h, "speaks peer protocol 9", a, version=9, version_min=9)
    with dial(hello_pack(h, version=1)[:192]) as s: # that one's hello is shorter
        status, _, text = answer(s)
        if status != REFUSED or "speaks peer protocol 1" not in text:
            raise Failure(f"version 1: answer {status} '{text}'")
    turned_away(h, "this is VM 'web', not 'mail'", a, vm="mail")
    turned_away(h, "node 'b' is expected, not 'c'", a, node="c")
    turned_away(h, "memory, vcpus, machine or mode differ", a, memory=1 << 30)
    turned_away(h, "memory, vcpus, machine or mode differ", a, mode=1)
    turned_away(h, "QEMU 10.0.0 there, 7.", a, qemu="10.0.0")
    turned_away(h, "driver standby on b, direct on a: set [vm] driver = standby", a, driver="standby")
    turned_away(h, "accelerator kvm on b, tcg on a: set [vm] accel = tcg", a, accel="kvm")
    turned_away(h, "NICs, offload, cpu", a, digest=1)
    turned_away(h, "no channel 77", a, channel=77)
    turned_away(h, "no such session", a, channel=BULK, session=12345)
    turned_away(h, "this is VM 'web', not '?[2J%n%s", a, vm=b"\x1b[2J%n%s")
    turned_away(h, "this is VM 'web', not 'xxxx", a, vm=b"x" * 32)
    unharmed(a)


def test_hello_with_other_disks(w):
    """What differs is said by the name of the disk and the names of the hosts."""
    h = w.hello()
    a = w.primary()
    disks = h["disks"]
    name = f"disk0 ({a.disk}): "

    def refused(want, i, **changes):
        turned_away(h, want, a, disks=with_disk(disks, i, **changes))

    refused(name + "8192 bytes on b, 4194304 on a", 0, size=8192)
    refused(name + "sectors of 4096 bytes on b, of 512 on a", 0, sector=4096)
    refused(name + "read-only on b, writable on a", 0, flags=PRESENT | READ_ONLY)
    refused(name + "a CD on b, writable on a", 0, flags=PRESENT | READ_ONLY | CDROM)
    refused(name + "b has no such disk", 0, flags=0)
    refused("disk3: only b has such a disk", 3, flags=PRESENT)
    refused(name, 0, current=77, base=0, history=bytes(48)) # nothing in common
    refused(name, 0, current=77, base=disk_of(disks, 0)["current"], lineage_flags=1 | SERVED) # both went on
    unharmed(a)


def test_read_only_disks(w):
    """They are compared, not copied."""
    cd, other = os.path.join(w.base, "cd.iso"), os.path.join(w.base, "other.iso")
    for path, first in (cd, b"1"), (other, b"2"):
        with open(path, "wb") as f:
            f.write(first)
            f.truncate(1 << 20)
    settings = {("disk 1", "cdrom"): "yes", ("disk 1", "file"): cd}
    a = w.primary(settings)
    b = w.node("b", {**settings, ("disk 1", "file"): other}).start()
    ends(b, rf"a refuses this node: disk1 \({cd}\): the content on b is another; a read-only disk is not copied")
    b = w.node("b", settings).start()
    a.wait_state("protected")
    b.wait_state("protected")


def test_config_one_file_for_two_disks(w):
    a = w.node("a")
    a.write_config({("disk 1", "file"): a.disk}, 7400)
    a.start()
    if a.wait_end() != 1 or f"[host a] {a.disk}: is the file of [disk], too" not in a.log():
        raise Failure(a.log())


def test_no_hello(w):
    h = w.hello()
    a = w.primary()
    with dial(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as s:
        if not closed(s):
            raise Failure("a web client is kept")
    a.wait_log("turned away a connection that is not a colo daemon's")
    with dial(os.urandom(4096)) as s:
        closed(s)
    dial().close()
    a.wait_log("closed the connection in its hello")
    half = dial(hello_pack(h)[:100])
    unharmed(a)
    if not closed(half):
        raise Failure("half a hello is kept")
    a.wait_log("no proper hello in time")
    unharmed(a)


def test_flood(w):
    """More connections that say nothing than the daemon may have descriptors."""
    a = w.node("a").start(("prlimit", "--nofile=128"))
    a.wait_log("the guest runs")
    silent = [socket.socket() for _ in range(300)]
    for s in silent:
        s.setblocking(False)
        s.connect_ex(("127.0.0.1", 7400))
    wait_for("connections", lambda: len(os.listdir(f"/proc/{a.process.pid}/fd")) > 30)
    begin = time.monotonic()
    unharmed(a)
    if time.monotonic() - begin > 3: # they are given five seconds each
        raise Failure("the operator waits for strangers")
    for s in silent:
        s.close()
    unharmed(a)


def test_dialled_too_early(w):
    """A primary that is still starting asks to come later; it refuses nobody for what it does not know."""
    h = w.hello()
    slow = os.path.join(w.base, "slow-qemu")
    with open(slow, "w", encoding="utf-8") as f:
        f.write('#!/bin/sh\nsleep 1\nexec qemu-system-x86_64 "$@"\n')
    os.chmod(slow, 0o755)
    a = w.node("a", {("vm", "qemu"): slow}).start()
    a.wait_log("disk0: .*: 4 MiB")
    with dial(hello_pack(h)) as s:
        if answer(s)[0] != LATER:
            raise Failure("a peer that comes early is refused")
    a.wait_log("the guest runs")
    Link(h).close()
    unharmed(a)


def test_link_that_stays_partial(w):
    """A secondary that dies between two channels does not keep the next one out."""
    h = w.hello()
    a = w.primary()
    partial = Link(h, (CONTROL, BULK))
    with dial(hello_pack(h)) as s:
        if answer(s)[0] != LATER:
            raise Failure("a second peer is let in")
    a.wait_log("did not open all channels in time")
    partial.close()
    Link(h).close()
    unharmed(a)


def seeding(h):
    """A peer whose disk is synced, and who is asked to take the RAM."""
    deadline = time.monotonic() + 10
    while True:
        try:
            link = Link(h)
            break
        except Failure as e: # the last one's disk may not be given up yet
            if "busy" not in str(e) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    link.receive_disk()
    link.wait_message(SEED_START)
    return link


def dropped(a, h, why, attack, connect=Link):
    """A peer with a good hello, then @attack: the link is dropped for that reason, and nothing else."""
    mark = len(a.log())
    link = connect(h)
    a.wait_log("linked with b", mark)
    attack(link)
    a.wait_log(why, mark)
    if link.channel[CONTROL] and not closed(link.channel[CONTROL]):
        raise Failure(f"the link is kept after: {why}")
    link.close()
    unharmed(a)


def test_control_messages(w):
    h = w.hello()
    a = w.primary()
    dropped(a, h, "message that makes no sense", lambda l: l.send(message(99)))
    dropped(a, h, "message that makes no sense", lambda l: l.send(message(HANDOVER)))
    dropped(a, h, "message that makes no sense", lambda l: l.send(message(GUEST_OFF)))
    dropped(a, h, "message that is too long", lambda l: l.send(message(OUTPUT, length=0xffffffff)))
    dropped(a, h, "message that is too long", lambda l: l.send(message(OUTPUT, length=(128 << 10) + 1)))
    dropped(a, h, "message that (is too long|makes no sense)", lambda l: l.send(b"\xff" * 5000))
    dropped(a, h, "closed the link", lambda l: l.channel[CONTROL].shutdown(socket.SHUT_WR))
    dropped(a, h, "checkpoint channel", lambda l: l.send(b"checkpoint?", BULK))
    dropped(a, h, "checkpoint channel", lambda l: l.channel[BULK].shutdown(socket.SHUT_WR))
    dropped(a, h, "state (syncing|seeding) -> alone", lambda l: l.send(os.urandom(100), DISK))
    dropped(a, h, "disk0: link: |closed", lambda l: l.channel[DISK].close())


def test_messages_out_of_turn(w):
    """What is well formed, but not the secondary's turn, is passed over."""
    def attack(link):
        for n in 0, 1, 13, 14, 60, 1500, 128 << 10:
            link.send(message(OUTPUT, 1, os.urandom(n)))
            link.send(message(OUTPUT, 0, b"\xff" * n))
        for epoch in 0, 1, 2, (1 << 64) - 1:
            link.send(message(HELD, epoch))
            link.send(message(APPLIED, epoch, bytes(24)))
            link.send(message(APPLIED, epoch, bytes(3)))
        for kind in ASK, TAKEN:
            link.send(message(kind))
        link.send(message(SEED_READY, 0, bytes(100)))
        link.send(message(1, 0, bytes(5)))
        link.send(message(1, 0, b"\xff" * 24))
        link.send(message(99))
    h = w.hello()
    a = w.primary()
    for connect in Link, seeding:
        dropped(a, h, "message that makes no sense|RAM blocks", attack, connect)


def test_half_a_message_then_silence(w):
    def attack(link):
        link.send(message(OUTPUT, length=1000) + b"half")
    h = w.hello()
    a = w.primary()
    mark = len(a.log())
    dropped(a, h, "state (syncing|seeding) -> alone", attack)
    stamps = [l.split()[0] for l in a.log()[mark:].splitlines() if "linked with" in l or "-> alone" in l]
    first, last = (datetime.datetime.fromisoformat(stamps[i]) for i in (0, -1))
    if not 0.4 <= (last - first).total_seconds() < 2: # five heartbeats of 100 ms
        raise Failure(f"silence is noticed after {last - first}")


def test_seed(w):
    """The guest runs on wherever the seeding is given up."""
    h = w.hello()
    a = w.primary()
    for what in "refuse", "cut", "end", "blocks", "twice":
        mark = len(a.log())
        link = seeding(h)
        link.open(SEED)
        if what == "twice":
            link.open(SEED)
        elif what == "cut":
            receive(link.channel[SEED], 100000)
            link.channel[SEED].close()
            a.wait_log("state seeding -> alone", mark)
        elif what in ("end", "blocks"):
            while link.channel[SEED].recv(1 << 20):
                pass
        if what == "blocks":
            link.send(message(SEED_READY, 0, b"pc.ram".ljust(72, b"\1")))
            a.wait_log("the two QEMUs do not have the same ones", mark)
        link.close()
        a.wait_log("state seeding -> alone", mark)
        unharmed(a)
    for delay in range(0, 60, 4):
        link = seeding(h)
        link.open(SEED)
        link.channel[SEED].settimeout(delay / 1000 + 0.001)
        closed(link.channel[SEED])
        link.close()
        a.wait_state("alone")
    unharmed(a)
    b = w.node("b").start() # and it can be seeded after all that
    a.wait_state("protected")
    b.wait_state("protected")
    a.assert_guest_runs()


# --- a secondary and whom it dials ---

def ends(b, want):
    """The secondary ends with an error that says why."""
    status = b.wait_end()
    if status not in (1, AGAIN) or not re.search(want, b.log()):
        raise Failure(f"exit status {status}, '{want}' is not in\n{b.log()}")


def keeps_trying(w, want, reaction):
    """The secondary says what is wrong, goes on trying, and answers its operator."""
    with fakes.Primary() as p:
        b = w.node("b").start()
        held = []
        for _ in range(2):
            s = p.accept()
            receive(s, HELLO.size)
            reaction(s)
            held.append(s)
        b.wait_log(want)
        b.wait_state("connecting")
        for s in held:
            s.close()
    b.end()


def test_primary_speaks_garbage(w):
    keeps_trying(w, "answers with something that is not colo's protocol", lambda s: s.sendall(b"?" * 300))


def test_primary_closes(w):
    keeps_trying(w, "closed the connection in its hello", lambda s: s.close())


def test_primary_is_busy(w):
    keeps_trying(w, r"refused: .* %n%s \?\[2J", lambda s: s.sendall(fakes.answer(LATER, 0, "wait %n%s \x1b[2J")))


def test_primary_of_another_version(w):
    keeps_trying(w, "speaks peer protocol 9", lambda s: s.sendall(fakes.answer(OK, 0, "", version=9)))
    keeps_trying(w, "speaks peer protocol 1", lambda s: s.sendall(fakes.answer(OK, 0, "", version=1)[:256]))


def test_primary_is_silent(w):
    keeps_trying(w, "no proper hello in time", lambda s: s.sendall(fakes.answer(OK, 0, "")[:20]))


def test_primary_refuses(w):
    with fakes.Primary() as p:
        b = w.node("b").start()
        s = p.accept()
        receive(s, HELLO.size)
        s.sendall(fakes.answer(REFUSED, 0, "no, thank you"))
        ends(b, "a refuses this node: no, thank you")


def secondary_ends(w, want, attack):
    with fakes.Primary() as p:
        b = w.node("b").start()
        channel = p.link()
        b.wait_log("linked with a")
        attack(channel)
        ends(b, want)
        for s in channel.values():
            s.close()


def test_primary_sends_nonsense(w):
    secondary_ends(w, "message that makes no sense", lambda c: c[CONTROL].sendall(message(99)))
    secondary_ends(w, "message that is too long", lambda c: c[CONTROL].sendall(message(4, length=1 << 30)))
    secondary_ends(w, "checkpoint channel: not a checkpoint", lambda c: c[BULK].sendall(b"?" * 100))
    secondary_ends(w, "disk0: link: ", lambda c: c[DISK].sendall(b"?" * 100))
    secondary_ends(w, "closed", lambda c: c[BULK].close())


def test_primary_sends_checkpoint_before_the_vm(w):
    secondary_ends(w, "a checkpoint before the VM is there",
                   lambda c: c[BULK].sendall(fakes.bulk_header(nrec=1, npages=1, device_bytes=10)))


def test_nonsense_between_a_protected_pair(w):
    """Costs protection: the primary serves on, whoever hears it, and the secondary ends."""
    for victim in "a", "b":
        a = w.primary()
        with fakes.Proxy(lambda checkpoint: None) as proxy:
            b = w.node("b", port=proxy.port).start()
            a.wait_state("protected")
            node = a if victim == "a" else b
            proxy.say(CONTROL, message(99), to_primary=victim == "a")
            node.wait_log("message that (makes no sense|is too long)")
            a.wait_state("alone")
            a.assert_guest_runs()
            if b.wait_end() != AGAIN:
                raise Failure(f"exit status {b.process.returncode} of b")
        w.end()


def test_garbage_frames(w):
    """Frames of a guest or client gone mad, said by the peer: protection may cost, nothing else."""
    seed = int(time.time())
    print(f"seed {seed}")
    rnd = random.Random(seed)
    guest, client = bytes.fromhex("525400123456"), bytes.fromhex("525400999999")
    a = w.primary()
    with fakes.Proxy(lambda checkpoint: None) as proxy:
        b = w.node("b", port=proxy.port).start()
        a.wait_state("protected")
        for frame in fakes.frames(rnd, 3000, guest, client):
            proxy.say(CONTROL, message(OUTPUT, 1, bytes(8) + frame), to_primary=True)
            proxy.say(CONTROL, message(PVM_SYN, 1, bytes(8) + frame), to_primary=False)
        for i, frame in enumerate(fakes.frames(rnd, 3000, client, guest)):
            proxy.say(CONTROL, message(INPUT, 1, struct.pack("!Q", i) + frame), to_primary=False)
        a.wait_state("protected")
        b.wait_state("protected")
        a.assert_guest_runs()
        subprocess.run(a.command("checkpoint"), check=True, timeout=10)
        wait_for("a checkpoint", lambda: a.status()["checkpoints"]["by_cause"]["manual"] == 1)
        a.wait_state("protected")


def test_hostile_checkpoints(w):
    """The first checkpoint of a real primary, changed on its way."""
    a = w.primary()
    for want, change in fakes.BULK_CHANGES:
        mark = len(a.log())
        with fakes.Proxy(change) as proxy:
            b = w.node("b", port=proxy.port).start()
            ends(b, want)
        a.wait_log("state (seeding|claiming|protected) -> alone", mark)
        unharmed(a)


if __name__ == "__main__":
    sys.exit(run_tests(globals(), Both))
