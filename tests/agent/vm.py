# SPDX-License-Identifier: GPL-2.0-or-later
"""A stock QEMU with the agent in it, driven as the daemon drives it: inherited sockets only."""
import array
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import time

import tap

(HELLO, SETUP, SELFTEST, TRACK, CHECKPOINT, VIEW, APPLY, STOP, CONT, UNTRACK,
 SERVE, PING, LOADED) = range(1, 14)
RUN, LOAD, HASH, STAGED = 1, 2, 4, 8
PAGE = 4096
WAKE = 0.02  # seconds
ACCEL = os.environ.get("ACCEL", "tcg")
TRACK_BY = os.environ.get("TRACK")  # how the agent notices writes: async, sync, or as it thinks
SLOWER = int(os.environ.get("SLOWER", "1"))  # in a machine that is emulated: all time limits times this
REQUEST = struct.Struct("=IIQ16sq")
REPLY_HEAD = struct.Struct("=Ii256s")
REPLY_BODY = 4624
NICS = 8
MEM = 512  # MiB
PIPE = 1 << 20  # bytes: a usual device state fits
ETHERTYPE = b"\x88\xb5"
FRAME = struct.Struct("=6s6s2sQQQ22s")


class Failed(Exception):
    """The agent answered a request with an error."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


class Agent:
    """The daemon's end of the control socket."""

    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(30 * SLOWER)
        self.staging = self.state = None

    def raw(self, data, fds=()):
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], anc)
        return self.receive()

    def receive(self):
        """(op, status, error text, body)"""
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the agent is gone")
        op, status, error = REPLY_HEAD.unpack_from(data)
        return op, status, error.split(b"\0")[0].decode(), data[REPLY_HEAD.size:]

    def ask(self, op, flags=0, epoch=0, nonce=bytes(16), ran_at=0, fds=()):
        got, status, text, body = self.raw(REQUEST.pack(op, flags, epoch, nonce, ran_at), fds)
        assert got == op, f"reply to {got}, asked {op}"
        if status:
            raise Failed(status, text)
        return body

    def hello(self):
        op, status, text, body = self.receive()
        assert op == HELLO
        if status:
            raise Failed(status, text)
        proto, major, minor, micro, driver = struct.unpack_from("=Iiii16s", body)
        return proto, (major, minor, micro), driver.rstrip(b"\0").decode()

    def setup(self, staging=None):
        self.staging = os.memfd_create("staging") if staging is None else staging
        self.state = os.memfd_create("state")
        body = self.ask(SETUP, fds=(self.staging, self.state))
        n, = struct.unpack_from("=I", body)
        blocks = [struct.unpack_from("=64sQ", body, 8 + 72 * i) for i in range(n)]
        size, = struct.unpack_from("=Q", body, 8 + 72 * 64)
        return [(name.rstrip(b"\0").decode(), size_) for name, size_ in blocks], size

    def checkpoint(self, flags, nonce=bytes(16), epoch=0):
        names = ("pages", "device_bytes", "stop", "save", "scan", "copy", "cont", "pause", "ran_at",
                 "hash")
        body = self.ask(CHECKPOINT, flags, epoch, nonce)
        pages, size, *taken = struct.unpack_from(f"=QQ{NICS}Q", body)
        rest = struct.unpack_from("=qqqqqqqQ", body, 8 * (2 + NICS))
        return dict(zip(names, (pages, size, *rest)), taken=taken)

    def apply(self, flags, nonce=bytes(16), ran_at=0):
        return self._applied(self.ask(APPLY, flags, 0, nonce, ran_at))

    def loaded(self, flags, nonce):
        return self._applied(self.ask(LOADED, flags, 0, nonce))

    @staticmethod
    def _applied(body):
        names = ("dropped", "applied", "stop", "drop", "apply", "reset", "load", "cont", "total",
                 "hash")
        return dict(zip(names, struct.unpack_from("=QQqqqqqqqQ", body)))

    def put_state(self, state):
        """Into the device-state file."""
        os.ftruncate(self.state, 0)
        os.pwrite(self.state, state, 0)

    def close(self):
        self.sock.close()
        for fd in (self.staging, self.state):
            if fd is not None:
                os.close(fd)
        self.staging = self.state = None


class Qmp:
    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(30 * SLOWER)
        self.buffer = b""
        self.events = []
        self._line()
        self.ask("qmp_capabilities")

    def _line(self):
        while b"\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError("QMP closed")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def ask(self, command, fds=(), **arguments):
        msg = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([msg], anc)
        while True:
            reply = self._line()
            if "error" in reply:
                raise RuntimeError(f"{command}: {reply['error']}")
            if "return" in reply:
                return reply["return"]
            self.events.append(reply)

    def wait_event(self, name, **data):
        """The next event of that name and with that data."""
        while True:
            while self.events:
                e = self.events.pop(0)
                if e["event"] == name and data.items() <= e.get("data", {}).items():
                    return e
            self.events.append(self._line())

    def _pipe(self, mine, name):
        """A pipe, one end of which QEMU has under @name. Returns the other, which is end @mine of it."""
        ends = os.pipe()
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE)
        self.ask("getfd", fds=(ends[1 - mine],), fdname=name)
        os.close(ends[1 - mine])
        return ends[mine]

    def give_pipe(self):
        """For save(); apart, so that the VM need not be stopped for it."""
        return self._pipe(0, "save")

    def save(self, reader):
        """A migration of a VM that is stopped: what came out of the pipe. QEMU closes its end when all is
        done: the run state is settled then, as it is not when the event says that the migration is completed.
        QEMU 11.1 may leave that undone until it is asked something."""
        data, piece = b"", None
        try:
            self.ask("migrate", uri="fd:save")
            while piece != b"":
                if select.select([reader], [], [], WAKE)[0]:
                    piece = os.read(reader, PIPE)
                    data += piece
                else:
                    self.ask("query-status")
        finally:
            os.close(reader)
        got = self.ask("query-migrate")
        status = self.ask("query-status")["status"]
        if got.get("status") != "completed" or status != "postmigrate":
            raise RuntimeError(f"migration: {got}, then {status}")
        return data

    def load(self, data):
        """The other way, into a QEMU with `-incoming defer`; it is paused afterwards."""
        writer = self._pipe(1, "load")
        try:
            self.ask("migrate-incoming", uri="fd:load")
            while data:
                data = data[os.write(writer, data):]
        finally:
            os.close(writer)
        self.wait_event("MIGRATION", status="completed")
        status = self.ask("query-status")["status"]
        if status not in ("paused", "prelaunch"):
            raise RuntimeError(f"after an incoming migration the VM is {status}")

    def drain(self):
        """Read events away, as the daemon does; QEMU would keep them."""
        self.sock.setblocking(False)
        try:
            while self.sock.recv(65536):
                pass
        except BlockingIOError:
            pass
        self.sock.settimeout(30 * SLOWER)
        self.buffer = b""
        self.events = []


class Nic(tap.Nic):
    """The NIC of a guest that answers to frames of one kind."""

    def power_off(self):
        """Let the guest end itself."""
        ident = int.from_bytes(b"poweroff", "little")
        self.send(FRAME.pack(b"\xff" * 6, b"\x52" * 6, ETHERTYPE, ident, 0, 0, b""))

    def clocks(self, ident, timeout=2.0):
        """Ask the guest for its clocks: (host ns half way, guest ns, guest TSC, round trip ns)"""
        self.frames()
        t0 = time.monotonic_ns()
        self.send(FRAME.pack(b"\xff" * 6, b"\x52" * 6, ETHERTYPE, ident, 0, 0, b""))
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for f in self.frames():
                if len(f) >= FRAME.size and f[12:14] == ETHERTYPE:
                    _, _, _, got, clock, tsc, _ = FRAME.unpack_from(f)
                    if got == ident:
                        t1 = time.monotonic_ns()
                        return (t0 + t1) // 2, clock, tsc, t1 - t0
            select.select([self.sock], [], [], 0.05)
        return None


class VM:
    """One QEMU; `incoming` is the socket to be seeded from, or "defer". `ram` is the descriptor of the file
    that guest RAM is in, with driver standby."""

    def __init__(self, name, where, agent_so, machine="pc", mem=MEM, smp=1, kernel=None,
                 initrd=None, append="", incoming=None, load="plugin", disk_fds=(), extra=(),
                 ram=None, fds=(), agent_args=""):
        self.name, self.ram = name, ram
        self.log = f"{where}/{name}.serial"
        self.errors = f"{where}/{name}.stderr"
        control, control_q = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        qmp, qmp_q = socket.socketpair()
        self.nic = Nic()
        passed, args = self.nic.passed()
        args = f"fd={control_q.fileno()},{args}{agent_args}"
        passed += [control_q.fileno(), qmp_q.fileno()]
        args += "".join(f",diskfd={fd}" for fd in disk_fds)
        args += f",track={TRACK_BY}" if TRACK_BY else ""
        passed += [*disk_fds, *fds]
        if ram is not None:
            args += f",ram={ram}"
            passed.append(ram)
            machine += ",memory-backend=ram0"
            extra = ["-object", f"memory-backend-file,id=ram0,size={mem}M,mem-path=/proc/self/fd/{ram},share=on",
                     *extra]
        cmd = [os.environ.get("QEMU", "qemu-system-x86_64"), "-nodefaults", "-no-user-config",
               "-display", "none", "-no-shutdown", "-machine", machine, "-accel", ACCEL,
               "-cpu", "max", "-m", str(mem), "-smp", str(smp),
               "-global", "apic-common.vapic=off",
               "-chardev", f"socket,id=qmp,fd={qmp_q.fileno()}", "-mon", "chardev=qmp,mode=control",
               "-chardev", f"file,id=con,path={self.log},append=on", "-serial", "chardev:con",
               "-netdev", f"tap,id=n0,fd={self.nic.tap}",
               "-device", "virtio-net-pci,netdev=n0,mac=52:52:52:52:52:52,disable-modern=on"]
        if kernel:
            cmd += ["-kernel", kernel, "-initrd", initrd, "-append",
                    "console=ttyS0 quiet panic=1 net.ifnames=0 tsc=reliable " + append]
        if incoming == "defer":
            cmd += ["-incoming", "defer", "-S"]
        elif incoming is not None:
            cmd += ["-incoming", f"fd:{incoming.fileno()}", "-S"]
            passed.append(incoming.fileno())
        env = dict(os.environ)
        if load == "plugin":
            cmd += ["-plugin", f"{agent_so},{args}"]
        elif load == "preload":
            env.update(LD_PRELOAD=agent_so, COLO_AGENT=args)
        with open(self.errors, "a") as err:
            self.process = subprocess.Popen(cmd + list(extra), env=env, pass_fds=passed,
                                            stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        for s in (control_q, qmp_q):
            s.close()
        self.qmp = Qmp(qmp)
        self.agent = Agent(control)

    def console(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def wait_console(self, text, timeout=60):
        end = time.monotonic() + timeout * SLOWER
        while text not in self.console():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name}: QEMU ended: " + open(self.errors).read()[-500:])
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: no '{text}' on the console")
            time.sleep(0.05)

    def memory(self):
        """Bytes of guest RAM that there are: pages of images, and private ones."""
        pid, total, block = self.process.pid, 0, False
        if self.ram is not None:
            total = os.fstat(self.ram).st_blocks * 512
        for fd in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{fd}"
            # images are the memfds that are named as RAM blocks, and not colo's own
            if os.readlink(path).startswith(("/memfd:pc.", "/memfd:/rom", "/memfd:vga")):
                total += os.stat(path).st_blocks * 512
        with open(f"/proc/{pid}/smaps") as maps:
            for line in maps:
                if "-" in line.split()[0]:
                    block = "/memfd:pc." in line or "/memfd:guest-ram" in line
                elif block and line.startswith("Anonymous:"):
                    total += int(line.split()[1]) << 10
        return total

    def counted(self):
        """The last number the guest counted to, once a second."""
        lines = [l for l in self.console().splitlines() if l.startswith("count ")]
        return int(lines[-1].split()[1]) if lines else -1

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def end(self):
        """Kill, and close whatever belongs to this QEMU."""
        self.kill()
        self.nic.close()
        self.agent.close()
        self.qmp.sock.close()

    def ignore_ram(self, on):
        """Leave RAM out of migrations from and into this QEMU."""
        self.qmp.ask("migrate-set-capabilities", capabilities=[
            {"capability": name, "state": on} for name in ("x-ignore-shared", "events")])


def seed(pvm, svm_sock, timeout=60):
    """Live migration over an inherited socket; ends with both VMs stopped."""
    pvm.qmp.ask("migrate-set-parameters", **{"max-bandwidth": 4 << 30, "downtime-limit": 1000})
    pvm.qmp.ask("getfd", fds=(svm_sock.fileno(),), fdname="seed")
    pvm.qmp.ask("migrate", uri="fd:seed")
    end = time.monotonic() + timeout * SLOWER
    while True:
        status = pvm.qmp.ask("query-migrate").get("status")
        if status == "completed":
            return
        if status == "failed" or time.monotonic() > end:
            raise RuntimeError("seeding: " + str(status))
        time.sleep(0.02)


def wait_status(vm, wanted, timeout=10):
    end = time.monotonic() + timeout * SLOWER
    while (got := vm.qmp.ask("query-status")["status"]) not in wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"{vm.name}: still {got}")
        time.sleep(0.02)
