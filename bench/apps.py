# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads that are applications: ssh, scp, WebSocket, DNS, the guest as client; and small answers timed.

Each function here is a context manager that prepares a load and yields what measures it for a number of
seconds. The clients are those of tests/apps, which check every answer.
"""
import asyncio
import contextlib
import json
import os
import random
import select
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "demo"), os.path.join(ROOT, "tests", "apps")]

import dns  # noqa: E402
import objects  # noqa: E402
import sshwork  # noqa: E402
import websocket  # noqa: E402
from load import account  # noqa: E402
from work import check  # noqa: E402

ECHO_PORT = 7
LINE = 32
TIMEOUT = 20
DNS_RETRY = 1.0
# between two requests: not in step with the guests' timers, which tick every 4 ms
PAUSE = (0.002, 0.006)
TYPING_PAUSE = 0.02
COPY_BYTES = 8 << 20
GUEST_CONNECTIONS, GUEST_PROGRAMS, GUEST_BYTES = 100, 2, 4096


def latencies(times, errors=0):
    """The result of a load that times single requests; @times in seconds."""
    if not times:
        raise ValueError("not one answer")
    p50, p99 = (account.percentile(times, percent) * 1000 for percent in (50, 99))
    return {"value": p50, "p50_ms": p50, "p99_ms": p99, "requests": len(times), "errors": errors}


# --- small answers, from one guest or from twins asked together ---

class EchoSocket:
    """A connection to a guest's echo service."""

    def __init__(self, ip):
        self.sock = socket.create_connection((ip, ECHO_PORT), timeout=TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.line = b""

    def ask(self, number):
        """Send line @number."""
        self.line = f"{number:031d}\n".encode()
        self.sock.sendall(self.line)

    def answer(self):
        """Take the answer, which is there."""
        got = self.sock.recv(2 * LINE)
        check(got == self.line, f"{got!r} for {self.line!r}")


class DnsSocket:
    """UDP to a guest's name server, one query at a time."""

    def __init__(self, ip):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect((ip, dns.DNS))
        self.number = 0

    def ask(self, number):
        """Ask for the address of host-@number."""
        self.number = number % dns.NAMES
        self.sock.send(dns.query(number & 0xffff, self.number, dns.A))

    def answer(self):
        """Take the answer, which is there."""
        dns.check_answer(self.sock.recv(4096), self.number, dns.A)


def ask_all(guests, number):
    """Ask each guest, wait for all: the slowest one's time from its question to its answer."""
    asked, slowest = {}, 0.0
    for guest in guests if number % 2 else guests[::-1]:
        asked[guest.sock] = (guest, time.monotonic())
        guest.ask(number)
    while asked:
        ready, _, _ = select.select(list(asked), [], [], TIMEOUT)
        check(ready, f"no answer after {TIMEOUT} s")
        for sock in ready:
            now = time.monotonic()
            guest, begin = asked.pop(sock)
            guest.answer()
            slowest = max(slowest, now - begin)
    return slowest


def small_answers(kind):
    """A load of single small requests with pauses; of twins the later answer counts."""
    @contextlib.contextmanager
    def prepared(_load, target):
        guests = [kind(ip) for ip in (target.ip, target.twin) if ip]
        pauses = random.Random(3)

        def measure(seconds):
            end, times = time.monotonic() + seconds, []
            while time.monotonic() < end:
                times.append(ask_all(guests, len(times)))
                time.sleep(pauses.uniform(*PAUSE))
            return latencies(times)

        yield measure
        for guest in guests:
            guest.sock.close()
    return prepared


# --- DNS, as many as it can ---

def dns_measure(load, target, seconds):
    """Queries answered per second, load.clients under way; one without answer is asked again."""
    sock = DnsSocket(target.ip).sock
    sock.settimeout(DNS_RETRY)
    asked, times, lost, number = {}, [], 0, 0
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        while len(asked) < load.clients:
            number += 1
            asked[number & 0xffff] = (number % dns.NAMES, time.monotonic())
            sock.send(dns.query(number & 0xffff, number % dns.NAMES, dns.A))
        try:
            packet = sock.recv(4096)
        except TimeoutError:
            lost += len(asked)
            asked.clear()
            continue
        host, at = asked.pop(int.from_bytes(packet[:2], "big"), (None, None))
        if at is not None:
            dns.check_answer(packet, host, dns.A)
            times.append(time.monotonic() - at)
    return {**latencies(times, lost), "value": len(times) / (time.monotonic() - begin)}


# --- WebSocket ---

def websocket_measure(_load, target, seconds):
    """Round trips of a message of 64 bytes over one connection."""
    async def talk():
        ws, times, pauses = websocket.Socket(), [], random.Random(4)
        await ws.open(target.ip, "/echo")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin, data = time.monotonic(), b"%064d" % len(times)
            ws.send(websocket.TEXT, data)
            check(await ws.receive() == (websocket.TEXT, data), "another message came back")
            times.append(time.monotonic() - begin)
            await asyncio.sleep(pauses.uniform(*PAUSE))
        await ws.end()
        return times
    return latencies(asyncio.run(talk()))


# --- ssh ---

def ssh_measure(_load, target, seconds):
    """Opens a session, types lines, times each answer."""
    async def talk():
        session, times = sshwork.Session("ssh", target.ip, target.key), []
        await session.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin, line = time.monotonic(), f"line {len(times)}"
            session.program.say(line + "\n")
            check(await session.program.line() == "you said " + line, "another line came back")
            times.append(time.monotonic() - begin)
            await asyncio.sleep(TYPING_PAUSE)
        session.program.say("\x04")
        await session.program.__aexit__()
        return times
    return latencies(asyncio.run(talk()))


@contextlib.contextmanager
def scp(_load, target):
    """Megabytes (1e6) per second, one copy after another, the sessions' opening included."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(objects.content(1, COPY_BYTES))
        file.flush()
        args = ["scp", "-q", *sshwork.options(target.key), file.name, f"root@{target.ip}:/run/bench.bin"]

        def measure(seconds):
            begin, copies = time.monotonic(), 0
            while not copies or time.monotonic() - begin < seconds:
                done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                      timeout=seconds + TIMEOUT, check=False)
                check(done.returncode == 0, f"scp: {done.stderr.strip()[-200:]}")
                copies += 1
            return {"value": copies * COPY_BYTES / 1e6 / (time.monotonic() - begin),
                    "requests": copies, "errors": 0}

        yield measure


# --- the guest as client ---

def ordered(process, order):
    """Give a waiting shell its order; the line it answers with."""
    print(order, file=process.stdin, flush=True)
    ready, _, _ = select.select([process.stdout], [], [], 3 * TIMEOUT)
    check(ready, "the guest does not answer")
    return process.stdout.readline()


@contextlib.contextmanager
def guest_client(_load, target):
    """Connections that the guest opens to this host on a time table, every byte checked there."""
    rate = GUEST_CONNECTIONS // GUEST_PROGRAMS
    shell = (f"while read s; do colo-guest-fetch {target.client} {objects.PORT} {rate} $s "
             f"{GUEST_BYTES}; done")
    server = subprocess.Popen([sys.executable, objects.__file__], stdout=subprocess.PIPE, text=True)
    sessions = [subprocess.Popen(["ssh", *sshwork.options(target.key), f"root@{target.ip}", shell],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(GUEST_PROGRAMS)]

    def measure(seconds):
        begin = time.monotonic()
        for session in sessions[1:]:
            print(seconds, file=session.stdin, flush=True)
        found = [json.loads(ordered(sessions[0], seconds))]
        found += [json.loads(session.stdout.readline()) for session in sessions[1:]]
        right = sum(one["right"] for one in found)
        return {"value": right / (time.monotonic() - begin), "requests": right,
                "errors": sum(one["connections"] for one in found) - right}

    try:
        check(server.stdout.readline(), "the server does not start")
        yield measure
    finally:
        for process in (*sessions, server):
            process.kill()
            process.wait()

