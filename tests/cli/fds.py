# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors of other processes: take one, leave a process none. Also used by tests/pair/test_local.py."""
import contextlib
import ctypes
import os
import resource

SYS_PIDFD_GETFD = 438


def take(pid, fd):
    """A duplicate of descriptor @fd of process @pid."""
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.syscall(SYS_PIDFD_GETFD, os.pidfd_open(pid), fd, 0)
    if got < 0:
        raise OSError(ctypes.get_errno(), f"pidfd_getfd of {pid}")
    return got


@contextlib.contextmanager
def shortage(pid):
    """Within, @pid gets no new descriptor beyond the gaps below its highest: yields how many these are."""
    used = sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
    old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used[-1] + 1, old[1]))
    try:
        yield used[-1] + 1 - len(used)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
