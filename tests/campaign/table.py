# SPDX-License-Identifier: GPL-2.0-or-later
"""The results of a campaign as a person reads them, and as a program does."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "demo"))
from load.account import percentile  # noqa: E402  pylint: disable=wrong-import-position


NEW = "web-new"     # connections to be: a SYN that is lost waits for the client's timer, which is a second


def longest(result):
    """The longest gap of any connection that was open, ms."""
    return max((said["gap_ms"] for name, said in result["loads"].items() if name != NEW), default=0)


def opening(result):
    """The longest gap of a client that opens a connection for each request, ms."""
    return result["loads"].get(NEW, {"gap_ms": 0})["gap_ms"]


def line(number, result):
    """One fault."""
    text = f"{number:4} {result['kind']:34} {'ok' if result['ok'] else 'VIOLATION':10}"
    text += f" gap {longest(result):6.0f} ms  new {opening(result):6.0f} ms  well after {result['well_s'] or 0:5.1f} s"
    if result["lan"].get("late"):
        text += f"  late frames: {result['lan']['late']} in {result['lan']['late_ms']} ms"
    marks = [word for word in ("not_reached", "by_hand", "reboot") if result.get(word)]
    text += "".join(f"  [{mark.replace('_', ' ')}]" for mark in marks)
    if result["notes"]:
        text += f"  ({'; '.join(result['notes'])})"
    return text if result["ok"] else f"{text}\n     {result['violation']}"


def rows(results):
    """One row for each kind of fault; points by their action."""
    kinds = {}
    for result in results:
        name = result["kind"]
        if name.startswith("at-"):
            name = "at a step: " + name.rpartition("-")[2]
        if result["reboot"]:
            name += " (both halves lost)"
        kinds.setdefault(name, []).append(result)
    return [row(name, found) for name, found in sorted(kinds.items())] + [row("all", results)]


def row(name, found):
    """Count, result, gaps of those that need no reboot, time to protection."""
    counted = [result for result in found if not result["reboot"] and not result["not_reached"]]
    gaps, new = [longest(result) for result in counted], [opening(result) for result in counted]
    well = [result["well_s"] for result in found if result["well_s"] is not None]
    return {"fault": name, "count": len(found), "ok": sum(result["ok"] for result in found),
            "not_reached": sum(result["not_reached"] for result in found),
            "gap_ms": {f"p{p}" if p < 100 else "max": percentile(gaps, p) for p in (50, 99, 100)},
            "new_ms": {"p50": percentile(new, 50), "max": percentile(new, 100)},
            "well_s": {"p50": percentile(well, 50), "max": percentile(well, 100)}}


def text(results):
    """The table."""
    def show(value, form="7.0f"):
        return f"{value:{form}}" if value is not None else "      -"
    out = [f"{'fault':44} count    ok  gap ms p50     p99     max   new ms p50     max   well after s p50   max"]
    for found in rows(results):
        gap, new, well = found["gap_ms"], found["new_ms"], found["well_s"]
        out.append(f"{found['fault']:44} {found['count']:5} {found['ok']:5} {show(gap['p50'], '11.0f')} {show(gap['p99'])} "
                   f"{show(gap['max'])} {show(new['p50'], '12.0f')} {show(new['max'])} {show(well['p50'], '18.1f')} {show(well['max'], '5.1f')}")
    missed = sum(result["not_reached"] for result in results)
    if missed:
        out.append(f"{missed} armed steps were not reached")
    return "\n".join(out)
