# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees while the demonstration runs: redrawn on a terminal, a line a second elsewhere."""
import sys
import time

EVENTS_SHOWN = 6


def milliseconds(microseconds):
    """A pause as text."""
    return "-" if microseconds is None else f"{microseconds / 1000:.1f} ms"


def host_line(name, state):
    """One host in a line."""
    if not isinstance(state, dict):
        return f"host {name}   no daemon answers"
    return (f"host {name}   {state.get('role', '?'):<10}{state.get('state', '?'):<12}"
            f"epoch {state.get('epoch', '?')}")


def checkpoint_line(state):
    """Checkpoints and pauses of the primary in a line."""
    if not isinstance(state, dict):
        return "checkpoints   none seen"
    causes = state.get("checkpoints", {}).get("by_cause", {})
    listed = ", ".join(f"{cause} {count}" for cause, count in causes.items() if count)
    pause = state.get("pause_us") or {}
    return (f"checkpoints {state.get('checkpoints', {}).get('total', 0)} ({listed or 'none'})   "
            f"pause p50 {milliseconds(pause.get('p50'))}, p99 {milliseconds(pause.get('p99'))}")


class View:
    """Collects what happens and shows it."""

    def __init__(self, title, out=sys.stdout):
        self.title = title
        self.out = out
        self.tty = out.isatty()
        self.events = []
        self.begin = time.monotonic()
        self.load_begin = None
        self.tick = self.previous = None
        self.drawn = 0
        self.last_line = 0

    def event(self, text):
        """Something happened which a person wants to know."""
        stamp = time.monotonic() - self.begin
        self.events.append(f"{stamp:6.1f} s  {text}")
        if not self.tty:
            print(self.events[-1], file=self.out, flush=True)
        elif self.drawn == 0:
            print(f"  {self.events[-1]}", file=self.out, flush=True)

    def clients(self, tick):
        """The clients said how far they are."""
        self.previous, self.tick = self.tick, tick

    def show(self, monitor):
        """Draw, or print a line when a second has gone by."""
        if self.load_begin is None or self.tick is None:
            return
        if self.tty:
            self._draw(self._lines(monitor))
        elif time.monotonic() - self.last_line >= 1:
            self.last_line = time.monotonic()
            print(self._one_line(monitor), file=self.out, flush=True)

    def _rate(self):
        """Web requests per second of the checking clients."""
        if not self.previous:
            return 0
        passed = self.tick["at"] - self.previous["at"]
        names = ("web keep-alive", "web new connections")
        done = sum(self.tick["requests"].get(name, 0) - self.previous["requests"].get(name, 0)
                   for name in names)
        return done / passed if passed > 0 else 0

    def _work_line(self):
        tick = self.tick
        return (f"web {self._rate():.0f} checked requests/s   echo {tick['echo_rtt_ms']:.1f} ms   "
                f"commits acknowledged {tick['ledger']}   failures {tick['failures']}   "
                f"broken {tick['broken']}")

    def _lines(self, monitor):
        passed = time.monotonic() - self.load_begin
        lines = [f"{self.title}   {passed:.1f} s under load"]
        lines += [host_line(name, monitor.latest.get(name)) for name in ("a", "b")]
        lines += [checkpoint_line(monitor.before), self._work_line()]
        return lines + [f"  {event}" for event in self.events[-EVENTS_SHOWN:]]

    def _draw(self, lines):
        """Replace what was drawn before."""
        up = f"\x1b[{self.drawn}A" if self.drawn else ""
        self.out.write(up + "".join(f"\x1b[2K{line[:118]}\n" for line in lines))
        for _ in range(self.drawn - len(lines)):
            self.out.write("\x1b[2K\n")
        self.drawn = max(self.drawn, len(lines))
        self.out.flush()

    def _one_line(self, monitor):
        states = " ".join(f"{name}:{(state or {}).get('state', '-')}"
                          for name, state in sorted(monitor.latest.items()))
        epoch = (monitor.before or {}).get("epoch", "-")
        passed = time.monotonic() - self.load_begin
        return (f"{passed:6.1f} s under load  {states}  epoch {epoch}  "
                f"{checkpoint_line(monitor.before)}  {self._work_line()}")
