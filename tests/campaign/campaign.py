# SPDX-License-Identifier: GPL-2.0-or-later
"""One round of a campaign: a fault, the way back, and what must hold after it."""
import os
import random
import signal
import time

import faults
from session import OTHER, Violation

PROTECTED_LIMIT = 90
STEADY = 1.0                    # protection that lasts so long is no state of before the fault
HAND_AFTER = 4                  # seconds that a host may stand without any process before it is started by hand
ANSWER_LIMIT = 30
BOOT_LIMIT = 300                # two guests boot side by side, and replay their databases, on a machine that others use


class Round:
    """What a fault works with. Everything drawn at random comes from rng."""

    def __init__(self, session, rng):
        self.session, self.rng = session, rng
        self.killed, self.starts, self.frozen, self.cuts = set(), set(), [], set()
        self.reboot = self.not_reached = self.slowed = False
        self.by_hand = 0
        self.notes = []
        self.find_roles()

    def find_roles(self):
        """Who serves now."""
        self.primary = self.session.primary()
        self.secondary = OTHER[self.primary]

    def either(self):
        """One of the hosts, and the note which."""
        host = self.rng.choice(["a", "b"])
        self.note(f"{'primary' if host == self.primary else 'secondary'} {host}")
        return host

    def note(self, text):
        """Say it in the result."""
        self.notes.append(text)

    # ---- faults ----

    def kill(self, host):
        """Its power is lost."""
        self.session.lab("kill", host)
        self.session.lab("failpoint", host, "none")
        self.killed.add(host)

    def start(self, host):
        """Its power is back."""
        self.session.lab("start", host)
        self.killed.discard(host)
        self.starts.discard(host)

    def cut(self, link):
        """Cut a link until heal()."""
        self.cuts.add(link)
        self.session.lab("cut", link)

    def heal(self, *links):
        """Heal those links, or all that were cut."""
        for link in links or sorted(self.cuts):
            self.session.lab("heal", link)
            self.cuts.discard(link)

    def slow(self, delay_ms, rate):
        """The replication link is far and thin until the fault is over."""
        self.session.lab("slow", "--delay", str(delay_ms), "--rate", rate)
        self.slowed = True

    def thaw_later(self, pids):
        """They stand still until the fault is over."""
        self.frozen += pids

    def thaw(self, pids):
        """They go on."""
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    # ---- waiting ----

    def wait(self, what, test, limit):
        """A deadline that is missed is a violation."""
        try:
            return self.session.wait(what, test, limit)
        except AssertionError as err:
            raise Violation(f"{err}; {self.session.states()}") from err

    def wait_state(self, host, state):
        """Until a host says that it is in that state."""
        self.wait(f"{host} {state}", lambda: (self.session.states()[host] or (0, 0))[1] == state, faults.TAKEOVER_LIMIT)

    def wait_role(self, host, role):
        """Until a host has that role."""
        self.wait(f"{host} {role}", lambda: (self.session.states()[host] or (0, 0))[0] == role, faults.TAKEOVER_LIMIT)

    # ---- the way back ----

    def undo(self):
        """What the fault took away comes back: links, power, time."""
        self.heal()
        if self.slowed:
            self.session.lab("slow", "off")
            self.slowed = False
        self.thaw(self.frozen)
        self.frozen = []
        for host in sorted(self.killed | self.starts):
            self.start(host)

    def recover(self):
        """Until the pair is protected; seconds that took."""
        self.undo()
        begin, lonely, since = time.monotonic(), {}, None
        while True:
            now = time.monotonic()
            since = (since or now) if self.session.is_protected() else None
            if since and now - since >= STEADY:
                return since - begin
            if now - begin > PROTECTED_LIMIT:
                raise Violation(f"not protected within {PROTECTED_LIMIT} s: {self.session.states()}")
            for host in OTHER:
                self._mind(host, now, lonely)
            time.sleep(0.1)

    def _mind(self, host, now, lonely):
        """A host that nobody starts again would never come back: start it, and say so."""
        if self.session.pids(host, "all"):
            lonely.pop(host, None)
        elif now - lonely.setdefault(host, now) > HAND_AFTER:
            lonely.pop(host)
            self.by_hand += 1
            self.start(host)


class Campaign:
    """Rounds on one session."""

    def __init__(self, session):
        self.session = session
        self.kinds = faults.by_name()
        self.session.work.ask("mark")
        self.session.watcher.ask("summary")

    def round(self, number, kind, seed):
        """One fault, and everything that must hold. The result as a dict."""
        result = {"number": number, "kind": kind, "ok": False, "violation": None, "loads": {}, "lan": {}, "well_s": None,
                  "reboot": False, "not_reached": False, "by_hand": 0, "notes": []}
        r = None
        try:
            self._wait_quiet()
            r = Round(self.session, random.Random(seed))
            time.sleep(r.rng.uniform(0, 1))
            result["at"] = time.time()
            self.kinds[kind][0](r)
            result["well_s"] = round(r.recover(), 1)
            r.not_reached |= bool(self.session.disarm())
            self._judge(r, result)
            result["ok"] = True
        except Violation as err:
            result["violation"] = str(err)
        except (AssertionError, RuntimeError, OSError) as err:
            result["violation"] = f"the campaign itself: {err!r}"
        if not result["ok"] and not result["loads"]:
            result["loads"] = self._loads_so_far()
        if r:
            result.update(reboot=r.reboot, not_reached=r.not_reached, by_hand=r.by_hand, notes=r.notes)
        return result

    def _loads_so_far(self):
        """For whoever looks for the cause."""
        try:
            return self.session.work.ask("mark")
        except (Violation, RuntimeError, OSError):
            return {}

    def _wait_quiet(self):
        self.session.wait("protection", self.session.is_protected, PROTECTED_LIMIT)

    # ---- what must hold ----

    def _judge(self, r, result):
        self._answers_again(BOOT_LIMIT if r.reboot else ANSWER_LIMIT)
        result["lan"] = self.session.watcher.ask("summary")
        result["loads"] = self.session.work.ask("mark")
        result["audit"] = self.session.work.ask("audit", 60)
        for said in result["loads"].values():   # when each gap began, seconds after the fault
            said["gaps"] = [(round(end - gap / 1000 - result["at"], 2), gap) for end, gap in said["gaps"]]
        self._judge_audit(result["audit"])
        self._judge_lan(result["lan"])
        if not r.reboot:
            self._judge_loads(result["loads"])

    def _answers_again(self, limit):
        """Every workload gets answers."""
        before = self.session.work.ask("counts")
        deadline = time.monotonic() + limit
        while True:
            now = self.session.work.ask("counts")
            silent = [name for name in before if now[name] - before[name] < 3]
            if not silent:
                return
            if time.monotonic() > deadline:
                raise Violation(f"protected, but no answers: {', '.join(silent)}")
            time.sleep(0.1)

    def _judge_audit(self, audit):
        if audit.get("error"):
            raise Violation(f"the ledger cannot be read: {audit['error']}")
        for word in "missing", "twice", "vanished":
            if audit[word]:
                raise Violation(f"ledger: {audit}")

    def _judge_lan(self, lan):
        if lan["violations"]:
            raise Violation(f"two hosts serve: {lan['violations'][:3]} ({lan['violation_count']} in all), {lan['takeovers']}")
        if lan["server"] != self.session.primary():
            raise Violation(f"the LAN hears {lan['server']}, but {self.session.primary()} says that it serves")

    def _judge_loads(self, loads):
        for name, said in loads.items():
            if said["failures"] or said["broken"]:
                raise Violation(f"{name}: {said}")
