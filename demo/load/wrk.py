# SPDX-License-Identifier: GPL-2.0-or-later
"""wrk: the command and what its report says."""
import os
import re

SILENCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "silence.lua")
HANG = 2.0                      # seconds without any answer at the end: nothing will come any more
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


def command(url, connections, seconds, close=False, timeout=10, silence=False):
    """Arguments for a run with one thread; @silence reports silences too, and costs some speed."""
    args = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={timeout}s", "--latency"]
    if close:
        args += ["-H", "Connection: close"]
    if silence:
        args += ["-s", SILENCE]
    return args + [url]


def milliseconds(text):
    """`1.50ms` as 1.5."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if not found:
        raise ValueError(f"not a time: {text!r}")
    return float(found[1]) * UNITS[found[2]]


def _number(pattern, text, default):
    found = re.search(pattern, text)
    return float(found[1]) if found else default


def _latency(text):
    """p50, p99 and max in milliseconds, those which are there."""
    result = {}
    for percent in ("50", "99"):
        found = re.search(rf"^\s+{percent}%\s+(\S+)", text, re.M)
        if found:
            result[f"p{percent}_ms"] = milliseconds(found[1])
    found = re.search(r"^\s+Latency\s+\S+\s+\S+\s+(\S+)", text, re.M)
    if found:
        result["max_ms"] = milliseconds(found[1])
    return result


def parse(text):
    """wrk's report as a dictionary; ValueError when it is none."""
    rate = _number(r"Requests/sec:\s+([\d.]+)", text, None)
    total = _number(r"(\d+) requests in", text, None)
    if rate is None or total is None:
        raise ValueError(f"not a report of wrk: {text.strip()[-300:]!r}")
    errors = dict.fromkeys(("connect", "read", "write", "timeout"), 0)
    for kind, count in re.findall(r"(connect|read|write|timeout) (\d+)", text):
        errors[kind] = int(count)
    return {"rate": rate, "requests": int(total), "errors": errors,
            "silence_s": _number(r"Silence: (\d+) us", text, 0) / 1e6,
            "end_silence_s": _number(r"at the end (\d+) us", text, 0) / 1e6,
            "non_2xx": int(_number(r"Non-2xx or 3xx responses: (\d+)", text, 0)), **_latency(text)}


def fill(account, report, connections):
    """Enter a report of wrk over @connections connections into @account.

    wrk counts a late answer as `timeout` and a broken connection as a read or write error. An answer
    which never comes it does not count; silence at the end tells.
    """
    errors = report["errors"]
    account.requests = report["requests"]
    account.failures = sum(errors.values()) + report["non_2xx"]
    account.broken = errors["read"] + errors["write"]
    account.waited(max(report.get("max_ms", 0) / 1000, report["silence_s"]))
    account.extra["rate"] = report["rate"]
    if account.failures:
        account.note(f"wrk: {errors}, {report['non_2xx']} wrong status")
    if report["end_silence_s"] > HANG:
        account.failed(f"no answer in the last {report['end_silence_s']:.1f} s", connections)
        account.lost("all connections hang", connections)
