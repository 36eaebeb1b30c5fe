# SPDX-License-Identifier: GPL-2.0-or-later
"""pgbench: the command, its report, its transaction log and the sums TPC-B must keep."""
import glob
import os
import re
import shutil

HISTORY = "SELECT count(*) FROM pgbench_history"
SUMS = ("SELECT (SELECT sum(abalance) FROM pgbench_accounts), "
        "(SELECT sum(bbalance) FROM pgbench_branches), "
        "(SELECT sum(tbalance) FROM pgbench_tellers), "
        "(SELECT coalesce(sum(delta), 0) FROM pgbench_history), "
        "(SELECT count(*) FROM pgbench_history)")


def tool(name):
    """Path of a PostgreSQL program; Debian keeps pgbench beside the server, outside PATH."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else shutil.which(name) or name


def command(host, clients, seconds, select_only=False, log_prefix=None, progress=None):
    """Arguments for a run with one thread. -n: the tables are kept as they are."""
    args = [tool("pgbench"), "-n", "-h", host, "-p", "5432", "-U", "postgres",
            "-c", str(clients), "-j", "1", "-T", str(seconds)]
    if select_only:
        args.append("-S")
    if log_prefix:
        args += ["-l", "--log-prefix", log_prefix]
    if progress:
        args += ["-P", str(progress)]
    return args + ["bench"]


def parse(out, err):
    """pgbench's report as a dictionary; ValueError when it is none."""
    rate = re.search(r"^tps = ([\d.]+) \(without", out, re.M)
    done = re.search(r"transactions actually processed: (\d+)", out)
    latency = re.search(r"latency average = ([\d.]+) ms", out)
    failed = re.search(r"number of failed transactions: (\d+)", out)
    aborted = len(re.findall(r"client \d+ aborted", err))
    if not done:
        raise ValueError(f"no report of pgbench: {(err or out).strip()[-300:]!r}")
    return {"rate": float(rate[1]) if rate else 0.0, "requests": int(done[1]), "aborted": aborted,
            "failed": int(failed[1]) if failed else 0,
            "avg_ms": float(latency[1]) if latency else None}


def log_read(prefix):
    """End times of the transactions in a log, per client: {client: [seconds]}."""
    ends = {}
    for path in glob.glob(glob.escape(prefix) + ".*"):
        with open(path, encoding="ascii") as log:
            for line in log:
                part = line.split()
                if len(part) >= 6:
                    ends.setdefault(part[0], []).append(int(part[4]) + int(part[5]) / 1e6)
        os.unlink(path)
    return ends


def fill(account, report):
    """Enter a report into @account. Gaps are not in it: pgbench only knows whole transactions."""
    account.requests = report["requests"] + report["failed"] + report["aborted"]
    account.failures = report["failed"] + report["aborted"]
    account.broken = report["aborted"]
    account.extra["rate"] = report["rate"]
    if account.failures:
        account.note(f"pgbench: {report['failed']} failed, {report['aborted']} clients aborted")


def sums_check(row, acknowledged, before):
    """What is wrong with the sums of SUMS after a run; @before is the history's length before it."""
    accounts, branches, tellers, history, count = (int(value) for value in row)
    wrong = []
    if not accounts == branches == tellers == history:
        wrong.append(f"TPC-B sums differ: accounts {accounts}, branches {branches}, "
                     f"tellers {tellers}, history {history}")
    if count - before < acknowledged:
        wrong.append(f"{acknowledged - (count - before)} of {acknowledged} pgbench transactions "
                     "acknowledged are not in the history")
    return wrong
