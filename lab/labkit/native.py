# SPDX-License-Identifier: GPL-2.0-or-later
"""
Modes native and twin: plain QEMU that nobody protects.

The machine is the one the daemon starts (DESIGN.md, section 5), so that only protection differs. The
network is a TAP with offloads and the disk the host's page cache with flushes honoured: what libvirt
makes when its XML says nothing else (vhost aside, which emulation does not gain from).
"""
from . import net, proc


def command(lab, host, number):
    """QEMU's command line for guest @number on @host."""
    vm, image = lab.data["vm"], lab.data["image"]
    args = [vm["qemu"], "-name", f"{lab.name}-{host}", "-machine", vm["machine"],
            "-accel", "tcg", "-cpu", "max", "-m", vm["mem"], "-smp", str(vm["vcpus"]),
            "-nodefaults", "-no-user-config", "-display", "none",
            "-netdev", "tap,id=nic0,ifname=tap0,script=no,downscript=no",
            "-device", "virtio-net-pci,netdev=nic0,romfile=,disable-modern=on,disable-legacy=off,"
                       f"mac={vm['macs'][number]}",
            "-blockdev", f"driver=raw,node-name=disk0,discard=unmap,file.driver=file,"
                         f"file.filename={lab.disk(host)}",
            "-device", "virtio-blk-pci,drive=disk0,disable-modern=on,disable-legacy=off",
            "-serial", f"file:{lab.host_file(host, 'console.log')}",
            "-qmp", f"unix:{lab.host_file(host, 'qmp.sock')},server=on,wait=off"]
    for option in ("kernel", "initrd", "append"):
        if image[option]:
            args += [f"-{option}", image[option]]
    return args


def start_guest(lab, host, number):
    """Start the guest of @host."""
    net.make_tap(lab, host)
    return proc.start(lab, host, command(lab, host, number), lab.host_file(host, "qemu.log"))
