# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of faults of a campaign. Each is a function of the round: what it draws comes from round.rng only.

A fault names what it takes away (round.kill, round.lab("cut", ...)) and waits only as long as belongs to it; the
campaign heals what is cut, thaws what is frozen, gives power back, and waits for protection.
"""
import signal
import time

import points

SHORT = 0.3
FIRE_LIMIT = 12
TAKEOVER_LIMIT = 15
NOTICE_LIMIT = 20


# ---- hosts and processes ----

def power_primary(r):
    """The serving host loses power."""
    r.kill(r.primary)
    r.wait_role(r.secondary, "primary")


def power_secondary(r):
    """The other host loses power."""
    r.kill(r.secondary)
    r.wait_state(r.primary, "alone")


def both_in_turn(r):
    """The serving host, and when the pair is protected again the new one."""
    power_primary(r)
    r.recover()
    r.find_roles()
    power_primary(r)


def frozen(r):
    """All of a host stands still for some time, then goes on as if nothing had happened."""
    host = r.either()
    pids = r.session.stop_all(host)
    r.thaw_later(pids)
    time.sleep(r.rng.uniform(0.1, 3))


def strike(r, host, what, signum):
    """Send a signal to a program of a host, and wait until the pair has noticed."""
    r.session.signal(host, what, signum)
    try:
        r.session.wait("notice", lambda: not r.session.is_protected(), NOTICE_LIMIT)
    except AssertionError:
        r.note("nobody noticed")


def killer(what, signum):
    """Faults that send a signal to one program of the primary, and of the secondary."""
    def primary(r):
        strike(r, r.primary, what, signum)

    def secondary(r):
        strike(r, r.secondary, what, signum)
    return primary, secondary


def stopped_shortly(r):
    """One program of a host stands still for less than a heartbeat's patience, or a little more."""
    host, what = r.either(), r.rng.choice(["vm", "disk", "daemon"])
    r.note(f"{what} of {host}")
    pids = r.session.signal(host, what, signal.SIGSTOP)
    time.sleep(r.rng.uniform(0.05, 0.8))
    r.thaw(pids)


# ---- links ----

def replication_cut(r):
    """The hosts do not hear each other; both live."""
    r.cut("replication")
    time.sleep(r.rng.uniform(1, 4))


def replication_blink(r):
    """The link is away for less than the heartbeat's patience."""
    r.cut("replication")
    time.sleep(r.rng.uniform(0.02, 0.35))


def replication_one_way(r):
    """One host is not heard any more, though it hears."""
    r.cut(r.rng.choice(["replication-ab", "replication-ba"]))
    time.sleep(r.rng.uniform(1, 3))


def slow_link(r):
    """The link is ten times as far and thin for a while."""
    r.slow(r.rng.choice([5, 20, 60]), r.rng.choice(["1mbit", "5mbit", "50mbit"]))
    time.sleep(r.rng.uniform(2, 5))


def flapping(r):
    """The link comes and goes."""
    for _ in range(r.rng.randint(3, 6)):
        r.cut("replication")
        time.sleep(r.rng.uniform(0.05, 0.9))
        r.heal()
        time.sleep(r.rng.uniform(0.05, 1.5))


def lan_cut(r):
    """The clients' network of one host is away; replication is not."""
    r.cut(f"lan-{r.either()}")
    time.sleep(r.rng.uniform(0.2, 1.5))


def arbiter_cut(r):
    """Nobody needs the arbiter just now."""
    r.cut("arbiter")
    time.sleep(r.rng.uniform(0.5, 2))


def arbiter_cut_and_power(r):
    """The arbiter is not heard when it is needed: nobody serves until it is."""
    r.cut("arbiter")
    time.sleep(SHORT)
    r.kill(r.primary)
    time.sleep(r.rng.uniform(0.6, 3))
    r.heal()
    r.wait_role(r.secondary, "primary")


def arbiter_cut_and_partition(r):
    """Neither the other host nor the arbiter is heard, by both; then the arbiter is."""
    r.cut("arbiter")
    r.cut("replication")
    time.sleep(r.rng.uniform(1, 3))
    r.heal("arbiter")
    time.sleep(r.rng.uniform(0, 2))


# ---- what an operator does ----

def switchover(r):
    """The roles are exchanged."""
    r.session.colo(r.primary, "switchover")
    r.wait_role(r.secondary, "primary")


def pause_resume(r):
    """Protection is taken away and given back."""
    r.session.colo(r.primary, "pause")
    time.sleep(r.rng.uniform(0, 1))
    r.session.colo(r.primary, "resume")


def stop_secondary(r):
    """The secondary is stopped in an orderly way, and started."""
    r.session.colo(r.secondary, "stop")
    r.wait_state(r.primary, "alone")
    r.starts.add(r.secondary)


# ---- named steps ----

def wait_fired(r, host):
    """Until the armed step was passed."""
    deadline = time.monotonic() + FIRE_LIMIT
    while r.session.armed(host):
        if time.monotonic() > deadline:
            r.not_reached = True
            return
        time.sleep(0.005)


def bring_about(r, point, host, action):
    """Do what leads to the step, which @host passes."""
    if point.when == "checkpoint":
        r.session.colo(r.primary, "checkpoint", check=False)
    elif point.when == "takeover":
        r.kill(r.primary)
    elif point.when == "switchover":
        r.session.colo(r.primary, "switchover", check=False)
    elif point.when == "lonely":
        r.kill(r.secondary)
    wait_fired(r, host)
    if action == "power" and not r.not_reached:
        r.kill(host)


def operator_acts(r, host):
    """What hangs where nobody could take over is not killed: an alarm says so until it answers. Wait for that, then let it."""
    stopped = r.session.stopped(host)

    def known():
        return not set(stopped) & set(r.session.stopped(host)) or "does not answer" in " ".join(r.session.alarms(host))
    r.wait(f"alarm of {host}, where {stopped} hang", known, NOTICE_LIMIT)
    if left := set(stopped) & set(r.session.stopped(host)):
        r.note("alarm")
        r.thaw(left)


def at_point(name, action):
    """A fault at a named step."""
    point = points.BY_NAME[name]

    def fault(r):
        if point.when == "return":
            r.kill(r.secondary)
            r.wait_state(r.primary, "alone")
        host = r.primary if point.host == "primary" or point.when == "lonely" else r.secondary
        passing = r.rng.randint(1, 3) if point.when == "checkpoint" else 1
        if point.when == "return" and point.host == "secondary":
            r.start(host)               # a host without power keeps no armed step
        r.session.arm(host, name, action, passing)
        if point.when == "return" and point.host == "primary":
            r.start(r.secondary)
        r.reboot = boots(f"at-{name}-{action}")
        bring_about(r, point, host, action)
        if action == "stop" and not point.survived and not r.not_reached:
            operator_acts(r, host)
    fault.__doc__ = f"{point.host} at {name}: {action}"
    return fault


def boots(name):
    """Does nothing of the guest's VMs survive that fault?"""
    point = points.BY_NAME.get(name.removeprefix("at-").rpartition("-")[0]) if name.startswith("at-") else None
    return bool(point) and not point.survived and not name.endswith("-sleep")


def kinds():
    """{name: (function, weight)}"""
    named = {f.__name__.replace("_", "-"): (f, 2) for f in (
        power_primary, power_secondary, both_in_turn, frozen, stopped_shortly, replication_cut, replication_blink,
        replication_one_way, flapping, slow_link, lan_cut, arbiter_cut, arbiter_cut_and_power, arbiter_cut_and_partition, switchover,
        pause_resume, stop_secondary)}
    for what in "vm", "disk", "daemon":
        for word, signum in ("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP):
            primary, secondary = killer(what, signum)
            named[f"{what}-{word}-primary"] = primary, 1
            named[f"{what}-{word}-secondary"] = secondary, 1
    return {**named, **_at_points(points.POINTS)}


def _at_points(which):
    return {f"at-{point.name}-{action}": (at_point(point.name, action), 0.25) for point in which
            for action in ("kill", "stop", "power", "sleep")}


def by_name():
    """Those that are not drawn, too."""
    return {**kinds(), **_at_points(points.STANDBY)}
