#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's own tests of tracking on Debian 12's kernel (6.1), which has synchronous write protection only.

The kernel is booted by QEMU (TCG), with the tests as what its first process runs.
usage: test_kernel.py COMMAND...   (each a static program and its arguments, in one word)
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import initramfs  # noqa: E402
import kernel  # noqa: E402

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
{commands}
poweroff -f
"""
TIME = 150


def init(commands):
    lines = [f"echo 'begin {n}'\n/bin/test{n} {' '.join(c.split()[1:])} 2>&1\necho \"ended {n} $?\""
             for n, c in enumerate(commands)]
    return INIT.format(commands="\n".join(lines))


def boot(where, commands):
    files = {f"bin/test{n}": c.split()[0] for n, c in enumerate(commands)}
    with open(where + "/init", "w") as f:
        f.write(init(commands))
    initramfs.pack(where + "/initrd", {"bin/busybox": initramfs.busybox(), "init": where + "/init", **files})
    return subprocess.run(
        [os.environ.get("QEMU", "qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-display", "none",
         "-no-reboot", "-accel", "tcg", "-cpu", "max", "-m", "768", "-smp", "2",
         "-kernel", kernel.get() + "/vmlinuz", "-initrd", where + "/initrd",
         "-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME).stdout.decode(errors="replace")


def main():
    commands = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="colo-kernel-") as where:
        text = boot(where, commands).replace("\r", "")
    print(text)
    for n, command in enumerate(commands):
        end = re.search(rf"^ended {n} (\d+)$", text, re.M)
        assert end and end[1] == "0", f"{command}: " + (f"status {end[1]}" if end else "no end")
    assert re.search(r"^Linux 6\.1\.", text, re.M), "not the kernel that was meant"
    assert "BUG" not in text and "WARNING:" not in text, "the kernel complains"


try:
    main()
except kernel.Missing as e:
    print("skipped:", e)
    sys.exit(77)
