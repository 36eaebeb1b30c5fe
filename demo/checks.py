# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest says of itself after the failure: its kernel log, and its file system when stopped.

Needs the lab's own guest (its ssh key). Each check yields one line for the summary; what it finds
wrong is a problem of the run.
"""
import os
import re
import subprocess
import time

from labctl import LabError

SSH_TIMEOUT = 40
OFF_TIMEOUT = 40
FSCK_TIMEOUT = 60
BAD_KERNEL = re.compile(
    r"BUG|Oops|general protection|Call Trace|I/O error|EXT4-fs (error|warning)|Buffer I/O|corrupt|"
    r"soft lockup|hung_task|blocked for more than|segfault|checksum|Kernel panic|remounting", re.I)


def ssh_key(root):
    """Path of the guest's ssh key."""
    done = subprocess.run([os.path.join(root, "guest", "build"), "--path"], capture_output=True,
                          text=True, timeout=20, check=False)
    return os.path.join(done.stdout.strip(), "ssh_key")


def guest_run(lab, ip, root, command, timeout=SSH_TIMEOUT):
    """Run @command in the guest by ssh, return its output."""
    return lab.call("exec", "client", "--", "ssh", "-i", ssh_key(root), "-oBatchMode=yes",
                    "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null",
                    "-oLogLevel=ERROR", "-oConnectTimeout=15", f"root@{ip}", command,
                    timeout=timeout)


def kernel_log_bad(text):
    """Lines of a kernel log which should not be there."""
    return [line for line in text.splitlines() if BAD_KERNEL.search(line)]
