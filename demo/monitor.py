# SPDX-License-Identifier: GPL-2.0-or-later
"""Watch both daemons while the load runs; the last look before the failure is the one reported."""
import threading
import time

from labctl import primary_of

INTERVAL = 1.0


class Monitor:
    """Polls the lab's status in a thread of its own."""

    def __init__(self, lab):
        self.lab = lab
        self.latest = {"a": None, "b": None}
        self.before = None
        self.frozen = False
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        """Begin to poll."""
        self.thread.start()

    def end(self):
        """Poll no more."""
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join(10)

    def freeze(self):
        """The failure comes now: keep what the primary said last."""
        self.sample()
        self.frozen = True

    def sample(self):
        """Look once; what the primary says is kept until the failure."""
        status = self.lab.status()
        self.latest = status
        primary = primary_of(status)
        if primary and not self.frozen:
            self.before = status[primary]

    def wait_failover(self, host, seconds):
        """The last_failover of @host, None when it reports none in @seconds."""
        deadline = time.monotonic() + seconds
        while True:
            state = self.lab.status().get(host)
            if isinstance(state, dict) and state.get("last_failover"):
                self.latest[host] = state
                return state["last_failover"]
            if time.monotonic() > deadline:
                return None
            time.sleep(0.3)

    def wait_protected(self, seconds):
        """Both daemons say that the guest is protected; False when they do not in @seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.latest = self.lab.status()
            if all(isinstance(s, dict) and s.get("state") == "protected" for s in self.latest.values()):
                return True
            time.sleep(0.1)
        return False

    def _run(self):
        while not self.stop.wait(INTERVAL):
            self.sample()
