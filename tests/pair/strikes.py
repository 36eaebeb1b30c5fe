# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to make one process, or one thread, of a pair fail: each returns what undoes it, or None."""
import ctypes
import os
import resource
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import fds # pylint: disable=wrong-import-position

QMP_FD, AGENT_FD = 3, 4         # of QEMU, daemon/vm.c
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000               # waitpid(2): also for threads
SYS_RECVMSG = "47"


def cgroup_root():
    """Where cgroup v2 is mounted."""
    with open("/proc/mounts", encoding="utf-8") as mounts:
        return next(line.split()[1] for line in mounts if line.split()[2] == "cgroup2")


def send_signal(what, signum):
    def strike(pair, host):
        os.kill(pair.pids_of(host)[what], signum)
    return strike


def freeze(what):
    """The process does nothing, and does not look stopped: as one that waits for hardware."""
    def strike(pair, host):
        pid = pair.pids_of(host)[what]
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as f:
            own = next(line.split(":", 2)[2].strip() for line in f if line.startswith("0:"))
        path = os.path.join(pair.cgroup_root, own.lstrip("/"), f"frozen-{pid}")
        os.mkdir(path)
        for name, value in (("cgroup.procs", pid), ("cgroup.freeze", 1)):
            with open(os.path.join(path, name), "w", encoding="ascii") as f:
                f.write(str(value))
        return lambda: pair.wait("the end of what was frozen", lambda: _remove(path), 10)
    return strike


def _remove(path):
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def _ptrace(request, tid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(tid), ctypes.c_void_p(0), ctypes.c_void_p(0)) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace of {tid}")


def _collect(tid):
    """Wait for the end of a thread that is held: until then its process cannot be collected by its parent."""
    try:
        while not os.WIFSIGNALED(os.waitpid(tid, WALL)[1]):
            pass
    except ChildProcessError:
        pass


def hold_agent(pair, host):
    """The agent's thread, which waits for requests, hangs; QEMU does not."""
    pid = pair.pids_of(host)["vm"]
    tid = pair.wait("the agent to wait", lambda: next((int(t) for t in os.listdir(f"/proc/{pid}/task")
                                                       if _waits_for_requests(pid, t)), None), 5)
    _ptrace(PTRACE_SEIZE, tid)
    _ptrace(PTRACE_INTERRUPT, tid)
    collector = threading.Thread(target=_collect, args=(tid,), daemon=True)
    collector.start()
    return lambda: collector.join(10)


def _waits_for_requests(pid, tid):
    """Is the thread in recvmsg(2) of the agent's socket?"""
    with open(f"/proc/{pid}/task/{tid}/syscall", encoding="ascii") as f:
        words = f.read().split()
    return len(words) > 1 and words[0] == SYS_RECVMSG and int(words[1], 16) == AGENT_FD


def _socket_of(pair, host, fd):
    return socket.socket(fileno=fds.take(pair.pids_of(host)["vm"], fd))


def cut_agent(pair, host):
    """The agent's socket closes while QEMU lives."""
    with _socket_of(pair, host, AGENT_FD) as agent:
        agent.shutdown(socket.SHUT_RDWR)


def cut_monitor(pair, host):
    """QMP closes while QEMU lives."""
    with _socket_of(pair, host, QMP_FD) as monitor:
        monitor.shutdown(socket.SHUT_RDWR)


def _other_end(pair, host, pid, fd):
    """The number of the socket that is connected with descriptor @fd of process @pid."""
    sockets = pair.lab("exec", host, "--", "ss", "-xpH")
    line = next(line for line in sockets.splitlines() if f"pid={pid},fd={fd})" in line)
    return line.split()[7]


def mute_monitor(pair, host):
    """QMP gets the beginning of an object that does not end: what follows is never answered."""
    pids = pair.pids_of(host)
    link = f"socket:[{_other_end(pair, host, pids['vm'], QMP_FD)}]"
    for fd in os.listdir(f"/proc/{pids['daemon']}/fd"):
        if os.readlink(f"/proc/{pids['daemon']}/fd/{fd}") == link:
            with socket.socket(fileno=fds.take(pids["daemon"], int(fd))) as ours:
                ours.sendall(b'{"execute": ')
            return
    raise AssertionError("the daemon has no monitor")


def no_memory(what):
    """The process gets no more memory."""
    def strike(pair, host):
        pid = pair.pids_of(host)[what]
        with open(f"/proc/{pid}/statm", encoding="ascii") as f:
            size = int(f.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        old = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (size, old[1]))

        def undo():
            try:
                resource.prlimit(pid, resource.RLIMIT_AS, old)
            except ProcessLookupError:
                pass
        return undo
    return strike
