# SPDX-License-Identifier: GPL-2.0-or-later
"""
Processes of the hosts of a lab.

Every process of a host carries a mark in its environment (COLO_LAB_HOST=NAME/HOST), which its
children inherit, and is in the host's cgroup where cgroup v2 can be had. Power loss is the cgroup's
`cgroup.kill`, which strikes all of them at once; the mark then finds what was not in the cgroup.
"""
import os
import signal
import subprocess
import time

from .errors import LabError

MARK = "COLO_LAB_HOST"
FAILPOINT = "COLO_FAILPOINT"
KILL_TIMEOUT = 10


def cgroup_root():
    """Where cgroup v2 is mounted and can be written, or None."""
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, path, kind, *_ = line.split()
            if kind == "cgroup2" and os.access(path, os.W_OK):
                return path
    return None


def _cgroup(lab, host):
    root = cgroup_root()
    return os.path.join(root, "colo-lab", lab.name, host) if root else None


def make_cgroups(lab, hosts):
    """One cgroup per host; without cgroup v2 the marks must do."""
    for host in hosts:
        path = _cgroup(lab, host)
        try:
            if path:
                os.makedirs(path, exist_ok=True)
        except OSError:
            return


def remove_cgroups(lab, hosts):
    """Remove the cgroups of a lab whose processes have gone."""
    paths = [_cgroup(lab, host) for host in hosts]
    if not paths or not paths[0]:
        return
    parent = os.path.dirname(paths[0])
    for path in [*paths, parent, os.path.dirname(parent)]:
        try:
            os.rmdir(path)
        except OSError:
            pass    # not there, or another lab lives there


def _populated(path):
    """Is anything of a cgroup still dying? (A dead leader's threads are, and hold its files.)"""
    try:
        with open(os.path.join(path or "", "cgroup.events"), encoding="ascii") as file:
            return "populated 1" in file.read()
    except OSError:
        return False


def cpus_of(lab, host, every):
    """The CPUs of @host out of @every: two hosts that run a guest each share none, if that leaves each guest one
    for every virtual CPU. (Else the kernel tends to run both guests on one CPU, one after the other.)"""
    every = sorted(every)
    half = {"a": every[::2], "b": every[1::2]}.get(host)
    if not half or lab.data.get("share_cpus", True) or len(half) < lab.data["vm"]["vcpus"]:
        return set(every)
    return set(half)


def enter(lab, host):
    """Make this process one of @host's; called between fork and exec, or before exec."""
    path = _cgroup(lab, host)
    try:
        if path:
            with open(os.path.join(path, "cgroup.procs"), "w", encoding="ascii") as file:
                file.write("0")
    except OSError:
        pass    # the mark must do
    os.sched_setaffinity(0, cpus_of(lab, host, os.sched_getaffinity(0)))
    os.environ[MARK] = f"{lab.name}/{host}"


def command_in(lab, host, command):
    """The command line that runs @command in the network of @host, with the same pid."""
    return ["ip", "netns", "exec", lab.namespace(host), *command]


def failpoint_file(lab, host):
    """The file that arms a step of @host's processes (common/failpoint.h)."""
    return os.path.join(lab.run_dir, host, "failpoint")


def start(lab, host, command, log, stdin=subprocess.DEVNULL):
    """Start a process of @host in a session of its own, all output to the file @log."""
    environment = dict(os.environ, **{MARK: f"{lab.name}/{host}", FAILPOINT: failpoint_file(lab, host)})
    with open(log, "ab") as out:
        return subprocess.Popen(command_in(lab, host, command), stdin=stdin, stdout=out,
                                stderr=out, start_new_session=True, env=environment, cwd="/",
                                preexec_fn=lambda: enter(lab, host))


def start_time(pid):
    """Clock ticks after boot at which @pid began: with the pid, the name of a process for good."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_stopped(pid):
    """Does it stand still, by SIGSTOP?"""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def record(process):
    """What the state file keeps of a process."""
    return {"pid": process.pid, "start": start_time(process.pid)}


def alive(recorded):
    """Does the process that record() described still run?"""
    return bool(recorded) and start_time(recorded["pid"]) == recorded["start"] is not None


def _marked(lab, host):
    want = f"{MARK}={lab.name}/{host}".encode()
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if want in file.read().split(b"\0"):
                    found.append(int(entry))
        except OSError:
            continue
    return found


def pids_of(lab, host):
    """All processes of a host, this one left out."""
    pids = set(_marked(lab, host))
    try:
        with open(os.path.join(_cgroup(lab, host) or "", "cgroup.procs"), encoding="ascii") as file:
            pids.update(map(int, file.read().split()))
    except OSError:
        pass
    return sorted(pid for pid in pids if pid != os.getpid() and start_time(pid) is not None)


def program_of(pid):
    """Base name of the program that a process runs, "" when it cannot be told."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except OSError:
        return ""


def kill_pid(pid, still_meant):
    """SIGKILL a process if still_meant(pid) holds once its pid can no longer be reused."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not still_meant(pid):
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def children_of(pid):
    """Children of a process that has one thread."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def kill_all(lab, host):
    """SIGKILL all that a host runs, at once, and wait until it is gone."""
    path = _cgroup(lab, host)
    try:
        with open(os.path.join(path or "", "cgroup.kill"), "w", encoding="ascii") as file:
            file.write("1")
    except OSError:
        pass
    deadline = time.monotonic() + KILL_TIMEOUT
    while (pids := pids_of(lab, host)) or _populated(path):
        for pid in pids:
            kill_pid(pid, lambda pid: pid in pids_of(lab, host))
        if time.monotonic() > deadline:
            raise LabError(f"host {host}: processes {pids} survive SIGKILL")
        time.sleep(0.01)


def tail(path, lines=20):
    """The last lines of a log, "" when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:]).rstrip()
    except OSError:
        return ""
