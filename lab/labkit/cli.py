# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: one row per verb."""
import argparse
import os
import re
import sys

from . import arbiter, keys, slow, verbs
from .errors import LabError
from .net import LINKS, ONE_WAY
from .state import GUEST_HOSTS, HOSTS, Lab

DESCRIPTION = """A test bed on one machine: hosts a and b, a client and an arbiter, each a network
namespace; a client LAN and a replication link. Run it as root."""


def _guest_host(parser):
    parser.add_argument("host", choices=GUEST_HOSTS)


def _guest_hosts(parser):
    parser.add_argument("hosts", choices=GUEST_HOSTS, nargs="+", metavar="{a,b}")


def _any_host(parser):
    parser.add_argument("host", choices=HOSTS)


def _link(parser):
    parser.add_argument("link", choices=(*LINKS, *ONE_WAY))


def _memory(text):
    if not re.fullmatch(r"[1-9][0-9]*[MG]", text):
        raise argparse.ArgumentTypeError("a number of MiB or GiB, as 512M or 1G")
    return text


def _count(text):
    if not text.isdigit() or not 0 < int(text) < 1000000:
        raise argparse.ArgumentTypeError("a whole number above 0")
    return int(text)


def _up(parser):
    add = parser.add_argument
    add("--mode", choices=("native", "twin", "colo", "checkpoint"), default="colo",
        help="native: one plain guest on a; twin: one on each host; colo, checkpoint: a protected "
             "pair (default: colo)")
    add("--disk", metavar="IMG", help="raw or qcow2 image to boot (default: the test guest)")
    add("--kernel", metavar="F", help="kernel to boot instead of the disk's own")
    add("--initrd", metavar="F", help="its initrd")
    add("--append", metavar="S", help="its command line")
    add("--ip", metavar="ADDR", help="static address of the guest on --disk (default: by DHCP)")
    add("--mem", metavar="M", type=_memory, default="512M", help="memory (default: 512M)")
    add("--vcpus", metavar="N", type=_count, default=1, help="processors (default: 1)")
    add("--machine", choices=("pc", "q35"), default="pc", help="QEMU's machine (default: pc)")
    add("--qemu", metavar="F", default="qemu-system-x86_64", help="QEMU program")
    add("--interval", metavar="MS", type=_count, default=50,
        help="between checkpoints in mode checkpoint (default: 50)")
    add("--arbiter", choices=arbiter.KINDS, default="witness",
        help="who decides, on host arbiter, which host serves (default: witness)")
    add("--set", metavar="SECTION.KEY=VALUE", action="append", default=[],
        help="anything else for the daemon's configuration file")
    add("--tls", choices=keys.KINDS, default="psk",
        help="how the hosts' link is secured, with keys made for this lab (modes colo, checkpoint; default: psk)")
    add("--volatile-disks", action="store_true",
        help="`kill a|b` loses what was not flushed to the host's disk (modes colo, checkpoint)")
    add("--disk-size", metavar="S", type=_memory, help="make each host's disk so large (default: as the image)")
    add("--alone", action="store_true", help="leave host b off; `lab start b` starts it")
    add("--share-cpus", action="store_true",
        help="let both hosts use all CPUs (default: each its half, if that is enough "
             "for its guest)")
    add("--keep", action="store_true", help="do not clear away what failed")
    add("--timeout", metavar="S", type=_count, default=120, help="for each step (default: 120)")


def _exec(parser):
    _any_host(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD...")


def _ssh(parser):
    parser.add_argument("--guest", type=int, choices=(0, 1), default=0, help="which of twins")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD...")


def _status(parser):
    parser.add_argument("--json", action="store_true", help="for programs")


def _wait(parser):
    parser.add_argument("--state", choices=("protected", "serving"), default="protected")
    parser.add_argument("--timeout", metavar="S", type=_count, default=120)


def _ip(parser):
    parser.add_argument("-6", dest="ipv6", action="store_true", help="IPv6 (the test guest only)")


def _failpoint(parser):
    _guest_host(parser)
    parser.add_argument("point", help="its name (common/failpoint.h), or none")
    parser.add_argument("action", nargs="?", choices=("kill", "stop", "exit", "sleep", "power"), default="kill")
    parser.add_argument("--passing", metavar="N", type=_count, default=1, help="fire at the Nth (default: 1)")
    parser.add_argument("--ms", metavar="MS", type=_count, default=1000, help="how long to sleep (default: 1000)")


def _rate(text):
    try:
        return slow.parse_rate(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"as 1mbit or 500kbit: {err}") from err


def _share(text):
    if not re.fullmatch(r"[0-9.]+%?", text) or not 0 <= float(text.rstrip("%")) < 100:
        raise argparse.ArgumentTypeError("percent, as 2 or 0.5%%")
    return float(text.rstrip("%")) / 100


def _slow(parser):
    parser.add_argument("off", nargs="?", choices=("off",), help="as it was made")
    parser.add_argument("--delay", metavar="MS", type=float, default=0, help="each way")
    parser.add_argument("--rate", metavar="RATE", type=_rate, default=0, help="each way, as 1mbit (default: no limit)")
    parser.add_argument("--loss", metavar="PERCENT", type=_share, default=0, help="of the frames")


def _nothing(_parser):
    pass


VERBS = {
    "up": (verbs.do_up, _up, "make the hosts, boot the guest, wait until it serves and is "
                             "protected"),
    "exec": (verbs.do_exec, _exec, "run a command on a host"),
    "shell": (verbs.do_shell, _any_host, "a shell on a host"),
    "ssh": (verbs.do_ssh, _ssh, "a command or a shell in the guest"),
    "console": (verbs.do_console, _guest_host, "follow the serial console of a host's guest"),
    "ip": (verbs.do_ip, _ip, "addresses of the guests"),
    "status": (verbs.do_status, _status, "state of both hosts"),
    "wait": (verbs.do_wait, _wait, "wait for a state"),
    "kill": (verbs.do_kill, _guest_hosts, "power loss: links silent, then all its processes killed"),
    "kill-vm": (verbs.do_kill_vm, _guest_host, "kill QEMU on a host"),
    "kill-daemon": (verbs.do_kill_daemon, _guest_host, "kill the daemon on a host; it is started again by itself"),
    "start": (verbs.do_start, _guest_host, "start a host, or `colo run` on it, again"),
    "failpoint": (verbs.do_failpoint, _failpoint,
                  "make a host fail at a named step (programs built with -Dfailpoints=true)"),
    "watch": (verbs.do_watch, _nothing, "follow which host serves, as the LAN sees it"),
    "start-arbiter": (verbs.do_start_arbiter, _nothing, "start the witness or etcd again that was killed"),
    "cut": (verbs.do_cut, _link, "cut a link"),
    "heal": (verbs.do_heal, _link, "heal it"),
    "slow": (verbs.do_slow, _slow, "make the replication link slow, far or lossy; `slow off` ends that"),
    "down": (verbs.do_down, _nothing, "stop and remove everything"),
}


def parser():
    """The whole command line."""
    top = argparse.ArgumentParser(prog="lab", description=DESCRIPTION)
    rows = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (_, declare, text) in VERBS.items():
        row = rows.add_parser(verb, help=text, description=text)
        row.add_argument("--name", default=os.environ.get("LAB_NAME", "lab"),
                         help="name of the lab (default: $LAB_NAME or lab)")
        declare(row)
    return top


def main(args):
    """Run one verb, return the exit status."""
    options = parser().parse_args(args)
    if os.geteuid() != 0:
        print("lab: must be run as root (it makes network namespaces)", file=sys.stderr)
        return 1
    try:
        VERBS[options.verb][0](Lab(options.name), options)
    except LabError as err:
        print(f"lab: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
