#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM with three writable disks (one of 4096 byte sectors, one qcow2), a read-only one and a CD: written to under
checkpoints, the primary's host loses power, and all of them are whole on the survivor.

Usage: test_disks.py
"""
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from pairlab import Pair

SIZE = 96 << 20
# writes to both file systems and to the root's, each file with the sum of what it should have
WRITER = r"""#!/bin/sh
i=0
while [ ! -e /run/stop ]; do
	i=$((i + 1))
	for d in /mnt/1 /mnt/2 /root; do
		f=$d/file$((i % 30))
		head -c $((i % 7 * 50000 + 1000)) /dev/urandom >$f.new || exit 1
		sha256sum <$f.new >$f.sum.new && mv $f.new $f && mv $f.sum.new $f.sum && sync -f $f || exit 1
	done
	echo $i >/run/rounds
done
"""
CHECK = r"""
for d in /mnt/1 /mnt/2 /root; do
	for f in $d/file*.sum; do
		[ "$(sha256sum <${f%.sum})" = "$(cat $f)" ] || { echo "$f is wrong"; exit 1; }
		n=$((n + 1))
	done
done
umount /mnt/1 /mnt/2 && echo "whole $n"
"""


def tool(*command):
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


def make_files(where):
    """Arguments of `lab up`; what the read-only disk and the CD have in them."""
    content = {name: os.urandom(1 << 20) for name in ("read-only", "cd")}
    args = ["--set", "disk 1.sector=4096", "--set", "disk 2.format=qcow2", "--set", "disk 3.read-only=yes",
            "--set", "disk 4.cdrom=yes"]
    blank = os.path.join(where, "blank")
    tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", blank, f"{SIZE >> 10}k")
    for host in "ab":
        path = [os.path.join(where, f"{host}{n}") for n in range(5)]
        for n in 1, 2:
            tool("cp", "--sparse=always", blank, path[n])
        tool("qemu-img", "convert", "-O", "qcow2", blank, path[2])
        for n, name in (3, "read-only"), (4, "cd"):
            with open(path[n], "wb") as f:
                f.write(content[name])
        for n in range(1, 5):
            args += ["--set", f"host {host}.disk{n}={path[n]}"]
    return args, content


def sum_in_guest(p, device):
    return p.ssh(f"sha256sum <{device}").split()[0]


def prepare(p, content):
    assert p.ssh("cat /sys/block/vd[abc]/queue/logical_block_size").split() == ["512", "4096", "512"]
    assert p.ssh("cat /sys/block/vd[abcd]/ro").split() == ["0", "0", "0", "1"]
    assert sum_in_guest(p, "/dev/vdd") == hashlib.sha256(content["read-only"]).hexdigest()
    p.ssh("mkdir -p /mnt/1 /mnt/2 && mount -o discard /dev/vdb /mnt/1 && mount /dev/vdc /mnt/2")
    p.ssh(f"cat >/root/writer <<'END'\n{WRITER}END\nchmod +x /root/writer; "
          "setsid /root/writer >/root/writer.log 2>&1 </dev/null & :")


def rounds(p):
    return int(p.ssh("cat /run/rounds 2>/dev/null || echo 0"))


def strangers_are_turned_away(p):
    """Whoever opens the socket of a disk, root or not, is not the daemon."""
    for host in "ab":
        for n in range(5):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(5)
                s.connect(f"/run/colo-lab/{p.name}/{host}/disk{n}.sock")
                try:
                    got = s.recv(100)
                except ConnectionResetError:
                    got = b""
                assert got == b"", f"disk{n} of {host} answers a stranger: {got}"


def checkpoints(p, count):
    for _ in range(count):
        before = p.status("a")["epoch"]
        p.colo("a", "checkpoint")
        p.wait("a checkpoint", lambda b=before: p.status("a")["epoch"] > b, 10)
        time.sleep(0.2) # what the guest writes until the next one


def check_status(p):
    disks = p.status("a")["disks"]
    roles = [(d["role"], d["format"], d["sector"]) for d in disks]
    assert roles == [("writable", "raw", 512), ("writable", "raw", 4096), ("writable", "qcow2", 512),
                     ("read-only", "raw", 512), ("cdrom", "raw", 512)], roles
    assert all(d["sync"]["percent"] == 100 and d["generation"] for d in disks[:3]), disks
    theirs = p.status("b")["disks"]
    assert [d["generation"] for d in theirs[:3]] == [d["generation"] for d in disks[:3]], (disks, theirs)


def check_file_systems(p, where):
    """What the survivor's daemon left of its disks when the guest was off."""
    p.lab("ssh", "systemctl poweroff", check=False)
    p.wait("the guest's end", lambda: not p.status("b"), 30)
    raw = os.path.join(where, "raw")
    tool("qemu-img", "convert", "-O", "raw", os.path.join(where, "b2"), raw)
    for image in os.path.join(where, "b1"), raw, f"/var/tmp/colo-lab/{p.name}/b/disk.raw":
        tool("e2fsck", "-fn", image)


def run(p, content, where):
    prepare(p, content)
    try:
        p.wait("the first writes", lambda: rounds(p) > 1, 30)
    except AssertionError as e:
        raise AssertionError(f"{e}: {rounds(p)} rounds; the guest says: "
                             f"{p.ssh('cat /root/writer.log; ls -la /mnt/1 /run/rounds; dmesg | tail -5')}") from e
    checkpoints(p, 5)
    check_status(p)
    strangers_are_turned_away(p)
    p.lab("kill", "a")
    p.wait("the survivor", lambda: p.status("b")["state"] == "alone", 10)
    after = rounds(p)
    p.wait("writes on the survivor", lambda: rounds(p) > after + 1, 30)
    p.ssh("touch /run/stop; while pgrep -x writer >/dev/null; do sleep 0.1; done; test ! -s /root/writer.log")
    out = p.ssh(CHECK)
    print(f"rounds {after} before the power loss, {rounds(p)} in all; {out.splitlines()[-1]}")
    assert re.search(r"^whole \d+$", out, re.M), out
    assert sum_in_guest(p, "/dev/vdd") == hashlib.sha256(content["read-only"]).hexdigest()
    if p.ssh("modprobe -a ata_piix sr_mod 2>/dev/null; ls /dev/sr0 2>/dev/null || :"):
        assert sum_in_guest(p, "/dev/sr0") == hashlib.sha256(content["cd"]).hexdigest()
        print("the CD is read")
    else:
        print("the guest's kernel has no driver for the CD")
    check_file_systems(p, where)


def main():
    where = tempfile.mkdtemp(prefix="colo-test-disks-", dir="/var/tmp")
    try:
        args, content = make_files(where)
        with Pair("disks", *args) as p:
            run(p, content, where)
    finally:
        shutil.rmtree(where)
    print("test_disks: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
