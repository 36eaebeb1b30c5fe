# SPDX-License-Identifier: GPL-2.0-or-later
"""The loads of the benchmark, one row each, and how each is run and measured.

Adding a load is adding a row. `kind` chooses a function of loadgen; `better` says whether more or
less of `unit` is better, and so which way round a ratio goes (1.0 is as good as the other mode,
less is worse, for every load).
"""
from dataclasses import dataclass


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
    close: bool = False
    select_only: bool = False


def _web(clients, close, path="/1k"):
    word = "close" if close else "keepalive"
    size = path.strip("/")
    return Load(f"web-{word}-{size}-c{clients}", f"web, {word}, {size}, c{clients}", "wrk",
                "requests/s", path=path, clients=clients, close=close)


def _pgbench(clients, select_only):
    word = "select" if select_only else "tpcb"
    return Load(f"pgbench-{word}-c{clients}", f"pgbench {word}, c{clients}", "pgbench",
                "transactions/s", clients=clients, select_only=select_only)


LOADS = [
    *(_web(clients, False) for clients in (1, 8, 32)),
    *(_web(clients, True) for clients in (1, 8, 32)),
    _web(8, False, "/64k"),
    Load("download-10m", "download, 10 MiB", "download", "MB/s", path="/10m.bin"),
    *(_pgbench(clients, True) for clients in (1, 4)),
    *(_pgbench(clients, False) for clients in (1, 4)),
    Load("ping", "ping, median", "ping", "ms", better="lower"),
]

BY_NAME = {load.name: load for load in LOADS}


def ratio(load, value, base):
    """How good @value is against @base, 1.0 being as good; None when either is missing."""
    if not value or not base:
        return None
    return round(value / base if load.better == "higher" else base / value, 3)
