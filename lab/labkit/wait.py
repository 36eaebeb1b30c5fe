# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting with deadlines: until the guests serve, until the pair is protected."""
import os
import subprocess
import sys
import time

from . import guest, proc, protect
from .errors import LabError

POLL = 0.2


def say(text):
    """Progress, to stderr: stdout is for answers."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def until(what, test, timeout):
    """Wait until test() is true."""
    deadline = time.monotonic() + timeout
    while not test():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not there within {timeout} s")
        time.sleep(POLL / 10)


def _log_of(lab, host):
    if lab.data["mode"] in ("colo", "checkpoint"):
        return protect.log_path(lab, host)
    return lab.host_file(host, "qemu.log")


def failure(lab, what, hosts):
    """An error with what the logs of the hosts say last."""
    text = what
    for host in hosts:
        for path in (_log_of(lab, host), lab.host_file(host, "qemu.log"),
                     lab.host_file(host, "console.log")):
            last = proc.tail(path, 12)
            if last and path not in text:
                text += f"\n--- {path}\n{last}"
    return LabError(text)


def _probe(lab, address, services, timeout):
    command = [sys.executable, "-m", "labkit.probe", address, str(timeout), *services]
    environment = dict(os.environ, PYTHONPATH=os.path.join(guest.ROOT, "lab"),
                       PYTHONDONTWRITEBYTECODE="1", COLO_LAB_HOST=f"{lab.name}/client")
    return subprocess.Popen(proc.command_in(lab, "client", command), stdout=sys.stderr,
                            env=environment)


def dead_host(lab):
    """The first host whose main process has ended, or None."""
    for host, recorded in lab.data["main"].items():
        if not proc.alive(recorded):
            return host
    return None


def serving(lab, timeout, addresses=None):
    """Wait until every guest serves."""
    addresses = addresses or lab.data["ips"]
    deadline = time.monotonic() + timeout
    probes = [_probe(lab, ip, lab.data["image"]["services"], timeout) for ip in addresses]
    try:
        while any(probe.poll() is None for probe in probes):
            dead = dead_host(lab)
            if dead:
                raise failure(lab, f"host {dead}: the VM has ended while it booted", [dead])
            if time.monotonic() > deadline + 5:
                break
            time.sleep(POLL)
    finally:
        for probe in probes:
            probe.kill()
    if any(probe.wait() for probe in probes):
        raise failure(lab, f"the guest does not serve within {timeout} s", list(lab.data["main"]))


def _describe(states):
    words = []
    for host, state in states.items():
        if not state:
            words.append(f"{host} does not answer")
            continue
        text = f"{host} {state.get('role')} {state.get('state')}"
        percent = state.get("seed_percent")
        if state.get("state") == "seeding" and percent is not None:
            text += f" {percent:.0f} %"
        words.append(text)
    return ", ".join(words)


def protected(lab, timeout):
    """Wait until both daemons say that the pair is protected."""
    deadline = time.monotonic() + timeout
    last = None
    while True:
        states = protect.status(lab)
        text = _describe(states)
        if text != last:
            say(text)
            last = text
        if all(state and state.get("state") == "protected" for state in states.values()):
            return
        dead = dead_host(lab)
        if dead:
            raise failure(lab, f"host {dead}: the daemon has ended", [dead])
        if time.monotonic() > deadline:
            raise failure(lab, f"not protected within {timeout} s: {text}", ["a", "b"])
        time.sleep(POLL)
