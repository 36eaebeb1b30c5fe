# SPDX-License-Identifier: GPL-2.0-or-later
"""All fail points (common/failpoint.h): where they are passed, and what brings a host there.

	host      whose process passes it: that of the primary, of the secondary (also one that returns), or of the survivor
	when      checkpoint  at each checkpoint
	          return      when a host that lost power is back: sync, seed, first checkpoint
	          takeover    when the primary's power is lost
	          switchover  when the operator exchanges the roles
	survived  the guest goes on when the process or the host dies here. Not so where its other half has gone already: then
	          it boots again, from a disk on which no acknowledged commit is missing
"""
from collections import namedtuple

Point = namedtuple("Point", "name host when survived")


def _points(host, when, survived, names):
    return [Point(name, host, when, survived) for name in names.split()]


POINTS = [
    *_points("primary", "checkpoint", True,
             "harvest agent-stopped disk-marked agent-marked agent-harvested harvested boundary-sent pages-half pages-sent "
             "held-received applied-received"),
    *_points("secondary", "checkpoint", True,
             "boundary-received complete held-sent stopped disk-commit disk-commit-record disk-committed committed "
             "agent-applied agent-run applied disk-settle"),
    *_points("primary", "return", False,
             "session-accepted disk-sync-begin disk-sync-part disk-sync-end seed-start seed-half seed-copied "
             "first-boundary"),
    *_points("secondary", "return", True, "session-dialled seed-ready"),
    *_points("survivor", "takeover", False,
             "claim claim-won disk-failover disk-saved failed-over disk-serve disk-serving take-over disk-write-back "
             "disk-written-back"),
    *_points("primary", "switchover", True, "hand-over handed-over"),
    *_points("secondary", "switchover", False, "hand-over-received"),
    *_points("survivor", "lonely", False, "serve-alone"),
]
# with [vm] driver = standby only; by name only: tests/campaign/run --set vm.driver=standby --fault at-...
STANDBY = [
    *_points("primary", "checkpoint", True, "standby-harvested"),
    *_points("secondary", "checkpoint", True, "standby-applied standby-switched"),
]
BY_NAME = {point.name: point for point in POINTS + STANDBY}
