# SPDX-License-Identifier: GPL-2.0-or-later
"""Modes colo and checkpoint: the configuration file, and a daemon on each of the two hosts."""
import json
import os
import subprocess
import time

from . import arbiter, guest, keys, net, proc
from .errors import LabError

STATUS_TIMEOUT = 3


def binary():
    """The colo program: $COLO_BIN, or the build of this checkout."""
    path = os.environ.get("COLO_BIN") or os.path.join(guest.ROOT, "build", "colo")
    if not os.access(path, os.X_OK):
        raise LabError(f"{path} is not there: run `make` first (or set COLO_BIN)")
    return path


def power_shim():
    """What makes disks forget (tests/disk/power.h): $COLO_POWER_SHIM, or the build of this checkout."""
    path = os.environ.get("COLO_POWER_SHIM") or os.path.join(guest.ROOT, "build", "tests", "disk", "power_shim.so")
    if not os.access(path, os.R_OK):
        raise LabError(f"{path} is not there: run `make` first (or set COLO_POWER_SHIM)")
    return path


def _volatile_nbdkit(lab):
    """A program in nbdkit's place which keeps what is not flushed of a host's disks in memory only."""
    path = os.path.join(lab.run_dir, "nbdkit-volatile")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\nexport COLO_POWER_DIR={lab.disk_dir}/${{{proc.MARK}##*/}}\n"
                   f"export LD_PRELOAD={power_shim()}\nexec nbdkit \"$@\"\n")
    os.chmod(path, 0o755)
    return path


def _sections(lab, mode, interval):
    vm, image = lab.data["vm"], lab.data["image"]
    machine = {"name": lab.name, "memory": vm["mem"], "vcpus": str(vm["vcpus"]),
               "machine": vm["machine"], "accel": "tcg", "mac": vm["macs"][0], "qemu": vm["qemu"], "primary": "a"}
    machine.update({key: image[key] for key in ("kernel", "initrd", "append") if image[key]})
    protection = {"mode": mode}
    if mode == "checkpoint":
        protection["interval"] = f"{interval}ms"
    sections = {"vm": machine, "net": {"bridge": "br0"}, "protection": protection,
                "peer": {"heartbeat": "100ms", "misses": "5"}, "arbiter": arbiter.section(lab)}
    for host, address in net.REPLICATION.items():
        sections[f"host {host}"] = {"address": address, "disk": lab.disk(host),
                                    "state": os.path.join(lab.run_dir, host),
                                    "data": os.path.join(os.path.dirname(lab.disk(host)), "data")}
    sections["tls"] = keys.make(os.path.join(lab.run_dir, "tls"), lab.data.get("tls", "psk"), list(net.REPLICATION))
    if lab.data.get("volatile_disks"):
        machine["nbdkit"] = _volatile_nbdkit(lab)
    return sections


def _override(sections, settings):
    for setting in settings:
        where, equals, value = setting.partition("=")
        section, dot, key = where.rpartition(".")
        if not (equals and dot and section and key) or "\n" in setting:
            raise LabError(f"--set {setting}: not of the form section.key=value")
        sections.setdefault(section.strip(), {})[key.strip()] = value.strip()


def config_path(lab):
    """One file for both hosts."""
    return os.path.join(lab.run_dir, "colo.conf")


def write_config(lab, mode, interval, overrides):
    """Write the daemons' configuration file."""
    sections = _sections(lab, mode, interval)
    _override(sections, overrides)
    with open(config_path(lab), "w", encoding="utf-8") as file:
        for name, settings in sections.items():
            file.write(f"[{name}]\n")
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())
            file.write("\n")


def log_path(lab, host):
    """Where a daemon's log goes."""
    return lab.host_file(host, "colo.log")


def start_daemon(lab, host):
    """Start the daemon of @host, with what $COLO_RUN_OPTIONS says besides."""
    more = os.environ.get("COLO_RUN_OPTIONS", "").split()
    command = [binary(), "run", *more, "--node", host, config_path(lab)]
    return proc.start(lab, host, command, log_path(lab, host))


def daemon_pid(lab, host):
    """The daemon's process: the child of `colo run` that is that program, too. None while there is none."""
    supervisor = lab.data["main"].get(host)
    if not proc.alive(supervisor):
        return None
    program = proc.program_of(supervisor["pid"])
    children = proc.children_of(supervisor["pid"])
    return next((pid for pid in children if proc.program_of(pid) == program), None)


def _ask(lab, host):
    command = [binary(), "status", "--json", "--node", host, config_path(lab)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _answer(process, deadline):
    try:
        out, _ = process.communicate(timeout=max(0, deadline - time.monotonic()))
        return json.loads(out) if process.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        process.kill()
        process.communicate()
        return None


def status(lab):
    """{host: the daemon's own status as a dict, None when it does not answer}, all asked at once."""
    deadline = time.monotonic() + STATUS_TIMEOUT
    asked = {host: _ask(lab, host) for host in net.REPLICATION}
    return {host: _answer(process, deadline) for host, process in asked.items()}
