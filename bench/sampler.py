# SPDX-License-Identifier: GPL-2.0-or-later
"""CPU time and memory of what runs on a lab host, found by the network namespace it lives in."""
import os

from labctl import namespace_pids

TICKS = os.sysconf("SC_CLK_TCK")


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def machine_cpu():
    """CPU seconds of the whole machine since boot: (worked for programs, idle, stolen from it)."""
    fields = [int(field) for field in _read("/proc/stat").split("\n", 1)[0].split()[1:]]
    return sum(fields[:3]) / TICKS, (fields[3] + fields[4]) / TICKS, fields[7] / TICKS


def process_cpu(pid):
    """(name, CPU seconds) of a process, None when it has gone."""
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    name = text[text.index("(") + 1:text.rindex(")")]
    fields = text[text.rindex(")") + 2:].split()
    return name, (int(fields[11]) + int(fields[12])) / TICKS


def process_memory(pid):
    """Resident set (kB, shared parts in full) and proportional set (kB) of a process."""
    found = {}
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        key, _, value = line.partition(":")
        if key in ("Rss", "Pss"):
            found[key] = int(value.split()[0])
    return found.get("Rss", 0), found.get("Pss", 0)


def cpu_of(namespaces):
    """{host: {pid: (name, seconds)}} for {host: namespace}."""
    return {host: {pid: cpu for pid in namespace_pids(namespace) if (cpu := process_cpu(pid))}
            for host, namespace in namespaces.items()}


def cpu_between(before, after):
    """CPU seconds by host and program between two results of cpu_of()."""
    spent = {}
    for host, processes in after.items():
        for pid, (name, seconds) in processes.items():
            past = before.get(host, {}).get(pid, (name, 0.0))[1]
            by_name = spent.setdefault(host, {})
            by_name[name] = round(by_name.get(name, 0.0) + seconds - past, 2)
    return {host: {name: value for name, value in names.items() if value}
            for host, names in spent.items()}


class Meter:
    """What the hosts and the rest of the machine spend from now on."""

    def __init__(self, namespaces):
        self.namespaces = namespaces
        self.cpu = cpu_of(namespaces)
        self.machine = machine_cpu()

    def read(self, client_cpu_s):
        """CPU seconds: of the hosts, idle, stolen, of programs which have no part in this."""
        spent = cpu_between(self.cpu, cpu_of(self.namespaces))
        worked, idle, stolen = (round(now - then, 2)
                                for now, then in zip(machine_cpu(), self.machine))
        ours = client_cpu_s + sum(sum(names.values()) for names in spent.values())
        return {"cpu_s": spent, "idle_cpu_s": idle, "stolen_cpu_s": stolen,
                "other_cpu_s": round(max(0.0, worked - ours), 2)}


def memory_of(namespaces):
    """Memory by host and program: {host: {name: {rss_mb, pss_mb}}}."""
    used = {}
    for host, namespace in namespaces.items():
        by_name = used.setdefault(host, {})
        for pid in namespace_pids(namespace):
            cpu = process_cpu(pid)
            rss, pss = process_memory(pid)
            if not cpu or not rss:
                continue
            entry = by_name.setdefault(cpu[0], {"rss_mb": 0.0, "pss_mb": 0.0})
            entry["rss_mb"] = round(entry["rss_mb"] + rss / 1024, 1)
            entry["pss_mb"] = round(entry["pss_mb"] + pss / 1024, 1)
    return used
