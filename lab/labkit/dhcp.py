# SPDX-License-Identifier: GPL-2.0-or-later
"""
A DHCP server for the guests: one fixed address per MAC address, nothing for anyone else.

Run in the client's namespace: python3 -m labkit.dhcp DEVICE SERVER-ADDRESS MAC=ADDRESS...
"""
import ipaddress
import socket
import struct
import sys

HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
COOKIE = b"\x63\x82\x53\x63"
LEASE = 86400
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
OPT_MASK, OPT_ROUTER, OPT_WANTED, OPT_LEASE, OPT_TYPE, OPT_SERVER, OPT_END = 1, 3, 50, 51, 53, 54, 255


def parse_options(data):
    """{code: value}; what is cut short ends the list."""
    options = {}
    while data and data[0] != OPT_END:
        if data[0] == 0:
            data = data[1:]
            continue
        if len(data) < 2 or len(data) < 2 + data[1]:
            break
        options[data[0]] = data[2:2 + data[1]]
        data = data[2 + data[1]:]
    return options


def option(code, value):
    """One option as bytes."""
    return bytes([code, len(value)]) + value


class Server:
    """Answers requests; leases maps a MAC address as bytes to 4 bytes of address."""

    def __init__(self, address, leases):
        self.address = ipaddress.IPv4Address(address).packed
        self.leases = leases

    def answer(self, packet):
        """(reply, unicast address or None for broadcast), None when there is nothing to say."""
        if len(packet) < HEADER.size:
            return None
        fields = HEADER.unpack_from(packet)
        chaddr, cookie = fields[11], fields[14]
        lease = self.leases.get(chaddr[:6])
        if fields[0] != 1 or cookie != COOKIE or not lease:
            return None
        kind = self._kind(parse_options(packet[HEADER.size:]), fields[7], lease)
        if not kind:
            return None
        renewing = fields[7] != bytes(4) and kind == ACK
        return self._reply(fields, kind, lease), fields[7] if renewing else None

    def _kind(self, options, ciaddr, lease):
        kind = options.get(OPT_TYPE, b"\0")[:1]
        if kind == bytes([DISCOVER]):
            return OFFER
        if kind != bytes([REQUEST]):
            return None
        if options.get(OPT_SERVER, self.address) != self.address:
            return None     # the guest chose another server
        wanted = options.get(OPT_WANTED, ciaddr)
        return ACK if wanted == lease else NAK

    def _reply(self, fields, kind, lease):
        yiaddr = bytes(4) if kind == NAK else lease
        reply = HEADER.pack(2, 1, 6, 0, fields[4], 0, fields[6], fields[7], yiaddr, self.address,
                            bytes(4), fields[11], b"", b"", COOKIE)
        reply += option(OPT_TYPE, bytes([kind])) + option(OPT_SERVER, self.address)
        if kind != NAK:
            reply += option(OPT_LEASE, struct.pack("!I", LEASE))
            reply += option(OPT_MASK, bytes([255, 255, 255, 0]))
            reply += option(OPT_ROUTER, self.address)
        return reply + bytes([OPT_END])


def serve(device, server):
    """Never returns."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(("0.0.0.0", 67))
        print(f"serving on {device}", flush=True)
        while True:
            packet, _ = sock.recvfrom(65536)
            reply = server.answer(packet)
            if reply:
                to = socket.inet_ntoa(reply[1]) if reply[1] else "255.255.255.255"
                sock.sendto(reply[0], (to, 68))


def main(args):
    """Command line: DEVICE SERVER-ADDRESS MAC=ADDRESS..."""
    leases = {}
    for pair in args[2:]:
        mac, _, address = pair.partition("=")
        leases[bytes.fromhex(mac.replace(":", ""))] = ipaddress.IPv4Address(address).packed
    serve(args[0], Server(args[1], leases))


if __name__ == "__main__":
    main(sys.argv[1:])
