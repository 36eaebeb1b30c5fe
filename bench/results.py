# SPDX-License-Identifier: GPL-2.0-or-later
"""Collect measurements, work out ratios, write bench/results.json."""
import json
import os
import platform
from statistics import median

from loads import BY_NAME, LOADS, MODES, ratio


def counted_between(before, after, *keys):
    """What rose, and by how much, of a dictionary of counters found by @keys in two `colo status`."""
    for key in keys:
        before, after = (before or {}).get(key), (after or {}).get(key)
    old, new = before or {}, after or {}
    return {name: count - old.get(name, 0) for name, count in new.items()
            if count - old.get(name, 0)}


def by_cause_between(before, after):
    """Checkpoints by cause."""
    return counted_between(before, after, "checkpoints", "by_cause")


def differences_between(before, after):
    """What the comparing module found different or missing, by kind."""
    return counted_between(before, after, "net", "differences")


def merge_rounds(samples):
    """One entry of `runs` from the rounds of one load: the median, with all values kept."""
    good = [sample for sample in samples if sample.get("value") is not None]
    if not good:
        return dict(samples[-1], value=None)
    middle = median(sample["value"] for sample in good)
    nearest = min(good, key=lambda sample: abs(sample["value"] - middle))
    return dict(nearest, value=round(middle, 3), rounds=[round(s["value"], 3) for s in good])


def add_ratios(runs):
    """Fill ratio_native and ratio_twin of @runs."""
    base = {(run["load"], run["mode"], run["vcpus"]): run["value"] for run in runs}
    for run in runs:
        load = BY_NAME[run["load"]]
        for mode in ("native", "twin"):
            other = base.get((run["load"], mode, run["vcpus"]))
            run[f"ratio_{mode}"] = ratio(load, run["value"], other)


def merge(samples):
    """All entries of `runs` from all samples, in the order of loads and modes."""
    groups = {}
    for sample in samples:
        groups.setdefault((sample["vcpus"], sample["load"], sample["mode"]), []).append(sample)
    runs = []
    for vcpus in sorted({key[0] for key in groups}):
        for load in LOADS:
            runs += [merge_rounds(groups[vcpus, load.name, mode]) for mode in MODES
                     if (vcpus, load.name, mode) in groups]
    add_ratios(runs)
    return runs


def other_share(samples):
    """Share of the machine's CPU time which programs without a part in the benchmark took."""
    other = sum(sample.get("other_cpu_s", 0) for sample in samples)
    ours = sum(sample.get("client_cpu_s", 0) + sample.get("idle_cpu_s", 0)
               + sum(sum(names.values()) for names in sample.get("cpu_s", {}).values())
               for sample in samples)
    return round(other / (other + ours), 3) if other + ours else 0.0


def machine():
    """What the figures were taken on."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"cpus": os.cpu_count(), "cpu": model, "kernel": platform.release()}


def write(path, content):
    """Write @content as JSON, the old file kept until the new one is whole."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump(content, out, indent=1)
        out.write("\n")
    os.replace(path + ".new", path)
