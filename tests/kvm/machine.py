# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux with kvm_amd inside an emulated machine that has AMD's virtualisation extension.

What is to be tested goes in as a tar archive on a second disk; a shell script `inside-main` in it is
run, its output and exit status come back on the serial console. Nothing of the machine is kept.
"""
import os
import re
import subprocess
import tarfile
import time

CPU = "EPYC,+svm,+invtsc"
# One CPU: with two the kernel in it crashes sooner or later by the emulator's fault: QEMU 7.2 runs an int3 that another
# CPU has replaced already; 10.0 and 11.1 deliver an interrupt right after a VM exit, where none may come. VMs with several
# vCPUs have threads of this one CPU then.
APPEND = ("console=ttyS0 quiet root=/dev/vda rw net.ifnames=0 mitigations=off tsc=reliable no_timer_check "
          "loglevel=3 nowatchdog panic=-1 init=/colo-init")
RAM_MIB = 4096
EXIT = re.compile(r"^INSIDE: exit (\d+)", re.M)


class Archive:
    """The second disk."""

    def __init__(self, path):
        self.tar = tarfile.open(path, "w")
        self.path = path

    def add(self, path, name):
        self.tar.add(path, name, filter=lambda t: None if t.name.endswith(".pyc") else t)

    def script(self, text, where):
        path = os.path.join(where, "inside-main")
        with open(path, "w", encoding="utf-8") as f:
            f.write("#!/bin/bash\n" + text + "\n")
        self.add(path, "inside-main")

    def close(self):
        self.tar.close()


class Machine:
    def __init__(self, qemu, image, kernel, archives, where, mem=RAM_MIB, extra=()):
        self.log = f"{where}/console"
        cmd = [qemu, "-name", "colo-kvm", "-machine", "q35", "-accel", "tcg,tb-size=1024",
               "-cpu", CPU, "-smp", "1", "-m", str(mem), "-nodefaults", "-no-user-config", "-display", "none",
               "-no-reboot", "-kernel", f"{image}/vmlinuz-{kernel}", "-initrd", f"{image}/initrd-{kernel}",
               "-append", APPEND, "-serial", f"file:{self.log}",
               "-drive", f"file={image}/disk.raw,format=raw,if=virtio,snapshot=on", *extra]
        for archive in archives:
            cmd += ["-drive", f"file={archive},format=raw,if=virtio,readonly=on"]
        with open(f"{where}/stderr", "w", encoding="utf-8") as err:
            self.process = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        self.errors = f"{where}/stderr"

    def text(self):
        try:
            with open(self.log, errors="replace", encoding="utf-8") as f:
                return f.read().replace("\r", "")
        except FileNotFoundError:
            return ""

    def finish(self, limit, tell=None):
        """Wait for the end; the exit status of what ran inside, or None."""
        end = time.monotonic() + limit
        seen = 0
        while True:
            over = self.process.poll() is not None
            text = self.text()
            if tell:
                cut = len(text) if over else text.rfind("\n") + 1
                for line in text[seen:cut].splitlines():
                    tell(line)
                seen = max(seen, cut)
            if over or time.monotonic() > end:
                break
            time.sleep(0.5)
        self.kill()
        m = EXIT.search(self.text())
        return int(m[1]) if m else None

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
