# SPDX-License-Identifier: GPL-2.0-or-later
"""
Who decides on host `arbiter` which of a and b may serve alone: a witness, an etcd of three members, a shared directory.

All of them survive `kill a|b` and end with `down`. `cut arbiter` takes the arbiter away from both hosts: its port of
the switch, or the directory.
"""
import os
import secrets
import shutil
import subprocess
import time

from . import net, proc
from .errors import LabError

KINDS = ("witness", "etcd", "file", "none")
WITNESS_PORT = 7440
ETCD_MEMBERS = [(2379, 2380), (2479, 2480), (2579, 2580)]   # ports for clients and for each other
START_TIMEOUT = 30


def check(kind):
    """Say what is missing before anything is made."""
    if kind == "etcd" and not shutil.which("etcd"):
        raise LabError("missing: etcd (lab/install-deps installs it)")


def _home(lab):
    return os.path.join(lab.disk_dir, "arbiter")


def _log(lab, name):
    return os.path.join(lab.run_dir, name)


def _shared(lab):
    return os.path.join(_home(lab), "shared")


def _keys(lab):
    return os.path.join(lab.run_dir, "witness-keys")


def _make_key(lab):
    """The witness asks for a key of the VM's name."""
    os.makedirs(_keys(lab), mode=0o700)
    path = os.path.join(_keys(lab), "keys.psk")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
        file.write(f"{lab.name}:{secrets.token_hex(32)}\n")


def _run(lab, name, command):
    process = proc.start(lab, "arbiter", command, _log(lab, name + ".log"))
    lab.data.setdefault("arbiter_main", {})[name] = proc.record(process)


def _start_witness(lab, new=False):
    command = [lab.data["colo"], "witness", "--listen", f"{lab.data['addresses']['arbiter']}:{WITNESS_PORT}", "--state",
               os.path.join(_home(lab), "witness"), "--tls", "psk", "--tls-dir", _keys(lab)]
    _run(lab, "witness", command + (["--new"] if new else []))


def _urls(lab):
    return [f"http://{lab.data['addresses']['arbiter']}:{client}" for client, _ in ETCD_MEMBERS]


def _start_etcd(lab, members):
    cluster = ",".join(f"m{i}=http://127.0.0.1:{peer}" for i, (_, peer) in enumerate(ETCD_MEMBERS))
    for i in members:
        peer = ETCD_MEMBERS[i][1]
        url, own = _urls(lab)[i], f"http://127.0.0.1:{peer}"
        _run(lab, f"etcd{i}", ["etcd", "--name", f"m{i}", "--data-dir", os.path.join(_home(lab), f"etcd{i}"),
                               "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", own,
                               "--initial-advertise-peer-urls", own, "--initial-cluster", cluster])


def _answers(lab, kind):
    """Does it take connections (the witness), has it a leader (etcd)?"""
    if kind == "witness":
        words = ["bash", "-c", f": >/dev/tcp/{lab.data['addresses']['arbiter']}/{WITNESS_PORT}"]
    else:
        words = ["curl", "-sf", "--noproxy", "*", "-m", "2", _urls(lab)[0] + "/health"]
    done = subprocess.run(proc.command_in(lab, "arbiter", words), capture_output=True, text=True, check=False)
    return done.returncode == 0 and (kind == "witness" or '"true"' in done.stdout)


def _wait(lab, kind):
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(lab, kind):
        for name, recorded in lab.data["arbiter_main"].items():
            if not proc.alive(recorded):
                raise LabError(f"{name} ended: {proc.tail(_log(lab, name + '.log'), 5)}")
        if time.monotonic() > deadline:
            raise LabError(f"the arbiter {kind} does not answer within {START_TIMEOUT} s")
        time.sleep(0.05)


def start(lab, kind, colo):
    """Start what answers, and wait until it does. @colo: the program."""
    lab.data["arbiter"], lab.data["colo"] = kind, colo
    os.makedirs(_home(lab), exist_ok=True)
    if kind == "witness":
        _make_key(lab)
        _start_witness(lab, True)
    elif kind == "etcd":
        _start_etcd(lab, range(len(ETCD_MEMBERS)))
    elif kind == "file":
        os.makedirs(_shared(lab))
    lab.save()
    if kind in ("witness", "etcd"):
        _wait(lab, kind)


def restart(lab):
    """Start again what was killed, with what it had stored, and wait until it answers."""
    kind = lab.data.get("arbiter", "none")
    gone = [name for name, recorded in lab.data.get("arbiter_main", {}).items() if not proc.alive(recorded)]
    if kind == "witness" and gone:
        _start_witness(lab)
    elif kind == "etcd":
        _start_etcd(lab, [int(name.removeprefix("etcd")) for name in gone])
    lab.save()
    if gone:
        _wait(lab, kind)


def section(lab):
    """[arbiter] of the daemons' configuration file."""
    kind = lab.data.get("arbiter", "none")
    if kind == "witness":
        return {"type": kind, "address": f"{lab.data['addresses']['arbiter']}:{WITNESS_PORT}", "tls": "psk",
                "tls-dir": _keys(lab)}
    if kind == "etcd":
        return {"type": kind, "address": ",".join(_urls(lab)), "tls": "off"}
    return {"type": kind, "directory": _shared(lab)} if kind == "file" else {"type": "none"}


def set_link(lab, up):
    """Away from both hosts, or back."""
    net.set_link(lab, "arbiter", up)
    if lab.data.get("arbiter") == "file":
        paths = (_shared(lab) + ".away", _shared(lab))
        source, target = paths if up else paths[::-1]
        if os.path.exists(source):
            os.rename(source, target)
