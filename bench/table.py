# SPDX-License-Identifier: GPL-2.0-or-later
"""The tables of bench/RESULTS.md, between two markers; what stands around them is written by hand."""
import os

from loads import LOADS, MODES

# colo / native of the last run whose NICs had no offloads
WITHOUT_OFFLOADS = {
    "web-keepalive-1k-c1": 0.46, "web-keepalive-1k-c8": 0.83, "web-keepalive-1k-c32": 1.12,
    "web-close-1k-c1": 0.94, "web-close-1k-c8": 1.24, "web-close-1k-c32": 1.25,
    "web-keepalive-64k-c8": 0.19, "download-10m": 0.08, "pgbench-select-c1": 0.46,
    "pgbench-select-c4": 0.58, "pgbench-tpcb-c1": 0.51, "pgbench-tpcb-c4": 0.74, "ping": 0.67,
}

BEGIN = "<!-- results: begin (written by bench/bench) -->"
END = "<!-- results: end -->"


def number(value):
    """A figure with three or so digits that matter."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _row(cells):
    return "| " + " | ".join(cells) + " |"


def _header(cells):
    return [_row(cells), _row(["---"] + ["---:"] * (len(cells) - 1))]


def _find(runs, load, mode, vcpus):
    for run in runs:
        if (run["load"], run["mode"], run["vcpus"]) == (load.name, mode, vcpus):
            return run
    return {}


def _share(value):
    return "-" if value is None else f"{value:.2f}"


def throughput(runs, vcpus):
    """Values of each mode, ratios of the protected ones."""
    lines = _header(["load", "unit", *MODES, "colo / native", "colo / twin", "checkpoint / native",
                     "colo / native, without offloads"])
    for load in LOADS:
        by_mode = {mode: _find(runs, load, mode, vcpus) for mode in MODES}
        if not any(by_mode.values()):
            continue
        ratios = [by_mode["colo"].get("ratio_native"), by_mode["colo"].get("ratio_twin"),
                  by_mode["checkpoint"].get("ratio_native"), WITHOUT_OFFLOADS.get(load.name)]
        lines.append(_row([load.title, load.unit,
                           *(number(by_mode[mode].get("value")) for mode in MODES),
                           *map(_share, ratios)]))
    return lines


def _latency(run):
    if run.get("p50_ms") is not None:
        return f"{number(run['p50_ms'])} / {number(run.get('p99_ms'))}"
    return f"{number(run['avg_ms'])} avg" if run.get("avg_ms") is not None else "-"


def latency(runs, vcpus):
    """Latencies of each mode."""
    lines = _header(["latency p50 / p99, ms", *MODES])
    for load in LOADS:
        found = [_find(runs, load, mode, vcpus) for mode in MODES]
        if any(found):
            lines.append(_row([load.title, *(_latency(run) for run in found)]))
    return lines


def added(runs, vcpus):
    """What protection adds to a small answer beyond the slower one of two guests' own time."""
    lines = _header(["small answer, median, ms", "native", "later of twins", "colo",
                     "colo beyond later of twins", "colo beyond native"])
    for load in (load for load in LOADS if load.lockstep):
        native, twin, colo = (_find(runs, load, mode, vcpus).get("value")
                              for mode in ("native", "twin", "colo"))
        if colo is None:
            continue
        beyond = ["-" if base is None else f"{colo - base:.2f}" for base in (twin, native)]
        lines.append(_row([load.title, number(native), number(twin), number(colo), *beyond]))
    return lines


def _counts(found):
    return ", ".join(f"{name} {count}" for name, count in (found or {}).items()) or "none"


def _rates(run):
    """Checkpoints that the traffic caused: per minute, per 1,000 requests."""
    caused = sum(count for cause, count in (run.get("checkpoints") or {}).items()
                 if cause != "periodic")
    if not run.get("elapsed_s"):
        return "-", "-"
    requests = run.get("requests")
    return (number(caused * 60 / run["elapsed_s"]) if caused else "0",
            (number(caused * 1000 / requests) if caused else "0") if requests else "-")


def causes(runs, vcpus):
    """How often each load made the two guests differ, and what is left of its speed."""
    lines = _header(["mode colo", "requests", "checkpoints by cause", "what was different or missing",
                     "caused per minute", "per 1,000 requests", "colo / native",
                     "checkpoint / native"])
    for load in LOADS:
        run = _find(runs, load, "colo", vcpus)
        if not run:
            continue
        held = _find(runs, load, "checkpoint", vcpus)
        lines.append(_row([load.title, number(run.get("requests")), _counts(run.get("checkpoints")),
                           _counts(run.get("differences")), *_rates(run),
                           _share(run.get("ratio_native")), _share(held.get("ratio_native"))]))
    return lines


def _pause(run):
    pause = run.get("pause_us") or {}
    return " / ".join("-" if pause.get(key) is None else f"{pause[key] / 1000:.1f}"
                      for key in ("p50", "p99"))


def _host_cpu(run):
    return " / ".join(f"{sum(names.values()):.1f}" for _, names in sorted(
        (run.get("cpu_s") or {}).items())) or "-"


def protection(runs, vcpus):
    """What the protection took in mode colo."""
    lines = _header(["mode colo", "pause p50 / p99, ms", "CPU s of host a / b"])
    for load in LOADS:
        run = _find(runs, load, "colo", vcpus)
        if run:
            lines.append(_row([load.title, _pause(run), _host_cpu(run)]))
    return lines


def render(content):
    """All tables of a results.json."""
    runs, lines = content["runs"], []
    machine = content["machine"]
    lines += [f"Taken {content['date']} on {machine['cpus']} CPUs ({machine['cpu']}), Linux "
              f"{machine['kernel']}; {content['seconds']} s per load, {content['rounds']} round(s). "
              f"Programs without a part in it took {content['other_share']:.0%} of the machine "
              "meanwhile. Reproduce with", "", f"    {content['command']}", ""]
    for vcpus in sorted({run["vcpus"] for run in runs}):
        lines += [f"### Guest with {vcpus} vCPU, {content['mem']}", "", *throughput(runs, vcpus), "",
                  *latency(runs, vcpus), ""]
        if any(run["mode"] == "colo" and run["vcpus"] == vcpus for run in runs):
            for part in (added, causes, protection):
                lines += [*part(runs, vcpus), ""]
    return lines


def update(path, content):
    """Put the tables into @path, which is made when it is not there."""
    text = f"# Results\n\n{BEGIN}\n{END}\n"
    if os.path.exists(path):
        with open(path, encoding="utf-8") as old:
            text = old.read()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path}: the markers around the tables are gone")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    with open(path, "w", encoding="utf-8") as out:
        out.write("\n".join([head + BEGIN, *render(content), END + tail]))
