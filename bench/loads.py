# SPDX-License-Identifier: GPL-2.0-or-later
"""The loads of the benchmark, one row each, and how each is run and measured.

Adding a load is adding a row. `kind` chooses a function of loadgen; `better` says whether more or
less of `unit` is better, and so which way round a ratio goes (1.0 is as good as the other mode,
less is worse, for every load).
"""
from dataclasses import dataclass

MODES = ("native", "twin", "colo", "checkpoint")
# what takes a session with the guest, or a connection back from it, is not run on twins
ONE_GUEST = ("native", "colo", "checkpoint")


@dataclass(frozen=True)
class Load:
    """One load."""
    name: str
    title: str
    kind: str
    unit: str
    better: str = "higher"
    path: str = ""
    clients: int = 1
    scheme: str = "http"
    close: bool = False
    select_only: bool = False
    reverse: bool = False       # iperf3: the guest sends
    longer: int = 1             # lasts so many times as long as the others
    lockstep: bool = False      # twins are asked by one client, together: the later answer counts
    modes: tuple = MODES


def _web(clients, close, path="/1k", scheme="http"):
    word = "close" if close else "keepalive"
    size = path.strip("/")
    name, title = ("web", "web") if scheme == "http" else ("tls", "web over TLS")
    return Load(f"{name}-{word}-{size}-c{clients}", f"{title}, {word}, {size}, c{clients}", "wrk",
                "requests/s", path=path, clients=clients, close=close, scheme=scheme)


def _pgbench(clients, select_only):
    word = "select" if select_only else "tpcb"
    return Load(f"pgbench-{word}-c{clients}", f"pgbench {word}, c{clients}", "pgbench",
                "transactions/s", clients=clients, select_only=select_only)


def _iperf(streams, reverse):
    way, some = "from" if reverse else "to", f"{streams} stream{'s' if streams > 1 else ''}"
    return Load(f"iperf3-{way}-{streams}", f"iperf3 {way} the guest, {some}", "iperf3", "Gbit/s",
                clients=streams, reverse=reverse)


def _latency(name, title, kind, **more):
    return Load(name, f"{title}, median", kind, "ms", better="lower", **more)


LOADS = [
    *(_web(clients, False) for clients in (1, 8, 32)),
    *(_web(clients, True) for clients in (1, 8, 32)),
    _web(8, False, "/64k"),
    _web(8, False, "/cookie"),
    _web(8, False, scheme="https"),
    _web(8, True, scheme="https"),
    Load("download-10m", "download, 10 MiB", "download", "MB/s", path="/10m.bin"),
    *(_iperf(streams, reverse) for reverse in (False, True) for streams in (1, 8)),
    Load("dns-c16", "DNS over UDP, c16", "dns", "queries/s", clients=16),
    *(_pgbench(clients, True) for clients in (1, 4)),
    *(_pgbench(clients, False) for clients in (1, 4)),
    Load("scp", "scp to the guest, 8 MiB", "scp", "MB/s", modes=ONE_GUEST),
    Load("guest-client", "guest as client, 100 connections/s", "client", "connections/s",
         modes=ONE_GUEST),
    _latency("ssh", "ssh, a line typed", "ssh", modes=ONE_GUEST),
    _latency("websocket", "WebSocket echo", "websocket"),
    _latency("ping", "ping", "ping"),
    _latency("echo", "echo of 32 bytes", "echo", longer=3, lockstep=True),
    _latency("dns-c1", "DNS over UDP, c1", "dns1", longer=3, lockstep=True),
]

BY_NAME = {load.name: load for load in LOADS}


def ratio(load, value, base):
    """How good @value is against @base, 1.0 being as good; None when either is missing."""
    if not value or not base:
        return None
    return round(value / base if load.better == "higher" else base / value, 3)
