# SPDX-License-Identifier: GPL-2.0-or-later
"""
The networks of a lab.

	client --- [lan: bridge sw0] --- a: lan0 in bridge br0 (the guest's TAP is attached to br0)
	arbiter --/                \\--- b: lan0 in bridge br0
	a: repl0 --- [bridge rp0: repl-a, repl-b] --- b: repl0	(replication link; slow.py may stand in rp0's place)

Each host is a network namespace, the switch is one of its own, so that nothing of it is seen outside.
The client alone speaks IPv6, with a fixed address in the network of the test guests' own.
"""
import ipaddress
import os
import subprocess

from .errors import LabError

SWITCH = "lan"
REPLICATION = {"a": "10.77.0.1", "b": "10.77.0.2"}
DEFAULT_GUEST = "192.168.77.100"
CLIENT6 = "fd77:c010:77::1"
HOST_NUMBERS = {"client": 1, "arbiter": 5, "a": 11, "b": 12}
# what to set down or up on each side of a link: (namespace, device)
LINKS = {
    "replication": [("a", "repl0"), ("b", "repl0")],
    "lan-a": [(SWITCH, "port-a")],
    "lan-b": [(SWITCH, "port-b")],
    "arbiter": [(SWITCH, "port-arbiter")],
}
# one direction of a link only: the port where it leaves the switch
ONE_WAY = {"replication-ab": "repl-b", "replication-ba": "repl-a"}
REPLICATION_BRIDGE = "rp0"
REPLICATION_PORTS = ("repl-a", "repl-b")
NETNS_DIR = "/run/netns"


def _run(command, stdin=None):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _batch(namespace, lines):
    _run(["ip", "-n", namespace, "-batch", "-"], "\n".join(lines) + "\n")


def plan(guest):
    """Addresses on the LAN around the guest's (its /24), the guests' own included."""
    try:
        guest = ipaddress.IPv4Address(guest)
    except ValueError as err:
        raise LabError(f"--ip: {err}") from err
    base = int(guest) & ~0xff
    number = int(guest) & 0xff
    twin = number + 1 if number < 254 else 1
    used = {number, twin}
    addresses = {"guests": [str(guest), str(ipaddress.IPv4Address(base + twin))]}
    for host, wanted in HOST_NUMBERS.items():
        while wanted in used:
            wanted = wanted + 20
        used.add(wanted)
        addresses[host] = str(ipaddress.IPv4Address(base + wanted))
    return addresses


def _make_namespace(lab, host):
    name = lab.namespace(host)
    _run(["ip", "netns", "add", name])
    # Hosts that solicit routers or join multicast groups disturb measurements.
    _run(["ip", "netns", "exec", name, "sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1",
          "net.ipv6.conf.default.disable_ipv6=1"])
    _batch(name, ["link set lo up"])


def _make_bridge(namespace, name):
    _batch(namespace, [f"link add {name} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
                       f"link set {name} up"])


def _plug(lab, host, device):
    """A cable from @device of @host to its port of the switch."""
    switch = lab.namespace(SWITCH)
    _batch(switch, [f"link add port-{host} type veth peer name {device} netns "
                    f"{lab.namespace(host)}",
                    f"link set port-{host} master sw0 up"])


def _give_client_ipv6(namespace):
    """An address that needs no detection of duplicates, no router looked for."""
    _run(["ip", "netns", "exec", namespace, "sysctl", "-q", "-w", "net.ipv6.conf.lan0.accept_ra=0",
          "net.ipv6.conf.lan0.router_solicitations=0", "net.ipv6.conf.lan0.dad_transmits=0",
          "net.ipv6.conf.lan0.disable_ipv6=0"])
    _batch(namespace, [f"addr add {CLIENT6}/64 dev lan0 nodad"])


def create(lab, addresses):
    """Make all namespaces, links and addresses."""
    lab.data["netns_mount_was_there"] = os.path.ismount(NETNS_DIR)
    lab.save()
    for host in (SWITCH, *HOST_NUMBERS):
        _make_namespace(lab, host)
    _make_bridge(lab.namespace(SWITCH), "sw0")
    for host in HOST_NUMBERS:
        _plug(lab, host, "lan0")
        namespace = lab.namespace(host)
        device = "lan0"
        if host in REPLICATION:
            _make_bridge(namespace, "br0")
            # of its own, or it changes with every TAP that comes and goes
            _batch(namespace, [f"link set br0 address 02:c0:10:00:00:{HOST_NUMBERS[host]:02x}",
                               "link set lan0 master br0"])
            device = "br0"
        _batch(namespace, ["link set lan0 up", f"addr add {addresses[host]}/24 dev {device}"])
    _give_client_ipv6(lab.namespace("client"))
    _make_bridge(lab.namespace(SWITCH), REPLICATION_BRIDGE)
    for host, address in REPLICATION.items():
        _batch(lab.namespace(SWITCH), [f"link add repl-{host} type veth peer name repl0 netns {lab.namespace(host)}",
                                       f"link set repl-{host} up"])
        _batch(lab.namespace(host), [f"addr add {address}/24 dev repl0", "link set repl0 up"])
    join_replication(lab)


def make_tap(lab, host):
    """A TAP with offloads on br0 of @host for a QEMU that nobody protects."""
    namespace = lab.namespace(host)
    _run(["ip", "-n", namespace, "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr"])
    _batch(namespace, ["link set tap0 master br0 up"])


def remove_tap(lab, host):
    """The TAP of a guest that was killed, if it is still there."""
    if "tap0:" in _run(["ip", "-n", lab.namespace(host), "-o", "link"]):
        _batch(lab.namespace(host), ["link del tap0"])


def join_replication(lab):
    """The two ends of the replication link meet in the bridge."""
    _batch(lab.namespace(SWITCH), [f"link set {port} master {REPLICATION_BRIDGE}" for port in REPLICATION_PORTS])


def set_segments(lab, large):
    """May the hosts send TCP's large segments over the replication link, or one frame at a time?"""
    for host in REPLICATION:
        _batch(lab.namespace(host), [f"link set repl0 gso_max_segs {65535 if large else 1}"])


def _set_port(lab, port, up):
    """What leaves the switch by @port is lost (a queue of length 0), or not."""
    rule = ["del"] if up else ["replace"]
    tail = [] if up else ["pfifo", "limit", "0"]
    try:
        _run(["tc", "-n", lab.namespace(SWITCH), "qdisc", *rule, "dev", port, "root", *tail])
    except LabError:
        if not up:
            raise   # to heal what is not cut is no error


def set_link(lab, link, up):
    """Cut or heal a link; to heal it heals each direction."""
    if link in ONE_WAY:
        _set_port(lab, ONE_WAY[link], up)
        return
    if link not in LINKS:
        raise LabError(f"no link '{link}': {', '.join((*LINKS, *ONE_WAY))}")
    for host, device in LINKS[link]:
        _batch(lab.namespace(host), [f"link set {device} {'up' if up else 'down'}"])
    if link == "replication" and up:
        for port in ONE_WAY.values():
            _set_port(lab, port, True)


def set_host(lab, host, up):
    """All links of a host down or up at its own end; what it holds can then no longer leave."""
    word = "up" if up else "down"
    _batch(lab.namespace(host), [f"link set lan0 {word}", f"link set repl0 {word}"])


def namespaces(lab):
    """Those that exist."""
    names = (lab.namespace(host) for host in (*HOST_NUMBERS, SWITCH))
    return [name for name in names if os.path.exists(os.path.join(NETNS_DIR, name))]


def remove(lab):
    """Remove the namespaces, and with them every link."""
    for name in namespaces(lab):
        _run(["ip", "netns", "del", name])
    if lab.data.get("netns_mount_was_there", True) or not os.path.isdir(NETNS_DIR):
        return
    if not os.listdir(NETNS_DIR):
        subprocess.run(["umount", NETNS_DIR], stderr=subprocess.DEVNULL, check=False)
