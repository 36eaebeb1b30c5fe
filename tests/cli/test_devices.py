#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines and devices with the real daemons: pairs with all that may be had, and what is refused before the start.

Usage: test_devices.py COLO [NAME...]   (NAME: a part of the names of the tests to run)
Needs root; runs in a network namespace of its own. The guest is a boot sector behind SeaBIOS, which uses screen and USB
keyboard; tests/agent/test_devices.py has one with drivers for all of them.
"""
import os
import socket
import subprocess
import sys

from colonode import Failure, World, run_tests, wait_for

ALL = {("vm", "virtio"): "modern", ("vm", "rng"): "yes", ("vm", "vga"): "std", ("vm", "tablet"): "yes",
       ("vm", "devices"): "usb-kbd usb-mouse, virtio-keyboard-pci,virtio-mouse-pci virtio-tablet-pci i6300esb",
       ("net 1", "mac"): "52:54:00:12:34:57"}


def screen(node):
    """VNC answers on the socket."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(os.path.join(node.state_dir, "vnc.sock"))
        if not s.recv(12).startswith(b"RFB "):
            raise Failure(f"no VNC on {node.node}")


def verified(a, n):
    """RAM is equal after @n checkpoints."""
    for i in range(1, n + 1):
        subprocess.run(a.command("checkpoint", "--verify"), check=True, timeout=10, stdout=subprocess.DEVNULL)
        found = wait_for(f"checkpoint {i}", lambda k=i: (lambda v: v if v["checked"] >= k else None)(a.status()["verified"]))
        if found["mismatched"]:
            raise Failure(f"RAM differs: {found}")


def pair(w, settings, shows=False):
    a = w.node("a", settings).start()
    a.wait_log("the guest runs")
    a.wait_state("alone")
    b = w.node("b", settings).start()
    a.wait_state("protected", 30)
    verified(a, 5)
    a.assert_guest_runs()
    if a.status()["qemu"]["driver"] != settings[("vm", "driver")]:
        raise Failure(f"{a.status()['qemu']}")
    if shows:
        screen(a)
        screen(b)


def test_pc(w):
    pair(w, {**ALL, ("vm", "driver"): "direct"}, True)


def test_pc_standby(w):
    pair(w, {**ALL, ("vm", "driver"): "standby"}, True)


def test_q35(w):
    pair(w, {**ALL, ("vm", "machine"): "q35", ("vm", "root-ports"): "yes", ("vm", "driver"): "direct"}, True)


def test_q35_standby(w):
    pair(w, {**ALL, ("vm", "machine"): "q35", ("vm", "root-ports"): "yes", ("vm", "driver"): "standby"}, True)


def test_older_machines(w):
    """Versions that QEMU has under older names."""
    for machine in "pc-i440fx-5.2", "pc-q35-6.0":
        pair(w, {("vm", "machine"): machine, ("vm", "driver"): "direct"})
        w.end()


def refused(w, settings, want):
    a = w.node("a", settings).start()
    if a.wait_end() != 1 or want not in a.log():
        raise Failure(f"exit status {a.process.returncode}, '{want}' is not in\n{a.log()}")
    r = subprocess.run(a.command("check"), capture_output=True, text=True, timeout=10, check=False)
    return r


def test_refused(w):
    for device in "virtio-balloon-pci", "virtio-mem-pci", "vfio-pci", "ivshmem-plain", "vhost-user-fs-pci", "nvdimm":
        r = refused(w, {("vm", "devices"): device}, f"[vm] devices: {device} cannot be protected: ")
        if r.returncode != 1 or f"{device} cannot be protected" not in r.stderr:
            raise Failure(f"colo check: {r}")
    refused(w, {("vm", "machine"): "microvm"}, "[vm] machine: microvm cannot be protected: it has no PCI bus")
    refused(w, {("vm", "machine"): "pc-i440fx-99.1"}, "did not start; see ")


if __name__ == "__main__":
    sys.exit(run_tests(globals(), World))
