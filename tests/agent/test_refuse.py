#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent refuses, and that the VM goes on as it was whenever it does.

usage: test_refuse.py AGENT.so GUEST-PROGRAM
"""
import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import kernel  # noqa: E402
import pair as pairs  # noqa: E402
import vm as qemu  # noqa: E402

DISK_MESSAGE = struct.Struct("=IiQ144s200s")
DISK_REQUEST = struct.Struct("=IIQII72s")
DISK_BOUNDARY = 3


def refused(status, words, ask, *args, **options):
    try:
        ask(*args, **options)
    except qemu.Failed as e:
        assert e.status == -status, f"status {e.status}, expected {-status}: {e.text}"
        assert words in e.text, f"'{words}' is not in '{e.text}'"
        return
    raise AssertionError(f"not refused: {words}")


def running(v):
    return v.qmp.ask("query-status")["status"] == "running"


def check_garbage(v):
    """Broken packets are answered with an error, and the next request works."""
    for junk in (b"", b"x", bytes(39), bytes(41), bytes(20000)):
        op, status, text, _ = v.agent.raw(junk)
        assert status == -errno.EPROTO and text, f"{len(junk)} bytes: {status} {text}"
    for op in (0, 99, 0xffffffff):
        refused(errno.EBADRQC, "unknown request", v.agent.ask, op)
    before = len(os.listdir(f"/proc/{v.process.pid}/fd"))
    extra = [os.memfd_create("x") for _ in range(6)]
    op, status, text, _ = v.agent.raw(qemu.REQUEST.pack(99, 0, 0, bytes(16), 0), extra)
    assert status == -errno.EBADRQC
    for fd in extra:
        os.close(fd)
    after = len(os.listdir(f"/proc/{v.process.pid}/fd"))
    assert before == after, f"{after - before} descriptors leaked"


def check_order(v):
    """Requests out of order."""
    for op in (qemu.TRACK, qemu.VIEW, qemu.CHECKPOINT, qemu.APPLY, qemu.STOP):
        refused(errno.EINVAL, "SETUP first", v.agent.ask, op)
    refused(errno.EBADF, "two descriptors", v.agent.ask, qemu.SETUP)
    blocks, size = v.agent.setup()
    assert ("pc.ram", 128 << 20) in blocks and size > 128 << 20, blocks
    refused(errno.EBUSY, "is running", v.agent.ask, qemu.VIEW)
    refused(errno.EBUSY, "is running", v.agent.ask, qemu.SELFTEST)
    refused(errno.EINVAL, "before TRACK", v.agent.checkpoint, qemu.RUN)
    refused(errno.EINVAL, "before VIEW", v.agent.apply, qemu.LOAD)
    assert running(v)


def check_boundary(v, disks):
    """The disks' boundary: answered by all, refused by one, not answered by one."""
    def answer(epoch, status=0, text=b"", which=disks):
        for disk in which:
            disk.send(DISK_MESSAGE.pack(DISK_BOUNDARY, status, epoch, b"", text))

    v.agent.ask(qemu.TRACK)
    answer(4)  # late, of an epoch long gone
    answer(5)
    v.agent.checkpoint(qemu.RUN, epoch=5)
    for disk in disks:
        assert disk.recv(200) == DISK_REQUEST.pack(DISK_BOUNDARY, 1, 5, 0, 0, b"")
    for epoch, bad in enumerate(disks, 6):
        answer(epoch, which=[d for d in disks if d is not bad])
        answer(epoch, -errno.EIO, b"no link", which=[bad])
        refused(errno.EIO, "no link", v.agent.checkpoint, qemu.RUN, epoch=epoch)
        assert running(v), "the VM does not run after a failed checkpoint"
    for epoch, mute in enumerate(disks, 10):
        answer(epoch, which=[d for d in disks if d is not mute])
        began = time.monotonic()
        refused(errno.ETIMEDOUT, "200 ms", v.agent.checkpoint, qemu.RUN, epoch=epoch)
        assert time.monotonic() - began > 0.19 and running(v)
    answer(20)
    v.agent.checkpoint(qemu.RUN, epoch=20)
    v.nic.frames()


def check_stop(v):
    """STOP and CONT, twice each; a checkpoint of a stopped VM leaves it stopped unless asked."""
    for _ in range(2):
        v.agent.ask(qemu.STOP)
    assert not running(v)
    for _ in range(2):
        v.agent.ask(qemu.CONT)
    assert running(v)


def check_daemon_death(v):
    """The daemon's end closes: the VM goes on."""
    before = v.counted()
    v.agent.sock.close()
    deadline = time.monotonic() + 20
    while v.counted() < before + 3:
        assert v.process.poll() is None, "QEMU ended with the daemon"
        assert time.monotonic() < deadline, "the VM does not go on without the daemon"
        time.sleep(0.05)
    assert running(v)


def check_foreign_program(agent_so, where):
    """A program that is called qemu and is none: refused by the symbol it lacks."""
    fake = where + "/qemu-fake"
    shutil.copy(shutil.which("sleep"), fake)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen([fake, "20"], pass_fds=[theirs.fileno()],
                          env=dict(os.environ, LD_PRELOAD=agent_so,
                                   COLO_AGENT=f"fd={theirs.fileno()}")) as child:
        try:
            theirs.close()
            agent = qemu.Agent(ours)
            refused(errno.ENOSYS, "does not export qemu_get_aio_context", agent.hello)
            refused(errno.ENOSYS, "no way to drive", agent.ask, qemu.SETUP)
        finally:
            child.kill()


def check_bad_arguments(agent_so):
    """Arguments that make no sense end QEMU with a message."""
    for args in ("fd=x", "fd=99", "nonsense=1", "fd=0,nic=77:77:77", "fd=0,nic=-2:0:0", "fd=0,nic=0:0",
                 "fd=0" + 9 * ",nic=0:0:0", "fd=0,ram=x", "fd=0,ram=77", "fd=0,diskfd=x", "fd=0,diskfd=77", "fd=0" + 9 * ",diskfd=0"):
        r = subprocess.run([os.environ.get("QEMU", "qemu-system-x86_64"), "-nodefaults", "-display",
                            "none", "-plugin", f"{agent_so},{args}"], timeout=20,
                           capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert r.returncode and "colo-agent:" in r.stderr, f"{args}: {r.returncode} {r.stderr}"


def check_selftest(agent_so, where, machine):
    """A VM that never ran comes back from its own state."""
    v = qemu.VM("self", where, agent_so, machine=machine, mem=64, extra=["-S"])
    try:
        proto, version, driver = v.agent.hello()
        assert proto == 2 and driver == "direct" and version[0] >= 7, (proto, version, driver)
        v.agent.ask(qemu.SELFTEST)
        assert not running(v)
        refused(errno.ENOSYS, "APPLY loads by itself", v.agent.loaded, 0, bytes(16))
    finally:
        v.kill()


def ram_file(size):
    fd = os.memfd_create("guest-ram")
    os.ftruncate(fd, size)
    return fd


def check_standby(agent_so, where, machine):
    """Driver standby: its self-test, and what it leaves to the daemon."""
    v = qemu.VM("standby", where, agent_so, machine=machine, mem=64, extra=["-S"], ram=ram_file(64 << 20))
    try:
        assert v.agent.hello()[2] == "standby"
        v.agent.ask(qemu.SELFTEST)
        refused(errno.EINVAL, "LOADED before VIEW", v.agent.loaded, 0, bytes(16))
        assert v.agent.setup()[0] == [("ram", 64 << 20)]
        for op in (qemu.STOP, qemu.CONT):
            refused(errno.ENOSYS, "over QMP", v.agent.ask, op)
        refused(errno.ENOSYS, "over QMP", v.agent.checkpoint, qemu.RUN)
        refused(errno.ENOSYS, "over QMP", v.agent.apply, qemu.STAGED | qemu.LOAD)
        refused(errno.EINVAL, "before VIEW", v.agent.apply, qemu.STAGED)
        v.agent.ask(qemu.PING)
        v.agent.ask(qemu.VIEW)
        refused(errno.EALREADY, "made already", v.agent.ask, qemu.VIEW)
    finally:
        v.end()


def check_ram_file(agent_so, where):
    """Files that cannot be guest RAM, and one that QEMU does not use."""
    for size, words in ((0, "has 0 bytes"), (4097, "has 4097 bytes")):
        fd = ram_file(size)
        v = qemu.VM("odd", where, agent_so, mem=64, extra=["-S"], agent_args=f",ram={fd}", fds=[fd])
        try:
            refused(errno.ENOSYS, words, v.agent.hello)
        finally:
            v.end()
    fd = ram_file(64 << 20)
    v = qemu.VM("other", where, agent_so, mem=64, extra=["-S"], agent_args=f",ram={fd}", fds=[fd])
    try:
        v.agent.hello()
        refused(errno.ESTALE, "does not have its RAM in the file", v.agent.setup)
        refused(errno.ESTALE, "does not have its RAM in the file", v.agent.ask, qemu.SELFTEST)
    finally:
        v.end()


def check_preload(agent_so, where):
    """The same without -plugin."""
    v = qemu.VM("preload", where, agent_so, mem=64, load="preload", extra=["-S"])
    try:
        v.agent.hello()
        v.agent.setup()
        v.agent.ask(qemu.SELFTEST)
    finally:
        v.kill()


def check_guest(agent_so, work, where):
    disks, theirs = zip(*(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)))
    with pairs.Pair(agent_so, work, mem=128, append="dirty_mib=8", disk_fds=[s.fileno() for s in theirs]) as p:
        p.boot()
        v = p.pvm
        check_garbage(v)
        check_order(v)
        check_boundary(v, disks)
        check_stop(v)
        check_daemon_death(v)


def main():
    agent_so, work = os.path.abspath(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory(prefix="colo-agent-") as where:
        check_bad_arguments(agent_so)
        check_foreign_program(agent_so, where)
        for machine in ("pc", "q35"):
            check_selftest(agent_so, where, machine)
            check_standby(agent_so, where, machine)
        check_ram_file(agent_so, where)
        check_preload(agent_so, where)
        check_guest(agent_so, work, where)


try:
    main()
except kernel.Missing as e:
    print("skipped:", e)
    sys.exit(77)
except qemu.Failed as e:
    if e.status in (-errno.EOPNOTSUPP, -errno.EPERM):
        print("skipped:", e)
        sys.exit(77)
    raise
