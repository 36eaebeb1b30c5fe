#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Before the start: which driver and accelerator are chosen, what is refused, what is remembered.

Usage: test_selftest.py COLO [NAME...]   (NAME: a part of the names of the tests to run)
Needs root; runs in a network namespace of its own.
"""
import os
import re
import sys

from colonode import Failure, World, run_tests

# A QEMU whose VM runs in the self-test of driver direct, which the agent refuses.
FAILS_DIRECT = """#!/bin/bash
args=()
for a; do [ "$a" = -S ] && [[ "$*" != *,ram=* ]] || args+=("$a"); done
exec qemu-system-x86_64 "${args[@]}"
"""
# The same, and one that stands by does not start.
FAILS_BOTH = FAILS_DIRECT.replace("args=()", "[[ \"$*\" == *-incoming* ]] && exit 1\nargs=()")
# KVM, without any: the accelerator is TCG, which takes another processor.
KVM_WORKS = """#!/bin/bash
args=("$@")
for i in "${!args[@]}"; do
	[ "${args[i]}" != kvm ] || args[i]=tcg
	[ "${args[i]}" != host ] || args[i]=max
done
exec qemu-system-x86_64 "${args[@]}"
"""
KVM_HANGS = KVM_WORKS.replace("exec", "[[ \"$*\" == *\"-accel kvm\"* ]] && exec sleep 30\nexec")


def wrapper(w, text):
    path = os.path.join(w.base, "qemu")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, 0o755)
    return path


def begun(node):
    """Start it, let it choose, end it. What it said."""
    mark = len(node.log()) if os.path.exists(node.log_path) else 0
    node.start()
    node.wait_log("passes the self-test", mark)
    said = node.log()[mark:]
    node.end()
    return said


def expect(said, want):
    if not re.search(want, said):
        raise Failure(f"'{want}' is not in\n{said}")


def found(node):
    """{name: result} of the file, and what stands above."""
    with open(os.path.join(node.state_dir, "selftest"), encoding="utf-8") as f:
        identity, _, results = f.read().partition("found:\n")
    return dict(line.split(" = ", 1) for line in results.splitlines()), identity


def test_direct_and_remembered(w):
    a = w.node("a")
    expect(begun(a), r"passes the self-test \(driver direct, tcg\)")
    results, identity = found(a)
    if results["direct"] != "passed" or set(results) != {"version", "direct"}:
        raise Failure(f"{results}")
    expect(identity, "qemu = /.*/qemu-system-x86_64, [0-9]+ bytes.*\n(?s:.*)agent = .*colo-agent.so.*\nkernel = ")
    expect(begun(a), r"passes the self-test, as it did before \(driver direct, tcg\)")


def test_other_devices_are_tested(w):
    a = w.node("a")
    begun(a)
    a.write_config({("vm", "rng"): "yes"}, 7400)
    expect(begun(a), r"tested anew\n(?s:.*)passes the self-test \(")
    expect(begun(a), "as it did before")


def test_another_qemu_is_tested(w):
    path = wrapper(w, "#!/bin/sh\nexec qemu-system-x86_64 \"$@\"\n")
    a = w.node("a", {("vm", "qemu"): path})
    begun(a)
    expect(begun(a), "as it did before")
    os.utime(path, (1, 1))
    expect(begun(a), r"tested anew\n(?s:.*)passes the self-test \(")


def test_spoiled_memory(w):
    """What stands there counts only if it is what was written for this very QEMU."""
    a = w.node("a")
    begun(a)
    path = os.path.join(a.state_dir, "selftest")
    for spoil in (lambda t: "", lambda t: t[10:], lambda t: t.replace("direct = passed", ""), lambda t: "x" * 200000):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        with open(path, "w", encoding="utf-8") as f:
            f.write(spoil(text))
        expect(begun(a), r"passes the self-test \(driver direct, tcg\)")


def test_standby_wanted(w):
    a = w.node("a", {("vm", "driver"): "standby"})
    expect(begun(a), r"passes the self-test \(driver standby, tcg\)")
    if set(found(a)[0]) != {"version", "standby"}:
        raise Failure(f"{found(a)}")


def test_direct_fails(w):
    a = w.node("a", {("vm", "qemu"): wrapper(w, FAILS_DIRECT)})
    expect(begun(a), r"warn.*: driver direct fails the self-test: .*running.*; trying standby\n(?s:.*)"
           r"passes the self-test \(driver standby, tcg\)")
    expect(begun(a), r"passes the self-test, as it did before \(driver standby, tcg\)")
    results = found(a)[0]
    if results["standby"] != "passed" or "running" not in results["direct"]:
        raise Failure(f"{results}")


def refused(a, want):
    a.start()
    if a.wait_end(30) != 1:
        raise Failure(f"exit status {a.process.returncode}")
    expect(a.log(), want)
    if os.path.exists(os.path.join(a.state_dir, "selftest")):
        raise Failure("a refusal is remembered")


def test_direct_fails_and_is_wanted(w):
    refused(w.node("a", {("vm", "qemu"): wrapper(w, FAILS_DIRECT), ("vm", "driver"): "direct"}),
            r"error: QEMU [\d.]+ \(.*/qemu\) fails the self-test: driver direct: .*running")


def test_both_fail(w):
    refused(w.node("a", {("vm", "qemu"): wrapper(w, FAILS_BOTH)}),
            r"error: QEMU [\d.]+ \(.*/qemu\) fails the self-test: driver direct: .*running.*; driver standby: .*did not start")


def test_kvm_works(w):
    a = w.node("a", {("vm", "qemu"): wrapper(w, KVM_WORKS), ("vm", "accel"): "auto"})
    expect(begun(a), r"passes the self-test \(driver direct, kvm\)")
    if found(a)[0]["kvm"] != "passed":
        raise Failure(f"{found(a)}")
    expect(begun(a), r"as it did before \(driver direct, kvm\)")


def test_kvm_hangs(w):
    a = w.node("a", {("vm", "qemu"): wrapper(w, KVM_HANGS), ("vm", "accel"): "auto"})
    expect(begun(a), r"info: accelerator tcg: kvm does not work here: the firmware does not get through its start in time\n"
           r"(?s:.*)passes the self-test \(driver direct, tcg\)")
    expect(begun(a), r"as it did before \(driver direct, tcg\)")


def test_no_kvm(w):
    """Wanted, it is missed by name; else there is TCG."""
    without = ("unshare", "-m", "sh", "-c", 'mount --bind /dev/null /dev/kvm && exec "$@"', "without-kvm")
    if not os.path.exists("/dev/kvm"):
        without = ()
    a = w.node("a", {("vm", "accel"): "kvm"}).start(without)
    if a.wait_end() != 1:
        raise Failure(f"exit status {a.process.returncode}")
    expect(a.log(), r"error: \[vm\] accel = kvm: /dev/kvm: ")
    a = w.node("a", {("vm", "accel"): "auto"}).start(without)
    a.wait_log(r"info: accelerator tcg: kvm does not work here: /dev/kvm: ")
    a.wait_log("the guest runs")


def test_pair_that_differs(w):
    """Named with what to set, on both hosts."""
    a = w.primary({("vm", "driver"): "direct"})
    b = w.node("b", {("vm", "driver"): "standby"}).start()
    want = "driver standby on b, direct on a: set \\[vm\\] driver = standby"
    if b.wait_end() != 1:
        raise Failure(f"exit status {b.process.returncode}")
    expect(b.log(), want)
    a.wait_log(want)


class Nodes(World):
    def primary(self, settings=None):
        a = self.node("a", settings).start()
        a.wait_log("the guest runs")
        a.wait_state("alone")
        return a


if __name__ == "__main__":
    sys.exit(run_tests(globals(), Nodes))
