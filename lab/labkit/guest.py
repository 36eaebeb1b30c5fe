# SPDX-License-Identifier: GPL-2.0-or-later
"""What boots: our own test guest, or any raw or qcow2 image; a copy of its disk for each host."""
import json
import os
import subprocess

from .errors import LabError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
MACS = ["52:54:00:c0:10:01", "52:54:00:c0:10:02"]
OWN_SERVICES = ["http", "postgresql", "ssh", "echo"]


def _own_guest():
    build = os.path.join(ROOT, "guest", "build")
    if subprocess.run([build], check=False).returncode:
        raise LabError("the test guest could not be built (its messages are above)")
    directory = subprocess.run([build, "--path"], capture_output=True, text=True,
                               check=True).stdout.strip()
    with open(os.path.join(directory, "info.json"), encoding="utf-8") as file:
        info = json.load(file)
    return {"disk": os.path.join(directory, "disk.raw"),
            "kernel": os.path.join(directory, "vmlinuz"),
            "initrd": os.path.join(directory, "initrd"), "append": info["append"],
            "ssh_key": os.path.join(directory, "ssh_key"), "services": OWN_SERVICES,
            "ip6": info["ip6"]}


def _given_file(path, option):
    if path and not os.path.isfile(path):
        raise LabError(f"{option} {path}: no such file")
    return os.path.abspath(path) if path else None


def choose(options):
    """The image that the options of `up` mean."""
    if options.disk:
        image = {"disk": _given_file(options.disk, "--disk"), "kernel": None, "initrd": None,
                 "append": None, "ssh_key": None, "services": ["arp"],
                 "ip6": []}
    elif options.ip:
        raise LabError("--ip is for a --disk whose guest has a static address")
    else:
        image = _own_guest()
    for key in ("kernel", "initrd"):
        if getattr(options, key):
            image[key] = _given_file(getattr(options, key), f"--{key}")
    if options.append is not None:
        image["append"] = options.append
    if image["append"] and not image["kernel"]:
        raise LabError("--append needs --kernel")
    if image["initrd"] and not image["kernel"]:
        raise LabError("--initrd needs --kernel")
    return image


def image_format(path):
    """raw or qcow2."""
    with open(path, "rb") as file:
        return "qcow2" if file.read(4) == b"QFI\xfb" else "raw"


def copy_disk(image, target, size=None):
    """Make @target a raw copy of its own, of @size if it is given."""
    if image_format(image) == "qcow2":
        command = ["qemu-img", "convert", "-O", "raw", image, target]
    else:
        command = ["cp", "--sparse=always", "--reflink=auto", image, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"copying {image}: {done.stderr.strip()}")
    if size:
        subprocess.run(["qemu-img", "resize", "-q", "-f", "raw", target, size], check=True)
