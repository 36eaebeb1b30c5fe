# SPDX-License-Identifier: GPL-2.0-or-later
"""Judge a run: build/demo.json, and a summary for people.

A *problem* means that something was lost, broken or wrong, and the exit status says so. A *target* is
a time which was longer than this project promises; it changes the exit status with --strict only,
because a busy machine is no fault of what is shown.
"""

GAP_TARGET_MS = {"power": 1000, "daemon": 1000, "vm": 300}
FAILURE_WORDS = {"power": "the primary's host lost power", "vm": "the primary's QEMU was killed",
                 "daemon": "the primary's daemon was killed", "none": "nothing was made to fail"}


def workload_problems(workloads):
    """What the clients lost."""
    found = []
    for work in workloads:
        if work["failures"] or work["broken"]:
            found.append(f"{work['name']}: {work['failures']} of {work['requests']} requests failed, "
                         f"{work['broken']} connections broke ({'; '.join(work['notes'][:3])})")
        elif not work["requests"]:
            found.append(f"{work['name']}: not a single request was made")
    return found


def ledger_problems(ledger):
    """What the database lost."""
    found = []
    if ledger.get("error"):
        found.append(f"ledger: {ledger['error']}")
    if ledger["missing"]:
        found.append(f"ledger: {ledger['missing']} of {ledger['acknowledged']} acknowledged commits "
                     "are missing")
    if ledger.get("duplicates"):
        found.append(f"ledger: {ledger['duplicates']} tokens are there more than once")
    if not ledger["acknowledged"]:
        found.append("ledger: no commit was acknowledged at all")
    return found


def late_gaps(workloads, kill):
    """Open connections which were silent for longer than promised."""
    limit = GAP_TARGET_MS.get(kill)
    if limit is None:
        return []
    return [f"{work['name']}: silent for {work['max_gap_ms']:.0f} ms, {limit} ms are promised"
            for work in workloads if work["open_connection"] and work["max_gap_ms"] > limit]


def build(run):
    """The content of build/demo.json from what @run (demo/demo) has gathered."""
    workloads = [dict(work) for work in run.result["workloads"]]
    for work in workloads:
        at = work.pop("gap_at", None)
        work["max_gap_at_s"] = round(at - run.begin, 2) if at else None
    before = run.before or {}
    pause = before.get("pause_us") or {}
    failover = run.failover or {}
    problems = workload_problems(workloads) + ledger_problems(run.result["ledger"])
    return {"workloads": workloads, "ledger": run.result["ledger"],
            "checkpoints": before.get("checkpoints", {}).get("by_cause", {}),
            "pause_us": {"p50": pause.get("p50"), "p99": pause.get("p99")},
            "failover_ms": {"detect": failover.get("detect_ms"), "total": failover.get("total_ms")},
            "failovers": run.failovers, "returns": run.returns,
            "mode": run.mode, "kill": run.kill, "kill_at_s": run.kill_at,
            "checks": run.checks, "problems": problems + run.result["problems"] + run.problems,
            "late": late_gaps(workloads, run.kill)}


def _workload_table(report):
    lines = [f"{'workload':<22}{'requests':>10}{'failed':>8}{'broken':>8}{'longest gap':>14}"]
    for work in report["workloads"]:
        lines.append(f"{work['name']:<22}{work['requests']:>10}{work['failures']:>8}"
                     f"{work['broken']:>8}{work['max_gap_ms']:>11.0f} ms")
    return lines


def _times(report):
    lines = []
    causes = ", ".join(f"{cause} {count}" for cause, count in report["checkpoints"].items() if count)
    if causes:
        pause = report["pause_us"]
        pauses = [f"p{percent} {pause[f'p{percent}'] / 1000:.1f} ms" for percent in (50, 99)
                  if pause[f"p{percent}"] is not None]
        lines.append(f"checkpoints: {causes}; the guest paused {', '.join(pauses)}")
    for times in report["failovers"]:
        lines.append(f"take-over by host {times['serves']}: noticed after {times['detect_ms']:.0f} ms, complete after "
                     f"{times['total_ms']:.0f} ms")
    lines += [f"return of host {back['host']}: protected again after {back['protected_s']:.1f} s"
              for back in report["returns"]]
    lines += [f"{name}: {result}" for name, result in report["checks"].items()]
    return lines


def summary(report):
    """The report as lines for a person."""
    ledger = report["ledger"]
    lines = ["", *_workload_table(report), "",
             f"commits acknowledged {ledger['acknowledged']}, missing {ledger['missing']}",
             *_times(report), ""]
    lines += [f"too slow: {late}" for late in report["late"]]
    if report["problems"]:
        lines.append(f"FAILED: {FAILURE_WORDS[report['kill']]}, and this is not as it should be:")
        return lines + [f"  - {problem}" for problem in report["problems"]]
    if report["kill"] == "none":
        return lines + ["PASSED: nothing was made to fail, and nothing did."]
    words = FAILURE_WORDS[report["kill"]]
    if len(report["failovers"]) > 1:
        words += ", came back, and then the other host's was" if report["kill"] != "power" else \
            ", came back, and then the other host did"
    return lines + [f"PASSED: {words}; no request failed, no connection "
                    "broke, no acknowledged commit is missing."]
