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


def busybox():
    path = shutil.which("busybox")
    if not path:
        raise kernel.Missing("no busybox (package busybox-static)")
    return path


def pack(to, files, texts=()):
    """Write an initramfs of programs, {place: file}, and texts, {place: bytes}."""
    out = b"".join(_entry(d, 0o040755) for d in ("bin", "lib", "dev"))
    for place, path in files.items():
        out += _entry(place, 0o100755, _read(path))
    for place in texts:
        out += _entry(place, 0o100644, texts[place])
    out += _entry("TRAILER!!!", 0)
    with open(to, "wb") as f:
        f.write(gzip.compress(out, 1))


def make(to, work, kdir, modules=None, script=None):
    """The test guest's: busybox, the work program, virtio modules, init; a script to run besides."""
    have = [m + ".ko" for m in modules or kernel.MODULES if os.path.exists(f"{kdir}/{m}.ko")]
    files = {"bin/busybox": busybox(), "bin/work": work, "init": HERE + "/init"}
    files.update((f"lib/{m}", f"{kdir}/{m}") for m in have)
    if script:
        files["bin/besides"] = script
    pack(to, files, {"lib/order": "\n".join(have).encode()})
