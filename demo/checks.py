# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest says of itself after the failure: its kernel log, and its file system when stopped.

Needs the lab's own guest (its ssh key). Each check yields one line for the summary; what it finds
wrong is a problem of the run.
"""
import os
import re
import shutil
import subprocess
import time

from labctl import LabError

SSH_TIMEOUT = 40
OFF_TIMEOUT = 40
FSCK_TIMEOUT = 60
BAD_KERNEL = re.compile(
    r"\bBUG: |\bOops\b|general protection|Call Trace|I/O error|EXT4-fs (error|warning)|Buffer I/O|corrupt|"
    r"soft lockup|hung_task|blocked for more than|segfault|bad checksum|checksum (error|invalid)|"
    r"Kernel panic|Remounting filesystem read-only", re.I)


def guest_run(lab, command, timeout=SSH_TIMEOUT):
    """Run @command in the guest by ssh, return its output."""
    return lab.call("ssh", command, timeout=timeout)


def kernel_log_bad(text):
    """Lines of a kernel log which should not be there."""
    return [line for line in text.splitlines() if BAD_KERNEL.search(line)]


def kernel_log_check(lab):
    """(line for the summary, problems) of the guest's kernel log."""
    try:
        bad = kernel_log_bad(guest_run(lab, "dmesg"))
    except LabError as err:
        return "could not be read", [f"the guest's kernel log: {err}"]
    if bad:
        return f"{len(bad)} bad lines", [f"guest's kernel log: {'; '.join(bad[:3])}"]
    return "clean", []


def power_off(lab, host):
    """Shut the guest down from inside and wait until nothing runs it on @host any more."""
    try:
        guest_run(lab, "systemctl poweroff --no-block")
    except LabError:
        pass    # the connection may end with the guest
    deadline = time.monotonic() + OFF_TIMEOUT
    while time.monotonic() < deadline:
        if not lab.runs_vm(host):
            return
        time.sleep(0.3)
    raise LabError(f"the guest had not shut down after {OFF_TIMEOUT} s")


def file_system_check(lab, host):
    """(line for the summary, problems) of the file system on the disk of @host, guest shut down."""
    try:
        power_off(lab, host)
    except LabError as err:
        return "not checked", [str(err)]
    tool = shutil.which("e2fsck", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not tool:
        return "not checked", ["e2fsck is missing"]
    done = subprocess.run([tool, "-f", "-n", lab.disk(host)], capture_output=True, text=True,
                          timeout=FSCK_TIMEOUT, check=False)
    if done.returncode:
        return "errors", [f"e2fsck: {done.stdout.strip()[-600:]}"]
    return "clean", []


def guest_check(lab, host):
    """Results by name, and all problems."""
    results, problems = {}, []
    for name, check in (("guest's kernel log", kernel_log_check(lab)),
                        ("file system after shutdown", file_system_check(lab, host))):
        results[name] = check[0]
        problems += check[1]
    return results, problems
