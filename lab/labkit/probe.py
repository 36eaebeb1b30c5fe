# SPDX-License-Identifier: GPL-2.0-or-later
"""
Waits until a guest serves. Run in the client's namespace:

	python3 -m labkit.probe ADDRESS TIMEOUT SERVICE...

prints one line (of the lab's progress) per service as it comes up; exit status 1 when some are missing at the end.
"""
import socket
import struct
import sys
import time

PATIENCE = 2
INTERVAL = 0.1


def _connect(address, port):
    sock = socket.create_connection((address, port), timeout=PATIENCE)
    sock.settimeout(PATIENCE)
    return sock


def http(address):
    """Does a page come?"""
    with _connect(address, 80) as sock:
        sock.sendall(b"GET /1k HTTP/1.0\r\nHost: guest\r\n\r\n")
        return sock.recv(64).startswith(b"HTTP/1.1 200")


def postgresql(address):
    """Does the database let user postgres in? (While starting up it accepts and refuses.)"""
    body = struct.pack("!I", 196608) + b"user\0postgres\0database\0bench\0\0"
    with _connect(address, 5432) as sock:
        sock.sendall(struct.pack("!I", len(body) + 4) + body)
        return sock.recv(1) == b"R"


def ssh(address):
    """Does sshd say who it is?"""
    with _connect(address, 22) as sock:
        return sock.recv(4) == b"SSH-"


def echo(address):
    """Does a line come back?"""
    with _connect(address, 7) as sock:
        sock.sendall(b"hello\n")
        return sock.recv(6).startswith(b"h")


def arp(address):
    """Does anybody own the address? All that can be asked of a guest nobody here knows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", (address, 9))
    time.sleep(INTERVAL)
    with open("/proc/net/arp", encoding="ascii") as table:
        entries = [line.split() for line in table]
    return any(entry[0] == address and int(entry[2], 16) & 2 for entry in entries[1:])


SERVICES = {"http": http, "postgresql": postgresql, "ssh": ssh, "echo": echo, "arp": arp}


def works(service, address):
    """Does the service answer now?"""
    try:
        return SERVICES[service](address)
    except OSError:
        return False


def main(args):
    """Command line: ADDRESS TIMEOUT SERVICE..."""
    address, missing = args[0], list(args[2:])
    began = time.monotonic()
    while missing and time.monotonic() < began + float(args[1]):
        for service in list(missing):
            if works(service, address):
                missing.remove(service)
                print(f"lab: {address}: {service} after {time.monotonic() - began:.1f} s", flush=True)
        time.sleep(INTERVAL)
    if missing:
        print(f"lab: {address}: no answer from {', '.join(missing)}", flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
