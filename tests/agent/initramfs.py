# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the test guest's initramfs (cpio, newc) without needing a cpio program."""
import gzip
import os
import shutil

import kernel

HERE = os.path.dirname(os.path.abspath(__file__))


def _entry(name, mode, data=b""):
    name = name.encode() + b"\0"
    head = b"070701" + b"".join(b"%08x" % v for v in
                                (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0))
    out = head + name
    out += b"\0" * (-len(out) % 4) + data
    return out + b"\0" * (-len(out) % 4)


def _read(path):
    with open(path, "rb") as f:
        return f.read()


def make(to, work, kdir, modules=None, script=None):
    """Write the initramfs: busybox, the work program, virtio modules, init; a script to run besides."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise kernel.Missing("no busybox (package busybox-static)")
    out = b"".join(_entry(d, 0o040755) for d in ("bin", "lib", "dev"))
    out += _entry("bin/busybox", 0o100755, _read(busybox))
    out += _entry("bin/work", 0o100755, _read(work))
    out += _entry("init", 0o100755, _read(HERE + "/init"))
    have = [m + ".ko" for m in modules or kernel.MODULES if os.path.exists(f"{kdir}/{m}.ko")]
    for m in have:
        out += _entry("lib/" + m, 0o100644, _read(f"{kdir}/{m}"))
    out += _entry("lib/order", 0o100644, "\n".join(have).encode())
    if script:
        out += _entry("bin/besides", 0o100755, _read(script))
    out += _entry("TRAILER!!!", 0)
    with open(to, "wb") as f:
        f.write(gzip.compress(out, 1))
