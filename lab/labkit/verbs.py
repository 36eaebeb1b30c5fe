# SPDX-License-Identifier: GPL-2.0-or-later
"""What each verb of lab/lab does."""
import json
import os
import shutil
import signal
import sys

from . import arbiter, guest, native, net, proc, protect, wait
from .errors import LabError
from .state import GUEST_HOSTS, HOSTS, all_labs
from .wait import say

TOOLS = ["ip", "tc", "sysctl", "qemu-img", "cp"]


def _check_machine(options):
    missing = [tool for tool in (*TOOLS, options.qemu) if not shutil.which(tool)]
    if missing:
        raise LabError(f"missing: {', '.join(missing)} (lab/install-deps installs them)")
    if not os.path.exists("/dev/net/tun"):
        raise LabError("/dev/net/tun is not there: this machine has no TAP devices")


def _start_dhcp(lab, addresses):
    pairs = [f"{mac}={ip}" for mac, ip in zip(lab.data["vm"]["macs"], addresses["guests"])]
    command = ["env", f"PYTHONPATH={guest.ROOT}/lab", "PYTHONDONTWRITEBYTECODE=1", sys.executable,
               "-m", "labkit.dhcp", "lan0", addresses["client"], *pairs]
    process = proc.start(lab, "client", command, os.path.join(lab.run_dir, "dhcp.log"))
    lab.data["dhcp"] = proc.record(process)


def _describe_vm(lab, options, image):
    addresses = net.plan(options.ip or net.DEFAULT_GUEST)
    guests = 2 if options.mode == "twin" else 1
    lab.data.update({
        "name": lab.name, "mode": options.mode, "image": image, "addresses": addresses,
        "ips": addresses["guests"][:guests], "ip6s": image["ip6"][:guests],
        "main": {}, "killed": [], "share_cpus": options.share_cpus or options.mode == "native",
        "volatile_disks": options.volatile_disks, "tls": options.tls,
        "vm": {"mem": options.mem, "vcpus": options.vcpus, "machine": options.machine,
               "qemu": options.qemu, "macs": guest.MACS}})
    lab.save()


def _build(lab, options):
    image = guest.choose(options)
    if options.mode in ("colo", "checkpoint"):
        protect.binary()
    if options.volatile_disks:
        protect.power_shim()
    lab.create()
    _describe_vm(lab, options, image)
    net.create(lab, lab.data["addresses"])
    proc.make_cgroups(lab, HOSTS)
    hosts = ["a"] if options.mode == "native" else ["a", "b"]
    for host in hosts:
        guest.copy_disk(image["disk"], lab.disk(host), options.disk_size)
    _start_dhcp(lab, lab.data["addresses"])
    lab.save()
    return hosts


def _start_host(lab, host):
    if lab.data["mode"] in ("colo", "checkpoint"):
        process = protect.start_daemon(lab, host)
    else:
        process = native.start_guest(lab, host, GUEST_HOSTS.index(host))
    lab.data["main"][host] = proc.record(process)
    lab.save()


def _boot_plain(lab, options, hosts):
    for host in hosts:
        _start_host(lab, host)
    say(f"booting {lab.data['mode']}")
    wait.serving(lab, options.timeout)


def _boot_protected(lab, options):
    arbiter.start(lab, options.arbiter, protect.binary())
    protect.write_config(lab, options.mode, options.interval, options.set)
    _start_host(lab, "a")
    say("booting on host a")
    wait.serving(lab, options.timeout)
    if options.alone:
        return
    _start_host(lab, "b")
    wait.protected(lab, options.timeout)


def do_up(lab, options):
    """Make the hosts and boot the guest or guests."""
    if lab.exists:
        raise LabError(f"lab '{lab.name}' is already up, or was left behind: `lab down` first")
    if options.set and options.mode in ("native", "twin"):
        raise LabError(f"--set is for the daemon, which mode {options.mode} does not run")
    if options.volatile_disks and options.mode in ("native", "twin"):
        raise LabError(f"--volatile-disks is for disk managers, which mode {options.mode} does not run")
    _check_machine(options)
    arbiter.check(options.arbiter)
    try:
        lab.lock()
        hosts = _build(lab, options)
        if options.mode in ("native", "twin"):
            _boot_plain(lab, options, hosts)
        else:
            _boot_protected(lab, options)
    except BaseException:
        if options.keep:
            say("kept as it is for you to look at (--keep)")
        else:
            _tear_down(lab)
        raise
    say(f"up: {', '.join(lab.data['ips'])}")


def _tear_down(lab):
    for host in (*HOSTS, net.SWITCH):
        proc.kill_all(lab, host)
    net.remove(lab)
    proc.remove_cgroups(lab, HOSTS)
    lab.remove()


def do_down(lab, _options):
    """Stop everything and remove it; also after a crash, also when there is nothing."""
    lab.lock()
    _tear_down(lab)


def _enter_host(lab, host, command):
    if host not in HOSTS:
        raise LabError(f"no host '{host}': {', '.join(HOSTS)}")
    proc.enter(lab, host)
    command = proc.command_in(lab, host, command)
    sys.stdout.flush()
    os.execvp(command[0], command)


def do_exec(lab, options):
    """Become a command on a host: its exit status and its signals are this process's."""
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise LabError("exec: which command?")
    _enter_host(lab.require(), options.host, command)


def do_shell(lab, options):
    """A shell on a host."""
    os.environ["debian_chroot"] = f"{lab.name}:{options.host}"
    _enter_host(lab.require(), options.host, [os.environ.get("SHELL") or "/bin/sh"])


def do_ssh(lab, options):
    """A command, or a shell, in the guest."""
    key = lab.require().data["image"]["ssh_key"]
    if not key:
        raise LabError("the lab has no ssh key for this image")
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    _enter_host(lab, "client", [
        "ssh", "-i", key, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=15",
        f"root@{lab.data['ips'][options.guest]}", *command])


def do_console(lab, options):
    """Follow what the guest of a host writes on its serial console."""
    path = lab.require().host_file(options.host, "console.log")
    os.execvp("tail", ["tail", "-n", "100", "-F", path])


def do_ip(lab, options):
    """Addresses of the guests, one a line."""
    found = lab.require().data["ip6s" if options.ipv6 else "ips"]
    if not found:
        raise LabError("nothing is known of IPv6 addresses of this image")
    print("\n".join(found))


def _plain_status(lab):
    answer = dict.fromkeys(GUEST_HOSTS)
    for host, recorded in lab.data["main"].items():
        if proc.alive(recorded):
            answer[host] = {"role": "unprotected", "state": "running", "pid": recorded["pid"]}
    return answer


def _status(lab):
    ask = protect.status if lab.data["mode"] in ("colo", "checkpoint") else _plain_status
    return {"name": lab.name, "mode": lab.data["mode"], "ip": lab.data["ips"],
            "ip6": lab.data["ip6s"], "killed": lab.data["killed"], **ask(lab)}


def do_status(lab, options):
    """State of both hosts."""
    if not lab.data and not options.json:
        others = ", ".join(all_labs())
        print(f"no lab '{lab.name}' is up" + (f"; up: {others}" if others else ""))
        return
    answer = _status(lab.require())
    if options.json:
        print(json.dumps(answer))
        return
    print(f"lab {lab.name}, mode {answer['mode']}, guest {', '.join(answer['ip'])}")
    for host in GUEST_HOSTS:
        state = answer[host]
        text = f"{state.get('role')}, {state.get('state')}" if state else "does not answer"
        print(f"  {host}: {text}" + (", without power" if host in answer["killed"] else ""))


def do_kill(lab, options):
    """Power loss: links silent, then everything killed."""
    lab.require().lock()
    for host in options.hosts:
        net.set_host(lab, host, False)
    for host in options.hosts:
        proc.kill_all(lab, host)
    lab.data["killed"] = sorted({*lab.data["killed"], *options.hosts})
    lab.save()


def do_kill_vm(lab, options):
    """Kill QEMU of a host."""
    def is_vm(pid):
        return proc.program_of(pid).startswith("qemu-system")
    pids = [pid for pid in proc.pids_of(lab.require(), options.host) if is_vm(pid)]
    if not [pid for pid in pids if proc.kill_pid(pid, is_vm)]:
        raise LabError(f"no VM runs on host {options.host}")


def do_kill_daemon(lab, options):
    """Kill the daemon of a host; `colo run` starts it again."""
    if lab.require().data["mode"] not in ("colo", "checkpoint"):
        raise LabError(f"mode {lab.data['mode']} has no daemon")
    pid = protect.daemon_pid(lab, options.host)
    if not pid or not proc.kill_pid(pid, lambda pid: pid == protect.daemon_pid(lab, options.host)):
        raise LabError(f"no daemon runs on host {options.host}")


def do_start(lab, options):
    """Power on again after kill, or `colo run` again after its end. Nothing to do where it runs."""
    lab.require().lock()
    if proc.alive(lab.data["main"].get(options.host)):
        say(f"host {options.host} runs")
        return
    if not os.path.exists(lab.disk(options.host)):
        raise LabError(f"host {options.host} has no part in mode {lab.data['mode']}")
    proc.kill_all(lab, options.host)
    net.set_host(lab, options.host, True)
    net.remove_tap(lab, options.host)
    lab.data["killed"] = [host for host in lab.data["killed"] if host != options.host]
    _start_host(lab, options.host)


def do_watch(lab, _options):
    """Follow which host serves."""
    ports = [f"port-{host}={host}" for host in GUEST_HOSTS]
    environment = dict(os.environ, PYTHONPATH=os.path.join(guest.ROOT, "lab"), PYTHONDONTWRITEBYTECODE="1")
    command = proc.command_in(lab.require(), net.SWITCH, [
        sys.executable, "-m", "labkit.watch", lab.data["vm"]["macs"][0], *ports])
    os.execvpe(command[0], command, environment)


def do_failpoint(lab, options):
    """Arm a step of a host, or disarm it."""
    path = proc.failpoint_file(lab.require(), options.host)
    if options.point == "none":
        if os.path.exists(path):
            os.unlink(path)
        return
    argument = "lan0,repl0" if options.action == "power" else str(options.ms)
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(f"{options.point} {options.passing} {options.action} {argument}\n")
    os.rename(f"{path}.new", path)


def _set_link(lab, link, up):
    if link == "arbiter":
        arbiter.set_link(lab, up)
    else:
        net.set_link(lab, link, up)


def do_start_arbiter(lab, _options):
    """Start what answers on host arbiter again, where it was killed."""
    lab.require().lock()
    arbiter.restart(lab)


def do_cut(lab, options):
    """Cut a link."""
    _set_link(lab.require(), options.link, False)


def do_heal(lab, options):
    """Heal a link."""
    _set_link(lab.require(), options.link, True)


def _start_slow(lab, path):
    environment = ["env", f"PYTHONPATH={guest.ROOT}/lab", "PYTHONDONTWRITEBYTECODE=1"]
    log = os.path.join(lab.run_dir, "slow.log")
    if os.path.exists(log):
        os.unlink(log)
    process = proc.start(lab, net.SWITCH, [*environment, sys.executable, "-m", "labkit.slow", net.REPLICATION_BRIDGE,
                                           *net.REPLICATION_PORTS, path], log)
    lab.data["slow"] = proc.record(process)
    lab.save()
    wait.until("a slow link", lambda: "took" in proc.tail(log, 1), 10)


def do_slow(lab, options):
    """Make the replication link slow, or as it was."""
    lab.require().lock()
    runs = proc.alive(lab.data.get("slow"))
    if options.off:
        recorded = lab.data.pop("slow", None)
        if recorded:
            proc.kill_pid(recorded["pid"], lambda _: proc.alive(recorded))
        lab.save()
        net.join_replication(lab)
        net.set_segments(lab, True)
        return
    path = os.path.join(lab.run_dir, "slow.json")
    with open(f"{path}.new", "w", encoding="ascii") as file:
        json.dump({"delay": options.delay / 1000, "rate": options.rate, "loss": options.loss}, file)
    os.rename(f"{path}.new", path)
    net.set_segments(lab, not (options.rate or options.loss))
    if runs:
        os.kill(lab.data["slow"]["pid"], signal.SIGHUP)
    else:
        _start_slow(lab, path)


def do_wait(lab, options):
    """Wait until the guest serves or the pair is protected."""
    if options.state == "serving":
        wait.serving(lab.require(), options.timeout)
    elif lab.require().data["mode"] in ("colo", "checkpoint"):
        wait.protected(lab, options.timeout)
    else:
        raise LabError(f"mode {lab.data['mode']} is never protected")
