# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's stock kernels for test guests, cached in ~/.cache/colo/kernel."""
import fcntl
import os
import re
import shutil
import subprocess
import tempfile

CACHE = os.path.join(os.environ.get("COLO_CACHE", os.path.expanduser("~/.cache/colo")), "kernel")
KINDS = {"cloud": "linux-image-cloud-amd64", "generic": "linux-image-amd64"}
# in the order they must be loaded
MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
           "failover", "net_failover", "virtio_net", "virtio_blk"]
# what the cloud kernel has no drivers for
DEVICES = ["usb-common", "usbcore", "xhci-hcd", "xhci-pci", "hid", "usbhid", "hid-generic", "rng-core", "virtio-rng",
           "evdev", "virtio_input", "watchdog", "i6300esb"]


class Missing(Exception):
    """A prerequisite is not there; the test is skipped."""


def _fetch(into, meta, modules):
    out = subprocess.run(["apt-cache", "depends", meta], capture_output=True, text=True)
    match = re.search(r"Depends: (linux-image-\S+)", out.stdout)
    if not match:
        raise Missing("apt knows no " + meta)
    tmp = tempfile.mkdtemp(prefix=".fetch", dir=os.path.dirname(into))
    try:
        subprocess.run(["apt-get", "download", match[1]], cwd=tmp, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deb = next(f for f in os.listdir(tmp) if f.endswith(".deb"))
        subprocess.run(["dpkg-deb", "-x", deb, "x"], cwd=tmp, check=True)
        os.makedirs(tmp + "/out")
        for base, _, files in os.walk(tmp + "/x"):
            for f in files:
                if f.startswith("vmlinuz-"):
                    shutil.copy(os.path.join(base, f), tmp + "/out/vmlinuz")
                elif f.removesuffix(".ko") in modules and f.endswith(".ko"):
                    shutil.copy(os.path.join(base, f), tmp + "/out/" + f)
        os.rename(tmp + "/out", into)
    except (subprocess.CalledProcessError, StopIteration) as e:
        raise Missing(f"cannot fetch {match[1]}: {e}") from e
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def get(kind="cloud"):
    """Directory with vmlinuz, and MODULES, and if generic DEVICES, as .ko files."""
    os.makedirs(CACHE, exist_ok=True)
    where = os.path.join(CACHE, kind)
    with open(os.path.join(CACHE, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(where + "/vmlinuz"):
            _fetch(where, KINDS[kind], MODULES + (DEVICES if kind == "generic" else []))
    return where
