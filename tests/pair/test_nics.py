#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM with two network cards, a VLAN on the second and offloads off: checkpoints on all of them at once, connections
over each live through a power loss.

Usage: test_nics.py
"""
import re
import sys

from pairlab import Pair

ECHO = r"""
import socket, sys, time
socks = {a: socket.create_connection((a, 7), 20) for a in sys.argv[2:]}
for s in socks.values():
    s.settimeout(20)
counts = dict.fromkeys(socks, 0)
end = time.monotonic() + float(sys.argv[1])
print("ready", flush=True)
while time.monotonic() < end:
    for a, s in socks.items():
        text = b"%s %d " % (a.encode(), counts[a]) + b"x" * 3000 + b"\n"
        s.sendall(text)
        got = b""
        while len(got) < len(text):
            more = s.recv(65536)
            assert more, f"{a}: closed after {counts[a]}"
            got += more
        assert got == text, f"{a}: wrong answer {counts[a]}"
        counts[a] += 1
    time.sleep(0.01)
print("echoed", *counts.values(), flush=True)
"""
# the client's kernel may know no VLANs: echo requests by hand, each answered once, in its VLAN
PING = r"""
import socket, struct, sys, time
TAG, MAC, GUEST, HERE = b"\x81\x00\x00\x05", bytes.fromhex("525400770077"), sys.argv[2], sys.argv[3]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("lan0", 3))
s.setsockopt(263, 8, 1) # PACKET_AUXDATA: has the tag
s.settimeout(0.05)
me = s.getsockname()[4]
def checksum(b):
    n = sum(struct.unpack(f"!{len(b) // 2}H", b))
    n = (n >> 16) + (n & 0xffff)
    return ~(n + (n >> 16)) & 0xffff
def request(i):
    body = struct.pack("!HH", 77, i) + b"p" * 1000
    icmp = struct.pack("!BBH", 8, 0, checksum(b"\x08\0\0\0" + body)) + body
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), i, 0, 64, 1, 0, socket.inet_aton(HERE),
                       socket.inet_aton(GUEST))
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return MAC + me + TAG + b"\x08\x00" + head + icmp
end, i, answered, tries = time.monotonic() + float(sys.argv[1]), 0, 0, 0
print("ready", flush=True)
while time.monotonic() < end or answered < i:
    assert tries < 400, f"no answer to {i}"
    if answered == i:
        i, tries = i + 1, 0
    s.send(request(i))
    tries += 1
    try:
        wait = time.monotonic() + 0.05
        while time.monotonic() < wait:
            f, aux, _, _ = s.recvmsg(2000, 200)
            if f[6:12] == MAC and f[12:14] == b"\x08\x00" and f[23:24] == b"\x01" and f[34:35] == b"\0":
                status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", aux[0][2])
                assert status & 16 and tci == 5, f"the answer is in VLAN {tci}"
                assert f[42:1042] == b"p" * 1000, "wrong answer"
                answered = struct.unpack("!H", f[40:42])[0]
                if answered == i:
                    break
    except socket.timeout:
        pass
    time.sleep(0.01)
print("echoed", answered, flush=True)
"""
SECOND, TAGGED = "192.168.78", "192.168.79"


def set_up_network(p):
    p.ssh("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 && "
          f"ip link set eth1 up && ip addr add {SECOND}.100/24 dev eth1 && "
          "ip link add link eth1 name eth1.5 type vlan id 5 && ip link set eth1.5 up && "
          f"ip addr add {TAGGED}.100/24 dev eth1.5")
    p.client("ip", "addr", "add", f"{SECOND}.1/24", "dev", "lan0")
    mac = p.client("cat", "/sys/class/net/lan0/address").strip()
    p.ssh(f"ip neigh replace {TAGGED}.1 lladdr {mac} dev eth1.5")


def run(name, *extra):
    with Pair(name, "--set", "net 1.bridge=br0", "--set", "net 1.mac=52:54:00:77:00:77", *extra) as p:
        set_up_network(p)
        p.colo("a", "checkpoint")
        p.wait("the protected state", lambda: p.status("a")["state"] == "protected", 10)
        loads = [p.load("/usr/bin/python3", "-c", ECHO, "9", p.ip, f"{SECOND}.100"),
                 p.load("/usr/bin/python3", "-c", PING, "9", f"{TAGGED}.100", f"{TAGGED}.1")]
        for load in loads:
            line = load.stdout.readline()
            assert line == "ready\n", line + load.stdout.read()
        begun = p.status("a")["epoch"]
        for _ in range(10):
            before = p.status("a")["epoch"]
            p.colo("a", "checkpoint")
            p.wait("a checkpoint", lambda b=before: p.status("a")["epoch"] > b, 10)
        status = p.status("a")
        print(f"{name}: {status['epoch'] - begun} checkpoints, by cause {status['checkpoints']['by_cause']}")
        nics = status["net"]["nics"]
        assert len(nics) == 2 and all(n["matched_bytes"] > 100000 for n in nics), nics
        assert all(n["segmentation_offload"] is not bool(extra) for n in nics), nics
        p.lab("kill", "a")
        for load, what in zip(loads, ("over first and second card", "over the VLAN")):
            out, _ = load.communicate(timeout=60)
            assert load.returncode == 0 and re.search(r"^echoed( \d{2,})+$", out, re.M), out
            print(f"{name}: {out.strip()} {what}")
        assert p.status("b")["state"] == "alone"


def main():
    run("nics")
    run("nics-plain", "--set", "net.offload=no")
    print("test_nics: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
