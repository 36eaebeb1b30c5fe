#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Each device that may be configured comes back from checkpoints, while the guest's drivers work with all of them.

A framebuffer that is drawn to, a virtio-rng that is read, a watchdog that is fed, and input through each of a USB
tablet, keyboard, mouse and their virtio kin. RAM, the screen's with it, is equal after each checkpoint, and after each
failover all of them go on.

usage: test_devices.py AGENT.so GUEST-PROGRAM [MACHINE [DRIVER [CHECKPOINTS]]]
"""
import os
import random
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import initramfs  # noqa: E402
import kernel  # noqa: E402
import pair as pairs  # noqa: E402
import vm as qemu  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
VESA = "vga=0x314"  # 800x600, 16 bits: the kernel has a framebuffer without a driver of its own
MODERN = "disable-modern=off,disable-legacy=off"
INPUT = {"tablet": "usb-tablet", "keyboard": "usb-kbd", "mouse": "usb-mouse", "vtablet": "virtio-tablet-pci",
         "vkeyboard": "virtio-keyboard-pci", "vmouse": "virtio-mouse-pci"}
SEED = int(os.environ.get("SEED", time.time()))


def devices():
    args = ["-device", "VGA", "-device", "qemu-xhci,id=usb", "-object", "rng-builtin,id=rng0",
            "-device", f"virtio-rng-pci,rng=rng0,{MODERN}", "-device", "i6300esb", "-action", "watchdog=reset"]
    for name, device in INPUT.items():
        args += ["-device", f"{device},id={name}" + (",bus=usb.0" if device.startswith("usb") else "")]
    return args


class Devices(pairs.Pair):
    def __init__(self, agent_so, work, machine, driver):
        super().__init__(agent_so, work, machine, driver, extra=devices(),
                         append=f"{VESA} dirty_mib=16 dirty_pages=50 dirty_ms=5")
        kdir = kernel.get("generic")
        self.options["kernel"] = kdir + "/vmlinuz"
        initramfs.make(self.options["initrd"], work, kdir, kernel.MODULES + kernel.DEVICES, HERE + "/devices")

    def play(self, rnd):
        """Move and press something, on the primary's VM."""
        x, y, key = rnd.randrange(0x8000), rnd.randrange(0x8000), rnd.choice("abcdefgh")
        self.pvm.qmp.ask("input-send-event", events=[
            {"type": "abs", "data": {"axis": "x", "value": x}}, {"type": "abs", "data": {"axis": "y", "value": y}}])
        self.pvm.qmp.ask("input-send-event", events=[{"type": "rel", "data": {"axis": "x", "value": x % 30 - 15}}])
        for down in True, False:
            self.pvm.qmp.ask("input-send-event", events=[
                {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": key}}}])


def said(v):
    """(bytes of input, bytes of random numbers) the guest has got; what it says of the watchdog"""
    lines = re.findall(r"^devices (\d+) rng (\d+) (\w+)", v.console(), re.M)
    return (int(lines[-1][0]), int(lines[-1][1]), lines[-1][2]) if lines else (0, 0, "")


def check_checkpoints(p, n, rnd):
    for i in range(n):
        for _ in range(rnd.randrange(3)):
            p.play(rnd)
        time.sleep(rnd.random() / 10)
        a, b = p.checkpoint(hashed=i % 4 != 3)
        assert a["hash"] == b["hash"], f"RAM differs after checkpoint {i}: {a} {b}"
    print(p.stats(), flush=True)


def check_alive(p, rnd):
    """Input and random numbers go on coming, and the guest was not reset by its watchdog."""
    before, deadline = said(p.pvm), time.monotonic() + 30
    while True:
        p.play(rnd)
        time.sleep(0.1)
        now = said(p.pvm)
        if now[0] > before[0] and now[1] != before[1]:
            break
        assert time.monotonic() < deadline, f"before {before}, now {now}"
    assert now[2] == "active", f"the watchdog is {now[2]}"
    assert p.pvm.console().count("READY") <= 1, "the guest began anew"


def check_found(p):
    text = p.pvm.console()
    for name in "QEMU USB Tablet", "QEMU USB Keyboard", "QEMU USB Mouse", "QEMU Virtio Tablet", \
            "QEMU Virtio Keyboard", "QEMU Virtio Mouse":
        assert f"input device QEMU {name}" in text or f"input device {name}" in text, f"the guest has no {name}"


def check_consoles(p):
    for v in (*p.ended, p.pvm):
        bad = [l for l in v.console().splitlines() if re.search("CORRUPT|BUG|panic|Oops|stall|can't open", l)]
        assert not bad, f"{v.name}: {bad[:3]}"


def go(p, n, rnd):
    p.boot()
    p.pvm.wait_console("devices ")
    check_found(p)
    check_alive(p, rnd)
    p.protect()
    check_checkpoints(p, n, rnd)
    for _ in range(2):
        p.take_over()
        check_alive(p, rnd)
        p.protect()
        check_checkpoints(p, n // 4, rnd)
    check_alive(p, rnd)
    check_consoles(p)


def main():
    agent_so, work = sys.argv[1:3]
    machine = sys.argv[3] if len(sys.argv) > 3 else "pc"
    driver = sys.argv[4] if len(sys.argv) > 4 else "direct"
    n = int(sys.argv[5] if len(sys.argv) > 5 else os.environ.get("CHECKPOINTS", "40"))
    print("seed", SEED)
    with Devices(os.path.abspath(agent_so), work, machine, driver) as p:
        try:
            go(p, n, random.Random(SEED))
        except Exception:
            for v in (*p.ended, p.pvm, p.svm):
                if v:
                    print(f"--- {v.name}\n{v.console()[-2500:]}\n{open(v.errors).read()[-1500:]}")
            raise


try:
    main()
except kernel.Missing as e:
    print("skipped:", e)
    sys.exit(77)
